//! What lookups in `FRONTENDS` found: a cache in front of it.
//!
//! A lookup in a hash calls functions, and reads memory that is in no processor's cache. Of an address that was asked
//! for before, a line here says the same for one read of memory. Software switches have such a cache (the exact-match
//! cache of B. Pfaff and others, "The Design and Implementation of Open vSwitch", NSDI 2015).
//!
//! A line says that its address led to a service when the service had that head, or to none. As long as nothing but
//! heads changes, that stays so: a head names one generation, and with it the addresses that are in force. Before a
//! writer changes anything else that a lookup depends on, it ends the [`Era`], so that no line counts; when all of it
//! is done, another one begins, which no line is of. A writer that dies in between leaves the cache unused, not wrong.

use super::{Address, FrontendKey};

/// What one lookup found: an element of `ADDRESS_CACHE`, as long as a line of a processor's cache.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheLine {
    /// Odd while a program writes the line, and another even number once it has.
    pub version: u64,
    /// The [`Era`] it was found in. Of the element behind the lines: the one that is now.
    pub era: u64,
    /// The [`HeadWord`](super::HeadWord) that the service had.
    pub head: u64,
    /// The address that was looked up.
    pub address: Address,
    /// The rest of what was looked up, and where it led: see [`CacheLine::place`].
    pub place: u64,
    /// Always 0.
    pub padding: [u64; 2],
}

impl CacheLine {
    /// The service of an address that led to none.
    pub const NOBODY: u32 = u32::MAX;

    /// The port and protocol of `key` in the lower half, and the number of the service that it led to, or
    /// [`CacheLine::NOBODY`], in the upper one.
    #[must_use]
    pub const fn place(key: &FrontendKey, service: u32) -> u64 {
        (service as u64) << 32 | (key.protocol as u64) << 16 | key.port_be as u64
    }

    /// Which 64-bit word [`CacheLine::era`] is.
    pub const ERA_WORD: usize = core::mem::offset_of!(Self, era) / size_of::<u64>();
}

/// A time in which, of what a lookup depends on, only heads change.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Era(pub u64);

impl Era {
    /// Whether it is one. Between two of them no line counts, and none is written.
    #[must_use]
    pub const fn is_open(self) -> bool {
        self.0 & 1 == 1
    }

    /// What is when it ends.
    #[must_use]
    pub const fn ended(self) -> Self {
        Self(self.0 & !1)
    }

    /// The next one. None comes back: at a million a second they last for 292,000 years.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.ended().0.wrapping_add(3))
    }
}

const _: () = assert!(size_of::<CacheLine>() == 64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_era_comes_twice() {
        let first = Era::default().next();
        assert!(!Era::default().is_open() && first.is_open() && !first.ended().is_open());
        assert_eq!(first.ended().next(), first.next());
        assert!(first.next() != first && first.next().is_open());
    }
}
