//! The supervisor comes and goes, and governance stays.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use holdfast_lab::control::{ask, socket_path};
use holdfast_lab::{Backend, Lab, Target, TestResult, binaries, isolated, render};
use holdfast_protocol::control::{Request, Response, Status};
use holdfast_tests::builds::{own_worker, replace};
use holdfast_tests::life::governance_outlives;
use nix::sys::signal::Signal;

use crate::scene::{FILE, Scene, WEB, web};

#[test]
fn governance_outlives_a_terminated_supervisor() {
    isolated(|lab| governance_outlives(lab, Signal::SIGTERM));
}

#[test]
fn governance_outlives_an_interrupted_supervisor() {
    isolated(|lab| governance_outlives(lab, Signal::SIGINT));
}

#[test]
fn what_changed_while_nobody_served_is_in_force_after_the_start() {
    isolated(|lab| {
        let Scene { red: _red, file, supervisor } = Scene::start(lab)?;
        supervisor.end(Signal::SIGTERM)?;
        let blue = Backend::tcp("blue")?;
        lab.write(FILE, render(&[web(&blue)]))?;
        let _supervisor = lab.supervisor(&file).start()?;
        crate::scene::assert_reached(&Target::tcp(WEB, &["blue"]));
        Ok(())
    });
}

#[test]
fn a_start_on_a_broken_configuration_keeps_what_is_in_force() {
    isolated(|lab| {
        let Scene { red: _red, file, supervisor } = Scene::start(lab)?;
        supervisor.end(Signal::SIGTERM)?;
        lab.write(FILE, "services: [")?;
        let mut supervisor = lab.supervisor(&file).spawn()?;
        supervisor.wait_until("a word about the configuration", |status| {
            status.config.error.contains(FILE) || status.worker.reason.contains(FILE)
        })?;
        crate::scene::assert_reached(&Target::tcp(WEB, &["red"]));
        Ok(())
    });
}

#[test]
fn a_reload_tells_how_it_went() {
    isolated(|lab| {
        let scene = Scene::start(lab)?;
        let before = scene.supervisor.status()?;
        let good = lab.json(&["reload"])?;
        let after = scene.supervisor.status()?;
        assert_eq!(after.epoch, before.epoch + 1, "{good}");
        assert_ne!(after.worker.pid, before.worker.pid);
        assert_eq!(after.takeovers.last.expect("there have been two").reason, "reload");

        lab.write(FILE, "services:\n  - nmae: web\n")?;
        let bad = lab.ctl(&["reload"])?;
        assert_eq!(bad.code, Some(1), "{bad:?}");
        let said = format!("{}{}", bad.stdout, bad.stderr);
        assert!(said.contains(&format!("{FILE}:2:5")) && said.contains("nmae"), "{said}");
        let still = scene.supervisor.status()?;
        assert_eq!((still.worker.pid, still.epoch), (after.worker.pid, after.epoch));
        scene.assert_governed();
        Ok(())
    });
}

#[test]
fn a_sighup_picks_up_a_new_binary() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        let (file, worker) = (lab.write(FILE, render(&[web(&red)]))?, own_worker(lab)?);
        let mut supervisor = lab.supervisor(&file).with("--worker", &worker).start()?;
        let running = |status: &Status| -> Result<u64, std::io::Error> {
            Ok(fs::metadata(format!("/proc/{}/exe", status.worker.pid))?.ino())
        };
        let before = supervisor.status()?;
        let old = fs::metadata(&worker)?.ino();
        assert_eq!(running(&before)?, old);
        replace(&worker, &binaries::find(binaries::WORKER)?)?;
        let new = fs::metadata(&worker)?.ino();
        assert_ne!(new, old);
        supervisor.signal(Signal::SIGHUP)?;
        let after = supervisor.wait_for_grant_after(before.epoch)?;
        assert_eq!(running(&after)?, new);
        Ok(())
    });
}

/// Spoils the worker's binary, kills the worker: governance stays, the status says why there is no
/// worker, and a mended binary is found without a restart of the supervisor.
fn survives_a_spoilt_worker(lab: &Lab, spoil: impl Fn(&Path) -> TestResult) -> TestResult {
    let red = Backend::tcp("red")?;
    let (file, worker) = (lab.write(FILE, render(&[web(&red)]))?, own_worker(lab)?);
    let mut supervisor = lab.supervisor(&file).with("--worker", &worker).start()?;
    let target = Target::tcp(WEB, &["red"]);
    spoil(&worker)?;

    let before = supervisor.status()?;
    let answer = ask(&socket_path(lab), &Request::Reload)?;
    assert!(matches!(answer, Response::Failed { .. }), "{answer:?}");
    assert_eq!(supervisor.status()?.worker.pid, before.worker.pid, "the old one serves on");

    assert!(supervisor.kill_worker(before.worker.pid));
    let status = supervisor.wait_until("restarts to back off", |status| {
        status.worker.state == "backing-off" && status.takeovers.failed >= 3
    })?;
    assert!(!status.worker.reason.is_empty(), "{status:?}");
    assert!(status.links.iter().all(|link| link.ok), "{status:?}");
    for _ in 0..50 {
        crate::scene::assert_reached(&target);
    }

    replace(&worker, &binaries::find(binaries::WORKER)?)?;
    supervisor.signal(Signal::SIGHUP)?;
    supervisor.wait_for_grant_after(before.epoch)?;
    crate::scene::assert_reached(&target);
    Ok(())
}

#[test]
fn a_worker_binary_that_is_gone_leaves_governance_alone() {
    isolated(|lab| survives_a_spoilt_worker(lab, |worker| Ok(fs::remove_file(worker)?)));
}

#[test]
fn a_worker_binary_that_exits_at_once_leaves_governance_alone() {
    isolated(|lab| {
        survives_a_spoilt_worker(lab, |worker| Ok(replace(worker, Path::new("/bin/false"))?))
    });
}
