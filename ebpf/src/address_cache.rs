//! The cache of what lookups found: how lines are read and written.
//!
//! A line is several words, which another processor may be writing. Its version is odd meanwhile, and another one
//! afterwards: what was read between two looks at the same even version belongs together.

use aya_ebpf::btf_maps::Array;
use aya_ebpf::macros::btf_map;
use holdfast_ebpf::cache::{self, Known};
use holdfast_ebpf::words;
use holdfast_protocol::kernel::cache::{CacheLine, Era};
use holdfast_protocol::kernel::{FrontendKey, HeadWord, limit};

use crate::maps::{Arrays, MAPPED, exchange, write_address};

const ELEMENTS: usize = limit::CACHE_ELEMENTS as usize;

#[btf_map]
static ADDRESS_CACHE: Array<CacheLine, ELEMENTS, MAPPED> = Array::new();

/// What is known of `key`, if anything is.
#[inline(always)]
pub fn recall(key: &FrontendKey) -> Option<Known> {
    let (era, line) = (era(), line_of(key)?);
    // SAFETY: looked up in this run; each read is of one aligned word, volatile because others write meanwhile.
    unsafe {
        let version = (&raw const (*line).version).read_volatile();
        let address: *const u64 = (&raw const (*line).address).cast();
        let place = (&raw const (*line).place).read_volatile();
        let head = HeadWord((&raw const (*line).head).read_volatile());
        let is_it = (&raw const (*line).era).read_volatile() == era.0
            && address.read_volatile() == words::word(key.address[0], key.address[1])
            && address.add(1).read_volatile() == words::word(key.address[2], key.address[3])
            && words::low(place) == words::low(CacheLine::place(key, 0))
            && (&raw const (*line).version).read_volatile() == version;
        let is_whole = version & 1 == 0 && era.is_open();
        (is_it && is_whole).then_some(Known { service: words::high(place), head })
    }
}

/// Looks `key` up, so that it is known from now on if that can be said in one look.
#[inline(always)]
pub fn learn(key: &FrontendKey) {
    let [first, second, third, fourth] = key.address;
    hf_learn(
        words::word(first, second),
        words::word(third, fourth),
        key.port_be.into(),
        key.protocol.into(),
    );
}

/// Looks a key up, so that it is known from now on. A function of its own to the verifier, hardly ever called, which is
/// passed the key in registers: a program has no room for it on its stack.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hf_learn(high: u64, low: u64, port_be: u32, protocol: u32) -> u64 {
    let address = words::address(high, low);
    let key =
        &FrontendKey { address, port_be: port_be as u16, protocol: protocol as u8, reserved: 0 };
    // First the era: what is found in another one does not count in it.
    let era = era();
    if era.is_open()
        && let Some(known) = cache::look_up(&Arrays, key)
        && let Some(line) = line_of(key)
    {
        // SAFETY: looked up in this run.
        unsafe { write(line, era, key, known) };
    }
    0
}

/// Writes what is known of `key` to `line`, unless somebody else is writing there.
///
/// # Safety
///
/// `line` was looked up in this run.
#[inline(always)]
unsafe fn write(line: *mut CacheLine, era: Era, key: &FrontendKey, known: Known) {
    // SAFETY: by the contract above; each write is of one aligned field, and of words in program order.
    unsafe {
        let version = (&raw const (*line).version).read_volatile();
        if version & 1 == 1 || !exchange(&raw mut (*line).version, version, version | 1) {
            return;
        }
        (&raw mut (*line).era).write_volatile(era.0);
        (&raw mut (*line).head).write_volatile(known.head.0);
        write_address(&raw mut (*line).address, &key.address);
        (&raw mut (*line).place).write_volatile(CacheLine::place(key, known.service));
        (&raw mut (*line).version).write_volatile(version.wrapping_add(2));
    }
}

/// The line that `key` has.
#[inline(always)]
fn line_of(key: &FrontendKey) -> Option<*mut CacheLine> {
    ADDRESS_CACHE.get_ptr_mut(key.tag() & (limit::CACHE_LINES - 1))
}

/// Which era it is.
#[inline(always)]
fn era() -> Era {
    let Some(last) = ADDRESS_CACHE.get_ptr(limit::CACHE_LINES) else {
        // An array has its elements.
        return Era::default();
    };
    // SAFETY: an array's values stay mapped. A writer stores the word meanwhile, hence one volatile load of 8 bytes.
    Era(unsafe { (&raw const (*last).era).read_volatile() })
}
