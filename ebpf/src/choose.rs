//! Which endpoint of a table a connection gets, given random words and counts.

use holdfast_protocol::kernel::endpoint::Live;
use holdfast_protocol::kernel::policy;

/// Whether these programs know how `policy` chooses.
#[inline(always)]
#[must_use]
pub const fn is_known(policy: u8) -> bool {
    matches!(
        policy,
        policy::RANDOM
            | policy::WEIGHTED
            | policy::ROUND_ROBIN
            | policy::MAGLEV
            | policy::LEAST_CONNECTIONS
    )
}

/// The row that `random` selects among `rows` rows, each with the same probability.
///
/// This is the high half of a product (D. Lemire, "Fast random integer generation in an interval",
/// 2019): no division, and no row differs from another by more than one in 2^32. With 0 rows it
/// answers 0, which is not a row: callers rule out the empty table first.
#[inline(always)]
#[must_use]
pub const fn row(random: u32, rows: u32) -> u32 {
    ((random as u64 * rows as u64) >> 32) as u32
}

/// The endpoint that row `row` of an alias table yields for `random`: its own, or its alias.
///
/// A row that one endpoint fills alone names itself as alias, because the probability 1 is not a
/// 32-bit `threshold`; it yields itself either way.
#[inline(always)]
#[must_use]
pub const fn alias(row: u32, threshold: u32, alias: u32, random: u32) -> u32 {
    if random < threshold { row } else { alias }
}

/// The row of the turn number `turn` among `rows` rows, which are taken one after the other. With 0
/// rows it answers 0, as [`row`] does.
#[inline(always)]
#[must_use]
pub const fn turn(turn: u64, rows: u32) -> u32 {
    if rows == 0 { 0 } else { (turn % rows as u64) as u32 }
}

/// The row of the second endpoint that is drawn among `rows` rows, at least two, after `first`: any
/// other one, each with the same probability.
#[inline(always)]
#[must_use]
pub const fn other_row(first: u32, rows: u32, random: u32) -> u32 {
    let drawn = row(random, rows - 1);
    if drawn < first { drawn } else { drawn + 1 }
}

/// Whether the second of two endpoints has fewer connections for its weight than the first, with the
/// one that is to be decided counted in: of two without any, the heavier one has.
#[inline(always)]
#[must_use]
pub const fn has_fewer(first: (Live, u16), second: (Live, u16)) -> bool {
    load(second.0) * (first.1 as u64) < load(first.0) * (second.1 as u64)
}

/// Connections that are open or being opened, and one more. Below 2^33: no product with a weight
/// overflows.
#[inline(always)]
const fn load(live: Live) -> u64 {
    live.open() as u64 + live.pending() as u64 + 1
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    /// The first random word that belongs to `row`: `row * 2^32 / rows`, rounded up.
    fn first_of(row: u32, rows: u32) -> u64 {
        (u64::from(row) << 32).div_ceil(u64::from(rows))
    }

    #[test]
    fn rows_share_the_random_words_evenly() {
        for rows in [1, 2, 3, 7, 10, 1000, 65_537, u32::MAX] {
            for index in [0, 1, rows / 2, rows - 1].into_iter().filter(|index| *index < rows) {
                let first = first_of(index, rows);
                let end = first_of(index + 1, rows).min(1 << 32);
                assert_eq!(row(u32::try_from(first).unwrap(), rows), index);
                assert_eq!(row(u32::try_from(end - 1).unwrap(), rows), index);
                let fair = (1_u64 << 32) / u64::from(rows);
                assert!((end - first).abs_diff(fair) <= 1, "row {index} of {rows}");
            }
        }
    }

    #[test]
    fn the_second_of_two_is_any_other() {
        for rows in [2_u32, 3, 7] {
            for first in 0..rows {
                let drawn = |index| u32::try_from(first_of(index, rows - 1)).unwrap();
                let others: Vec<u32> =
                    (0..rows - 1).map(|index| other_row(first, rows, drawn(index))).collect();
                let wanted: Vec<u32> = (0..rows).filter(|row| *row != first).collect();
                assert_eq!(others, wanted);
                assert_eq!(Some(&other_row(first, rows, u32::MAX)), wanted.last());
            }
        }
    }

    #[test]
    fn connections_are_compared_by_weight() {
        let live = |open: u64, pending: u64| Live(open * Live::OPEN + pending * Live::PENDING);
        assert!(has_fewer((live(2, 0), 1), (live(1, 0), 1)));
        assert!(has_fewer((live(1, 1), 1), (live(1, 0), 1)), "attempts count");
        assert!(!has_fewer((live(1, 0), 1), (live(1, 0), 1)), "the first stays");
        assert!(!has_fewer((live(2, 0), 4), (live(1, 0), 1)));
        assert!(has_fewer((live(0, 0), 1), (live(0, 0), 4)));
        assert!(has_fewer((Live(u64::MAX), u16::MAX), (live(5, 5), 1)));
    }

    #[test]
    fn an_alias_row_splits_exactly_at_its_threshold() {
        assert_eq!(alias(4, 1000, 9, 999), 4);
        assert_eq!(alias(4, 1000, 9, 1000), 9);
        assert_eq!(alias(4, 0, 9, 0), 9);
        assert_eq!(alias(4, u32::MAX, 9, u32::MAX), 9);
    }

    #[test]
    fn a_row_that_is_its_own_alias_never_yields_another() {
        for random in [0, 1, u32::MAX - 1, u32::MAX] {
            for threshold in [0, 1, u32::MAX] {
                assert_eq!(alias(3, threshold, 3, random), 3);
            }
        }
    }

    #[test]
    fn turns_go_round_and_survive_another_number_of_rows() {
        let rows: Vec<u32> = (7..14).map(|count| turn(count, 3)).collect();
        assert_eq!(rows, [1, 2, 0, 1, 2, 0, 1]);
        assert_eq!((turn(u64::MAX, 1), turn(5, 0)), (0, 0));
        assert!((0..10).all(|count| turn(count, 4) < 4));
    }
}
