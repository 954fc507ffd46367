//! Tests of the enrolment, over lists that a writer changes between any two reads.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::vec::Vec;

use super::*;

const NAMESPACE: u64 = 77;
/// From the root down to the caller's own.
const CGROUPS: [u64; 3] = [1, 20, 300];

#[derive(Clone, Default)]
struct Lists {
    word: EnrolmentWord,
    keys: BTreeSet<EnrolledKey>,
}

type Step = fn(&mut Lists);

/// Step `i` of the script happens before read number `at[i]`.
struct Race<'a> {
    lists: RefCell<Lists>,
    script: &'a [Step],
    at: &'a [usize],
    next: Cell<usize>,
    reads: Cell<usize>,
}

impl<'a> Race<'a> {
    fn new(lists: Lists, script: &'a [Step], at: &'a [usize]) -> Self {
        let (next, reads) = (Cell::new(0), Cell::new(0));
        Self { lists: RefCell::new(lists), script, at, next, reads }
    }

    fn read<R>(&self, take: impl FnOnce(&Lists) -> R) -> R {
        let read = self.reads.replace(self.reads.get() + 1);
        while self.next.get() < self.script.len() && self.at[self.next.get()] <= read {
            self.script[self.next.replace(self.next.get() + 1)](&mut self.lists.borrow_mut());
        }
        take(&self.lists.borrow())
    }
}

impl Enrolment for Race<'_> {
    fn word(&self) -> EnrolmentWord {
        self.read(|lists| lists.word)
    }
    fn lists(&self, key: &EnrolledKey) -> bool {
        self.read(|lists| lists.keys.contains(key))
    }
    fn ancestor(&self, level: u32) -> u64 {
        CGROUPS.get(level as usize).copied().unwrap_or(0)
    }
    fn namespace(&self) -> u64 {
        NAMESPACE
    }
}

fn cgroup(id: u64, generation: u32) -> EnrolledKey {
    EnrolledKey { id, generation, kind: enrolled::CGROUP }
}

fn listed(generation: u32, keys: &[EnrolledKey]) -> Lists {
    Lists { word: EnrolmentWord::listed(generation), keys: keys.iter().copied().collect() }
}

fn decided(lists: Lists) -> (bool, usize) {
    let race = Race::new(lists, &[], &[]);
    (is_enrolled(&race), race.reads.get())
}

#[test]
fn without_a_list_everybody_is_enrolled_at_the_cost_of_one_read() {
    assert_eq!(decided(Lists::default()), (true, 1));
    let lists = Lists { word: EnrolmentWord::everybody(9), ..Lists::default() };
    assert_eq!(decided(lists), (true, 1));
}

#[test]
fn who_is_in_or_below_a_listed_cgroup_is_enrolled_and_nobody_else() {
    for id in CGROUPS {
        assert!(decided(listed(4, &[cgroup(id, 4)])).0);
        assert!(!decided(listed(4, &[cgroup(id, 3)])).0, "another list");
    }
    assert!(!decided(listed(4, &[cgroup(21, 4), cgroup(NAMESPACE, 4)])).0);
    let namespace = EnrolledKey { kind: enrolled::NETWORK_NAMESPACE, ..cgroup(NAMESPACE, 4) };
    assert!(decided(listed(4, &[namespace])).0);
    assert!(!decided(listed(4, &[])).0);
}

/// Every answer while the steps of `script` happen in order, each at any instant.
fn answers(before: &Lists, script: &[Step]) -> BTreeSet<bool> {
    const INSTANTS: usize = 16;
    let mut seen = BTreeSet::new();
    let mut at: Vec<usize> = std::vec![0; script.len()];
    loop {
        seen.insert(is_enrolled(&Race::new(before.clone(), script, &at)));
        let Some(last) = at.iter().rposition(|instant| *instant < INSTANTS) else { return seen };
        let next = at[last] + 1;
        at[last..].fill(next);
    }
}

#[test]
fn who_is_on_the_old_list_and_on_the_new_one_is_enrolled_throughout() {
    let script: [Step; 3] = [
        |lists| {
            lists.keys.insert(cgroup(300, 5));
        },
        |lists| lists.word = EnrolmentWord::listed(5),
        |lists| {
            lists.keys.remove(&cgroup(1, 4));
        },
    ];
    assert_eq!(answers(&listed(4, &[cgroup(1, 4)]), &script), BTreeSet::from([true]));
}

#[test]
fn who_is_on_neither_is_not_enrolled_at_any_time() {
    let script: [Step; 3] = [
        |lists| {
            lists.keys.insert(cgroup(22, 5));
        },
        |lists| lists.word = EnrolmentWord::listed(5),
        |lists| {
            lists.keys.remove(&cgroup(21, 4));
        },
    ];
    assert_eq!(answers(&listed(4, &[cgroup(21, 4)]), &script), BTreeSet::from([false]));
}
