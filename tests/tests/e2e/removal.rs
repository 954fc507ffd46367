//! What goes away, and only when it is asked to.

use holdfast_lab::{Census, Lab, Stream, TestResult, isolated};
use holdfast_protocol::manifest::Kind;
use nix::sys::signal::Signal;

use crate::scene::{Scene, WEB, wait_until_ungoverned};

/// The objects of an estate that is in force: some of each kind.
fn assert_complete(census: &Census) {
    for kind in [Kind::Map, Kind::Program, Kind::Link] {
        assert!(census.ids(kind).len() >= 4, "too few of kind {kind}: {census:?}");
    }
    assert!(!census.files.is_empty() && !census.processes.is_empty(), "{census:?}");
}

/// Uninstalls with `uninstall` beside a running supervisor: the census is what it was before.
fn leaves_nothing(lab: &Lab, uninstall: impl FnOnce() -> TestResult) -> TestResult {
    let before = Census::take(lab, &Census::default())?;
    let mut scene = Scene::start(lab)?;
    let during = Census::take(lab, &before)?;
    assert_complete(&during);
    let stream = Stream::open(WEB, 3)?;
    uninstall()?;
    let end = scene.supervisor.ended()?;
    assert!(end.success(), "{end}");
    before.wait_for_return(lab, &during)?;
    wait_until_ungoverned(&scene.target())?;
    let end = stream.finish();
    assert!(end.broken.is_none() && end.bytes > 0, "a connection made before goes on: {end:?}");
    Ok(())
}

#[test]
fn uninstalling_beside_a_running_supervisor_leaves_nothing() {
    isolated(|lab| {
        leaves_nothing(lab, || {
            let ended = lab.uninstall()?;
            assert_eq!(ended.code, Some(0), "{ended:?}");
            assert!(ended.stdout.contains("connect4"), "it lists what it removed: {ended:?}");
            Ok(())
        })
    });
}

#[test]
fn uninstalling_through_the_command_line_leaves_nothing() {
    isolated(|lab| {
        leaves_nothing(lab, || {
            let ended = lab.ctl(&["uninstall"])?;
            assert_eq!(ended.code, Some(0), "{ended:?}");
            assert!(ended.stdout.contains("connect4"), "it lists what it removed: {ended:?}");
            Ok(())
        })
    });
}

/// Uninstalls after the supervisor has left, or died.
fn leaves_nothing_after(lab: &Lab, signal: Signal) -> TestResult {
    let before = Census::take(lab, &Census::default())?;
    let Scene { red: _red, supervisor, file: _ } = Scene::start(lab)?;
    let during = Census::take(lab, &before)?;
    assert_complete(&during);
    supervisor.end(signal)?;
    let ended = lab.uninstall()?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("connect4"), "it lists what it removed: {ended:?}");
    before.wait_for_return(lab, &during)?;
    let again = lab.uninstall()?;
    assert_eq!(again.code, Some(0), "a second time there is nothing: {again:?}");
    assert!(!again.stdout.contains("connect4"), "{again:?}");
    before.wait_for_return(lab, &during)?;
    Ok(())
}

#[test]
fn uninstalling_after_the_supervisor_has_left_leaves_nothing() {
    isolated(|lab| leaves_nothing_after(lab, Signal::SIGTERM));
}

#[test]
fn uninstalling_after_the_supervisor_was_killed_leaves_nothing() {
    isolated(|lab| leaves_nothing_after(lab, Signal::SIGKILL));
}

#[test]
fn uninstalling_where_there_was_nothing_succeeds_and_makes_nothing() {
    isolated(|lab| {
        let before = Census::take(lab, &Census::default())?;
        let ended = lab.uninstall()?;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        before.wait_for_return(lab, &Census::default())?;
        Ok(())
    });
}

#[test]
fn what_was_uninstalled_can_be_installed_again() {
    isolated(|lab| {
        let before = Census::take(lab, &Census::default())?;
        for _ in 0..3 {
            let mut scene = Scene::start(lab)?;
            let during = Census::take(lab, &before)?;
            assert_eq!(lab.uninstall()?.code, Some(0));
            scene.supervisor.ended()?;
            before.wait_for_return(lab, &during)?;
        }
        Ok(())
    });
}

#[test]
fn uninstalling_one_instance_leaves_another_alone() {
    isolated(|lab| {
        let scene = Scene::start(lab)?;
        let mut other = lab.beside(holdfast_lab::binaries::find("holdfast")?)?;
        other.args(["uninstall", "--instance", "other", "--cgroup"]).arg(lab.governed());
        other.arg("--bpffs").arg(lab.bpffs()).arg("--run-dir").arg(lab.run_directory());
        other.arg("--state-dir").arg(lab.state_directory());
        let ended = holdfast_lab::inside::Ended::run(&mut other)?;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        scene.assert_governed();
        assert!(scene.supervisor.status()?.links.iter().all(|link| link.ok && link.pinned));
        Ok(())
    });
}
