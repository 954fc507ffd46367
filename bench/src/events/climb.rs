//! From one rate to the next, until an event is lost or the clients can do no more.

use std::time::Duration;

use anyhow::ensure;
use holdfast_lab::{Lab, cgroup};
use holdfast_protocol::kernel::limit::DEFAULT_EVENT_BYTES;

use super::load::{Opened, open};
use super::place::Place;
use crate::connect::backend::Backends;
use crate::connect::case::Case;

/// The first rate, in connections a second, and how many times as much the next one is.
const FIRST: f64 = 10_000.0;
const GROWTH: f64 = 1.5;

/// Most rates: the last one is above what a processor can do.
const MOST_STEPS: usize = 16;

/// The share of a rate that the clients have to reach, for there to be a next one.
const REACHED: f64 = 0.95;

/// Steps that the clients go on for at the most that they can do: the buffer takes a while to run full.
const STAY: u32 = 3;

/// How long a buffer that nobody reads may take to run full: a second on an idle machine, or less.
const FILLING: Duration = Duration::from_secs(20);

/// One rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Connections a second that there were to be.
    pub wanted: f64,
    /// Those that there were.
    pub reached: f64,
    /// The share of the buffer that was in use at its end, in per cent.
    pub used: f64,
}

/// A climb.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ascent {
    /// The rates at which nothing was lost, in order.
    pub steps: Vec<Step>,
    /// The rate at which an event was lost; `None` if the clients could do no more before.
    pub lost_at: Option<f64>,
}

impl Ascent {
    /// The most connections a second of which every event was read.
    pub fn most(&self) -> Option<f64> {
        self.steps.iter().map(|step| step.reached).reduce(f64::max)
    }

    /// The rate that it ended at.
    pub fn summit(&self) -> Option<f64> {
        self.lost_at.or(self.most())
    }
}

/// Who climbs.
pub struct Climber<'a> {
    /// What is connected to.
    pub backends: &'a Backends,
    /// From where: what is told there is written to an access log.
    pub place: Place,
    /// How long a step is.
    pub step: Duration,
}

impl Climber<'_> {
    /// Climbs with connections of this kind.
    pub fn climb(&mut self, case: Case) -> anyhow::Result<Ascent> {
        cgroup::enter(&self.place.cgroup)?;
        let mut ascent = Ascent::default();
        let mut wanted = FIRST;
        while ascent.steps.len() < MOST_STEPS && ascent.lost_at.is_none() {
            let (mut opened, mut is_lost) = self.stay(case, wanted, self.step)?;
            let is_most = opened.rate() < wanted * REACHED;
            if is_most && !is_lost {
                (opened, is_lost) = self.stay(case, wanted, self.step * STAY)?;
            }
            if is_lost {
                ascent.lost_at = Some(opened.rate());
            } else {
                let used = self.place.waiting()? as f64 / f64::from(DEFAULT_EVENT_BYTES) * 100.0;
                ascent.steps.push(Step { wanted, reached: opened.rate(), used });
            }
            if is_most {
                break;
            }
            wanted *= GROWTH;
        }
        self.place.settle()?;
        Ok(ascent)
    }

    /// Stays at a rate for a time, or until an event is lost; whether one was.
    fn stay(&self, case: Case, rate: f64, time: Duration) -> anyhow::Result<(Opened, bool)> {
        let before = self.place.control().lost;
        let is_lost = || self.place.control().lost > before;
        let opened = open((self.backends, case), rate, time, is_lost)?;
        self.place.shorten_log()?;
        Ok((opened, is_lost()))
    }

    /// Ends supervisor and worker, opens connections until an event is lost, and starts them again. How
    /// many events the buffer had room for: each is as large as any other, whatever it is of.
    pub fn room(&mut self, lab: &Lab, case: Case) -> anyhow::Result<u64> {
        cgroup::enter(&self.place.cgroup)?;
        self.place.abandon()?;
        self.place.shorten_log()?;
        let before = self.place.control();
        let is_lost = || self.place.control().lost > before.lost;
        open((self.backends, case), f64::INFINITY, FILLING, is_lost)?;
        let after = self.place.control();
        ensure!(after.lost > before.lost, "a buffer that nobody reads does not run full");
        let told = after.told - before.told;
        self.place.resume(lab)?;
        self.place.settle()?;
        // Those that were told while nobody was there are in the log: what fits is not only counted.
        let lines = self.place.take_lines()?;
        ensure!(lines == told, "{told} events waited, and {lines} lines were written of them");
        Ok(told)
    }
}
