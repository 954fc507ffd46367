//! An element whose words others write between any two accesses.

use std::cell::{Cell, RefCell};
use std::vec;
use std::vec::Vec;

use super::*;

/// One access: a word that was stored.
pub(crate) type Store = (usize, u64);

/// One element, which everything has, and the stores of others: each happens before the access that it is due at.
pub(crate) struct Shared<const N: usize> {
    pub(crate) words: RefCell<[u64; N]>,
    script: Vec<Store>,
    at: Vec<usize>,
    pub(crate) accesses: Cell<usize>,
    pub(crate) stores: RefCell<Vec<Store>>,
}

impl<const N: usize> Shared<N> {
    pub(crate) fn new(words: [u64; N], script: &[Store], at: &[usize]) -> Self {
        Self {
            words: RefCell::new(words),
            script: script.to_vec(),
            at: at.to_vec(),
            accesses: Cell::new(0),
            stores: RefCell::new(Vec::new()),
        }
    }

    pub(crate) fn access(&self) {
        let now = self.accesses.replace(self.accesses.get() + 1);
        for ((word, value), _) in self.script.iter().zip(&self.at).filter(|(_, at)| **at == now) {
            self.words.borrow_mut()[*word] = *value;
        }
    }
}

impl<const N: usize> Versioned for Shared<N> {
    type Element = ();

    fn element(&self, index: u32) -> Option<()> {
        assert!(index < 16_384);
        Some(())
    }
    fn word(&self, (): (), word: usize) -> u64 {
        self.access();
        self.words.borrow()[word]
    }
    fn set(&self, (): (), word: usize, value: u64) {
        self.access();
        self.words.borrow_mut()[word] = value;
        self.stores.borrow_mut().push((word, value));
    }
    fn begin(&self, (): (), version: u64) -> bool {
        self.access();
        let is_first = self.words.borrow()[VERSION] == version;
        if is_first {
            self.words.borrow_mut()[VERSION] = version + 1;
            self.stores.borrow_mut().push((VERSION, version + 1));
        }
        is_first
    }
}

/// All ways to deal `stores` to the instants of `accesses` accesses, in order.
pub(crate) fn each_way(stores: usize, accesses: usize, mut check: impl FnMut(&[usize])) {
    let mut at = vec![0; stores];
    loop {
        check(&at);
        let Some(last) = at.iter().rposition(|instant| *instant < accesses) else { break };
        let next = at[last] + 1;
        at[last..].fill(next);
    }
}
