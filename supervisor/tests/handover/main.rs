//! Every message of the handover with every fault, against the real supervisor: what a peer says or
//! reads, when it dies before it or after it, says it twice or too early, says rubbish instead, stops,
//! or is short of descriptors. `examples/scripted_worker.rs` is the peer.
//!
//! - [`cells`]: the table, complete for every message and every fault.
//! - [`stage`]: one supervisor that serves, and what is checked after each fault.
//! - [`starts`]: the same for starts and removals.
//!
//! Whatever the fault, governance is as it was, a sane worker is granted afterwards, and the supervisor
//! holds no more descriptors than before.

mod cells;
mod stage;
mod starts;

use std::collections::BTreeMap;
use std::sync::Mutex;

use holdfast_lab::handover::{Fault, Said};
use holdfast_lab::{Lab, TestResult, isolated};

use cells::{Cell, Due, Expected, of_closer, of_loader, of_remover, of_worker};
use stage::{Outcome, Place, Stage};
use starts::{try_loader, try_remover, try_starved_start};

/// Rows that are worked on at the same time, not counting those who wait for a deadline.
const BUSY: usize = 3;

/// Cells for one supervisor after the other.
type Row = Vec<Cell>;

/// The cells of one message in one row, except those that wait for a deadline: each of these has a row
/// to itself.
fn rows(cells: &[Cell]) -> (Vec<Row>, Vec<Row>) {
    let (waiting, quick): (Vec<_>, Vec<_>) =
        cells.iter().cloned().partition(|cell| cell.fault == Fault::Stops);
    let mut rows: BTreeMap<_, Row> = BTreeMap::new();
    for cell in quick {
        rows.entry(cell.due).or_default().push(cell);
    }
    (rows.into_values().collect(), waiting.into_iter().map(|cell| vec![cell]).collect())
}

/// Works on all of `cells`, a row at a time, and fails with everything that went wrong.
fn work(
    lab: &Lab,
    kind: &str,
    cells: &[Cell],
    run: impl Fn(&Lab, &str, &[Cell], &dyn Fn(&Cell, Outcome)) -> Outcome + Sync,
) {
    let (quick, waiting) = rows(cells);
    let queue = Mutex::new(quick.into_iter().enumerate());
    let troubles = Mutex::new(Vec::new());
    let note = |cell: &Cell, outcome: Outcome| {
        if let Err(error) = outcome {
            let text = format!("{:?} at {:?}: {error}", cell.fault, cell.due);
            troubles.lock().expect("nobody panics").push(text);
        }
    };
    let row = |name: String, row: &[Cell]| {
        let outcome = run(lab, &name, row, &note);
        note(&row[0], outcome);
    };
    std::thread::scope(|scope| {
        for (number, cells) in waiting.iter().enumerate() {
            scope.spawn(move || row(format!("{kind}-w{number}"), cells));
        }
        for _ in 0..BUSY {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().expect("nobody panics").next();
                    let Some((number, cells)) = next else { return };
                    row(format!("{kind}-{number}"), &cells);
                }
            });
        }
    });
    let troubles = troubles.into_inner().expect("nobody panics");
    assert!(troubles.is_empty(), "{}", troubles.join("\n\n"));
}

#[test]
fn a_worker_that_breaks_the_handover_costs_nobody_anything() {
    println!("{} cells of a worker", of_worker().len());
    isolated(|lab| -> TestResult {
        work(lab, "worker", &of_worker(), |lab, name, row, note| {
            let mut stage = Stage::start(lab, name)?;
            row.iter().for_each(|cell| note(cell, stage.try_worker(cell)));
            Ok(())
        });
        Ok(())
    });
}

#[test]
fn a_loader_that_breaks_the_handover_changes_nothing_and_the_next_completes_it() {
    println!("{} cells of a loader", of_loader().len());
    println!("{} cells of a loader that removes", of_remover().len());
    isolated(|lab| -> TestResult {
        // At the same time, because both wait for the same deadline.
        std::thread::scope(|scope| {
            scope.spawn(|| load(lab));
            scope.spawn(|| remove(lab));
        });
        Ok(())
    });
}

fn load(lab: &Lab) {
    work(lab, "loader", &of_loader(), |lab, name, row, note| {
        let place = Place::new(lab, name)?;
        drop(place.launch().start()?);
        row.iter().for_each(|cell| note(cell, try_loader(&place, cell)));
        Ok(())
    });
}

fn remove(lab: &Lab) {
    work(lab, "remover", &of_remover(), |lab, name, row, note| {
        let place = Place::new(lab, name)?;
        row.iter().for_each(|cell| note(cell, try_remover(&place, cell)));
        Ok(())
    });
}

#[test]
fn a_closer_that_breaks_the_handover_costs_nobody_anything() {
    println!("{} cells of a closer", of_closer().len());
    isolated(|lab| -> TestResult {
        work(lab, "closer", &of_closer(), |lab, name, row, note| {
            for (number, cell) in row.iter().enumerate() {
                // A supervisor for each: after a closer that failed, the next one has to wait.
                let mut stage = Stage::start(lab, &format!("{name}-{number}"))?;
                note(cell, stage.try_closer(cell));
            }
            Ok(())
        });
        Ok(())
    });
}

/// By itself: a closer that has just been at work keeps the next one waiting, whoever asks.
#[test]
fn who_may_not_write_has_no_closer_started() {
    isolated(|lab| -> TestResult {
        let (due, fault) = (Due::Said(Said::Overdue), Fault::Early);
        let mut stage = Stage::start(lab, "overdue")?;
        stage.try_worker(&Cell { due, fault, expected: Expected::Granted })
    });
}

#[test]
fn a_successor_is_told_how_to_recognise_what_is_in_force_and_nothing_else() {
    isolated(|lab| -> TestResult {
        let mut stage = Stage::start(lab, "seen")?;
        assert!(stage.tells_successor()?);
        stage.reload_with("elsewhere")?;
        assert!(!stage.tells_successor()?, "something else is in force");
        stage.reload_with("")?;
        assert!(stage.tells_successor()?);
        Ok(())
    });
}

#[test]
fn a_spare_that_knows_how_things_stand_is_granted_without_being_told_again() {
    isolated(|lab| -> TestResult {
        let mut stage = Stage::start_with(lab, "spare", |launch| launch.flag("--standby"))?;
        stage.reload_with("aloud")?;
        // The one that waited meanwhile was told at its start; the next one says what it hears.
        stage.kill_beside_spare()?;
        let log = stage.kill_beside_spare()?;
        assert!(log.contains("told Grant\n"), "{log}");
        assert!(!log.contains("told InForce\n") && !log.contains("told History\n"), "{log}");
        Ok(())
    });
}

/// Fails unless both answers were given.
fn both(answers: &[bool]) {
    assert!(answers.contains(&true) && answers.contains(&false), "{answers:?}");
    println!(
        "{} limits, {} of them too low",
        answers.len(),
        answers.iter().filter(|a| !**a).count()
    );
}

#[test]
fn a_supervisor_short_of_descriptors_keeps_its_worker() {
    isolated(|lab| -> TestResult {
        let mut stage = Stage::start(lab, "lab")?;
        let answers: Result<Vec<_>, _> = (0..8).map(|room| stage.try_starved(room)).collect();
        both(&answers?);
        Ok(())
    });
}

#[test]
fn a_start_short_of_descriptors_changes_nothing() {
    isolated(|lab| -> TestResult {
        let place = Place::new(lab, "lab")?;
        drop(place.launch().start()?);
        let answers: Result<Vec<_>, _> =
            (4..28).map(|limit| try_starved_start(&place, limit)).collect();
        both(&answers?);
        drop(place.launch().start()?);
        Ok(())
    });
}
