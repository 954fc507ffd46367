//! Elements of maps that are several words, written and read by programs at the same time.

use holdfast_ebpf::versioned::{VERSION, Versioned};

use crate::maps;

/// A map of such elements.
pub trait Elements {
    /// The words of the element at `index`, in this run of the program; `None` if there is no such element.
    fn words(&self, index: u32) -> Option<*mut u64>;
}

/// The elements of a map, as [`holdfast_ebpf::versioned`] reads and writes them: it names only words that they have.
pub struct Of<M>(pub M);

impl<M: Elements> Versioned for Of<M> {
    type Element = *mut u64;

    #[inline(always)]
    fn element(&self, index: u32) -> Option<Self::Element> {
        self.0.words(index)
    }

    #[inline(always)]
    fn word(&self, element: Self::Element, word: usize) -> u64 {
        // SAFETY: `element` was looked up in this run, and callers pass one of its words. Others write it meanwhile, hence
        // one volatile load of 8 bytes.
        unsafe { element.add(word).read_volatile() }
    }

    #[inline(always)]
    fn set(&self, element: Self::Element, word: usize, value: u64) {
        // SAFETY: as above; one volatile store of 8 bytes.
        unsafe { element.add(word).write_volatile(value) }
    }

    #[inline(always)]
    fn begin(&self, element: Self::Element, version: u64) -> bool {
        // SAFETY: as above.
        unsafe { maps::exchange(element.add(VERSION), version, version.wrapping_add(1)) }
    }
}
