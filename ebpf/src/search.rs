//! The search for an endpoint in a table that was replaced.

use core::ffi::{c_long, c_void};

use aya_ebpf::helpers::bpf_loop;
use holdfast_ebpf::decide::NO_ROW;
use holdfast_ebpf::flow::holds;
use holdfast_ebpf::socket::Peer;

use crate::maps::Arrays;

/// What a step of the search is told and tells. Whole words, as the verifier likes its stack.
#[repr(C, align(8))]
struct Search {
    endpoint: Peer,
    /// Slot of the first row.
    first: u32,
    /// The row that holds the endpoint, once it is found.
    found: u32,
}

/// The first of `rows` rows from slot `first` on that holds `endpoint`, or [`NO_ROW`].
///
/// The kernel's own loop (`bpf_loop`, Linux 5.17) has its body verified once; any other would have
/// every turn of it verified, which bounds it far below the rows that a table may have.
#[inline(always)]
pub fn search(first: u32, rows: u32, endpoint: &Peer) -> u32 {
    let mut search = Search { endpoint: *endpoint, first, found: NO_ROW };
    // SAFETY: the callback takes what the helper passes it, a number and the address of `search`,
    // which outlives the call.
    unsafe {
        bpf_loop(rows, step as *mut c_void, (&raw mut search).cast(), 0);
    }
    search.found
}

/// Looks at one row; 1 ends the loop.
unsafe extern "C" fn step(row: u32, search: *mut c_void) -> c_long {
    // SAFETY: the address is the one that was passed to the helper, of a live `Search`.
    let search = unsafe { &mut *search.cast::<Search>() };
    if !holds(&Arrays, search.first.wrapping_add(row), &search.endpoint) {
        return 0;
    }
    search.found = row;
    1
}
