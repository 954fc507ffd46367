//! Where two texts differ.

/// The part of a text that differs from the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// Bytes both have in common from the start.
    pub(super) prefix: usize,
    /// Bytes both have in common from the end, none of them among those.
    pub(super) suffix: usize,
    /// Bytes of the text before.
    pub(super) old: usize,
    /// Bytes of the text.
    pub(super) new: usize,
}

/// Bytes that are compared at once: many, so that it takes as long as reading them, and few enough for
/// the rest that is compared one by one.
const BLOCK: usize = 4096;

/// Where `new` differs from `old`, if it does.
///
/// Texts of megabytes are in no cache, and a processor reads ahead of who goes forwards. So what both have in common
/// from the end is looked for from the start as well, behind the last difference.
pub(super) fn change(old: &[u8], new: &[u8]) -> Option<Change> {
    let most = old.len().min(new.len());
    let mut prefix = 0;
    for (one, other) in old.chunks(BLOCK).zip(new.chunks(BLOCK)) {
        if one != other {
            prefix += common(one.iter().zip(other));
            break;
        }
        prefix += one.len();
    }
    if prefix == most && old.len() == new.len() {
        return None;
    }
    let rest = most - prefix;
    let ends = (&old[old.len() - rest..], &new[new.len() - rest..]);
    let (mut passed, mut suffix) = (0, rest);
    for (one, other) in ends.0.chunks(BLOCK).zip(ends.1.chunks(BLOCK)) {
        passed += one.len();
        if one != other {
            suffix = rest - passed + common(one.iter().rev().zip(other.iter().rev()));
        }
    }
    Some(Change { prefix, suffix, old: old.len(), new: new.len() })
}

/// How many of these are the same, from the first on.
fn common<'t>(pairs: impl Iterator<Item = (&'t u8, &'t u8)>) -> usize {
    pairs.take_while(|(one, other)| one == other).count()
}

impl Change {
    /// Where what was at `offset` of the text before, which is part of the suffix, is now.
    pub(super) const fn moved(&self, offset: usize) -> usize {
        self.new - (self.old - offset)
    }

    /// Where the suffix begins in the text before.
    pub(super) const fn old_end(&self) -> usize {
        self.old - self.suffix
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn prefix_and_suffix_do_not_overlap() {
        let same = "a".repeat(3 * BLOCK);
        assert_eq!(change(same.as_bytes(), same.as_bytes()), None);
        let longer = "a".repeat(3 * BLOCK + 1);
        let (old, new) = (same.len(), longer.len());
        let expected = Change { prefix: old, suffix: 0, old, new };
        assert_eq!(change(same.as_bytes(), longer.as_bytes()), Some(expected));
    }

    proptest! {
        #[test]
        fn both_texts_are_put_together_from_what_is_said(
            old in prop::collection::vec(0_u8..3, 0..40), new in prop::collection::vec(0_u8..3, 0..40),
            padding in prop::sample::select(vec![0, 1, BLOCK - 1, BLOCK, BLOCK + 1]),
        ) {
            let padded = |text: &[u8]| [&vec![7; padding], text, &vec![7; padding]].concat();
            let (old, new) = (padded(&old), padded(&new));
            match change(&old, &new) {
                None => prop_assert_eq!(old, new),
                Some(it) => {
                    prop_assert!(it.prefix + it.suffix <= old.len().min(new.len()));
                    prop_assert_eq!(&old[..it.prefix], &new[..it.prefix]);
                    prop_assert_eq!(&old[it.old_end()..], &new[it.moved(it.old_end())..]);
                    prop_assert_ne!(old.get(it.prefix), new.get(it.prefix));
                    // And all of it that both have in common.
                    let last = |text: &[u8]| text[it.prefix..text.len() - it.suffix].last().copied();
                    let (one, other) = (last(&old), last(&new));
                    prop_assert!(one.is_none() || other.is_none() || one != other);
                }
            }
        }
    }
}
