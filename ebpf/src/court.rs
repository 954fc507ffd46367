//! Where access policies are judged: the maps they are in, and the process that connects.

use aya_ebpf::helpers::generated::bpf_get_current_ancestor_cgroup_id;
use holdfast_ebpf::policy::{Court, Policies, Request, Ruling, judge};
use holdfast_protocol::kernel::HeadWord;
use holdfast_protocol::kernel::rules::Cell;

use crate::maps;

/// The policies in force.
pub struct Chamber;

impl Court for Chamber {
    #[inline(always)]
    fn head(&self) -> HeadWord {
        maps::policy_head()
    }

    #[inline(always)]
    fn judge(&self, request: &Request) -> Ruling {
        Ruling(hf_judge(request))
    }
}

/// The workload is the process that makes the system call: it acts, whoever made the socket.
struct Caller;

impl Policies for Caller {
    #[inline(always)]
    fn cell(&self, index: u32) -> Option<Cell> {
        maps::policy_cell(index)
    }

    #[inline(always)]
    fn cgroup(&self, level: u32) -> u64 {
        // SAFETY: the helper takes any number, and answers 0 for a level that is not there.
        unsafe { bpf_get_current_ancestor_cgroup_id(level as i32) }
    }
}

/// [`judge`] as a function that the verifier looks at by itself: one that is exported. It takes any
/// argument of its type for possible, so the pointer is looked at first.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hf_judge(request: *const Request) -> u64 {
    // SAFETY: the only caller passes a reference; the verifier has every pointer checked for null
    // and knows the size of what it points to.
    match unsafe { request.as_ref() } {
        Some(request) => judge(&Caller, request).0,
        None => Ruling::UNSETTLED.0,
    }
}
