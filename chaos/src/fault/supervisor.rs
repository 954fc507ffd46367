//! Faults of the supervisor: killed, paused, replaced, asked too often.

use nix::sys::signal::Signal;

use super::inject::{FaultError, Guard, Injection, Stricken};
use super::worker;
use crate::run::stage::Stage;

/// No supervisor runs. One is started when dropped.
struct Absent<'s>(&'s Stage<'s>);

impl Guard for Absent<'_> {}

impl Drop for Absent<'_> {
    fn drop(&mut self) {
        self.0.start_supervisor();
    }
}

/// A stopped supervisor. It goes on when dropped.
struct Paused<'s>(&'s Stage<'s>);

impl Guard for Paused<'_> {}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.signal(Signal::SIGCONT) {
            self.0.trouble(format!("the paused supervisor does not go on: {error}"));
        }
    }
}

/// Asks for `count` reloads.
pub fn storm<'s>(stage: &Stage<'_>, count: u32) -> Result<Injection<'s>, FaultError> {
    someone(stage)?;
    for _ in 0..count {
        stage.signal(Signal::SIGHUP)?;
    }
    Ok(Injection::over(format!("{count} signals")))
}

/// Kills the supervisor, and before it the worker if both are to die.
pub fn kill<'s>(stage: &'s Stage<'s>, with_worker: bool) -> Result<Injection<'s>, FaultError> {
    someone(stage)?;
    let writer = if with_worker { Some(worker::writer(stage)?) } else { None };
    let at_us = stage.now_us();
    if let Some(worker) = &writer {
        // Gone already is as good as killed.
        let _ended = worker.signal(Signal::SIGKILL);
    }
    let pid = stage.kill_supervisor()?;
    let note = match writer {
        Some(worker) => format!("supervisor {pid} and worker {}", worker.pid()),
        None => format!("supervisor {pid}"),
    };
    Ok(Injection::held(Absent(stage), note).striking(Stricken::Anybody, at_us))
}

/// Stops the supervisor.
pub fn pause<'s>(stage: &'s Stage<'s>) -> Result<Injection<'s>, FaultError> {
    someone(stage)?;
    stage.signal(Signal::SIGSTOP)?;
    Ok(Injection::held(Paused(stage), ""))
}

/// Lets the supervisor become the binary on disk.
pub fn replace<'s>(stage: &Stage<'_>) -> Result<Injection<'s>, FaultError> {
    someone(stage)?;
    stage.signal(Signal::SIGUSR2)?;
    Ok(Injection::over(""))
}

/// A supervisor runs. It does not while another fault keeps it away, which on a busy machine takes
/// longer than the plan has allowed for: there is nothing to hit then, and that is no failure of the run.
fn someone(stage: &Stage<'_>) -> Result<u32, FaultError> {
    stage.supervisor_pid().ok_or(FaultError::NoTarget("no supervisor runs"))
}
