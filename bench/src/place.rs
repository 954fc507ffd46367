//! Where a client connects from, and on which processor it runs.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use anyhow::Context;
use holdfast_lab::Lab;
use holdfast_lab::patch::in_cgroup;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Makes a cgroup beside the governed one: whoever enters it is not governed.
pub fn beside(lab: &Lab, name: &str) -> anyhow::Result<PathBuf> {
    let governed = lab.governed();
    let cgroup = governed.parent().context("the governed cgroup has a parent")?.join(name);
    fs::create_dir(&cgroup).with_context(|| format!("cannot make {}", cgroup.display()))?;
    Ok(cgroup)
}

/// A command that runs in `cgroup`, and is killed when this thread ends.
pub fn command_in(program: &str, cgroup: &Path) -> anyhow::Result<Command> {
    in_cgroup(program, cgroup).with_context(|| format!("cannot run {program} in a cgroup"))
}

/// A processor that one side of a measurement has to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Processor {
    /// The servers'.
    Server,
    /// The clients'.
    Client,
}

impl Processor {
    /// `command`, which runs on this processor only; where this process may use but one, on that.
    pub fn of(self, mut command: Command) -> anyhow::Result<Command> {
        if let Some(only) = self.set(&allowed()?)? {
            let pin = move || -> io::Result<()> { Ok(sched_setaffinity(THIS, &only)?) };
            // SAFETY: between fork and exec it makes one system call, of a set that it owns.
            unsafe { command.pre_exec(pin) };
        }
        Ok(command)
    }

    /// Runs `work` on this thread and on this processor only, as far as there are two.
    pub fn enter<T>(self, work: impl FnOnce() -> T) -> anyhow::Result<T> {
        let before = allowed()?;
        if let Some(only) = self.set(&before)? {
            sched_setaffinity(THIS, &only).context("cannot stay on one processor")?;
        }
        let done = work();
        sched_setaffinity(THIS, &before).context("cannot leave the processor")?;
        Ok(done)
    }

    fn set(self, allowed: &CpuSet) -> anyhow::Result<Option<CpuSet>> {
        let mut processors = (0..CpuSet::count()).filter(|it| allowed.is_set(*it) == Ok(true));
        let Some(own) = processors.nth(self as usize) else { return Ok(None) };
        let mut only = CpuSet::new();
        only.set(own).context("cannot name a processor")?;
        Ok(Some(only))
    }
}

/// The thread that asks.
const THIS: Pid = Pid::from_raw(0);

fn allowed() -> anyhow::Result<CpuSet> {
    sched_getaffinity(THIS).context("cannot ask for the processors")
}
