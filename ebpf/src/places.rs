//! Places under a bound: taken before a connection is sent, given back by whoever ends it.

use holdfast_ebpf::decide::Decision;
use holdfast_ebpf::limit::{Bound, Places, settle};
use holdfast_ebpf::socket::Reach;
use holdfast_protocol::kernel::PROTOCOL_UDP;
use holdfast_protocol::kernel::endpoint::Live;

use crate::maps::{self, Maps};

impl Places for Maps {
    #[inline(always)]
    fn take(&self, state: u32, bound: Bound) -> bool {
        match maps::endpoint(state) {
            // SAFETY: looked up in this run; the pointer is to a field of it.
            Some(endpoint) => unsafe { take_one(&raw mut (*endpoint).live, bound) },
            // Of an endpoint without a number nothing is known.
            None => true,
        }
    }
}

/// Takes a place of the service of `decision` and one of its endpoint, or another's; both or none.
/// Returns whether there were any.
#[inline(always)]
pub fn take(
    maps: &Maps,
    decision: &mut Decision,
    bounds: [Bound; 2],
    protocol: u8,
    reach: Reach,
) -> bool {
    let service = decision.service;
    both(service, bounds, protocol, |bound| settle(maps, decision, bound, reach))
}

/// The same, and asks no other endpoint for one.
#[inline(always)]
pub fn take_own(maps: &Maps, decision: &Decision, bounds: [Bound; 2], protocol: u8) -> bool {
    both(decision.service, bounds, protocol, |bound| maps.take(decision.state, bound))
}

/// Takes a place of this service, and one of an endpoint as `take_one_of` does it; both or none.
///
/// A datagram socket is never pending: the bounds on attempts are not for it.
#[inline(always)]
fn both(
    service: u32,
    [mut of_service, mut of_endpoint]: [Bound; 2],
    protocol: u8,
    take_one_of: impl FnOnce(Bound) -> bool,
) -> bool {
    if protocol == PROTOCOL_UDP {
        of_service.pending = 0;
        of_endpoint.pending = 0;
    }
    let Some(traffic) = maps::traffic(service) else { return false };
    // SAFETY: looked up in this run; the pointer is to a field of it.
    unsafe {
        let live = &raw mut (*traffic).live;
        if !take_one(live, of_service) {
            return false;
        }
        let is_taken = take_one_of(of_endpoint);
        if !is_taken {
            give_back(live);
        }
        is_taken
    }
}

/// Gives back what [`take`] has taken for `decision`.
#[inline(always)]
pub fn leave(decision: &Decision) {
    // SAFETY: looked up in this run; the pointers are to fields of what was.
    unsafe {
        if let Some(traffic) = maps::traffic(decision.service) {
            give_back(&raw mut (*traffic).live);
        }
        if let Some(endpoint) = maps::endpoint(decision.state) {
            give_back(&raw mut (*endpoint).live);
        }
    }
}

#[inline(always)]
unsafe fn take_one(live: *mut u64, bound: Bound) -> bool {
    // SAFETY: the caller's `live` is a word of a map's value.
    unsafe {
        let has_room = bound.has_room(maps::fetch_add(live, Live::PENDING));
        if !has_room {
            give_back(live);
        }
        has_room
    }
}

#[inline(always)]
unsafe fn give_back(live: *mut u64) {
    // SAFETY: as in `take_one`.
    unsafe { maps::add(live, Live::PENDING.wrapping_neg()) };
}
