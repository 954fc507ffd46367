//! Connections that are closed because their endpoint has drained long enough. Pure.
//!
//! No program closes one: that takes the right to, and a socket's network namespace. The programs remember
//! where sockets are that may have to be closed, and tell afterwards which ones were.

use holdfast_protocol::kernel::event::Event;
use holdfast_protocol::kernel::feature;

use crate::decide::Decision;
use crate::lifecycle::has_ended_in_order;

/// Whether the service closes what drains too long.
#[inline(always)]
#[must_use]
pub const fn is_closed(decision: &Decision) -> bool {
    decision.table.shape.features & feature::DRAIN != 0
}

/// How a connection ended that closes coming from `state`, while its endpoint `is_overdue`. Who closes it
/// breaks it off; what ends by itself ends as ever.
#[inline(always)]
#[must_use]
pub const fn last_state(state: u32, is_overdue: bool) -> u8 {
    if is_overdue && !has_ended_in_order(state) { Event::DRAINED } else { state as u8 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_breaks_off_while_its_endpoint_is_overdue_was_closed_for_that() {
        const ESTABLISHED: u32 = 1;
        const LAST_ACK: u32 = 9;
        assert_eq!(last_state(ESTABLISHED, false), 1);
        assert_eq!(last_state(ESTABLISHED, true), Event::DRAINED);
        assert_eq!(last_state(LAST_ACK, true), 9);
    }
}
