//! Where connections a second are counted.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::btf_maps::{Array, LruHashMap};
use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::btf_map;
use holdfast_ebpf::affinity;
use holdfast_ebpf::client;
use holdfast_ebpf::limit::Bounds;
use holdfast_ebpf::rate::{self, Rates};
use holdfast_protocol::kernel::{AffinityKey, limit};

use crate::maps::{self, Maps};

const SERVICE_COUNT: usize = limit::DEFAULT_SERVICES as usize;
const CLIENT_COUNT: usize = limit::CLIENT_RATES as usize;

#[btf_map]
static RATES: Array<u64, SERVICE_COUNT> = Array::new();
#[btf_map]
static CLIENT_RATES: LruHashMap<AffinityKey, u64, CLIENT_COUNT> = LruHashMap::new();

/// Takes a connection of this caller to `service`, of its own rate first: what a client is refused for
/// its own sake does not count against the others. Returns whether there was one.
#[inline(always)]
pub fn take(maps: &Maps, service: u32, bounds: &Bounds) -> bool {
    // SAFETY: the helper takes nothing and may be called by any program.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    if bounds.client_rate.rate != 0 {
        let key = affinity::key(service, &client::identify(maps, bounds.rate_by));
        // Without room the client is a new one, as one that has been forgotten is.
        let is_taken = Words
            .of_client(&key, now)
            .is_none_or(|word| rate::take(&Words, word, bounds.client_rate, now));
        if !is_taken {
            return false;
        }
    }
    Words.of_service(service).is_none_or(|word| rate::take(&Words, word, bounds.rate, now))
}

/// The words, in their maps.
struct Words;

impl Rates for Words {
    type Word = *mut u64;

    #[inline(always)]
    fn of_service(&self, service: u32) -> Option<Self::Word> {
        RATES.get_ptr_mut(service)
    }

    /// The kernel may give the word of a client that was not seen for long to another one at any moment,
    /// which then has an emptier bucket than it should, by one burst at most.
    #[inline(always)]
    fn of_client(&self, key: &AffinityKey, now: u64) -> Option<Self::Word> {
        if let Some(word) = CLIENT_RATES.get_ptr_mut(key) {
            return Some(word);
        }
        // Fails if another connection of the client has made it meanwhile.
        let _made = CLIENT_RATES.insert(key, &now, u64::from(BPF_NOEXIST));
        CLIENT_RATES.get_ptr_mut(key)
    }

    #[inline(always)]
    fn read(&self, word: Self::Word) -> u64 {
        // SAFETY: `word` was looked up in this run, and stays mapped. Others exchange it meanwhile.
        unsafe { word.read_volatile() }
    }

    #[inline(always)]
    fn exchange(&self, word: Self::Word, from: u64, to: u64) -> bool {
        // SAFETY: as above.
        unsafe { maps::exchange(word, from, to) }
    }
}
