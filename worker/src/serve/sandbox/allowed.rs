//! The system calls of a worker that serves, by what they are for.
//!
//! Found by tracing the worker through its tests, and completed by what the C library and the
//! runtime may do instead. Whatever is not here is denied: above all anything that makes a
//! descriptor for something new except opening a file to read it and a TCP connection for a health
//! check, and anything that starts or touches another thread or process.

use std::collections::BTreeMap;
use std::os::fd::RawFd;

use seccompiler::{
    BackendError, SeccompCmpArgLen as Length, SeccompCmpOp as Is, SeccompCondition as Condition,
    SeccompRule as Rule,
};

use crate::serve::resolve::{NS_GET_ID, NS_GET_NSTYPE};

/// The rules of each system call: one of them has to hold; without any it is always allowed.
pub type Rules = BTreeMap<libc::c_long, Vec<Rule>>;

/// Waiting for the supervisor, for changes of files and for time, and being woken up.
const WAITING: &[libc::c_long] = &[
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    libc::SYS_ppoll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_restart_syscall,
    libc::SYS_clock_nanosleep,
];

/// Descriptors that are there: the log, the wake-up counter, changes of files. None of them leads
/// to more than it did when it was opened.
const DESCRIPTORS: &[libc::c_long] =
    &[libc::SYS_read, libc::SYS_write, libc::SYS_writev, libc::SYS_lseek, libc::SYS_close];

/// Forcing a snapshot to the disk, through the descriptor that the supervisor gave for it.
const KEEPING: &[libc::c_long] = &[libc::SYS_fsync];

/// Looking at files, and being told of changes. What is opened is in [`rules`].
const LOOKING: &[libc::c_long] = &[
    libc::SYS_statx,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_readlinkat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    libc::SYS_getdents64,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_rm_watch,
];

/// Memory, except what could make code of it: that is in [`rules`].
pub(crate) const MEMORY: &[libc::c_long] =
    &[libc::SYS_brk, libc::SYS_munmap, libc::SYS_mremap, libc::SYS_madvise];

/// Facts about this process and the machine: time where the kernel does not map a clock, seeds of
/// hash maps, processors for the C library's arenas and for the grace period.
const FACTS: &[libc::c_long] = &[
    libc::SYS_clock_gettime,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_sched_getaffinity,
    libc::SYS_getpid,
    libc::SYS_gettid,
];

/// Ending, by the way and by an abort, whose signal is in [`rules`]; the signal stack of a thread
/// that ends; handlers, which the standard library resets when the process has run out of stack.
pub(crate) const ENDING: &[libc::c_long] = &[
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
];

/// `enum bpf_cmd`: elements of the maps that were handed over, and what the kernel says about them.
/// Not among them: whatever creates, loads, attaches, detaches, pins, or finds by id or path.
const BPF_COMMANDS: [u64; 5] = [
    1,  // BPF_MAP_LOOKUP_ELEM
    2,  // BPF_MAP_UPDATE_ELEM
    3,  // BPF_MAP_DELETE_ELEM
    15, // BPF_OBJ_GET_INFO_BY_FD
    24, // BPF_MAP_LOOKUP_BATCH
];

/// `MEMBARRIER_CMD_GLOBAL`: the grace period.
const MEMBARRIER_GLOBAL: u64 = 1;

/// How filters are installed: for every thread, logging what they deny.
pub const FOR_ALL_THREADS: u64 = libc::SECCOMP_FILTER_FLAG_TSYNC | libc::SECCOMP_FILTER_FLAG_LOG;

/// `__O_TMPFILE`, which the C library shows only together with `O_DIRECTORY`.
const TEMPORARY: libc::c_int = libc::O_TMPFILE & !libc::O_DIRECTORY;

/// Whatever could change a file: only reading is left.
pub(crate) const WRITING: libc::c_int =
    libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC | libc::O_APPEND | TEMPORARY;

/// The way to an endpoint that is to be checked. A worker whose configuration asks for no checks gives
/// them up: see [`super::calls::renounce_connecting`].
pub const CONNECTING: [libc::c_long; 2] = [libc::SYS_socket, libc::SYS_connect];

/// The rules for the process `own`, whose socket is `lifeline`.
///
/// # Errors
///
/// When they contradict themselves, which only a bug in this module causes.
pub fn rules(own: u32, lifeline: RawFd) -> Result<Rules, BackendError> {
    let always = [WAITING, DESCRIPTORS, KEEPING, LOOKING, MEMORY, FACTS, ENDING].concat();
    let mut rules: Rules = always.into_iter().map(|call| (call, Vec::new())).collect();
    let lifeline = u64::from(lifeline.cast_unsigned());
    let get_flags = number(libc::F_GETFD);
    let own_abort = [when(0, Is::Eq, u64::from(own))?, when(2, Is::Eq, number(libc::SIGABRT))?];
    let mut limit = |call, either: Vec<Rule>| drop(rules.insert(call, either));
    limit(libc::SYS_openat, vec![all([lacks(2, WRITING)?])?]);
    limit(libc::SYS_mmap, vec![all([lacks(2, libc::PROT_EXEC)?])?]);
    limit(libc::SYS_mprotect, vec![all([lacks(2, libc::PROT_EXEC)?])?]);
    limit(libc::SYS_sendmsg, vec![all([when(0, Is::Eq, lifeline)?])?]);
    limit(libc::SYS_recvmsg, vec![all([when(0, Is::Eq, lifeline)?])?]);
    // Health checks: TCP sockets of both families, and nothing else. Where they connect to stands in
    // memory, which a filter cannot look at.
    let tcp = number(libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC);
    let families = [libc::AF_INET, libc::AF_INET6].into_iter().map(|family| {
        all([when(0, Is::Eq, number(family))?, when(1, Is::Eq, tcp)?, when(2, Is::Eq, 0)?])
    });
    limit(libc::SYS_socket, families.collect::<Result<_, _>>()?);
    limit(libc::SYS_connect, Vec::new());
    limit(libc::SYS_getsockname, Vec::new());
    let own_error =
        [when(1, Is::Eq, number(libc::SOL_SOCKET))?, when(2, Is::Eq, number(libc::SO_ERROR))?];
    limit(libc::SYS_getsockopt, vec![all(own_error)?]);
    // One more filter: a call passes only if every filter lets it.
    let one_more = [
        when(0, Is::Eq, u64::from(libc::SECCOMP_SET_MODE_FILTER))?,
        when(1, Is::Eq, FOR_ALL_THREADS)?,
    ];
    limit(libc::SYS_seccomp, vec![all(one_more)?]);
    // Scrapes. The descriptor of the listener is not known yet, but there is no way to another one: no
    // call on this list makes a socket that could listen. Who connected is not asked, and nothing is
    // sent anywhere but over a connection.
    let new = number(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC);
    limit(libc::SYS_accept4, vec![all([nothing(1)?, when(3, Is::Eq, new)?])?]);
    limit(libc::SYS_recvfrom, vec![all([nothing(4)?])?]);
    limit(libc::SYS_sendto, vec![all([nothing(4)?])?]);
    limit(libc::SYS_shutdown, vec![all([when(1, Is::Eq, number(libc::SHUT_WR))?])?]);
    limit(libc::SYS_membarrier, vec![all([when(0, Is::Eq, MEMBARRIER_GLOBAL)?])?]);
    // The standard library makes sure of a descriptor before it closes it.
    limit(libc::SYS_fcntl, vec![all([when(1, Is::Eq, get_flags)?])?]);
    // What kind of namespace a file stands for, and its id: they only tell.
    let told = [NS_GET_NSTYPE, NS_GET_ID].into_iter();
    let told = told.map(|request| all([when(1, Is::Eq, u64::from(request))?]));
    limit(libc::SYS_ioctl, told.collect::<Result<_, _>>()?);
    limit(libc::SYS_tgkill, vec![all(own_abort)?]);
    let commands = BPF_COMMANDS.into_iter().map(|command| all([when(0, Is::Eq, command)?]));
    limit(libc::SYS_bpf, commands.collect::<Result<_, _>>()?);
    Ok(rules)
}

pub(crate) fn all<const N: usize>(conditions: [Condition; N]) -> Result<Rule, BackendError> {
    Rule::new(conditions.into())
}

/// The kernel reads these arguments as 32 bits.
pub(crate) fn when(argument: u8, is: Is, value: u64) -> Result<Condition, BackendError> {
    Condition::new(argument, Length::Dword, is, value)
}

/// Whether `argument`, an address, is none.
pub(crate) fn nothing(argument: u8) -> Result<Condition, BackendError> {
    Condition::new(argument, Length::Qword, Is::Eq, 0)
}

/// Whether `argument` has none of the bits of `mask`.
pub(crate) fn lacks(argument: u8, mask: libc::c_int) -> Result<Condition, BackendError> {
    when(argument, Is::MaskedEq(number(mask)), 0)
}

pub(crate) fn number(value: libc::c_int) -> u64 {
    u64::from(value.cast_unsigned())
}
