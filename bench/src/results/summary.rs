//! One quantity over many rounds, summed up (pure).

use serde::{Deserialize, Serialize};

/// Most rounds that are kept one by one, evenly picked: enough to draw, and for a distribution.
const MOST_KEPT: usize = 400;

/// Significant digits of a kept round: more would be noise.
const DIGITS: i32 = 5;

/// What is said about the figures of many rounds. Percentiles are of the nearest rank: always one of
/// the figures, never something in between.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How many there are.
    pub count: usize,
    /// The least.
    pub min: f64,
    /// One in ten is less.
    pub p10: f64,
    /// The median.
    pub p50: f64,
    /// One in ten is more.
    pub p90: f64,
    /// One in a hundred is more.
    pub p99: f64,
    /// The most.
    pub max: f64,
    /// The figures in the order they were measured.
    pub rounds: Vec<f64>,
}

impl Summary {
    /// Of `figures`, in the order they were measured; all 0 when there are none.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Self {
        let rounds: Vec<f64> = figures.into_iter().collect();
        let mut sorted = rounds.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let rank = |percent: usize| (sorted.len() * percent).div_ceil(100).saturating_sub(1);
        let at = |percent| rounded(sorted.get(rank(percent)).copied().unwrap_or(0.0));
        Self {
            count: rounds.len(),
            min: at(0),
            p10: at(10),
            p50: at(50),
            p90: at(90),
            p99: at(99),
            max: at(100),
            rounds: picked(&rounds),
        }
    }

    /// Of what `figures` have more than `others` in the same round: what else the machine did then has
    /// hit both.
    pub fn of_differences(figures: &[f64], others: &[f64]) -> Self {
        Self::of(figures.iter().zip(others).map(|(figure, other)| figure - other))
    }

    /// Of how many times as much `figures` are as `others` in the same round.
    pub fn of_ratios(figures: &[f64], others: &[f64]) -> Self {
        Self::of(figures.iter().zip(others).map(|(figure, other)| figure / other))
    }
}

/// At most [`MOST_KEPT`] of them, at even distances.
fn picked(rounds: &[f64]) -> Vec<f64> {
    let kept = rounds.len().min(MOST_KEPT);
    (0..kept).map(|n| rounded(rounds[n * rounds.len() / kept])).collect()
}

fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return 0.0;
    }
    // Text first: dividing by a power of ten would leave digits of its own.
    let decimals = DIGITS - 1 - floor_log10(value);
    match usize::try_from(decimals) {
        Ok(decimals) => format!("{value:.decimals$}").parse().unwrap_or(value),
        Err(_) => value.round(),
    }
}

fn floor_log10(value: f64) -> i32 {
    #[expect(clippy::cast_possible_truncation, reason = "a logarithm is small")]
    let log = value.abs().log10().floor() as i32;
    log
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_that_of_the_sorted_figures() {
        let summary = Summary::of((1..=200).rev().map(f64::from));
        assert_eq!((summary.count, summary.min, summary.max), (200, 1.0, 200.0));
        assert_eq!(
            (summary.p10, summary.p50, summary.p90, summary.p99),
            (20.0, 100.0, 180.0, 198.0)
        );
        assert_eq!(summary.rounds[..2], [200.0, 199.0], "in the order they were measured");
        assert_eq!(Summary::of([]), Summary::default());
    }

    #[test]
    fn figures_are_compared_round_by_round() {
        // Noise that hits a round is twice as large as what is to be seen.
        let (with, without) = ([110.0, 310.0, 210.0], [100.0, 300.0, 200.0]);
        assert_eq!(Summary::of_differences(&with, &without).p50, 10.0);
        assert_eq!(Summary::of_ratios(&[3.0, 3.0], &[2.0, 2.0]).p90, 1.5);
    }

    #[test]
    fn many_rounds_are_picked_evenly_and_noise_is_cut_off() {
        let summary = Summary::of((0..100_000).map(f64::from));
        assert_eq!((summary.count, summary.rounds.len()), (100_000, MOST_KEPT));
        assert_eq!(rounded(1_234.567_89), 1_234.6);
        assert_eq!(rounded(0.001_234_567), 0.001_234_6);
        assert_eq!(rounded(12_345_678.9), 12_345_679.0);
        assert_eq!(rounded(f64::NAN), 0.0);
    }
}
