//! The plain way of a connection ([`plain`]): what it asks before, and what it leaves behind.

use holdfast_ebpf::decide::Tables as _;
use holdfast_ebpf::enrol::Enrolment as _;
use holdfast_ebpf::plain::{self, Plain, Way};
use holdfast_protocol::kernel::{PROTOCOL_UDP, SocketState};

use crate::caller::Caller;
use crate::maps::{Maps, write_address};
use crate::programs::forget;
use crate::seats::{self, Owner};
use crate::sock_addr::SockAddr;
use crate::{counting, court, maps, telling};

/// Whether the node asks nothing of a connection: who makes it, whether a policy denies it, who wants to be told of it.
#[inline(always)]
pub fn asks_nothing(caller: Caller) -> bool {
    !caller.word().is_restricted() && !court::sits() && telling::wanted().0 == 0
}

/// Whether the connection has gone the plain way. If not, nothing has been done.
#[inline(always)]
pub fn goes_plainly(socket: &SockAddr, owner: Owner) -> bool {
    let (caller, maps) = (socket.caller(), Maps(socket.caller()));
    let Some(known) = maps.known(&socket.key()) else { return false };
    let plain = plain::look(&maps, known, socket.reach());
    // A policy that has come into force before the table is not passed by.
    if plain.way == Way::Winding || court::sits() {
        return false;
    }
    if plain.way == Way::Untouched {
        forget(caller, owner);
        return true;
    }
    let stored = seats::take(owner);
    if stored.is_null() {
        return false;
    }
    // SAFETY: not null, so it is this socket's, and says nothing of it yet.
    unsafe { remember(stored, socket, &plain, owner.cookie) };
    if let Some(counters) = maps::counters(plain.service) {
        // SAFETY: looked up in this run; the pointer is to a field of it.
        unsafe { maps::add(&raw mut (*counters).connections, 1) };
    }
    socket.rename(plain.endpoint);
    true
}

/// Writes to `stored` where the socket with this cookie goes, and counts a datagram socket as connected. What
/// `hf_remember` writes, but in a frame of `connect` that has no byte left for a function that both would call.
///
/// # Safety
///
/// `stored` is an element that this run of the program has just taken for the socket.
#[inline(always)]
unsafe fn remember(stored: *mut SocketState, asked: &SockAddr, plain: &Plain, cookie: u64) {
    // SAFETY: by the contract above. Nobody else looks at what is in an element while its phase is idle.
    unsafe {
        (&raw mut (*stored).original_port_be).write_volatile(asked.port_be());
        write_address(&raw mut (*stored).original_address, &asked.address());
        write_address(&raw mut (*stored).endpoint_address, &plain.endpoint.address);
        (&raw mut (*stored).endpoint_port_be).write_volatile(plain.endpoint.port_be);
        (&raw mut (*stored).service).write_volatile(plain.service);
        (&raw mut (*stored).endpoint).write_volatile(plain.state);
        (&raw mut (*stored).told).write_volatile(0);
        if asked.protocol() == PROTOCOL_UDP.into() {
            counting::opened(stored, cookie, plain.service, plain.state);
        } else {
            (&raw mut (*stored).since_ns).write_volatile(0);
        }
    }
}
