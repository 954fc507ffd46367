//! How else a worker can end or fail to begin, under load: none of it costs a connection. (Kills are in
//! `faults`, refusals in `lifecycle`, one that hangs and wakes up again in `tests/museum`.)

use std::time::Duration;

use holdfast_lab::control::{ask, socket_path};
use holdfast_lab::load::Shape;
use holdfast_lab::process::Process;
use holdfast_lab::wait::{eventually, holds};
use holdfast_lab::{Backend, Lab, Load, Supervisor, Target, binaries, isolated, render};
use holdfast_protocol::control::{Request, Response};
use holdfast_tests::builds::{own_worker, replace, script};
use nix::sys::signal::Signal;

use crate::scene::{FILE, Scene, WEB, put_in_force, web};

/// What a process does to itself by a mistake in it, or the kernel because of one.
const CRASHES: [Signal; 6] = [
    Signal::SIGSEGV,
    Signal::SIGABRT,
    Signal::SIGBUS,
    Signal::SIGILL,
    Signal::SIGFPE,
    Signal::SIGSYS,
];

fn clients(backends: &[&str]) -> Load {
    let shape = Shape { clients: 2, rest: Duration::from_millis(1), seed: 5 };
    Load::start(&[Target::tcp(WEB, backends)], shape)
}

#[track_caller]
fn assert_unharmed(load: Load) {
    let tally = load.finish();
    assert_eq!((tally.failed, tally.ungoverned), (0, 0), "{tally:?}");
    assert!(tally.reached > 0, "{tally:?}");
}

#[test]
fn a_crash_of_any_kind_is_named_and_costs_no_connection() {
    isolated(|lab| {
        let mut scene = Scene::start(lab)?;
        let load = clients(&["red"]);
        for signal in CRASHES {
            let before = scene.supervisor.status()?;
            let worker = Process::open(before.worker.pid)?;
            // Rust's runtime has a look at some of them first, and lets the mistake happen again.
            eventually("its end", || {
                let _gone = worker.signal(signal);
                let ended = worker.wait(Duration::from_millis(10)).unwrap_or(false);
                holds(ended, || format!("it survives {signal}"))
            })?;
            let after = scene.supervisor.wait_for_grant_after(before.epoch)?;
            assert_eq!(after.takeovers.last.expect("there have been two").reason, "crash");
            let log = std::fs::read_to_string(scene.supervisor.log())?;
            assert!(log.contains(&format!("killed by {signal}")), "{signal} is not in:\n{log}");
        }
        assert_unharmed(load);
        Ok(())
    });
}

/// A supervisor whose workers are the binary at the path, for others to take its place.
fn start(
    lab: &Lab,
    red: &Backend,
) -> Result<(Supervisor, std::path::PathBuf), Box<dyn std::error::Error>> {
    let (file, worker) = (lab.write(FILE, render(&[web(red)]))?, own_worker(lab)?);
    Ok((lab.supervisor(&file).with("--worker", &worker).start()?, worker))
}

#[test]
fn a_worker_that_aborts_at_its_start_leaves_the_old_one_alone() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        let (mut supervisor, worker) = start(lab, &red)?;
        let load = clients(&["red"]);
        replace(&worker, &script(lab, "abort", "kill -ABRT $$")?)?;
        let before = supervisor.status()?;
        let answer = ask(&socket_path(lab), &Request::Reload)?;
        let Response::Failed { reason } = &answer else { panic!("{answer:?}") };
        assert!(reason.contains("killed by SIGABRT"), "{reason}");
        let after = supervisor.status()?;
        assert_eq!((after.worker.pid, after.epoch), (before.worker.pid, before.epoch));

        // With nobody to serve on, governance still needs none.
        assert!(supervisor.kill_worker(before.worker.pid));
        let status = supervisor.wait_until("restarts to back off", |status| {
            status.worker.state == "backing-off" && status.takeovers.failed >= 3
        })?;
        assert!(status.worker.reason.contains("SIGABRT"), "{status:?}");
        replace(&worker, &binaries::find(binaries::WORKER)?)?;
        supervisor.signal(Signal::SIGHUP)?;
        supervisor.wait_for_grant_after(before.epoch)?;
        assert_unharmed(load);
        Ok(())
    });
}

#[test]
fn while_a_worker_starts_slowly_the_old_one_serves_on() {
    isolated(|lab| {
        let (red, blue) = (Backend::tcp("red")?, Backend::tcp("blue")?);
        let (mut supervisor, worker) = start(lab, &red)?;
        let load = clients(&["red", "blue"]);
        // It starts once the file is there: as late as this test likes.
        let go = lab.directory().join("go");
        let binary = binaries::find(binaries::WORKER)?;
        let wait = format!(
            "[ $1 = serve ] && until [ -e {} ]; do sleep 0.05; done; exec {} \"$@\"",
            go.display(),
            binary.display()
        );
        replace(&worker, &script(lab, "slow", &wait)?)?;
        let before = supervisor.status()?;

        // Too slow: after its deadline, it is killed.
        let answer = ask(&socket_path(lab), &Request::Reload)?;
        let Response::Failed { reason } = &answer else { panic!("{answer:?}") };
        assert!(reason.contains("did not answer the greeting"), "{reason}");

        // Slow, and in time: what is saved meanwhile is in force at once, by the old one.
        supervisor.signal(Signal::SIGHUP)?;
        supervisor.wait_until("a worker on its way", |_| is_waiting(lab))?;
        let saved = put_in_force(lab, &mut supervisor, &render(&[web(&blue)]))?;
        assert_eq!((saved.worker.pid, saved.epoch), (before.worker.pid, before.epoch));
        lab.write("go", "")?;
        // For another one, on a machine so busy that this one was late once more.
        supervisor.signal(Signal::SIGHUP)?;
        let after = supervisor.wait_for_grant_after(before.epoch)?;
        assert_ne!(after.worker.pid, before.worker.pid);
        assert_unharmed(load);
        Ok(())
    });
}

/// Whether a process waits to become a worker.
fn is_waiting(lab: &Lab) -> bool {
    let processes = holdfast_lab::cgroup::processes(&lab.control()).unwrap_or_default();
    let is_slow = |pid: &u32| {
        holdfast_lab::process::arguments(*pid)
            .is_ok_and(|arguments| arguments.iter().any(|argument| argument == "/bin/sh"))
    };
    processes.iter().any(is_slow)
}
