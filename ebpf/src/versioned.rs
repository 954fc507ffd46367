//! Elements of several words that programs write while others read them. Pure.
//!
//! Whoever writes makes the version of an element odd, writes the rest, and makes it even again. So what was read between two
//! equal, even versions belongs together. Reads are taken in program order, and so are stores, as in
//! [`decide`](mod@crate::decide).

/// Elements, as a program reads and writes them. Each method is one access, and no word is ever torn.
pub trait Versioned {
    /// An element.
    type Element: Copy;

    /// The element at `index`; `None` if there is no such element.
    fn element(&self, index: u32) -> Option<Self::Element>;
    /// A word of an element.
    fn word(&self, element: Self::Element, word: usize) -> u64;
    /// Stores a word of an element.
    fn set(&self, element: Self::Element, word: usize, value: u64);
    /// Makes the version of an element be one more if it is `version`, in one step. Returns whether it was.
    fn begin(&self, element: Self::Element, version: u64) -> bool;
}

/// The word of every element that is its version.
pub const VERSION: usize = 0;

/// What `take` reads of an element, unless somebody writes there meanwhile.
#[inline(always)]
pub fn read<V: Versioned, R>(
    versioned: &V,
    element: V::Element,
    take: impl FnOnce() -> R,
) -> Option<R> {
    let version = versioned.word(element, VERSION);
    let taken = take();
    (version & 1 == 0 && versioned.word(element, VERSION) == version).then_some(taken)
}

/// Has `store` write the other words of an element. If somebody else writes there now, theirs is kept.
#[inline(always)]
pub fn write<V: Versioned>(versioned: &V, element: V::Element, store: impl FnOnce()) {
    let version = versioned.word(element, VERSION);
    if version & 1 == 0 && versioned.begin(element, version) {
        store();
        versioned.set(element, VERSION, version.wrapping_add(2));
    }
}

#[cfg(test)]
#[path = "versioned_tests.rs"]
pub(crate) mod tests;
