//! When which check is made, and what follows from its outcome: a state machine without clock or socket.
//!
//! Every target has at most one check under way, and all together at most [`MAX_UNDER_WAY`]: what is due
//! and finds no place waits, the one that was due first comes first. First checks are spread so that a
//! configuration of thousands of endpoints does not knock at all of them in one instant, and later ones
//! are [`jittered`](Checker::jitter) so that they never fall into step.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use holdfast_config::HealthCheck;

use super::target::{Change, Counts, Outcome, Target, Verdict, Watch};

/// Most checks at once: each takes a descriptor, of which a process has 1,024 by default, and 64 that hang
/// for the default timeout of a second still leave room for 320 such endpoints at the default interval.
pub const MAX_UNDER_WAY: usize = 64;

/// Between the first checks of two targets that are new at the same time.
const PACE: Duration = Duration::from_millis(1);

/// An interval is varied by up to one part in this many, to both sides.
const JITTER_PARTS: u32 = 10;

/// A number for a target, never used again: what comes late from a check of one that is gone is told
/// from what comes of one that is there again.
pub type Ticket = u64;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// These are the targets from now on. Those that were targets before keep what is known of them.
    Watch(Vec<Watch>),
    /// This check has ended.
    Ended(Ticket, Outcome),
    /// Time has passed.
    Tick,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Begin this check; its end has to be told.
    Begin(Ticket, Target, Arc<HealthCheck>),
    /// Break this check off; its end is of no interest.
    BreakOff(Ticket),
    /// Tell that this is another one.
    Tell(Change),
}

/// The machine. Times are those since some start.
#[derive(Debug, Default)]
pub struct Checker {
    targets: BTreeMap<Ticket, Watched>,
    tickets: HashMap<Target, Ticket>,
    /// When checks that are not under way are due; one entry for each such target.
    due: BTreeSet<(Duration, Ticket)>,
    under_way: usize,
    issued: Ticket,
    counts: Counts,
}

#[derive(Debug)]
struct Watched {
    target: Target,
    check: Arc<HealthCheck>,
    verdict: Verdict,
    /// Whether the next outcome decides, whatever the thresholds are.
    is_open: bool,
    /// Outcomes in a row that speak against the verdict.
    against: u8,
    /// The newest reason that was told.
    reason: String,
    stage: Stage,
    /// How many checks have begun.
    rounds: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Due at this time.
    Due(Duration),
    /// Under way since.
    UnderWay(Duration),
}

impl Checker {
    /// What follows from `event` at `now`.
    pub fn step(&mut self, event: Event, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Watch(watches) => self.watch(watches, now, &mut actions),
            Event::Ended(ticket, outcome) => self.ended(ticket, outcome, now, &mut actions),
            Event::Tick => {}
        }
        self.begin(now, &mut actions);
        actions
    }

    /// When time makes a difference next: [`Event::Tick`] is due then, and not before.
    #[must_use]
    pub fn wake(&self) -> Option<Duration> {
        // Without a place, the end of a check comes first.
        let has_place = self.under_way < MAX_UNDER_WAY;
        self.due.first().filter(|_| has_place).map(|(due, _)| *due)
    }

    /// Checks that have ended since the start, those of targets that are gone included.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    fn watch(&mut self, watches: Vec<Watch>, now: Duration, actions: &mut Vec<Action>) {
        let mut former = std::mem::take(&mut self.tickets);
        let count = u32::try_from(watches.len()).unwrap_or(u32::MAX);
        let mut first_due = now;
        for Watch { target, check, prior } in watches {
            if self.tickets.contains_key(&target) {
                continue;
            }
            if let Some(ticket) = former.remove(&target) {
                self.keep(ticket, check, now);
                self.tickets.insert(target, ticket);
                continue;
            }
            self.issued += 1;
            let pace = PACE.min(check.interval / count.max(1));
            let watched = Watched {
                target: target.clone(),
                check,
                verdict: prior.verdict(),
                is_open: prior.is_open(),
                against: 0,
                reason: String::new(),
                stage: Stage::Due(first_due),
                rounds: 0,
            };
            self.due.insert((first_due, self.issued));
            self.targets.insert(self.issued, watched);
            self.tickets.insert(target, self.issued);
            first_due += pace;
        }
        for ticket in former.into_values() {
            self.drop_target(ticket, actions);
        }
    }

    /// Goes on with a target, checked as `check` says from now on.
    fn keep(&mut self, ticket: Ticket, check: Arc<HealthCheck>, now: Duration) {
        let watched = self.targets.get_mut(&ticket).expect("each ticket has a target");
        if watched.check == check {
            return;
        }
        // What spoke against it was found in another way, or counted to another threshold.
        watched.against = 0;
        watched.check = check;
        if let Stage::Due(due) = watched.stage {
            self.due.remove(&(due, ticket));
            let soon = due.min(now + Self::jitter(watched.check.interval, ticket, watched.rounds));
            watched.stage = Stage::Due(soon);
            self.due.insert((soon, ticket));
        }
    }

    fn drop_target(&mut self, ticket: Ticket, actions: &mut Vec<Action>) {
        let Some(watched) = self.targets.remove(&ticket) else { return };
        match watched.stage {
            Stage::Due(due) => {
                self.due.remove(&(due, ticket));
            }
            Stage::UnderWay(_) => {
                self.under_way -= 1;
                actions.push(Action::BreakOff(ticket));
            }
        }
    }

    fn ended(
        &mut self,
        ticket: Ticket,
        outcome: Outcome,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        // Of a target that is gone, or a check that has ended already.
        let Some(watched) = self.targets.get_mut(&ticket) else { return };
        let Stage::UnderWay(since) = watched.stage else { return };
        self.under_way -= 1;
        match outcome {
            Outcome::Passed => self.counts.passed += 1,
            Outcome::Failed(_) => self.counts.failed += 1,
            Outcome::Undecided(_) => self.counts.undecided += 1,
        }
        let interval = Self::jitter(watched.check.interval, ticket, watched.rounds);
        let due = (since + interval).max(now);
        watched.stage = Stage::Due(due);
        self.due.insert((due, ticket));
        actions.extend(watched.judge(outcome).map(Action::Tell));
    }

    /// Begins what is due, as far as there are places.
    fn begin(&mut self, now: Duration, actions: &mut Vec<Action>) {
        while self.under_way < MAX_UNDER_WAY
            && let Some((due, ticket)) = self.due.first().copied()
            && due <= now
        {
            self.due.pop_first();
            let watched = self.targets.get_mut(&ticket).expect("what is due is a target");
            watched.stage = Stage::UnderWay(now);
            watched.rounds += 1;
            self.under_way += 1;
            let (target, check) = (watched.target.clone(), Arc::clone(&watched.check));
            actions.push(Action::Begin(ticket, target, check));
        }
    }

    /// `interval`, varied by up to a tenth: the same for the same target and round.
    fn jitter(interval: Duration, ticket: Ticket, round: u64) -> Duration {
        let tenth = interval / JITTER_PARTS;
        // The finalizer of SplitMix64 (G. L. Steele et al., 2014): neighbours get unlike numbers.
        let mut word = ticket.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(round);
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let spread = u64::try_from(2 * tenth.as_micros()).unwrap_or(u64::MAX).max(1);
        interval - tenth + Duration::from_micros((word ^ (word >> 31)) % spread)
    }
}

impl Watched {
    /// Takes `outcome` into account; what is to be told about it.
    fn judge(&mut self, outcome: Outcome) -> Option<Change> {
        let (found, reason, threshold) = match outcome {
            // Nothing was found out: what was counted before still holds.
            Outcome::Undecided(_) => return None,
            Outcome::Passed => (Verdict::Healthy, String::new(), self.check.healthy_threshold),
            Outcome::Failed(reason) => (Verdict::Unhealthy, reason, self.check.unhealthy_threshold),
        };
        let was_open = std::mem::take(&mut self.is_open);
        let speaks_against = self.verdict != found;
        self.against = if speaks_against { self.against.saturating_add(1) } else { 0 };
        let turns = speaks_against && (was_open || self.against >= threshold);
        if turns {
            self.verdict = found;
            self.against = 0;
        }
        // One that goes on failing, for another reason, is news too.
        let is_news = turns || self.verdict == Verdict::Unhealthy && found == self.verdict;
        if !is_news || !turns && self.reason == reason {
            return None;
        }
        self.reason.clone_from(&reason);
        Some(Change { target: self.target.clone(), verdict: self.verdict, reason })
    }
}
