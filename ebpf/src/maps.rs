//! The maps, and how the programs read and write them.
//!
//! The sizes here are defaults: a loader sets others, and nothing below depends on them, because
//! every index goes through a lookup that the kernel bounds.

use core::arch::asm;

use aya_ebpf::bindings::{BPF_ANY, BPF_F_MMAPABLE};
use aya_ebpf::btf_maps::{Array, HashMap, LruHashMap, PerCpuArray};
use aya_ebpf::helpers::bpf_get_prandom_u32;
use aya_ebpf::macros::btf_map;
use holdfast_ebpf::affinity::Affinities;
use holdfast_ebpf::cache::Known;
use holdfast_ebpf::client::Clients;
use holdfast_ebpf::decide::{Addresses, Slots, Tables};
use holdfast_ebpf::recent::{self, Stand};
use holdfast_ebpf::socket::Peer;
use holdfast_ebpf::words::{self, AffinityWords, FrontendWords, Slot};
use holdfast_protocol::kernel::endpoint::EndpointState;
use holdfast_protocol::kernel::event::Event;
use holdfast_protocol::kernel::traffic::Traffic;
use holdfast_protocol::kernel::{
    Address, Affinity, AffinityKey, EndpointSlot, Frontend, FrontendKey, HeadWord, ServiceCounters,
    ServiceRecord, SocketState, limit,
};

use crate::caller::{Caller, Clock};
use crate::elements::Of;
use crate::recents::Recents;
use crate::{address_cache, search};

const FRONTEND_COUNT: usize = (limit::DEFAULT_SERVICES * limit::FRONTENDS_PER_SERVICE) as usize;
const SERVICE_COUNT: usize = limit::DEFAULT_SERVICES as usize;
const AFFINITY_COUNT: usize = limit::AFFINITIES as usize;
const SLOT_COUNT: usize = limit::DEFAULT_SLOTS as usize;
const ENDPOINT_COUNT: usize = limit::endpoints(limit::DEFAULT_SLOTS) as usize;
/// So that a worker publishes with a store to memory instead of a system call.
pub const MAPPED: usize = BPF_F_MMAPABLE as usize;

#[btf_map]
static FRONTENDS: HashMap<FrontendKey, Frontend, FRONTEND_COUNT> = HashMap::new();
#[btf_map]
static HEADS: Array<u64, SERVICE_COUNT, MAPPED> = Array::new();
#[btf_map]
static TABLES: Array<Slot, SLOT_COUNT, MAPPED> = Array::new();
/// No program reads it; it is here because the object file is where a loader learns of every map.
#[btf_map]
static SERVICES: Array<ServiceRecord, SERVICE_COUNT, MAPPED> = Array::new();
#[btf_map]
static COUNTERS: PerCpuArray<ServiceCounters, SERVICE_COUNT> = PerCpuArray::new();
#[btf_map]
static CURSORS: Array<u64, SERVICE_COUNT> = Array::new();
#[btf_map]
static AFFINITIES: LruHashMap<AffinityKey, Affinity, AFFINITY_COUNT> = LruHashMap::new();
#[btf_map]
static ENDPOINTS: Array<EndpointState, ENDPOINT_COUNT, MAPPED> = Array::new();
#[btf_map]
static TRAFFIC: Array<Traffic, SERVICE_COUNT, MAPPED> = Array::new();

/// The maps that are the same for every socket.
pub struct Arrays;

impl Slots for Arrays {
    type Slot = *const Slot;

    #[inline(always)]
    fn slot(&self, index: u32) -> Option<Self::Slot> {
        TABLES.get_ptr(index)
    }

    #[inline(always)]
    fn slot_word(&self, slot: Self::Slot, word: usize) -> u64 {
        // SAFETY: `slot` comes from a lookup in an array, whose values stay mapped; callers pass
        // one of its four words. A writer stores meanwhile, hence one volatile load of 8 bytes.
        unsafe { (&raw const (*slot)[word]).read_volatile() }
    }
}

impl Addresses for Arrays {
    type Element = *const FrontendWords;

    #[inline(always)]
    fn element(&self, key: &FrontendKey) -> Option<Self::Element> {
        FRONTENDS.get_ptr(key).map(<*const Frontend>::cast)
    }

    #[inline(always)]
    fn element_word(&self, element: Self::Element, word: usize) -> u64 {
        // SAFETY: `element` comes from a lookup in this run of the program, so it points to a value
        // of 16 aligned bytes that stays mapped until the run ends; callers pass a word of a
        // `Frontend`. Others write it meanwhile, hence one volatile load of 8 bytes.
        unsafe { (&raw const (*element)[word]).read_volatile() }
    }

    #[inline(always)]
    fn head(&self, service: u32) -> Option<HeadWord> {
        let head = HEADS.get_ptr(service)?;
        // SAFETY: the lookup bounds `service`, and an array's values stay mapped. A writer stores
        // the word meanwhile, hence one volatile load of 8 bytes.
        Some(HeadWord(unsafe { head.read_volatile() }))
    }
}

/// The maps that lead from a frontend to an endpoint, read for this caller.
pub struct Maps<C = Caller>(pub C);

impl<C: Clients> Clients for Maps<C> {
    #[inline(always)]
    fn cgroup(&self) -> u64 {
        self.0.cgroup()
    }

    #[inline(always)]
    fn network_namespace(&self) -> u64 {
        self.0.network_namespace()
    }

    #[inline(always)]
    fn bound(&self) -> Address {
        self.0.bound()
    }
}

impl<C> Slots for Maps<C> {
    type Slot = *const Slot;

    #[inline(always)]
    fn slot(&self, index: u32) -> Option<Self::Slot> {
        Arrays.slot(index)
    }

    #[inline(always)]
    fn slot_word(&self, slot: Self::Slot, word: usize) -> u64 {
        Arrays.slot_word(slot, word)
    }
}

impl<C: Clock> Affinities for Maps<C> {
    type Affinity = *mut AffinityWords;

    #[inline(always)]
    fn affinity(&self, key: &AffinityKey) -> Option<Self::Affinity> {
        AFFINITIES.get_ptr_mut(key).map(<*mut Affinity>::cast)
    }

    #[inline(always)]
    fn affinity_word(&self, affinity: Self::Affinity, word: usize) -> u64 {
        // SAFETY: `affinity` comes from a lookup in this run of the program, so it points to a value of
        // 32 aligned bytes that stays mapped until the run ends; callers pass one of its four words.
        // Others write it meanwhile, hence one volatile load of 8 bytes.
        unsafe { (&raw const (*affinity)[word]).read_volatile() }
    }

    #[inline(always)]
    fn extend(&self, affinity: Self::Affinity, until: u64) {
        // SAFETY: as above; one volatile store of 8 bytes.
        unsafe { (&raw mut (*affinity)[words::AFFINITY_UNTIL]).write_volatile(until) }
    }

    #[inline(always)]
    fn remember(&self, key: &AffinityKey, affinity: &Affinity) {
        let _refused = AFFINITIES.insert(key, affinity, u64::from(BPF_ANY));
    }

    #[inline(always)]
    fn recent(&self, key: &AffinityKey) -> Option<Stand> {
        recent::find(&Of(Recents), key)
    }

    #[inline(always)]
    fn note(&self, key: &AffinityKey, stand: &Stand) {
        recent::note(&Of(Recents), key, stand);
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        self.0.now_ns()
    }
}

impl<C> Addresses for Maps<C> {
    type Element = *const FrontendWords;

    #[inline(always)]
    fn element(&self, key: &FrontendKey) -> Option<Self::Element> {
        Arrays.element(key)
    }

    #[inline(always)]
    fn element_word(&self, element: Self::Element, word: usize) -> u64 {
        Arrays.element_word(element, word)
    }

    #[inline(always)]
    fn head(&self, service: u32) -> Option<HeadWord> {
        Arrays.head(service)
    }
}

impl<C: Clients + Clock> Tables for Maps<C> {
    #[inline(always)]
    fn known(&self, key: &FrontendKey) -> Option<Known> {
        let known = address_cache::recall(key);
        if known.is_some() {
            return known;
        }
        address_cache::learn(key);
        address_cache::recall(key)
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: the helper takes nothing and may be called by any program.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn turn(&self, service: u32) -> u64 {
        // A service that was found has a cursor: both maps have an element for each number.
        let Some(cursor) = CURSORS.get_ptr_mut(service) else { return 0 };
        // SAFETY: `cursor` was looked up in this run, and points to a value of its own.
        unsafe { fetch_add(cursor, 1) }
    }

    #[inline(always)]
    fn search(&self, first: u32, rows: u32, endpoint: &Peer) -> u32 {
        search::search(first, rows, endpoint)
    }

    #[inline(always)]
    fn live(&self, state: u32) -> u64 {
        match endpoint(state) {
            // SAFETY: the lookup bounds `state`, and an array's values stay mapped. Others add to the
            // word meanwhile, hence one volatile load of 8 bytes.
            Some(endpoint) => unsafe { (&raw const (*endpoint).live).read_volatile() },
            None => 0,
        }
    }
}

/// What is counted of a service on this CPU. `None` if there is no such service.
#[inline(always)]
pub fn counters(service: u32) -> Option<*mut ServiceCounters> {
    COUNTERS.get_ptr_mut(service)
}

/// What is counted of a service's connections. `None` if there is no such service.
#[inline(always)]
pub fn traffic(service: u32) -> Option<*mut Traffic> {
    TRAFFIC.get_ptr_mut(service)
}

/// What is counted of the endpoint with this number. `None` if it has none.
#[inline(always)]
pub fn endpoint(number: u32) -> Option<*mut EndpointState> {
    if number == EndpointSlot::NO_STATE { None } else { ENDPOINTS.get_ptr_mut(number) }
}

/// Adds to a counter. Atomic, also for counters of one CPU, because a program that runs for
/// a system call can be preempted by another run of itself there: a plain addition could take a
/// counter back.
///
/// # Safety
///
/// `counter` points into a map value that the program looked up in this run.
#[inline(always)]
pub unsafe fn add(counter: *mut u64, amount: u64) {
    // SAFETY: `counter` is a valid, aligned counter by the contract above; the instruction touches
    // those 8 bytes and nothing else. In assembly because the target has no atomic addition in
    // `core::sync::atomic`.
    unsafe {
        asm!(
            "lock *(u64 *)({counter} + 0) += {amount}",
            counter = in(reg) counter,
            amount = in(reg) amount,
            options(nostack),
        );
    }
}

/// Adds to a word and returns what it was, in one step.
///
/// # Safety
///
/// As for [`add`].
#[inline(always)]
pub unsafe fn fetch_add(word: *mut u64, amount: u64) -> u64 {
    let mut value = amount;
    // SAFETY: `word` is valid and aligned by the contract above; the instruction touches those 8
    // bytes and the register that it adds from, which it leaves as what it has found.
    unsafe {
        asm!(
            "{value} = atomic_fetch_add((u64 *)({word} + 0), {value})",
            word = in(reg) word,
            value = inout(reg) value,
            options(nostack),
        );
    }
    value
}

/// Makes `word` be `to` if it is `from`, in one step. Returns whether it was.
///
/// # Safety
///
/// As for [`add`].
#[inline(always)]
pub unsafe fn exchange(word: *mut u64, from: u64, to: u64) -> bool {
    let found: u64;
    // SAFETY: `word` is valid and aligned by the contract above; the instruction touches those 8
    // bytes and the register that it compares with, which it leaves as what it has found.
    unsafe {
        asm!(
            "r0 = cmpxchg_64({word} + 0, r0, {to})",
            word = in(reg) word,
            to = in(reg) to,
            inlateout("r0") from => found,
            options(nostack),
        );
    }
    found == from
}

/// Writes an address as two words: as an array it would be written one byte after the other.
///
/// # Safety
///
/// `to` points into a map value that the program looked up in this run, or into a record of a ring buffer
/// that it reserved, and is aligned to 8 bytes.
#[inline(always)]
pub unsafe fn write_address(to: *mut Address, from: &Address) {
    const {
        assert!(core::mem::offset_of!(SocketState, original_address) % 8 == 0);
        assert!(core::mem::offset_of!(SocketState, endpoint_address) % 8 == 0);
        assert!(core::mem::offset_of!(Event, source) % 8 == 0);
        assert!(core::mem::offset_of!(Event, original) % 8 == 0);
        assert!(core::mem::offset_of!(Event, endpoint) % 8 == 0);
    }
    let to: *mut u64 = to.cast();
    // SAFETY: by the contract above; an address is two words.
    unsafe {
        to.write_volatile(words::word(from[0], from[1]));
        to.add(1).write_volatile(words::word(from[2], from[3]));
    }
}
