//! The programs, as the kernel calls them. Their names are those of
//! [`holdfast_protocol::kernel::program`].

use core::panic::PanicInfo;

use aya_ebpf::helpers::bpf_set_retval;
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use holdfast_ebpf::decide::{Decision, EAGAIN, Verdict, decide};
use holdfast_ebpf::policy::{self, Court as _, Request, Ruling, sentence};
use holdfast_ebpf::socket::{self, Peer};
use holdfast_protocol::kernel::{FrontendKey, SocketState};

use crate::court::Chamber;
use crate::maps::{self, Maps};
use crate::sock_addr::SockAddr;

/// The system call goes on, with the address as the program leaves it.
const PROCEED: i32 = 1;
/// The system call fails with the errno that was set.
const REFUSE: i32 = 0;

/// `EPERM`: an access policy denies it.
const EPERM: u16 = 1;

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

#[inline(always)]
fn connect(socket: &SockAddr<'_>) -> i32 {
    let Some(protocol) = socket.governed() else {
        return PROCEED;
    };
    let Peer { address, port_be } = socket.peer();
    let key = FrontendKey { address, port_be, protocol, reserved: 0 };
    let decision = decide(&Maps, &key, socket.reach());
    if matches!(decision.verdict, Verdict::Untouched | Verdict::Sent) {
        let asked = Peer { address, port_be };
        let errno = forbidden(socket, asked, &decision);
        if errno != 0 {
            return refuse(errno);
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
            socket.remember(SocketState {
                original_address: address,
                endpoint_address: decision.endpoint.address,
                original_port_be: port_be,
                endpoint_port_be: decision.endpoint.port_be,
                service: decision.service,
                generation: decision.generation,
                reserved: 0,
            });
            socket.rename(decision.endpoint);
            PROCEED
        }
        // What was remembered stays: a datagram socket keeps its former peer when this fails.
        Verdict::Refused | Verdict::Unsettled => refuse(decision.errno),
    }
}

/// What a connection that would be made has to fail with for the access policies' sake; 0 if they
/// let it pass.
#[inline(always)]
fn forbidden(socket: &SockAddr<'_>, asked: Peer, decision: &Decision) -> u16 {
    if Chamber.head().slot() == 0 {
        return 0;
    }
    let endpoint = match decision.verdict {
        Verdict::Sent => decision.endpoint,
        _ => asked,
    };
    let mut request = Request {
        asked: asked.address,
        endpoint: endpoint.address,
        local: socket.local(),
        image: 0,
        asked_port_be: asked.port_be,
        endpoint_port_be: endpoint.port_be,
    };
    let ruling = policy::leaving(&Chamber, &mut request);
    count_ruling(ruling);
    match ruling.sentence() {
        sentence::ALLOWED | sentence::WOULD_DENY => 0,
        sentence::DENIED => {
            if let Some(counters) = maps::counters(decision.service) {
                // SAFETY: `counters` was looked up in this run, and this is a field of it.
                unsafe { maps::add(&raw mut (*counters).denied, 1) };
            }
            EPERM
        }
        _ => {
            count(&Decision { verdict: Verdict::Unsettled, ..*decision });
            EAGAIN
        }
    }
}

#[inline(always)]
fn count_ruling(ruling: Ruling) {
    let Some(counters) = maps::policy_counters(ruling.policy()) else {
        // No policy had anything to say.
        return;
    };
    // SAFETY: `counters` was looked up in this run, and each pointer is to a field of it.
    unsafe {
        match ruling.sentence() {
            sentence::DENIED => maps::add(&raw mut (*counters).denied, 1),
            _ => maps::add(&raw mut (*counters).dry_run, 1),
        }
    }
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
