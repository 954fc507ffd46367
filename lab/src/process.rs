//! Processes by descriptor, and what `/proc` says about them.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use crate::error::LabError;

/// Bytes of a kibibyte, the unit of `/proc/PID/smaps_rollup`.
const KIB: u64 = 1024;

/// A process that cannot be mistaken for another: its id may be reused, its descriptor is not.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    descriptor: OwnedFd,
}

impl Process {
    /// The process that has the id `pid` now.
    ///
    /// # Errors
    ///
    /// `ESRCH` when there is none.
    pub fn open(pid: u32) -> io::Result<Self> {
        let id = i32::try_from(pid).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
        // SAFETY: pidfd_open takes two integers and no address.
        let answer = unsafe { libc::syscall(libc::SYS_pidfd_open, id, 0) };
        let raw = i32::try_from(answer).expect("descriptors fit an int");
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
        Ok(Self { pid, descriptor: unsafe { OwnedFd::from_raw_fd(raw) } })
    }

    /// Its id.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends it `signal`.
    ///
    /// # Errors
    ///
    /// `ESRCH` when it has ended and been reaped.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let (fd, null) = (self.descriptor.as_raw_fd(), std::ptr::null::<libc::siginfo_t>());
        // SAFETY: the descriptor is open as long as `self` is; a null siginfo means what kill(2)
        // would send.
        let answer =
            unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal as i32, null, 0) };
        if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Waits until it has ended, at most `deadline`; says whether it has.
    ///
    /// # Errors
    ///
    /// What `poll(2)` refuses.
    pub fn wait(&self, deadline: Duration) -> io::Result<bool> {
        let timeout = PollTimeout::try_from(deadline).unwrap_or(PollTimeout::MAX);
        let mut ended = [PollFd::new(self.descriptor.as_fd(), PollFlags::POLLIN)];
        Ok(poll(&mut ended, timeout)? > 0)
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// The text of `/proc/PID/NAME`.
///
/// # Errors
///
/// When the process is gone, or has no such file.
pub fn read(pid: u32, name: &str) -> Result<String, LabError> {
    let path = PathBuf::from(format!("/proc/{pid}/{name}"));
    fs::read_to_string(&path).map_err(LabError::file("read", &path))
}

/// A line of `/proc/PID/status`, without its label: `status(pid, "CapEff")`.
///
/// # Errors
///
/// When the process is gone, or the kernel has no such line.
pub fn status(pid: u32, label: &str) -> Result<String, LabError> {
    let text = read(pid, "status")?;
    text.lines()
        .find_map(|line| line.strip_prefix(label)?.strip_prefix(':'))
        .map(|value| value.trim().to_owned())
        .ok_or_else(|| LabError::Unexpected(format!("/proc/{pid}/status has no line {label}")))
}

/// How many threads it has.
///
/// # Errors
///
/// When the process is gone.
pub fn threads(pid: u32) -> Result<u64, LabError> {
    number(&status(pid, "Threads")?)
}

/// How many descriptors it has open.
///
/// # Errors
///
/// When the process is gone.
pub fn descriptors(pid: u32) -> Result<usize, LabError> {
    let path = PathBuf::from(format!("/proc/{pid}/fd"));
    Ok(fs::read_dir(&path).map_err(LabError::file("list", &path))?.count())
}

/// Its proportional set size in bytes: its own memory, and its share of what it shares.
///
/// # Errors
///
/// When the process is gone.
pub fn proportional_bytes(pid: u32) -> Result<u64, LabError> {
    rollup(pid, "Pss:")
}

/// Its anonymous memory in bytes: heap, stacks and written pages.
///
/// # Errors
///
/// When the process is gone.
pub fn anonymous_bytes(pid: u32) -> Result<u64, LabError> {
    rollup(pid, "Anonymous:")
}

/// Ids of its children, zombies included. A process that has threads is asked about its main one.
///
/// # Errors
///
/// When the process is gone.
pub fn children(pid: u32) -> Result<Vec<u32>, LabError> {
    let text = read(pid, &format!("task/{pid}/children"))?;
    Ok(text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect())
}

/// Its arguments.
///
/// # Errors
///
/// When the process is gone.
pub fn arguments(pid: u32) -> Result<Vec<String>, LabError> {
    let text = read(pid, "cmdline")?;
    Ok(text.split_terminator('\0').map(str::to_owned).collect())
}

/// Whether it runs: neither gone nor a zombie.
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    status(pid, "State").is_ok_and(|state| !state.starts_with(['Z', 'X']))
}

/// Its parent's id.
///
/// # Errors
///
/// When the process is gone.
pub fn parent(pid: u32) -> Result<u32, LabError> {
    number(&status(pid, "PPid")?)
}

fn rollup(pid: u32, label: &str) -> Result<u64, LabError> {
    let text = read(pid, "smaps_rollup")?;
    let value = text.lines().find_map(|line| line.strip_prefix(label));
    let value = value.and_then(|value| value.trim().strip_suffix(" kB"));
    let missing = || LabError::Unexpected(format!("/proc/{pid}/smaps_rollup has no {label} in kB"));
    Ok(number::<u64>(value.ok_or_else(missing)?.trim())? * KIB)
}

fn number<N: std::str::FromStr>(text: &str) -> Result<N, LabError> {
    text.parse().map_err(|_| LabError::Unexpected(format!("`{text}` is not a number")))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_signalled_child_is_seen_to_end() {
        let mut child =
            Command::new("cat").stdin(Stdio::piped()).spawn().expect("cat is on every Debian");
        let process = Process::open(child.id()).expect("the child has not been reaped");
        assert!(!process.wait(Duration::ZERO).expect("poll of a pidfd"));
        assert_eq!(parent(child.id()).expect("it runs"), std::process::id());
        assert!(is_alive(child.id()));
        process.signal(Signal::SIGKILL).expect("it is ours");
        assert!(process.wait(crate::wait::PATIENCE).expect("poll of a pidfd"));
        assert!(!is_alive(child.id()), "a zombie does not count as alive");
        child.wait().expect("it is our child");
        assert!(process.signal(Signal::SIGKILL).is_err(), "it has been reaped");
    }

    #[test]
    fn this_process_has_descriptors_threads_and_memory() {
        let own = std::process::id();
        assert!(descriptors(own).expect("/proc is mounted") >= 3);
        assert!(threads(own).expect("/proc is mounted") >= 1);
        let pss = proportional_bytes(own).expect("/proc is mounted");
        let anonymous = anonymous_bytes(own).expect("/proc is mounted");
        assert!(anonymous > 0 && pss >= anonymous / 2, "PSS {pss}, anonymous {anonymous}");
    }
}
