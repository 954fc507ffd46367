//! When the endpoints of one port of a service are ejected, and when they are back: a state machine
//! without clock or maps.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use holdfast_config::{FailureRate, OutlierEjection};

/// What the programs have counted under one number of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The number.
    pub number: u32,
    /// Connections that were established.
    pub established: u64,
    /// Attempts that were not.
    pub failed: u64,
    /// Attempts that failed since one was established.
    pub failing: u64,
}

/// Why an endpoint was ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// So many connections in a row failed.
    InARow(u64),
    /// Of so many attempts within that time so many failed.
    Rate {
        /// Those that failed.
        failed: u64,
        /// All of them.
        attempts: u64,
        /// The time.
        within: Duration,
    },
    /// The tables say so; nobody knows why.
    Former,
}

/// An endpoint that is out now and was not, or the other way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The endpoint.
    pub address: SocketAddr,
    /// Why it is out, and for how long; `None` when it is back.
    pub out: Option<(Cause, Duration)>,
}

/// The machine for one port of a service.
#[derive(Clone, Debug, Default)]
pub struct Detector {
    endpoints: BTreeMap<SocketAddr, Watched>,
}

#[derive(Clone, Debug, Default)]
struct Watched {
    out: Option<Out>,
    /// Ejections that still make the next one longer.
    times: u32,
    /// Since when it is back, or has been for each of `times` that was taken off.
    good_since: Option<Instant>,
    /// When the interval of the failure rate has begun.
    window: Option<Instant>,
    /// What had been counted under its numbers; empty while it is out.
    counted: Vec<Counted>,
}

#[derive(Clone, Copy, Debug)]
struct Out {
    cause: Cause,
    /// `None` for one that the tables said of: its time begins with the next step.
    until: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Counted {
    number: u32,
    /// Failures when the number was first seen: those are none of this worker's business.
    failed: u64,
    /// What had been established, and had failed, when the interval began.
    window: (u64, u64),
}

impl Detector {
    /// These are the endpoints from now on. Those that were among them before keep what is known.
    pub fn keep(&mut self, endpoints: impl IntoIterator<Item = SocketAddr>) {
        let mut former = std::mem::take(&mut self.endpoints);
        let known = |address| (address, former.remove(&address).unwrap_or_default());
        self.endpoints = endpoints.into_iter().map(known).collect();
    }

    /// These are endpoints too, and those of which it is said have been out already.
    pub fn meet(&mut self, address: SocketAddr, is_out: bool) {
        self.endpoints.entry(address).or_insert_with(|| Watched {
            out: is_out.then_some(Out { cause: Cause::Former, until: None }),
            times: u32::from(is_out),
            ..Watched::default()
        });
    }

    /// What has turned by `now`, the programs having counted `readings`.
    pub fn step(
        &mut self,
        settings: &OutlierEjection,
        readings: &BTreeMap<SocketAddr, Vec<Reading>>,
        now: Instant,
    ) -> Vec<Turn> {
        let mut turns = Vec::new();
        for (address, watched) in &mut self.endpoints {
            if watched.comes_back(settings, now) {
                turns.push(Turn { address: *address, out: None });
            }
        }
        self.lift(settings, now, &mut turns);
        let mut suspects = Vec::new();
        for (address, watched) in self.endpoints.iter_mut().filter(|(_, it)| it.out.is_none()) {
            let readings = readings.get(address).map_or(&[][..], Vec::as_slice);
            watched.forgive(settings, now);
            suspects.extend(watched.judge(settings, readings, now).map(|cause| (*address, cause)));
        }
        // When there is not room for all, those that fail most are out.
        suspects.sort_by_key(|(_, cause)| std::cmp::Reverse(cause.failures()));
        let room = self.ceiling(settings).saturating_sub(self.out());
        for (address, cause) in suspects.into_iter().take(room) {
            let watched = self.endpoints.get_mut(&address).expect("each suspect is an endpoint");
            let time = watched.eject(settings, cause, now);
            turns.push(Turn { address, out: Some((cause, time)) });
        }
        turns
    }

    /// Has those back that are too many, those first that would be soonest.
    fn lift(&mut self, settings: &OutlierEjection, now: Instant, turns: &mut Vec<Turn>) {
        let surplus = self.out().saturating_sub(self.ceiling(settings));
        let out = |(address, it): (&SocketAddr, &Watched)| Some((it.out?.until, *address));
        let mut all: Vec<_> = self.endpoints.iter().filter_map(out).collect();
        all.sort_unstable();
        for (_, address) in all.into_iter().take(surplus) {
            let watched = self.endpoints.get_mut(&address).expect("it is an endpoint");
            watched.readmit(now);
            turns.push(Turn { address, out: None });
        }
    }

    /// How many may be out at once: a share that is no whole number is rounded down.
    fn ceiling(&self, settings: &OutlierEjection) -> usize {
        self.endpoints.len() * usize::from(settings.max_ejected_percent) / 100
    }

    /// How many are out.
    #[must_use]
    pub fn out(&self) -> usize {
        self.endpoints.values().filter(|it| it.out.is_some()).count()
    }

    /// Whether this one is.
    #[must_use]
    pub fn is_out(&self, address: &SocketAddr) -> bool {
        self.endpoints.get(address).is_some_and(|it| it.out.is_some())
    }

    /// Why this one is out and for how long from `now` on, for people; `None` if it is not.
    #[must_use]
    pub fn reason(&self, address: &SocketAddr, now: Instant) -> Option<String> {
        let Out { cause, until } = self.endpoints.get(address)?.out?;
        Some(match until {
            Some(until) => {
                // Rounded up: one that is out is so for some time yet.
                let seconds = until.saturating_duration_since(now).as_millis().div_ceil(1000);
                format!("{cause}; until {seconds} s from now")
            }
            None => cause.to_string(),
        })
    }
}

impl Watched {
    /// Whether its time is over; then it is back.
    fn comes_back(&mut self, settings: &OutlierEjection, now: Instant) -> bool {
        let Some(out) = &mut self.out else { return false };
        let until = *out.until.get_or_insert(now + settings.base_time);
        if until > now {
            return false;
        }
        self.readmit(now);
        true
    }

    fn readmit(&mut self, now: Instant) {
        self.out = None;
        self.good_since = Some(now);
        // What comes late of attempts from before is none of its new life.
        self.counted.clear();
        self.window = None;
    }

    /// Takes one off `times` for each [`OutlierEjection::base_time`] that it has not been out.
    fn forgive(&mut self, settings: &OutlierEjection, now: Instant) {
        let since = self.good_since.get_or_insert(now);
        while self.times > 0 && now.saturating_duration_since(*since) >= settings.base_time {
            self.times -= 1;
            *since += settings.base_time;
        }
    }

    fn eject(&mut self, settings: &OutlierEjection, cause: Cause, now: Instant) -> Duration {
        let time = settings.base_time.saturating_mul(self.times + 1).min(settings.max_time);
        // More would not make it longer, and would take long to be forgiven.
        if time < settings.max_time || self.times == 0 {
            self.times += 1;
        }
        self.out = Some(Out { cause, until: Some(now + time) });
        self.counted.clear();
        time
    }

    /// Why it should be out, if it should.
    fn judge(
        &mut self,
        settings: &OutlierEjection,
        readings: &[Reading],
        now: Instant,
    ) -> Option<Cause> {
        self.counted.retain(|it| readings.iter().any(|reading| reading.number == it.number));
        let mut in_a_row = 0;
        let (mut established, mut failed) = (0, 0);
        for reading in readings {
            let counted = self.counted(reading);
            in_a_row = in_a_row.max(reading.failing.min(reading.failed - counted.failed));
            established += reading.established.saturating_sub(counted.window.0);
            failed += reading.failed.saturating_sub(counted.window.1);
        }
        let in_a_row = settings
            .consecutive_failures
            .filter(|most| in_a_row >= u64::from(*most))
            .map(|_| Cause::InARow(in_a_row));
        let rate = settings.failure_rate.filter(|rate| self.is_whole(rate, readings, now));
        in_a_row.or_else(|| exceeds(&rate?, established, failed))
    }

    /// What had been counted when the number of `reading` was first seen, and when the interval began.
    fn counted(&mut self, reading: &Reading) -> Counted {
        let Reading { number, established, failed, .. } = *reading;
        let new = Counted { number, failed, window: (established, failed) };
        match self.counted.iter_mut().find(|it| it.number == number) {
            // Counts that went back are those of a number that was given anew.
            Some(known) if known.failed > failed => *known = new,
            Some(known) => return *known,
            None => self.counted.push(new),
        }
        new
    }

    /// Whether an interval ends `now`; then the next one begins.
    fn is_whole(&mut self, rate: &FailureRate, readings: &[Reading], now: Instant) -> bool {
        let begun = *self.window.get_or_insert(now);
        if now.saturating_duration_since(begun) < rate.interval {
            return false;
        }
        self.window = Some(now);
        for counted in &mut self.counted {
            let now = readings.iter().find(|reading| reading.number == counted.number);
            counted.window = now.map_or(counted.window, |it| (it.established, it.failed));
        }
        true
    }
}

fn exceeds(rate: &FailureRate, established: u64, failed: u64) -> Option<Cause> {
    let attempts = established + failed;
    let is_enough = attempts >= u64::from(rate.min_attempts);
    let is_over = failed.saturating_mul(100) >= attempts.saturating_mul(rate.percent.into());
    let within = rate.interval;
    (is_enough && is_over).then_some(Cause::Rate { failed, attempts, within })
}

impl Cause {
    const fn failures(self) -> u64 {
        match self {
            Self::InARow(failed) | Self::Rate { failed, .. } => failed,
            Self::Former => 0,
        }
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::InARow(1) => f.write_str("a connection failed"),
            Self::InARow(failed) => write!(f, "{failed} connections failed in a row"),
            Self::Rate { failed, attempts, within } => {
                write!(f, "{failed} of {attempts} connections failed within {within:?}")
            }
            Self::Former => f.write_str("found ejected by the former worker"),
        }
    }
}
