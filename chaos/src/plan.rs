//! Which fault comes when, drawn from a seed. Pure.
//!
//! Kills and storms come at exponentially distributed distances, whatever else goes on. All other
//! faults go on for a time and need time to be made good. They are dealt from a shuffled deck, so
//! that each kind comes up before any comes up again, to two hands: what one hand plays overlaps
//! what the other one plays, unless the two conflict.

use std::time::Duration;

use holdfast_lab::random::Random;
use serde::{Deserialize, Serialize};

use crate::fault::{Fault, Kind, Kinds};

/// Faults that go on at the same time, beside kills and storms: pairs are what composing is about,
/// and more leave too little time without any.
const HANDS: usize = 2;

/// Mean rest of a hand between two faults.
const MEAN_REST: Duration = Duration::from_millis(300);

/// Of this many light faults, one is a storm if both kinds are wanted.
const STORMS_ONE_IN: u64 = 8;

/// Reload requests in a storm.
const STORM: std::ops::RangeInclusive<u64> = 5..=50;

/// No fault begins in the first and the last moments: the begin shows what is normal.
const CALM: Duration = Duration::from_millis(500);

/// The clock jumps by at most this many seconds, forwards or back: ten years.
const FARTHEST_JUMP_S: u64 = 10 * 365 * 24 * 60 * 60;

/// Most faults in a plan: a bound for what is read from a file, far above a day at the highest rate.
pub const MAX_FAULTS: usize = 10_000_000;

/// What a plan is made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// Every choice follows from this.
    pub seed: u64,
    /// How long faults are injected, in milliseconds.
    pub duration_ms: u64,
    /// Which ones.
    pub kinds: Kinds,
    /// Mean distance of kills and storms, in microseconds.
    pub distance_us: u64,
}

/// A fault and its place in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// When it begins, in microseconds from the begin of the run.
    pub at_us: u64,
    /// How long it goes on, in microseconds; 0 for what is over at once.
    pub hold_us: u64,
    /// What.
    #[serde(flatten)]
    pub fault: Fault,
}

/// Faults in the order they begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// What it was made from.
    pub order: Order,
    /// The faults.
    pub faults: Vec<Planned>,
}

impl Plan {
    /// The plan that belongs to `order`.
    pub fn draw(order: Order) -> Self {
        let mut random = Random::new(order.seed);
        let mut faults = light(&order, &mut random);
        faults.extend(heavy(&order, &mut random));
        faults.sort_by_key(|planned| planned.at_us);
        Self { order, faults }
    }

    /// What a plan that was read from a file has to be for a run to end.
    pub fn check(&self) -> Result<(), String> {
        let end = us(Duration::from_millis(self.order.duration_ms));
        if self.faults.len() > MAX_FAULTS {
            return Err(format!("it has more than {MAX_FAULTS} faults"));
        }
        if !self.faults.is_sorted_by_key(|planned| planned.at_us) {
            return Err("its faults are not in the order of their instants".to_owned());
        }
        match self.faults.iter().find(|planned| planned.at_us.saturating_add(planned.hold_us) > end)
        {
            Some(late) => Err(format!("its fault at {} us ends after the run", late.at_us)),
            None => Ok(()),
        }
    }
}

/// Those that are over at once.
fn light(order: &Order, random: &mut Random) -> Vec<Planned> {
    let wanted: Vec<Kind> = order.kinds.iter().filter(|kind| kind.is_light()).collect();
    let mut faults = Vec::new();
    let (mut at, end) = (us(CALM), end_us(order));
    let mean = Duration::from_micros(order.distance_us);
    if wanted.is_empty() {
        return faults;
    }
    loop {
        at += exponential(mean, random).max(1);
        if at >= end || faults.len() >= MAX_FAULTS / 2 {
            return faults;
        }
        let kind = match wanted[..] {
            [only] => only,
            _ if random.below(STORMS_ONE_IN) == 0 => Kind::SighupStorm,
            _ => Kind::Kill,
        };
        faults.push(Planned { at_us: at, hold_us: 0, fault: choose(kind, random) });
    }
}

/// Those that go on for a time.
fn heavy(order: &Order, random: &mut Random) -> Vec<Planned> {
    let wanted: Vec<Kind> = order.kinds.iter().filter(|kind| !kind.is_light()).collect();
    let (mut faults, end): (Vec<Planned>, u64) = (Vec::new(), end_us(order));
    let mut free = [us(CALM); HANDS];
    let mut deck = Vec::new();
    while !wanted.is_empty() && faults.len() < MAX_FAULTS / 2 {
        if deck.is_empty() {
            deck = shuffled(&wanted, random);
        }
        let Some(kind) = deck.pop() else { break };
        let hand = usize::from(free[1] < free[0]);
        let (shortest, longest) = kind.hold();
        let spread = us(longest - shortest) + 1;
        let hold_us = us(shortest) + random.below(spread);
        let wished = free[hand] + exponential(MEAN_REST, random);
        let at_us = after_conflicts(&faults, kind, wished, hold_us);
        if at_us + hold_us + us(kind.settle()) > end {
            return faults;
        }
        free[hand] = at_us + hold_us + us(kind.settle());
        faults.push(Planned { at_us, hold_us, fault: choose(kind, random) });
    }
    faults
}

/// The first instant from `wished` on at which nothing goes on that `kind` conflicts with.
fn after_conflicts(faults: &[Planned], kind: Kind, wished: u64, hold_us: u64) -> u64 {
    let until = |fault: &Planned| fault.at_us + fault.hold_us + us(fault.fault.kind().settle());
    let mut at = wished;
    // Each time round moves past the end of at least one more fault.
    for _ in 0..=faults.len() {
        let own_end = at + hold_us + us(kind.settle());
        let overlapping = faults.iter().rev().take(RECENT).filter(|fault| {
            fault.at_us < own_end && until(fault) > at && kind.conflicts(fault.fault.kind())
        });
        match overlapping.map(until).max() {
            Some(end) => at = end,
            None => break,
        }
    }
    at
}

/// How many faults back one may still be going on: a hand plays one after the other, and waiting for
/// a conflict lets the other hand get ahead by no more than some.
const RECENT: usize = 64;

fn choose(kind: Kind, random: &mut Random) -> Fault {
    let draw = u32::try_from(random.word() >> u32::BITS).expect("the high half");
    match kind {
        Kind::Kill => Fault::Kill { draw },
        Kind::Stop => Fault::Stop,
        Kind::Hang => Fault::Hang,
        Kind::SighupStorm => {
            let count = STORM.start() + random.below(STORM.end() - STORM.start() + 1);
            Fault::SighupStorm { count: u32::try_from(count).expect("at most 50") }
        }
        Kind::SupervisorKill => Fault::SupervisorKill,
        Kind::BothKill => Fault::BothKill,
        Kind::SupervisorPause => Fault::SupervisorPause,
        Kind::SupervisorReplace => Fault::SupervisorReplace,
        Kind::UnlinkPins => Fault::UnlinkPins { draw: (random.below(2) == 0).then_some(draw) },
        Kind::DetachLink => Fault::DetachLink { draw },
        Kind::RemoveCgroup => Fault::RemoveCgroup,
        Kind::CorruptConfiguration => Fault::CorruptConfiguration { draw },
        Kind::TruncateConfiguration => Fault::TruncateConfiguration { draw },
        Kind::CorruptSnapshot => Fault::CorruptSnapshot { draw },
        Kind::TruncateSnapshot => Fault::TruncateSnapshot { draw },
        Kind::FullState => Fault::FullState,
        Kind::NoDescriptors => Fault::NoDescriptors,
        Kind::NoMemory => Fault::NoMemory,
        Kind::OutOfMemory => Fault::OutOfMemory,
        Kind::ClockJump => {
            let far = random.below(2 * FARTHEST_JUMP_S + 1).cast_signed();
            Fault::ClockJump { seconds: far - FARTHEST_JUMP_S.cast_signed() }
        }
    }
}

fn shuffled(kinds: &[Kind], random: &mut Random) -> Vec<Kind> {
    let mut deck = kinds.to_vec();
    for last in (1..deck.len()).rev() {
        let other = usize::try_from(random.below(last as u64 + 1)).expect("below a usize");
        deck.swap(last, other);
    }
    deck
}

/// An exponentially distributed time with this mean, in microseconds.
fn exponential(mean: Duration, random: &mut Random) -> u64 {
    // 53 bits fill a double; half a step up keeps the logarithm finite.
    let steps = 2.0_f64.powi(53);
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    let uniform = ((random.word() >> 11) as f64 + 0.5) / steps;
    us(mean.mul_f64(-uniform.ln()))
}

fn end_us(order: &Order) -> u64 {
    us(Duration::from_millis(order.duration_ms)).saturating_sub(us(CALM))
}

fn us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kinds() -> impl Strategy<Value = Kinds> {
        proptest::sample::subsequence(Kind::ALL.to_vec(), 1..=Kind::ALL.len()).prop_map(|kinds| {
            let names: Vec<&str> = kinds.into_iter().map(Kind::name).collect();
            names.join(",").parse().expect("names of kinds")
        })
    }

    fn orders() -> impl Strategy<Value = Order> {
        (any::<u64>(), 1_000..90_000_u64, kinds(), 50_000..10_000_000_u64).prop_map(
            |(seed, duration_ms, kinds, distance_us)| Order {
                seed,
                duration_ms,
                kinds,
                distance_us,
            },
        )
    }

    fn until(planned: &Planned) -> u64 {
        planned.at_us + planned.hold_us + us(planned.fault.kind().settle())
    }

    proptest! {
        #[test]
        fn an_order_always_gives_the_same_plan(order in orders()) {
            prop_assert_eq!(Plan::draw(order.clone()), Plan::draw(order));
        }

        #[test]
        fn a_plan_keeps_to_the_chosen_kinds_and_the_time(order in orders()) {
            let plan = Plan::draw(order);
            prop_assert_eq!(plan.check(), Ok(()));
            for planned in &plan.faults {
                let kind = planned.fault.kind();
                prop_assert!(plan.order.kinds.has(kind));
                let (shortest, longest) = kind.hold();
                prop_assert!((us(shortest)..=us(longest)).contains(&planned.hold_us));
                prop_assert!(planned.at_us >= us(CALM));
            }
        }

        #[test]
        fn what_conflicts_never_overlaps(order in orders()) {
            let plan = Plan::draw(order);
            for (n, one) in plan.faults.iter().enumerate() {
                for other in &plan.faults[n + 1..] {
                    let conflict = one.fault.kind().conflicts(other.fault.kind());
                    prop_assert!(!conflict || other.at_us >= until(one), "{one:?}, {other:?}");
                }
            }
        }

        #[test]
        fn a_plan_survives_being_written_and_read(order in orders()) {
            let plan = Plan::draw(order);
            let text = serde_json::to_string(&plan).expect("plain data");
            prop_assert_eq!(serde_json::from_str::<Plan>(&text).expect("as written"), plan);
        }
    }

    fn minute(seed: u64, kinds: &str, distance_us: u64) -> Plan {
        let kinds = kinds.parse().expect("names of kinds");
        Plan::draw(Order { seed, duration_ms: 60_000, kinds, distance_us })
    }

    #[test]
    fn another_seed_gives_another_plan() {
        assert_ne!(minute(1, "all", 500_000).faults, minute(2, "all", 500_000).faults);
    }

    #[test]
    fn a_minute_has_nearly_every_kind_and_faults_that_overlap() {
        for seed in 0..200 {
            let plan = minute(seed, "all", 500_000);
            let seen: std::collections::BTreeSet<Kind> =
                plan.faults.iter().map(|planned| planned.fault.kind()).collect();
            assert!(seen.len() >= Kind::ALL.len() - 5, "seed {seed}: {seen:?}");
            let heavy: Vec<&Planned> =
                plan.faults.iter().filter(|planned| !planned.fault.kind().is_light()).collect();
            assert!(heavy.windows(2).any(|pair| pair[1].at_us < until(pair[0])), "seed {seed}");
        }
    }

    #[test]
    fn the_rate_is_kept_on_average() {
        let plan = minute(7, "kill", 100_000);
        assert!((500..=700).contains(&plan.faults.len()), "{} of 600", plan.faults.len());
    }

    #[test]
    fn a_plan_that_cannot_end_is_refused() {
        let good = minute(7, "kill,hang", 1_000_000);
        assert_eq!(good.check(), Ok(()));
        let mut late = good.clone();
        late.faults.last_mut().expect("a minute has some").hold_us = u64::MAX;
        assert!(late.check().is_err());
        let mut unordered = good;
        unordered.faults.reverse();
        assert!(unordered.check().is_err());
    }
}
