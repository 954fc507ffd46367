//! seccomp: every system call that is not on the list of [`allowed`] fails.
//!
//! It fails with `EPERM`; it does not end the process. Whoever has taken the process over gains
//! nothing from that: what is denied stays denied, however often it is tried. But what was merely
//! forgotten on the list (a newer C library that asks for something else first) is an error that is
//! handled or logged, and not a worker that dies as often as it is started, with nobody left to put
//! a change of the configuration in force. Where audit is enabled, the kernel logs each denied call
//! (`type=1326`).

use std::os::fd::RawFd;

use nix::errno::Errno;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompFilter, TargetArch, sock_filter,
};

use super::allowed::{self, Rules};

/// Why the system calls could not be confined; the process must not go on.
#[derive(Debug, thiserror::Error)]
pub enum CallsError {
    /// There is no list for this processor, or it cannot be compiled.
    #[error("cannot make the filter of system calls: {0}")]
    Filter(#[from] BackendError),
    /// The kernel refused.
    #[error(
        "cannot confine system calls: seccomp: {0}. The kernel needs CONFIG_SECCOMP_FILTER, and a \
         filter of the container, if there is one, has to allow seccomp(2)"
    )]
    Refused(Errno),
    /// A thread is confined otherwise.
    #[error("cannot confine system calls: thread {0} has a filter of its own")]
    Thread(libc::c_long),
}

/// `struct sock_fprog`.
#[repr(C)]
struct Program {
    length: libc::c_ushort,
    instructions: *const sock_filter,
}

/// The filter that leaves a process the calls that serving needs.
#[derive(Debug)]
pub struct Filter(BpfProgram);

/// The filter for this process, whose messages go through `lifeline` only.
///
/// # Errors
///
/// When there is no list for this processor, or it cannot be compiled.
pub fn filter(lifeline: RawFd) -> Result<Filter, CallsError> {
    Ok(Filter(compile(lifeline)?))
}

/// The filter for a process that only waits. Any other call is its death.
///
/// # Errors
///
/// When there is no list for this processor.
pub(crate) fn only_waiting() -> Result<Filter, CallsError> {
    let calls = [libc::SYS_ppoll, libc::SYS_restart_syscall];
    let rules = calls.into_iter().map(|call| (call, Vec::new())).collect();
    Ok(Filter(only(rules, SeccompAction::KillProcess)?))
}

/// Confines every thread of this process, for good, to what `filter` lets through.
///
/// # Errors
///
/// Any [`CallsError`].
pub fn confine(filter: &Filter) -> Result<(), CallsError> {
    install(&filter.0)
}

/// Denies every thread of this process, for good, to open connections: nobody is to be checked.
///
/// What is in force while a configuration is read allows it, because nobody knows yet what it asks for.
///
/// # Errors
///
/// Any [`CallsError`].
pub fn renounce_connecting() -> Result<(), CallsError> {
    let denied = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let rules = allowed::CONNECTING.into_iter().map(|call| (call, Vec::new())).collect();
    let processor = TargetArch::try_from(std::env::consts::ARCH)?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, denied, processor)?;
    install(&filter.try_into()?)
}

/// Confines every thread of this process, for good, to what `rules` let through; `denied` becomes of the rest.
///
/// # Errors
///
/// Any [`CallsError`].
pub(crate) fn confine_to(rules: Rules, denied: SeccompAction) -> Result<(), CallsError> {
    install(&only(rules, denied)?)
}

fn compile(lifeline: RawFd) -> Result<BpfProgram, BackendError> {
    let denied = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    only(allowed::rules(std::process::id(), lifeline)?, denied)
}

fn only(rules: Rules, denied: SeccompAction) -> Result<BpfProgram, BackendError> {
    let processor = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, denied, SeccompAction::Allow, processor)?.try_into()
}

/// Needs `no_new_privs`, which is set with the privileges given up.
fn install(program: &BpfProgram) -> Result<(), CallsError> {
    let length = libc::c_ushort::try_from(program.len()).expect("compiled programs are bounded");
    let program = Program { length, instructions: program.as_ptr() };
    // SAFETY: `program` points to as many live instructions as it says; the kernel copies them.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            allowed::FOR_ALL_THREADS,
            std::ptr::from_ref(&program),
        )
    };
    match answer {
        0 => Ok(()),
        1.. => Err(CallsError::Thread(answer)),
        _ => Err(CallsError::Refused(Errno::last())),
    }
}
