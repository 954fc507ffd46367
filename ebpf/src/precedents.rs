//! Where what access policies have said is kept, and found again.

use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::btf_maps::Array;
use aya_ebpf::macros::btf_map;
use holdfast_ebpf::decide::Inquiry;
use holdfast_ebpf::policy::Ruling;
use holdfast_ebpf::precedent::{self, Matter};
use holdfast_protocol::kernel::HeadWord;
use holdfast_protocol::kernel::rules::{self, Precedent};

use crate::caller::Caller;
use crate::court::request;
use crate::elements::{Elements, Of};

#[btf_map]
static PRECEDENTS: Array<Precedent, { rules::PRECEDENTS as usize }> = Array::new();

/// Nothing was said: no [`Ruling`].
pub const NONE: u64 = u64::MAX;

struct Precedents;

impl Elements for Precedents {
    #[inline(always)]
    fn words(&self, index: u32) -> Option<*mut u64> {
        PRECEDENTS.get_ptr_mut(index).map(<*mut Precedent>::cast)
    }
}

/// What the policies of `head` have said of what was decided in `inquiry`, of a process in this cgroup.
#[inline(always)]
pub fn recalled(caller: Caller, inquiry: &Inquiry, head: HeadWord, cgroup: u64) -> Option<Ruling> {
    precedent::find(&Of(Precedents), &Matter::new(head, &request(caller, inquiry, cgroup)))
}

/// The same, as a function that the verifier looks at by itself: a [`Ruling`], or [`NONE`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hf_recall(
    context: *mut bpf_sock_addr,
    inquiry: *const Inquiry,
    head: u64,
    cgroup: u64,
) -> u64 {
    // SAFETY: programs pass what the kernel has passed them, and an inquiry of their own.
    let (caller, inquiry) = unsafe { (Caller::new(context), inquiry.as_ref()) };
    let Some(inquiry) = inquiry else { return NONE };
    recalled(caller, inquiry, HeadWord(head), cgroup).map_or(NONE, |ruling| ruling.0)
}

/// Keeps what the policies of `head` have said: a [`Ruling`] that lasts.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hf_set_precedent(
    context: *mut bpf_sock_addr,
    inquiry: *const Inquiry,
    head: u64,
    cgroup: u64,
    ruling: u64,
) -> u64 {
    // SAFETY: as in `hf_recall`.
    let (caller, inquiry) = unsafe { (Caller::new(context), inquiry.as_ref()) };
    if let Some(inquiry) = inquiry {
        let matter = Matter::new(HeadWord(head), &request(caller, inquiry, cgroup));
        precedent::keep(&Of(Precedents), &matter, Ruling(ruling));
    }
    0
}
