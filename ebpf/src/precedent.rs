//! What access policies have said before of a connection that equals another one. Pure.
//!
//! What policies say follows from the policies in force and from what a connection is: where it was going, where it goes, from
//! which address and which control group. A control group never gets another one above it, and its id is never given again. So
//! what was said once holds for all that is equal, until other policies are in force, which have another head. To find it takes
//! no call; to judge takes one for each step and each level of control groups.
//!
//! An element may be rewritten while it is read, by anybody, for something else. Its [version](crate::versioned) says so.

use holdfast_protocol::kernel::rules::{PRECEDENTS, Precedent};
use holdfast_protocol::kernel::{Address, HeadWord};

use crate::policy::{Request, Ruling};
use crate::versioned::{self, Versioned};

/// The fields of a [`Precedent`] as words.
pub mod word {
    use core::mem::offset_of;

    use super::Precedent;

    /// The policies.
    pub const HEAD: usize = at(offset_of!(Precedent, head));
    /// The control group.
    pub const CGROUP: usize = at(offset_of!(Precedent, cgroup));
    /// The address that was asked for, and the next word.
    pub const ASKED: usize = at(offset_of!(Precedent, asked));
    /// The address it goes to, and the next word.
    pub const ENDPOINT: usize = at(offset_of!(Precedent, endpoint));
    /// The socket's own address, and the next word.
    pub const LOCAL: usize = at(offset_of!(Precedent, local));
    /// The ports.
    pub const PORTS: usize = at(offset_of!(Precedent, ports));
    /// What was said.
    pub const RULING: usize = at(offset_of!(Precedent, ruling));
    /// How many words there are.
    #[cfg(test)]
    pub const COUNT: usize = size_of::<Precedent>() / size_of::<u64>();

    const _: () = assert!(at(offset_of!(Precedent, version)) == crate::versioned::VERSION);

    const fn at(offset: usize) -> usize {
        offset / size_of::<u64>()
    }
}

/// All that a connection is judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matter {
    head: u64,
    cgroup: u64,
    asked: [u64; 2],
    endpoint: [u64; 2],
    local: [u64; 2],
    ports: u64,
}

impl Matter {
    /// What `request` is judged by, by the policies of `head`.
    #[inline(always)]
    #[must_use]
    pub const fn new(head: HeadWord, request: &Request<'_>) -> Self {
        let ports = request.asked_port_be as u64 | (request.endpoint_port_be as u64) << 16;
        Self {
            head: head.0,
            cgroup: request.cgroup,
            asked: words(request.asked),
            endpoint: words(request.endpoint),
            local: words(&request.local),
            ports: ports | (Precedent::EDITION as u64) << 32,
        }
    }

    /// Where it is looked for: the highest bits of a product, which all lower bits of what is multiplied have changed. An IPv4
    /// address is in the upper half of its words, and is turned to the lower one.
    #[inline(always)]
    fn index(&self) -> u32 {
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        let folded = |words: [u64; 2]| words[0] ^ words[1].rotate_left(32);
        let mut mixed = (folded(self.asked) ^ self.ports).wrapping_mul(ODD);
        mixed = (mixed ^ folded(self.endpoint)).wrapping_mul(ODD);
        mixed = (mixed ^ folded(self.local)).wrapping_mul(ODD);
        mixed = (mixed ^ self.cgroup).wrapping_mul(ODD);
        (mixed >> (u64::BITS - PRECEDENTS.trailing_zeros())) as u32
    }
}

/// What was said of `matter`, if anything was.
#[inline(always)]
pub fn find<V: Versioned>(precedents: &V, matter: &Matter) -> Option<Ruling> {
    let element = precedents.element(matter.index())?;
    let word = |word| precedents.word(element, word);
    // Nearly always all are equal: one branch for all of them.
    let (differs, ruling) = versioned::read(precedents, element, || {
        let differs = (word(word::HEAD) ^ matter.head)
            | (word(word::CGROUP) ^ matter.cgroup)
            | (word(word::ASKED) ^ matter.asked[0])
            | (word(word::ASKED + 1) ^ matter.asked[1])
            | (word(word::ENDPOINT) ^ matter.endpoint[0])
            | (word(word::ENDPOINT + 1) ^ matter.endpoint[1])
            | (word(word::LOCAL) ^ matter.local[0])
            | (word(word::LOCAL + 1) ^ matter.local[1])
            | (word(word::PORTS) ^ matter.ports);
        (differs, word(word::RULING))
    })?;
    (differs == 0).then_some(Ruling(ruling))
}

/// Keeps what was said of `matter`, which lasts, in place of what is at its element. If somebody else writes there now, theirs
/// is kept.
#[inline(always)]
pub fn keep<V: Versioned>(precedents: &V, matter: &Matter, ruling: Ruling) {
    let Some(element) = precedents.element(matter.index()) else { return };
    let set = |word, value| precedents.set(element, word, value);
    versioned::write(precedents, element, || {
        set(word::HEAD, matter.head);
        set(word::CGROUP, matter.cgroup);
        set(word::ASKED, matter.asked[0]);
        set(word::ASKED + 1, matter.asked[1]);
        set(word::ENDPOINT, matter.endpoint[0]);
        set(word::ENDPOINT + 1, matter.endpoint[1]);
        set(word::LOCAL, matter.local[0]);
        set(word::LOCAL + 1, matter.local[1]);
        set(word::PORTS, matter.ports);
        set(word::RULING, ruling.0);
    });
}

#[inline(always)]
const fn words(address: &Address) -> [u64; 2] {
    [crate::words::word(address[0], address[1]), crate::words::word(address[2], address[3])]
}

#[cfg(test)]
#[path = "precedent_tests.rs"]
mod tests;
