//! What is known of an address from a lookup before this one. Pure.
//!
//! See [`holdfast_protocol::kernel::cache`] for what a line says and when it counts.

use core::mem::offset_of;

use holdfast_protocol::kernel::cache::{CacheLine, Era};
use holdfast_protocol::kernel::{FrontendKey, HeadWord, limit};

use crate::decide::Addresses;
use crate::versioned::{self, Versioned};
use crate::words;

const ERA: usize = CacheLine::ERA_WORD;
const HEAD: usize = at(offset_of!(CacheLine, head));
const ADDRESS: usize = at(offset_of!(CacheLine, address));
const PLACE: usize = at(offset_of!(CacheLine, place));

const _: () = assert!(offset_of!(CacheLine, version) == 8 * versioned::VERSION);

const fn at(offset: usize) -> usize {
    offset / size_of::<u64>()
}

/// Where an address leads, as long as the service has this head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The number of the service, or [`CacheLine::NOBODY`].
    pub service: u32,
    /// The head that it had.
    pub head: HeadWord,
}

impl Known {
    /// The address is no service's.
    pub const NOBODYS: Self = Self { service: CacheLine::NOBODY, head: HeadWord::UNPUBLISHED };

    /// Whether the address is no service's.
    #[inline(always)]
    #[must_use]
    pub const fn is_nobodys(self) -> bool {
        self.service == CacheLine::NOBODY
    }

    /// Whether the address still leads there. That it is no service's is known for the whole of an era.
    #[inline(always)]
    pub fn still_leads<A: Addresses>(self, tables: &A) -> bool {
        self.is_nobodys() || tables.head(self.service) == Some(self.head)
    }
}

/// Looks `key` up. `None` if that is being replaced, or in force only in another generation: then it takes the looks of
/// [`decide`](crate::decide) to say what becomes of a connection.
#[inline(always)]
pub fn look_up<A: Addresses>(from: &A, key: &FrontendKey) -> Option<Known> {
    let Some(element) = from.element(key) else { return Some(Known::NOBODYS) };
    let lead = from.element_word(element, words::FRONTEND_LEAD);
    let frontend = words::frontend(lead, from.element_word(element, words::FRONTEND_SPAN));
    if frontend.tag != key.tag() || from.element_word(element, words::FRONTEND_LEAD) != lead {
        return None;
    }
    let head = from.head(frontend.service)?;
    let is_in_force = head.is_published() && frontend.in_force(head.generation());
    is_in_force.then_some(Known { service: frontend.service, head })
}

/// Which era it is: a word of the element behind all lines.
#[inline(always)]
pub fn era<V: Versioned>(lines: &V) -> Era {
    // An array has its elements.
    lines.element(limit::CACHE_LINES).map_or(Era(0), |last| Era(lines.word(last, ERA)))
}

/// What is known of `key`, if anything is.
#[inline(always)]
pub fn recall<V: Versioned>(lines: &V, key: &FrontendKey) -> Option<Known> {
    let era = era(lines);
    let line = lines.element(line_of(key))?;
    let [first, second, third, fourth] = key.address;
    let word = |word| lines.word(line, word);
    let (differs, place, head) = versioned::read(lines, line, || {
        let place = word(PLACE);
        // Nearly always all are equal: one branch for all of them.
        let differs = (word(ERA) ^ era.0)
            | (word(ADDRESS) ^ words::word(first, second))
            | (word(ADDRESS + 1) ^ words::word(third, fourth))
            | u64::from(words::low(place) ^ words::low(CacheLine::place(key, 0)));
        (differs, place, word(HEAD))
    })?;
    let counts = differs == 0 && era.is_open();
    counts.then_some(Known { service: words::high(place), head: HeadWord(head) })
}

/// Looks `key` up and writes to its line what is known from now on, if one look can say that.
#[inline(always)]
pub fn learn<V: Versioned, A: Addresses>(lines: &V, from: &A, key: &FrontendKey) {
    // First the era: what is found in another one does not count in it.
    let era = era(lines);
    if era.is_open()
        && let Some(known) = look_up(from, key)
        && let Some(line) = lines.element(line_of(key))
    {
        let [first, second, third, fourth] = key.address;
        let set = |word, value| lines.set(line, word, value);
        versioned::write(lines, line, || {
            set(ERA, era.0);
            set(HEAD, known.head.0);
            set(ADDRESS, words::word(first, second));
            set(ADDRESS + 1, words::word(third, fourth));
            set(PLACE, CacheLine::place(key, known.service));
        });
    }
}

/// The line that `key` has.
#[inline(always)]
const fn line_of(key: &FrontendKey) -> u32 {
    key.tag() & (limit::CACHE_LINES - 1)
}

#[cfg(test)]
mod tests {
    use core::cell::Cell;
    use std::vec::Vec;

    use holdfast_protocol::kernel::Frontend;

    use super::*;
    use crate::race::{KEY, Race, SERVICE, Step, frontend};
    use crate::versioned::tests::{Shared, Store, each_way};

    #[test]
    fn what_one_look_cannot_say_is_not_learnt() {
        let learnt = |change: Step| {
            let race = Race::new(&[], &[]);
            change(&mut race.memory.borrow_mut());
            look_up(&race, &KEY)
        };
        assert_eq!(learnt(|_| {}), Some(Known { service: SERVICE, head: HeadWord::new(0, 1) }));
        assert_eq!(learnt(|memory| memory.elements.clear()), Some(Known::NOBODYS));
        let unsaid: [Step; 5] = [
            |memory| memory.pool[0][words::FRONTEND_LEAD] ^= 1 << 32,
            |memory| memory.pool[0] = frontend(&KEY, 99, 1, Frontend::FOREVER),
            |memory| memory.pool[0] = frontend(&KEY, SERVICE, 2, Frontend::FOREVER),
            |memory| memory.pool[0] = frontend(&KEY, SERVICE, 0, 1),
            |memory| memory.heads[SERVICE as usize] = HeadWord::UNPUBLISHED,
        ];
        for (index, change) in unsaid.into_iter().enumerate() {
            assert_eq!(learnt(change), None, "change {index}");
        }
    }

    const WORDS: usize = size_of::<CacheLine>() / size_of::<u64>();

    /// One line that every key has, and the era beside it.
    struct Lines {
        line: Shared<WORDS>,
        era: Cell<Era>,
    }

    impl Lines {
        fn new(words: [u64; WORDS], script: &[Store], at: &[usize]) -> Self {
            Self { line: Shared::new(words, script, at), era: Cell::new(Era(0).next()) }
        }
    }

    impl Versioned for Lines {
        type Element = bool;

        fn element(&self, index: u32) -> Option<bool> {
            assert!(index <= limit::CACHE_LINES);
            Some(index == limit::CACHE_LINES)
        }
        fn word(&self, is_era: bool, word: usize) -> u64 {
            if is_era { self.era.get().0 } else { self.line.word((), word) }
        }
        fn set(&self, is_era: bool, word: usize, value: u64) {
            assert!(!is_era, "only a worker says which era it is");
            self.line.set((), word, value);
        }
        fn begin(&self, is_era: bool, version: u64) -> bool {
            !is_era && self.line.begin((), version)
        }
    }

    const KNOWN: Known = Known { service: SERVICE, head: HeadWord::new(0, 1) };

    /// The words, and the stores that lead there, once `KEY` is learnt in an empty line.
    fn learnt() -> ([u64; WORDS], Vec<Store>) {
        let lines = Lines::new([0; WORDS], &[], &[]);
        learn(&lines, &Race::new(&[], &[]), &KEY);
        (lines.line.words.into_inner(), lines.line.stores.into_inner())
    }

    #[test]
    fn what_was_learnt_is_known_of_that_address_in_that_era() {
        let lines = Lines::new(learnt().0, &[], &[]);
        assert_eq!(recall(&lines, &KEY), Some(KNOWN));
        let others = [
            crate::race::OTHER_KEY,
            FrontendKey { port_be: 81_u16.to_be(), ..KEY },
            FrontendKey { protocol: 17, ..KEY },
            FrontendKey { address: [1, KEY.address[1], KEY.address[2], KEY.address[3]], ..KEY },
        ];
        for other in others {
            assert_eq!(recall(&lines, &other), None, "{other:?}");
        }
        let begun = lines.era.get();
        for era in [begun.ended(), begun.next()] {
            lines.era.set(era);
            assert_eq!(recall(&lines, &KEY), None, "{era:?}");
        }
        // Nor is anything learnt between two of them.
        let lines = Lines::new([0; WORDS], &[], &[]);
        lines.era.set(begun.ended());
        learn(&lines, &Race::new(&[], &[]), &KEY);
        assert_eq!(lines.line.words.into_inner(), [0; WORDS]);
    }

    #[test]
    fn an_empty_line_says_nothing() {
        for era in [Era(0), Era(0).next()] {
            let lines = Lines::new([0; WORDS], &[], &[]);
            lines.era.set(era);
            let nothing = FrontendKey { address: [0; 4], port_be: 0, protocol: 0, reserved: 0 };
            assert_eq!(recall(&lines, &nothing), None);
        }
    }

    #[test]
    fn a_line_that_is_rewritten_meanwhile_is_wholly_one_or_nothing() {
        // Another service's number and head are written for the same key, store by store, at any instants.
        let (words, mut stores) = learnt();
        for (word, value) in &mut stores {
            match *word {
                PLACE => *value = CacheLine::place(&KEY, 9),
                HEAD => *value = HeadWord::new(7, 7).0,
                versioned::VERSION => *value += 2,
                _ => {}
            }
        }
        let other = Known { service: 9, head: HeadWord::new(7, 7) };
        let changed: Vec<Store> =
            stores.into_iter().filter(|(word, _)| [0, HEAD, PLACE].contains(word)).collect();
        let mut seen = Vec::new();
        each_way(changed.len(), WORDS, |at| {
            seen.push(recall(&Lines::new(words, &changed, at), &KEY));
        });
        assert!(seen.iter().flatten().all(|known| [KNOWN, other].contains(known)), "{seen:?}");
        assert!(seen.contains(&Some(KNOWN)) && seen.contains(&Some(other)) && seen.contains(&None));
    }
}
