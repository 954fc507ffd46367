//! Which processes there are, and who may touch what.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use holdfast_lab::process::{self, Process};
use holdfast_lab::supervisor::is_undertaker;
use holdfast_lab::wait::{PATIENCE, holds};
use holdfast_lab::{
    Backend, Lab, Stranger, Target, TestResult, cgroup, eventually, isolated, render,
};
use holdfast_tests::life::{Life, Restart, governance_outlives, wait_until_nobody_is_left};
use holdfast_tests::scene::{FILE, WEB, assert_reached, put_in_force, web};
use holdfast_tests::watch::Watch;
use nix::sys::signal::Signal;

/// Ids of the processes that process `pid` holds by descriptor.
fn held_processes(pid: u32) -> Result<BTreeSet<u32>, std::io::Error> {
    let mut held = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        let pid = text.lines().find_map(|line| line.strip_prefix("Pid:"));
        held.extend(pid.and_then(|pid| pid.trim().parse::<u32>().ok()));
    }
    Ok(held)
}

/// HAProxy's `-sf` and every process id in a file or variable: once the id belongs to a stranger, the
/// stranger gets the signal. Processes are held by descriptor, and no id of a former life is used.
#[test]
fn pf23_a_stranger_with_a_dead_process_s_id_is_never_touched() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        let mut life = Life::new(lab, lab.write(FILE, render(&[web(&red)]))?);
        let first = life.start()?;
        assert!(held_processes(first.supervisor.pid)?.contains(&first.worker.pid));

        // While the same supervisor runs: the id of a worker that it has reaped.
        let second = life.restart(Restart::WorkerKilled)?;
        let mut strangers = vec![Stranger::with_id(first.worker.pid)?];
        for restart in [Restart::Reload, Restart::WorkerHung, Restart::SupervisorReplaced] {
            let status = life.restart(restart)?;
            let held = held_processes(status.supervisor.pid)?;
            assert!(held.contains(&status.worker.pid) && !held.contains(&first.worker.pid));
        }

        // In another life: the ids of everybody in the former one.
        let last = life.supervisor().status()?;
        life.end(Signal::SIGKILL)?;
        for pid in [second.worker.pid, last.supervisor.pid, last.worker.pid] {
            // Orphans are reaped by the first process of the machine, some time.
            strangers.push(eventually("the id to be free", || Stranger::with_id(pid))?);
        }
        life.start()?;
        for restart in Restart::QUICK {
            life.restart(restart)?;
        }
        life.end(Signal::SIGKILL)?;
        let ended = lab.uninstall()?;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(strangers.iter().all(Stranger::is_alive), "{strangers:?}");
        Ok(())
    });
}

/// s6-fdholderd: when the holder of the descriptors is killed they are gone. The pins carry the links
/// on, and the next supervisor takes over exactly them.
#[test]
fn pf24_a_killed_supervisor_loses_nothing() {
    isolated(|lab| governance_outlives(lab, Signal::SIGKILL));
}

/// Maps that a worker has in its memory: heads, tables, services.
const MAPPED: usize = 3;

/// Processes beside the governed ones that can write the maps: by their memory, not by what they say.
/// A worker that is not granted has its mappings read-only, but for the moment at which it makes one. An
/// undertaker has what its worker has, and executes nothing.
fn writers(control: &Path) -> Result<Vec<u32>, String> {
    let writes = |pid: &u32| {
        let maps = process::read(*pid, "maps").unwrap_or_default();
        let writable = maps.lines().filter(|line| line.contains(" rw-s "));
        writable.filter(|line| line.contains("bpf-map")).count() >= MAPPED
    };
    let processes = cgroup::processes(control).map_err(|error| error.to_string())?;
    Ok(processes.into_iter().filter(|pid| !is_undertaker(*pid)).filter(writes).collect())
}

/// Watches that never two processes of a lab can write a map.
fn one_writer(lab: &Lab) -> Watch {
    let control = lab.control();
    Watch::start(move || {
        let first = writers(&control)?;
        // One that lets go while the next one is asked about is not at fault: it is not there twice.
        let both = if first.len() > 1 { writers(&control)? } else { first };
        holds(both.len() <= 1, || format!("{both:?} can write"))
    })
}

/// Two writers at once: an old worker that was stopped wakes up and writes what it had in mind. The
/// old one is dead, or has let go, before the new one is granted; also that of a dead supervisor.
#[test]
fn pf25_a_worker_that_wakes_up_late_is_dead() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        let (green, blue) = (Backend::tcp("green")?, Backend::tcp("blue")?);
        let mut life = Life::new(lab, lab.write(FILE, render(&[web(&red)]))?);
        let watch = one_writer(lab);
        let mut current = life.start()?;
        let control = lab.control();
        assert_eq!(writers(&control)?, [current.worker.pid], "the watch sees who can write");

        for (fault, backend) in [(Restart::WorkerHung, &blue), (Restart::SupervisorKilled, &red)] {
            let old = Process::open(current.worker.pid)?;
            old.signal(Signal::SIGSTOP)?;
            // It would write this next, if it ran.
            lab.write(FILE, render(&[web(&green)]))?;
            let status = life.restart(fault)?;
            // Whatever it was about to do, it is too late.
            let _gone = old.signal(Signal::SIGCONT);
            assert!(old.wait(PATIENCE)?, "it is dead");
            assert!(status.epoch > current.epoch);
            put_in_force(lab, life.supervisor(), &render(&[web(backend)]))?;
            assert_reached(&Target::tcp(WEB, &[backend.name()]));
            current = life.supervisor().status()?;
        }
        // Asked to let go, it does not answer.
        let old = Process::open(current.worker.pid)?;
        old.signal(Signal::SIGSTOP)?;
        current = life.restart(Restart::Reload)?;
        let _gone = old.signal(Signal::SIGCONT);
        assert!(old.wait(PATIENCE)?, "it is dead");
        for restart in Restart::QUICK {
            current = life.restart(restart)?;
        }
        assert_eq!(writers(&control)?, [current.worker.pid]);
        life.end(Signal::SIGKILL)?;
        wait_until_nobody_is_left(lab)?;
        watch.assert_right(100);
        TestResult::Ok(())
    });
}
