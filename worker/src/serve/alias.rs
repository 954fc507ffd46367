//! The alias table of a weighted service (M. D. Vose, "A linear algorithm for generating random
//! numbers with a given distribution", 1991), in whole numbers.
//!
//! A program draws a row, each with the same probability, and then one 32-bit word: below the row's
//! threshold it takes the row's own endpoint, otherwise the row's alias. Rows are filled in integer
//! arithmetic, so that the only inexactness is the rounding of each threshold to 32 bits: the
//! probability of an endpoint differs from `weight / total` by less than 2^-32, and the same
//! weights always give the same table.

/// One row of an alias table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The row's own endpoint is taken for random words below this.
    pub threshold: u32,
    /// Index of the endpoint that is taken otherwise.
    pub alias: u32,
}

impl Row {
    /// The row at `index` when its own endpoint fills it: it names itself, because the probability
    /// 1 is not a 32-bit threshold.
    #[must_use]
    pub const fn full(index: u32) -> Self {
        Self { threshold: u32::MAX, alias: index }
    }
}

/// The alias table of `weights`, a row for each.
///
/// Weights have to be above 0, and their sum times their number below 2^64, so that nothing overflows:
/// 2^20 weights whose sum is below 2^44, say.
#[must_use]
pub fn rows(weights: &[u64]) -> Vec<Row> {
    let count = weights.len() as u64;
    // In units of 1 / (count * total) of the whole, a row holds `total` and an endpoint has
    // `weight * count`, so both sums are `count * total`.
    let total: u64 = weights.iter().sum();
    let mut shares: Vec<u64> = weights.iter().map(|weight| weight * count).collect();
    let mut rows: Vec<Row> = (0..).take(weights.len()).map(Row::full).collect();
    let (mut small, mut large): (Vec<usize>, Vec<usize>) =
        (0..weights.len()).filter(|i| shares[*i] != total).partition(|i| shares[*i] < total);
    // What is missing in the small ones is exactly what is over in the large ones, so neither list
    // runs out before the other.
    while let (Some(poor), Some(rich)) = (small.pop(), large.last().copied()) {
        rows[poor] = Row { threshold: scale(shares[poor], total), alias: index(rich) };
        shares[rich] -= total - shares[poor];
        if shares[rich] <= total {
            large.pop();
        }
        if shares[rich] < total {
            small.push(rich);
        }
    }
    rows
}

/// `share / total` in units of 2^-32, rounded down; `share` is below `total`.
fn scale(share: u64, total: u64) -> u32 {
    let scaled = (u128::from(share) << 32) / u128::from(total);
    u32::try_from(scaled).expect("a share below the total is below 2^32 of 2^32")
}

fn index(position: usize) -> u32 {
    u32::try_from(position).expect("a table has far fewer than 2^32 endpoints")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What `rows` gives each endpoint, in units of 1 / (count * 2^32).
    fn realised(rows: &[Row]) -> Vec<u128> {
        let mut given = vec![0_u128; rows.len()];
        for (own, row) in rows.iter().enumerate() {
            if row.alias as usize == own {
                given[own] += 1 << 32;
            } else {
                given[own] += u128::from(row.threshold);
                given[row.alias as usize] += (1 << 32) - u128::from(row.threshold);
            }
        }
        given
    }

    fn check(weights: &[u64]) {
        let rows = rows(weights);
        let count = weights.len() as u128;
        let total: u128 = weights.iter().map(|w| u128::from(*w)).sum();
        let given = realised(&rows);
        assert_eq!(given.iter().sum::<u128>(), count << 32, "nothing is lost or made up");
        for (endpoint, weight) in weights.iter().enumerate() {
            // |given / (count 2^32) - weight / total| < 2^-32, multiplied out.
            let difference =
                (given[endpoint] * total).abs_diff((u128::from(*weight) * count) << 32);
            let bound: u128 = count * total;
            assert!(difference < bound, "endpoint {endpoint} of {weights:?}");
        }
    }

    #[test]
    fn equal_weights_fill_their_rows() {
        assert_eq!(rows(&[7, 7, 7]), [Row::full(0), Row::full(1), Row::full(2)]);
        assert_eq!(rows(&[10_000]), [Row::full(0)]);
        assert_eq!(rows(&[]), []);
    }

    #[test]
    fn one_to_three_is_exact() {
        // Endpoint 0 fills half of its row; the other half and all of row 1 are endpoint 1's.
        assert_eq!(rows(&[1, 3]), [Row { threshold: 1 << 31, alias: 1 }, Row::full(1)]);
    }

    #[test]
    fn extreme_weights_keep_their_ratio() {
        check(&[1, 10_000]);
        check(&[1; 1000]);
        let mut weights = vec![10_000; 5000];
        weights[4321] = 1;
        check(&weights);
    }

    proptest! {
        #[test]
        fn an_endpoint_gets_its_share(weights in prop::collection::vec(1_u64..=10_000, 1..200)) {
            check(&weights);
        }

        #[test]
        fn the_same_weights_give_the_same_table(
            weights in prop::collection::vec(1_u64..=10_000, 1..50)
        ) {
            prop_assert_eq!(rows(&weights), rows(&weights));
        }
    }
}
