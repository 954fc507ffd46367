//! What is new and crashes workers is taken back: a configuration, a worker's binary.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use holdfast_lab::{Backend, Service, TestResult, isolated, render};
use holdfast_protocol::handover::{ConfigState, Origin};
use holdfast_tests::builds;

use crate::scene::{FILE, Scene, WEB, assert_reached, put_in_force, virtual_address, web};

/// Address space for each process, in bytes: twice what a worker needs for a small configuration, and
/// not enough to parse [`monster`].
const ADDRESS_SPACE: &str = "--as=200000000";

/// A configuration that is valid and takes hundreds of megabytes to parse: the worker that tries it
/// under [`ADDRESS_SPACE`] is out of memory, and aborts.
fn monster() -> String {
    let mut text = "services:\n".to_owned();
    for service in 0..12 {
        let address = virtual_address(100 + service, 80).ip();
        let _ = writeln!(
            text,
            "  - name: s{service}\n    addresses: [{address}]\n    ports: [{{ name: p, port: 80 }}]\n    \
             endpoints:"
        );
        for port in 1..=30_000 {
            let _ = writeln!(text, "      - {{ address: 127.0.0.1, port: {port} }}");
        }
    }
    text
}

#[test]
fn a_configuration_that_crashes_workers_is_set_aside_and_the_last_good_one_stays() {
    isolated(|lab| -> TestResult {
        let red = Backend::tcp("red")?;
        let good = lab.write(FILE, render(&[web(&red)]))?;
        let mut supervisor = lab.supervisor(&good).under(&["prlimit", ADDRESS_SPACE]).start()?;
        let before = supervisor.wait_until("the good one to be kept", |status| {
            !status.config.snapshot.digest.is_empty()
        })?;
        let bad = monster();
        lab.write(FILE, &bad)?;
        let status = supervisor.wait_until("the bad one to be set aside", |status| {
            status.config.state == ConfigState::SetAside && status.worker.state == "granted"
        })?;
        let config = &status.config;
        assert_eq!((&config.digest, config.origin), (&before.config.digest, Origin::Snapshot));
        let [aside] = config.set_aside.as_slice() else { panic!("{:?}", config.set_aside) };
        assert!(aside.reason.contains("SIGABRT"), "{}", aside.reason);
        assert!(config.error.contains("save a different one"), "{}", config.error);
        // The writer was lost, and those that came after it were never granted.
        assert!(status.takeovers.failed >= 2, "{:?}", status.takeovers);
        assert_eq!(status.epoch, before.epoch + 1);
        assert_reached(&red_target(&red));
        let log = fs::read_to_string(supervisor.log())?;
        assert!(log.contains("has crashed worker after worker and is set aside"), "{log}");

        // Nobody who comes later tries it again.
        assert!(supervisor.kill_worker(status.worker.pid));
        let after = supervisor.wait_for_grant_after(status.epoch)?;
        assert_eq!((after.config.state, after.epoch), (ConfigState::SetAside, status.epoch + 1));
        assert_eq!(lab.ctl(&["reload"])?.code, Some(1));

        let blue = Backend::tcp("blue")?;
        let mended = put_in_force(lab, &mut supervisor, &render(&[web(&blue)]))?;
        assert_eq!((mended.config.origin, mended.worker.pid), (Origin::Disk, after.worker.pid));
        assert_reached(&red_target(&blue));
        // The very same text again, on purpose or from a template: it is known.
        lab.write(FILE, &bad)?;
        let again = supervisor.wait_until("it to be recognised", |status| {
            status.config.state == ConfigState::SetAside
        })?;
        assert_eq!(again.config.digest, mended.config.digest);
        assert_eq!(again.worker.pid, after.worker.pid, "nobody crashed");
        Ok(())
    });
}

fn red_target(backend: &Backend) -> holdfast_lab::Target {
    holdfast_lab::Target::tcp(WEB, &[backend.name()])
}

/// Runs a scene with a worker's binary of its own that has proved itself, replaces that by `install`,
/// and sees the former one at work after a crash and again after the next.
fn assert_put_back(lab: &holdfast_lab::Lab, install: impl Fn(&Path) -> TestResult) -> TestResult {
    let worker = builds::own_worker(lab)?;
    let red = Backend::tcp("red")?;
    let file = lab.write(FILE, render(&[web(&red)]))?;
    let mut supervisor = lab.supervisor(&file).with("--worker", &worker).start()?;
    supervisor.wait_until("the binary to have proved itself", |status| {
        !status.config.snapshot.digest.is_empty()
    })?;
    install(&worker)?;
    for _ in 0..2 {
        let before = supervisor.status()?;
        assert!(supervisor.kill_worker(before.worker.pid));
        let after = supervisor.wait_for_grant_after(before.epoch)?;
        assert_eq!(after.worker.binary, "former");
        assert_reached(&red_target(&red));
    }
    let log = fs::read_to_string(supervisor.log())?;
    assert_eq!(log.matches("the former one is put back").count(), 1, "{log}");

    builds::another_build(&worker)?;
    let before = supervisor.status()?;
    assert!(supervisor.kill_worker(before.worker.pid));
    let after = supervisor.wait_for_grant_after(before.epoch)?;
    assert_eq!(after.worker.binary, "on-disk", "one that works is used");
    Ok(())
}

#[test]
fn a_binary_that_crashes_is_put_back() {
    isolated(|lab| {
        let crash = builds::script(lab, "crash", "kill -SEGV $$")?;
        assert_put_back(lab, |worker| Ok(builds::replace(worker, &crash)?))
    });
}

#[test]
fn a_binary_that_ends_at_once_is_put_back() {
    isolated(|lab| {
        let end = builds::script(lab, "end", "exit 1")?;
        assert_put_back(lab, |worker| Ok(builds::replace(worker, &end)?))
    });
}

#[test]
fn something_that_is_no_binary_is_put_back() {
    isolated(|lab| {
        let noise = lab.write("noise", [0x7f, b'E', b'L', b'F', 0, 0, 0, 0])?;
        assert_put_back(lab, |worker| Ok(builds::replace(worker, &noise)?))
    });
}

#[test]
fn a_binary_that_was_removed_is_still_there_for_the_next_worker() {
    isolated(|lab| -> TestResult {
        let worker = builds::own_worker(lab)?;
        let red = Backend::tcp("red")?;
        let file = lab.write(FILE, render(&[web(&red)]))?;
        let mut supervisor = lab.supervisor(&file).with("--worker", &worker).start()?;
        let before = supervisor.wait_until("the binary to have proved itself", |status| {
            !status.config.snapshot.digest.is_empty()
        })?;
        fs::remove_file(&worker)?;
        assert!(supervisor.kill_worker(before.worker.pid));
        let after = supervisor.wait_for_grant_after(before.epoch)?;
        assert_eq!(after.worker.binary, "former");
        // Governed as the file says, also by this one.
        let api = Service::tcp("api", virtual_address(20, 80)).endpoint(red.v4());
        put_in_force(lab, &mut supervisor, &render(&[web(&red), api]))?;
        Ok(())
    });
}

#[test]
fn a_reload_tries_what_is_on_disk_again_and_the_old_worker_serves_on() {
    isolated(|lab| -> TestResult {
        let worker = builds::own_worker(lab)?;
        let mut scene = Scene::start_with(lab, "--worker", &worker)?;
        let before = scene.supervisor.wait_until("the binary to have proved itself", |status| {
            !status.config.snapshot.digest.is_empty()
        })?;
        builds::replace(&worker, &builds::script(lab, "crash", "kill -SEGV $$")?)?;
        for _ in 0..2 {
            let reload = lab.ctl(&["reload"])?;
            assert!(reload.code == Some(1) && reload.stderr.contains("SIGSEGV"), "{reload:?}");
            assert_eq!(scene.supervisor.status()?.worker.pid, before.worker.pid);
        }
        scene.assert_governed();
        Ok(())
    });
}
