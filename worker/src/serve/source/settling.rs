//! Waiting until a save is complete. Pure.
//!
//! A configuration that is read half-way through a save may be valid all the same, and lack half of
//! the services. So it is read only after some quiet, which is short after a file was closed, and longer
//! while somebody may still be writing to it. What was put in the place of the configuration by renaming
//! it is complete, and is read at once.

use std::time::{Duration, Instant};

/// Quiet after a file was closed, made or removed, or renamed in a directory of files: the steps of one
/// save, and the files of one deployment, follow each other faster than that. And what each reading of
/// something that is replaced over and over has to wait, once [`AT_ONCE`] are used up.
pub const QUIET_AFTER_CLOSE: Duration = Duration::from_millis(30);

/// Quiet after something was written to a file that is still open, or after a change that was found
/// by looking and may still go on.
pub const QUIET_AFTER_WRITE: Duration = Duration::from_millis(300);

/// The longest that a stream of changes can put off reading.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// Readings that need not wait for each other: a worker that has just read what was there when it started
/// is no reason to put off a save, nor are two saves that happen to come together.
const AT_ONCE: u32 = 4;

/// A change on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The configuration, or a link on the way to it, is another one, which is complete.
    Replaced,
    /// Something is complete.
    Closed,
    /// Something may still be going on.
    Written,
}

/// Whether there is something to read, and when.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settling {
    waiting: Option<Wait>,
    /// When all readings so far will have had their [`QUIET_AFTER_CLOSE`], if each takes it after the other.
    paid: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Wait {
    since: Instant,
    until: Instant,
}

impl Settling {
    /// `change` was noticed at `now`. Returns when to ask [`is_settled`](Self::is_settled).
    pub fn notice(&mut self, change: Change, now: Instant) -> Instant {
        let quiet = match change {
            Change::Replaced => self.paid.map_or(Duration::ZERO, |paid| {
                let ahead = paid.saturating_duration_since(now);
                ahead.saturating_sub(QUIET_AFTER_CLOSE * (AT_ONCE - 1))
            }),
            Change::Closed => QUIET_AFTER_CLOSE,
            Change::Written => QUIET_AFTER_WRITE,
        };
        let since = self.waiting.map_or(now, |wait| wait.since);
        let until = (now + quiet).min(since + PATIENCE);
        self.waiting = Some(Wait { since, until });
        until
    }

    /// Whether it is time to read. It is so once for each wait.
    pub fn is_settled(&mut self, now: Instant) -> bool {
        let settled = self.waiting.is_some_and(|wait| wait.until <= now);
        if settled {
            self.waiting = None;
        }
        settled
    }

    /// It is read at `now`.
    pub fn reads(&mut self, now: Instant) {
        let paid = self.paid.map_or(now, |paid| paid.max(now));
        self.paid = Some(paid + QUIET_AFTER_CLOSE);
    }

    /// Whether a change is waiting to be read.
    #[must_use]
    pub const fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(10);

    #[test]
    fn a_burst_of_changes_is_read_once_after_it() {
        let start = Instant::now();
        let mut settling = Settling::default();
        assert!(!settling.is_settled(start + PATIENCE), "there is nothing to read");
        let first = settling.notice(Change::Closed, start);
        assert_eq!(first, start + QUIET_AFTER_CLOSE);
        let last = settling.notice(Change::Closed, start + TICK);
        assert!(!settling.is_settled(first));
        assert!(settling.is_settled(last));
        assert!(!settling.is_settled(last));
    }

    #[test]
    fn an_open_file_is_given_time_until_it_is_closed() {
        let start = Instant::now();
        let mut settling = Settling::default();
        assert_eq!(settling.notice(Change::Written, start), start + QUIET_AFTER_WRITE);
        let closed = settling.notice(Change::Closed, start + TICK);
        assert_eq!(closed, start + TICK + QUIET_AFTER_CLOSE);
        assert!(settling.is_settled(closed));
    }

    #[test]
    fn what_was_replaced_is_read_at_once_and_not_all_the_time() {
        let start = Instant::now();
        let mut settling = Settling::default();
        settling.notice(Change::Written, start);
        let now = start + TICK;
        for _ in 0..AT_ONCE {
            assert_eq!(settling.notice(Change::Replaced, now), now);
            assert!(settling.is_settled(now));
            settling.reads(now);
        }
        for readings in 1..10 {
            let next = now + QUIET_AFTER_CLOSE * readings;
            assert_eq!(settling.notice(Change::Replaced, now), next);
            assert!(!settling.is_settled(next - TICK));
            assert!(settling.is_settled(next));
            settling.reads(next);
        }
        assert_eq!(settling.notice(Change::Replaced, now + PATIENCE), now + PATIENCE);
    }

    #[test]
    fn changes_without_end_are_read_all_the_same() {
        let start = Instant::now();
        let mut settling = Settling::default();
        let mut now = start;
        while now < start + PATIENCE {
            settling.notice(Change::Written, now);
            assert!(!settling.is_settled(now));
            now += TICK;
        }
        assert!(settling.is_settled(now));
        assert!(!settling.is_waiting());
    }
}
