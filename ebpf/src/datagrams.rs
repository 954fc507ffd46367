//! The programs for datagrams that name their destination, or ask for their source.
//!
//! The kernel runs the first for every `sendto(2)`, `sendmsg(2)` and `sendmmsg(2)` with an address,
//! whether the socket is connected or not, and for every datagram that a connected IPv6 socket sends
//! to an IPv4-mapped peer (`net/ipv4/udp.c`, `udp_sendmsg`); the others for every `recvfrom(2)` and
//! the like that asks where a datagram came from.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use holdfast_ebpf::decide::{EHOSTUNREACH, Inquiry, Verdict, decide};
use holdfast_ebpf::flow::{Flows, NEVER};
use holdfast_ebpf::socket::{self, Peer, Reach};
use holdfast_protocol::kernel::FrontendKey;
use holdfast_protocol::kernel::event::{Event, kind};

use crate::caller::Caller;
use crate::court::{self, permit};
use crate::enrolled::is_enrolled;
use crate::flows::SocketFlows;
use crate::programs::{PROCEED, refuse, tally, tell_failure};
use crate::sock_addr::SockAddr;
use crate::steps::{COUNTS, Datagram, NEW_FLOW, hf_expect, hf_keep_flow};
use crate::{seats, telling};

/// A datagram to an IPv4 address.
#[cgroup_sock_addr(sendmsg4)]
pub fn hf_sendmsg4(context: SockAddrContext) -> i32 {
    send(&SockAddr::ipv4(&context))
}

/// A datagram to an IPv6 address.
#[cgroup_sock_addr(sendmsg6)]
pub fn hf_sendmsg6(context: SockAddrContext) -> i32 {
    send(&SockAddr::ipv6_datagram(&context))
}

/// The source of a datagram that an IPv4 socket receives.
#[cgroup_sock_addr(recvmsg4)]
pub fn hf_recvmsg4(context: SockAddrContext) -> i32 {
    receive(&SockAddr::ipv4(&context))
}

/// The source of a datagram that an IPv6 socket receives.
#[cgroup_sock_addr(recvmsg6)]
pub fn hf_recvmsg6(context: SockAddrContext) -> i32 {
    receive(&SockAddr::ipv6(&context))
}

#[inline(always)]
fn send(socket: &SockAddr) -> i32 {
    let Some(protocol) = socket.governed() else {
        return PROCEED;
    };
    let (caller, asked) = (socket.caller(), socket.peer());
    if let Some(peer) = socket.connected() {
        if peer == asked {
            return PROCEED;
        }
        if let Some(state) = seats::remembered(caller)
            && socket::asked_for(state, peer, Reach::Any) == Some(asked)
        {
            return to_peer(socket, peer);
        }
    }
    let Peer { address, port_be } = asked;
    let key = FrontendKey { address, port_be, protocol, reserved: 0 };
    let mut inquiry = Inquiry::new(key, socket.reach());
    if !is_enrolled(caller) {
        expect_answer(caller, &inquiry);
        return PROCEED;
    }
    decide(&Datagram(caller), &mut inquiry);
    permit(caller, &mut inquiry);
    let kept = hf_keep_flow(caller.context(), &raw mut inquiry);
    if kept & NEW_FLOW != 0 && inquiry.decision.verdict == Verdict::Sent {
        telling::tell(caller, &inquiry, kind::FLOW, Event::NO_POLICY);
    }
    tell_failure(caller, &inquiry);
    let decision = &inquiry.decision;
    if kept & COUNTS != 0 {
        tally(decision, kept & NEW_FLOW);
    }
    match decision.verdict {
        Verdict::Untouched => {
            expect_answer(caller, &inquiry);
            PROCEED
        }
        Verdict::Sent => {
            socket.rename(decision.endpoint);
            PROCEED
        }
        Verdict::Refused | Verdict::Denied | Verdict::Limited | Verdict::Unsettled => {
            refuse(decision.errno)
        }
    }
}

/// The datagram goes where it says. What comes from there is no news to policies about what arrives.
#[inline(always)]
fn expect_answer(caller: Caller, inquiry: &Inquiry) {
    if court::judges_arrivals() {
        hf_expect(caller.context(), inquiry);
    }
}

/// Sends what names the virtual address that the socket is connected to where it is connected to: it
/// hears nobody else.
#[inline(always)]
fn to_peer(socket: &SockAddr, peer: Peer) -> i32 {
    if !socket.reach().covers(&peer.address) {
        return refuse(EHOSTUNREACH);
    }
    socket.rename(peer);
    PROCEED
}

#[inline(always)]
fn receive(socket: &SockAddr) -> i32 {
    let source = socket.peer();
    if socket.connected() == Some(source)
        && let Some(state) = seats::remembered(socket.caller())
        && let Some(original) = socket::asked_for(state, source, socket.reach())
    {
        socket.rename(original);
        return PROCEED;
    }
    let asked = SocketFlows(socket.caller().cookie()).asked_as(&source);
    if asked.port_be != NEVER && socket.reach().covers(&asked.address) {
        socket.rename(asked);
    }
    PROCEED
}
