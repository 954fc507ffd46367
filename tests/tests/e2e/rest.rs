//! A node on which nothing happens is left alone.

use std::error::Error;
use std::fs;

use holdfast_lab::{Backend, isolated};
use holdfast_protocol::control::Status;
use holdfast_protocol::handover::{ConfigState, HEARTBEAT_INTERVAL};
use holdfast_tests::scene::{FILE, web};

/// Audits of the supervisor that time is counted in, every two seconds: those until all is at rest, with the
/// snapshot that is written after five seconds, and those that are waited for.
const SETTLING: u64 = 4;
const WAITED_FOR: u64 = 3;

/// Heartbeats between two audits.
const BEATS: u64 = 2_000 / HEARTBEAT_INTERVAL.as_millis() as u64;

/// Times that a worker may wake up for each heartbeat: two or three, because the wheel of the runtime's
/// clock turns in steps. When events, the file system and cgroups were looked at by clocks of their own, it
/// was five.
const PER_BEAT: f64 = 4.0;

/// How often the threads of a process have gone to sleep by themselves.
fn rests(pid: u32) -> Result<u64, Box<dyn Error>> {
    let mut all = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = fs::read_to_string(task?.path().join("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        all += line.ok_or("the kernel does not count")?.trim().parse::<u64>()?;
    }
    Ok(all)
}

#[test]
fn a_worker_at_rest_wakes_up_for_its_heartbeats_and_nothing_else() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        let file = lab.write(FILE, holdfast_lab::render(&[web(&red)]))?;
        let mut supervisor = lab.supervisor(&file).start()?;
        let audited = |most: u64| move |status: &Status| status.drift.audits >= most;
        let is_in_force = |status: &Status| status.config.state == ConfigState::InForce;
        let begun = supervisor.wait_until("the service in force", is_in_force)?.drift.audits;
        let status = supervisor.wait_until("it to settle", audited(begun + SETTLING))?;
        let (worker, from) = (status.worker.pid, status.drift.audits);
        let before = rests(worker)?;
        let status = supervisor.wait_until("time to pass", audited(from + WAITED_FOR))?;
        assert_eq!(status.worker.pid, worker, "the same worker");
        let each = (rests(worker)? - before) as f64 / (WAITED_FOR * BEATS) as f64;
        assert!(each >= 0.5, "it does beat: {each} times a heartbeat");
        assert!(each <= PER_BEAT, "it woke up {each} times for each heartbeat");
        Ok(())
    });
}
