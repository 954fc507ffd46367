//! Kills a process, with what it has started, when it is about to take its nth step: a system call
//! that makes, changes or removes something. Of that call the kernel does nothing.

use std::error::Error;
use std::sync::mpsc::Sender;

use holdfast_lab::process::Process;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

/// `BPF_LINK_DETACH` of `enum bpf_cmd`.
const LINK_DETACH: u64 = 34;

/// Most stops that are waited for: a process that makes more is not the one meant.
const MAX_STOPS: usize = 100_000;

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Killed before its nth step.
    Killed,
    /// It ended by itself, having taken fewer.
    Completed,
}

type Failed = Box<dyn Error + Send + Sync>;

/// Follows `root`, says so to `following`, and kills it before its `nth` step from then on, counted
/// from 1. It is left to its parent to reap. To be called on a thread of its own: tracing belongs to
/// threads.
pub fn kill_before(root: &Process, nth: usize, following: &Sender<()>) -> Result<End, Failed> {
    let pid = Pid::from_raw(root.pid().cast_signed());
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_EXITKILL;
    ptrace::seize(pid, options)?;
    ptrace::interrupt(pid)?;
    following.send(())?;
    let mut taken = 0;
    for _ in 0..MAX_STOPS {
        let waited = WaitPidFlag::WEXITED | WaitPidFlag::WSTOPPED | WaitPidFlag::__WALL;
        let seen = waitid(Id::All, waited | WaitPidFlag::WNOWAIT)?;
        let who = seen.pid().ok_or("waited for nobody")?;
        if who == pid && matches!(seen, WaitStatus::Exited(..) | WaitStatus::Signaled(..)) {
            return Ok(End::Completed);
        }
        let signal = match waitid(Id::Pid(who), waited)? {
            WaitStatus::PtraceSyscall(_) => {
                taken += usize::from(is_step(who)?);
                if taken == nth {
                    // Its children are killed with it; what they were about to do is not done.
                    root.signal(Signal::SIGKILL)?;
                    return Ok(End::Killed);
                }
                None
            }
            WaitStatus::PtraceEvent(_, signal, 0) => Some(signal),
            WaitStatus::PtraceEvent(..) => None,
            WaitStatus::Stopped(_, signal) => Some(signal),
            _ => continue,
        };
        // One that was killed meanwhile is waited for in the next round.
        let _gone = ptrace::syscall(who, signal);
    }
    Err("it does not come to an end".into())
}

/// Whether `pid` is about to make a call, and not at the end of one, that changes something that outlives the process.
fn is_step(pid: Pid) -> Result<bool, Failed> {
    let info = ptrace::syscall_info(pid)?;
    if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return Ok(false);
    }
    // SAFETY: the kernel has just said that this is the member it has filled.
    let entry = unsafe { info.u.entry };
    let number = libc::c_long::try_from(entry.nr)?;
    Ok(match number {
        libc::SYS_bpf => entry.args[0] == LINK_DETACH,
        libc::SYS_openat => entry.args[2] & u64::from(libc::O_CREAT.cast_unsigned()) != 0,
        libc::SYS_unlinkat | libc::SYS_mkdirat | libc::SYS_renameat | libc::SYS_fsync => true,
        number => is_old_step(number),
    })
}

/// The calls that newer architectures do without.
#[cfg(target_arch = "x86_64")]
const fn is_old_step(number: libc::c_long) -> bool {
    matches!(number, libc::SYS_unlink | libc::SYS_rmdir | libc::SYS_mkdir | libc::SYS_rename)
}

#[cfg(not(target_arch = "x86_64"))]
const fn is_old_step(_: libc::c_long) -> bool {
    false
}
