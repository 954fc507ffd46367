//! Whether a socket is governed at all.

use holdfast_protocol::kernel::{EnrolledKey, EnrolmentWord, enrolled, limit};

/// The list, and who asks, as a program reads them. Each method is one read.
pub trait Enrolment {
    /// The word that says which list is in force.
    fn word(&self) -> EnrolmentWord;
    /// Whether `key` is listed.
    fn lists(&self, key: &EnrolledKey) -> bool;
    /// The cgroup at `level` above or of the process that makes the call; 0 below its own.
    fn ancestor(&self, level: u32) -> u64;
    /// The cookie of the socket's network namespace.
    fn namespace(&self) -> u64;
}

/// Whether the socket is enrolled. A list that is replaced meanwhile is looked at again; if it never
/// stands still, the socket is: "not governed" must not be said by mistake.
#[inline(always)]
pub fn is_enrolled<E: Enrolment>(enrolment: &E) -> bool {
    for _ in 0..limit::ENROLMENT_LOOKS {
        let word = enrolment.word();
        if !word.is_restricted() || is_listed(enrolment, word.generation()) {
            return true;
        }
        if enrolment.word() == word {
            return false;
        }
    }
    true
}

#[inline(always)]
fn is_listed<E: Enrolment>(enrolment: &E, generation: u32) -> bool {
    let id = enrolment.namespace();
    let kind = enrolled::NETWORK_NAMESPACE;
    if enrolment.lists(&EnrolledKey { id, generation, kind }) {
        return true;
    }
    for level in 0..limit::CGROUP_LEVELS {
        let id = enrolment.ancestor(level);
        if id == 0 {
            return false;
        }
        if enrolment.lists(&EnrolledKey { id, generation, kind: enrolled::CGROUP }) {
            return true;
        }
    }
    false
}

#[cfg(test)]
#[path = "enrol_tests.rs"]
mod tests;
