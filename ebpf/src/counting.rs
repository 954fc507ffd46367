//! What is counted of a connection after `connect(2)`: the kernel tells of it, [`lifecycle`] says what
//! it means, and this stores it.

use core::ptr;

use aya_ebpf::bindings::{BPF_SOCK_OPS_STATE_CB_FLAG, bpf_sock_ops};
use aya_ebpf::helpers::bpf_get_socket_cookie;
use aya_ebpf::helpers::generated::{
    bpf_ktime_get_coarse_ns, bpf_ktime_get_ns, bpf_sock_ops_cb_flags_set,
};
use aya_ebpf::programs::{SockContext, SockOpsContext};
use holdfast_ebpf::drain;
use holdfast_ebpf::event;
use holdfast_ebpf::lifecycle::{self, Carried, Event, Outcome, Step};
use holdfast_ebpf::socket::Peer;
use holdfast_protocol::kernel::endpoint::EndpointState;
use holdfast_protocol::kernel::traffic::{Traffic, handshake_bucket, lifetime_bucket};
use holdfast_protocol::kernel::{PROTOCOL_TCP, SeatWord, SocketState, mapped, phase};

use crate::caller::IPV4;
use crate::maps;
use crate::seats::{self, Owner};
use crate::telling::{self, Draft, Moment};

/// How often the end of a descriptor is tried: the connection can get on three times at the same
/// moment, from its attempt to its end.
const TRIES: u32 = 4;

/// What happens to a TCP socket: counts it if the socket is one that was sent to an endpoint.
#[inline(always)]
pub fn tcp(context: &SockOpsContext) {
    let raw = context.ops;
    // SAFETY: the kernel passes a valid `bpf_sock_ops`. Volatile keeps each access as wide as its
    // field, which is the only width the verifier takes for these.
    let (operation, former, state) = unsafe {
        let arguments = &raw const (*raw).__bindgen_anon_1.args;
        (
            (&raw const (*raw).op).read_volatile(),
            (&raw const (*arguments)[0]).read_volatile(),
            (&raw const (*arguments)[1]).read_volatile(),
        )
    };
    let event = lifecycle::tcp_event(operation, state);
    if event == Event::None {
        return;
    }
    // SAFETY: as above.
    let socket = unsafe { (&raw const (*raw).__bindgen_anon_2.sk).read_volatile() };
    if socket.is_null() {
        return;
    }
    // SAFETY: not null, so it is the socket of this run; the helper takes the program's context.
    let stored = unsafe {
        let cookie = bpf_get_socket_cookie(raw.cast());
        seats::find(Owner::of(cookie, socket.cast(), PROTOCOL_TCP.into()), socket.cast())
    };
    if stored.is_null() {
        return;
    }
    if event == Event::Attempt {
        listen(raw);
    }
    // SAFETY: not null, so it is this socket's; the helper may be called by any program. If another
    // run takes a step at this very moment, that one ends it, and there is nothing left to do.
    unsafe {
        let mut moment = Moment::at(bpf_ktime_get_ns());
        if event == Event::Closed {
            moment.carried = carried(raw, former);
            moment.last_state = former as u8;
        }
        if (&raw const (*stored).told).read_volatile() != 0 {
            moment.source = own_address(raw);
            // The kernel keeps eight times the time (`tcp_sock.srtt_us`).
            moment.smoothed_rtt_us = (&raw const (*raw).srtt_us).read_volatile() >> 3;
            if event == Event::Closed {
                moment.last_state = drain::last_state(former, is_overdue(stored, moment.at_ns));
            }
        }
        let _done = advance(stored, event, &moment);
    }
}

/// Whether the endpoint of `stored` has drained long enough for its connections to be closed.
///
/// # Safety
///
/// `stored` points into a map value that the program looked up in this run.
#[inline(always)]
unsafe fn is_overdue(stored: *const SocketState, now_ns: u64) -> bool {
    // SAFETY: by the contract above.
    let number = unsafe { (&raw const (*stored).endpoint).read_volatile() };
    let Some(endpoint) = maps::endpoint(number) else { return false };
    // SAFETY: looked up in this run. A worker stores the word meanwhile, hence one volatile load.
    let closes_ns = unsafe { (&raw const (*endpoint).closes_ns).read_volatile() };
    closes_ns != 0 && closes_ns <= now_ns
}

/// Has the kernel tell when the socket's state changes, beside what others have asked it for.
#[inline(always)]
fn listen(raw: *mut bpf_sock_ops) {
    // SAFETY: the kernel passes a valid `bpf_sock_ops`; the helper takes any flags it knows.
    unsafe {
        let flags = (&raw const (*raw).bpf_sock_ops_cb_flags).read_volatile();
        bpf_sock_ops_cb_flags_set(raw, (flags | BPF_SOCK_OPS_STATE_CB_FLAG) as i32);
    }
}

/// The socket's own address and port.
#[inline(always)]
fn own_address(raw: *mut bpf_sock_ops) -> Peer {
    // SAFETY: as in `tcp`.
    unsafe {
        let ipv4 = (&raw const (*raw).local_ip4).read_volatile();
        let ipv6 = [
            (&raw const (*raw).local_ip6[0]).read_volatile(),
            (&raw const (*raw).local_ip6[1]).read_volatile(),
            (&raw const (*raw).local_ip6[2]).read_volatile(),
            (&raw const (*raw).local_ip6[3]).read_volatile(),
        ];
        let is_ipv4 = (&raw const (*raw).family).read_volatile() == IPV4;
        let port = (&raw const (*raw).local_port).read_volatile() as u16;
        Peer { address: if is_ipv4 { mapped(ipv4) } else { ipv6 }, port_be: port.to_be() }
    }
}

/// What the connection has carried, which closes coming from the state `former`.
#[inline(always)]
fn carried(raw: *mut bpf_sock_ops, former: u32) -> Carried {
    // SAFETY: as in `tcp`.
    unsafe {
        Carried::by(
            former,
            (&raw const (*raw).bytes_acked).read_volatile(),
            (&raw const (*raw).bytes_received).read_volatile(),
            (&raw const (*raw).total_retrans).read_volatile(),
        )
    }
}

/// The last descriptor of a socket is closed: counts what no later callback will tell of. The kernel
/// does not let programs of this hook read the socket's own address.
#[inline(always)]
pub fn released(context: &SockContext) {
    let raw = context.sock;
    // SAFETY: the kernel passes a valid socket as the context; volatile for the width of each access.
    let (protocol, state) = unsafe {
        ((&raw const (*raw).protocol).read_volatile(), (&raw const (*raw).state).read_volatile())
    };
    // SAFETY: as above.
    let stored = unsafe {
        let owner = Owner::of(bpf_get_socket_cookie(raw.cast()), raw.cast(), protocol);
        seats::find(owner, raw.cast())
    };
    if stored.is_null() {
        return;
    }
    let event = lifecycle::release_event(protocol == u32::from(PROTOCOL_TCP), state);
    for _ in 0..TRIES {
        // SAFETY: not null, so it is this socket's; the helper may be called by any program.
        unsafe {
            let mut moment = Moment::at(bpf_ktime_get_ns());
            moment.last_state = state as u8;
            if advance(stored, event, &moment) {
                return;
            }
        }
    }
}

/// A datagram socket with this cookie is connected to this endpoint of a service, and `stored` has just become the
/// socket's: what [`connected`] comes to when nobody else can take a step.
///
/// # Safety
///
/// As for [`leave`]; and the phase of `stored` is idle.
#[inline(always)]
pub unsafe fn opened(stored: *mut SocketState, cookie: u64, service: u32, endpoint: u32) {
    // SAFETY: by the contract above; the helper may be called by any program.
    unsafe {
        let now_ns = bpf_ktime_get_coarse_ns();
        opened_from(phase::IDLE, now_ns, stored, cookie, service, endpoint);
    }
}

/// The same, at this time of the coarse clock, of a socket for which places may have been taken: it has `reached` this
/// phase, idle or reserved.
///
/// # Safety
///
/// As for [`opened`].
#[inline(always)]
pub unsafe fn opened_from(
    reached: u64,
    now_ns: u64,
    stored: *mut SocketState,
    cookie: u64,
    service: u32,
    endpoint: u32,
) {
    // SAFETY: by the contract above.
    unsafe {
        let step = lifecycle::step(reached, Event::Connected);
        (&raw mut (*stored).since_ns).write_volatile(now_ns);
        (&raw mut (*stored).seat).write_volatile(SeatWord::new(cookie, step.next).0);
        count_service(service, &step, 0, Carried::default());
        count_endpoint(endpoint, &step, now_ns, Carried::default());
    }
}

/// The socket is about to be sent elsewhere, or nowhere: ends what is counted for it.
///
/// # Safety
///
/// `stored` is what is remembered of a socket that this run of the program was given.
#[inline(always)]
pub unsafe fn leave(stored: *mut SocketState) {
    // SAFETY: by the contract above.
    unsafe {
        if seats::seat(stored).phase() != phase::IDLE {
            advance(stored, Event::Closed, &Moment::at(bpf_ktime_get_coarse_ns()));
        }
    }
}

/// Nothing is to be remembered of the socket any more: ends what is counted for it.
///
/// # Safety
///
/// As for [`leave`].
#[inline(always)]
pub unsafe fn forget(stored: *mut SocketState) {
    // SAFETY: by the contract above.
    unsafe {
        advance(stored, Event::Released, &Moment::at(bpf_ktime_get_coarse_ns()));
    }
}

/// A datagram socket is connected to what `stored` says.
///
/// # Safety
///
/// As for [`leave`].
#[inline(always)]
pub unsafe fn connected(stored: *mut SocketState) {
    // SAFETY: by the contract above. The coarse clock, which is a tick of the kernel behind, is
    // several times as fast, and this is on the way of `connect(2)`.
    unsafe { advance(stored, Event::Connected, &Moment::at(bpf_ktime_get_coarse_ns())) };
}

/// Takes the step that `event` is for the connection of `stored`. Returns whether it was taken, or
/// there was none to take: if not, another run has taken one at this very moment.
#[inline(always)]
unsafe fn advance(stored: *mut SocketState, event: Event, moment: &Moment) -> bool {
    let (now, carried) = (moment.at_ns, moment.carried);
    // SAFETY: the caller's `stored` is a valid state. Its seat is only ever accessed as a whole.
    // The rest is read before the seat may be given up, after which it is somebody else's.
    unsafe {
        let former = seats::seat(stored);
        let step = lifecycle::step(former.phase(), event);
        let is_last = lifecycle::is_last(former.phase(), event, &step);
        if step.outcome == Outcome::Unchanged && !is_last {
            return true;
        }
        let service = (&raw const (*stored).service).read_volatile();
        let endpoint = (&raw const (*stored).endpoint).read_volatile();
        let elapsed = now.saturating_sub((&raw const (*stored).since_ns).read_volatile());
        let next = if is_last { SeatWord::FREE } else { former.in_phase(step.next) };
        let draft = match event::of_step(step.outcome) {
            Some(kind) => telling::draft(stored, kind, former, moment, elapsed),
            None => Draft::NONE,
        };
        if !maps::exchange(&raw mut (*stored).seat, former.0, next.0) {
            draft.drop();
            return false;
        }
        draft.tell();
        if step.outcome == Outcome::Unchanged {
            return true;
        }
        if step.outcome != Outcome::Left && !is_last {
            (&raw mut (*stored).since_ns).write_volatile(now);
        }
        if step.outcome == Outcome::Established && (&raw const (*stored).told).read_volatile() != 0
        {
            (&raw mut (*stored).handshake_ns).write_volatile(elapsed);
        }
        count_service(service, &step, elapsed, carried);
        count_endpoint(endpoint, &step, now, carried);
        true
    }
}

#[inline(always)]
unsafe fn count_service(service: u32, step: &Step, elapsed: u64, carried: Carried) {
    let Some(traffic) = maps::traffic(service) else { return };
    // SAFETY: `traffic` was looked up in this run, each pointer is to a field of it, and buckets are
    // indices of their arrays.
    unsafe {
        maps::add(&raw mut (*traffic).live, step.live);
        match step.outcome {
            Outcome::Unchanged | Outcome::Begun | Outcome::Dropped | Outcome::Left => {}
            Outcome::Connected => maps::add(&raw mut (*traffic).established, 1),
            Outcome::Established => {
                maps::add(&raw mut (*traffic).established, 1);
                maps::add(&raw mut (*traffic).handshake_ns, elapsed);
                let buckets: *mut u64 = (&raw mut (*traffic).handshakes).cast();
                maps::add(buckets.add(handshake_bucket(elapsed) as usize), 1);
            }
            Outcome::Failed => {
                maps::add(&raw mut (*traffic).failed, 1);
                maps::add(&raw mut (*traffic).retransmits, carried.retransmits);
            }
            Outcome::Closed => count_closed(traffic, elapsed, carried),
        }
    }
}

#[inline(always)]
unsafe fn count_closed(traffic: *mut Traffic, elapsed: u64, carried: Carried) {
    // SAFETY: as in `count_service`.
    unsafe {
        maps::add(&raw mut (*traffic).closed, 1);
        add_some(&raw mut (*traffic).sent, carried.sent);
        add_some(&raw mut (*traffic).received, carried.received);
        add_some(&raw mut (*traffic).retransmits, carried.retransmits);
        maps::add(&raw mut (*traffic).lifetime_ns, elapsed);
        let buckets: *mut u64 = (&raw mut (*traffic).lifetimes).cast();
        maps::add(buckets.add(lifetime_bucket(elapsed) as usize), 1);
    }
}

/// Adds unless there is nothing to add: of a datagram socket there never is, and an atomic addition
/// costs as much as all that is read here.
#[inline(always)]
unsafe fn add_some(counter: *mut u64, amount: u64) {
    if amount > 0 {
        // SAFETY: the caller's pointer is to a field of what was looked up in this run.
        unsafe { maps::add(counter, amount) };
    }
}

#[inline(always)]
unsafe fn count_endpoint(number: u32, step: &Step, now: u64, carried: Carried) {
    let Some(endpoint) = maps::endpoint(number) else { return };
    let endpoint: *mut EndpointState = endpoint;
    // SAFETY: `endpoint` was looked up in this run, and each pointer is to a field of it.
    unsafe {
        maps::add(&raw mut (*endpoint).live, step.live);
        match step.outcome {
            Outcome::Unchanged | Outcome::Begun | Outcome::Dropped | Outcome::Left => {}
            Outcome::Connected => maps::add(&raw mut (*endpoint).established, 1),
            Outcome::Established => {
                maps::add(&raw mut (*endpoint).established, 1);
                ptr::write_volatile(&raw mut (*endpoint).failing, 0);
            }
            Outcome::Failed => {
                maps::add(&raw mut (*endpoint).failed, 1);
                maps::add(&raw mut (*endpoint).failing, 1);
                ptr::write_volatile(&raw mut (*endpoint).last_failure_ns, now);
            }
            Outcome::Closed => {
                add_some(&raw mut (*endpoint).sent, carried.sent);
                add_some(&raw mut (*endpoint).received, carried.received);
            }
        }
    }
}
