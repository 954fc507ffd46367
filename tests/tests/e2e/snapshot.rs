//! The last configuration that proved itself: on disk, and in force when nothing else can be.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use holdfast_lab::{Backend, Lab, Supervisor, Target, TestResult, isolated, render};
use holdfast_protocol::control::Status;
use holdfast_protocol::handover::{ConfigState, Origin};
use nix::sys::signal::Signal;

use crate::scene::{FILE, Scene, WEB, assert_reached, put_in_force, wait_until_ungoverned, web};

fn snapshot(lab: &Lab) -> PathBuf {
    lab.state_directory().join("lab/snapshot")
}

/// Waits until what is in force has proved itself and is on the disk.
fn wait_until_kept(supervisor: &mut Supervisor) -> Result<Status, holdfast_lab::LabError> {
    supervisor.wait_until("a snapshot of what is in force", |status| {
        let config = &status.config;
        !config.digest.is_empty() && config.snapshot.digest == config.digest && !config.probation
    })
}

/// Ends the supervisor and takes away what the kernel has: what a reboot leaves.
fn reboot(lab: &Lab, supervisor: Supervisor) -> TestResult {
    assert!(supervisor.end(Signal::SIGTERM)?.success());
    fs::remove_dir_all(lab.bpffs().join("holdfast"))?;
    fs::remove_dir_all(lab.run_directory())?;
    wait_until_ungoverned(&Target::tcp(WEB, &[]))?;
    Ok(())
}

/// A scene whose configuration has proved itself, after a reboot. Its supervisor is gone.
fn after_reboot(lab: &Lab) -> Result<(Backend, PathBuf, String), Box<dyn std::error::Error>> {
    let mut scene = Scene::start(lab)?;
    let digest = wait_until_kept(&mut scene.supervisor)?.config.digest;
    let Scene { red, file, supervisor } = scene;
    reboot(lab, supervisor)?;
    Ok((red, file, digest))
}

/// On `text`, or without a file, the snapshot is in force from the start, and what is mended after.
fn assert_restored(lab: &Lab, text: Option<&str>, words: &str) -> TestResult {
    let (red, file, digest) = after_reboot(lab)?;
    match text {
        Some(text) => drop(lab.write(FILE, text)?),
        None => fs::remove_file(&file)?,
    }
    let mut supervisor = lab.supervisor(&file).start()?;
    assert_reached(&Target::tcp(WEB, &[red.name()]));
    let status = supervisor.status()?;
    let config = &status.config;
    assert_eq!((config.state, config.origin), (ConfigState::Rejected, Origin::Snapshot));
    assert_eq!((&config.digest, status.services), (&digest, 1));
    assert!(config.error.contains(words), "{}", config.error);
    let shown = lab.ctl(&["status"])?.stdout;
    assert!(shown.contains("the snapshot of the last good one is in force"), "{shown}");

    // A crash changes neither what is in force nor what is said of it.
    assert!(supervisor.kill_worker(status.worker.pid));
    let after = supervisor.wait_for_grant_after(status.epoch)?;
    assert_eq!((after.config.origin, &after.config.digest), (Origin::Snapshot, &digest));
    assert_reached(&Target::tcp(WEB, &[red.name()]));

    let blue = Backend::tcp("blue")?;
    let mended = put_in_force(lab, &mut supervisor, &render(&[web(&blue)]))?;
    assert_eq!((mended.config.origin, mended.config.error.as_str()), (Origin::Disk, ""));
    assert_reached(&Target::tcp(WEB, &["blue"]));
    Ok(())
}

#[test]
fn after_a_reboot_without_a_configuration_the_snapshot_is_in_force() {
    isolated(|lab| assert_restored(lab, None, "cannot find the configuration"));
}

#[test]
fn after_a_reboot_with_a_broken_configuration_the_snapshot_is_in_force() {
    isolated(|lab| assert_restored(lab, Some("services: [\n"), "holdfast.yaml:2:1"));
}

#[test]
fn a_configuration_is_kept_once_it_has_proved_itself_and_by_root_alone() {
    isolated(|lab| -> TestResult {
        let mut scene = Scene::start(lab)?;
        let before = scene.supervisor.status()?;
        assert!(before.config.probation, "it has only just come into force");
        assert!(!snapshot(lab).exists());
        let kept = wait_until_kept(&mut scene.supervisor)?;
        assert_eq!(fs::metadata(snapshot(lab))?.permissions().mode() & 0o777, 0o600);
        assert_eq!(kept.config.snapshot.error, "");
        assert!(!snapshot(lab).with_extension("new").exists());

        // One that is refused never gets there, one that replaces it does.
        lab.write(FILE, "services: 7\n")?;
        scene
            .supervisor
            .wait_until("a refusal", |status| status.config.state == ConfigState::Rejected)?;
        let blue = Backend::tcp("blue")?;
        let next = put_in_force(lab, &mut scene.supervisor, &render(&[web(&blue)]))?;
        assert_eq!(next.config.snapshot.digest, kept.config.digest, "the former one, until then");
        wait_until_kept(&mut scene.supervisor)?;
        Ok(())
    });
}

#[test]
fn workers_that_others_kill_do_not_keep_a_configuration_from_proving_itself() {
    isolated(|lab| -> TestResult {
        let mut scene = Scene::start(lab)?;
        for _ in 0..40 {
            let status = scene.supervisor.status()?;
            assert_eq!(status.config.set_aside, []);
            assert!(scene.supervisor.kill_worker(status.worker.pid));
            scene.supervisor.wait_for_grant_after(status.epoch)?;
        }
        wait_until_kept(&mut scene.supervisor)?;
        Ok(())
    });
}

#[test]
fn a_damaged_snapshot_is_set_aside_and_not_half_used() {
    isolated(|lab| -> TestResult {
        let (_red, file, _) = after_reboot(lab)?;
        let whole = fs::read(snapshot(lab))?;
        fs::remove_file(&file)?;
        let mut flipped = whole.clone();
        *flipped.last_mut().expect("it is not empty") ^= 1;
        let damaged: [(&[u8], &str); 4] = [
            (&flipped, "damaged"),
            (&whole[..whole.len() - 1], "damaged"),
            (&whole[..20], "not a snapshot"),
            (b"", "not a snapshot"),
        ];
        for (bytes, words) in damaged {
            fs::write(snapshot(lab), bytes)?;
            let supervisor = lab.supervisor(&file).start()?;
            let status = supervisor.status()?;
            assert_eq!((status.services, status.config.origin), (0, Origin::Kernel));
            let error = &status.config.snapshot.error;
            assert!(error.contains(words) && error.contains("snapshot.damaged"), "{error}");
            assert!(!snapshot(lab).exists());
            assert_eq!(fs::read(snapshot(lab).with_extension("damaged"))?, bytes);
            reboot(lab, supervisor)?;
        }
        Ok(())
    });
}

#[test]
fn a_full_disk_keeps_the_former_snapshot_and_is_said() {
    isolated(|lab| -> TestResult {
        let mut scene = Scene::start(lab)?;
        let kept = wait_until_kept(&mut scene.supervisor)?.config.digest;
        assert!(scene.supervisor.end(Signal::SIGTERM)?.success());
        let former = fs::read(snapshot(lab))?;
        let state = lab.state_directory().join("lab");
        full_disk(&state, &former)?;
        let blue = Backend::tcp("blue")?;
        // More than the file system has left.
        let text = render(&[web(&blue)]) + &"# full\n".repeat(4096);
        lab.write(FILE, text)?;
        let mut supervisor = lab.supervisor(&scene.file).start()?;
        let status = supervisor.wait_until("the failure to be said", |status| {
            !status.config.snapshot.error.is_empty()
        })?;
        let error = &status.config.snapshot.error;
        assert!(error.contains("No space left on device"), "{error}");
        assert_eq!(status.config.snapshot.digest, kept);
        assert_eq!(fs::read(snapshot(lab))?, former);
        assert_reached(&Target::tcp(WEB, &["blue"]));
        Ok(())
    });
}

/// Puts a file system at `state` that has room for the snapshot it is given and little else.
fn full_disk(state: &Path, former: &[u8]) -> TestResult {
    use nix::mount::{MsFlags, mount};
    mount(Some("none"), state, Some("tmpfs"), MsFlags::empty(), Some("size=20k,mode=700"))?;
    fs::write(state.join("snapshot"), former)?;
    Ok(())
}
