//! From the address a client asks for to the endpoint it gets.
//!
//! A writer may replace any value between two reads of a program, so each answer rests on checks:
//!
//! 1. A frontend counts only if its tag is the tag of the key that was looked up, before and after
//!    the generations it is in force were read: the kernel may have given its hash element to
//!    another key meanwhile.
//! 2. A table counts only if its header names the service and generation that the head names, before
//!    and after the endpoint was read.
//! 3. "Not governed" is the answer that must not be given by mistake. A frontend that is not in
//!    force passes untouched only if a second look, from the start, finds the same.
//!
//! A look that fails a check is taken again, [`limit::LOOKS`] times in all; then the connection is
//! refused, never let through.
//!
//! Reads are taken in program order. x86-64 keeps that order; on a machine that reorders loads the
//! reads of an implementation of [`Tables`] must be acquire loads.

use holdfast_protocol::kernel::{
    FrontendKey, HeadWord, LOOKUP_PER_SLOT, SETTINGS_SLOTS, TableHeader, feature, limit, policy,
};

use crate::affinity::{self, Affinities, Stay};
use crate::choose;
use crate::client::{self, Clients};
use crate::socket::{Peer, Reach};
use crate::words;

/// `EAGAIN`: every look found a table being replaced.
pub const EAGAIN: u16 = 11;
/// `EINVAL`: the table names a way of choosing that these programs do not know.
pub const EINVAL: u16 = 22;
/// `ECONNREFUSED`: no endpoint, and no usable errno configured for that.
pub const ECONNREFUSED: u16 = 111;
/// `EHOSTUNREACH`: the endpoint has an address that an IPv4 socket cannot name.
pub const EHOSTUNREACH: u16 = 113;
/// The kernel takes a return value for an error down to `-MAX_ERRNO` (`include/linux/err.h`).
const MAX_ERRNO: u16 = 4095;

/// The maps, as a program reads them. Each method is one read, and its answer may be out of date
/// when it arrives; no word is ever torn.
pub trait Tables: Affinities + Clients {
    /// An element of `FRONTENDS`. The kernel may give it to another key while it is held.
    type Element: Copy;
    /// A slot of `TABLES`. It may be rewritten while it is held.
    type Slot: Copy;

    /// The element that belongs to `key` now.
    fn element(&self, key: &FrontendKey) -> Option<Self::Element>;
    /// A word of an element: [`words::FRONTEND_LEAD`] or [`words::FRONTEND_SPAN`].
    fn element_word(&self, element: Self::Element, word: usize) -> u64;
    /// The head of `service`; `None` if there is no such number.
    fn head(&self, service: u32) -> Option<HeadWord>;
    /// The slot at `index`; `None` if there is no such slot.
    fn slot(&self, index: u32) -> Option<Self::Slot>;
    /// A word of a slot: one of the `HEADER` and `ENDPOINT` constants of [`words`].
    fn slot_word(&self, slot: Self::Slot, word: usize) -> u64;
    /// 32 random bits.
    fn random(&self) -> u32;
    /// How many turns `service` has taken before this one, on all CPUs.
    fn turn(&self, service: u32) -> u64;
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is not governed: it goes where it was going.
    Untouched,
    /// It goes to [`Decision::endpoint`].
    Sent,
    /// It fails with [`Decision::errno`]: the service has no endpoint, or none that this socket can
    /// reach, or a policy these programs do not know.
    Refused,
    /// It fails with [`Decision::errno`], which is [`EAGAIN`]: no look was settled.
    Unsettled,
}

/// What becomes of a connection, and what to count.
///
/// Every field always has a value, and nothing here is an enum with a payload. The compiler may copy
/// the unset payload of such an enum from one branch to the next, and the verifier takes no copy
/// of what was never set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What becomes of it.
    pub verdict: Verdict,
    /// Of a connection that is sent: where it goes.
    pub endpoint: Peer,
    /// Of a connection that is sent: the generation of the table the endpoint was chosen from.
    pub generation: u32,
    /// Of a connection that fails: what with.
    pub errno: u16,
    /// The service it is counted for, or [`NO_SERVICE`].
    pub service: u32,
    /// How many looks found a value that was being replaced.
    pub retries: u32,
}

impl Decision {
    /// The decision before the first look, and after the last.
    const UNSETTLED: Self = Self {
        verdict: Verdict::Unsettled,
        endpoint: Peer { address: [0; 4], port_be: 0 },
        generation: 0,
        errno: EAGAIN,
        service: NO_SERVICE,
        retries: 0,
    };
}

/// No service has this number: an array of the kernel has at most `u32::MAX` elements.
pub const NO_SERVICE: u32 = u32::MAX;

/// Decides what becomes of a connection to `key` by a socket that can name the addresses in `reach`.
#[inline(always)]
pub fn decide<T: Tables>(tables: &T, key: &FrontendKey, reach: Reach) -> Decision {
    let mut decision = Decision::UNSETTLED;
    let mut idle = IdleFrontend::NONE;
    for _ in 0..limit::LOOKS {
        match look(tables, key, reach, &mut decision, &mut idle) {
            Look::Settled => return decision,
            Look::Idle => {}
            Look::Replaced => decision.retries += 1,
        }
    }
    Decision { verdict: Verdict::Unsettled, errno: EAGAIN, ..decision }
}

/// What one look came to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    /// The decision says what becomes of the connection.
    Settled,
    /// A frontend that is not in force, which the look before did not find.
    Idle,
    /// A value that was being replaced.
    Replaced,
}

/// Everything that makes a frontend idle.
#[derive(Clone, Copy, PartialEq, Eq)]
struct IdleFrontend {
    lead: u64,
    span: u64,
    head: HeadWord,
}

impl IdleFrontend {
    /// Its service is [`NO_SERVICE`], so no look can find it.
    const NONE: Self = Self { lead: u64::MAX, span: u64::MAX, head: HeadWord::UNPUBLISHED };
}

#[inline(always)]
fn look<T: Tables>(
    tables: &T,
    key: &FrontendKey,
    reach: Reach,
    decision: &mut Decision,
    idle: &mut IdleFrontend,
) -> Look {
    let Some(element) = tables.element(key) else {
        decision.verdict = Verdict::Untouched;
        return Look::Settled;
    };
    let lead = tables.element_word(element, words::FRONTEND_LEAD);
    let span = tables.element_word(element, words::FRONTEND_SPAN);
    let frontend = words::frontend(lead, span);
    if frontend.tag != key.tag() || tables.element_word(element, words::FRONTEND_LEAD) != lead {
        return Look::Replaced;
    }
    let Some(head) = tables.head(frontend.service) else {
        return Look::Replaced;
    };
    if !head.is_published() || !frontend.in_force(head.generation()) {
        let seen = IdleFrontend { lead, span, head };
        if seen != *idle {
            *idle = seen;
            return Look::Idle;
        }
        decision.verdict = Verdict::Untouched;
        return Look::Settled;
    }
    decision.service = frontend.service;
    decision.generation = head.generation();
    consult(tables, head, reach, decision)
}

/// Takes the decision from the table of `head`, unless it is not, or no longer, the table of the
/// service and generation that were decided for, or leads to a slot that is not in it.
#[inline(always)]
fn consult<T: Tables>(tables: &T, head: HeadWord, reach: Reach, decision: &mut Decision) -> Look {
    let identity = TableHeader::identity(decision.service, decision.generation);
    let mut stay = Stay::NONE;
    let Some(header) = tables.slot(head.slot()) else {
        return Look::Replaced;
    };
    if tables.slot_word(header, words::HEADER_IDENTITY) != identity {
        return Look::Replaced;
    }
    let shape = words::shape(tables.slot_word(header, words::HEADER_SHAPE));
    if shape.endpoints == 0 {
        decision.verdict = Verdict::Refused;
        decision.errno = refusal(shape.no_endpoint_errno);
    } else if !choose::is_known(shape.policy) {
        decision.verdict = Verdict::Refused;
        decision.errno = EINVAL;
    } else {
        let extent = tables.slot_word(header, words::HEADER_EXTENT);
        let (settings, lookup) = (words::low(extent), words::high(extent));
        let (service, header) = (decision.service, head.slot());
        let table = Table { service, header, settings, shape, lookup };
        let Some(slot) = find(tables, &table, &mut stay) else {
            return Look::Replaced;
        };
        decision.endpoint = endpoint(tables, slot);
        if reach.covers(&decision.endpoint.address) {
            decision.verdict = Verdict::Sent;
        } else {
            decision.verdict = Verdict::Refused;
            decision.errno = EHOSTUNREACH;
        }
    }
    if tables.slot_word(header, words::HEADER_IDENTITY) != identity {
        return Look::Replaced;
    }
    if stay.is_new && decision.verdict == Verdict::Sent {
        let key = affinity::key(decision.service, &client::identify(tables, stay.by));
        tables.remember(&key, &stay.affinity(decision.endpoint));
    }
    Look::Settled
}

/// A table that was found.
#[derive(Clone, Copy)]
struct Table {
    /// The service number it is of.
    service: u32,
    /// The slot of its header.
    header: u32,
    /// How many slots of settings follow it.
    settings: u32,
    /// What its header says.
    shape: words::Shape,
    /// How many entries its lookup table has.
    lookup: u32,
}

impl Table {
    /// The slot of its first endpoint.
    #[inline(always)]
    fn first(&self) -> Option<u32> {
        self.header.checked_add(1)?.checked_add(self.settings)
    }

    /// How its clients are told apart, and how long they stay: the word [`words::SETTINGS_CLIENTS`].
    #[inline(always)]
    fn clients<T: Tables>(&self, tables: &T) -> Option<u64> {
        if self.settings != SETTINGS_SLOTS {
            return None;
        }
        let settings = tables.slot(self.header.checked_add(1)?)?;
        Some(tables.slot_word(settings, words::SETTINGS_CLIENTS))
    }
}

/// The slot of the endpoint of `table` that the connection gets. `None` if the way there leads out of the
/// table: what was read belongs to a table being replaced.
#[inline(always)]
fn find<T: Tables>(tables: &T, table: &Table, stay: &mut Stay) -> Option<T::Slot> {
    let row = if table.shape.features & feature::AFFINITY == 0 {
        choose(tables, table)?
    } else {
        stay_or_choose(tables, table, stay)?
    };
    tables.slot(table.first()?.checked_add(row)?)
}

/// The row that the policy of `table` chooses.
#[inline(always)]
fn choose<T: Tables>(tables: &T, table: &Table) -> Option<u32> {
    let shape = table.shape;
    let row = match shape.policy {
        policy::ROUND_ROBIN => {
            return Some(choose::turn(tables.turn(table.service), shape.endpoints));
        }
        policy::MAGLEV => return look_up(tables, table),
        _ => choose::row(tables.random(), shape.endpoints),
    };
    if shape.policy != policy::WEIGHTED {
        return Some(row);
    }
    let slot = tables.slot(table.first()?.checked_add(row)?)?;
    let threshold = words::high(tables.slot_word(slot, words::ENDPOINT_PORT));
    let alias = words::low(tables.slot_word(slot, words::ENDPOINT_ALIAS));
    if alias >= shape.endpoints {
        return None;
    }
    Some(choose::alias(row, threshold, alias, tables.random()))
}

/// The row of the endpoint that the client stays with, or of one that is chosen for it now.
#[inline(always)]
fn stay_or_choose<T: Tables>(tables: &T, table: &Table, stay: &mut Stay) -> Option<u32> {
    let settings = table.clients(tables)?;
    stay.by = words::affinity_by(settings);
    let key = affinity::key(table.service, &client::identify(tables, stay.by));
    let now = tables.now();
    stay.until = now.saturating_add(words::affinity_ns(settings));
    stay.is_new = true;
    if let Some(affinity) = tables.affinity(&key) {
        let (endpoint, row, until) = affinity::remembered(tables, affinity);
        if now < until && is_at(tables, table, row, &endpoint) {
            tables.extend(affinity, stay.until);
            stay.is_new = false;
            stay.row = row;
            return Some(row);
        }
        if now < until
            && let Some(row) = search(tables, table, row, &endpoint)
        {
            stay.row = row;
            return Some(row);
        }
    }
    stay.row = choose(tables, table)?;
    Some(stay.row)
}

/// The row of `endpoint`, if it is near to `row`, where it was.
#[inline(always)]
fn search<T: Tables>(
    tables: &T,
    table: &Table,
    row: u32,
    endpoint: &affinity::Endpoint,
) -> Option<u32> {
    let first = affinity::first_row(row, table.shape.endpoints);
    for step in 0..limit::AFFINITY_ROWS {
        let row = first + step;
        if row >= table.shape.endpoints {
            break;
        }
        if is_at(tables, table, row, endpoint) {
            return Some(row);
        }
    }
    None
}

/// Whether `endpoint` is at `row` of `table`.
#[inline(always)]
fn is_at<T: Tables>(tables: &T, table: &Table, row: u32, endpoint: &affinity::Endpoint) -> bool {
    let at = table.first().and_then(|first| first.checked_add(row));
    let Some(slot) = at.and_then(|at| tables.slot(at)).filter(|_| row < table.shape.endpoints)
    else {
        return false;
    };
    let is_word = |word, wanted| tables.slot_word(slot, word) == wanted;
    words::port_be(tables.slot_word(slot, words::ENDPOINT_PORT)) == endpoint.port_be
        && is_word(words::ENDPOINT_ADDRESS_LOW, endpoint.address[1])
        && is_word(words::ENDPOINT_ADDRESS_HIGH, endpoint.address[0])
}

/// The row that the lookup table of `table` has for the client.
#[inline(always)]
fn look_up<T: Tables>(tables: &T, table: &Table) -> Option<u32> {
    if table.lookup == 0 {
        return None;
    }
    let by = words::hash_by(table.clients(tables)?);
    let entry = choose::row(client::hash(&client::identify(tables, by)), table.lookup);
    let slots = table.first()?.checked_add(table.shape.endpoints)?;
    let slot = tables.slot(slots.checked_add(entry / LOOKUP_PER_SLOT)?)?;
    let word = tables.slot_word(slot, (entry % LOOKUP_PER_SLOT / 2) as usize);
    let row = match entry % 2 {
        0 => words::low(word),
        _ => words::high(word),
    };
    // An entry is 1 more than a row.
    row.checked_sub(1).filter(|row| *row < table.shape.endpoints)
}

#[inline(always)]
fn endpoint<T: Tables>(tables: &T, slot: T::Slot) -> Peer {
    let address = words::address(
        tables.slot_word(slot, words::ENDPOINT_ADDRESS_HIGH),
        tables.slot_word(slot, words::ENDPOINT_ADDRESS_LOW),
    );
    let port_be = words::port_be(tables.slot_word(slot, words::ENDPOINT_PORT));
    Peer { address, port_be }
}

/// The `errno` of a refusal. A value that the kernel would not take for an error would turn into
/// `EPERM` or success; it becomes [`ECONNREFUSED`].
#[inline(always)]
const fn refusal(configured: u16) -> u16 {
    match configured {
        1..=MAX_ERRNO => configured,
        _ => ECONNREFUSED,
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
