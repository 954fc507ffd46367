//! Which slots are free, and finding room among them.

use std::collections::BTreeMap;

/// A run of slots of `TABLES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Range {
    /// The first slot.
    pub start: u32,
    /// How many there are.
    pub length: u32,
}

impl Range {
    /// The first slot after it.
    #[must_use]
    pub const fn end(self) -> u32 {
        self.start + self.length
    }
}

/// Runs of free slots, handed out first fit.
///
/// First fit keeps the tables at the low end, so what is free stays in long runs at the high end.
/// Tables are never moved to close gaps: a table needs one run, and where no run is long enough it
/// does not fit, whatever the sum of the gaps is.
#[derive(Clone, Debug, Default)]
pub struct FreeRanges {
    /// Ascending, apart from each other.
    ranges: Vec<Range>,
    /// For each length that was looked for, the first range that may still hold it. Ranges only
    /// shrink, so none before it ever will: each distinct length walks the list once.
    searched: BTreeMap<u32, usize>,
}

impl FreeRanges {
    /// Everything in `whole` that is not in `taken`, which is ascending by start; ranges in it may
    /// overlap or lie outside.
    #[must_use]
    pub fn complement(whole: Range, taken: impl IntoIterator<Item = Range>) -> Self {
        let mut ranges = Vec::new();
        let mut next = whole.start;
        for range in taken {
            let start = range.start.min(whole.end());
            if start > next {
                ranges.push(Range { start: next, length: start - next });
            }
            next = next.max(range.end().min(whole.end()));
        }
        if next < whole.end() {
            ranges.push(Range { start: next, length: whole.end() - next });
        }
        Self { ranges, searched: BTreeMap::new() }
    }

    /// The free ranges `ranges`, which are ascending and apart.
    #[must_use]
    pub fn of(ranges: Vec<Range>) -> Self {
        Self { ranges, searched: BTreeMap::new() }
    }

    /// The ranges, ascending.
    #[must_use]
    pub fn ranges(&self) -> &[Range] {
        &self.ranges
    }

    /// Takes `length` slots (at least 1) from the first range that has them, or `None`.
    pub fn take(&mut self, length: u32) -> Option<Range> {
        let from = self.searched.range(..=length).map(|(_, at)| *at).max().unwrap_or(0);
        let found = self.ranges[from..].iter().position(|range| range.length >= length);
        let at = found.map_or(self.ranges.len(), |skipped| from + skipped);
        self.searched.insert(length, at);
        let range = self.ranges.get_mut(at)?;
        let taken = Range { start: range.start, length };
        *range = Range { start: range.start + length, length: range.length - length };
        Some(taken)
    }

    /// How many slots are free in all.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.ranges.iter().map(|range| range.length).sum()
    }

    /// How many the longest run has.
    #[must_use]
    pub fn longest(&self) -> u32 {
        self.ranges.iter().map(|range| range.length).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn range(start: u32, length: u32) -> Range {
        Range { start, length }
    }

    #[test]
    fn what_is_not_taken_is_free() {
        let free = |taken: &[Range]| {
            FreeRanges::complement(range(0, 10), taken.iter().copied()).ranges().to_vec()
        };
        assert_eq!(free(&[]), [range(0, 10)]);
        assert_eq!(free(&[range(0, 3), range(5, 1)]), [range(3, 2), range(6, 4)]);
        assert_eq!(free(&[range(2, 4), range(3, 1), range(4, 4)]), [range(0, 2), range(8, 2)]);
        assert_eq!(free(&[range(0, 10)]), []);
        assert_eq!(free(&[range(8, 5), range(20, 5)]), [range(0, 8)]);
    }

    #[test]
    fn the_first_range_that_is_long_enough_is_used() {
        let mut free = FreeRanges::of(vec![range(0, 2), range(5, 4), range(20, 10)]);
        assert_eq!(free.take(3), Some(range(5, 3)));
        assert_eq!(free.take(2), Some(range(0, 2)));
        assert_eq!(free.take(1), Some(range(8, 1)));
        assert_eq!(free.take(11), None);
        assert_eq!(free.take(10), Some(range(20, 10)));
        assert_eq!(free.take(1), None);
        assert_eq!((free.total(), free.longest()), (0, 0));
    }

    proptest! {
        /// The hints only save work: every answer is that of a plain first fit.
        #[test]
        fn taking_is_first_fit(
            gaps in prop::collection::vec((1_u32..5, 1_u32..9), 0..20),
            lengths in prop::collection::vec(1_u32..10, 0..40),
        ) {
            let mut plain = Vec::new();
            let mut next = 0;
            for (used, free) in gaps {
                plain.push(range(next + used, free));
                next += used + free;
            }
            let mut free = FreeRanges::of(plain.clone());
            for length in lengths {
                let expected = plain.iter_mut().find(|range| range.length >= length).map(|range| {
                    let taken = Range { start: range.start, length };
                    *range = Range { start: range.start + length, length: range.length - length };
                    taken
                });
                prop_assert_eq!(free.take(length), expected);
            }
        }
    }
}
