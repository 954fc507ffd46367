//! The system calls of the closer, by what they are for.
//!
//! It is root with two capabilities, so whatever is not here ends it at once: a call that nobody has foreseen is made by
//! whoever has taken it over. What it closes then is closed, and the rest is for the next one. Found by tracing, and
//! completed by what the C library and the runtime may do instead.

use std::os::fd::RawFd;

use seccompiler::{
    BackendError, SeccompAction, SeccompCmpOp as Is, SeccompCondition as Condition,
    SeccompRule as Rule,
};

use crate::serve::sandbox::allowed::{
    ENDING, MEMORY, Rules, WRITING, all, lacks, nothing, number, when,
};
use crate::serve::sandbox::calls::{self, CallsError};

/// Waiting for the supervisor; time where the kernel does not map a clock; seeds of hash maps; an allocator's lock.
const WAITING: &[libc::c_long] = &[
    libc::SYS_ppoll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    libc::SYS_restart_syscall,
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
    libc::SYS_futex,
];

/// Cgroups: what is in a directory, and what kind it is of. What is opened is in [`rules`].
const LOOKING: &[libc::c_long] = &[
    libc::SYS_getdents64,
    libc::SYS_statx,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_close,
];

/// Last words on the standard error, and who it is that an abort signals.
const LAST_WORDS: &[libc::c_long] =
    &[libc::SYS_write, libc::SYS_writev, libc::SYS_getpid, libc::SYS_gettid];

/// `enum bpf_cmd`: what the kernel says about the maps that were handed over, and their elements. Nothing is written
/// but through a mapping.
const BPF_COMMANDS: [u64; 3] = [
    1,  // BPF_MAP_LOOKUP_ELEM, with which a descriptor is asked whether it is a map's
    15, // BPF_OBJ_GET_INFO_BY_FD
    24, // BPF_MAP_LOOKUP_BATCH
];

/// Confines this process, for good, to what closing takes. Its messages go through `lifeline`; network namespaces are
/// opened on the file system of `namespaces`.
///
/// # Errors
///
/// Any [`CallsError`]; the process must not go on then.
pub fn confine(lifeline: RawFd, namespaces: RawFd) -> Result<(), CallsError> {
    let rules = rules(std::process::id(), lifeline, namespaces)?;
    calls::confine_to(rules, SeccompAction::KillProcess)
}

fn rules(own: u32, lifeline: RawFd, namespaces: RawFd) -> Result<Rules, BackendError> {
    let always = [WAITING, LOOKING, MEMORY, LAST_WORDS, ENDING].concat();
    let mut rules: Rules = always.into_iter().map(|call| (call, Vec::new())).collect();
    let mut limit = |call, either: Vec<Rule>| drop(rules.insert(call, either));
    // Directories, and no file's content.
    limit(libc::SYS_openat, vec![all([lacks(2, WRITING)?, has(2, libc::O_DIRECTORY)?])?]);
    limit(libc::SYS_fcntl, vec![all([when(1, Is::Eq, number(libc::F_GETFD))?])?]);
    limit(libc::SYS_mmap, vec![all([lacks(2, libc::PROT_EXEC)?])?]);
    limit(libc::SYS_mprotect, vec![all([lacks(2, libc::PROT_EXEC)?])?]);
    let lifeline = when(0, Is::Eq, u64::from(lifeline.cast_unsigned()))?;
    limit(libc::SYS_sendmsg, vec![all([lifeline.clone()])?]);
    limit(libc::SYS_recvmsg, vec![all([lifeline])?]);
    let commands = BPF_COMMANDS.into_iter().map(|command| all([when(0, Is::Eq, command)?]));
    limit(libc::SYS_bpf, commands.collect::<Result<_, _>>()?);
    // Sockets are listed and closed over netlink, with whoever a socket without an address leads to: the kernel.
    let diag = [
        when(0, Is::Eq, number(libc::AF_NETLINK))?,
        when(1, Is::Eq, number(libc::SOCK_RAW | libc::SOCK_CLOEXEC))?,
        when(2, Is::Eq, number(libc::NETLINK_SOCK_DIAG))?,
    ];
    limit(libc::SYS_socket, vec![all(diag)?]);
    let patience =
        [when(1, Is::Eq, number(libc::SOL_SOCKET))?, when(2, Is::Eq, number(libc::SO_RCVTIMEO))?];
    limit(libc::SYS_setsockopt, vec![all(patience)?]);
    limit(libc::SYS_sendto, vec![all([nothing(4)?])?]);
    limit(libc::SYS_recvfrom, vec![all([nothing(4)?])?]);
    // Network namespaces, and nothing else that has handles.
    let namespaces = when(0, Is::Eq, u64::from(namespaces.cast_unsigned()))?;
    let to_read = when(2, Is::Eq, number(libc::O_RDONLY | libc::O_CLOEXEC))?;
    limit(libc::SYS_open_by_handle_at, vec![all([namespaces, to_read])?]);
    limit(libc::SYS_setns, vec![all([when(1, Is::Eq, number(libc::CLONE_NEWNET))?])?]);
    let own_abort = [when(0, Is::Eq, u64::from(own))?, when(2, Is::Eq, number(libc::SIGABRT))?];
    limit(libc::SYS_tgkill, vec![all(own_abort)?]);
    Ok(rules)
}

/// Whether `argument` has all the bits of `mask`.
fn has(argument: u8, mask: libc::c_int) -> Result<Condition, BackendError> {
    when(argument, Is::MaskedEq(number(mask)), number(mask))
}
