//! Descriptors that are handed on.

use std::collections::BTreeSet;
use std::fs;

use holdfast_lab::control::{ask, socket_path};
use holdfast_lab::{Backend, Lab, Supervisor, Target, TestResult, eventually, isolated, process};
use holdfast_protocol::control::{Request, Response};
use holdfast_tests::alone::{assert_small, start_alone};
use holdfast_tests::scene::{WEB, assert_reached};

const KIB: u64 = 1024;

/// Takeovers in which nothing may grow.
const TAKEOVERS: u64 = 1_000;

/// Takeovers before the first look: buffers reach their size, and pages their place.
const WARM_UP: u64 = 50;

/// Of this many takeovers, one is after a kill; the others are graceful.
const KILLS_ONE_IN: u64 = 10;

/// Anonymous memory may differ by this much: an allocator's page here and there. A leak of a
/// quarter of a kilobyte in each takeover would exceed it.
const TOLERANCE: u64 = 256 * KIB;

/// The kernel's flag in `/proc/PID/fdinfo`.
const CLOSE_ON_EXEC: u32 = libc::O_CLOEXEC.unsigned_abs();

fn take_over(lab: &Lab, supervisor: &mut Supervisor, count: u64) -> TestResult {
    for number in 1..=count {
        if number % KILLS_ONE_IN == 0 {
            let status = supervisor.status()?;
            assert!(supervisor.kill_worker(status.worker.pid));
            supervisor.wait_for_grant_after(status.epoch)?;
        } else {
            let answer = ask(&socket_path(lab), &Request::Reload)?;
            assert!(matches!(answer, Response::Reloaded { .. }), "{answer:?}");
        }
    }
    Ok(())
}

/// Open descriptors once the last former worker has been let go.
fn settled_descriptors(supervisor: &Supervisor) -> Result<usize, holdfast_lab::LabError> {
    eventually("former workers to be gone", || match supervisor.workers().len() {
        1 => process::descriptors(supervisor.pid()).map_err(|error| error.to_string()),
        workers => Err(format!("{workers} workers")),
    })
}

/// What process `pid` has open that the next program in it would have too, of what `wanted` says
/// about its line of information.
fn inherited(pid: u32, wanted: fn(&str) -> bool) -> Result<BTreeSet<String>, std::io::Error> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        let entry = entry?;
        // One that was closed meanwhile is nobody's.
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
        if flags.is_some_and(|flags| flags & CLOSE_ON_EXEC == 0) && wanted(&text) {
            found.insert(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(found)
}

/// Nothing that was received would be left open by an exec, in the supervisor or in its worker.
fn assert_close_on_exec(supervisor: &Supervisor) -> TestResult {
    // What this test's process got from whoever started it, and passed on, is nobody's here.
    let (open, passed_on) =
        (inherited(supervisor.pid(), |_| true)?, inherited(std::process::id(), |_| true)?);
    assert!(open.is_subset(&passed_on), "of the supervisor: {open:?}, passed on: {passed_on:?}");
    let worker = supervisor.status()?.worker.pid;
    let open = inherited(worker, |text| text.contains("map_id:"))?;
    assert!(open.is_empty(), "maps of the worker: {open:?}");
    Ok(())
}

/// HAProxy ab7acdcc3 and Envoy: descriptors that were received were leaked to the next program, and
/// piled up. Every one of them is close-on-exec, and their number is flat over a thousand takeovers.
#[test]
fn pf21_descriptors_are_close_on_exec_and_do_not_pile_up() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        let mut supervisor = start_alone(lab, &red)?;
        let pid = supervisor.pid();
        assert_close_on_exec(&supervisor)?;
        take_over(lab, &mut supervisor, WARM_UP)?;
        let descriptors = settled_descriptors(&supervisor)?;
        let memory = process::anonymous_bytes(pid)?;
        let before = supervisor.status()?.takeovers.count;

        take_over(lab, &mut supervisor, TAKEOVERS)?;
        let counted = supervisor.status()?.takeovers.count - before;
        assert_eq!(counted, TAKEOVERS, "each was one takeover");
        // At the first look, one that was only just being closed may have been counted too.
        eventually("the descriptors to be no more than before", || {
            let now = settled_descriptors(&supervisor).map_err(|error| error.to_string())?;
            if now <= descriptors { Ok(()) } else { Err(format!("{now}, {descriptors} before")) }
        })?;
        let after = process::anonymous_bytes(pid)?;
        assert!(after <= memory + TOLERANCE, "{} KiB, then {} KiB", memory / KIB, after / KIB);
        assert_close_on_exec(&supervisor)?;
        assert_small(&supervisor)?;
        assert_reached(&Target::tcp(WEB, &["red"]));
        Ok(())
    });
}
