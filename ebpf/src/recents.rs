//! Where clients are noted to stay.

use aya_ebpf::btf_maps::Array;
use aya_ebpf::macros::btf_map;
use holdfast_ebpf::recent::WORDS;
use holdfast_ebpf::versioned::{VERSION, Versioned};
use holdfast_protocol::kernel::{self, Recent};

use crate::maps;

#[btf_map]
static RECENTS: Array<Recent, { kernel::RECENTS as usize }> = Array::new();

/// Its elements.
pub struct Recents;

impl Versioned for Recents {
    type Element = *mut [u64; WORDS];

    #[inline(always)]
    fn element(&self, index: u32) -> Option<Self::Element> {
        RECENTS.get_ptr_mut(index).map(<*mut Recent>::cast)
    }

    #[inline(always)]
    fn word(&self, element: Self::Element, word: usize) -> u64 {
        // SAFETY: `element` was looked up in this run, and callers pass one of its words. Others write it meanwhile, hence
        // one volatile load of 8 bytes.
        unsafe { (&raw const (*element)[word]).read_volatile() }
    }

    #[inline(always)]
    fn set(&self, element: Self::Element, word: usize, value: u64) {
        // SAFETY: as above; one volatile store of 8 bytes.
        unsafe { (&raw mut (*element)[word]).write_volatile(value) }
    }

    #[inline(always)]
    fn begin(&self, element: Self::Element, version: u64) -> bool {
        // SAFETY: as above.
        unsafe { maps::exchange(&raw mut (*element)[VERSION], version, version.wrapping_add(1)) }
    }
}
