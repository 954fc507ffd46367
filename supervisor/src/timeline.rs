//! How long each part of a takeover takes, measured where it happens. Pure: times come in.

use std::time::Duration;

use holdfast_protocol::control::Takeover;

use crate::takeover::{Cause, Word};

/// The moments of one takeover.
#[derive(Clone, Copy, Debug)]
pub struct Timeline {
    cause: Cause,
    noticed: Duration,
    decided: Duration,
    spawned: Duration,
    accepted: Duration,
    ready: Duration,
}

impl Timeline {
    /// A takeover that was decided at `decided` because of something noticed at `noticed`.
    #[must_use]
    pub const fn new(cause: Cause, noticed: Duration, decided: Duration) -> Self {
        Self { cause, noticed, decided, spawned: decided, accepted: decided, ready: decided }
    }

    /// The candidate's process runs.
    pub const fn spawned(&mut self, now: Duration) {
        self.spawned = now;
    }

    /// The candidate said something.
    pub const fn said(&mut self, word: &Word, now: Duration) {
        match word {
            Word::Accepted(_) => self.accepted = now,
            Word::Ready => self.ready = now,
            _ => {}
        }
    }

    /// How the takeover went, granted at `now`.
    #[must_use]
    pub fn granted(&self, now: Duration) -> Takeover {
        let between = |from: Duration, to: Duration| micros(to.saturating_sub(from));
        Takeover {
            reason: self.cause.as_str().to_owned(),
            detect_us: between(self.noticed, self.decided),
            spawn_us: between(self.decided, self.spawned),
            handover_us: between(self.spawned, self.accepted),
            ready_us: between(self.accepted, self.ready),
            grant_us: between(self.ready, now),
            total_us: between(self.noticed, now),
        }
    }
}

/// Whole microseconds of `time`.
#[must_use]
pub fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_add_up_to_the_whole() {
        let at = Duration::from_micros;
        let mut timeline = Timeline::new(Cause::Crash, at(100), at(110));
        timeline.spawned(at(130));
        timeline.said(&Word::Accepted(0), at(150));
        timeline.said(&Word::Accepted(1), at(160));
        timeline.said(&Word::Heartbeat { epoch: 0, progress: 1 }, at(165));
        timeline.said(&Word::Ready, at(200));
        let takeover = timeline.granted(at(250));
        assert_eq!(takeover.reason, "crash");
        let parts = [
            takeover.detect_us,
            takeover.spawn_us,
            takeover.handover_us,
            takeover.ready_us,
            takeover.grant_us,
        ];
        assert_eq!(parts, [10, 20, 30, 40, 50]);
        assert_eq!(takeover.total_us, parts.iter().sum::<u64>());
    }
}
