//! Where events are told: the ring buffer, and what is asked for.
//!
//! An event is written where it will be read, field by field: on a program's stack there would be no
//! room for it. Nobody is woken up. A worker looks now and then, which costs a busy node less than
//! a wake-up for each event.

use core::ffi::c_void;

use aya_ebpf::bindings::{__sk_buff, BPF_RB_NO_WAKEUP, bpf_sock_addr};
use aya_ebpf::btf_maps::{Array, RingBuf};
use aya_ebpf::helpers::generated::{
    bpf_ktime_get_ns, bpf_ringbuf_discard, bpf_ringbuf_reserve, bpf_ringbuf_submit,
    bpf_skb_cgroup_id,
};
use aya_ebpf::helpers::{bpf_get_prandom_u32, bpf_get_socket_cookie};
use aya_ebpf::macros::btf_map;
use holdfast_ebpf::arrival::Arrival;
use holdfast_ebpf::client::Clients as _;
use holdfast_ebpf::decide::{Decision, Inquiry, Verdict};
use holdfast_ebpf::event;
use holdfast_ebpf::lifecycle::Carried;
use holdfast_ebpf::socket::Peer;
use holdfast_protocol::kernel::event::{Event, EventControl, Wanted, kind};
use holdfast_protocol::kernel::{PROTOCOL_TCP, PROTOCOL_UDP, SeatWord, SocketState, limit, phase};

use crate::caller::{Caller, own_address};
use crate::maps::{self, MAPPED, Maps, write_address};

const EVENT_BYTES: usize = limit::DEFAULT_EVENT_BYTES as usize;

#[btf_map]
static EVENTS: RingBuf<(), EVENT_BYTES> = RingBuf::new();
#[btf_map]
static EVENT_CONTROL: Array<EventControl, 1, MAPPED> = Array::new();

/// What is asked for beyond what services ask for themselves.
#[inline(always)]
pub fn wanted() -> Wanted {
    let Some(control) = EVENT_CONTROL.get_ptr(0) else {
        // An array has its elements.
        return Wanted(0);
    };
    // SAFETY: an array's values stay mapped. A worker stores the word meanwhile, hence one volatile
    // load of 8 bytes.
    Wanted(unsafe { (&raw const (*control).wanted).read_volatile() })
}

/// What is told of what was decided so: [`event::told_of`].
#[inline(always)]
pub fn told(maps: &Maps, decision: &Decision) -> u32 {
    let wanted = wanted();
    if event::may_be_told(decision, wanted) { event::told(maps, decision, wanted) } else { 0 }
}

/// What is known of an event when it happens.
pub struct Moment {
    /// When that is.
    pub at_ns: u64,
    /// The client's own address, as far as it is known.
    pub source: Peer,
    /// What the connection has carried.
    pub carried: Carried,
    /// The smoothed round-trip time, in microseconds.
    pub smoothed_rtt_us: u32,
    /// The state that it ends in.
    pub last_state: u8,
}

impl Moment {
    /// A moment at which nothing is known but when it is.
    #[inline(always)]
    pub const fn at(at_ns: u64) -> Self {
        let source = Peer { address: [0; 4], port_be: 0 };
        let carried = Carried { sent: 0, received: 0, retransmits: 0 };
        Self { at_ns, source, carried, smoothed_rtt_us: 0, last_state: 0 }
    }
}

/// An event that is being written. It has to be told or dropped on every way.
pub struct Draft(*mut Event);

impl Draft {
    /// Nothing is written.
    pub const NONE: Self = Self(core::ptr::null_mut());

    /// `event`, written to where it will be read; if there is no room, it is lost, and counted.
    #[inline(always)]
    fn of(event: &Event) -> Self {
        let map: *mut c_void = (&raw const EVENTS).cast_mut().cast();
        // SAFETY: the map is a ring buffer, and the size a constant.
        let to: *mut Event =
            unsafe { bpf_ringbuf_reserve(map, size_of::<Event>() as u64, 0) }.cast();
        if to.is_null() {
            count(|control| unsafe { &raw mut (*control).lost });
            return Self::NONE;
        }
        // SAFETY: not null, so there is room for an event, of which each field is written.
        unsafe {
            (&raw mut (*to).at_ns).write_volatile(event.at_ns);
            (&raw mut (*to).socket).write_volatile(event.socket);
            (&raw mut (*to).cgroup).write_volatile(event.cgroup);
            (&raw mut (*to).handshake_ns).write_volatile(event.handshake_ns);
            (&raw mut (*to).lifetime_ns).write_volatile(event.lifetime_ns);
            (&raw mut (*to).sent).write_volatile(event.sent);
            (&raw mut (*to).received).write_volatile(event.received);
            write_address(&raw mut (*to).source, &event.source);
            write_address(&raw mut (*to).original, &event.original);
            write_address(&raw mut (*to).endpoint, &event.endpoint);
            (&raw mut (*to).source_port_be).write_volatile(event.source_port_be);
            (&raw mut (*to).original_port_be).write_volatile(event.original_port_be);
            (&raw mut (*to).endpoint_port_be).write_volatile(event.endpoint_port_be);
            (&raw mut (*to).protocol).write_volatile(event.protocol);
            (&raw mut (*to).kind).write_volatile(event.kind);
            (&raw mut (*to).service).write_volatile(event.service);
            (&raw mut (*to).policy).write_volatile(event.policy);
            (&raw mut (*to).retransmits).write_volatile(event.retransmits);
            (&raw mut (*to).smoothed_rtt_us).write_volatile(event.smoothed_rtt_us);
            (&raw mut (*to).errno).write_volatile(event.errno);
            (&raw mut (*to).last_state).write_volatile(event.last_state);
            (&raw mut (*to).is_logged).write_volatile(event.is_logged);
            (&raw mut (*to).reserved).write_volatile(0);
        }
        Self(to)
    }

    /// Has it read.
    #[inline(always)]
    pub fn tell(self) {
        if !self.0.is_null() {
            // SAFETY: not null, so it was reserved in this run and is given up here.
            unsafe { bpf_ringbuf_submit(self.0.cast(), u64::from(BPF_RB_NO_WAKEUP)) };
            count(|control| unsafe { &raw mut (*control).told });
        }
    }

    /// Has nobody read it.
    #[inline(always)]
    pub fn drop(self) {
        if !self.0.is_null() {
            // SAFETY: as in `tell`.
            unsafe { bpf_ringbuf_discard(self.0.cast(), u64::from(BPF_RB_NO_WAKEUP)) };
        }
    }
}

#[inline(always)]
fn count(counter: impl Fn(*mut EventControl) -> *mut u64) {
    if let Some(control) = EVENT_CONTROL.get_ptr_mut(0) {
        // SAFETY: looked up in this run; the pointer is to a field of it.
        unsafe { maps::add(counter(control), 1) };
    }
}

/// The event of this kind of the connection that `stored` remembers, if it is told: `elapsed` is how long the
/// connection was in the phase that ends here.
///
/// # Safety
///
/// `stored` points into a map value that the program looked up in this run.
#[inline(always)]
pub unsafe fn draft(
    stored: *const SocketState,
    kind: u8,
    seat: SeatWord,
    moment: &Moment,
    elapsed: u64,
) -> Draft {
    // SAFETY: by the contract above.
    let told = unsafe { (&raw const (*stored).told).read_volatile() };
    let (is_told, is_logged) = event::has(event::told_again(told), kind);
    if !is_told {
        return Draft::NONE;
    }
    let handshake_ns = match kind {
        // SAFETY: by the contract above.
        kind::CLOSED => unsafe { (&raw const (*stored).handshake_ns).read_volatile() },
        kind::SENT => 0,
        _ => elapsed,
    };
    let is_given_up = kind == kind::FAILED && seat.phase() & phase::ABANDONED != 0;
    // SAFETY: by the contract above; each read is of a whole field.
    Draft::of(&unsafe {
        Event {
            at_ns: moment.at_ns,
            socket: seat.cookie(),
            cgroup: (&raw const (*stored).cgroup).read_volatile(),
            handshake_ns,
            lifetime_ns: if kind == kind::CLOSED { elapsed } else { 0 },
            sent: moment.carried.sent,
            received: moment.carried.received,
            source: moment.source.address,
            original: (&raw const (*stored).original_address).read_volatile(),
            endpoint: (&raw const (*stored).endpoint_address).read_volatile(),
            source_port_be: moment.source.port_be,
            original_port_be: (&raw const (*stored).original_port_be).read_volatile(),
            endpoint_port_be: (&raw const (*stored).endpoint_port_be).read_volatile(),
            protocol: (&raw const (*stored).protocol).read_volatile() as u8,
            kind,
            service: (&raw const (*stored).service).read_volatile(),
            policy: Event::NO_POLICY,
            retransmits: moment.carried.retransmits as u32,
            smoothed_rtt_us: moment.smoothed_rtt_us,
            errno: 0,
            last_state: if is_given_up { Event::GIVEN_UP } else { moment.last_state },
            is_logged: u8::from(is_logged),
            reserved: 0,
        }
    })
}

/// Tells what came of `inquiry`: an event of this kind, by this access policy.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hf_tell(
    context: *mut bpf_sock_addr,
    inquiry: *const Inquiry,
    kind: u32,
    policy: u32,
) -> u64 {
    // SAFETY: programs pass what the kernel has passed them, and an inquiry of their own.
    let (caller, inquiry) = unsafe { (Caller::new(context), inquiry.as_ref()) };
    let Some(Inquiry { key, decision, .. }) = inquiry else { return 0 };
    if kind >= u32::from(kind::COUNT) {
        return 0;
    }
    let (is_told, is_logged) = event::has(told(&Maps(caller), decision), kind as u8);
    if !is_told {
        return 0;
    }
    let fails = event::of_failure(decision.verdict).is_some();
    // An access policy denies a connection to where it would have gone.
    let has_endpoint = !matches!(decision.verdict, Verdict::Refused | Verdict::Unsettled);
    let (nowhere, endpoint) = (Peer { address: [0; 4], port_be: 0 }, decision.endpoint);
    let endpoint = if has_endpoint { endpoint } else { nowhere };
    // SAFETY: the socket is that of this run; the helper may be called by any program.
    let (own, at_ns) = unsafe { (own_address(caller.socket()), bpf_ktime_get_ns()) };
    let event = Event {
        at_ns,
        socket: caller.cookie(),
        cgroup: caller.cgroup(),
        source: own.address,
        original: key.address,
        endpoint: endpoint.address,
        source_port_be: own.port_be,
        original_port_be: key.port_be,
        endpoint_port_be: endpoint.port_be,
        protocol: key.protocol,
        kind: kind as u8,
        service: decision.service,
        policy,
        errno: if fails { decision.errno } else { 0 },
        is_logged: u8::from(is_logged),
        ..Event::NONE
    };
    Draft::of(&event).tell();
    0
}

/// Tells what [`hf_tell`] tells, if anybody may ask for it.
#[inline(always)]
pub fn tell(caller: Caller, inquiry: &Inquiry, kind: u8, policy: u32) {
    if event::may_be_told(&inquiry.decision, wanted()) {
        hf_tell(caller.context(), inquiry, u32::from(kind), policy);
    }
}

/// Tells what access policies say about what arrives, if anybody asks for it: an event of this kind. What is
/// asked for is the client's here, and the endpoint is the workload itself.
#[inline(always)]
pub fn tell_arrival(raw: *mut __sk_buff, arrival: &Arrival, kind: u8, policy: u32) {
    let wanted = wanted();
    if wanted.0 == 0 {
        return;
    }
    // SAFETY: the helper may be called by any program.
    let draw = || unsafe { bpf_get_prandom_u32() };
    let (is_told, is_logged) = event::has(event::told_apart(wanted, draw), kind);
    if !is_told {
        return;
    }
    // SAFETY: the helpers take the program's context.
    let (at_ns, socket, cgroup) =
        unsafe { (bpf_ktime_get_ns(), bpf_get_socket_cookie(raw.cast()), bpf_skb_cgroup_id(raw)) };
    let event = Event {
        at_ns,
        socket,
        cgroup,
        source: arrival.remote.address,
        original: arrival.local.address,
        endpoint: arrival.local.address,
        source_port_be: arrival.remote.port_be,
        original_port_be: arrival.local.port_be,
        endpoint_port_be: arrival.local.port_be,
        protocol: if arrival.is_tcp { PROTOCOL_TCP } else { PROTOCOL_UDP },
        kind,
        service: Event::NO_SERVICE,
        policy,
        is_logged: u8::from(is_logged),
        ..Event::NONE
    };
    Draft::of(&event).tell();
}
