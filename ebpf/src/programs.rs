//! The programs, as the kernel calls them. Their names are those of
//! [`holdfast_protocol::kernel::program`].

use core::panic::PanicInfo;

use aya_ebpf::helpers::bpf_set_retval;
use aya_ebpf::macros::{cgroup_sock, cgroup_sock_addr, sock_ops};
use aya_ebpf::programs::{SockAddrContext, SockContext, SockOpsContext};
use holdfast_ebpf::decide::{Decision, Inquiry, Verdict, decide};
use holdfast_ebpf::event;
use holdfast_ebpf::limit;
use holdfast_ebpf::socket;
use holdfast_protocol::kernel::event::{Event, kind};

use crate::caller::Caller;
use crate::court::permit;
use crate::enrolled::is_enrolled;
use crate::seats::{self, Owner};
use crate::sock_addr::SockAddr;
use crate::steps::{Connection, NO_COOKIE, hf_admit, hf_forget, hf_remember};
use crate::straight::{asks_nothing, goes_plainly};
use crate::{counting, maps, places, telling};

/// The system call goes on, with the address as the program leaves it.
pub const PROCEED: i32 = 1;
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
fn connect(socket: &SockAddr) -> i32 {
    if socket.governed().is_none() {
        return PROCEED;
    }
    let caller = socket.caller();
    let owner = caller.owner();
    // What is known of the socket is loaded first: it may be in no cache, and what is done meanwhile
    // costs nothing beside it.
    if !seats::is_known(owner) && asks_nothing(caller) && goes_plainly(socket, owner) {
        return PROCEED;
    }
    if !is_enrolled(caller) {
        forget(caller, owner);
        return PROCEED;
    }
    let mut inquiry = Inquiry::new(socket.key(), socket.reach());
    // What is known of the socket has to be ended first, which is a step of its own.
    let fresh = if seats::is_known(owner) { NO_COOKIE } else { owner.cookie };
    let connection = Connection::new(caller, fresh);
    decide(&connection, &mut inquiry);
    if !connection.is_finished() {
        go_on(caller, owner, &mut inquiry);
    }
    let decision = &inquiry.decision;
    tally(decision, 1);
    match decision.verdict {
        Verdict::Untouched => {
            forget(caller, owner);
            PROCEED
        }
        Verdict::Sent => {
            socket.rename(decision.endpoint);
            PROCEED
        }
        // What was remembered stays: a datagram socket keeps its former peer when this fails.
        Verdict::Refused | Verdict::Denied | Verdict::Limited | Verdict::Unsettled => {
            refuse(decision.errno)
        }
    }
}

/// Takes the steps that follow the looks.
#[inline(always)]
fn go_on(caller: Caller, owner: Owner, inquiry: &mut Inquiry) {
    permit(caller, inquiry);
    if inquiry.decision.verdict == Verdict::Sent && limit::has_bounds(&inquiry.decision) {
        let judged = inquiry.decision.endpoint;
        hf_admit(caller.context(), inquiry, owner.cookie);
        if inquiry.decision.verdict == Verdict::Sent && inquiry.decision.endpoint != judged {
            // It gave way to another one, which no policy has been asked about.
            permit(caller, inquiry);
            if inquiry.decision.verdict != Verdict::Sent {
                places::leave(&inquiry.decision);
            }
        }
    }
    if inquiry.decision.verdict == Verdict::Sent {
        hf_remember(caller.context(), inquiry, owner.cookie);
    }
    tell_failure(caller, inquiry);
}

/// What was remembered of a socket that connects again is of its former peer.
#[inline(always)]
pub fn forget(caller: Caller, owner: Owner) {
    if seats::may_be_remembered(owner) {
        hf_forget(caller.context(), owner.cookie);
    }
}

/// Tells that a connection, or a datagram, fails; the judge has told what access policies deny.
#[inline(always)]
pub fn tell_failure(caller: Caller, inquiry: &Inquiry) {
    match event::of_failure(inquiry.decision.verdict) {
        None | Some(kind::DENIED) => {}
        Some(kind) => telling::tell(caller, inquiry, kind, Event::NO_POLICY),
    }
}

/// Makes the system call fail.
#[inline(always)]
pub fn refuse(errno: u16) -> i32 {
    // SAFETY: the helper takes any number; `decide` answers with numbers that are errors.
    unsafe { bpf_set_retval(-i32::from(errno)) };
    REFUSE
}

#[inline(always)]
fn getpeername(socket: &SockAddr) -> i32 {
    if let Some(state) = seats::remembered(socket.caller())
        && let Some(original) = socket::asked_for(state, socket.peer(), socket.reach())
    {
        socket.rename(original);
    }
    PROCEED
}

/// Counts a decision: `connections` of what is sent, and one of what fails.
#[inline(always)]
pub fn tally(decision: &Decision, connections: u64) {
    let Some(counters) = maps::counters(decision.service) else {
        // No service was found, so there is none to count for.
        return;
    };
    // SAFETY: `counters` was looked up in this run, and each pointer is to a field of it.
    unsafe {
        match decision.verdict {
            Verdict::Untouched => {}
            Verdict::Sent => maps::add(&raw mut (*counters).connections, connections),
            Verdict::Refused => maps::add(&raw mut (*counters).refused, 1),
            Verdict::Denied => maps::add(&raw mut (*counters).denied, 1),
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
