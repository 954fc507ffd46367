//! The machine against a random world: targets come and go, checks end with anything, late or never.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use holdfast_config::{HealthCheck, Probe, WhenAllUnhealthy};
use proptest::prelude::*;

use super::checker::{Action, Checker, Event, MAX_UNDER_WAY, Ticket};
use super::target::{Change, Outcome, Prior, Target, Verdict, Watch};

const INTERVAL: Duration = Duration::from_secs(1);

fn check(healthy_threshold: u8, unhealthy_threshold: u8) -> Arc<HealthCheck> {
    Arc::new(HealthCheck {
        probe: Probe::Tcp,
        port: None,
        interval: INTERVAL,
        timeout: INTERVAL,
        healthy_threshold,
        unhealthy_threshold,
        when_all_unhealthy: WhenAllUnhealthy::UseAll,
    })
}

fn target(number: u16) -> Target {
    let address = ([127, 0, 0, 1], 1 + number).into();
    Target { service: Arc::from("web"), address }
}

fn watch(number: u16, prior: Prior) -> Watch {
    Watch { target: target(number), check: check(2, 3), prior }
}

fn failed(reason: &str) -> Outcome {
    Outcome::Failed(reason.to_owned())
}

/// One target, checked round after round.
struct One {
    checker: Checker,
    ticket: Ticket,
    now: Duration,
}

impl One {
    fn watched(prior: Prior) -> Self {
        let mut checker = Checker::default();
        let actions = checker.step(Event::Watch(vec![watch(0, prior)]), Duration::ZERO);
        let [Action::Begin(ticket, ..)] = actions[..] else { panic!("{actions:?}") };
        Self { checker, ticket, now: Duration::ZERO }
    }

    /// Ends the check that is under way, and begins the next; what was told.
    fn round(&mut self, outcome: Outcome) -> Option<(Verdict, String)> {
        let ended = self.checker.step(Event::Ended(self.ticket, outcome), self.now);
        self.now = self.checker.wake().expect("there is a next one");
        let begun = self.checker.step(Event::Tick, self.now);
        assert!(matches!(begun[..], [Action::Begin(ticket, ..)] if ticket == self.ticket));
        match &ended[..] {
            [] => None,
            [Action::Tell(Change { verdict, reason, .. })] => Some((*verdict, reason.clone())),
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn expect(&mut self, rounds: &[(Outcome, Option<Verdict>)]) {
        for (number, (outcome, expected)) in rounds.iter().enumerate() {
            let told = self.round(outcome.clone()).map(|(verdict, _)| verdict);
            assert_eq!(told, *expected, "round {number}: {outcome:?}");
        }
    }
}

#[test]
fn thresholds_count_outcomes_in_a_row() {
    let (passed, failed) = (Outcome::Passed, failed("refused"));
    let undecided = Outcome::Undecided("no descriptors".to_owned());
    One::watched(Prior::Healthy).expect(&[
        (failed.clone(), None),
        (failed.clone(), None),
        (passed.clone(), None),
        (failed.clone(), None),
        (failed.clone(), None),
        // Neither for nor against.
        (undecided.clone(), None),
        (failed.clone(), Some(Verdict::Unhealthy)),
        (passed.clone(), None),
        (failed.clone(), None),
        (passed.clone(), None),
        (undecided, None),
        (passed.clone(), Some(Verdict::Healthy)),
        (failed, None),
    ]);
}

#[test]
fn the_first_check_decides_where_nothing_is_known() {
    let (passed, failed) = (Outcome::Passed, failed("refused"));
    let undecided = Outcome::Undecided("no descriptors".to_owned());
    let unhealthy = Some(Verdict::Unhealthy);
    One::watched(Prior::Presumed).expect(&[(failed.clone(), unhealthy), (passed.clone(), None)]);
    One::watched(Prior::Presumed).expect(&[(passed.clone(), None), (failed.clone(), None)]);
    One::watched(Prior::Unchecked).expect(&[(failed.clone(), unhealthy), (passed.clone(), None)]);
    One::watched(Prior::Unchecked).expect(&[
        (undecided, None),
        (passed.clone(), Some(Verdict::Healthy)),
        (failed, None),
    ]);
}

#[test]
fn one_that_was_unhealthy_needs_the_whole_threshold() {
    One::watched(Prior::Unhealthy)
        .expect(&[(Outcome::Passed, None), (Outcome::Passed, Some(Verdict::Healthy))]);
}

#[test]
fn another_reason_is_told_and_the_same_is_not() {
    let mut one = One::watched(Prior::Unhealthy);
    let told = |reason: &str| Some((Verdict::Unhealthy, reason.to_owned()));
    assert_eq!(one.round(failed("refused")), told("refused"));
    assert_eq!(one.round(failed("refused")), None);
    assert_eq!(one.round(Outcome::Passed), None);
    assert_eq!(one.round(failed("refused")), None);
    assert_eq!(one.round(failed("answered 503")), told("answered 503"));
}

#[test]
fn a_target_that_stays_keeps_what_is_known_and_one_that_comes_again_does_not() {
    let mut one = One::watched(Prior::Healthy);
    one.expect(&[(failed("refused"), None), (failed("refused"), None)]);
    // It stays, whatever prior somebody has for it, and its third failure counts.
    let stay = vec![watch(1, Prior::Healthy), watch(0, Prior::Unchecked)];
    one.checker.step(Event::Watch(stay), one.now);
    let ended = one.checker.step(Event::Ended(one.ticket, failed("refused")), one.now);
    assert!(matches!(&ended[..], [Action::Tell(change)] if change.verdict == Verdict::Unhealthy));
    // It goes, and what still comes of its check is of no interest.
    let begun = one.checker.step(Event::Tick, one.now + 2 * INTERVAL);
    assert!(
        begun.iter().any(|it| matches!(it, Action::Begin(ticket, ..) if *ticket == one.ticket))
    );
    let gone = one.checker.step(Event::Watch(vec![watch(1, Prior::Healthy)]), one.now);
    assert_eq!(gone, [Action::BreakOff(one.ticket)]);
    let back = vec![watch(0, Prior::Healthy), watch(1, Prior::Healthy)];
    let back = one.checker.step(Event::Watch(back), one.now);
    assert!(matches!(back[..], [Action::Begin(ticket, ..)] if ticket != one.ticket), "{back:?}");
    assert_eq!(one.checker.step(Event::Ended(one.ticket, failed("late")), one.now), []);
}

#[test]
fn first_checks_are_spread_and_bounded() {
    const COUNT: u16 = 5000;
    let mut checker = Checker::default();
    let watches = (0..COUNT).map(|number| watch(number, Prior::Unchecked)).collect();
    let mut running: Vec<Ticket> = Vec::new();
    let mut begun = 0;
    let (mut now, mut most_at_once) = (Duration::ZERO, 0);
    let mut actions = checker.step(Event::Watch(watches), now);
    assert!(actions.len() < 10, "not all in one instant: {}", actions.len());
    while begun < COUNT {
        let here = actions.iter().filter_map(|action| match action {
            Action::Begin(ticket, ..) => Some(*ticket),
            _ => None,
        });
        let before = running.len();
        running.extend(here);
        begun += u16::try_from(running.len() - before).expect("few");
        most_at_once = most_at_once.max(running.len());
        // Every check takes half a second.
        actions = match checker.wake() {
            Some(due) => {
                now = due;
                checker.step(Event::Tick, now)
            }
            None => {
                now += INTERVAL / 2;
                running
                    .drain(..)
                    .flat_map(|it| checker.step(Event::Ended(it, Outcome::Passed), now))
                    .collect()
            }
        };
    }
    assert_eq!(most_at_once, MAX_UNDER_WAY);
    let none = checker.step(Event::Watch(Vec::new()), now);
    assert!(none.iter().all(|action| matches!(action, Action::BreakOff(_))));
    assert_eq!(checker.wake(), None);
}

#[test]
fn a_new_interval_counts_from_now() {
    let long = Arc::new(HealthCheck { interval: 3600 * INTERVAL, ..(*check(2, 3)).clone() });
    let with = |check: Arc<HealthCheck>| Watch { check, ..watch(0, Prior::Healthy) };
    let mut checker = Checker::default();
    let begun = checker.step(Event::Watch(vec![with(long)]), Duration::ZERO);
    let [Action::Begin(ticket, ..)] = begun[..] else { panic!("{begun:?}") };
    checker.step(Event::Ended(ticket, Outcome::Passed), Duration::ZERO);
    assert!(checker.wake().is_some_and(|wake| wake > 3000 * INTERVAL));
    checker.step(Event::Watch(vec![with(check(2, 3))]), Duration::ZERO);
    assert!(checker.wake().is_some_and(|wake| wake < 2 * INTERVAL));
}

/// Something a world does to a checker.
#[derive(Clone, Debug)]
enum Turn {
    /// The targets whose bits are set, each with a prior, are watched.
    Watch(u16, u8),
    /// The nth check that is under way ends.
    End(usize, Outcome),
    /// A check ends that is not under way, or never was.
    EndNone(Ticket),
    /// Milliseconds pass.
    Pass(u16),
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        3 => Just(Outcome::Passed),
        3 => "[ab]".prop_map(Outcome::Failed),
        1 => Just(Outcome::Undecided("no descriptors".to_owned())),
    ]
}

fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        1 => (any::<u16>(), any::<u8>()).prop_map(|(bits, prior)| Turn::Watch(bits, prior)),
        6 => (any::<usize>(), outcome()).prop_map(|(at, outcome)| Turn::End(at, outcome)),
        1 => (0_u64..200).prop_map(Turn::EndNone),
        4 => (0_u16..1500).prop_map(Turn::Pass),
    ]
}

/// What a world knows, and the machine has to keep to.
#[derive(Default)]
struct World {
    checker: Checker,
    now: Duration,
    watched: HashMap<Target, Verdict>,
    /// What is under way, and since when.
    under_way: BTreeMap<Ticket, (Target, Duration)>,
    last_begun: HashMap<Target, Duration>,
    ended: u64,
}

impl World {
    fn take(&mut self, turn: Turn) {
        let event = match turn {
            Turn::Watch(bits, prior) => {
                let priors = [Prior::Healthy, Prior::Presumed, Prior::Unchecked, Prior::Unhealthy];
                let prior = priors[usize::from(prior) % priors.len()];
                let numbers = (0..16).filter(|number| bits & 1 << number != 0);
                let watches: Vec<Watch> = numbers.map(|number| watch(number, prior)).collect();
                let former = std::mem::take(&mut self.watched);
                for Watch { target, .. } in &watches {
                    let known = former.get(target).copied();
                    self.watched.insert(target.clone(), known.unwrap_or(prior.verdict()));
                }
                self.last_begun.retain(|target, _| self.watched.contains_key(target));
                Event::Watch(watches)
            }
            Turn::End(at, outcome) => {
                let at = at.checked_rem(self.under_way.len()).unwrap_or(0);
                let Some(ticket) = self.under_way.keys().nth(at).copied() else { return };
                self.under_way.remove(&ticket);
                self.ended += 1;
                Event::Ended(ticket, outcome)
            }
            Turn::EndNone(ticket) if self.under_way.contains_key(&ticket) => return,
            Turn::EndNone(ticket) => Event::Ended(ticket, Outcome::Passed),
            Turn::Pass(milliseconds) => {
                self.now += Duration::from_millis(milliseconds.into());
                Event::Tick
            }
        };
        let actions = self.checker.step(event, self.now);
        for action in actions {
            self.see(action);
        }
        self.keeps_its_word();
    }

    fn see(&mut self, action: Action) {
        match action {
            Action::Begin(ticket, target, _) => {
                assert!(self.watched.contains_key(&target), "{target:?} is not watched");
                if let Some(last) = self.last_begun.insert(target.clone(), self.now) {
                    let apart = self.now - last;
                    assert!(apart >= INTERVAL * 9 / 10, "{target:?} again after {apart:?}");
                }
                self.under_way.insert(ticket, (target, self.now));
            }
            Action::BreakOff(ticket) => {
                let (target, _) = self.under_way.remove(&ticket).expect("it is under way");
                assert!(!self.watched.contains_key(&target), "{target:?} is watched");
            }
            Action::Tell(Change { target, verdict, reason }) => {
                let known = self.watched.get_mut(&target).expect("it is watched");
                assert_ne!(verdict, Verdict::Unchecked);
                assert_eq!(verdict == Verdict::Unhealthy, !reason.is_empty());
                assert!(*known != verdict || verdict == Verdict::Unhealthy);
                *known = verdict;
            }
        }
    }

    fn keeps_its_word(&self) {
        assert!(self.under_way.len() <= MAX_UNDER_WAY);
        let targets: BTreeSet<&Target> = self.under_way.values().map(|(it, _)| it).collect();
        assert_eq!(targets.len(), self.under_way.len(), "a target is checked twice at once");
        let counts = self.checker.counts();
        assert_eq!(counts.passed + counts.failed + counts.undecided, self.ended);
        // Nobody is forgotten: whoever is watched is under way, or will be.
        if self.under_way.len() < self.watched.len() {
            let wake = self.checker.wake().expect("somebody is due");
            assert!(wake > self.now, "what is due has begun");
        }
    }

    /// Everybody who is watched is checked, again and again.
    fn goes_on(&mut self) {
        for _ in 0..3 {
            let mut left: BTreeSet<Target> = self.watched.keys().cloned().collect();
            for _ in 0..100 {
                for ticket in self.under_way.keys().copied().collect::<Vec<_>>() {
                    left.remove(&self.under_way[&ticket].0);
                    self.take(Turn::End(
                        self.under_way.keys().position(|it| *it == ticket).expect("there"),
                        Outcome::Passed,
                    ));
                }
                self.take(Turn::Pass(100));
            }
            assert!(left.is_empty(), "{left:?}");
        }
        assert!(self.watched.values().all(|verdict| *verdict == Verdict::Healthy));
    }
}

proptest! {
    #[test]
    fn whatever_happens_the_machine_keeps_its_word(
        turns in prop::collection::vec(turn(), 1..200),
    ) {
        let mut world = World::default();
        for turn in turns {
            world.take(turn);
        }
        world.goes_on();
    }
}
