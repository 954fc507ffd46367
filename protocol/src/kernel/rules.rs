//! Access policies as the kernel programs read them.
//!
//! ```text
//! POLICY_HEAD      one word ──► HeadWord { first cell of the image in force, generation }
//! POLICIES         cells: two images, one of them in force
//! POLICY_COUNTERS  policy number ──► PolicyCounters
//! PRECEDENTS       what was judged ──► Precedent
//! ```
//!
//! An image holds every policy, compiled. It is written where nothing is in force, never changes
//! while it is, and one store to `POLICY_HEAD` replaces it by the other: at every instant the old
//! policies decide or the new ones. A program reads the head again when it has decided, and decides
//! again if it is another one by then: generations never repeat, so an image that was rewritten
//! meanwhile shows.
//!
//! A connection is judged by *terms*: one for each rule, and one for the workloads each allowing
//! policy is about. A term has a bit. What a connection has (an address, a port, a cgroup) leads to
//! a *vector*, the bits of all terms that it satisfies; the bits left in all of a connection's
//! vectors are the terms that it matches (T. V. Lakshman and D. Stiliadis, "High-speed policy-based
//! packet forwarding using efficient multi-dimensional range matching", 1998).
//!
//! Offsets are in cells and relative to the image, so that two images of one meaning are equal. In
//! order, an image has its [`ImageHeader`], a record for each policy ([`RECORD_CELLS`]), and for each
//! direction a header ([`DIRECTION_CELLS`]), the policy of each term, sections and vectors.

/// Two words, which is what an image is made of.
pub type Cell = [u64; 2];

/// Cells of an image at most: 2 MiB.
pub const IMAGE_CELLS: u32 = 131_072;
/// Cells of `POLICIES`: the first is never used, so that 0 names no image; then two images.
pub const CELLS: u32 = 1 + 2 * IMAGE_CELLS;
/// Elements of `POLICY_HEAD`.
pub const HEADS: u32 = 1;
/// Policies an image has at most.
pub const MAX_POLICIES: u32 = 1024;
/// Numbers of policies: those of an image in force are not given to new ones in the next.
pub const POLICY_NUMBERS: u32 = 2 * MAX_POLICIES;
/// Elements of `PRECEDENTS`, a power of two: 1.5 MiB. Who goes where again finds what was said as long as nothing else has
/// its element; who does not is judged.
pub const PRECEDENTS: u32 = 16_384;
/// No policy has this number.
pub const NO_POLICY: u32 = u32::MAX;

/// Terms that share a word of a vector.
pub const WORD_TERMS: u32 = u64::BITS;
/// Words of a vector at most.
pub const MAX_WORDS: u32 = 32;
/// Terms of a direction at most. Terms of different kinds share no word; what that leaves unused is
/// less than a word for each kind.
pub const MAX_TERMS: u32 = (MAX_WORDS - kind::COUNT) * WORD_TERMS;
/// Levels of cgroups that a program looks at, from the root on.
pub const MAX_LEVELS: u32 = 32;
/// Halvings that find one of as many entries as an image has cells.
pub const SEARCH_STEPS: u32 = 18;

/// What it means that a connection matches a term.
pub mod kind {
    /// It is denied.
    pub const DENY: u32 = 0;
    /// It is allowed, unless it is denied.
    pub const ALLOW: u32 = 1;
    /// It has to be allowed by some term.
    pub const SELECT: u32 = 2;
    /// It would be denied by a policy that is tried out.
    pub const DRY_DENY: u32 = 3;
    /// It would be allowed by one.
    pub const DRY_ALLOW: u32 = 4;
    /// It would have to be allowed, by one.
    pub const DRY_SELECT: u32 = 5;

    /// How many kinds there are. The kinds of sixteen words share a word: four bits each.
    pub const COUNT: u32 = 6;
    /// Bits of a kind.
    pub const BITS: u32 = 4;
    /// Words whose kinds share a word.
    pub const WORDS: u32 = 64 / BITS;
}

/// What a policy says, in its record.
pub mod policy_flag {
    /// It allows; otherwise it denies.
    pub const ALLOW: u32 = 1;
    /// It is tried out and decides nothing.
    pub const DRY_RUN: u32 = 2;
    /// It is about what arrives; otherwise about what leaves.
    pub const INBOUND: u32 = 4;
}

/// Bytes of a policy's name: a DNS label, padded with zeros.
pub const NAME_BYTES: usize = 64;
/// Cells of a policy's record: `[number, flags and terms]`, then its name.
pub const RECORD_CELLS: u32 = 1 + (NAME_BYTES / size_of::<Cell>()) as u32;

/// The first cell of an image.
pub struct ImageHeader;

impl ImageHeader {
    /// Word: cells of the image (low half) and how many policies it has (high half).
    pub const SIZE: usize = 0;
    /// Word: where the header for connections that leave is (low half), and for those that arrive (high
    /// half, without its highest bit); 0 if there is none.
    pub const DIRECTIONS: usize = 1;

    /// Bit of the upper half of that word: connections that have arrived already are judged as well.
    pub const CUTS: u32 = 1 << 31;

    /// Where the header for connections that arrive is, by that word.
    #[must_use]
    pub const fn arriving(directions: u64) -> u32 {
        (directions >> 32) as u32 & !Self::CUTS
    }

    /// Whether those that have arrived already are judged, by that word.
    #[must_use]
    pub const fn cuts(directions: u64) -> bool {
        (directions >> 32) as u32 & Self::CUTS != 0
    }
}

/// How the connection of a socket was judged: the value of `ARRIVALS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// The generation of the policies that judged it; 0 if none has.
    pub generation: u32,
    /// 1 if it passes, 0 if not.
    pub passes: u32,
}

/// Cells of a direction's header, which are these:
///
/// | cell | word 0 | word 1 |
/// |---|---|---|
/// | 0 | words of a vector | kinds of the first 16 words |
/// | 1 | kinds of the others | offset of the terms' policies, a cell each |
/// | 2 | section of remote IPv4 addresses | section of remote IPv6 addresses |
/// | 3 | section of local IPv4 addresses | section of local IPv6 addresses |
/// | 4 | section of remote ports | section of cgroups |
/// | 5 | vector of an unknown local address | vector outside of all cgroups |
///
/// Of a connection that arrives, the ports are the workload's own.
///
/// A section is the offset (low half) and number (high half) of entries that are sorted by their
/// first word. An entry is a cell `[first value of a range, vector]`, of cgroups `[id, vector]`; of
/// IPv6 addresses it is two, `[high half, low half]` and `[vector, 0]`. The ranges of a section begin
/// at 0, one where the other ends. The sections of local addresses and of cgroups are empty if no term
/// is about any; the vectors in cell 5 are those of every connection then.
///
/// A vector is the offset of its cells `[bits that hold, bits that are not ruled out]`. The two differ for what a connection has twice, the address that was
/// asked for and the endpoint: a term matches if one of them holds and neither is ruled out.
pub const DIRECTION_CELLS: u32 = 6;

/// What was counted for a policy on one CPU. No counter goes back while the number belongs to the
/// policy.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PolicyCounters {
    /// Connections it denied: that match one of its denying rules, or that it is about as an allowing
    /// one and nothing allowed.
    pub denied: u64,
    /// Connections it would have denied, were it not tried out only.
    pub dry_run: u64,
}

/// What policies have said, and of what: the value of `PRECEDENTS`. Only programs read and write it.
///
/// Everything that a connection is judged by is here, so that what is found is said of the same, by the same policies. A
/// writer makes the version odd, writes the rest, and makes it even again: what was read between two equal, even versions
/// belongs together.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Precedent {
    /// Counts up by two with each change.
    pub version: u64,
    /// The [`HeadWord`](super::HeadWord) of the policies.
    pub head: u64,
    /// The id of the control group of the process.
    pub cgroup: u64,
    /// The address that was asked for, as two words.
    pub asked: [u64; 2],
    /// Where it goes.
    pub endpoint: [u64; 2],
    /// The socket's own address.
    pub local: [u64; 2],
    /// The ports of the two, in network order, and [`EDITION`](Self::EDITION) above them.
    pub ports: u64,
    /// What they said.
    pub ruling: u64,
    /// Always 0.
    pub reserved: u64,
}

impl Precedent {
    /// Counts up when programs come to judge otherwise by the same policies: what others before them have said is nothing
    /// to them.
    pub const EDITION: u32 = 1;
}

const _: () = {
    assert!(size_of::<Precedent>() == 96);
    assert!(PRECEDENTS.is_power_of_two());
    assert!(size_of::<PolicyCounters>() == 16);
    assert!(size_of::<Judged>() == 8);
    assert!(RECORD_CELLS == 5);
    assert!(kind::COUNT <= 1 << kind::BITS && MAX_WORDS == 2 * kind::WORDS);
    assert!(IMAGE_CELLS <= 1 << (SEARCH_STEPS - 1));
};
