//! The memory this process keeps when it has compiled a configuration.
//!
//! A parsed configuration is many times larger than what is left of it, and the C library keeps what
//! was freed. The kernel takes every page out of a dead process before anybody else may be granted,
//! so what is kept makes the next takeover longer.
#![expect(unsafe_code, reason = "the C library is told through a call")]

/// Gives back to the kernel what is not in use. Takes a millisecond or so: not for a thread that
/// others wait for.
pub fn give_back() {
    // Other C libraries keep less, and have no such call.
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number and touches only memory that is not in use.
    unsafe {
        libc::malloc_trim(0);
    }
}
