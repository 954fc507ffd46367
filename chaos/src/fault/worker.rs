//! Faults of a worker: killed, stopped, hanging.

use holdfast_lab::process::{self, Process};
use nix::sys::signal::Signal;

use super::inject::{FaultError, Guard, Injection, Stricken};
use super::pick;
use crate::run::stage::Stage;

/// A stopped worker. It goes on when dropped, if it still lives.
struct Stopped(Process);

impl Guard for Stopped {}

impl Drop for Stopped {
    fn drop(&mut self) {
        // An error means that it has ended: the supervisor noticed its silence.
        let _ended = self.0.signal(Signal::SIGCONT);
    }
}

/// Kills the worker that `draw` picks from those that run.
pub fn kill<'s>(stage: &Stage<'_>, draw: u32) -> Result<Injection<'s>, FaultError> {
    let workers = stage.workers();
    let victim = workers.get(pick(draw, workers.len())).copied();
    let victim = victim.ok_or(FaultError::NoTarget("no worker runs"))?;
    let at_us = stage.now_us();
    if !stage.kill_worker(victim) {
        return Err(FaultError::NoTarget("the worker has just ended"));
    }
    let note = format!("worker {victim}, one of {}", workers.len());
    Ok(Injection::over(note).striking(Stricken::Worker(victim), at_us))
}

/// Stops the worker that writes.
pub fn stop<'s>(stage: &Stage<'_>) -> Result<Injection<'s>, FaultError> {
    let worker = writer(stage)?;
    let (pid, at_us) = (worker.pid(), stage.now_us());
    worker
        .signal(Signal::SIGSTOP)
        .map_err(|_| FaultError::NoTarget("the worker has just ended"))?;
    let note = format!("worker {pid}");
    Ok(Injection::held(Stopped(worker), note).striking(Stricken::Worker(pid), at_us))
}

/// The worker that writes, held by its descriptor.
pub fn writer(stage: &Stage<'_>) -> Result<Process, FaultError> {
    let pid = stage.granted().ok_or(FaultError::NoTarget("no worker is granted"))?;
    let worker = Process::open(pid).map_err(|_| FaultError::NoTarget("the worker has ended"))?;
    // Read after the descriptor was opened: it is about the process that the descriptor holds.
    match stage.workers().contains(&pid) && process::is_alive(pid) {
        true => Ok(worker),
        false => Err(FaultError::NoTarget("the worker has just ended")),
    }
}
