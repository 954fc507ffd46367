//! Which endpoints drain in services that close what drains too long, and since when. Pure, apart from the maps.
//!
//! Since when an endpoint drains, and when its connections are to be closed, stands in its element of
//! `ENDPOINTS` and nowhere else. So the time goes on whoever restarts, and whoever closes connections goes by
//! the same word. An endpoint may have several numbers, those of former tables whose connections go on: each
//! is marked.
//!
//! To find them takes a look at every element. The element that is no endpoint's says whether there are any,
//! so that nobody looks who need not.

use std::collections::HashMap;
use std::time::Duration;

use holdfast_protocol::kernel::endpoint::{EndpointState, Live};
use holdfast_protocol::kernel::{Address, EndpointSlot, ServiceRecord};

use super::aside::Aside;
use super::tables::estate::{Reader, Stamp, Writer};

/// How soon it is asked again that connections be closed which still are there; it doubles each time. The first
/// is what closing takes on a slow machine.
const FIRST_PAUSE_NS: u64 = 1_000_000_000;
/// A datagram socket that was closed so counts until its owner closes it, which may be never.
const LONGEST_PAUSE_NS: u64 = 60_000_000_000;

const NANOSECONDS_PER_MILLISECOND: u64 = 1_000_000;

/// What an endpoint is called in the configuration: its service's name, the service's port and protocol, its own
/// address and port.
type Name = ([u8; 64], (u16, u8), (Address, u16));

/// The endpoints that drain, and how long their connections are left.
#[derive(Clone, Debug, Default)]
pub struct Wanted(HashMap<Name, Duration>);

/// An endpoint whose connections are to be closed some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Draining {
    number: u32,
    /// When that is.
    closes_ns: u64,
    /// When it is asked for next.
    ask_ns: u64,
    /// How long is waited then.
    pause_ns: u64,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub struct Drains(Vec<Draining>);

/// The endpoints that drain, by what they are called.
#[derive(Clone, Debug, Default)]
pub struct Closings(HashMap<Name, Closing>);

/// One of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closing {
    /// The numbers it has.
    pub numbers: Vec<u32>,
    /// When its connections are closed: the last of them, if those of its numbers are not at the same time. `None`
    /// if it has none.
    last_ns: Option<u64>,
}

/// An endpoint of which there is something to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct News {
    /// Which service's.
    pub record: ServiceRecord,
    /// What is known of it.
    pub state: EndpointState,
}

impl Wanted {
    /// Those of `aside`.
    #[must_use]
    pub fn of(aside: &[Aside]) -> Self {
        let named = |it: &Aside| {
            let there = (it.endpoint.address, it.endpoint.port_be);
            Some(((it.service, it.port, there), it.close_after?))
        };
        Self(aside.iter().filter_map(named).collect())
    }

    fn after(&self, record: &ServiceRecord, state: &EndpointState) -> Option<Duration> {
        let there = (state.address, state.port_be);
        self.0.get(&(record.service, (record.port_be, record.protocol), there)).copied()
    }
}

/// Whether any endpoint may be marked.
#[must_use]
pub fn is_any(maps: &impl Reader) -> bool {
    maps.endpoint(EndpointSlot::NO_STATE).drains_ns != 0
}

/// Takes the marks back from endpoints that are not `wanted`, of which nothing may be closed any more.
pub fn unmark<M: Reader + Writer>(maps: &mut M, wanted: &Wanted) {
    if !is_any(maps) {
        return;
    }
    for number in numbers(maps) {
        let state = maps.endpoint(number);
        if wanted.after(&maps.record(state.service), &state).is_none() {
            take_back(maps, number, &state);
        }
    }
}

/// Marks the endpoints that are `wanted`, those for the first time with `now_ns`, and takes the marks back from
/// others. Which ones there are, and which of them are new.
pub fn mark<M: Reader + Writer>(maps: &mut M, wanted: &Wanted, now_ns: u64) -> (Drains, Vec<News>) {
    let (mut drains, mut news) = (Drains::default(), Vec::new());
    match (is_any(maps), wanted.0.is_empty()) {
        (false, true) => return (drains, news),
        (false, false) => maps.stamp(EndpointSlot::NO_STATE, Stamp::Drains(now_ns)),
        (true, _) => {}
    }
    for number in numbers(maps) {
        let state = maps.endpoint(number);
        if state.is_untouched() {
            continue;
        }
        let record = maps.record(state.service);
        let Some(after) = wanted.after(&record, &state) else {
            take_back(maps, number, &state);
            continue;
        };
        let since = if state.drains_ns == 0 { now_ns } else { state.drains_ns };
        let closes_ns = since.saturating_add(nanoseconds(after));
        if state.drains_ns == 0 {
            maps.stamp(number, Stamp::Drains(since));
            news.extend((state.live != 0).then_some(News { record, state }));
        }
        if state.closes_ns != closes_ns {
            maps.stamp(number, Stamp::Closes(closes_ns));
        }
        drains.0.push(Draining::of(number, closes_ns));
    }
    if drains.0.is_empty() {
        maps.stamp(EndpointSlot::NO_STATE, Stamp::Drains(0));
    }
    (drains, news)
}

fn take_back(maps: &mut impl Writer, number: u32, state: &EndpointState) {
    if state.closes_ns != 0 {
        maps.stamp(number, Stamp::Closes(0));
    }
    if state.drains_ns != 0 {
        maps.stamp(number, Stamp::Drains(0));
    }
}

/// Those that are marked.
#[must_use]
pub fn marked(maps: &impl Reader) -> Drains {
    if !is_any(maps) {
        return Drains::default();
    }
    let closes = numbers(maps).map(|number| (number, maps.endpoint(number).closes_ns));
    let marked = closes.filter(|(_, closes_ns)| *closes_ns != 0);
    Drains(marked.map(|(number, closes_ns)| Draining::of(number, closes_ns)).collect())
}

impl Draining {
    const fn of(number: u32, closes_ns: u64) -> Self {
        Self { number, closes_ns, ask_ns: closes_ns, pause_ns: FIRST_PAUSE_NS }
    }
}

impl Drains {
    /// How many endpoints there are whose connections it is time to ask to have closed, and those of them that
    /// are asked about for the first time.
    pub fn ask(&mut self, maps: &impl Reader, now_ns: u64) -> (u32, Vec<News>) {
        // What has no connection any more, and what is another endpoint's by now, is over.
        self.0.retain(|it| {
            let state = maps.endpoint(it.number);
            it.closes_ns > now_ns || state.live != 0 && state.closes_ns == it.closes_ns
        });
        let (mut count, mut news) = (0, Vec::new());
        for it in self.0.iter_mut().filter(|it| it.ask_ns <= now_ns) {
            let state = maps.endpoint(it.number);
            if it.ask_ns == it.closes_ns {
                news.push(News { record: maps.record(state.service), state });
            }
            it.ask_ns = now_ns.saturating_add(it.pause_ns);
            it.pause_ns = (2 * it.pause_ns).min(LONGEST_PAUSE_NS);
            count += 1;
        }
        (count, news)
    }

    /// When the connections of each are closed.
    #[must_use]
    pub fn closings(&self, maps: &impl Reader) -> Closings {
        let mut closings: HashMap<Name, Closing> = HashMap::new();
        for it in &self.0 {
            let state = maps.endpoint(it.number);
            let record = maps.record(state.service);
            let there = (state.address, state.port_be);
            let name = (record.service, (record.port_be, record.protocol), there);
            let closing = closings.entry(name).or_default();
            closing.numbers.push(it.number);
            if state.live != 0 {
                closing.last_ns = closing.last_ns.max(Some(it.closes_ns));
            }
        }
        Closings(closings)
    }

    /// When to ask next; `None` for never.
    #[must_use]
    pub fn next_ns(&self) -> Option<u64> {
        self.0.iter().map(|it| it.ask_ns).min()
    }
}

impl Closings {
    /// That of `aside`, if it has a number.
    #[must_use]
    pub fn of(&self, aside: &Aside) -> Option<&Closing> {
        let there = (aside.endpoint.address, aside.endpoint.port_be);
        self.0.get(&(aside.service, aside.port, there))
    }
}

impl Closing {
    /// How long it is at `now_ns` until its connections are closed, in milliseconds, begun ones counted as whole;
    /// `None` if it has none.
    #[must_use]
    pub fn left_ms(&self, now_ns: u64) -> Option<u64> {
        Some(self.last_ns?.saturating_sub(now_ns).div_ceil(NANOSECONDS_PER_MILLISECOND))
    }
}

impl News {
    /// How many connections the endpoint has, and attempts at one.
    #[must_use]
    pub const fn connections(&self) -> u32 {
        let live = Live(self.state.live);
        live.open().saturating_add(live.pending())
    }
}

/// The numbers that endpoints can have.
fn numbers(maps: &impl Reader) -> std::ops::Range<u32> {
    EndpointSlot::NO_STATE + 1..maps.capacity().endpoints
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
