//! The programs, as the kernel calls them. Their names are those of
//! [`holdfast_protocol::kernel::program`].

use core::panic::PanicInfo;

use aya_ebpf::helpers::bpf_set_retval;
use aya_ebpf::macros::{cgroup_sock, cgroup_sock_addr, sock_ops};
use aya_ebpf::programs::{SockAddrContext, SockContext, SockOpsContext};
use holdfast_ebpf::decide::{Decision, EAGAIN, ECONNREFUSED, Verdict, decide};
use holdfast_ebpf::limit;
use holdfast_ebpf::socket::{self, Peer};
use holdfast_protocol::kernel::{FrontendKey, PROTOCOL_TCP, PROTOCOL_UDP, SocketState, phase};

use crate::counting;
use crate::maps::{self, Maps};
use crate::places;
use crate::sock_addr::SockAddr;

/// The system call goes on, with the address as the program leaves it.
const PROCEED: i32 = 1;
/// The system call fails with the errno that was set.
const REFUSE: i32 = 0;

/// The kernel offers some helpers only to programs under a licence compatible with the GPL.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// `connect(2)` to an IPv4 address.
#[cgroup_sock_addr(connect4)]
pub fn hf_connect4(context: SockAddrContext) -> i32 {
    connect(&SockAddr::ipv4(&context))
}

/// `connect(2)` to an IPv6 address.
#[cgroup_sock_addr(connect6)]
pub fn hf_connect6(context: SockAddrContext) -> i32 {
    connect(&SockAddr::ipv6(&context))
}

/// `getpeername(2)` of an IPv4 socket.
#[cgroup_sock_addr(getpeername4)]
pub fn hf_getpeername4(context: SockAddrContext) -> i32 {
    getpeername(&SockAddr::ipv4(&context))
}

/// `getpeername(2)` of an IPv6 socket.
#[cgroup_sock_addr(getpeername6)]
pub fn hf_getpeername6(context: SockAddrContext) -> i32 {
    getpeername(&SockAddr::ipv6(&context))
}

/// What becomes of a TCP socket.
#[sock_ops]
pub fn hf_sock_ops(context: SockOpsContext) -> u32 {
    counting::tcp(&context);
    PROCEED as u32
}

/// The last descriptor of a socket is closed.
#[cgroup_sock(sock_release)]
pub fn hf_sock_release(context: SockContext) -> i32 {
    counting::released(&context);
    PROCEED
}

#[inline(always)]
fn connect(socket: &SockAddr<'_>) -> i32 {
    let Some(protocol) = socket.governed() else {
        return PROCEED;
    };
    let Peer { address, port_be } = socket.peer();
    let key = FrontendKey { address, port_be, protocol, reserved: 0 };
    let mut decision = decide(&Maps, &key, socket.reach());
    if matches!(decision.verdict, Verdict::Sent) && limit::is_live(&decision) {
        admit(socket, &key, &mut decision);
    }
    if let Verdict::Sent = decision.verdict {
        let is_stored = send(socket, &key, &decision);
        if limit::has_bounds(&decision) && !is_stored {
            // What is not remembered could never give its place back.
            places::leave(&decision);
            fail(&mut decision, Verdict::Limited, ECONNREFUSED);
        }
    }
    count(&decision);
    match decision.verdict {
        Verdict::Untouched => {
            // A socket may connect again; what was remembered is of its former peer.
            socket.forget();
            PROCEED
        }
        Verdict::Sent => {
            socket.rename(decision.endpoint);
            PROCEED
        }
        // What was remembered stays: a datagram socket keeps its former peer when this fails.
        Verdict::Refused | Verdict::Limited | Verdict::Unsettled => refuse(decision.errno),
    }
}

/// Sees to what depends on what is live: the lighter endpoint, and places under bounds.
#[inline(always)]
fn admit(socket: &SockAddr<'_>, key: &FrontendKey, decision: &mut Decision) {
    let reach = socket.reach();
    if limit::lighten(&Maps, decision, reach).is_none() {
        return fail(decision, Verdict::Unsettled, EAGAIN);
    }
    if !limit::has_bounds(decision) {
        return;
    }
    let Some(bounds) = limit::bounds(&Maps, decision) else {
        return fail(decision, Verdict::Unsettled, EAGAIN);
    };
    if key.protocol == PROTOCOL_TCP {
        // It is not connected, or it could not ask: a place it still has is of an attempt that never
        // began, and must not be in its own way.
        socket.leave();
    }
    if !places::take(decision, bounds, key.protocol, reach) {
        fail(decision, Verdict::Limited, ECONNREFUSED);
    }
}

/// Makes a connection fail that was to be sent.
#[inline(always)]
fn fail(decision: &mut Decision, verdict: Verdict, errno: u16) {
    decision.verdict = verdict;
    decision.errno = errno;
}

/// Remembers where the socket is sent. Returns whether that is remembered.
#[inline(always)]
fn send(socket: &SockAddr<'_>, key: &FrontendKey, decision: &Decision) -> bool {
    let state = SocketState {
        original_address: key.address,
        endpoint_address: decision.endpoint.address,
        original_port_be: key.port_be,
        endpoint_port_be: decision.endpoint.port_be,
        service: decision.service,
        generation: decision.generation,
        endpoint: decision.state,
        phase: phase::IDLE,
        since_ns: 0,
    };
    let phase = if limit::has_bounds(decision) { phase::RESERVED } else { phase::IDLE };
    let stored = socket.remember(state, phase);
    if stored.is_null() {
        return false;
    }
    if key.protocol == PROTOCOL_UDP {
        // SAFETY: not null, so it is this socket's storage.
        unsafe { counting::connected(stored) };
    }
    true
}

#[inline(always)]
fn refuse(errno: u16) -> i32 {
    // SAFETY: the helper takes any number; `decide` answers with numbers that are errors.
    unsafe { bpf_set_retval(-i32::from(errno)) };
    REFUSE
}

#[inline(always)]
fn getpeername(socket: &SockAddr<'_>) -> i32 {
    if let Some(state) = socket.remembered()
        && let Some(original) = socket::asked_for(&state, socket.peer(), socket.reach())
    {
        socket.rename(original);
    }
    PROCEED
}

#[inline(always)]
fn count(decision: &Decision) {
    let Some(counters) = maps::counters(decision.service) else {
        // No service was found, so there is none to count for.
        return;
    };
    // SAFETY: `counters` was looked up in this run, and each pointer is to a field of it.
    unsafe {
        match decision.verdict {
            Verdict::Untouched => {}
            Verdict::Sent => maps::add(&raw mut (*counters).connections, 1),
            Verdict::Refused => maps::add(&raw mut (*counters).refused, 1),
            Verdict::Limited => maps::add(&raw mut (*counters).limited, 1),
            Verdict::Unsettled => maps::add(&raw mut (*counters).unsettled, 1),
        }
        if decision.retries > 0 {
            maps::add(&raw mut (*counters).retries, u64::from(decision.retries));
        }
    }
}

/// The verifier admits no program that could get here; the compiler asks for it all the same.
#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {}
}
