//! Tests of what access policies say, while the policies and the workload may change.

use super::*;

#[test]
fn the_lowest_bit_is_found() {
    for bit in 0..u64::BITS {
        assert_eq!(lowest(1 << bit), bit);
        assert_eq!(lowest(u64::MAX << bit), bit);
    }
}

#[test]
fn an_address_is_unspecified_in_both_families() {
    use holdfast_protocol::kernel::mapped;
    assert!(is_unspecified(&mapped(0)) && is_unspecified(&[0; 4]));
    assert!(!is_unspecified(&mapped(1)) && !is_unspecified(&[1, 0, 0, 0]));
}

/// The cells of one section of cgroups, and a workload that may be moved between two questions.
struct Moving {
    cells: [Cell; 3],
    levels: [u64; 4],
}

impl Cells for Moving {
    fn cell(&self, index: u32) -> Option<Cell> {
        self.cells.get(index as usize).copied()
    }
}

impl Policies for Moving {
    fn cgroup(&self, level: u32) -> u64 {
        self.levels.get(level as usize).copied().unwrap_or(0)
    }
    fn find(&self, section: Section, value: u64) -> u32 {
        section.find(self, value)
    }
    fn find6(&self, section: Section, upper: u64, lower: u64) -> u32 {
        section.find6(self, upper, lower)
    }
    fn matches(&self, vectors: &mut Vectors, word: u32) -> u64 {
        vectors.matches(self, word)
    }
}

#[test]
fn what_is_found_of_a_workload_lasts_only_if_its_own_cgroup_was_the_last() {
    let cells = [[5, 50], [7, 70], [9, 90]];
    let deepest =
        |levels, own| Section { start: 0, entries: 3 }.deepest(&Moving { cells, levels }, own, 1);
    assert_eq!(deepest([1, 5, 8, 0], 8), Some((50, true)));
    assert_eq!(deepest([1, 5, 7, 9], 9), Some((90, true)));
    assert_eq!(deepest([1, 6, 0, 0], 6), Some((1, true)));
    // It was moved after it was asked for its own: to the side, deeper, and up.
    assert_eq!(deepest([1, 5, 7, 0], 8), Some((70, false)));
    assert_eq!(deepest([1, 5, 8, 9], 8), Some((90, false)));
    assert_eq!(deepest([1, 5, 0, 0], 8), Some((50, false)));
    assert_eq!(deepest([1, 0, 0, 0], 0), Some((1, true)), "nobody keeps what is of no cgroup");
}

/// A writer at work: each look at the head finds the next of these, and the last one for ever.
struct Changing {
    heads: [HeadWord; 4],
    looks: Cell64,
    judged: Cell64,
    known: Option<(HeadWord, Ruling)>,
    is_lasting: bool,
    kept: core::cell::Cell<Option<(HeadWord, Ruling)>>,
}

type Cell64 = core::cell::Cell<usize>;

impl Court for Changing {
    fn head(&self) -> HeadWord {
        let look = self.looks.get();
        self.looks.set(look + 1);
        self.heads[look.min(self.heads.len() - 1)]
    }

    fn judge(&self, image: u32) -> Ruling {
        self.judged.set(self.judged.get() + 1);
        Ruling::new(sentence::DENIED, image).lasting(self.is_lasting)
    }

    fn recall(&self, head: HeadWord) -> Option<Ruling> {
        self.known.and_then(|(known, ruling)| (known == head).then_some(ruling))
    }

    fn keep(&self, head: HeadWord, ruling: Ruling) {
        self.kept.set(Some((head, ruling)));
    }
}

impl Changing {
    const fn new(heads: [HeadWord; 4]) -> Self {
        let (looks, judged, kept) = (Cell64::new(0), Cell64::new(0), core::cell::Cell::new(None));
        Self { heads, looks, judged, known: None, is_lasting: false, kept }
    }
}

/// What comes of a connection while the head changes, and how often it was judged.
fn while_changing(heads: [HeadWord; 4]) -> (Ruling, usize) {
    let court = Changing::new(heads);
    (judged(&court), court.judged.get())
}

#[test]
fn what_was_judged_while_policies_were_replaced_counts_for_nothing() {
    let [none, first, second] = [HeadWord::new(0, 4), HeadWord::new(1, 5), HeadWord::new(9, 6)];
    assert_eq!(while_changing([none; 4]), (Ruling::ALLOWED, 0));
    assert_eq!(while_changing([first; 4]), (Ruling::new(sentence::DENIED, 1), 1));
    let changed = while_changing([first, second, second, second]);
    assert_eq!(changed, (Ruling::new(sentence::DENIED, 9), 2));
    // The image is in the same place, but it is another one.
    let again = HeadWord::new(1, 7);
    let rewritten = while_changing([first, again, again, again]);
    assert_eq!(rewritten, (Ruling::new(sentence::DENIED, 1), 2));
    assert_eq!(while_changing([first, none, none, none]), (Ruling::ALLOWED, 1));
}

#[test]
fn what_was_said_before_is_said_again_while_the_same_policies_are_in_force() {
    let [first, second] = [HeadWord::new(1, 5), HeadWord::new(1, 6)];
    let said = Ruling::new(sentence::WOULD_DENY, 3);
    for (head, expected, judged) in
        [(first, said, 0), (second, Ruling::new(sentence::DENIED, 1), 1)]
    {
        let court = Changing { known: Some((first, said)), ..Changing::new([head; 4]) };
        assert_eq!((settle(&court), court.judged.get()), (expected, judged));
    }
}

#[test]
fn only_what_lasts_and_was_judged_by_one_head_is_kept() {
    let [first, second] = [HeadWord::new(1, 5), HeadWord::new(9, 6)];
    let kept = |heads, is_lasting| {
        let court = Changing { is_lasting, ..Changing::new(heads) };
        let _ruling = settle(&court);
        court.kept.get()
    };
    let denied = Ruling::new(sentence::DENIED, 1).lasting(true);
    assert_eq!(kept([first; 4], true), Some((first, denied)));
    assert_eq!(kept([first; 4], false), None);
    // Replaced before it was judged, while it was, and after.
    for replaced in 1..4 {
        let mut heads = [first; 4];
        heads[replaced..].fill(second);
        assert_eq!(kept(heads, true), None, "{replaced}");
    }
}

#[test]
fn policies_that_never_settle_let_nothing_pass() {
    struct Restless(Cell64);

    impl Court for Restless {
        fn head(&self) -> HeadWord {
            self.0.set(self.0.get() + 1);
            HeadWord::new(1, self.0.get() as u32)
        }

        fn judge(&self, _image: u32) -> Ruling {
            Ruling::ALLOWED.lasting(true)
        }

        fn recall(&self, _head: HeadWord) -> Option<Ruling> {
            None
        }

        fn keep(&self, _head: HeadWord, _ruling: Ruling) {
            panic!("nothing was said");
        }
    }

    assert_eq!(settle(&Restless(Cell64::new(0))), Ruling::UNSETTLED);
}
