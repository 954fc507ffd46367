//! A process that shares this one's memory, so that the kernel takes the memory apart there.
//!
//! The kernel reports a dead process to its parent after it has taken out every page of it, unless somebody
//! else still uses them (`exit_mm` comes before `exit_notify` in `kernel/exit.c`), and no worker is granted
//! before the former one is reported dead. With a large configuration those pages were half of a takeover. With
//! somebody who ends a moment later they are none of it, whatever there is in memory.
//!
//! That somebody waits in the kernel for a signal that cannot come, and is killed with this process: it
//! never executes an instruction of a program again, so whoever has taken this process over and may write to
//! the memory of both cannot make it do anything, nor outlive the takeover in it. It has no descriptor.
//! It runs when nobody else wants the processor, above all not the next worker.
#![expect(unsafe_code, reason = "a process that shares memory is made by a system call")]

use std::ffi::{CStr, c_int, c_void};
use std::ptr::{from_mut, null};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::unistd::getpid;

use super::sandbox::calls::{self, CallsError, Filter};

/// What `ps` calls it.
const NAME: &CStr = c"hf-undertaker";

/// The size of its stack in words of 16 bytes: it makes a few system calls.
const STACK: usize = 1024;

/// Why there is none: takeovers from this worker take longer then, and nothing else.
#[derive(Debug, thiserror::Error)]
pub enum UndertakerError {
    /// It could not be confined.
    #[error(transparent)]
    Filter(#[from] CallsError),
    /// The kernel refused.
    #[error("{step}: {source}")]
    Refused {
        /// What was tried.
        step: &'static str,
        /// The kernel's answer.
        source: Errno,
    },
}

/// What it starts with.
struct Given {
    parent: libc::pid_t,
    filter: Filter,
}

/// Starts it, once, with the rights that this process has now.
///
/// # Errors
///
/// When this user may have no more processes (`RLIMIT_NPROC`), or a container no more (`pids.max`).
pub fn start() -> Result<(), UndertakerError> {
    // Both are in use as long as the memory is.
    let given =
        Box::leak(Box::new(Given { parent: getpid().as_raw(), filter: calls::only_waiting()? }));
    let stack = Box::leak(vec![0_u128; STACK].into_boxed_slice());
    // What is sent to the whole group is for the others to deal with.
    let mut usual = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut usual))
        .map_err(refused("block signals"))?;
    // SAFETY: the stack and what is given are never freed; the function takes no lock, no memory, and nothing
    // of the thread's own storage, which it shares with this thread, but the place of an error.
    let started = unsafe {
        libc::clone(
            wait_for_ever,
            stack.as_mut_ptr_range().end.cast(),
            libc::CLONE_VM,
            from_mut(given).cast(),
        )
    };
    let started = Errno::result(started);
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&usual), None).map_err(refused("unblock signals"))?;
    started.map(drop).map_err(refused("start a process (there are limits: RLIMIT_NPROC, pids.max)"))
}

fn refused(step: &'static str) -> impl Fn(Errno) -> UndertakerError {
    move |source| UndertakerError::Refused { step, source }
}

/// All that it does. When something fails it ends, and the memory is this process's alone again.
extern "C" fn wait_for_ever(given: *mut c_void) -> c_int {
    // SAFETY: it is what `start` gave, which nobody changes.
    let given = unsafe { &*given.cast::<Given>() };
    if !prepare(given.parent) || calls::confine(&given.filter).is_err() {
        return 1;
    }
    loop {
        // SAFETY: no descriptors, no time, no change of the mask.
        unsafe {
            libc::syscall(
                libc::SYS_ppoll,
                null::<libc::pollfd>(),
                0_usize,
                null::<libc::timespec>(),
                null::<libc::sigset_t>(),
                0_usize,
            );
        }
    }
}

/// Whether it dies with `parent`, has no descriptor, and runs last.
fn prepare(parent: libc::pid_t) -> bool {
    let priority = libc::sched_param { sched_priority: 0 };
    // SAFETY: numbers, and addresses of what lives longer than the call.
    unsafe {
        libc::syscall(libc::SYS_prctl, libc::PR_SET_NAME, NAME.as_ptr()) == 0
            && libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL) == 0
            // If it ended before, no signal will come.
            && libc::syscall(libc::SYS_getppid) == libc::c_long::from(parent)
            && libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, 0) == 0
            && libc::syscall(libc::SYS_sched_setscheduler, 0, libc::SCHED_IDLE, &raw const priority)
                == 0
    }
}
