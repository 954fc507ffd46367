//! Every message the supervisor sends a loader with every fault, and every message of a loader with a
//! supervisor that is gone when it is said: the loader ends, and what governs stays.

use std::collections::VecDeque;

use holdfast_lab::handover::{Fault, Said, Told};
use holdfast_protocol::handover::{ConfigReport, History, Offer, Seen, ToChild, Vitals};

use crate::assert_governed;
use crate::supervisor::{Estate, Loader, SERVICES, SLOTS, hello, load, start};
use crate::world::World;

/// How a loader ends that did what it was to do, or did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Done = 0,
    Failed = 1,
}

fn message(told: Told, world: &World) -> ToChild {
    match told {
        Told::Hello => hello(&world.instance),
        Told::Accept => ToChild::Accept { index: 0 },
        Told::Offer => ToChild::Offer(Offer { index: 0, of: 1, entries: Vec::new() }),
        Told::Release => ToChild::Release,
        Told::Grant => ToChild::Grant { epoch: 1 },
        Told::Leave => ToChild::Leave,
        Told::Query => ToChild::Query { id: 7, body: vec![1] },
        Told::InForce => ToChild::InForce(ConfigReport::default()),
        Told::Seen => ToChild::Seen(Seen::default()),
        Told::History => ToChild::History(History::default()),
        Told::Keep => ToChild::Keep,
        Told::Vitals => ToChild::Vitals(Vitals::default()),
        Told::Attached => ToChild::Attached,
        Told::NotAttached => ToChild::NotAttached { reason: "no room".to_owned() },
    }
}

fn expected(told: Told, fault: Fault) -> Option<Expected> {
    match (told, fault) {
        // Nothing comes with a descriptor, so none can be missing.
        (_, Fault::TooFew) => None,
        // Whatever comes before the greeting, be it the greeting itself, is one message too many.
        (_, Fault::Early) => Some(Expected::Failed),
        // The last word: who has heard it is done, and reads nothing more.
        (Told::Accept, Fault::DiesAfter | Fault::Twice) => Some(Expected::Done),
        (Told::Hello | Told::Accept, Fault::TooMany) => Some(Expected::Done),
        (Told::Hello | Told::Accept, _) => Some(Expected::Failed),
        // These are for workers.
        (
            Told::Offer
            | Told::Release
            | Told::Grant
            | Told::Leave
            | Told::Query
            | Told::InForce
            | Told::Seen
            | Told::History
            | Told::Keep
            | Told::Vitals
            | Told::Attached
            | Told::NotAttached,
            _,
        ) => None,
    }
}

/// A loader to which this message is due.
fn reach(told: Told, world: &World) -> Loader {
    let loader = start(world, "load", &world.cgroup.path, SERVICES, SLOTS);
    if told == Told::Accept {
        loader.say(&hello(&world.instance));
        hear_until(&loader, Said::Offer);
    }
    loader
}

fn hear_until(loader: &Loader, wanted: Said) {
    while let Some((said, _descriptors)) = loader.hear() {
        if Said::from(&said) == wanted {
            return;
        }
    }
    panic!("the loader ended and never said {wanted:?}");
}

/// Fails unless the next loader finds everything as it was.
#[track_caller]
fn assert_unchanged(world: &World, estate: &Estate, census: &[String]) {
    assert_eq!(world.census(), census);
    let again = load(world).estate();
    assert_eq!((&again.entries, &again.repaired), (&estate.entries, &Vec::new()));
    assert_governed(&world.cgroup, &estate.entries);
}

/// Makes one fault, after which the loader is heard out as if nothing had been.
fn commit(world: &World, told: Told, fault: Fault) -> Loader {
    let due = if fault == Fault::Early { Told::Hello } else { told };
    let mut loader = reach(due, world);
    loader.commit(fault, &message(told, world));
    if fault == Fault::Early {
        loader.say(&hello(&world.instance));
    } else if told == Told::Hello && fault == Fault::TooMany {
        hear_until(&loader, Said::Offer);
        loader.say(&message(Told::Accept, world));
    }
    loader
}

#[test]
fn a_supervisor_that_breaks_the_handover_ends_its_loader_and_changes_nothing() {
    let world = World::new();
    let estate = load(&world).estate();
    let census = world.census();
    let cells: Vec<_> = Told::ALL
        .iter()
        .flat_map(|told| Fault::ALL.iter().map(|fault| (*told, *fault)))
        .filter_map(|(told, fault)| Some((told, fault, expected(told, fault)?)))
        .collect();
    println!("{} cells of a loader's supervisor", cells.len());
    // Those that wait for the same deadline do so together. One that was offered the estate keeps
    // other loaders away, so it is the last.
    let (waiting, quick): (VecDeque<_>, VecDeque<_>) =
        cells.into_iter().partition(|(_, fault, _)| *fault == Fault::Stops);
    for (told, fault, expected) in quick {
        println!("{fault:?} at {told:?}");
        let ended = commit(&world, told, fault).ended();
        assert_eq!(ended.code(), Some(expected as i32), "{fault:?} at {told:?}");
        assert_unchanged(&world, &estate, &census);
    }
    let stopped = waiting.into_iter().map(|(told, fault, _)| commit(&world, told, fault));
    let stopped: Vec<_> = stopped.collect();
    for loader in stopped {
        assert_eq!(loader.ended().code(), Some(Expected::Failed as i32));
    }
    assert_unchanged(&world, &estate, &census);
}

#[test]
fn a_supervisor_that_is_gone_when_a_loader_answers_changes_nothing() {
    let world = World::new();
    let estate = load(&world).estate();
    let census = world.census();
    for said in Said::ALL {
        match said {
            Said::Welcome | Said::Offer => {
                let loader = start(&world, "load", &world.cgroup.path, SERVICES, SLOTS);
                loader.say(&hello(&world.instance));
                hear_until(&loader, *said);
                assert_eq!(loader.hang_up().code(), Some(Expected::Failed as i32), "{said:?}");
            }
            // It is the last thing it says, and it has failed already.
            Said::Refused => {
                let loader = start(&world, "load", &world.cgroup.path, 2 * SERVICES, SLOTS);
                loader.say(&hello(&world.instance));
                hear_until(&loader, *said);
                assert_eq!(loader.hang_up().code(), Some(Expected::Failed as i32));
            }
            // Where something is repaired or removed, whoever hears of it changes nothing about that:
            // `killed` ends loaders at every instant of it.
            Said::Repaired | Said::Cleared => {}
            // These are a worker's.
            Said::Accepted
            | Said::Ready
            | Said::Released
            | Said::Granted
            | Said::Heartbeat
            | Said::Config
            | Said::Answer
            | Said::Trying
            | Said::Kept
            | Said::NotKept
            | Said::SnapshotUnusable
            | Said::Overdue
            | Said::Attach
            | Said::Seen => {}
            // And this the closer's.
            Said::Closed => {}
        }
        assert_unchanged(&world, &estate, &census);
    }
}

#[test]
fn a_supervisor_that_breaks_off_before_a_removal_removes_nothing() {
    let world = World::new();
    let estate = load(&world).estate();
    let census = world.census();
    for fault in Fault::ALL {
        // Those after which a whole greeting was heard, and one that waits for a deadline that the
        // same conversation was shown to keep to.
        if matches!(
            fault,
            Fault::DiesAfter
                | Fault::Twice
                | Fault::TooFew
                | Fault::TooMany
                | Fault::Early
                | Fault::Stops
        ) {
            continue;
        }
        let mut loader = start(&world, "clear", &world.cgroup.path, SERVICES, SLOTS);
        loader.commit(*fault, &hello(&world.instance));
        assert_eq!(loader.ended().code(), Some(Expected::Failed as i32), "{fault:?}");
        assert_unchanged(&world, &estate, &census);
    }
}
