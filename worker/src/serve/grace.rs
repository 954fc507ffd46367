//! Waiting until no program that runs now is still running, without any privilege.
//!
//! `membarrier(MEMBARRIER_CMD_GLOBAL)` is `synchronize_rcu()` in the kernel
//! (`kernel/sched/membarrier.c`), and programs on the cgroup hooks run inside a read-side critical
//! section of it (`bpf_prog_run_array_cg` takes `rcu_read_lock`). It takes some 10 to 30 ms, so it
//! is never on the way to a grant unless freed room is needed there.

use std::time::Duration;

/// How long what was freed rests where the kernel offers no grace period: longer than the time (21
/// seconds by default) after which the kernel itself reports a reader that has not ended as stuck.
/// A program on these hooks runs for microseconds.
pub const LONG_REST: Duration = Duration::from_secs(30);

/// `MEMBARRIER_CMD_GLOBAL`.
const MEMBARRIER_GLOBAL: libc::c_int = 1;

/// Waits for a grace period. Returns whether one has passed; where none can be asked for, the
/// caller has to wait for [`LONG_REST`].
///
/// There is none to ask for where the kernel runs some CPUs without ticks (`nohz_full`, `EINVAL`)
/// or a filter forbids the call. With a single CPU the kernel takes the call for done at once,
/// although a preempted program may still be there, so it does not count.
#[must_use]
pub fn pass() -> bool {
    if online_cpus() < 2 {
        return false;
    }
    // SAFETY: this command of membarrier(2) takes no address.
    let answer = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_GLOBAL, 0, 0) };
    answer == 0 && online_cpus() >= 2
}

fn online_cpus() -> libc::c_long {
    // SAFETY: sysconf(3) takes a number and answers with one.
    unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) }
}
