//! Where clients are noted to stay.

use aya_ebpf::btf_maps::Array;
use aya_ebpf::macros::btf_map;
use holdfast_protocol::kernel::{self, Recent};

use crate::elements::Elements;

#[btf_map]
static RECENTS: Array<Recent, { kernel::RECENTS as usize }> = Array::new();

/// Its elements.
pub struct Recents;

impl Elements for Recents {
    #[inline(always)]
    fn words(&self, index: u32) -> Option<*mut u64> {
        RECENTS.get_ptr_mut(index).map(<*mut Recent>::cast)
    }
}
