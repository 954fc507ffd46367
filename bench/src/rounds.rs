//! Figures of many kinds, round by round (pure).

use crate::results::Summary;

/// The figures of each kind, one each round, in the order the kinds came first.
#[derive(Clone, Debug)]
pub struct Rounds<K>(Vec<(K, Vec<f64>)>);

impl<K> Default for Rounds<K> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: PartialEq> Rounds<K> {
    /// Adds the figure of a round.
    pub fn add(&mut self, kind: K, figure: f64) {
        match self.0.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, figures)) => figures.push(figure),
            None => self.0.push((kind, vec![figure])),
        }
    }

    /// The figures of a kind; none of one that has no round.
    pub fn of(&self, kind: &K) -> &[f64] {
        self.0.iter().find(|(known, _)| known == kind).map_or(&[], |(_, figures)| figures)
    }

    /// Those of a kind, summed up.
    pub fn summary(&self, kind: &K) -> Summary {
        Summary::of(self.of(kind).iter().copied())
    }

    /// How many times as much those of a kind are as those of another in the same round.
    pub fn ratio(&self, kind: &K, base: &K) -> Summary {
        Summary::of_ratios(self.of(kind), self.of(base))
    }

    /// What those of a kind have more than those of another in the same round.
    pub fn difference(&self, kind: &K, base: &K) -> Summary {
        Summary::of_differences(self.of(kind), self.of(base))
    }
}

/// The median of many figures of one round.
pub fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    Summary::of(figures).p50
}

/// The order in which `count` ways are gone in a round: another one is first each time.
pub fn turns(round: usize, count: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |turn| (round + turn) % count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_compared_with_their_base_in_the_same_round() {
        let mut rounds = Rounds::default();
        for noise in [0.0, 1000.0, 500.0] {
            rounds.add("empty", 60.0 + noise);
            rounds.add("ours", 200.0 + noise);
        }
        let above = rounds.difference(&"ours", &"empty");
        assert_eq!((above.p10, above.p50, above.p90), (140.0, 140.0, 140.0));
        assert_eq!(rounds.summary(&"nobody").count, 0);
        assert_eq!(rounds.ratio(&"ours", &"nobody").count, 0);
    }

    #[test]
    fn each_way_is_first_in_its_turn() {
        let firsts: Vec<_> = (0..3).filter_map(|round| turns(round, 3).next()).collect();
        assert_eq!(firsts, [0, 1, 2]);
        assert_eq!(turns(1, 3).collect::<Vec<_>>(), [1, 2, 0]);
    }
}
