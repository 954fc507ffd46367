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

use holdfast_protocol::kernel::{Flow, FlowKey, FrontendKey, Reply, limit};

use crate::decide::{
    Decision, Inquiry, NO_ROW, NO_SERVICE, Past, Slots, Tables, Verdict, endpoint,
};
use crate::socket::Peer;

/// Where something went before, if it went anywhere.
#[repr(C)]
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
    /// It went nowhere before, though it asked for `asked`.
    #[inline(always)]
    #[must_use]
    pub const fn none(asked: &Peer) -> Self {
        Self { endpoint: *asked, row: NO_ROW, service: NO_SERVICE }
    }

    /// Whether it went to `endpoint`.
    #[inline(always)]
    #[must_use]
    pub fn is_at(&self, endpoint: &Peer) -> bool {
        self.row != NO_ROW && self.endpoint == *endpoint
    }

    /// What `flow`, read as the value of `key`, says.
    #[inline(always)]
    #[must_use]
    pub const fn of(flow: &Flow, key: &FlowKey) -> Self {
        let endpoint = Peer { address: flow.address, port_be: flow.port_be };
        if flow.tag != key.tag() {
            // The kernel has given the value to another key meanwhile.
            return Self::none(&endpoint);
        }
        Self { endpoint, row: flow.row, service: flow.service }
    }
}

/// The flows of one socket, as a program reads them.
pub trait Flows {
    /// Where its datagrams to `asked` went before.
    fn former(&self, asked: &Peer) -> Former;
    /// What `endpoint` was last asked for as; its port is [`NEVER`] if it was not.
    fn asked_as(&self, endpoint: &Peer) -> Peer;
}

impl<F: Flows> Flows for &F {
    #[inline(always)]
    fn former(&self, asked: &Peer) -> Former {
        F::former(self, asked)
    }

    #[inline(always)]
    fn asked_as(&self, endpoint: &Peer) -> Peer {
        F::asked_as(self, endpoint)
    }
}

/// What `reply`, read as the value of `key`, says.
#[inline(always)]
#[must_use]
pub const fn asked_as(reply: &Reply, key: &FlowKey) -> Peer {
    let port_be = if reply.tag == key.tag() { reply.port_be } else { NEVER };
    Peer { address: reply.address, port_be }
}

/// The port that [`Flows::asked_as`] answers with when the socket has not asked for the endpoint: no
/// datagram can be sent to it.
pub const NEVER: u16 = 0;

/// What to remember of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Direction {
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
    /// Whether there is anything to count of it, which was decided so: a flow that goes on is no connection.
    #[inline(always)]
    #[must_use]
    pub const fn counts(&self, decision: &Decision) -> bool {
        self.is_new || decision.retries > 0 || !matches!(decision.verdict, Verdict::Sent)
    }
}

/// What was decided before about the flows of a socket.
pub struct FlowPast<F>(pub F);

impl<F: Flows> Past for FlowPast<F> {
    #[inline(always)]
    fn former(&self, key: &FrontendKey) -> Former {
        self.0.former(&asked(key))
    }

    /// Whether replies of `endpoint` are told as those of another address.
    #[inline(always)]
    fn is_taken(&self, key: &FrontendKey, endpoint: &Peer) -> bool {
        let known = self.0.asked_as(endpoint);
        known.port_be != NEVER && known != asked(key)
    }
}

/// What the datagram names.
#[inline(always)]
#[must_use]
pub const fn asked(key: &FrontendKey) -> Peer {
    Peer { address: key.address, port_be: key.port_be }
}

/// What to do about the datagram that was decided in `inquiry`.
#[inline(always)]
pub fn direct<F: Flows>(flows: &F, inquiry: &Inquiry) -> Direction {
    let (asked, former, decision) = (asked(&inquiry.key), &inquiry.former, &inquiry.decision);
    let is_sent = decision.verdict == Verdict::Sent;
    let is_new = is_sent && (!decision.is_kept || former.service != decision.service);
    Direction {
        is_new,
        writes_flow: is_new || (is_sent && former.row != decision.row),
        writes_reply: is_sent && flows.asked_as(&decision.endpoint) != asked,
        forgets_reply: decision.verdict == Verdict::Untouched
            && flows.asked_as(&asked).port_be != NEVER,
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
