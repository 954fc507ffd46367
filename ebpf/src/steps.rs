//! The steps of a program that are functions of their own to the verifier.
//!
//! The verifier follows every way through a program. Of a function that is exported it knows no more
//! than the types of what it is given, and so it looks at it once, and not for each way that leads
//! there (`Documentation/bpf/verifier.rst`; global functions, Linux 5.6). That is what keeps the time to
//! load in check as programs grow. In return such a function is given pointers to whole structs, checks
//! them against null, and answers with a number. The kernel bounds the stack of a chain of them to 512
//! bytes, so no step calls another one; only the judge, in [`court`](crate::court), has parts.

use core::cell::Cell;

use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use holdfast_ebpf::client::Clients as _;
use holdfast_ebpf::decide::{
    Decision, EAGAIN, ECONNREFUSED, Inquiry, Look, Looks, NoPast, Verdict, look,
};
use holdfast_ebpf::drain;
use holdfast_ebpf::event;
use holdfast_ebpf::flow::{self, FlowPast};
use holdfast_ebpf::limit;
use holdfast_protocol::kernel::event::kind;
use holdfast_protocol::kernel::{PROTOCOL_TCP, PROTOCOL_UDP, SeatWord, phase};

use crate::caller::{Caller, KnownCaller};
use crate::finish::is_finished;
use crate::flows::SocketFlows;
use crate::maps::Maps;
use crate::telling::{self, Moment};
use crate::{counting, places, rates, seats};

/// Looks for a connection.
pub struct Connection {
    caller: Caller,
    /// The socket's, if nothing is known of it; or [`NO_COOKIE`].
    cookie: u64,
    /// Whether the last look has done all that there was to do.
    is_finished: Cell<bool>,
}

impl Connection {
    /// A connection by the socket with this cookie, or [`NO_COOKIE`].
    #[inline(always)]
    pub const fn new(caller: Caller, cookie: u64) -> Self {
        Self { caller, cookie, is_finished: Cell::new(false) }
    }

    /// Whether nothing is left to do but to count it and to rename its peer.
    #[inline(always)]
    pub const fn is_finished(&self) -> bool {
        self.is_finished.get()
    }
}

impl Looks for Connection {
    #[inline(always)]
    fn look(&self, inquiry: &mut Inquiry) -> Look {
        let answer = hf_look(self.caller.context(), inquiry, self.cookie);
        self.is_finished.set(answer == FINISHED);
        if answer == FINISHED { Look::Settled } else { Look::numbered(answer as u32) }
    }
}

/// No socket has this cookie.
pub const NO_COOKIE: u64 = 0;
/// The look is settled, and all is done that follows from it: no [`Look`] has this number.
const FINISHED: u64 = 1 << 8;

/// Looks for a datagram of a flow.
pub struct Datagram(pub Caller);

impl Looks for Datagram {
    #[inline(always)]
    fn look(&self, inquiry: &mut Inquiry) -> Look {
        Look::numbered(hf_look_again(self.0.context(), inquiry) as u32)
    }
}

/// A look for something that has no past: the number of a [`Look`], or [`FINISHED`]. The cookie is
/// that of the socket, if nothing is known of it, or [`NO_COOKIE`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hf_look(context: *mut bpf_sock_addr, inquiry: *mut Inquiry, cookie: u64) -> u64 {
    // SAFETY: programs pass what the kernel has passed them, and an inquiry of their own.
    let (caller, inquiry) = unsafe { (Caller::new(context), inquiry.as_mut()) };
    let Some(inquiry) = inquiry else { return Look::Replaced as u64 };
    let known = KnownCaller::new(caller);
    let look = look(&Maps(&known), &NoPast, inquiry);
    if look == Look::Settled && cookie != NO_COOKIE && is_finished(caller, &known, inquiry, cookie)
    {
        FINISHED
    } else {
        look as u64
    }
}

/// A look for a flow: the number of a [`Look`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hf_look_again(context: *mut bpf_sock_addr, inquiry: *mut Inquiry) -> u64 {
    // SAFETY: as in `hf_look`.
    let (caller, inquiry) = unsafe { (Caller::new(context), inquiry.as_mut()) };
    let Some(inquiry) = inquiry else { return Look::Replaced as u64 };
    look(&Maps(caller), &FlowPast(SocketFlows(caller.cookie())), inquiry) as u64
}

/// Remembers where the flow of the datagram goes that `inquiry` was decided for. Returns whether it is a
/// new flow ([`NEW_FLOW`]), and whether there is anything to count ([`COUNTS`]).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hf_keep_flow(context: *mut bpf_sock_addr, inquiry: *mut Inquiry) -> u64 {
    // SAFETY: as in `hf_look`.
    let (caller, inquiry) = unsafe { (Caller::new(context), inquiry.as_mut()) };
    let Some(inquiry) = inquiry else { return 0 };
    let flows = SocketFlows(caller.cookie());
    let direction = flow::direct(&flows, inquiry);
    flows.remember(inquiry, &direction);
    let is_new = if direction.is_new { NEW_FLOW } else { 0 };
    let counts = if direction.counts(&inquiry.decision) { COUNTS } else { 0 };
    is_new | counts
}

/// Remembers that an answer may come from where the datagram of `inquiry` goes, which is not governed. Without
/// it, access policies about what arrives would take the answer for something new.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hf_expect(context: *mut bpf_sock_addr, inquiry: *const Inquiry) -> u64 {
    // SAFETY: as in `hf_look`.
    let (caller, inquiry) = unsafe { (Caller::new(context), inquiry.as_ref()) };
    if let Some(inquiry) = inquiry {
        SocketFlows(caller.cookie()).expect(&flow::asked(&inquiry.key));
    }
    0
}

/// The datagram begins a flow, or moves one.
pub const NEW_FLOW: u64 = 1;
/// There is something to count of the datagram.
pub const COUNTS: u64 = 2;

/// Takes a connection of the rates, and places under the bounds, of the service that `inquiry` was decided
/// for; if there are none, the decision is another one. The cookie is the socket's.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hf_admit(context: *mut bpf_sock_addr, inquiry: *mut Inquiry, cookie: u64) -> u64 {
    // SAFETY: as in `hf_look`.
    let (caller, inquiry) = unsafe { (Caller::new(context), inquiry.as_mut()) };
    let Some(inquiry) = inquiry else { return 0 };
    let (maps, decision) = (Maps(caller), &mut inquiry.decision);
    let Some(bounds) = limit::bounds(&maps, decision) else {
        fail(decision, Verdict::Unsettled, EAGAIN);
        return 0;
    };
    if limit::has_rates(decision) && !rates::take(&maps, decision.service, &bounds) {
        fail(decision, Verdict::Limited, ECONNREFUSED);
        return 0;
    }
    if !limit::has_places(decision) {
        return 0;
    }
    if inquiry.key.protocol == PROTOCOL_TCP {
        // It is not connected, or it could not ask: a place it still has is of an attempt that never
        // began, and must not be in its own way.
        leave(caller, cookie);
    }
    if !places::take(&maps, decision, bounds.places, inquiry.key.protocol, inquiry.reach) {
        fail(decision, Verdict::Limited, ECONNREFUSED);
    }
    0
}

/// Remembers where the socket with this cookie is sent.
///
/// When the kernel has no memory for it (`net.core.optmem_max` bounds it for each socket), the
/// connection is governed all the same: the client reaches its endpoint, and `getpeername` then shows
/// that endpoint instead of the address the client asked for, and nothing is counted of what becomes
/// of it. Under bounds, where its end would have to be counted, it is refused.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hf_remember(
    context: *mut bpf_sock_addr,
    inquiry: *mut Inquiry,
    cookie: u64,
) -> u64 {
    // SAFETY: as in `hf_look`.
    let (caller, inquiry) = unsafe { (Caller::new(context), inquiry.as_mut()) };
    let Some(inquiry) = inquiry else { return 0 };
    let (key, decision) = (&inquiry.key, &mut inquiry.decision);
    let has_place = limit::has_places(decision);
    // SAFETY: the socket is that of the cookie, and locked while it connects.
    let stored = unsafe { seats::claim(caller.owner_with(cookie), caller.socket().cast()) };
    if stored.is_null() {
        if has_place {
            places::leave(decision);
            fail(decision, Verdict::Limited, ECONNREFUSED);
        }
        return 0;
    }
    let reached = if has_place { phase::RESERVED } else { phase::IDLE };
    let told = telling::told(&Maps(caller), decision);
    // SAFETY: not null, so it is what is remembered of this socket. While its phase is idle nobody else
    // looks at the rest.
    unsafe {
        counting::leave(stored);
        seats::write_route(stored, key, decision);
        (&raw mut (*stored).told).write_volatile(event::kept(told));
        (&raw mut (*stored).since_ns).write_volatile(0);
        if told != 0 {
            (&raw mut (*stored).cgroup).write_volatile(caller.cgroup());
            (&raw mut (*stored).handshake_ns).write_volatile(0);
            (&raw mut (*stored).protocol).write_volatile(u64::from(key.protocol));
        }
        if drain::is_closed(decision) {
            (&raw mut (*stored).namespace).write_volatile(caller.network_namespace());
        }
        if event::has(told, kind::SENT).0 {
            let moment = Moment::at(bpf_ktime_get_ns());
            let seat = SeatWord::new(cookie, reached);
            telling::draft(stored, kind::SENT, seat, &moment, 0).tell();
        }
        (&raw mut (*stored).seat).write_volatile(SeatWord::new(cookie, reached).0);
        if key.protocol == PROTOCOL_UDP {
            counting::connected(stored);
        }
    }
    0
}

/// Forgets what is remembered of the socket with this cookie, if anything is, and ends what is counted for it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hf_forget(context: *mut bpf_sock_addr, cookie: u64) -> u64 {
    // SAFETY: as in `hf_look`.
    let caller = unsafe { Caller::new(context) };
    // SAFETY: the socket is that of the cookie.
    unsafe {
        let stored = seats::find(caller.owner_with(cookie), caller.socket().cast());
        if !stored.is_null() {
            counting::forget(stored);
        }
    }
    0
}

/// Ends what is counted for the socket's former peer, if anything is.
#[inline(always)]
fn leave(caller: Caller, cookie: u64) {
    // SAFETY: the socket is that of the cookie.
    unsafe {
        let stored = seats::find(caller.owner_with(cookie), caller.socket().cast());
        if !stored.is_null() {
            counting::leave(stored);
        }
    }
}

/// Makes a connection fail that was to be sent.
#[inline(always)]
fn fail(decision: &mut Decision, verdict: Verdict, errno: u16) {
    decision.verdict = verdict;
    decision.errno = errno;
}
