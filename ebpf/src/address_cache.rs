//! The cache of where addresses lead.

use aya_ebpf::btf_maps::Array;
use aya_ebpf::macros::btf_map;
use holdfast_ebpf::cache::{self, Known};
use holdfast_ebpf::words;
use holdfast_protocol::kernel::cache::CacheLine;
use holdfast_protocol::kernel::{FrontendKey, limit};

use crate::elements::{Elements, Of};
use crate::maps::{Arrays, MAPPED};

#[btf_map]
static ADDRESS_CACHE: Array<CacheLine, { limit::CACHE_ELEMENTS as usize }, MAPPED> = Array::new();

struct Lines;

impl Elements for Lines {
    #[inline(always)]
    fn words(&self, index: u32) -> Option<*mut u64> {
        ADDRESS_CACHE.get_ptr_mut(index).map(<*mut CacheLine>::cast)
    }
}

/// What is known of `key`, if anything is.
#[inline(always)]
pub fn recall(key: &FrontendKey) -> Option<Known> {
    cache::recall(&Of(Lines), key)
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

/// See [`learn`]. A function of its own to the verifier, hardly ever called, which is passed the key in registers: a
/// program has no room for it on its stack.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hf_learn(high: u64, low: u64, port_be: u32, protocol: u32) -> u64 {
    let (port_be, protocol) = (port_be as u16, protocol as u8);
    let key = FrontendKey { address: words::address(high, low), port_be, protocol, reserved: 0 };
    cache::learn(&Of(Lines), &Arrays, &key);
    0
}
