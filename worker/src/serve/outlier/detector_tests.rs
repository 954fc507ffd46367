//! When endpoints are out and when they are back, for stories that are told here and for any others.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use holdfast_config::{FailureRate, OutlierEjection};
use proptest::prelude::*;

use super::detector::{Cause, Detector, Reading, Turn};

const BASE: Duration = Duration::from_secs(30);
const LONGEST: Duration = Duration::from_secs(100);
const LOOK: Duration = Duration::from_millis(100);

fn settings(percent: u8) -> OutlierEjection {
    OutlierEjection {
        consecutive_failures: Some(3),
        failure_rate: None,
        base_time: BASE,
        max_time: LONGEST,
        max_ejected_percent: percent,
    }
}

fn by_rate() -> OutlierEjection {
    let interval = Duration::from_secs(10);
    let failure_rate = Some(FailureRate { percent: 50, min_attempts: 4, interval });
    OutlierEjection { consecutive_failures: None, failure_rate, ..settings(50) }
}

fn at(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// Endpoints at ports 0, 1, 2, and so on, what is counted of them, and who looks at it.
struct Scene {
    detector: Detector,
    settings: OutlierEjection,
    counts: BTreeMap<SocketAddr, Vec<Reading>>,
    start: Instant,
    now: Instant,
}

impl Scene {
    fn new(count: u16, settings: OutlierEjection) -> Self {
        let mut detector = Detector::default();
        (0..count).for_each(|port| detector.meet(at(port), false));
        let reading =
            |port| Reading { number: u32::from(port), established: 7, failed: 99, failing: 99 };
        let counts = (0..count).map(|port| (at(port), vec![reading(port)])).collect();
        let now = Instant::now();
        let mut scene = Self { detector, settings, counts, start: now, now };
        assert_eq!(scene.look(), [], "what is past is of no interest");
        scene
    }

    /// A connection to the endpoint `port` has come to something, or not.
    fn connect(&mut self, port: u16, is_established: bool) {
        let reading = &mut self.counts.get_mut(&at(port)).expect("an endpoint")[0];
        if is_established {
            (reading.established, reading.failing) = (reading.established + 1, 0);
        } else {
            (reading.failed, reading.failing) = (reading.failed + 1, reading.failing + 1);
        }
    }

    fn fail(&mut self, port: u16, times: u32) {
        (0..times).for_each(|_| self.connect(port, false));
    }

    fn look(&mut self) -> Vec<Turn> {
        self.now += LOOK;
        self.detector.step(&self.settings, &self.counts, self.now)
    }

    /// Looks once this much later; nothing turns before the last look.
    fn wait(&mut self, time: Duration) -> Vec<Turn> {
        let end = self.now + time;
        while self.now + 2 * LOOK <= end {
            assert_eq!(self.look(), [], "after {:?}", self.now - self.start);
        }
        self.look()
    }

    fn out(&self) -> Vec<u16> {
        let out = self.counts.keys().filter(|address| self.detector.is_out(address));
        out.map(SocketAddr::port).collect()
    }
}

fn out(port: u16, failures: u64, seconds: u64) -> Turn {
    Turn { address: at(port), out: Some((Cause::InARow(failures), Duration::from_secs(seconds))) }
}

fn back(port: u16) -> Turn {
    Turn { address: at(port), out: None }
}

#[test]
fn failures_in_a_row_eject_and_time_brings_back() {
    let mut scene = Scene::new(2, settings(50));
    scene.fail(0, 2);
    assert_eq!(scene.look(), []);
    scene.fail(0, 1);
    assert_eq!(scene.look(), [out(0, 3, 30)]);
    let reason = scene.detector.reason(&at(0), scene.now + Duration::from_secs(18));
    assert_eq!(reason.as_deref(), Some("3 connections failed in a row; until 12 s from now"));
    assert_eq!(scene.wait(BASE), [back(0)]);
    assert_eq!(scene.look(), [], "old failures do not count again");
}

#[test]
fn one_that_is_established_begins_the_row_anew() {
    let mut scene = Scene::new(2, settings(50));
    for _ in 0..10 {
        scene.fail(0, 2);
        assert_eq!(scene.look(), []);
        scene.connect(0, true);
    }
    scene.fail(0, 4);
    assert_eq!(scene.look(), [out(0, 4, 30)]);
}

#[test]
fn times_grow_up_to_the_longest_and_shrink_with_good_conduct() {
    let mut scene = Scene::new(2, settings(50));
    for seconds in [30, 60, 90, 100, 100] {
        assert_eq!(scene.look(), []);
        scene.fail(0, 3);
        assert_eq!(scene.look(), [out(0, 3, seconds)]);
        assert_eq!(scene.wait(Duration::from_secs(seconds)), [back(0)]);
    }
    // Three were counted that made it longer; two are forgiven.
    assert_eq!(scene.wait(2 * BASE), []);
    scene.fail(0, 3);
    assert_eq!(scene.look(), [out(0, 3, 60)]);
    assert_eq!(scene.wait(2 * BASE), [back(0)]);
    assert_eq!(scene.wait(10 * BASE), []);
    scene.fail(0, 3);
    assert_eq!(scene.look(), [out(0, 3, 30)]);
}

#[test]
fn the_ceiling_is_rounded_down() {
    for (endpoints, percent, most) in
        [(1, 50, 0), (1, 99, 0), (1, 100, 1), (2, 50, 1), (3, 50, 1), (9, 10, 0), (10, 10, 1)]
    {
        let mut scene = Scene::new(endpoints, settings(percent));
        (0..endpoints).for_each(|port| scene.fail(port, 3));
        scene.look();
        assert_eq!(scene.out().len(), most, "{endpoints} with {percent} %");
    }
}

#[test]
fn when_there_is_not_room_for_all_those_that_fail_most_are_out() {
    let mut scene = Scene::new(4, settings(50));
    for (port, times) in [(0, 3), (1, 5), (2, 4), (3, 0)] {
        scene.fail(port, times);
    }
    assert_eq!(scene.look(), [out(1, 5, 30), out(2, 4, 30)]);
    // The other one is out as soon as there is room, unless it is well by then.
    assert_eq!(scene.wait(BASE), [back(1), back(2), out(0, 3, 30)]);
    // A ceiling that comes down has those back that are too many.
    scene.settings = settings(20);
    assert_eq!(scene.look(), [back(0)]);
}

#[test]
fn a_rate_over_an_interval_ejects() {
    let mut scene = Scene::new(2, by_rate());
    let interval = Duration::from_secs(10);
    (0..3).for_each(|_| scene.connect(0, false));
    assert_eq!(scene.wait(interval), [], "too few");
    for at in 0..20 {
        scene.connect(0, at % 2 == 0);
        scene.connect(1, at % 3 != 0);
    }
    let cause = Cause::Rate { failed: 10, attempts: 20, within: interval };
    assert_eq!(scene.wait(interval), [Turn { address: at(0), out: Some((cause, BASE)) }]);
    assert_eq!(cause.to_string(), "10 of 20 connections failed within 10s");
    assert_eq!(scene.wait(BASE), [back(0)]);
    assert_eq!(scene.wait(2 * interval), []);
}

#[test]
fn who_was_out_is_out_for_the_first_time_anew() {
    let mut detector = Detector::default();
    detector.meet(at(0), true);
    detector.meet(at(1), false);
    let (now, none) = (Instant::now(), BTreeMap::new());
    let reason = detector.reason(&at(0), now);
    assert_eq!(reason.as_deref(), Some("found ejected by the former worker"));
    assert_eq!(detector.step(&settings(50), &none, now), []);
    assert_eq!(detector.step(&settings(50), &none, now + BASE - LOOK), []);
    assert_eq!(detector.step(&settings(50), &none, now + BASE), [back(0)]);
}

#[test]
fn a_number_that_was_given_anew_begins_anew() {
    let mut scene = Scene::new(2, settings(50));
    scene.fail(0, 2);
    assert_eq!(scene.look(), []);
    scene.counts.get_mut(&at(0)).expect("an endpoint")[0] =
        Reading { number: 0, established: 0, failed: 5, failing: 5 };
    assert_eq!(scene.look(), []);
    scene.counts.get_mut(&at(0)).expect("an endpoint")[0].number = 77;
    assert_eq!(scene.look(), []);
    scene.fail(0, 3);
    assert_eq!(scene.look(), [out(0, 3, 30)]);
}

/// What happens: so many connections to an endpoint, whether they fail, and how much later it is then.
fn story() -> impl Strategy<Value = Vec<(u16, bool, u32, u64)>> {
    prop::collection::vec((0_u16..8, any::<bool>(), 0_u32..8, 0_u64..40_000), 0..80)
}

proptest! {
    /// Never are more out than the ceiling allows, nobody is for longer than the longest time, each time
    /// is the one that the ejections before ask for, and everybody is back once nothing fails any more.
    #[test]
    fn the_ceiling_holds_and_everybody_comes_back(
        count in 1_u16..8,
        percent in 1_u8..=100,
        has_rate in any::<bool>(),
        story in story(),
    ) {
        let rate = by_rate().failure_rate.filter(|_| has_rate);
        let mut scene = Scene::new(count, OutlierEjection { failure_rate: rate, ..settings(percent) });
        let most = usize::from(count) * usize::from(percent) / 100;
        let mut since: BTreeMap<SocketAddr, (Instant, Duration)> = BTreeMap::new();
        let mut last: BTreeMap<SocketAddr, Duration> = BTreeMap::new();
        let calm = (0..20).map(|_| (0, true, 0, 40_000));
        for (port, is_established, times, later) in story.into_iter().chain(calm) {
            (0..times).for_each(|_| scene.connect(port % count, is_established));
            for turn in scene.look() {
                match turn.out {
                    Some((_, time)) => {
                        prop_assert!(BASE <= time && time <= LONGEST);
                        let former = last.insert(turn.address, time).unwrap_or_default();
                        prop_assert!(time <= former + BASE, "{time:?} after {former:?}");
                        prop_assert!(since.insert(turn.address, (scene.now, time)).is_none());
                    }
                    None => {
                        let (begun, time) = since.remove(&turn.address).expect("it was out");
                        prop_assert!(scene.now - begun >= time);
                    }
                }
            }
            prop_assert!(scene.out().len() <= most);
            prop_assert_eq!(scene.out().len(), since.len());
            prop_assert!(since.values().all(|(begun, time)| scene.now < *begun + *time));
            scene.now += Duration::from_millis(later);
        }
        prop_assert_eq!(scene.out(), Vec::<u16>::new());
        // And what is forgiven is forgiven: the next one is a first one.
        if most > 0 {
            scene.fail(0, 3);
            let times: Vec<_> = scene.look().into_iter().map(|turn| turn.out.map(|out| out.1)).collect();
            prop_assert_eq!(times, [Some(BASE)]);
        }
    }
}
