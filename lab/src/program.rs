//! A program that runs itself again, with the same arguments, inside a patch.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::error::LabError;
use crate::patch::{End, Patch};

/// Runs this program again inside a patch of its own for at most `deadline`, and removes the patch.
/// In there, [`Lab::here`](crate::Lab::here) has something to say. A signal that wants this program
/// to end interrupts the run.
///
/// # Errors
///
/// When the patch cannot be made, the program cannot be run, or something of the patch stays.
pub fn rerun(deadline: Duration) -> Result<End, LabError> {
    inside(std::env::args_os().skip(1), deadline)
}

/// The same with other arguments.
///
/// # Errors
///
/// As [`rerun`].
pub fn inside(
    arguments: impl IntoIterator<Item = OsString>,
    deadline: Duration,
) -> Result<End, LabError> {
    let patch = Patch::new()?;
    let interrupt = interrupt()?;
    let own = std::env::current_exe().map_err(LabError::system("find this program"))?;
    let mut inside = Command::new(own);
    inside.args(arguments);
    let end = patch.run(inside, deadline, Some(interrupt.as_fd()))?;
    patch.remove()?;
    Ok(end)
}

/// A descriptor that becomes readable when somebody wants this program to end: what was made has to
/// be removed first.
fn interrupt() -> Result<SignalFd, LabError> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block().map_err(LabError::system("block signals"))?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC).map_err(LabError::system("watch signals"))
}
