//! Starting a child, ending it, and telling how it ended. A child is only ever signalled through
//! its pidfd, so a recycled process id can never be hit.
#![expect(
    unsafe_code,
    reason = "what happens between fork and exec, and the pidfd system calls that nix lacks"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Instant;

use holdfast_protocol::handover::CHILD_DESCRIPTOR;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getppid, pipe2};

use crate::channel::readable_until;

/// A process this one started. It is not reaped by dropping this.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    pidfd: OwnedFd,
}

impl Child {
    /// The child `pid` of this process, which a predecessor in it started.
    #[must_use]
    pub const fn adopt(pid: u32, pidfd: OwnedFd) -> Self {
        Self { pid: Pid::from_raw(pid.cast_signed()), pidfd }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw().cast_unsigned()
    }

    /// Kills it. One that is dead already is left in peace.
    pub fn kill(&self) {
        // SAFETY: plain integers; the siginfo is null, which the call allows.
        let result = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.pidfd.as_raw_fd(),
                libc::SIGKILL,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        if result < 0 && Errno::last() != Errno::ESRCH {
            tracing::error!(pid = self.pid(), error = %Errno::last(), "cannot kill a child");
        }
    }

    /// Waits for its end and reaps it; `None` when it lives on at `deadline`.
    ///
    /// # Errors
    ///
    /// When it is not this process's child any more.
    pub fn wait(&self, deadline: Instant) -> io::Result<Option<Ending>> {
        if !readable_until(self.pidfd.as_fd(), deadline)? {
            return Ok(None);
        }
        loop {
            match waitpid(self.pid, None) {
                Ok(status) => return Ok(Some(Ending::of(status))),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By itself, with this status.
    Exited(i32),
    /// By this signal.
    Killed(Signal),
}

impl Ending {
    fn of(status: WaitStatus) -> Self {
        match status {
            WaitStatus::Signaled(_, signal, _) => Self::Killed(signal),
            WaitStatus::Exited(_, code) => Self::Exited(code),
            // Stops and continuations are not asked for.
            _ => Self::Exited(-1),
        }
    }
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exit status {code}"),
            Self::Killed(signal) => write!(f, "killed by {signal}"),
        }
    }
}

/// Reaps one dead child of this process, its own or (as PID 1) one it inherited; `None` when there
/// is none.
#[must_use]
pub fn reap() -> Option<(u32, Ending)> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(status) => {
                let pid = status.pid()?;
                return Some((pid.as_raw().cast_unsigned(), Ending::of(status)));
            }
            Err(Errno::EINTR) => {}
            Err(_) => return None,
        }
    }
}

/// Keeps descriptor [`CHILD_DESCRIPTOR`] of this process occupied, so that the standard library's
/// own pipe to a child (through which it hears that exec failed) never has that number, which
/// [`spawn`] overwrites in the child. Call it before anything else opens a descriptor.
///
/// # Errors
///
/// When `/dev/null` cannot be opened.
pub fn reserve_child_descriptor() -> io::Result<()> {
    loop {
        let file = std::fs::File::open("/dev/null")?;
        if file.as_raw_fd() > CHILD_DESCRIPTOR {
            return Ok(());
        }
        let _kept_open_for_good = file.into_raw_fd();
    }
}

/// Starts `command` with `socket` as its descriptor [`CHILD_DESCRIPTOR`] and no other descriptor
/// but standard input (nothing), `output`, error (this process's) and copies of those in `kept` under
/// their own numbers.
///
/// The child dies with this process (`PR_SET_PDEATHSIG`). The kernel forgets that when a process
/// changes its user, so one that does has to ask for it again.
///
/// # Errors
///
/// What fork or exec say.
pub fn spawn(
    command: &mut Command,
    socket: OwnedFd,
    output: Stdio,
    kept: Vec<RawFd>,
) -> io::Result<Child> {
    let (raw, parent) = (socket.as_raw_fd(), nix::unistd::getpid());
    command.stdin(Stdio::null()).stdout(output).stderr(Stdio::inherit());
    // SAFETY: `prepare` makes only async-signal-safe system calls and allocates nothing.
    unsafe { command.pre_exec(move || prepare(raw, parent, &kept)) };
    let started = start(command);
    drop(socket);
    // The command has a copy of it, which would keep a pipe open.
    command.stdout(Stdio::null());
    started
}

/// Starts `command` with copies of the descriptors `kept` under their own numbers, and what it says
/// to standard output and error to be read from the result, without waiting.
///
/// # Errors
///
/// What fork or exec say.
pub fn spawn_with(command: &mut Command, kept: Vec<RawFd>) -> io::Result<(Child, OwnedFd)> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    let parent = nix::unistd::getpid();
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    // SAFETY: these make only async-signal-safe system calls and allocate nothing.
    unsafe { command.pre_exec(move || begin(parent).and_then(|()| inherit_all(&kept))) };
    let child = start(command);
    // The command has the writing end, which has to be closed here.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    Ok((child?, reader))
}

fn start(command: &mut Command) -> io::Result<Child> {
    let pid = command.spawn()?.id();
    let pid = Pid::from_raw(pid.cast_signed());
    // SAFETY: plain integers.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    if result < 0 {
        let error = io::Error::last_os_error();
        // Not reaped yet, so the number still is that child's; without a pidfd it is no use.
        let _already_dead = nix::sys::signal::kill(pid, Signal::SIGKILL);
        return Err(error);
    }
    let raw = RawFd::try_from(result).expect("descriptors are small numbers");
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(Child { pid, pidfd: unsafe { OwnedFd::from_raw_fd(raw) } })
}

/// In the child, between fork and exec.
fn prepare(socket: RawFd, parent: Pid, kept: &[RawFd]) -> io::Result<()> {
    begin(parent)?;
    inherit_as_child_descriptor(socket)?;
    inherit_all(kept)
}

/// What every child does first.
fn begin(parent: Pid) -> io::Result<()> {
    // This process blocks nearly every signal to read them from a descriptor; children do not.
    SigSet::empty().thread_set_mask()?;
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if getppid() != parent {
        // It died before the line above could take effect.
        return Err(Errno::ESRCH.into());
    }
    Ok(())
}

fn inherit_all(kept: &[RawFd]) -> io::Result<()> {
    close_the_rest()?;
    for descriptor in kept {
        // SAFETY: plain integers.
        if unsafe { libc::fcntl(*descriptor, libc::F_SETFD, 0) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

fn inherit_as_child_descriptor(socket: RawFd) -> io::Result<()> {
    // SAFETY: `dup2` and `fcntl` take plain integers. In this process, which is about to become
    // another program, descriptor 3 belongs to nobody: `reserve_child_descriptor` saw to that.
    let result = unsafe {
        if socket == CHILD_DESCRIPTOR {
            libc::fcntl(socket, libc::F_SETFD, 0)
        } else {
            libc::dup2(socket, CHILD_DESCRIPTOR)
        }
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Everything this process opens is close-on-exec; what it inherited from whoever started it may
/// not be.
fn close_the_rest() -> io::Result<()> {
    let first = libc::c_uint::try_from(CHILD_DESCRIPTOR + 1).expect("a small number");
    let flags = libc::CLOSE_RANGE_CLOEXEC;
    // SAFETY: plain integers; descriptors are only marked, and all of them at exec.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, flags) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::channel::Channel;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    fn shell(script: &str) -> (Channel, Child) {
        reserve_child_descriptor().expect("reserved");
        let (ours, theirs) = Channel::pair().expect("a pair");
        let mut command = Command::new("/bin/sh");
        let child =
            spawn(command.args(["-c", script]), theirs, Stdio::null(), Vec::new()).expect("starts");
        (ours, child)
    }

    #[test]
    fn a_child_is_killed_through_its_pidfd_and_says_how_it_ended() {
        let (_ours, child) = shell("exec sleep 1000");
        assert!(child.wait(Instant::now()).expect("waits").is_none());
        child.kill();
        let ending = child.wait(soon()).expect("waits").expect("dies");
        assert_eq!(ending, Ending::Killed(Signal::SIGKILL));
        child.kill();
    }

    #[test]
    fn a_child_has_its_socket_and_nothing_else() {
        // Inheritable on purpose, as a careless parent of the supervisor would leave it.
        let leaked = nix::fcntl::open("/dev/zero", OFlag::O_RDONLY, nix::sys::stat::Mode::empty())
            .expect("opens");
        let script = "for fd in /proc/self/fd/*; do \
                      case $(readlink $fd) in /dev/zero) exit 9;; esac; done; \
                      case $(readlink /proc/self/fd/3) in socket:*) exit 0;; esac; exit 8";
        let (_ours, child) = shell(script);
        assert_eq!(child.wait(soon()).expect("waits"), Some(Ending::Exited(0)));
        drop(leaked);
    }

    #[test]
    fn a_child_has_what_is_kept_for_it() {
        reserve_child_descriptor().expect("reserved");
        let kept = std::fs::File::open("/dev/zero").expect("opens");
        let (_ours, theirs) = Channel::pair().expect("a pair");
        let mut command = Command::new("/usr/bin/readlink");
        command.arg(format!("/proc/self/fd/{}", kept.as_raw_fd()));
        let child =
            spawn(&mut command, theirs, Stdio::null(), vec![kept.as_raw_fd()]).expect("starts");
        assert_eq!(child.wait(soon()).expect("waits"), Some(Ending::Exited(0)));
    }

    #[test]
    fn a_child_gets_no_blocked_signals() {
        let mut usr1 = SigSet::empty();
        usr1.add(Signal::SIGUSR1);
        usr1.thread_block().expect("blocks");
        let (_ours, child) = shell("grep -q '^SigBlk:.0000000000000000$' /proc/self/status");
        assert_eq!(child.wait(soon()).expect("waits"), Some(Ending::Exited(0)));
        usr1.thread_unblock().expect("unblocks");
    }

    #[test]
    fn a_program_that_does_not_exist_is_an_error_and_not_a_child() {
        reserve_child_descriptor().expect("reserved");
        let (_ours, theirs) = Channel::pair().expect("a pair");
        let error =
            spawn(&mut Command::new("/nonexistent/worker"), theirs, Stdio::null(), Vec::new())
                .expect_err("fails");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
