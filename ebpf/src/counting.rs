//! What is counted of a connection after `connect(2)`: the kernel tells of it, [`lifecycle`] says what
//! it means, and this stores it.

use core::ptr;

use aya_ebpf::bindings::{BPF_SOCK_OPS_STATE_CB_FLAG, bpf_sock_ops};
use aya_ebpf::helpers::generated::{
    bpf_ktime_get_coarse_ns, bpf_ktime_get_ns, bpf_sock_ops_cb_flags_set,
};
use aya_ebpf::programs::{SockContext, SockOpsContext};
use holdfast_ebpf::lifecycle::{self, Carried, Event, Outcome, Step};
use holdfast_protocol::kernel::endpoint::EndpointState;
use holdfast_protocol::kernel::traffic::{Traffic, handshake_bucket, lifetime_bucket};
use holdfast_protocol::kernel::{PROTOCOL_TCP, SocketState, phase};

use crate::maps;

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
    // SAFETY: not null, so it is the socket of this run.
    let stored = unsafe { maps::stored(socket.cast()) };
    if stored.is_null() {
        return;
    }
    if event == Event::Attempt {
        listen(raw);
    }
    let carried = if event == Event::Closed { carried(raw, former) } else { Carried::default() };
    // SAFETY: not null, so it is this socket's storage; the helper may be called by any program.
    unsafe { advance(stored, event, bpf_ktime_get_ns(), carried) };
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

/// The last descriptor of a socket is closed: counts what no later callback will tell of.
#[inline(always)]
pub fn released(context: &SockContext) {
    let raw = context.sock;
    // SAFETY: the kernel passes a valid socket as the context.
    let stored = unsafe { maps::stored(raw.cast()) };
    if stored.is_null() {
        return;
    }
    // SAFETY: as above; volatile for the width of each access.
    let (protocol, state) = unsafe {
        ((&raw const (*raw).protocol).read_volatile(), (&raw const (*raw).state).read_volatile())
    };
    let event = lifecycle::release_event(protocol == u32::from(PROTOCOL_TCP), state);
    if event != Event::None {
        // SAFETY: not null, so it is this socket's storage; the helper may be called by any program.
        unsafe { advance(stored, event, bpf_ktime_get_ns(), Carried::default()) };
    }
}

/// The socket is about to be sent elsewhere, or nowhere: ends what is counted for it.
///
/// # Safety
///
/// `stored` is the storage of a socket that this run of the program was given.
#[inline(always)]
pub unsafe fn leave(stored: *mut SocketState) {
    // SAFETY: by the contract above.
    unsafe {
        if (&raw const (*stored).phase).read_volatile() != phase::IDLE {
            advance(stored, Event::Closed, bpf_ktime_get_coarse_ns(), Carried::default());
        }
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
    unsafe { advance(stored, Event::Connected, bpf_ktime_get_coarse_ns(), Carried::default()) };
}

/// Takes the step that `event` is for the connection of `stored`, unless another run takes one at
/// this very moment: then that one ends it, and there is nothing left to do.
#[inline(always)]
unsafe fn advance(stored: *mut SocketState, event: Event, now: u64, carried: Carried) {
    // SAFETY: the caller's `stored` is a valid storage. Its phase is only ever accessed as a whole.
    unsafe {
        let phase = &raw mut (*stored).phase;
        let former = phase.read_volatile();
        let step = lifecycle::step(former, event);
        if step.outcome == Outcome::Unchanged || !maps::exchange(phase, former, step.next) {
            return;
        }
        let elapsed = now.saturating_sub((*stored).since_ns);
        (*stored).since_ns = now;
        count_service((*stored).service, &step, elapsed, carried);
        count_endpoint((*stored).endpoint, &step, now, carried);
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
            Outcome::Unchanged | Outcome::Begun => {}
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
        maps::add(&raw mut (*traffic).sent, carried.sent);
        maps::add(&raw mut (*traffic).received, carried.received);
        maps::add(&raw mut (*traffic).retransmits, carried.retransmits);
        maps::add(&raw mut (*traffic).lifetime_ns, elapsed);
        let buckets: *mut u64 = (&raw mut (*traffic).lifetimes).cast();
        maps::add(buckets.add(lifetime_bucket(elapsed) as usize), 1);
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
            Outcome::Unchanged | Outcome::Begun => {}
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
                maps::add(&raw mut (*endpoint).sent, carried.sent);
                maps::add(&raw mut (*endpoint).received, carried.received);
            }
        }
    }
}
