//! What reaches process 1, and what its runtime sees.

use std::fs::OpenOptions;
use std::time::Duration;

use holdfast_lab::load::Shape;
use holdfast_lab::wait::holds;
use holdfast_lab::{Backend, Load, Target, eventually, isolated, process};
use holdfast_tests::scene::{WEB, assert_reached};

use crate::bundle::Bundle;
use crate::container::Container;
use crate::lives::configure;

const RELOADS: u32 = 10;

const SHAPE: Shape = Shape { clients: 3, rest: Duration::from_millis(1), seed: 37 };

/// Leaves a process that lives until somebody writes to the pipe, and whose parent ends at once.
const LEAVE_AN_ORPHAN: &str = "/bin/cat /lab/pipe > /dev/null 2>&1 < /dev/null &";

#[test]
fn a_hangup_through_the_runtime_replaces_the_worker_and_fails_no_connection() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        configure(lab, &[&red])?;
        let mut container = Container::start(lab, &Bundle::new(lab, "run")?)?;
        let load = Load::start(&[Target::tcp(WEB, &["red"])], SHAPE);
        for _ in 0..RELOADS {
            let before = container.status()?;
            container.runc(&["kill"], &["HUP"])?;
            let after = container.wait_until("another worker", |status| {
                status.worker.state == "granted" && status.epoch > before.epoch
            })?;
            assert_ne!(after.worker.pid, before.worker.pid);
            assert_eq!(after.takeovers.last.map(|last| last.reason), Some("reload".to_owned()));
        }
        let tally = load.finish();
        assert_eq!((tally.failed, tally.ungoverned), (0, 0), "{tally:?}");
        assert!(tally.reached > 0);
        println!("{RELOADS} reloads: {} connects, 0 failed", tally.reached);
        Ok(())
    });
}

#[test]
fn orphans_of_what_is_run_beside_it_are_reaped() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        configure(lab, &[&red])?;
        let pipe = lab.directory().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status()?.success());
        let container = Container::start(lab, &Bundle::new(lab, "run")?.with_programs())?;
        let init = container.init()?.pid();
        let before = process::children(init)?;
        container.runc(&["exec"], &["/bin/sh", "-c", LEAVE_AN_ORPHAN])?;
        let orphan = eventually("the orphan to be adopted", || {
            let children = process::children(init).map_err(|error| error.to_string())?;
            let new = children.iter().find(|pid| !before.contains(pid)).copied();
            new.ok_or_else(|| format!("{children:?}"))
        })?;
        drop(OpenOptions::new().write(true).open(&pipe)?);
        eventually("the orphan to be reaped", || {
            let left = process::status(orphan, "State");
            holds(left.is_err(), || format!("{left:?}"))
        })?;
        assert_eq!(process::children(init)?, before, "its own are left alone");
        assert_reached(&Target::tcp(WEB, &["red"]));
        Ok(())
    });
}
