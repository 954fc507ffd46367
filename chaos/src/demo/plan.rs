//! Which fault comes when, drawn from a seed.

use std::time::Duration;

use holdfast_lab::random::Random;

/// Shortest rest between two faults: shorter than a takeover takes, so that some hit one.
const SHORTEST_REST_US: u64 = 1_000;

/// Longest rest. The mean of 300 ms gives some 50 faults in 15 seconds, and leaves the worker
/// serving most of the time, as the real ones do.
const LONGEST_REST_US: u64 = 600_000;

/// Of this many faults, one is a graceful restart; the others are kills.
const RESTARTS_ONE_IN: u64 = 5;

/// What happens to the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `SIGKILL`.
    Kill,
    /// A graceful restart: `SIGHUP` to the supervisor.
    Restart,
}

/// An endless sequence of faults.
#[derive(Clone, Debug)]
pub struct Plan(Random);

impl Plan {
    /// The sequence that belongs to `seed`.
    pub const fn new(seed: u64) -> Self {
        Self(Random::new(seed))
    }

    /// The next fault, and the rest before it.
    pub const fn draw(&mut self) -> (Duration, Fault) {
        let rest = SHORTEST_REST_US + self.0.below(LONGEST_REST_US - SHORTEST_REST_US);
        let fault = if self.0.below(RESTARTS_ONE_IN) == 0 { Fault::Restart } else { Fault::Kill };
        (Duration::from_micros(rest), fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_faults_and_another_has_others() {
        let faults = |seed| {
            let mut plan = Plan::new(seed);
            (0..50).map(|_| plan.draw()).collect::<Vec<_>>()
        };
        assert_eq!(faults(1), faults(1));
        assert_ne!(faults(1), faults(2));
    }

    #[test]
    fn a_quarter_of_a_minute_has_more_than_twenty_kills_whatever_the_seed() {
        for seed in 0..10_000 {
            let (mut plan, mut elapsed, mut kills) = (Plan::new(seed), Duration::ZERO, 0);
            while elapsed < Duration::from_secs(15) {
                let (rest, fault) = plan.draw();
                elapsed += rest;
                kills += u32::from(fault == Fault::Kill);
            }
            assert!(kills > 21, "seed {seed}: {kills} kills");
        }
    }
}
