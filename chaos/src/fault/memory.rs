//! The worker alone in a memory cgroup without room: whatever page it asks for next, the kernel ends
//! it.

use super::inject::{FaultError, Guard, Injection};
use super::worker;
use crate::run::stage::Stage;
use holdfast_lab::memory::MemoryCgroup;
use holdfast_lab::process::Process;

/// Room for one page, in bytes: what the worker has already is charged where it was before.
const ROOM: u64 = 4096;

/// A worker without room. If it still lives it moves back when dropped.
struct Confined<'s> {
    stage: &'s Stage<'s>,
    cgroup: MemoryCgroup,
    worker: Process,
}

impl Guard for Confined<'_> {}

impl Drop for Confined<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.cgroup.remove(&self.worker) {
            self.stage.trouble(format!("the memory cgroup stays: {error}"));
        }
    }
}

/// Moves the worker that writes there.
pub fn exhaust<'s>(stage: &'s Stage<'s>) -> Result<Injection<'s>, FaultError> {
    let Some(mount) = holdfast_lab::memory::mount_point()? else {
        let what = "no memory controller of cgroup v1 is mounted".to_owned();
        return Err(FaultError::Unsupported(what));
    };
    let worker = worker::writer(stage)?;
    let pid = worker.pid();
    let cgroup = MemoryCgroup::create(&mount, stage.lab, ROOM)?;
    let guard = Confined { stage, cgroup, worker };
    guard.cgroup.enter(pid)?;
    Ok(Injection::held(guard, format!("worker {pid}, {ROOM} bytes")))
}
