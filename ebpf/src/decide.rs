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

use holdfast_protocol::kernel::{FrontendKey, HeadWord, TableHeader, limit, policy};

use crate::choose;
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
pub trait Tables {
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
    /// What is open and pending at the endpoint with this number: a
    /// [`Live`](holdfast_protocol::kernel::endpoint::Live).
    fn live(&self, state: u32) -> u64;
    /// 32 random bits.
    fn random(&self) -> u32;
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
    /// It fails with [`Decision::errno`], which is [`ECONNREFUSED`]: a bound was reached.
    Limited,
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
    /// Of a connection that is sent: that endpoint's number in `ENDPOINTS`, or
    /// [`NO_STATE`](holdfast_protocol::kernel::EndpointSlot::NO_STATE).
    pub state: u32,
    /// Of a connection that is sent: the generation of the table the endpoint was chosen from.
    pub generation: u32,
    /// Of a connection that is sent: the table the endpoint was chosen from.
    pub table: Chosen,
    /// Of a connection that fails: what with.
    pub errno: u16,
    /// The service it is counted for, or [`NO_SERVICE`].
    pub service: u32,
    /// How many looks found a value that was being replaced.
    pub retries: u32,
}

/// The table that an endpoint was chosen from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The slot of its header.
    pub header: u32,
    /// How many slots of settings follow.
    pub settings: u32,
    /// What follows those, and what the service asks for.
    pub shape: words::Shape,
}

impl Chosen {
    const NONE: Self = Self {
        header: 0,
        settings: 0,
        shape: words::Shape { endpoints: 0, no_endpoint_errno: 0, policy: 0, features: 0 },
    };
}

impl Decision {
    /// The decision before the first look, and after the last.
    const UNSETTLED: Self = Self {
        verdict: Verdict::Unsettled,
        endpoint: Peer { address: [0; 4], port_be: 0 },
        state: 0,
        table: Chosen::NONE,
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
    } else if !is_known(shape.policy) {
        decision.verdict = Verdict::Refused;
        decision.errno = EINVAL;
    } else {
        let settings = words::low(tables.slot_word(header, words::HEADER_EXTENT));
        decision.table = Chosen { header: head.slot(), settings, shape };
        let Some(slot) = choose(tables, head.slot(), settings, shape) else {
            return Look::Replaced;
        };
        decision.endpoint = endpoint(tables, slot);
        decision.state = words::high(tables.slot_word(slot, words::ENDPOINT_ALIAS));
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
    Look::Settled
}

/// Whether these programs know the policy.
#[inline(always)]
const fn is_known(policy: u8) -> bool {
    matches!(policy, policy::RANDOM | policy::WEIGHTED | policy::LEAST_CONNECTIONS)
}

/// The slot of one of the endpoints of the table whose header is at `header`, with `settings` slots
/// between the two. `None` if the way
/// there leads out of the table: what was read belongs to a table being replaced.
#[inline(always)]
fn choose<T: Tables>(
    tables: &T,
    header: u32,
    settings: u32,
    shape: words::Shape,
) -> Option<T::Slot> {
    let first = header.checked_add(1)?.checked_add(settings)?;
    let row = choose::row(tables.random(), shape.endpoints);
    let slot = tables.slot(first.checked_add(row)?)?;
    if shape.policy != policy::WEIGHTED {
        // Also for a policy that looks at what is live: that is done once, when this is settled.
        return Some(slot);
    }
    let threshold = words::high(tables.slot_word(slot, words::ENDPOINT_PORT));
    let alias = words::low(tables.slot_word(slot, words::ENDPOINT_ALIAS));
    if alias >= shape.endpoints {
        return None;
    }
    match choose::alias(row, threshold, alias, tables.random()) {
        chosen if chosen == row => Some(slot),
        chosen => tables.slot(first.checked_add(chosen)?),
    }
}

/// Where the endpoint in `slot` is.
#[inline(always)]
pub(crate) fn endpoint<T: Tables>(tables: &T, slot: T::Slot) -> Peer {
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
