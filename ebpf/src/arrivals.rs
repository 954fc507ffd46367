//! The program for packets that arrive: access policies judge what begins a connection, and, if they are to
//! be in force at once, what goes on with one.

use core::arch::asm;
use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ptr;

use aya_ebpf::bindings::{__sk_buff, BPF_SK_STORAGE_GET_F_CREATE, bpf_sock};
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::helpers::bpf_get_socket_cookie;
use aya_ebpf::helpers::generated::{
    bpf_sk_fullsock, bpf_sk_lookup_tcp, bpf_sk_release, bpf_sk_storage_get,
    bpf_skb_ancestor_cgroup_id, bpf_skb_load_bytes,
};
use aya_ebpf::macros::{btf_map, cgroup_skb};
use aya_ebpf::programs::SkBuffContext;
use holdfast_ebpf::arrival::{self, Arrival, Packet, Parsed};
use holdfast_ebpf::flow::{Flows as _, NEVER};
use holdfast_ebpf::policy::{self, Court, Request, Ruling, sentence};
use holdfast_ebpf::socket::Peer;
use holdfast_protocol::kernel::event::kind;
use holdfast_protocol::kernel::rules::{ImageHeader, Judged};
use holdfast_protocol::kernel::{HeadWord, PROTOCOL_TCP, PROTOCOL_UDP, is_mapped};

use crate::court::{self, Code, Workload};
use crate::flows::SocketFlows;
use crate::telling;

/// The packet goes on to its socket; 0 drops it.
const PASS: i32 = 1;

/// `ETH_P_IP` (`include/uapi/linux/if_ether.h`), as a packet says it.
const IPV4: u32 = 0x0800_u16.to_be() as u32;
/// States of sockets (`include/net/tcp_states.h`).
const ESTABLISHED: u32 = 1;
const SYN_SENT: u32 = 2;
const LISTEN: u32 = 10;

/// How the connection of a socket was judged.
#[btf_map]
static ARRIVALS: SkStorage<Judged> = SkStorage::new();

/// A packet arrives at a socket.
#[cgroup_skb(ingress)]
pub fn hf_ingress(context: SkBuffContext) -> i32 {
    let Some(directions) = court::directions() else { return PASS };
    if ImageHeader::arriving(directions) == 0 {
        return PASS;
    }
    let raw = context.skb.skb;
    // SAFETY: the kernel passes a valid packet, and the helper takes its socket, if there is one.
    let socket = unsafe {
        let socket = (&raw const (*raw).__bindgen_anon_2.sk).read_volatile();
        if socket.is_null() { socket } else { bpf_sk_fullsock(socket) }
    };
    if socket.is_null() {
        return PASS;
    }
    // SAFETY: a valid socket, whose fields are read as wide as they are.
    let (state, protocol) = unsafe {
        (
            (&raw const (*socket).state).read_volatile(),
            (&raw const (*socket).protocol).read_volatile(),
        )
    };
    let is_tcp = protocol == u32::from(PROTOCOL_TCP);
    if !is_tcp && protocol != u32::from(PROTOCOL_UDP) {
        return PASS;
    }
    let goes_on = if is_tcp { state != LISTEN } else { state == ESTABLISHED };
    if goes_on && (!is_tcp || state == SYN_SENT || !ImageHeader::cuts(directions)) {
        // What a connected datagram socket hears is from its peer; what is being opened is ours.
        return PASS;
    }
    if goes_on {
        return existing(raw, socket);
    }
    // SAFETY: `raw` is the context of this run.
    answer(unsafe { hf_arrive(raw) })
}

/// What a function has answered, as the kernel takes it. It has to see that this is 0 or 1; the compiler,
/// which knows what the function answers with, would leave that out.
#[inline(always)]
fn answer(passes: u64) -> i32 {
    let mut passes = passes;
    // SAFETY: the instruction changes one register.
    unsafe { asm!("{0} &= 1", inout(reg) passes, options(pure, nomem, nostack)) };
    passes as i32
}

/// A packet at a socket that listens, or hears from anybody: 0 if it is to be dropped.
///
/// # Safety
///
/// `raw` is the context of this run of the program.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn hf_arrive(raw: *mut __sk_buff) -> u64 {
    let packet = Skb(raw);
    let arrival = match packet.parse() {
        Parsed::Judged(arrival) => arrival,
        Parsed::Other => return 1,
        Parsed::Unknown => return 0,
    };
    if arrival.is_tcp {
        if !arrival.is_first {
            // The first one was judged.
            return 1;
        }
    } else {
        // SAFETY: the helper takes the program's context.
        let flows = SocketFlows(unsafe { bpf_get_socket_cookie(raw.cast()) });
        if flows.asked_as(&arrival.remote).port_be != NEVER {
            // It answers what was sent there.
            return 1;
        }
    }
    u64::from(judge(raw, &arrival, true))
}

/// A packet of an established connection, which is judged once for each change of the policies, if it has
/// arrived here: if somebody listens where it goes.
#[inline(always)]
fn existing(raw: *mut __sk_buff, socket: *mut bpf_sock) -> i32 {
    let generation = court::head().generation();
    let map: *mut c_void = (&raw const ARRIVALS).cast_mut().cast();
    let create = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
    // SAFETY: the map is one of socket storage, and the socket is that of this run.
    let judged: *mut Judged =
        unsafe { bpf_sk_storage_get(map, socket.cast(), ptr::null_mut(), create) }.cast();
    if judged.is_null() {
        // Rather once more than not at all.
        // SAFETY: as in `hf_ingress`.
        return answer(unsafe { hf_judge_again(raw) });
    }
    // SAFETY: not null, so it is this socket's; each access is to a whole field.
    unsafe {
        if (&raw const (*judged).generation).read_volatile() == generation {
            return answer((&raw const (*judged).passes).read_volatile().into());
        }
        let passes = hf_judge_again(raw);
        if passes == UNKNOWN {
            // Whoever can send a packet like this one must not have the connection let in by it, nor cut.
            return 0;
        }
        (&raw mut (*judged).passes).write_volatile(passes as u32);
        (&raw mut (*judged).generation).write_volatile(generation);
        answer(passes)
    }
}

/// What [`hf_judge_again`] says of a packet that says nothing about its connection: it is dropped, as far as
/// the last bit goes.
const UNKNOWN: u64 = 2;

/// Judges an established connection: 0 if its packets are to be dropped, or [`UNKNOWN`].
///
/// # Safety
///
/// `raw` is the context of this run of the program.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn hf_judge_again(raw: *mut __sk_buff) -> u64 {
    match Skb(raw).parse() {
        Parsed::Judged(arrival) if has_arrived(raw, &arrival.local) => {
            u64::from(judge(raw, &arrival, false))
        }
        Parsed::Judged(_) | Parsed::Other => 1,
        Parsed::Unknown => UNKNOWN,
    }
}

/// Whether somebody listens at `local`.
#[inline(always)]
fn has_arrived(raw: *mut __sk_buff, local: &Peer) -> bool {
    const CURRENT_NETNS: u64 = u64::MAX;
    // A `bpf_sock_tuple`, of both families: the remote address, ours, and both ports. Nobody connects from
    // port 0, so what is found listens.
    let mut tuple = MaybeUninit::<[u32; 9]>::uninit();
    let words: *mut u32 = tuple.as_mut_ptr().cast();
    let ports = u32::from(local.port_be) << 16;
    // SAFETY: within the tuple, of which as much is written as its size says. What was found is given back.
    unsafe {
        let size = if is_mapped(&local.address) {
            words.write_volatile(0);
            words.add(1).write_volatile(local.address[3]);
            words.add(2).write_volatile(ports);
            12
        } else {
            for word in 0..4 {
                words.add(word).write_volatile(0);
                words.add(4 + word).write_volatile(local.address[word]);
            }
            words.add(8).write_volatile(ports);
            36
        };
        let found = bpf_sk_lookup_tcp(raw.cast(), words.cast(), size, CURRENT_NETNS, 0);
        if found.is_null() {
            return false;
        }
        bpf_sk_release(found.cast());
    }
    true
}

/// Whether the policies let it pass.
#[inline(always)]
fn judge(raw: *mut __sk_buff, arrival: &Arrival, is_new: bool) -> bool {
    let ruling = policy::settle(&Chamber { raw, arrival });
    court::count(ruling);
    match ruling.sentence() {
        sentence::ALLOWED => true,
        sentence::WOULD_DENY => {
            if is_new {
                telling::tell_arrival(raw, arrival, kind::WOULD_DENY, ruling.policy());
            }
            true
        }
        sentence::DENIED => {
            telling::tell_arrival(raw, arrival, kind::DENIED, ruling.policy());
            false
        }
        _ => {
            telling::tell_arrival(raw, arrival, kind::UNSETTLED, ruling.policy());
            false
        }
    }
}

/// A packet from its network header on.
struct Skb(*mut __sk_buff);

impl Skb {
    #[inline(always)]
    fn parse(&self) -> Parsed {
        // SAFETY: the kernel passes a valid packet.
        let protocol = unsafe { (&raw const (*self.0).protocol).read_volatile() };
        if protocol == IPV4 { arrival::ipv4(self) } else { arrival::ipv6(self) }
    }

    #[inline(always)]
    fn load<T: Copy + Default>(&self, offset: u32) -> Option<T> {
        let mut value = T::default();
        // SAFETY: the helper writes as many bytes as the value has, or answers with an error.
        let answer = unsafe {
            bpf_skb_load_bytes(
                self.0.cast_const().cast(),
                offset,
                (&raw mut value).cast(),
                size_of::<T>() as u32,
            )
        };
        if answer == 0 { Some(value) } else { None }
    }
}

impl Packet for Skb {
    #[inline(always)]
    fn byte(&self, offset: u32) -> Option<u8> {
        self.load(offset)
    }

    #[inline(always)]
    fn half(&self, offset: u32) -> Option<u16> {
        self.load(offset)
    }

    #[inline(always)]
    fn word(&self, offset: u32) -> Option<u32> {
        self.load(offset)
    }
}

/// Where this packet is judged.
struct Chamber<'a> {
    raw: *mut __sk_buff,
    arrival: &'a Arrival,
}

impl Court for Chamber<'_> {
    #[inline(always)]
    fn head(&self) -> HeadWord {
        court::head()
    }

    #[inline(always)]
    fn judge(&self, image: u32) -> Ruling {
        // SAFETY: both are valid until the program ends.
        Ruling(unsafe { hf_judge_arrival(self.raw, self.arrival, image) })
    }

    // What arrives is judged anew: of a workload that others reach, its cgroup is not known in advance.
    #[inline(always)]
    fn recall(&self, _head: HeadWord) -> Option<Ruling> {
        None
    }

    #[inline(always)]
    fn keep(&self, _head: HeadWord, _ruling: Ruling) {}
}

/// What the policies of `image` say about what arrives: a [`Ruling`].
///
/// # Safety
///
/// `raw` is the context of this run of the program.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn hf_judge_arrival(
    raw: *mut __sk_buff,
    arrival: *const Arrival,
    image: u32,
) -> u64 {
    // SAFETY: programs pass an arrival of their own; the verifier knows the size of what the pointer leads
    // to.
    let Some(arrival) = (unsafe { arrival.as_ref() }) else { return Ruling::UNSETTLED.0 };
    let remote = &arrival.remote.address;
    let port_be = arrival.local.port_be;
    let request = Request {
        asked: remote,
        endpoint: remote,
        local: arrival.local.address,
        // Nobody looks for what was said before.
        cgroup: 0,
        asked_port_be: port_be,
        endpoint_port_be: port_be,
    };
    policy::judge_arrival(&Code(Server(raw)), image, &request).0
}

/// The workload is that of the socket at which it arrives.
struct Server(*mut __sk_buff);

impl Workload for Server {
    #[inline(always)]
    fn cgroup(&self, level: u32) -> u64 {
        // SAFETY: the helper takes any level, and answers 0 for one that the cgroup does not have.
        unsafe { bpf_skb_ancestor_cgroup_id(self.0, level as i32) }
    }
}
