//! What a node can lose beside processes: its bpffs, the supervisor's files, the room for them, and
//! everything in memory.

use std::fs;
use std::path::Path;
use std::process::Command;

use holdfast_lab::inside::INSTANCE;
use holdfast_lab::wait::holds;
use holdfast_lab::{Census, Lab, Stream, TestResult, cgroup, eventually, isolated};
use holdfast_protocol::manifest::Kind;
use holdfast_tests::hooks;
use holdfast_tests::life::wait_until_nobody_is_left;
use nix::sys::signal::Signal;

use crate::scene::{Scene, WEB, assert_reached, wait_until_ungoverned};

/// Runs a command of the system on `path`.
fn run(program: &str, arguments: &[&str], path: &Path) -> TestResult {
    let status = Command::new(program).args(arguments).arg(path).status()?;
    assert!(status.success(), "{program} {arguments:?} {}: {status}", path.display());
    Ok(())
}

/// This process and the supervisor are in one mount namespace.
fn lose_bpffs(lab: &Lab) -> TestResult {
    run("umount", &["--lazy"], &lab.bpffs())
}

fn mount_bpffs(lab: &Lab) -> TestResult {
    run("mount", &["-t", "bpf", "bpf"], &lab.bpffs())
}

#[test]
fn a_bpffs_that_is_lost_costs_nothing_while_the_supervisor_lives_and_is_filled_again() {
    isolated(|lab| {
        let mut scene = Scene::start(lab)?;
        let (before, maps) = (scene.supervisor.status()?, hooks::map_ids(lab)?);
        let stream = Stream::open(WEB, 1)?;
        lose_bpffs(lab)?;
        let status = scene.supervisor.wait_until("the loss to be reported", |status| {
            status.links.iter().all(|link| link.ok && !link.pinned) && !status.drift.open.is_empty()
        })?;
        assert!(scene.supervisor.kill_worker(status.worker.pid));
        scene.supervisor.wait_for_grant_after(status.epoch)?;
        for _ in 0..100 {
            scene.assert_governed();
        }
        mount_bpffs(lab)?;
        let after = scene.supervisor.wait_until("the pins to be made again", |status| {
            status.links.iter().all(|link| link.ok && link.pinned) && status.drift.open.is_empty()
        })?;
        assert_eq!((after.links, hooks::map_ids(lab)?), (before.links, maps), "the same objects");
        assert_eq!(stream.finish().broken, None);
        Ok(())
    });
}

#[test]
fn a_start_after_everything_in_memory_was_lost_builds_it_anew() {
    isolated(|lab| {
        let Scene { red: _red, file, supervisor } = Scene::start(lab)?;
        let former = Census::take(lab, &Census::default())?;
        supervisor.end(Signal::SIGKILL)?;
        wait_until_nobody_is_left(lab)?;
        // As a reboot does: neither a descriptor nor a pin is left, only what is on disk.
        lose_bpffs(lab)?;
        wait_until_ungoverned(&holdfast_lab::Target::tcp(WEB, &["red"]))?;
        fs::remove_dir_all(lab.run_directory().join(INSTANCE))?;
        mount_bpffs(lab)?;
        let supervisor = lab.supervisor(&file).start()?;
        assert_reached(&holdfast_lab::Target::tcp(WEB, &["red"]));
        let status = supervisor.status()?;
        assert!(status.links.iter().all(|link| link.ok && link.pinned), "{status:?}");
        let now = Census::take(lab, &Census::default())?;
        for kind in [Kind::Link, Kind::Map] {
            assert!(now.ids(kind).is_disjoint(&former.ids(kind)), "made anew");
        }
        hooks::check(lab)
    });
}

#[test]
fn a_state_directory_that_is_lost_is_not_missed() {
    isolated(|lab| {
        let mut scene = Scene::start(lab)?;
        fs::remove_dir_all(lab.state_directory().join(INSTANCE))?;
        for _ in 0..3 {
            let status = scene.supervisor.status()?;
            assert!(scene.supervisor.kill_worker(status.worker.pid));
            scene.supervisor.wait_for_grant_after(status.epoch)?;
            scene.assert_governed();
        }
        let log = fs::read_to_string(scene.supervisor.log())?;
        assert!(log.contains("a restart may repeat this epoch"), "{log}");
        let Scene { red: _red, file, supervisor } = scene;
        supervisor.end(Signal::SIGKILL)?;
        let _supervisor = lab.supervisor(&file).start()?;
        hooks::check(lab)
    });
}

#[test]
fn a_state_directory_that_is_full_stops_nothing_but_an_uninstall() {
    isolated(|lab| {
        run("mount", &["-t", "tmpfs", "-o", "size=16k", "tmpfs"], &lab.state_directory())?;
        let mut scene = Scene::start(lab)?;
        let filler = lab.state_directory().join("filler");
        let full = fs::write(&filler, [0; 64 * 1024]).expect_err("there is less room");
        assert_eq!(full.raw_os_error(), Some(libc::ENOSPC));
        for _ in 0..3 {
            let status = scene.supervisor.status()?;
            assert!(scene.supervisor.kill_worker(status.worker.pid));
            scene.supervisor.wait_for_grant_after(status.epoch)?;
        }
        // An intent that is not known to be on the disk removes nothing, and says so.
        let refused = lab.uninstall()?;
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains("No space left"), "{refused:?}");
        scene.assert_governed();
        hooks::check(lab)?;

        fs::remove_file(filler)?;
        let ended = lab.uninstall()?;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        eventually("the supervisor to be gone", || {
            let left = cgroup::processes(&lab.control()).map_err(|error| error.to_string())?;
            holds(left.is_empty(), || format!("{left:?}"))
        })?;
        run("umount", &["--lazy"], &lab.state_directory())
    });
}
