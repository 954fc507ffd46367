//! Connections a second. Pure.
//!
//! A token bucket, kept as one word by the generic cell rate algorithm (ITU-T I.371): the word says when
//! the next connection would be on time at the rate. One that comes at most a bucket's depth before is
//! taken, and moves the word by one interval.

use holdfast_protocol::kernel::AffinityKey;

/// How often a word is exchanged that others exchange at the same moment. Each time one of them gets on;
/// who loses them all is refused.
pub const TRIES: u32 = 8;

/// Where the words are.
pub trait Rates {
    /// A word.
    type Word: Copy;

    /// The word of a service; `None` if there is no such service.
    fn of_service(&self, service: u32) -> Option<Self::Word>;
    /// The word of a client, which is made with a full bucket at `now` if it is not there; `None` if there
    /// is no room.
    fn of_client(&self, key: &AffinityKey, now: u64) -> Option<Self::Word>;
    /// What it says.
    fn read(&self, word: Self::Word) -> u64;
    /// Makes it say `to` if it says `from`. Returns whether it did.
    fn exchange(&self, word: Self::Word, from: u64, to: u64) -> bool;
}

/// A bound on connections a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Connections a second; 0 for no bound.
    pub rate: u32,
    /// How many may come at once.
    pub burst: u32,
}

impl Rate {
    /// What the word is to say after a connection at `now`, when it says `next`, and whether the
    /// connection is taken.
    ///
    /// A word that is further ahead than the bucket is deep is of another rate, or of a service that had
    /// the number before: the bucket is empty then, and not more than that.
    #[inline(always)]
    #[must_use]
    pub const fn after(self, next: u64, now: u64) -> (u64, bool) {
        const NANOSECONDS: u64 = 1_000_000_000;
        if self.rate == 0 {
            return (next, true);
        }
        let interval = NANOSECONDS / self.rate as u64;
        let last = now.saturating_add(interval.saturating_mul(self.burst as u64));
        if next > last {
            return (last, false);
        }
        let on_time = if next < now { now } else { next };
        let after = on_time.saturating_add(interval);
        if after > last { (next, false) } else { (after, true) }
    }
}

/// Takes a connection at `now` from the bucket at `word`. Returns whether there was one.
#[inline(always)]
pub fn take<R: Rates>(rates: &R, word: R::Word, rate: Rate, now: u64) -> bool {
    for _ in 0..TRIES {
        let next = rates.read(word);
        let (after, is_taken) = rate.after(next, now);
        if after == next || rates.exchange(word, next, after) {
            return is_taken;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// How many of `tries` connections are taken that come `apart` nanoseconds apart from `from` on.
    fn taken(rate: Rate, next: &mut u64, from: u64, apart: u64, tries: u64) -> u64 {
        let mut taken = 0;
        for number in 0..tries {
            let (after, is_taken) = rate.after(*next, from + number * apart);
            *next = after;
            taken += u64::from(is_taken);
        }
        taken
    }

    #[test]
    fn a_burst_passes_at_once_and_then_the_rate() {
        let rate = Rate { rate: 100, burst: 5 };
        let mut next = 0;
        assert_eq!(taken(rate, &mut next, SECOND, 0, 50), 5);
        // A thousand in a second: those that are on time, and none saved up.
        assert_eq!(taken(rate, &mut next, SECOND, SECOND / 1000, 1000), 99);
        // The bucket fills up again and no further.
        assert_eq!(taken(rate, &mut next, 100 * SECOND, 0, 50), 5);
    }

    #[test]
    fn without_a_bound_everything_passes() {
        let mut next = 7;
        assert_eq!(taken(Rate { rate: 0, burst: 0 }, &mut next, SECOND, 0, 1000), 1000);
    }

    #[test]
    fn a_word_of_another_rate_is_an_empty_bucket_at_most() {
        let rate = Rate { rate: 10, burst: 10 };
        for mut next in [u64::MAX, 1000 * SECOND] {
            assert_eq!(taken(rate, &mut next, SECOND, 0, 5), 0);
            assert_eq!(next, 2 * SECOND);
            assert_eq!(taken(rate, &mut next, SECOND + SECOND / 10, 0, 5), 1);
            assert_eq!(taken(rate, &mut next, 2 * SECOND, 0, 50), 9);
        }
    }

    /// Somebody else exchanges the word before each of the first `lost` exchanges.
    struct Contended {
        word: Cell<u64>,
        lost: Cell<u32>,
    }

    impl Rates for Contended {
        type Word = ();

        fn of_service(&self, _service: u32) -> Option<()> {
            Some(())
        }
        fn of_client(&self, _key: &AffinityKey, _now: u64) -> Option<()> {
            Some(())
        }
        fn read(&self, (): ()) -> u64 {
            self.word.get()
        }
        fn exchange(&self, (): (), from: u64, to: u64) -> bool {
            if self.lost.get() > 0 {
                self.lost.set(self.lost.get() - 1);
                self.word.set(self.word.get() + 1);
            }
            let is_same = self.word.get() == from;
            if is_same {
                self.word.set(to);
            }
            is_same
        }
    }

    #[test]
    fn who_loses_an_exchange_tries_again_and_is_refused_in_the_end() {
        let rate = Rate { rate: 100, burst: 100 };
        let with = |lost| Contended { word: Cell::new(SECOND), lost: Cell::new(lost) };
        assert!(take(&with(TRIES - 1), (), rate, SECOND));
        assert!(!take(&with(TRIES), (), rate, SECOND));
    }
}
