//! How fast workers that fail are replaced.
//!
//! Two limits, because there are two ways to fail:
//!
//! - A worker that never gets as far as its grant (missing binary, refused estate, crash while it
//!   prepares) would fail the same way at once. The first [`FREE_FAILURES`] in a row are retried
//!   immediately, further ones after a delay that doubles up to [`LONGEST_DELAY`], with jitter so
//!   that the nodes of a cluster do not retry in step. One grant forgets them all.
//! - A worker that was granted and died has shown that its kind works, and every replacement
//!   counts. Those are only limited in number per time: a burst of [`BURST`], then one every
//!   [`INTERVAL`]. Somebody who kills workers by hand or by plan never meets this limit; a worker
//!   that dies right after each grant costs the node a tenth of a core instead of all of it.

use std::time::Duration;

/// Failures in a row that are retried at once: enough for a binary that is just being replaced.
pub const FREE_FAILURES: u32 = 2;
/// The delay after that: longer than the few milliseconds an attempt takes, too short to notice.
pub const FIRST_DELAY: Duration = Duration::from_millis(100);
/// The longest delay: whoever repairs the cause without a reload waits no longer than this.
pub const LONGEST_DELAY: Duration = Duration::from_secs(30);
/// Replacements without any delay.
pub const BURST: u32 = 100;
/// One more replacement every so often: an attempt takes some 10 ms of one core.
pub const INTERVAL: Duration = Duration::from_millis(100);

/// When the next replacement may start.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pace {
    /// Failures to reach a grant since the last grant.
    failures: u32,
    /// No replacement before this time, because of `failures`.
    not_before: Duration,
    /// When the burst allowance would be whole again (the "theoretical arrival time" of the
    /// generic cell rate algorithm, ITU-T I.371: a token bucket that needs no refilling).
    whole_at: Duration,
    /// State of the jitter's generator; never 0.
    seed: u64,
}

impl Pace {
    /// A pace without a past. `seed` decides the jitter.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { failures: 0, not_before: Duration::ZERO, whole_at: Duration::ZERO, seed: seed | 1 }
    }

    /// When the next replacement may start; a time in the past means now.
    #[must_use]
    pub fn next(&self) -> Duration {
        self.not_before.max(self.whole_at.saturating_sub(INTERVAL * (BURST - 1)))
    }

    /// How many failed in a row.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// A replacement starts.
    pub fn started(&mut self, now: Duration) {
        self.whole_at = self.whole_at.max(now) + INTERVAL;
    }

    /// It failed before its grant.
    pub fn failed(&mut self, now: Duration) {
        self.failures = self.failures.saturating_add(1);
        let Some(doublings) = self.failures.checked_sub(FREE_FAILURES + 1) else {
            return;
        };
        let delay = FIRST_DELAY.saturating_mul(1 << doublings.min(16)).min(LONGEST_DELAY);
        self.not_before = now + self.jittered(delay);
    }

    /// It was granted.
    pub const fn granted(&mut self) {
        self.failures = 0;
        self.not_before = Duration::ZERO;
    }

    /// Somebody asked for a new worker: whatever was wrong may be mended.
    pub const fn forget(&mut self) {
        self.granted();
        self.whole_at = Duration::ZERO;
    }

    /// Between half of `delay` and all of it.
    fn jittered(&mut self, delay: Duration) -> Duration {
        // xorshift64 (Marsaglia 2003): enough to spread nodes, and the same on every machine.
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        let half = delay / 2;
        let part = u32::try_from(self.seed >> 48).expect("16 bits fit");
        half + half * part / u32::from(u16::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn the_first_failures_are_retried_at_once_and_the_delay_then_doubles_to_its_limit() {
        let mut pace = Pace::new(7);
        let mut delays = Vec::new();
        for _ in 0..20 {
            pace.failed(S(1000));
            delays.push(pace.next().saturating_sub(S(1000)));
        }
        assert_eq!(delays[..FREE_FAILURES as usize], [Duration::ZERO; FREE_FAILURES as usize]);
        for (n, delay) in delays[FREE_FAILURES as usize..].iter().enumerate() {
            let whole = FIRST_DELAY.saturating_mul(1 << n.min(16)).min(LONGEST_DELAY);
            assert!(*delay >= whole / 2 && *delay <= whole, "failure {n}: {delay:?}");
        }
    }

    #[test]
    fn a_grant_forgets_failures_and_a_reload_forgets_everything() {
        let mut pace = Pace::new(7);
        (0..10).for_each(|_| pace.failed(S(5)));
        assert!(pace.next() > S(5));
        pace.granted();
        assert_eq!(pace.next(), Duration::ZERO);

        (0..BURST + 5).for_each(|_| pace.started(S(5)));
        assert!(pace.next() > S(5));
        pace.forget();
        assert_eq!(pace.next(), Duration::ZERO);
    }

    #[test]
    fn ten_replacements_a_second_are_never_delayed() {
        let mut pace = Pace::new(7);
        for n in 0..10_000 {
            let now = S(1) + Duration::from_millis(100) * n;
            assert!(pace.next() <= now, "replacement {n}");
            pace.started(now);
        }
    }

    #[test]
    fn a_burst_is_not_delayed_and_what_follows_it_is() {
        let mut pace = Pace::new(7);
        for n in 0..BURST {
            assert!(pace.next() <= S(50), "replacement {n}");
            pace.started(S(50));
        }
        assert_eq!(pace.next(), S(50) + INTERVAL);
    }

    #[test]
    fn different_seeds_give_different_delays() {
        let delay = |seed| {
            let mut pace = Pace::new(seed);
            (0..8).for_each(|_| pace.failed(Duration::ZERO));
            pace.next()
        };
        assert_ne!(delay(11), delay(0x5eed_5eed_5eed));
    }
}
