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
use holdfast_protocol::kernel::Address;
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

    /// Room for an event; if there is none, the event is lost, and counted.
    #[inline(always)]
    fn begin() -> Self {
        let map: *mut c_void = (&raw const EVENTS).cast_mut().cast();
        // SAFETY: the map is a ring buffer, and the size a constant.
        let event = unsafe { bpf_ringbuf_reserve(map, size_of::<Event>() as u64, 0) };
        if event.is_null() {
            count(|control| unsafe { &raw mut (*control).lost });
        }
        Self(event.cast())
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
    let (is_told, is_logged) = event::has(told, kind);
    if !is_told {
        return Draft::NONE;
    }
    let draft = Draft::begin();
    let event = draft.0;
    if event.is_null() {
        return draft;
    }
    let handshake_ns = match kind {
        // SAFETY: by the contract above.
        kind::CLOSED => unsafe { (&raw const (*stored).handshake_ns).read_volatile() },
        kind::SENT => 0,
        _ => elapsed,
    };
    let is_given_up = kind == kind::FAILED && seat.phase() & phase::ABANDONED != 0;
    let last_state = if is_given_up { Event::GIVEN_UP } else { moment.last_state };
    // SAFETY: by the contract above for what is read. Not null, so there is room for an event, of
    // which each field is written, those of less than 8 bytes by way of whole words.
    unsafe {
        write(&raw mut (*event).at_ns, moment.at_ns);
        write(&raw mut (*event).socket, seat.cookie());
        write(&raw mut (*event).cgroup, (&raw const (*stored).cgroup).read_volatile());
        write(&raw mut (*event).handshake_ns, handshake_ns);
        write(&raw mut (*event).lifetime_ns, if kind == kind::CLOSED { elapsed } else { 0 });
        write(&raw mut (*event).sent, moment.carried.sent);
        write(&raw mut (*event).received, moment.carried.received);
        write_address(&raw mut (*event).source, &moment.source.address);
        write_address(&raw mut (*event).original, &address(&raw const (*stored).original_address));
        write_address(&raw mut (*event).endpoint, &address(&raw const (*stored).endpoint_address));
        (&raw mut (*event).source_port_be).write_volatile(moment.source.port_be);
        (&raw mut (*event).original_port_be)
            .write_volatile((&raw const (*stored).original_port_be).read_volatile());
        (&raw mut (*event).endpoint_port_be)
            .write_volatile((&raw const (*stored).endpoint_port_be).read_volatile());
        (&raw mut (*event).protocol)
            .write_volatile((&raw const (*stored).protocol).read_volatile() as u8);
        (&raw mut (*event).kind).write_volatile(kind);
        (&raw mut (*event).service).write_volatile((&raw const (*stored).service).read_volatile());
        (&raw mut (*event).policy).write_volatile(Event::NO_POLICY);
        (&raw mut (*event).retransmits).write_volatile(moment.carried.retransmits as u32);
        (&raw mut (*event).smoothed_rtt_us).write_volatile(moment.smoothed_rtt_us);
        (&raw mut (*event).errno).write_volatile(0);
        (&raw mut (*event).last_state).write_volatile(last_state);
        (&raw mut (*event).is_logged).write_volatile(u8::from(is_logged));
        (&raw mut (*event).reserved).write_volatile(0);
    }
    draft
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
    let draft = Draft::begin();
    let event = draft.0;
    if event.is_null() {
        return 0;
    }
    let fails = event::of_failure(decision.verdict).is_some();
    // An access policy denies a connection to where it would have gone.
    let has_endpoint = !matches!(decision.verdict, Verdict::Refused | Verdict::Unsettled);
    // SAFETY: as in `draft`; the socket is that of this run.
    unsafe {
        let own = own_address(caller.socket());
        write(&raw mut (*event).at_ns, bpf_ktime_get_ns());
        write(&raw mut (*event).socket, caller.cookie());
        write(&raw mut (*event).cgroup, caller.cgroup());
        write(&raw mut (*event).handshake_ns, 0);
        write(&raw mut (*event).lifetime_ns, 0);
        write(&raw mut (*event).sent, 0);
        write(&raw mut (*event).received, 0);
        write_address(&raw mut (*event).source, &own.address);
        write_address(&raw mut (*event).original, &key.address);
        if has_endpoint {
            write_address(&raw mut (*event).endpoint, &decision.endpoint.address);
            (&raw mut (*event).endpoint_port_be).write_volatile(decision.endpoint.port_be);
        } else {
            let nowhere: *mut u64 = (&raw mut (*event).endpoint).cast();
            write(nowhere, 0);
            write(nowhere.add(1), 0);
            (&raw mut (*event).endpoint_port_be).write_volatile(0);
        }
        (&raw mut (*event).source_port_be).write_volatile(own.port_be);
        (&raw mut (*event).original_port_be).write_volatile(key.port_be);
        (&raw mut (*event).protocol).write_volatile(key.protocol);
        (&raw mut (*event).kind).write_volatile(kind as u8);
        (&raw mut (*event).service).write_volatile(decision.service);
        (&raw mut (*event).policy).write_volatile(policy);
        (&raw mut (*event).retransmits).write_volatile(0);
        (&raw mut (*event).smoothed_rtt_us).write_volatile(0);
        (&raw mut (*event).errno).write_volatile(if fails { decision.errno } else { 0 });
        (&raw mut (*event).last_state).write_volatile(0);
        (&raw mut (*event).is_logged).write_volatile(u8::from(is_logged));
        (&raw mut (*event).reserved).write_volatile(0);
    }
    draft.tell();
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
    let draft = Draft::begin();
    let event = draft.0;
    if event.is_null() {
        return;
    }
    let protocol = if arrival.is_tcp { PROTOCOL_TCP } else { PROTOCOL_UDP };
    // SAFETY: as in `draft`; the helpers take the program's context.
    unsafe {
        write(&raw mut (*event).at_ns, bpf_ktime_get_ns());
        write(&raw mut (*event).socket, bpf_get_socket_cookie(raw.cast()));
        write(&raw mut (*event).cgroup, bpf_skb_cgroup_id(raw));
        write(&raw mut (*event).handshake_ns, 0);
        write(&raw mut (*event).lifetime_ns, 0);
        write(&raw mut (*event).sent, 0);
        write(&raw mut (*event).received, 0);
        write_address(&raw mut (*event).source, &arrival.remote.address);
        write_address(&raw mut (*event).original, &arrival.local.address);
        write_address(&raw mut (*event).endpoint, &arrival.local.address);
        (&raw mut (*event).source_port_be).write_volatile(arrival.remote.port_be);
        (&raw mut (*event).original_port_be).write_volatile(arrival.local.port_be);
        (&raw mut (*event).endpoint_port_be).write_volatile(arrival.local.port_be);
        (&raw mut (*event).protocol).write_volatile(protocol);
        (&raw mut (*event).kind).write_volatile(kind);
        (&raw mut (*event).service).write_volatile(Event::NO_SERVICE);
        (&raw mut (*event).policy).write_volatile(policy);
        (&raw mut (*event).retransmits).write_volatile(0);
        (&raw mut (*event).smoothed_rtt_us).write_volatile(0);
        (&raw mut (*event).errno).write_volatile(0);
        (&raw mut (*event).last_state).write_volatile(0);
        (&raw mut (*event).is_logged).write_volatile(u8::from(is_logged));
        (&raw mut (*event).reserved).write_volatile(0);
    }
    draft.tell();
}

/// # Safety
///
/// `to` is the address of a field of an event that was reserved in this run.
#[inline(always)]
unsafe fn write(to: *mut u64, value: u64) {
    // SAFETY: by the contract above.
    unsafe { to.write_volatile(value) }
}

/// # Safety
///
/// `from` is the address of a field of a map value that was looked up in this run.
#[inline(always)]
unsafe fn address(from: *const Address) -> Address {
    // SAFETY: by the contract above.
    unsafe { from.read_volatile() }
}
