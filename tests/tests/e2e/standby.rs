//! A spare worker waits in shadow, and a crash costs a grant.

use std::time::{Duration, Instant};

use holdfast_lab::load::Shape;
use holdfast_lab::process::Process;
use holdfast_lab::wait::holds;
use holdfast_lab::{
    Backend, Lab, LabError, Load, Supervisor, Target, TestResult, eventually, isolated, render,
};
use holdfast_protocol::control::Status;
use nix::sys::signal::Signal;

use crate::scene::{FILE, WEB, assert_reached, put_in_force, web};

const KILLS: u32 = 50;
const SAVES: u32 = 20;
const SIGHUPS: u32 = 100;

/// Most workers at any time: the one that writes, its successor or predecessor, and a spare.
const MOST_WORKERS: usize = 3;

/// One client, often: what a gap would show in.
const SHAPE: Shape = Shape { clients: 2, rest: Duration::from_millis(1), seed: 3 };

/// A supervisor that keeps a spare, with `backend` behind the service.
fn start(lab: &Lab, backend: &Backend) -> Result<Supervisor, LabError> {
    let file = lab.write(FILE, render(&[web(backend)]))?;
    lab.supervisor(&file).flag("--standby").start()
}

/// Waits until a worker writes and a spare is ready; their processes.
fn guarded(supervisor: &mut Supervisor) -> Result<(u32, u32, Status), LabError> {
    let status = supervisor.wait_until("a spare that is ready", |status| {
        let ready = status.standby.as_ref().is_some_and(|spare| spare.state == "shadow");
        status.worker.state == "granted" && ready
    })?;
    let spare = status.standby.as_ref().map_or(0, |spare| spare.pid);
    Ok((status.worker.pid, spare, status))
}

fn kill(supervisor: &Supervisor, pid: u32) -> TestResult {
    Ok(holds(supervisor.kill_worker(pid), || format!("the worker {pid} could not be killed"))?)
}

#[test]
fn fifty_kills_are_each_answered_by_the_spare() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        let mut supervisor = start(lab, &red)?;
        let load = Load::start(&[Target::tcp(WEB, &["red"])], SHAPE);
        for number in 0..KILLS {
            let (writer, spare, before) = guarded(&mut supervisor)?;
            assert_ne!(writer, spare);
            kill(&supervisor, writer)?;
            let after = supervisor.wait_until("another takeover", |status| {
                status.takeovers.count > before.takeovers.count
            })?;
            assert_eq!(after.worker.pid, spare, "kill {number}");
            assert_eq!(after.epoch, before.epoch + 1, "kill {number}");
            let last = after.takeovers.last.expect("there was one");
            assert_eq!((&*last.reason, last.spawn_us), ("crash", 0), "nothing was started for it");
        }
        let tally = load.finish();
        assert_eq!((tally.failed, tally.ungoverned), (0, 0), "{tally:?}");
        assert!(tally.reached > u64::from(KILLS), "{tally:?}");
        assert_eq!(supervisor.status()?.takeovers.failed, 0);
        Ok(())
    });
}

#[test]
fn a_spare_that_dies_or_hangs_is_replaced_and_the_writer_left_in_peace() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        let mut supervisor = start(lab, &red)?;
        for signal in [Signal::SIGKILL, Signal::SIGSTOP, Signal::SIGKILL] {
            let (writer, spare, before) = guarded(&mut supervisor)?;
            let process = Process::open(spare)?;
            assert!(supervisor.workers().contains(&spare), "it is this lab's worker");
            process.signal(signal)?;
            let after = supervisor.wait_until("another spare", |status| {
                status.standby.as_ref().is_some_and(|now| now.pid != spare && now.state == "shadow")
            })?;
            assert_eq!((after.worker.pid, after.epoch), (writer, before.epoch));
            assert_eq!(after.takeovers.count, before.takeovers.count);
            assert_eq!(after.takeovers.failed, 0, "a spare is no takeover");
        }
        Ok(())
    });
}

#[test]
fn when_writer_and_spare_die_at_once_another_worker_writes() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        let mut supervisor = start(lab, &red)?;
        for order in [true, false, true, false] {
            let (writer, spare, before) = guarded(&mut supervisor)?;
            let (first, second) = if order { (writer, spare) } else { (spare, writer) };
            // Both are dead before the supervisor hears of either.
            supervisor.signal(Signal::SIGSTOP)?;
            kill(&supervisor, first)?;
            kill(&supervisor, second)?;
            supervisor.signal(Signal::SIGCONT)?;
            let after = supervisor.wait_until("another writer", |status| {
                status.worker.state == "granted" && ![writer, spare].contains(&status.worker.pid)
            })?;
            assert!(after.epoch > before.epoch);
            assert_reached(&Target::tcp(WEB, &["red"]));
        }
        Ok(())
    });
}

#[test]
fn a_reload_goes_through_a_worker_of_its_own_and_ends_the_former_spare() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        let mut supervisor = start(lab, &red)?;
        let (writer, spare, before) = guarded(&mut supervisor)?;
        supervisor.signal(Signal::SIGHUP)?;
        supervisor.wait_for_grant_after(before.epoch)?;
        let (reloaded, fresh, _) = guarded(&mut supervisor)?;
        let all = std::collections::BTreeSet::from([writer, spare, reloaded, fresh]);
        assert_eq!(all.len(), 4, "neither former one serves on: {all:?}");
        kill(&supervisor, reloaded)?;
        supervisor.wait_until("the spare", |status| {
            status.worker.pid == fresh && status.worker.state == "granted"
        })?;
        Ok(())
    });
}

#[test]
fn a_spare_never_brings_back_what_was_before_a_save() {
    isolated(|lab| {
        let (red, blue) = (Backend::tcp("red")?, Backend::tcp("blue")?);
        let mut supervisor = start(lab, &red)?;
        for number in 0..SAVES {
            let (backend, name) = if number % 2 == 0 { (&blue, "blue") } else { (&red, "red") };
            let (writer, spare, _) = guarded(&mut supervisor)?;
            put_in_force(lab, &mut supervisor, &render(&[web(backend)]))?;
            // From here on, nobody reaches the former backend.
            let load = Load::start(&[Target::tcp(WEB, &[name])], SHAPE);
            kill(&supervisor, writer)?;
            supervisor.wait_until("the spare", |status| {
                status.worker.pid == spare && status.worker.state == "granted"
            })?;
            let (_, _, status) = guarded(&mut supervisor)?;
            assert_eq!((status.services, status.endpoints), (1, 1), "save {number}");
            let tally = load.finish();
            assert_eq!(tally.failed + tally.ungoverned, 0, "save {number}: {tally:?}");
            assert_eq!(tally.by_backend.keys().collect::<Vec<_>>(), [name], "save {number}");
        }
        Ok(())
    });
}

#[test]
fn a_storm_of_reloads_starts_no_more_workers_than_three() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        let mut supervisor = start(lab, &red)?;
        let (_, _, before) = guarded(&mut supervisor)?;
        let mut most = 0;
        for _ in 0..SIGHUPS {
            supervisor.signal(Signal::SIGHUP)?;
            let until = Instant::now() + Duration::from_millis(5);
            while Instant::now() < until {
                most = most.max(supervisor.workers().len());
            }
        }
        assert!((2..=MOST_WORKERS).contains(&most), "{most} workers at once");
        supervisor.wait_for_grant_after(before.epoch)?;
        let (writer, spare, status) = guarded(&mut supervisor)?;
        assert_eq!(status.takeovers.failed, 0);
        eventually("nobody else to be left", || {
            let mut workers = supervisor.workers();
            workers.sort_unstable();
            let mut wanted = [writer, spare];
            wanted.sort_unstable();
            holds(workers == wanted, || format!("{workers:?}, not {wanted:?}"))
        })?;
        Ok(())
    });
}

#[test]
fn a_supervisor_that_becomes_another_binary_keeps_its_worker_and_starts_another_spare() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        let mut supervisor = start(lab, &red)?;
        let (writer, spare, before) = guarded(&mut supervisor)?;
        supervisor.signal(Signal::SIGUSR2)?;
        supervisor.wait_until("a replacement", |status| status.replacements.count == 1)?;
        let (same, fresh, after) = guarded(&mut supervisor)?;
        assert_eq!((same, after.epoch), (writer, before.epoch));
        assert_ne!(fresh, spare);
        kill(&supervisor, writer)?;
        supervisor.wait_until("the spare", |status| status.worker.pid == fresh)?;
        Ok(())
    });
}
