//! The list of who is enrolled, and who it is that makes the call.

use aya_ebpf::btf_maps::{Array, HashMap};
use aya_ebpf::helpers::bpf_get_current_ancestor_cgroup_id;
use aya_ebpf::macros::btf_map;
use holdfast_ebpf::enrol::Enrolment;
use holdfast_protocol::kernel::{EnrolledKey, EnrolmentWord, limit};

use crate::maps::MAPPED;
use crate::sock_addr::SockAddr;

const ENROLLED_COUNT: usize = limit::ENROLLED as usize;

/// One word: [`EnrolmentWord`].
#[btf_map]
static ENROLMENT: Array<u64, 1, MAPPED> = Array::new();
/// A set: the values say nothing.
#[btf_map]
static ENROLLED: HashMap<EnrolledKey, u32, ENROLLED_COUNT> = HashMap::new();

/// Who makes the call.
pub struct Caller<'a, 'c>(pub &'a SockAddr<'c>);

impl Enrolment for Caller<'_, '_> {
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
        // SAFETY: the helper takes any level, and answers 0 for one that the cgroup does not have.
        unsafe { bpf_get_current_ancestor_cgroup_id(level as i32) }
    }

    #[inline(always)]
    fn namespace(&self) -> u64 {
        self.0.namespace()
    }
}
