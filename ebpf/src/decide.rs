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
//! An endpoint that is asked for by its own address is an element of `FRONTENDS` like any other, and
//! decided by the same steps; only that its table says who it is, instead of who is next ([`direct`]).
//!
//! What is [known](crate::cache) of an address is taken for what a lookup would find, if its service still has the head
//! that it had then.
//!
//! A look that fails a check is taken again, [`limit::LOOKS`] times in all; then the connection is
//! refused, never let through.
//!
//! Reads are taken in program order. x86-64 keeps that order; on a machine that reorders loads the
//! reads of an implementation of [`Tables`] must be acquire loads.

use holdfast_protocol::kernel::{EndpointSlot, FrontendKey, HeadWord, TableHeader, limit, policy};

use crate::affinity::{self, Affinities, Stay};
use crate::cache::Known;
use crate::client::{self, Clients};
use crate::flow::{self, Former};
use crate::socket::{Peer, Reach};
use crate::table::Table;
use crate::{choose, direct, words};

/// `EPERM`: an access policy denies it.
pub const EPERM: u16 = 1;
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

/// The slots of `TABLES`, as a program reads them. Each method is one read, and its answer may be
/// out of date when it arrives; no word is ever torn.
pub trait Slots {
    /// A slot. It may be rewritten while it is held.
    type Slot: Copy;

    /// The slot at `index`; `None` if there is no such slot.
    fn slot(&self, index: u32) -> Option<Self::Slot>;
    /// A word of a slot: one of the `HEADER`, `SETTINGS` and `ENDPOINT` constants of [`words`].
    fn slot_word(&self, slot: Self::Slot, word: usize) -> u64;
}

/// Where addresses lead, likewise.
pub trait Addresses {
    /// An element of `FRONTENDS`. The kernel may give it to another key while it is held.
    type Element: Copy;

    /// The element that belongs to `key` now.
    fn element(&self, key: &FrontendKey) -> Option<Self::Element>;
    /// A word of an element: [`words::FRONTEND_LEAD`] or [`words::FRONTEND_SPAN`].
    fn element_word(&self, element: Self::Element, word: usize) -> u64;
    /// The head of `service`; `None` if there is no such number.
    fn head(&self, service: u32) -> Option<HeadWord>;
}

/// The maps, likewise.
pub trait Tables: Slots + Addresses + Affinities + Clients {
    /// What is known of `key` without a lookup.
    fn known(&self, key: &FrontendKey) -> Option<Known>;
    /// What is open and pending at the endpoint with this number: a
    /// [`Live`](holdfast_protocol::kernel::endpoint::Live).
    fn live(&self, state: u32) -> u64;
    /// 32 random bits.
    fn random(&self) -> u32;
    /// How many turns `service` has taken before this one, on all CPUs.
    fn turn(&self, service: u32) -> u64;
    /// The first of `rows` rows from slot `first` on that [holds](flow::holds) `endpoint`, or
    /// [`NO_ROW`]. As many reads as it takes.
    fn search(&self, first: u32, rows: u32, endpoint: &Peer) -> u32;
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
    /// It fails with [`Decision::errno`], which is [`EPERM`]: an access policy denies it.
    Denied,
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
#[repr(C)]
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
    /// Of a connection that is sent: the endpoint's row of that table.
    pub row: u32,
    /// Of a connection that is sent: whether that is where it went before.
    pub is_kept: bool,
    /// Of a connection that fails: what with.
    pub errno: u16,
    /// The service it is counted for, or [`NO_SERVICE`].
    pub service: u32,
    /// How many looks found a value that was being replaced.
    pub retries: u32,
    /// Of a connection that is sent: the table the endpoint was chosen from.
    pub table: Table,
}

impl Decision {
    /// The decision about a datagram or a connection to `asked` before the first look.
    ///
    /// Of a run of fields with equal bytes the compiler would make a call that sets them one byte after
    /// the other, and of a constant of this size a map to copy it from. So each begins with something
    /// that its neighbours do not begin with; what it is makes no difference.
    #[inline(always)]
    const fn unsettled(asked: &Peer) -> Self {
        let shape = words::Shape { endpoints: 1, no_endpoint_errno: 0, policy: 0, features: 0 };
        Self {
            verdict: Verdict::Unsettled,
            endpoint: *asked,
            state: EndpointSlot::NO_STATE,
            generation: 0,
            row: NO_ROW,
            is_kept: false,
            errno: EAGAIN,
            service: NO_SERVICE,
            retries: 0,
            table: Table { service: NO_SERVICE, header: 0, settings: u32::MAX, shape, lookup: 0 },
        }
    }
}

/// No service has this number: an array of the kernel has at most `u32::MAX` elements.
pub const NO_SERVICE: u32 = u32::MAX;

/// No row has this number: a table has fewer.
pub const NO_ROW: u32 = u32::MAX;

/// What is asked, and what is known of it so far.
///
/// One struct in memory: a look is a function of its own to the verifier, which is told nothing
/// but where this is. So it looks at a look once, and not for each way that leads to one.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Inquiry {
    /// Where the client wants to go.
    pub key: FrontendKey,
    /// Which addresses its socket can name.
    pub reach: Reach,
    /// Where it went before, once a look has asked.
    pub former: Former,
    /// What has come of it.
    pub decision: Decision,
    /// The frontend that the look before this one found not to be in force.
    idle: IdleFrontend,
}

impl Inquiry {
    /// What becomes of a connection to `key` by a socket that can name the addresses in `reach`?
    #[inline(always)]
    #[must_use]
    pub const fn new(key: FrontendKey, reach: Reach) -> Self {
        let asked = flow::asked(&key);
        let (decision, former) = (Decision::unsettled(&asked), Former::none(&asked));
        // Its service is one that no look can find.
        let idle = IdleFrontend { lead: u64::MAX, span: 1, head: HeadWord::UNPUBLISHED };
        Self { key, reach, former, decision, idle }
    }
}

/// Who looks.
pub trait Looks {
    /// Takes a [`look`].
    fn look(&self, inquiry: &mut Inquiry) -> Look;
}

/// Decides what `inquiry` asks. An endpoint that is taken by somebody else is drawn again while there
/// are looks left.
#[inline(always)]
pub fn decide<L: Looks>(looks: &L, inquiry: &mut Inquiry) {
    for left in (0..limit::LOOKS).rev() {
        match looks.look(inquiry) {
            Look::Settled => return,
            Look::Taken if left == 0 => return,
            Look::Taken | Look::Idle => {}
            Look::Replaced => inquiry.decision.retries += 1,
        }
    }
    inquiry.decision.verdict = Verdict::Unsettled;
    inquiry.decision.errno = EAGAIN;
}

/// What was decided before for the same key.
pub trait Past {
    /// Where it went. Asked for only if it is governed.
    fn former(&self, key: &FrontendKey) -> Former;
    /// Whether somebody else goes to `endpoint`, who should have it alone.
    fn is_taken(&self, key: &FrontendKey, endpoint: &Peer) -> bool;
}

/// Nothing was decided before.
pub struct NoPast;

impl Past for NoPast {
    #[inline(always)]
    fn former(&self, key: &FrontendKey) -> Former {
        Former::none(&flow::asked(key))
    }

    #[inline(always)]
    fn is_taken(&self, _key: &FrontendKey, _endpoint: &Peer) -> bool {
        false
    }
}

/// What one look came to.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// The decision says what becomes of the connection.
    Settled = 0,
    /// Likewise, and somebody else has its endpoint, who should have it alone.
    Taken = 1,
    /// A frontend that is not in force, which the look before did not find.
    Idle = 2,
    /// A value that was being replaced.
    Replaced = 3,
}

impl Look {
    /// The look of this number: how one function of the kernel programs tells another.
    #[inline(always)]
    #[must_use]
    pub const fn numbered(number: u32) -> Self {
        match number {
            0 => Self::Settled,
            1 => Self::Taken,
            2 => Self::Idle,
            _ => Self::Replaced,
        }
    }
}

/// Everything that makes a frontend idle.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct IdleFrontend {
    lead: u64,
    span: u64,
    head: HeadWord,
}

/// Looks once at everything that decides `inquiry`. What has gone somewhere before keeps its endpoint
/// while that is in the service's table.
#[inline(always)]
pub fn look<T: Tables>(tables: &T, past: &impl Past, inquiry: &mut Inquiry) -> Look {
    let mut found = Known::NOBODYS;
    let known = tables.known(&inquiry.key);
    if let Some(known) = known
        && known.still_leads(tables)
    {
        found = known;
    } else if let Some(element) = tables.element(&inquiry.key)
        && let Some(look) = follow(tables, inquiry, element, &mut found)
    {
        return look;
    }
    let decision = &mut inquiry.decision;
    if found.is_nobodys() {
        decision.verdict = Verdict::Untouched;
        return Look::Settled;
    }
    decision.service = found.service;
    decision.generation = found.head.generation();
    consult(tables, found.head, past, inquiry)
}

/// Where the `element` of the key leads, into `found`. If that leads nowhere, or is being replaced, what the look comes to.
#[inline(always)]
fn follow<T: Tables>(
    tables: &T,
    inquiry: &mut Inquiry,
    element: T::Element,
    found: &mut Known,
) -> Option<Look> {
    let lead = tables.element_word(element, words::FRONTEND_LEAD);
    let span = tables.element_word(element, words::FRONTEND_SPAN);
    let frontend = words::frontend(lead, span);
    let tag = inquiry.key.tag();
    if frontend.tag != tag || tables.element_word(element, words::FRONTEND_LEAD) != lead {
        return Some(Look::Replaced);
    }
    let Some(head) = tables.head(frontend.service) else {
        return Some(Look::Replaced);
    };
    if !head.is_published() || !frontend.in_force(head.generation()) {
        let seen = IdleFrontend { lead, span, head };
        if seen != inquiry.idle {
            inquiry.idle = seen;
            return Some(Look::Idle);
        }
        return None;
    }
    *found = Known { service: frontend.service, head };
    None
}

/// Takes the decision from the table of `head`, unless it is not, or no longer, the table of the
/// service and generation that were decided for, or leads to a slot that is not in it.
#[inline(always)]
fn consult<T: Tables>(tables: &T, head: HeadWord, past: &impl Past, inquiry: &mut Inquiry) -> Look {
    let decision = &mut inquiry.decision;
    let identity = TableHeader::identity(decision.service, decision.generation);
    let mut stay = Stay::NONE;
    let Some(header) = tables.slot(head.slot()) else {
        return Look::Replaced;
    };
    if tables.slot_word(header, words::HEADER_IDENTITY) != identity {
        return Look::Replaced;
    }
    let shape = words::shape(tables.slot_word(header, words::HEADER_SHAPE));
    let extent = tables.slot_word(header, words::HEADER_EXTENT);
    let (settings, lookup) = (words::low(extent), words::high(extent));
    let (service, header_slot) = (decision.service, head.slot());
    let table = Table { service, header: header_slot, settings, shape, lookup };
    decision.table = table;
    if shape.endpoints == 0 {
        decision.verdict = Verdict::Refused;
        decision.errno = refusal(shape.no_endpoint_errno);
    } else if shape.policy == policy::DIRECT {
        let asked = flow::asked(&inquiry.key);
        let Some((row, slot)) = direct::find(tables, &table, &asked) else {
            return Look::Replaced;
        };
        inquiry.former = past.former(&inquiry.key);
        decision.is_kept = inquiry.former.is_at(&asked);
        decision.row = row;
        decision.endpoint = asked;
        decision.state = words::high(tables.slot_word(slot, words::ENDPOINT_ALIAS));
        decision.verdict = Verdict::Sent;
    } else if !choose::is_known(shape.policy) {
        decision.verdict = Verdict::Refused;
        decision.errno = EINVAL;
    } else {
        let Some(first) = table.first() else {
            return Look::Replaced;
        };
        inquiry.former = past.former(&inquiry.key);
        let row = flow::standing(tables, first, shape.endpoints, &inquiry.former);
        decision.is_kept = row != NO_ROW;
        if decision.is_kept {
            decision.row = row;
            decision.endpoint = inquiry.former.endpoint;
        } else {
            let Some((row, slot)) = table.draw(tables, first, &mut stay) else {
                return Look::Replaced;
            };
            decision.row = row;
            decision.endpoint = endpoint(tables, slot);
            decision.state = words::high(tables.slot_word(slot, words::ENDPOINT_ALIAS));
        }
        if inquiry.reach.covers(&decision.endpoint.address) {
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
        tables.note(&key, &stay.stand(decision.endpoint));
    }
    let is_drawn = decision.verdict == Verdict::Sent && !decision.is_kept;
    // Who asks for an endpoint gets no other one.
    if is_drawn && shape.policy != policy::DIRECT && past.is_taken(&inquiry.key, &decision.endpoint)
    {
        return Look::Taken;
    }
    Look::Settled
}

/// Where the endpoint in `slot` is.
#[inline(always)]
pub(crate) fn endpoint<T: Slots>(tables: &T, slot: T::Slot) -> Peer {
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
pub(crate) mod tests;
