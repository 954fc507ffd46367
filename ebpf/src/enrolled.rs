//! The list of who is enrolled.

use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::btf_maps::{Array, HashMap};
use aya_ebpf::macros::btf_map;
use holdfast_ebpf::client::Clients as _;
use holdfast_ebpf::enrol::{self, Enrolment};
use holdfast_protocol::kernel::{EnrolledKey, EnrolmentWord, limit};

use crate::caller::Caller;
use crate::maps::MAPPED;

const ENROLLED_COUNT: usize = limit::ENROLLED as usize;

/// One word: [`EnrolmentWord`].
#[btf_map]
static ENROLMENT: Array<u64, 1, MAPPED> = Array::new();
/// A set: the values say nothing.
#[btf_map]
static ENROLLED: HashMap<EnrolledKey, u32, ENROLLED_COUNT> = HashMap::new();

/// Whether who makes the call is enrolled. Without a list, which one word says, everybody is.
#[inline(always)]
pub fn is_enrolled(caller: Caller) -> bool {
    !caller.word().is_restricted() || hf_enrolled(caller.context()) != 0
}

/// The same, as a function that the verifier looks at by itself: 1 or 0.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hf_enrolled(context: *mut bpf_sock_addr) -> u64 {
    // SAFETY: programs pass what the kernel has passed them.
    let caller = unsafe { Caller::new(context) };
    u64::from(enrol::is_enrolled(&caller))
}

impl Enrolment for Caller {
    #[inline(always)]
    fn word(&self) -> EnrolmentWord {
        match ENROLMENT.get_ptr(0) {
            // SAFETY: an array's values stay mapped. A writer stores the word meanwhile, hence one
            // volatile load of 8 bytes.
            Some(word) => EnrolmentWord(unsafe { word.read_volatile() }),
            None => EnrolmentWord::default(),
        }
    }

    #[inline(always)]
    fn lists(&self, key: &EnrolledKey) -> bool {
        ENROLLED.get_ptr(key).is_some()
    }

    #[inline(always)]
    fn ancestor(&self, level: u32) -> u64 {
        Caller::ancestor(level)
    }

    #[inline(always)]
    fn namespace(&self) -> u64 {
        self.network_namespace()
    }
}
