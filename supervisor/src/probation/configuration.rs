//! Configurations: on trial, proved, set aside. Pure.

use std::time::Duration;

use holdfast_protocol::handover::{MAX_SET_ASIDE, SetAside};

use super::PROBATION;

/// How many workers a configuration may crash. One crash can be chance and two bad luck.
pub const CRASHES: u32 = 3;

/// What is known of configurations, each by its digest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trials {
    /// The newest that has proved itself; empty while none has.
    proved: String,
    trial: Option<Trial>,
    /// At most [`MAX_SET_ASIDE`], oldest first.
    set_aside: Vec<SetAside>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Trial {
    digest: String,
    /// How many workers crashed on it.
    crashes: u32,
    /// Since when it is in force without another one.
    since: Option<Duration>,
}

impl Trials {
    /// Goes on from what a predecessor knew.
    #[must_use]
    pub const fn resumed(proved: String, set_aside: Vec<SetAside>) -> Self {
        Self { proved, trial: None, set_aside }
    }

    /// A worker is about to parse the configuration `digest`. What has proved itself or is set aside
    /// gets no other trial.
    pub fn tried(&mut self, digest: &str) {
        let is_known = digest == self.proved || self.is_set_aside(digest) || self.tries(digest);
        if !is_known {
            self.trial = Some(Trial { digest: digest.to_owned(), crashes: 0, since: None });
        }
    }

    /// The worker that writes says that `digest` is in force.
    pub fn in_force(&mut self, digest: &str, now: Duration) {
        if let Some(trial) = self.trial.as_mut().filter(|trial| trial.digest == digest) {
            trial.since.get_or_insert(now);
        }
    }

    /// A worker that had tried `digest` crashed for `reason`. What is set aside because of it.
    pub fn crashed(&mut self, digest: &str, reason: &str) -> Option<&SetAside> {
        let trial = self.trial.as_mut().filter(|trial| trial.digest == digest)?;
        trial.crashes += 1;
        trial.since = None;
        if trial.crashes < CRASHES {
            return None;
        }
        let Trial { digest, .. } = self.trial.take()?;
        if self.set_aside.len() == MAX_SET_ASIDE {
            self.set_aside.remove(0);
        }
        self.set_aside.push(SetAside { digest, reason: reason.to_owned() });
        self.set_aside.last()
    }

    /// When the configuration on trial will have proved itself, if it goes on like this.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        Some(self.trial.as_ref()?.since? + PROBATION)
    }

    /// Ends a trial that is over at `now`; whether one was.
    pub fn pass(&mut self, now: Duration) -> bool {
        let over = self.due().is_some_and(|due| due <= now);
        if let Some(trial) = self.trial.take_if(|_| over) {
            self.proved = trial.digest;
        }
        over
    }

    /// The newest configuration that has proved itself; empty while none has.
    #[must_use]
    pub fn proved(&self) -> &str {
        &self.proved
    }

    /// Whether `digest` has to prove itself yet.
    #[must_use]
    pub fn tries(&self, digest: &str) -> bool {
        self.trial.as_ref().is_some_and(|trial| trial.digest == digest)
    }

    /// Whether `digest` is not to be tried again.
    #[must_use]
    pub fn is_set_aside(&self, digest: &str) -> bool {
        self.set_aside.iter().any(|other| other.digest == digest)
    }

    /// Those that are not to be tried again, oldest first.
    #[must_use]
    pub fn set_aside(&self) -> &[SetAside] {
        &self.set_aside
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn what_stays_in_force_proves_itself_and_crashes_do_not_count_from_then_on() {
        let mut trials = Trials::default();
        trials.tried("a");
        trials.in_force("a", S(10));
        trials.in_force("a", S(12));
        assert_eq!(trials.due(), Some(S(10) + PROBATION));
        assert!(!trials.pass(S(10)) && trials.tries("a"));
        assert!(trials.pass(S(10) + PROBATION));
        assert_eq!((trials.proved(), trials.due()), ("a", None));
        trials.tried("a");
        assert!((0..10).all(|_| trials.crashed("a", "x").is_none()));
    }

    #[test]
    fn three_crashes_set_a_configuration_aside_and_another_one_starts_anew() {
        let mut trials = Trials::default();
        trials.tried("a");
        assert!(trials.crashed("a", "x").is_none());
        trials.tried("b");
        for _ in 1..CRASHES {
            assert!(trials.crashed("b", "x").is_none());
            trials.tried("b");
        }
        let expected = SetAside { digest: "b".to_owned(), reason: "y".to_owned() };
        assert_eq!(trials.crashed("b", "y"), Some(&expected));
        assert!(trials.is_set_aside("b") && !trials.is_set_aside("a"));
        trials.tried("b");
        assert!(!trials.tries("b"), "it gets no new trial");
        trials.tried("a");
        assert!(trials.tries("a"));
    }

    #[test]
    fn a_crash_starts_the_time_anew() {
        let mut trials = Trials::default();
        trials.tried("a");
        trials.in_force("a", S(10));
        trials.crashed("a", "x");
        assert_eq!(trials.due(), None);
        trials.in_force("a", S(12));
        assert_eq!(trials.due(), Some(S(12) + PROBATION));
    }

    #[test]
    fn a_crash_on_something_else_does_not_count() {
        let mut trials = Trials::default();
        trials.tried("a");
        assert!((0..10).all(|_| trials.crashed("b", "x").is_none()));
        trials.in_force("b", S(1));
        assert_eq!(trials.due(), None);
    }

    #[test]
    fn the_newest_are_remembered() {
        let mut trials = Trials::default();
        for n in 0..=MAX_SET_ASIDE {
            let digest = n.to_string();
            trials.tried(&digest);
            (0..CRASHES).for_each(|_| drop(trials.crashed(&digest, "x").cloned()));
        }
        assert_eq!(trials.set_aside().len(), MAX_SET_ASIDE);
        assert!(!trials.is_set_aside("0") && trials.is_set_aside("1"));
    }
}
