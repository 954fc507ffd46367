//! What every endpoint of a service gets of its connections, by where it stands and who is healthy.
//!
//! With `mode: strict`, endpoints in the node's own locality share everything, and if none of them is
//! healthy nobody gets anything: connections are refused rather than let out of the locality.
//!
//! With `mode: failover`, endpoints stand in priorities, 0 first. A priority's *health* is the share of
//! its endpoints that are healthy, divided by the share below which it spills over, and 1 at most:
//!
//! ```text
//! health(p) = min(1, healthy(p) / endpoints(p) ÷ spill_over_below)
//! load(p)   = min(1 - (load(0) + … + load(p - 1)), health(p) / min(1, health(0) + health(1) + …))
//! ```
//!
//! So the first priority gets everything while enough of it is healthy; below, what it lacks goes to the
//! next one, and so on; and if all of them together lack something, their loads are scaled up to the
//! whole. If nobody is healthy, nobody gets anything. The idea, and the formula, are those of Envoy's
//! priority levels (envoyproxy.io, "Priority levels"), whose overprovisioning factor is 1 divided by
//! `spill_over_below`.
//!
//! Within a priority, the healthy endpoints share its load by their weights. The result is a share for
//! each endpoint that the tables are made of, so that the kernel programs know nothing of all this. Pure.

use holdfast_config::{Locality, LocalityMode, Place};

/// An endpoint as it stands among the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Which are used first: those of the lowest number. `None`: never.
    pub priority: Option<u32>,
    /// Its part of what its priority gets.
    pub weight: u64,
}

/// All connections, in the units of a share. Shares of 2^16 endpoints add up to little more than this,
/// which is what an alias table can take.
pub const WHOLE: u64 = 1 << 40;

/// How soon an endpoint at `place` is used by `node` under `mode`: the lower the sooner; `None`: never.
#[must_use]
pub fn priority(mode: LocalityMode, node: Option<&Locality>, place: Option<&Place>) -> Option<u32> {
    let distance = match place? {
        Place::Priority(priority) => *priority,
        Place::Locality(locality) => node?.distance(locality),
    };
    match mode {
        LocalityMode::Failover { .. } => Some(distance),
        LocalityMode::Strict => (distance == 0).then_some(0),
    }
}

/// What each of `endpoints` gets of [`WHOLE`], `healthy` saying of each whether it may get something.
/// 0 for those that get nothing.
///
/// # Panics
///
/// When there are not as many in both.
#[must_use]
pub fn shares(mode: LocalityMode, endpoints: &[Standing], healthy: &[bool]) -> Vec<u64> {
    assert_eq!(endpoints.len(), healthy.len(), "each endpoint is healthy or not");
    let percent = match mode {
        LocalityMode::Failover { spill_over_below } => u64::from(spill_over_below),
        // There is nowhere to spill to, so one healthy endpoint is enough.
        LocalityMode::Strict => 1,
    };
    let levels = levels(endpoints, healthy);
    let loads = loads(&levels, percent);
    let share = |(endpoint, healthy): (&Standing, &bool)| {
        let at = levels.iter().position(|level| Some(level.priority) == endpoint.priority);
        match at {
            Some(at) if *healthy && loads[at] > 0 => {
                part(loads[at], endpoint.weight, levels[at].weight).max(1)
            }
            _ => 0,
        }
    };
    endpoints.iter().zip(healthy).map(share).collect()
}

/// The endpoints of one priority.
struct Level {
    priority: u32,
    endpoints: u64,
    healthy: u64,
    /// The weights of the healthy ones.
    weight: u64,
}

/// Every priority that has endpoints, in their order. There are few: at most 128.
fn levels(endpoints: &[Standing], healthy: &[bool]) -> Vec<Level> {
    let mut levels: Vec<Level> = Vec::new();
    for (endpoint, healthy) in endpoints.iter().zip(healthy) {
        let Some(priority) = endpoint.priority else { continue };
        let at = levels.binary_search_by_key(&priority, |level| level.priority);
        let at = at.unwrap_or_else(|at| {
            levels.insert(at, Level { priority, endpoints: 0, healthy: 0, weight: 0 });
            at
        });
        let level = &mut levels[at];
        level.endpoints += 1;
        if *healthy {
            level.healthy += 1;
            level.weight += endpoint.weight;
        }
    }
    levels
}

/// What each of `levels` gets of [`WHOLE`], if one spills over with fewer than `percent` healthy.
fn loads(levels: &[Level], percent: u64) -> Vec<u64> {
    let health =
        |level: &Level| part(WHOLE, level.healthy * 100, level.endpoints * percent).min(WHOLE);
    let healths: Vec<u64> = levels.iter().map(health).collect();
    let total = healths.iter().sum::<u64>().min(WHOLE);
    let mut left = WHOLE;
    let load = |health: u64| {
        let load = if total == 0 { 0 } else { part(WHOLE, health, total).min(left) };
        left -= load;
        load
    };
    healths.into_iter().map(load).collect()
}

/// `of * numerator / denominator`, rounded down; `denominator` is above 0.
fn part(of: u64, numerator: u64, denominator: u64) -> u64 {
    let part = u128::from(of) * u128::from(numerator) / u128::from(denominator);
    u64::try_from(part).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FAILOVER: LocalityMode = LocalityMode::Failover { spill_over_below: 70 };

    /// Endpoints of weight 1: for each priority, how many are healthy and how many are not.
    fn standing(levels: &[(usize, usize)]) -> (Vec<Standing>, Vec<bool>) {
        let mut endpoints = Vec::new();
        let mut view = Vec::new();
        for (priority, (healthy, broken)) in (0..).zip(levels) {
            endpoints
                .extend(vec![Standing { priority: Some(priority), weight: 1 }; healthy + broken]);
            view.extend((0..healthy + broken).map(|at| at < *healthy));
        }
        (endpoints, view)
    }

    /// What each priority gets, in percent, rounded.
    fn percents(mode: LocalityMode, levels: &[(usize, usize)]) -> Vec<u64> {
        let (endpoints, view) = standing(levels);
        let shares = shares(mode, &endpoints, &view);
        let of = |priority| -> u64 {
            let of = endpoints.iter().zip(&shares).filter(|(it, _)| it.priority == Some(priority));
            of.map(|(_, share)| share).sum()
        };
        let count = u32::try_from(levels.len()).expect("few");
        (0..count).map(|priority| (of(priority) * 100 + WHOLE / 2) / WHOLE).collect()
    }

    #[test]
    fn the_first_priority_gets_everything_while_enough_of_it_is_healthy() {
        assert_eq!(percents(FAILOVER, &[(10, 0), (10, 0)]), [100, 0]);
        assert_eq!(percents(FAILOVER, &[(7, 3), (10, 0)]), [100, 0]);
        assert_eq!(percents(FAILOVER, &[(6, 4), (10, 0)]), [86, 14]);
        assert_eq!(percents(FAILOVER, &[(5, 5), (10, 0)]), [71, 29]);
        assert_eq!(percents(FAILOVER, &[(1, 9), (10, 0)]), [14, 86]);
        assert_eq!(percents(FAILOVER, &[(0, 10), (10, 0)]), [0, 100]);
    }

    #[test]
    fn what_one_lacks_goes_to_the_next_and_what_all_lack_is_made_up() {
        // The examples in Envoy's documentation, at its factor of 1.4.
        let envoy = |levels| {
            // 1 / 1.4 is 71.4 %; healths of 25 % and 25 % are 35 and 35 of 100.
            percents(LocalityMode::Failover { spill_over_below: 71 }, levels)
        };
        assert_eq!(envoy(&[(1, 3), (1, 3), (4, 0)]), [35, 35, 30]);
        assert_eq!(envoy(&[(1, 3), (1, 3)]), [50, 50]);
        assert_eq!(envoy(&[(5, 95), (10, 90), (0, 100)]), [33, 67, 0]);
        assert_eq!(envoy(&[(0, 4), (0, 4), (1, 3)]), [0, 0, 100]);
    }

    #[test]
    fn nobody_healthy_means_nobody_gets_anything() {
        for mode in [FAILOVER, LocalityMode::Strict] {
            assert_eq!(percents(mode, &[(0, 3), (0, 2)]), [0, 0]);
            assert_eq!(shares(mode, &[], &[]), [0; 0]);
        }
    }

    #[test]
    fn strict_never_leaves_the_locality() {
        let here = |zone: &str| Locality {
            region: "eu".to_owned(),
            zone: Some(zone.to_owned()),
            subzone: None,
        };
        let place = |zone| Some(Place::Locality(here(zone)));
        let node = here("a");
        let mode = LocalityMode::Strict;
        let standing = |zone| Standing {
            priority: priority(mode, Some(&node), place(zone).as_ref()),
            weight: 3,
        };
        let endpoints = [standing("a"), standing("b"), standing("a")];
        assert_eq!(shares(mode, &endpoints, &[true; 3]), [WHOLE / 2, 0, WHOLE / 2]);
        assert_eq!(shares(mode, &endpoints, &[true, true, false]), [WHOLE, 0, 0]);
        assert_eq!(shares(mode, &endpoints, &[false, true, false]), [0; 3]);
    }

    #[test]
    fn endpoints_of_a_priority_share_by_weight() {
        let weights = [1, 2, 7];
        let endpoints = weights.map(|weight| Standing { priority: Some(4), weight });
        let shares = shares(FAILOVER, &endpoints, &[true; 3]);
        assert_eq!(shares, weights.map(|weight| WHOLE * weight / 10));
    }

    proptest! {
        #[test]
        fn all_connections_go_to_the_healthy_and_none_are_lost(
            members in prop::collection::vec((0_u32..5, 1_u64..=10_000, any::<bool>()), 1..60),
            spill_over_below in 1_u8..=100,
        ) {
            let mode = LocalityMode::Failover { spill_over_below };
            let standing = |(priority, weight, _): &(u32, u64, bool)| {
                Standing { priority: Some(*priority), weight: *weight }
            };
            let endpoints: Vec<Standing> = members.iter().map(standing).collect();
            let healthy: Vec<bool> = members.iter().map(|it| it.2).collect();
            let shares = shares(mode, &endpoints, &healthy);
            for (share, healthy) in shares.iter().zip(&healthy) {
                prop_assert!(*healthy || *share == 0);
            }
            let sum: u64 = shares.iter().sum();
            // Each division loses less than one unit.
            let rounding = 2 * members.len() as u64 + 10;
            if healthy.contains(&true) {
                prop_assert!(sum.abs_diff(WHOLE) <= rounding, "{sum}");
            } else {
                prop_assert_eq!(sum, 0);
            }
        }
    }
}
