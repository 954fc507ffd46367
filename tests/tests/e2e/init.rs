//! `holdfast run` as process 1 of a container.

use std::fs::OpenOptions;

use holdfast_lab::process::{self, Process};
use holdfast_lab::wait::{PATIENCE, holds};
use holdfast_lab::{Backend, Lab, LabError, Supervisor, Target, eventually, isolated, render};
use nix::sys::signal::Signal;

use crate::scene::{FILE, WEB, assert_reached, web};

/// Starts an orphan that lives until somebody opens the pipe, then becomes `holdfast`.
const SCRIPT: &str = "(cat \"$0\" > /dev/null &) ; exec \"$@\"";

/// The process that is 1 in its namespace: the only child of `unshare`.
fn init_of(supervisor: &Supervisor) -> Result<Process, LabError> {
    eventually("process 1 to become holdfast", || {
        let children = process::children(supervisor.pid()).map_err(|error| error.to_string())?;
        let holdfast = children
            .into_iter()
            .find(|pid| process::status(*pid, "Name").is_ok_and(|name| name == "holdfast"));
        let pid = holdfast.ok_or("there is no such child yet")?;
        Process::open(pid).map_err(|error| error.to_string())
    })
}

fn orphan_of(init: &Process) -> Result<u32, LabError> {
    eventually("the orphan to be adopted", || {
        let children = process::children(init.pid()).map_err(|error| error.to_string())?;
        let is_cat = |pid: &u32| process::status(*pid, "Name").is_ok_and(|name| name == "cat");
        children.into_iter().find(is_cat).ok_or("it is not there".to_owned())
    })
}

fn start(lab: &Lab, pipe: &str) -> Result<Supervisor, Box<dyn std::error::Error>> {
    let file = lab.directory().join(FILE);
    let namespace = ["unshare", "--fork", "--pid", "--mount-proc", "--kill-child"];
    let program = [&namespace[..], &["sh", "-c", SCRIPT, pipe]].concat();
    Ok(lab.supervisor(&file).under(&program).start()?)
}

#[test]
fn as_process_1_it_reaps_strangers_and_acts_on_its_signals() {
    isolated(|lab| {
        let pipe = lab.directory().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status()?.success());
        let red = Backend::tcp("red")?;
        lab.write(FILE, render(&[web(&red)]))?;
        let target = Target::tcp(WEB, &["red"]);
        let mut supervisor = start(lab, pipe.to_str().expect("labs are in plain places"))?;
        let before = supervisor.status()?;
        assert_eq!(before.supervisor.pid, 1);
        assert_reached(&target);

        let init = init_of(&supervisor)?;
        let orphan = orphan_of(&init)?;
        drop(OpenOptions::new().write(true).open(&pipe)?);
        eventually("the orphan to be reaped", || {
            let left = process::status(orphan, "State");
            holds(left.is_err(), || format!("{left:?}"))
        })?;

        init.signal(Signal::SIGHUP)?;
        supervisor.wait_for_grant_after(before.epoch)?;
        init.signal(Signal::SIGTERM)?;
        assert!(init.wait(PATIENCE)?, "process 1 leaves on SIGTERM");
        assert!(supervisor.ended()?.success());
        assert_reached(&target);
        Ok(())
    });
}
