//! From the ring buffer to the access log, and to whoever follows events live.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant, SystemTime};

use holdfast_bpf::BpfError;
use holdfast_bpf::mapped::plain;
use holdfast_config::{AccessLog, LogFormat};
use holdfast_protocol::control::WorkerAnswer;
use holdfast_protocol::kernel::event::{Event, Wanted, kind};
use nix::time::ClockId;

use super::line::{Line, Names};
use super::sink::Sink;
use crate::serve::policy;
use crate::serve::spread::logged;
use crate::serve::tables::desired::name;
use crate::serve::tables::estate::Reader as _;
use crate::serve::tables::maps::{Counters as _, GrantedMaps};

/// Events that are dealt with in one turn: a few milliseconds.
const BATCH: usize = 1024;

/// How long every event is told after somebody has asked for it. Whoever follows asks several times
/// a second.
const FOLLOWING: Duration = Duration::from_secs(3);

/// Events that are kept for those who follow, between two questions.
const RECENT: usize = 8192;

/// Bytes of lines in one answer, below [`MAX_RELAY_BYTES`](holdfast_protocol::handover::MAX_RELAY_BYTES)
/// with what stands around them.
const ANSWER_BYTES: usize = 32 * 1024;

/// What a postcard string takes beside its text.
const TEXT_BYTES: usize = 5;

/// How soon it is looked again for events while some come, or somebody follows them; and how soon at most
/// while none do. Within the longest, a node has to open 140,000 connections a second from one moment to the
/// next to fill the buffer.
const SOON: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_millis(200);

/// What the access log is.
#[derive(Debug, Default)]
enum Log {
    /// What the worker before this one asked for goes on until it is known what the configuration says.
    #[default]
    Unknown,
    /// As configured, if there is one.
    Known(Option<AccessLog>),
}

/// What is done with events.
#[derive(Debug, Default)]
pub struct Events {
    log: Log,
    /// Until when somebody follows every event.
    followed_until: Option<Instant>,
    /// The newest events while somebody does, with the position behind each.
    recent: VecDeque<(u64, Line)>,
    /// The position behind the newest event that was looked at.
    position: u64,
    /// How many events had been told when none was left.
    seen: Option<u64>,
    /// Looks in a row that have found none.
    in_vain: u32,
    /// Up to where events are to be given up when their lines are written.
    written_up_to: Option<u64>,
    sink: Sink,
    /// Whether it was said that the access log cannot be written.
    is_broken: bool,
}

impl Events {
    /// The access log of `maps` is `log` from now on.
    pub fn configure(&mut self, log: Option<AccessLog>, maps: &mut GrantedMaps) {
        self.log = Log::Known(log);
        self.want(maps);
    }

    /// This worker reads the events of `maps` from now on. What somebody follows goes on until they have
    /// had time to ask again.
    pub fn begin(&mut self, maps: &GrantedMaps, now: Instant) {
        let is_followed = maps.events_wanted().all() != 0;
        let followed_until = is_followed.then_some(now + FOLLOWING);
        *self = Self { followed_until, ..Self::default() };
    }

    /// This worker reads none from now on. Lines that are not written are those of the next one.
    pub fn stop(&mut self) {
        *self = Self::default();
    }

    /// Whether it is known what the configuration says of the access log.
    #[must_use]
    pub const fn is_configured(&self) -> bool {
        matches!(self.log, Log::Known(_))
    }

    /// Deals with the events that wait, as far as one turn goes. Returns when to look again; `None` while
    /// nobody asks for any.
    ///
    /// # Errors
    ///
    /// When the ring buffer cannot be read.
    pub fn turn(
        &mut self,
        maps: &mut GrantedMaps,
        now: Instant,
    ) -> Result<Option<Duration>, BpfError> {
        if self.followed_until.is_some_and(|until| until <= now) {
            self.followed_until = None;
            self.recent = VecDeque::new();
        }
        let wanted = self.want(maps);
        if !self.is_written(maps)? {
            return Ok(Some(SOON));
        }
        let told = maps.event_control().told;
        if self.seen == Some(told) || self.seen.is_none() && told == 0 {
            if wanted != Wanted::default() {
                self.in_vain = self.in_vain.saturating_add(1);
                return Ok(Some(pause(self.in_vain, self.followed_until.is_some())));
            }
            // A worker that has less in its memory dies faster.
            maps.events().unmap();
            return Ok(None);
        }
        self.in_vain = 0;
        let events = self.take(maps)?;
        let is_whole = events < BATCH;
        self.seen = is_whole.then_some(told);
        self.is_written(maps)?;
        Ok(Some(if is_whole { SOON } else { Duration::ZERO }))
    }

    /// Somebody follows: has every event told for a while, from the next turn on.
    pub fn follow(&mut self, now: Instant) {
        self.followed_until = Some(now + FOLLOWING);
    }

    /// What has been told since `after`: at most one answer's worth, of `service` if it is named.
    #[must_use]
    pub fn answer(
        &self,
        after: Option<u64>,
        service: &str,
        format: LogFormat,
        lost: u64,
    ) -> WorkerAnswer {
        let (mut lines, mut left) = (Vec::new(), ANSWER_BYTES);
        let Some(after) = after else {
            return WorkerAnswer::Trace { lines, after: self.position, more: false, lost };
        };
        // Positions start anew with an estate that is built anew.
        let mut reached = after.min(self.position);
        let start = self.recent.partition_point(|(position, _)| *position <= reached);
        for (position, line) in self.recent.iter().skip(start) {
            if service.is_empty() || line.service == service {
                let mut text = String::new();
                line.write(format, &mut text);
                text.truncate(text.trim_end().len());
                let Some(rest) = left.checked_sub(text.len() + TEXT_BYTES) else {
                    return WorkerAnswer::Trace { lines, after: reached, more: true, lost };
                };
                left = rest;
                lines.push(text);
            }
            reached = *position;
        }
        WorkerAnswer::Trace { lines, after: self.position.max(reached), more: false, lost }
    }

    /// Asks for the events that are wanted, and returns which those are.
    fn want(&self, maps: &mut GrantedMaps) -> Wanted {
        let all = if self.followed_until.is_some() { kind::ALL } else { 0 };
        let (sample, kinds) = match &self.log {
            Log::Known(Some(log)) => logged(&log.entries),
            Log::Known(None) => (0, 0),
            Log::Unknown => {
                let former = maps.events_wanted();
                (former.sample(), former.logged())
            }
        };
        let wanted = Wanted::new(all, kinds, sample);
        maps.want_events(wanted);
        wanted
    }

    /// Takes a batch of events in, and returns how many there were.
    fn take(&mut self, maps: &mut GrantedMaps) -> Result<usize, BpfError> {
        let mut events = Vec::new();
        let position = maps.events().peek(BATCH, |position, record| {
            // What is shorter is of another build.
            events.extend(plain::<Event>(record).map(|event| (position, event)));
        })?;
        let format = match &self.log {
            Log::Known(Some(log)) => log.format,
            Log::Known(None) | Log::Unknown => LogFormat::default(),
        };
        let (began, names) = (began(), Known::of(maps, &events));
        let mut lines = String::new();
        for (position, event) in &events {
            let line = Line::new(event, began, &names);
            if event.is_logged != 0 {
                line.write(format, &mut lines);
            }
            if self.followed_until.is_some() {
                if self.recent.len() == RECENT {
                    self.recent.pop_front();
                }
                self.recent.push_back((*position, line));
            }
        }
        self.sink.push(&lines);
        (self.position, self.written_up_to) = (position, Some(position));
        Ok(events.len())
    }

    /// Writes what waits to be written, and gives up the events it is of. Returns whether nothing waits.
    fn is_written(&mut self, maps: &mut GrantedMaps) -> Result<bool, BpfError> {
        match self.sink.flush() {
            Ok(true) => self.is_broken = false,
            Ok(false) => return Ok(false),
            Err(error) => {
                if !std::mem::replace(&mut self.is_broken, true) {
                    tracing::error!(%error, "the access log cannot be written, and its lines are lost");
                }
                self.sink.clear();
            }
        }
        if let Some(position) = self.written_up_to.take() {
            maps.events().give_up(position)?;
        }
        Ok(true)
    }
}

/// How long after so many looks in vain the next one comes: each wakes a worker up.
fn pause(in_vain: u32, is_followed: bool) -> Duration {
    if is_followed { SOON } else { SOON.saturating_mul(in_vain).clamp(SOON, LONGEST) }
}

/// When `CLOCK_MONOTONIC` was 0, by the clock that people read.
fn began() -> SystemTime {
    let monotonic = ClockId::CLOCK_MONOTONIC.now().map_or(Duration::ZERO, Duration::from);
    SystemTime::now() - monotonic
}

/// The names of what a batch of events has numbers for.
struct Known {
    services: HashMap<u32, (String, String)>,
    policies: HashMap<u32, String>,
}

impl Known {
    fn of(maps: &GrantedMaps, events: &[(u64, Event)]) -> Self {
        let (mut services, mut has_policies) = (HashMap::new(), false);
        let capacity = maps.capacity().services;
        for (_, event) in events {
            has_policies |= event.policy != Event::NO_POLICY;
            if event.service < capacity {
                services.entry(event.service).or_insert_with(|| {
                    let record = maps.record(event.service);
                    (name(&record.service), name(&record.port_name))
                });
            }
        }
        // All of them are read back for one: it is done only when there is one.
        let policies = if has_policies { policy::plan::observe(maps) } else { Vec::new() };
        let policies = policies.into_iter().map(|record| (record.number, record.name)).collect();
        Self { services, policies }
    }
}

impl Names for Known {
    fn service(&self, number: u32) -> Option<(String, String)> {
        self.services.get(&number).cloned()
    }

    fn policy(&self, number: u32) -> Option<String> {
        self.policies.get(&number).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_of_which_nothing_is_told_is_looked_at_less_often() {
        assert_eq!([0, 1, 2, 3].map(|looks| pause(looks, false)), [SOON, SOON, SOON * 2, SOON * 3]);
        assert_eq!([4, u32::MAX].map(|looks| pause(looks, false)), [LONGEST; 2]);
        // Whoever follows waits for each event.
        assert_eq!(pause(u32::MAX, true), SOON);
    }
}
