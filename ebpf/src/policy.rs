//! Whether access policies let a connection pass.
//!
//! What is read here is laid out in [`holdfast_protocol::kernel::rules`]. An image is read while it is
//! in force, and a writer rewrites only the other one; the head is read again at the end, because by
//! then two changes may have come: then what was read counts for nothing, and it is read again.

use holdfast_protocol::kernel::rules::{
    Cell, ImageHeader, MAX_LEVELS, MAX_WORDS, NO_POLICY, SEARCH_STEPS, kind,
};
use holdfast_protocol::kernel::{Address, HeadWord, is_mapped, limit};

use super::words::{high, low};

/// The cells of the policies.
pub trait Cells {
    /// The cell at `index`; `None` if there is no such cell.
    fn cell(&self, index: u32) -> Option<Cell>;
}

/// The maps, and the workload's cgroup, as a program reads them. Searches and matches are functions
/// of their own to the verifier, as the judge is.
pub trait Policies: Cells {
    /// The id of the workload's cgroup at `level` below the root; 0 if it is not as deep.
    fn cgroup(&self, level: u32) -> u64;
    /// What [`Section::find`] says.
    fn find(&self, section: Section, value: u64) -> u32;
    /// What [`Section::find6`] says.
    fn find6(&self, section: Section, upper: u64, lower: u64) -> u32;
    /// What [`Vectors::matches`] says.
    fn matches(&self, vectors: &mut Vectors, word: u32) -> u64;
}

/// Which image is in force, and what it says. The judge is a function of its own to the verifier,
/// which looks at it once and not for each way that leads there.
pub trait Court {
    /// Which image is in force.
    fn head(&self) -> HeadWord;
    /// What [`judge`] says by the policies of `image`: its first cell.
    fn judge(&self, image: u32) -> Ruling;
    /// What the policies of `head` have said of the same before, if that was kept.
    fn recall(&self, head: HeadWord) -> Option<Ruling>;
    /// Keeps what the policies of `head` say.
    fn keep(&self, head: HeadWord, ruling: Ruling);
}

/// What is judged: a connection, its workload on one side. Addresses that are somewhere already stay
/// there, for the kernel's stack is small.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The address that the client asked for; of a connection that arrives, the client's.
    pub asked: &'a Address,
    /// Where it goes. The same, unless it goes to a service.
    pub endpoint: &'a Address,
    /// The workload's own address; all zeros while it has none.
    pub local: Address,
    /// The id of the workload's cgroup; 0 if only those above it can be asked for.
    pub cgroup: u64,
    /// The port that the client asked for, in network order.
    pub asked_port_be: u16,
    /// The endpoint's port, in network order.
    pub endpoint_port_be: u16,
}

/// What becomes of a connection, in one word: that is what one function of the kernel programs can
/// give another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ruling(pub u64);

/// What a [`Ruling`] comes to.
pub mod sentence {
    /// It passes.
    pub const ALLOWED: u32 = 0;
    /// It passes; a policy that is tried out would have denied it.
    pub const WOULD_DENY: u32 = 1;
    /// A policy denies it.
    pub const DENIED: u32 = 2;
    /// Every look found the policies being replaced, or contradicting themselves.
    pub const UNSETTLED: u32 = 3;
}

impl Ruling {
    const fn new(sentence: u32, policy: u32) -> Self {
        Self(((sentence as u64) << 32) | policy as u64)
    }

    /// No policy says anything about it.
    pub const ALLOWED: Self = Self::new(sentence::ALLOWED, NO_POLICY);
    /// The policies contradict themselves.
    pub const UNSETTLED: Self = Self::new(sentence::UNSETTLED, NO_POLICY);

    const LASTING: u64 = 1 << 63;

    /// One of [`sentence`].
    #[inline(always)]
    #[must_use]
    pub const fn sentence(self) -> u32 {
        high(self.0 & !Self::LASTING)
    }

    /// Whether the same policies say the same of an equal [`Request`], whenever it is made.
    #[inline(always)]
    #[must_use]
    pub const fn is_lasting(self) -> bool {
        self.0 & Self::LASTING != 0
    }

    #[inline(always)]
    const fn lasting(self, is_lasting: bool) -> Self {
        if is_lasting { Self(self.0 | Self::LASTING) } else { self }
    }

    /// Number of the policy that says so, or [`NO_POLICY`].
    #[inline(always)]
    #[must_use]
    pub const fn policy(self) -> u32 {
        low(self.0)
    }
}

/// Has a connection judged by the policies that are in force, unless they have said it before.
#[inline(always)]
pub fn settle<C: Court>(court: &C) -> Ruling {
    let head = court.head();
    if let Some(ruling) = court.recall(head) {
        return ruling;
    }
    let ruling = judged(court);
    // Heads do not come back: what was judged between two equal ones was judged by these policies.
    if ruling.is_lasting() && court.head().0 == head.0 {
        court.keep(head, ruling);
    }
    ruling
}

#[inline(always)]
fn judged<C: Court>(court: &C) -> Ruling {
    for _ in 0..limit::LOOKS {
        let head = court.head();
        if head.slot() == 0 {
            return Ruling::ALLOWED;
        }
        let ruling = court.judge(head.slot());
        if court.head().0 == head.0 {
            return ruling;
        }
    }
    Ruling::UNSETTLED
}

/// What the policies of `image` say about a connection that leaves.
#[inline(always)]
pub fn judge<P: Policies>(policies: &P, image: u32, request: &Request<'_>) -> Ruling {
    look(policies, image, low, request).unwrap_or(Ruling::UNSETTLED)
}

/// What they say about one that arrives.
#[inline(always)]
pub fn judge_arrival<P: Policies>(policies: &P, image: u32, request: &Request<'_>) -> Ruling {
    look(policies, image, ImageHeader::arriving, request).unwrap_or(Ruling::UNSETTLED)
}

#[inline(always)]
fn look<P: Policies>(
    policies: &P,
    image: u32,
    direction: impl Fn(u64) -> u32,
    request: &Request<'_>,
) -> Option<Ruling> {
    let direction = direction(policies.cell(image)?[ImageHeader::DIRECTIONS]);
    if direction == 0 {
        return Some(Ruling::ALLOWED.lasting(true));
    }
    let header = image.wrapping_add(direction);
    let (mut vectors, is_lasting) = vectors(policies, image, header, request)?;
    let ruling = ruling(policies, header, &mut vectors)?;
    Some(ruling.lasting(is_lasting))
}

#[inline(always)]
fn ruling<P: Policies>(policies: &P, header: u32, vectors: &mut Vectors) -> Option<Ruling> {
    let seen = Words::of(policies, header)?.seen(policies, vectors)?;
    let (denied, allowed) = (has(seen, kind::DENY), has(seen, kind::ALLOW));
    let (dry_denied, dry_allowed) = (has(seen, kind::DRY_DENY), has(seen, kind::DRY_ALLOW));
    let (sentence, kind) = if denied {
        (sentence::DENIED, kind::DENY)
    } else if has(seen, kind::SELECT) && !allowed {
        (sentence::DENIED, kind::SELECT)
    } else if dry_denied {
        (sentence::WOULD_DENY, kind::DRY_DENY)
    } else if has(seen, kind::DRY_SELECT) && !allowed && !dry_allowed {
        (sentence::WOULD_DENY, kind::DRY_SELECT)
    } else {
        return Some(Ruling::ALLOWED);
    };
    Some(Ruling::new(sentence, policy_of(policies, header, vectors, kind)?))
}

#[inline(always)]
const fn has(seen: u32, kind: u32) -> bool {
    seen & (1 << kind) != 0
}

/// The vectors of a connection, as offsets.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Vectors {
    image: u32,
    asked: u32,
    asked_port: u32,
    endpoint: u32,
    endpoint_port: u32,
    local: u32,
    cgroup: u32,
    /// Not 0 once one of them has led out of the policies.
    is_broken: u32,
}

impl Vectors {
    /// The terms of `word` that match.
    #[inline(always)]
    pub fn matches<C: Cells>(&mut self, cells: &C, word: u32) -> u64 {
        let matches = self.all(cells, word);
        if matches.is_none() {
            self.is_broken = 1;
        }
        matches.unwrap_or(0)
    }

    #[inline(always)]
    fn all<C: Cells>(&self, cells: &C, word: u32) -> Option<u64> {
        // Two words of each vector: the terms that hold, and those that are not ruled out. Taken in
        // one after the other, because the kernel's stack has no room for all of them.
        let at = |vector: u32| cells.cell(self.image.wrapping_add(word).wrapping_add(vector));
        let [mut holds, mut rest] = both(at(self.asked)?, at(self.asked_port)?);
        let endpoint = both(at(self.endpoint)?, at(self.endpoint_port)?);
        holds |= endpoint[0];
        rest &= endpoint[1];
        let local = at(self.local)?;
        rest &= local[0] & local[1];
        let cgroup = at(self.cgroup)?;
        Some(holds & rest & cgroup[0] & cgroup[1])
    }

    /// `value`, unless a vector has led out of the policies.
    #[inline(always)]
    const fn whole(&self, value: u32) -> Option<u32> {
        if self.is_broken == 0 { Some(value) } else { None }
    }
}

#[inline(always)]
const fn both(one: Cell, other: Cell) -> Cell {
    [one[0] & other[0], one[1] & other[1]]
}

/// The words of a direction's vectors.
#[derive(Clone, Copy)]
struct Words {
    count: u32,
    kinds: [u64; 2],
    /// Offset of the policies of their terms.
    owners: u32,
}

impl Words {
    #[inline(always)]
    fn of<P: Policies>(policies: &P, header: u32) -> Option<Self> {
        let first = policies.cell(header)?;
        let second = policies.cell(header.wrapping_add(1))?;
        Some(Self { count: low(first[0]), kinds: [first[1], second[0]], owners: low(second[1]) })
    }

    #[inline(always)]
    const fn kind(&self, word: u32) -> u32 {
        let kinds = if word < kind::WORDS { self.kinds[0] } else { self.kinds[1] };
        (kinds >> (word % kind::WORDS * kind::BITS)) as u32 & ((1 << kind::BITS) - 1)
    }

    /// The kinds of all terms that match, as bits.
    #[inline(always)]
    fn seen<P: Policies>(&self, policies: &P, vectors: &mut Vectors) -> Option<u32> {
        let mut seen = 0;
        for word in 0..MAX_WORDS {
            if word >= self.count {
                break;
            }
            let matches = policies.matches(vectors, word);
            seen |= u32::from(matches != 0) << self.kind(word);
        }
        vectors.whole(seen)
    }
}

/// The policy of the first term of `kind` that matches, one of which does.
///
/// The words are read once more: of a number of words that the first loop has tried, the verifier
/// knows so much that it would try this loop for each of them.
#[inline(always)]
fn policy_of<P: Policies>(
    policies: &P,
    header: u32,
    vectors: &mut Vectors,
    kind: u32,
) -> Option<u32> {
    let words = Words::of(policies, header)?;
    for word in 0..MAX_WORDS {
        if word >= words.count {
            break;
        }
        let matches = policies.matches(vectors, word);
        if matches != 0 && words.kind(word) == kind {
            let term = word * u64::BITS + lowest(matches);
            let owner = vectors.image.wrapping_add(words.owners).wrapping_add(term);
            return Some(low(policies.cell(owner)?[0]));
        }
    }
    None
}

/// The number of the lowest bit that is set in `word`, one of which is. By halves, because the
/// target has no instruction for it, and what the compiler makes of it reads a table from a map.
#[inline(always)]
const fn lowest(word: u64) -> u32 {
    let (mut rest, mut at, mut half) = (word, 0, u64::BITS / 2);
    while half > 0 {
        if rest & ((1 << half) - 1) == 0 {
            rest >>= half;
            at += half;
        }
        half /= 2;
    }
    at
}

/// The vectors of a connection, and whether they are those of all that equal it.
#[inline(always)]
fn vectors<P: Policies>(
    policies: &P,
    image: u32,
    header: u32,
    request: &Request<'_>,
) -> Option<(Vectors, bool)> {
    let remotes = policies.cell(header.wrapping_add(2))?;
    let locals = policies.cell(header.wrapping_add(3))?;
    let others = policies.cell(header.wrapping_add(4))?;
    let absent = policies.cell(header.wrapping_add(5))?;
    // First what needs the most room on the kernel's stack.
    let cgroups = Section::new(image, others[1]);
    let (mut cgroup, mut is_lasting) = (low(absent[1]), true);
    if cgroups.entries != 0 {
        (cgroup, is_lasting) = cgroups.deepest(policies, request.cgroup, cgroup)?;
    }
    let mut local = low(absent[0]);
    if high(locals[0]) != 0 && !is_unspecified(&request.local) {
        local = address_vector(policies, image, locals, &request.local)?;
    }
    let ports = Section::new(image, others[0]);
    let asked = address_vector(policies, image, remotes, request.asked)?;
    let asked_port = ports.vector(policies, port_value(request.asked_port_be))?;
    let (mut endpoint, mut endpoint_port) = (asked, asked_port);
    if request.endpoint != request.asked || request.endpoint_port_be != request.asked_port_be {
        endpoint = address_vector(policies, image, remotes, request.endpoint)?;
        endpoint_port = ports.vector(policies, port_value(request.endpoint_port_be))?;
    }
    let is_broken = 0;
    let vectors =
        Vectors { image, asked, asked_port, endpoint, endpoint_port, local, cgroup, is_broken };
    Some((vectors, is_lasting))
}

/// The vector of `address` in the sections for IPv4 and for IPv6.
#[inline(always)]
fn address_vector<P: Policies>(
    policies: &P,
    image: u32,
    sections: Cell,
    address: &Address,
) -> Option<u32> {
    if is_mapped(address) {
        let value = u64::from(u32::from_be(address[3]));
        Section::new(image, sections[0]).vector(policies, value)
    } else {
        Section::new(image, sections[1]).vector6(policies, address)
    }
}

#[inline(always)]
const fn port_value(port_be: u16) -> u64 {
    u16::from_be(port_be) as u64
}

/// Whether `address` is that of a socket that has none yet, of either family.
#[inline(always)]
const fn is_unspecified(address: &Address) -> bool {
    address[3] == 0 && (is_mapped(address) || address[0] | address[1] | address[2] == 0)
}

/// Two words in network order as one number.
#[inline(always)]
const fn joined(first: u32, second: u32) -> u64 {
    ((u32::from_be(first) as u64) << 32) | u32::from_be(second) as u64
}

/// Entries sorted by their first word, which lie one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// The cell of the first one.
    pub start: u32,
    /// How many there are.
    pub entries: u32,
}

impl Section {
    #[inline(always)]
    const fn new(image: u32, word: u64) -> Self {
        Self { start: image.wrapping_add(low(word)), entries: high(word) }
    }

    /// The cell of the last entry whose first word is at most `value`, or else of the first one.
    #[inline(always)]
    #[must_use]
    pub fn find<C: Cells>(self, cells: &C, value: u64) -> u32 {
        let (mut first, mut left) = (self.start, self.entries);
        for _ in 0..SEARCH_STEPS {
            if left <= 1 {
                break;
            }
            let half = left / 2;
            let middle = first.wrapping_add(half);
            // What leads out of the policies is found out when the entry is read.
            if cells.cell(middle).is_none_or(|cell| cell[0] <= value) {
                first = middle;
            }
            left -= half;
        }
        first
    }

    /// The same for IPv6 addresses, whose entries are two cells: that of the second one.
    #[inline(always)]
    #[must_use]
    pub fn find6<C: Cells>(self, cells: &C, upper: u64, lower: u64) -> u32 {
        let (mut first, mut left) = (self.start, self.entries);
        for _ in 0..SEARCH_STEPS {
            if left <= 1 {
                break;
            }
            let half = left / 2;
            let middle = first.wrapping_add(half * 2);
            let is_at_most = |cell: Cell| cell[0] < upper || (cell[0] == upper && cell[1] <= lower);
            if cells.cell(middle).is_none_or(is_at_most) {
                first = middle;
            }
            left -= half;
        }
        first.wrapping_add(1)
    }

    /// The vector of the range that `value` is in.
    #[inline(always)]
    fn vector<P: Policies>(self, policies: &P, value: u64) -> Option<u32> {
        Some(low(policies.cell(self.found(policies, value))?[1]))
    }

    /// What [`Self::find`] says. It need not be called to find one among one.
    #[inline(always)]
    fn found<P: Policies>(self, policies: &P, value: u64) -> u32 {
        if self.entries <= 1 { self.start } else { policies.find(self, value) }
    }

    /// The vector of the range that the IPv6 `address` is in.
    #[inline(always)]
    fn vector6<P: Policies>(self, policies: &P, address: &Address) -> Option<u32> {
        let (upper, lower) = (joined(address[0], address[1]), joined(address[2], address[3]));
        Some(low(policies.cell(policies.find6(self, upper, lower))?[0]))
    }

    /// The vector of the deepest cgroup that is listed and that the workload is in, `outside` if it is in none; and
    /// whether it is that of everybody in its `own` cgroup: it may be moved while its levels are asked for one after the
    /// other.
    #[inline(always)]
    fn deepest<P: Policies>(self, policies: &P, own: u64, outside: u32) -> Option<(u32, bool)> {
        let (mut vector, mut deepest) = (outside, 0);
        for level in 1..MAX_LEVELS {
            let id = policies.cgroup(level);
            if id == 0 {
                break;
            }
            let entry = policies.cell(policies.find(self, id))?;
            if entry[0] == id {
                vector = low(entry[1]);
            }
            deepest = id;
        }
        Some((vector, deepest == own))
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
