//! Which sockets are governed at all: every one of the cgroup, or only those that are enrolled.
//!
//! ```text
//! ENROLMENT  one word                                ──► EnrolmentWord { restricted?, generation }
//! ENROLLED   (id, generation, cgroup or namespace)   ──► nothing: it is there or it is not
//! ```
//!
//! A new list is written beside the old one, under the next generation, and storing the word puts
//! it in force: at every instant the old list decides or the new one.

/// The element of `ENROLMENT`. 0, what an empty map holds, enrols every socket.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EnrolmentWord(pub u64);

impl EnrolmentWord {
    /// Only what `ENROLLED` lists is enrolled.
    const RESTRICTED: u64 = 1 << 32;

    /// Every socket is enrolled. The generation still counts, so that no word comes back that a
    /// program may have read before.
    #[must_use]
    pub const fn everybody(generation: u32) -> Self {
        Self(generation as u64)
    }

    /// Only what is listed under `generation` is enrolled.
    #[must_use]
    pub const fn listed(generation: u32) -> Self {
        Self(Self::RESTRICTED | generation as u64)
    }

    /// Whether only what is listed is enrolled.
    #[must_use]
    pub const fn is_restricted(self) -> bool {
        self.0 & Self::RESTRICTED != 0
    }

    /// The generation of the list.
    #[must_use]
    pub const fn generation(self) -> u32 {
        self.0 as u32
    }
}

/// What an [`EnrolledKey`] names.
pub mod enrolled {
    /// A cgroup by its id; sockets of those below it are enrolled too.
    pub const CGROUP: u32 = 0;
    /// A network namespace by its cookie.
    pub const NETWORK_NAMESPACE: u32 = 1;
}

/// Key of `ENROLLED`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EnrolledKey {
    /// The kernel's id of the cgroup, or its cookie of the namespace.
    pub id: u64,
    /// The list it belongs to.
    pub generation: u32,
    /// One of [`enrolled`].
    pub kind: u32,
}

const _: () = {
    assert!(size_of::<EnrolmentWord>() == 8);
    assert!(size_of::<EnrolledKey>() == 16);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_says_whose_list_is_in_force() {
        assert_eq!(EnrolmentWord::everybody(0), EnrolmentWord::default());
        for generation in [0, 1, u32::MAX] {
            assert!(!EnrolmentWord::everybody(generation).is_restricted());
            assert_eq!(EnrolmentWord::everybody(generation).generation(), generation);
            let word = EnrolmentWord::listed(generation);
            assert!(word.is_restricted());
            assert_eq!(word.generation(), generation);
        }
    }
}
