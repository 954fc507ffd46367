//! Datagrams of sockets that are not connected: each is decided by itself, and a flow stays where it
//! is.
//!
//! A flow is a socket and the virtual address it sends to. Nothing about it is published or
//! withdrawn by a writer: whether its endpoint is still one of the service's is read from the
//! table, at the row where it stood before, and if that has changed, by a search. So a flow keeps
//! its endpoint for as long as the table has it, whatever number or generation the service gets, and
//! moves with the first datagram after the endpoint has gone.
//!
//! A reply names the endpoint it came from. What the client is told instead is the virtual address
//! that the socket last used to reach that endpoint. That is ambiguous only if two virtual
//! addresses lead one socket to one endpoint, so a new flow is drawn again when the endpoint it got
//! is taken by another address of its socket, while there are [`limit::LOOKS`] left.

use core::cell::Cell;

use holdfast_protocol::kernel::{Flow, FlowKey, FrontendKey, Reply, limit};

use crate::decide::{
    Decision, NO_ROW, NO_SERVICE, Past, Slots, Tables, Verdict, decide_again, endpoint,
};
use crate::socket::{Peer, Reach};

/// Where something went before, if it went anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Former {
    /// The endpoint.
    pub endpoint: Peer,
    /// The row where it stood, or [`NO_ROW`] if it went nowhere before.
    pub row: u32,
    /// The service it was counted for.
    pub service: u32,
}

impl Former {
    /// It went nowhere before.
    pub const NONE: Self =
        Self { endpoint: Peer { address: [0; 4], port_be: 0 }, row: NO_ROW, service: NO_SERVICE };

    /// What `flow`, read as the value of `key`, says.
    #[inline(always)]
    #[must_use]
    pub const fn of(flow: &Flow, key: &FlowKey) -> Self {
        if flow.tag != key.tag() {
            // The kernel has given the value to another key meanwhile.
            return Self::NONE;
        }
        let endpoint = Peer { address: flow.address, port_be: flow.port_be };
        Self { endpoint, row: flow.row, service: flow.service }
    }
}

/// The flows of one socket, as a program reads them.
pub trait Flows {
    /// Where its datagrams to `asked` went before.
    fn former(&self, asked: &Peer) -> Former;
    /// What `endpoint` was last asked for as; an unset port (0) if it was not.
    fn asked_as(&self, endpoint: &Peer) -> Peer;
}

/// What [`Flows::asked_as`] answers when the socket has not asked for the endpoint: no datagram can
/// be sent to port 0.
pub const NEVER: Peer = Peer { address: [0; 4], port_be: 0 };

/// What `reply`, read as the value of `key`, says.
#[inline(always)]
#[must_use]
pub const fn asked_as(reply: &Reply, key: &FlowKey) -> Peer {
    if reply.tag != key.tag() {
        return NEVER;
    }
    Peer { address: reply.address, port_be: reply.port_be }
}

/// What becomes of a datagram, and what to remember of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Direction {
    /// What becomes of it.
    pub decision: Decision,
    /// Whether it begins a flow, or moves one: it counts as a connection.
    pub is_new: bool,
    /// Whether `FLOWS` does not say so yet.
    pub writes_flow: bool,
    /// Whether `REPLIES` does not say so yet.
    pub writes_reply: bool,
    /// Whether `REPLIES` says that the destination, which is not governed, was asked for as another
    /// address: its next reply answers this datagram, not those before.
    pub forgets_reply: bool,
}

impl Direction {
    /// Whether there is anything to count: a flow that goes on is no connection.
    #[inline(always)]
    #[must_use]
    pub const fn counts(&self) -> bool {
        self.is_new || self.decision.retries > 0 || !matches!(self.decision.verdict, Verdict::Sent)
    }
}

/// Decides what becomes of a datagram to `key` by a socket that can name the addresses in `reach`.
#[inline(always)]
pub fn direct<T: Tables, F: Flows>(
    tables: &T,
    flows: &F,
    key: &FrontendKey,
    reach: Reach,
) -> Direction {
    let asked = Peer { address: key.address, port_be: key.port_be };
    let past = FlowPast { flows, asked, former: Cell::new(Former::NONE) };
    let decision = decide_again(tables, key, reach, &past);
    remember(flows, asked, &past.former.get(), decision)
}

/// What was decided before about a flow.
struct FlowPast<'a, F: Flows> {
    flows: &'a F,
    asked: Peer,
    /// Where it went before, once that has been read.
    former: Cell<Former>,
}

impl<F: Flows> Past for FlowPast<'_, F> {
    #[inline(always)]
    fn former(&self) -> Former {
        self.former.set(self.flows.former(&self.asked));
        self.former.get()
    }

    /// Whether replies of `endpoint` are told as those of another address.
    #[inline(always)]
    fn is_taken(&self, endpoint: &Peer) -> bool {
        let known = self.flows.asked_as(endpoint);
        known != NEVER && known != self.asked
    }
}

#[inline(always)]
fn remember<F: Flows>(flows: &F, asked: Peer, former: &Former, decision: Decision) -> Direction {
    let is_sent = decision.verdict == Verdict::Sent;
    let is_new = is_sent && (!decision.is_kept || former.service != decision.service);
    Direction {
        decision,
        is_new,
        writes_flow: is_new || (is_sent && former.row != decision.row),
        writes_reply: is_sent && flows.asked_as(&decision.endpoint) != asked,
        forgets_reply: decision.verdict == Verdict::Untouched && flows.asked_as(&asked) != NEVER,
    }
}

/// The row at which the endpoint of `former` stands in the table of `endpoints` rows whose first is at
/// slot `first`, or [`NO_ROW`]. It is where it was, unless the table was replaced since.
#[inline(always)]
pub fn standing<T: Tables>(tables: &T, first: u32, endpoints: u32, former: &Former) -> u32 {
    if former.row == NO_ROW {
        return NO_ROW;
    }
    if former.row < endpoints && holds(tables, first.wrapping_add(former.row), &former.endpoint) {
        return former.row;
    }
    tables.search(first, endpoints.min(limit::SEARCHED_ROWS), &former.endpoint)
}

/// Whether the slot at `index` holds `wanted`.
#[inline(always)]
pub fn holds<T: Slots>(tables: &T, index: u32, wanted: &Peer) -> bool {
    match tables.slot(index) {
        Some(slot) => endpoint(tables, slot) == *wanted,
        None => false,
    }
}

#[cfg(test)]
#[path = "flow_tests.rs"]
mod tests;
