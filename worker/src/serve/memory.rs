//! The memory this process keeps when it has compiled a configuration, or looked at all of the maps.
//!
//! What that takes is many times larger than what is left of it, and the C library keeps what was freed.
#![expect(unsafe_code, reason = "the C library is told through a call")]

/// What is kept at the end of the heap, in bytes: room for the text of the next save, of some 100,000
/// endpoints, and for what changes with it. Fresh memory takes the kernel as long as all of the rest of a save.
const SPARE: usize = 6 * 1024 * 1024;

/// Gives back to the kernel what is not in use, but for some spare room. Takes a millisecond or so: not for a
/// thread that others wait for.
pub fn give_back() {
    // Other C libraries keep less, and have no such call.
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number and touches only memory that is not in use.
    unsafe {
        libc::malloc_trim(SPARE);
    }
}
