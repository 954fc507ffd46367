//! Endpoints come and go, and change their weights.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use holdfast_lab::LabError;
use holdfast_lab::random::Random;

use super::configuration::{Configuration, Weights};
use crate::run::stopwatch::Stopwatch;

/// An endpoint that was removed stays away at least this long, in microseconds: ten times the usual
/// grace after a removal, so that most of the time it is an error to reach it.
const LEAST_ABSENCE_US: u64 = 1_000_000;

/// Weights are drawn from 1 to this.
const LARGEST_WEIGHT: u64 = 10;

/// Longest sleep at a time, so that the end of a run is noticed.
const NAP: Duration = Duration::from_millis(50);

/// Saves until `stop`, at uniformly distributed distances of `mean_us` on average.
pub fn churn(
    configuration: &Configuration<'_>,
    stopwatch: Stopwatch,
    stop: &AtomicBool,
    (seed, mean_us): (u64, u64),
) -> Result<(), LabError> {
    let mut random = Random::new(seed);
    let mut next = stopwatch.now_us();
    loop {
        next += mean_us / 2 + random.below(mean_us);
        while stopwatch.now_us() < next {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            std::thread::sleep(stopwatch.until(next).min(NAP));
        }
        let now = stopwatch.now_us();
        configuration.save(|weights| change(weights, &mut random, now))?;
    }
}

/// One change; false when the one that was drawn is not possible now.
fn change(weights: &mut Weights<'_>, random: &mut Random, now_us: u64) -> bool {
    let endpoint = usize::try_from(random.below(weights.count() as u64)).expect("below a usize");
    match random.below(5) {
        0 | 1 => weights.remove(endpoint) || weights.add(endpoint, now_us, LEAST_ABSENCE_US),
        2 | 3 => weights.add(endpoint, now_us, LEAST_ABSENCE_US) || weights.remove(endpoint),
        _ => {
            let weight = 1 + random.below(LARGEST_WEIGHT);
            weights.reweight(endpoint, u16::try_from(weight).expect("at most 10"))
        }
    }
}
