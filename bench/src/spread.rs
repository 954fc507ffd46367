//! A quantity over many rounds, summed up (pure).

use serde::Serialize;

/// What is said about the figures of many rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// One round in ten has less.
    pub p10: f64,
    /// The median.
    pub p50: f64,
    /// One round in ten has more.
    pub p90: f64,
}

impl Spread {
    /// The spread of `figures`; all 0 when there are none.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_unstable_by(f64::total_cmp);
        // Nearest rank, as in `Figures`.
        let rank = |percent: usize| (sorted.len() * percent).div_ceil(100).saturating_sub(1);
        let at = |percent| sorted.get(rank(percent)).copied().unwrap_or(0.0);
        Self { p10: at(10), p50: at(50), p90: at(90) }
    }

    /// The spread of what `figures` have more than `others` in the same round: what else the machine
    /// did then has hit both.
    pub fn of_differences(figures: &[f64], others: &[f64]) -> Self {
        Self::of(figures.iter().zip(others).map(|(figure, other)| figure - other))
    }

    /// The spread of how many times as much `figures` are as `others` in the same round.
    pub fn of_ratios(figures: &[f64], others: &[f64]) -> Self {
        Self::of(figures.iter().zip(others).map(|(figure, other)| figure / other))
    }

    /// A cell of a table: the median, and the spread behind it.
    pub fn cell(&self, decimals: usize) -> String {
        let Self { p10, p50, p90 } = self;
        format!("{p50:>8.decimals$} [{p10:>7.decimals$} {p90:>7.decimals$}]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_that_of_the_sorted_figures() {
        let spread = Spread::of((1..=100).rev().map(f64::from));
        assert_eq!(spread, Spread { p10: 10.0, p50: 50.0, p90: 90.0 });
        assert_eq!(Spread::of([]), Spread { p10: 0.0, p50: 0.0, p90: 0.0 });
    }

    #[test]
    fn figures_are_compared_round_by_round() {
        // Noise that hits a round is twice as large as what is to be seen.
        let (with, without) = ([110.0, 310.0, 210.0], [100.0, 300.0, 200.0]);
        assert_eq!(Spread::of_differences(&with, &without).p50, 10.0);
        assert_eq!(Spread::of_ratios(&[3.0, 3.0], &[2.0, 2.0]).p90, 1.5);
    }

    #[test]
    fn a_cell_has_the_median_first() {
        assert_eq!(Spread::of([1.26]).cell(1).trim(), "1.3 [    1.3     1.3]");
    }
}
