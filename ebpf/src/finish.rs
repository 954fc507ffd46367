//! What follows a look when nothing more has to be asked: the connection is let pass, takes its places, and is remembered, in
//! the function that has looked.
//!
//! Each of these is a step of its own ([`steps`](crate::steps), [`court`](crate::court)), and a call costs more than most of
//! what it does. So here is what they come to for a socket of which nothing is remembered, when the policies have said so before
//! and there is room. Whatever else there is, nothing has been done, and the steps are taken.

use holdfast_ebpf::client::Clients as _;
use holdfast_ebpf::decide::{Decision, Inquiry, Verdict};
use holdfast_ebpf::limit;
use holdfast_ebpf::policy::sentence;
use holdfast_protocol::kernel::{PROTOCOL_UDP, SeatWord, SocketState, feature, phase};

use crate::caller::{Caller, Clock as _, KnownCaller};
use crate::maps::Maps;
use crate::seats::{self, Owner};
use crate::{counting, court, places, precedents, telling};

/// What a service may ask for that is done here.
const FEATURES: u8 = feature::AFFINITY | feature::LIMITS;

/// Whether the connection that was decided in `inquiry` needs nothing more but to be counted and renamed. If not, nothing has
/// been done. The cookie is the socket's, of which nothing is known.
#[inline(always)]
pub fn is_finished(caller: Caller, known: &KnownCaller, inquiry: &Inquiry, cookie: u64) -> bool {
    let decision = &inquiry.decision;
    match decision.verdict {
        Verdict::Untouched => return is_let_pass(caller, known, inquiry),
        Verdict::Sent => {}
        _ => return false,
    }
    let owner = caller.owner_with(cookie);
    if decision.table.shape.features & !FEATURES != 0
        || telling::wanted().0 != 0
        || !is_let_pass(caller, known, inquiry)
        || !has_place(caller, inquiry)
    {
        return false;
    }
    let stored = seats::take(owner);
    if stored.is_null() {
        if limit::has_places(decision) {
            places::leave(decision);
        }
        return false;
    }
    // SAFETY: not null, so it is this socket's, and says nothing of it yet.
    unsafe { remember(stored, known, inquiry, owner) };
    true
}

/// Whether the policies have let it pass before, or there are none.
#[inline(always)]
fn is_let_pass(caller: Caller, known: &KnownCaller, inquiry: &Inquiry) -> bool {
    let head = court::head();
    head.slot() == 0
        || precedents::recalled(caller, inquiry, head, known.cgroup())
            .is_some_and(|ruling| ruling.sentence() == sentence::ALLOWED)
}

/// Takes the places of its service and of its endpoint, if it has bounds. Returns whether there were both.
#[inline(always)]
fn has_place(caller: Caller, inquiry: &Inquiry) -> bool {
    let decision: &Decision = &inquiry.decision;
    if !limit::has_places(decision) {
        return true;
    }
    let maps = Maps(caller);
    match limit::places(&maps, decision) {
        Some(bounds) => places::take_own(&maps, decision, bounds, inquiry.key.protocol),
        None => false,
    }
}

/// Writes to `stored` where the socket goes, and counts a datagram socket as connected: what `hf_remember` does when nobody is
/// told of it.
///
/// # Safety
///
/// `stored` is an element that this run of the program has just taken for its owner.
#[inline(always)]
unsafe fn remember(stored: *mut SocketState, known: &KnownCaller, inquiry: &Inquiry, owner: Owner) {
    let (key, decision) = (&inquiry.key, &inquiry.decision);
    let reached = if limit::has_places(decision) { phase::RESERVED } else { phase::IDLE };
    // SAFETY: by the contract above. Nobody else looks at what is in an element while its phase is idle.
    unsafe {
        seats::write_route(stored, key, decision);
        (&raw mut (*stored).told).write_volatile(0);
        if key.protocol == PROTOCOL_UDP {
            let (service, endpoint) = (decision.service, decision.state);
            counting::opened_from(reached, known.now_ns(), stored, owner.cookie, service, endpoint);
        } else {
            (&raw mut (*stored).since_ns).write_volatile(0);
            (&raw mut (*stored).seat).write_volatile(SeatWord::new(owner.cookie, reached).0);
        }
    }
}
