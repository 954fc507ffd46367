//! The endpoint that is asked for by its own address, or by another one at which it answers.
//!
//! Nothing is chosen: the address is a row of the table, or the table is not the one that its frontend
//! was sent to. The rows are in the order of [`EndpointSlot::rank`], so it is found by halving.

use holdfast_protocol::kernel::EndpointSlot;

use crate::decide::{Slots, endpoint};
use crate::socket::Peer;
use crate::table::Table;

/// Steps that find any row: a table has at most 2^20, an endpoint's aliases among them.
const STEPS: u32 = 20;

/// The row of `asked`, and its slot; `None` if the table, which is not empty, does not have it.
#[inline(always)]
pub(crate) fn find<S: Slots>(slots: &S, table: &Table, asked: &Peer) -> Option<(u32, S::Slot)> {
    let first = table.first()?;
    let wanted = rank(asked);
    let (mut row, mut left) = (0_u32, table.shape.endpoints);
    for _ in 0..STEPS {
        if left <= 1 {
            break;
        }
        let half = left / 2;
        let middle = row.wrapping_add(half);
        let slot = slots.slot(first.wrapping_add(middle))?;
        if rank(&endpoint(slots, slot)) <= wanted {
            row = middle;
        }
        left -= half;
    }
    let slot = slots.slot(first.wrapping_add(row))?;
    (endpoint(slots, slot) == *asked).then_some((row, slot))
}

#[inline(always)]
const fn rank(peer: &Peer) -> [u64; 3] {
    EndpointSlot::rank(&peer.address, peer.port_be)
}

#[cfg(test)]
#[path = "direct_tests.rs"]
pub(crate) mod tests;
