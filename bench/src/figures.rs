//! Many durations, summed up.

use std::time::Duration;

use serde::Serialize;

/// What is said about many durations of one kind, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// How many there are.
    pub count: usize,
    /// The shortest.
    pub min_us: u64,
    /// One in ten is shorter.
    pub p10_us: u64,
    /// The median.
    pub p50_us: u64,
    /// One in ten is longer.
    pub p90_us: u64,
    /// One in a hundred is longer.
    pub p99_us: u64,
    /// The longest.
    pub max_us: u64,
}

impl Figures {
    /// The figures of `durations`; all 0 when there are none.
    pub fn of(durations: &[Duration]) -> Self {
        let mut sorted: Vec<u64> = durations
            .iter()
            .map(|duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
            .collect();
        sorted.sort_unstable();
        // Nearest rank: always one of the durations, never something in between.
        let rank = |percent: usize| (sorted.len() * percent).div_ceil(100).saturating_sub(1);
        let at = |percent| sorted.get(rank(percent)).copied().unwrap_or(0);
        Self {
            count: sorted.len(),
            min_us: at(0),
            p10_us: at(10),
            p50_us: at(50),
            p90_us: at(90),
            p99_us: at(99),
            max_us: at(100),
        }
    }

    /// The head of a table whose lines [`Self::line`] makes.
    pub fn head() -> String {
        format!(
            "{:<34}{:>6}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}",
            "milliseconds", "n", "min", "p10", "p50", "p90", "p99", "max"
        )
    }

    /// A line of a table.
    pub fn line(&self, name: &str) -> String {
        let cells = [self.min_us, self.p10_us, self.p50_us, self.p90_us, self.p99_us, self.max_us];
        let cells = cells.map(|micros| format!("{:>9}", milliseconds(micros))).concat();
        format!("{name:<34}{:>6}{cells}", self.count)
    }
}

fn milliseconds(micros: u64) -> String {
    format!("{}.{:02}", micros / 1000, micros % 1000 / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_of_the_sorted_durations() {
        let durations: Vec<_> = (1..=200).rev().map(Duration::from_micros).collect();
        let figures = Figures::of(&durations);
        assert_eq!((figures.count, figures.min_us, figures.max_us), (200, 1, 200));
        assert_eq!((figures.p10_us, figures.p50_us), (20, 100));
        assert_eq!((figures.p90_us, figures.p99_us), (180, 198));
    }

    #[test]
    fn one_duration_is_all_figures_and_none_is_no_error() {
        let one = Figures::of(&[Duration::from_millis(7)]);
        assert_eq!((one.min_us, one.p50_us, one.max_us), (7000, 7000, 7000));
        assert_eq!(Figures::of(&[]).max_us, 0);
    }

    #[test]
    fn a_line_has_milliseconds() {
        let line = Figures::of(&[Duration::from_micros(12_345)]).line("cold");
        assert!(line.starts_with("cold ") && line.ends_with("    12.34"), "{line}");
    }
}
