//! The maps, and how the programs read and write them.
//!
//! The sizes here are defaults: a loader sets others, and nothing below depends on them, because
//! every index goes through a lookup that the kernel bounds.

use core::arch::asm;

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::btf_maps::{Array, HashMap, PerCpuArray, SkStorage};
use aya_ebpf::helpers::bpf_get_prandom_u32;
use aya_ebpf::macros::btf_map;
use holdfast_ebpf::decide::Tables;
use holdfast_ebpf::words::{FrontendWords, Slot};
use holdfast_protocol::kernel::rules::{self, Cell, PolicyCounters};
use holdfast_protocol::kernel::{
    Frontend, FrontendKey, HeadWord, ServiceCounters, ServiceRecord, SocketState, limit,
};

const FRONTEND_COUNT: usize = (limit::DEFAULT_SERVICES * limit::FRONTENDS_PER_SERVICE) as usize;
const SERVICE_COUNT: usize = limit::DEFAULT_SERVICES as usize;
const SLOT_COUNT: usize = limit::DEFAULT_SLOTS as usize;
/// So that a worker publishes with a store to memory instead of a system call.
const MAPPED: usize = BPF_F_MMAPABLE as usize;

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
/// What is remembered of a socket; see [`crate::sock_addr`].
#[btf_map]
pub static SOCKETS: SkStorage<SocketState> = SkStorage::new();

#[btf_map]
static POLICY_HEAD: Array<u64, { rules::HEADS as usize }, MAPPED> = Array::new();
#[btf_map]
static POLICIES: Array<Cell, { rules::CELLS as usize }, MAPPED> = Array::new();
#[btf_map]
static POLICY_COUNTERS: PerCpuArray<PolicyCounters, { rules::POLICY_NUMBERS as usize }> =
    PerCpuArray::new();

/// The maps that lead from a frontend to an endpoint.
pub struct Maps;

impl Tables for Maps {
    type Element = *const FrontendWords;
    type Slot = *const Slot;

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

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: the helper takes nothing and may be called by any program.
        unsafe { bpf_get_prandom_u32() }
    }
}

/// What is counted of a service on this CPU. `None` if there is no such service.
#[inline(always)]
pub fn counters(service: u32) -> Option<*mut ServiceCounters> {
    COUNTERS.get_ptr_mut(service)
}

/// Which access policies are in force.
#[inline(always)]
pub fn policy_head() -> HeadWord {
    let Some(head) = POLICY_HEAD.get_ptr(0) else {
        // An array has its elements.
        return HeadWord::UNPUBLISHED;
    };
    // SAFETY: an array's values stay mapped. A writer stores the word meanwhile, hence one volatile
    // load of 8 bytes.
    HeadWord(unsafe { head.read_volatile() })
}

/// A cell of the access policies; `None` if there is no such cell.
#[inline(always)]
pub fn policy_cell(index: u32) -> Option<Cell> {
    let cell = POLICIES.get_ptr(index)?;
    // SAFETY: as above, with one load for each of the cell's two words.
    unsafe {
        Some([(&raw const (*cell)[0]).read_volatile(), (&raw const (*cell)[1]).read_volatile()])
    }
}

/// What is counted of an access policy on this CPU. `None` if there is no such policy.
#[inline(always)]
pub fn policy_counters(policy: u32) -> Option<*mut PolicyCounters> {
    POLICY_COUNTERS.get_ptr_mut(policy)
}

/// Adds to a counter of this CPU. Atomic, because a program that runs for a system call can be
/// preempted by another run of itself on the same CPU: a plain addition could take a counter back.
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
