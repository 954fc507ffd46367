//! Bounds on what is open and pending, of a service and of each of its endpoints. Pure.
//!
//! A bound is strict: a connection first adds itself to the live count, then looks at what was there
//! before. Whoever finds the count full takes itself out again and is refused. So no two of them can
//! both get the last place; that two who meet at a full count both step back is possible, and the
//! price.

use holdfast_protocol::kernel::endpoint::Live;
use holdfast_protocol::kernel::{TableHeader, feature, policy};

use crate::choose;
use crate::decide::{Decision, Tables, endpoint};
use crate::rate::Rate;
use crate::socket::{Peer, Reach};
use crate::words;

/// Rows of a table that are tried for an endpoint with room, once the chosen one has none: neighbours,
/// from a random one on. More of them find room in a table that is nearly full, at the price of atomic
/// additions that are taken back; none of them promises to find it.
pub const PROBES: u32 = 2;

/// The live counts, and the only way to a place among them.
pub trait Places {
    /// Takes a place of the endpoint with this number. Returns whether there was one.
    fn take(&self, state: u32, bound: Bound) -> bool;
}

/// A bound on a live count; 0 is no bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Connections that are open or being opened, at most.
    pub open: u32,
    /// Attempts that have not come to anything, at most.
    pub pending: u32,
}

impl Bound {
    /// None at all.
    pub const NONE: Self = Self { open: 0, pending: 0 };

    #[inline(always)]
    const fn of(word: u64) -> Self {
        Self { open: words::low(word), pending: words::high(word) }
    }

    /// Whether one more connection keeps to the bound when `live` is there already.
    #[inline(always)]
    #[must_use]
    pub const fn has_room(self, live: u64) -> bool {
        let live = Live(live);
        let (open, pending) = (live.open() as u64, live.pending() as u64);
        (self.open == 0 || open + pending < self.open as u64)
            && (self.pending == 0 || pending < self.pending as u64)
    }
}

/// The bounds of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Of the service, and of each endpoint.
    pub places: [Bound; 2],
    /// Of the service.
    pub rate: Rate,
    /// Of each client.
    pub client_rate: Rate,
    /// How clients are told apart.
    pub rate_by: u8,
}

/// Whether the service has bounds of any kind. Then [`bounds`] follow, once for a connection and after
/// the looks, so that those who ask for nothing pay for nothing.
#[inline(always)]
#[must_use]
pub const fn has_bounds(decision: &Decision) -> bool {
    decision.table.shape.features & (feature::LIMITS | feature::RATE) != 0
}

/// Whether the service has bounds on what is open, and a connection takes a place.
#[inline(always)]
#[must_use]
pub const fn has_places(decision: &Decision) -> bool {
    decision.table.shape.features & feature::LIMITS != 0
}

/// Whether the service has bounds on what begins in a second.
#[inline(always)]
#[must_use]
pub const fn has_rates(decision: &Decision) -> bool {
    decision.table.shape.features & feature::RATE != 0
}

/// The bounds of the service of `decision`, and of each of its endpoints; `None` if its table has been replaced since.
#[inline(always)]
pub fn places<T: Tables>(tables: &T, decision: &Decision) -> Option<[Bound; 2]> {
    let settings = tables.slot(decision.table.header.wrapping_add(1))?;
    let places = places_in(tables, settings);
    is_current(tables, decision).then_some(places)
}

#[inline(always)]
fn places_in<T: Tables>(tables: &T, settings: T::Slot) -> [Bound; 2] {
    [words::SETTINGS_SERVICE, words::SETTINGS_ENDPOINT]
        .map(|word| Bound::of(tables.slot_word(settings, word)))
}

/// The bounds and the rates of the service of `decision`; `None` if its table has been replaced since.
#[inline(always)]
pub fn bounds<T: Tables>(tables: &T, decision: &Decision) -> Option<Bounds> {
    let first = tables.slot(decision.table.header.wrapping_add(1))?;
    let second = tables.slot(decision.table.header.wrapping_add(2))?;
    let rate = |word| Rate { rate: words::low(word), burst: words::high(word) };
    let bounds = Bounds {
        places: places_in(tables, first),
        rate: rate(tables.slot_word(first, words::SETTINGS_RATE)),
        client_rate: rate(tables.slot_word(second, words::SETTINGS_CLIENT_RATE)),
        rate_by: words::rate_by(tables.slot_word(first, words::SETTINGS_CLIENTS)),
    };
    is_current(tables, decision).then_some(bounds)
}

/// Takes a place of the endpoint that `decision` names or, when it is full, of another one of the
/// table, which is then where the connection goes. Returns whether one was taken: those that were
/// tried had no room, or the table has been replaced.
#[inline(always)]
pub fn settle<T: Tables + Places>(
    tables: &T,
    decision: &mut Decision,
    bound: Bound,
    reach: Reach,
) -> bool {
    if tables.take(decision.state, bound) {
        return true;
    }
    if decision.table.shape.policy == policy::DIRECT {
        // Who asks for an endpoint gets no other one.
        return false;
    }
    let endpoints = decision.table.shape.endpoints;
    let mut row = choose::row(tables.random(), endpoints);
    for _ in 0..PROBES {
        let Some(it) = candidate(tables, decision, row) else { return false };
        // One that was given weight 0 gets no new connections.
        if it.weight > 0 && reach.covers(&it.peer.address) && tables.take(it.state, bound) {
            decision.endpoint = it.peer;
            decision.state = it.state;
            return true;
        }
        row = if row + 1 < endpoints { row + 1 } else { 0 };
    }
    false
}

/// An endpoint that a connection could go to.
struct Candidate {
    peer: Peer,
    state: u32,
    weight: u16,
}

/// The endpoint in `row` of the table of `decision`, if that is still its table.
#[inline(always)]
fn candidate<T: Tables>(tables: &T, decision: &Decision, row: u32) -> Option<Candidate> {
    let slot = tables.slot(decision.table.first()?.wrapping_add(row))?;
    let candidate = Candidate {
        peer: endpoint(tables, slot),
        state: words::high(tables.slot_word(slot, words::ENDPOINT_ALIAS)),
        weight: words::weight(tables.slot_word(slot, words::ENDPOINT_PORT)),
    };
    is_current(tables, decision).then_some(candidate)
}

/// Whether the table of `decision` is still the one it was taken from. What a program reads is kept
/// until it ends, so this says yes; it is what is left when that is not so.
#[inline(always)]
pub(crate) fn is_current<T: Tables>(tables: &T, decision: &Decision) -> bool {
    let identity = TableHeader::identity(decision.service, decision.generation);
    tables
        .slot(decision.table.header)
        .is_some_and(|header| tables.slot_word(header, words::HEADER_IDENTITY) == identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(open: u64, pending: u64) -> u64 {
        open * Live::OPEN + pending * Live::PENDING
    }

    #[test]
    fn what_is_being_opened_counts_as_open() {
        let bound = Bound { open: 3, pending: 0 };
        assert!(bound.has_room(live(2, 0)) && bound.has_room(live(0, 2)));
        assert!(!bound.has_room(live(3, 0)) && !bound.has_room(live(1, 2)));
    }

    #[test]
    fn attempts_have_a_bound_of_their_own() {
        let bound = Bound { open: 0, pending: 2 };
        assert!(bound.has_room(live(1_000_000, 1)));
        assert!(!bound.has_room(live(0, 2)));
    }

    #[test]
    fn no_bound_has_room_for_everything() {
        assert!(Bound::NONE.has_room(u64::MAX));
    }
}
