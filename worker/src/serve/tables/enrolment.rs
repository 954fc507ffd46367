//! Who is enrolled: what the maps say, what they should say, and the way from one to the other. Pure.
//!
//! A new list is written under the next generation while nothing names it, and one store of the word
//! puts it in force. A writer that dies at any step leaves the old list or the new one in force,
//! and beside it elements of a list that is not: the next one removes them first.

use std::collections::BTreeSet;

use holdfast_bpf::BpfError;
use holdfast_protocol::kernel::{EnrolledKey, EnrolmentWord};

use super::estate::{Reader, Writer};

/// Who is enrolled: a kind of [`enrolled`](holdfast_protocol::kernel::enrolled), and an id.
pub type Member = (u32, u64);

/// One mutation of the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Add to a list that is not in force.
    List(EnrolledKey),
    /// Remove from a list that is not in force.
    Strike(EnrolledKey),
    /// Put a list in force.
    Publish(EnrolmentWord),
}

/// The way from `word` and `keys`, which the maps hold, to `wanted`; everybody, if that is `None`.
#[must_use]
pub fn plan(
    word: EnrolmentWord,
    keys: &[EnrolledKey],
    wanted: Option<&BTreeSet<Member>>,
) -> Vec<Step> {
    let of_list = |key: &&EnrolledKey| word.is_restricted() && key.generation == word.generation();
    let (current, leftover): (Vec<&EnrolledKey>, Vec<_>) = keys.iter().partition(of_list);
    let listed: BTreeSet<Member> = current.iter().map(|key| (key.kind, key.id)).collect();
    let mut steps: Vec<Step> = leftover.into_iter().copied().map(Step::Strike).collect();
    let is_right = match wanted {
        None => !word.is_restricted(),
        Some(wanted) => word.is_restricted() && listed == *wanted,
    };
    if is_right {
        return steps;
    }
    let generation = word.generation().wrapping_add(1);
    let next = match wanted {
        None => EnrolmentWord::everybody(generation),
        Some(wanted) => {
            let key = |(kind, id): &Member| EnrolledKey { id: *id, generation, kind: *kind };
            steps.extend(wanted.iter().map(key).map(Step::List));
            EnrolmentWord::listed(generation)
        }
    };
    steps.push(Step::Publish(next));
    steps.extend(current.into_iter().copied().map(Step::Strike));
    steps
}

/// Makes the maps say `wanted`. Says whether there was anything to change.
///
/// # Errors
///
/// When the kernel refuses, for want of room above all: the old list is in force then.
pub fn put_in_force(
    maps: &mut (impl Reader + Writer),
    wanted: Option<&BTreeSet<Member>>,
) -> Result<bool, BpfError> {
    let (word, keys) = maps.enrolment()?;
    let steps = plan(word, &keys, wanted);
    for step in &steps {
        match step {
            Step::List(key) => maps.list(key)?,
            Step::Strike(key) => maps.strike(key)?,
            Step::Publish(word) => maps.publish_enrolment(*word),
        }
    }
    Ok(!steps.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The maps, and every state they were in.
    #[derive(Clone, Default)]
    struct Lists {
        word: EnrolmentWord,
        keys: BTreeSet<EnrolledKey>,
    }

    impl Lists {
        fn take(&mut self, step: Step) {
            match step {
                Step::List(key) => assert!(self.keys.insert(key)),
                Step::Strike(key) => assert!(self.keys.remove(&key)),
                Step::Publish(word) => self.word = word,
            }
        }

        /// What a program sees: everybody, or who is listed.
        fn in_force(&self) -> Option<BTreeSet<Member>> {
            let of_list = |key: &&EnrolledKey| key.generation == self.word.generation();
            let members = self.keys.iter().filter(of_list).map(|key| (key.kind, key.id));
            self.word.is_restricted().then(|| members.collect())
        }

        fn plan(&self, wanted: Option<&BTreeSet<Member>>) -> Vec<Step> {
            let keys: Vec<EnrolledKey> = self.keys.iter().copied().collect();
            plan(self.word, &keys, wanted)
        }
    }

    fn wishes() -> Vec<Option<BTreeSet<Member>>> {
        let set = |ids: &[u64]| Some(ids.iter().map(|id| (u32::from(*id > 9), *id)).collect());
        vec![None, set(&[1]), set(&[1, 2, 10]), set(&[3]), set(&[]), None, set(&[10, 1])]
    }

    #[test]
    fn every_prefix_leaves_the_old_list_or_the_new_one_in_force() {
        for from in wishes() {
            for to in wishes() {
                let mut before = Lists::default();
                before.plan(from.as_ref()).into_iter().for_each(|step| before.take(step));
                assert_eq!(before.in_force(), from);
                let steps = before.plan(to.as_ref());
                for dies_after in 0..=steps.len() {
                    let mut lists = before.clone();
                    steps[..dies_after].iter().for_each(|step| lists.take(*step));
                    let now = lists.in_force();
                    assert!(now == from || now == to, "{from:?} to {to:?}: {now:?}");
                    // Whoever comes next, with any wish, gets there, and leaves nothing lying.
                    for wish in wishes() {
                        let mut lists = lists.clone();
                        lists.plan(wish.as_ref()).into_iter().for_each(|step| lists.take(step));
                        assert_eq!(lists.in_force(), wish);
                        assert_eq!(lists.plan(wish.as_ref()), []);
                        assert_eq!(lists.keys.len(), wish.map_or(0, |wish| wish.len()));
                    }
                }
            }
        }
    }
}
