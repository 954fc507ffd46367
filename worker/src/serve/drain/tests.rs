//! Every reading of the marks, over restarts and deaths of their writer.

use holdfast_protocol::kernel::{PROTOCOL_TCP, mapped};

use super::*;
use crate::serve::compile::padded;
use crate::serve::tables::estate::Capacity;
use crate::serve::tables::model::{Model, NO_RECORD};

const SECOND: u64 = 1_000_000_000;
const NOW: u64 = 100 * SECOND;
const SERVICE: u32 = 3;

fn record() -> ServiceRecord {
    let port_be = 80_u16.to_be();
    ServiceRecord { service: padded("web"), port_be, protocol: PROTOCOL_TCP, ..NO_RECORD }
}

fn endpoint(host: u32) -> EndpointState {
    EndpointState { live: Live::OPEN, ..EndpointState::of(SERVICE, mapped(host), 1) }
}

/// A service with endpoints 1, 2 and 3 that have a connection each; the first has another number, too.
fn model() -> Model {
    let mut model = Model::new(Capacity { services: 8, slots: 8, frontends: 8, endpoints: 8 });
    model.records[SERVICE as usize] = record();
    for (number, host) in [(1, 1), (2, 2), (3, 3), (4, 1)] {
        model.endpoints[number] = endpoint(host);
    }
    model
}

/// The endpoint `host` drains, and is closed after so many seconds.
fn aside(host: u32, seconds: u64) -> Aside {
    Aside {
        service: padded("web"),
        port: (80_u16.to_be(), PROTOCOL_TCP),
        endpoint: EndpointSlot {
            address: mapped(host),
            port_be: 1,
            weight: 1,
            threshold: 0,
            alias: 0,
            state: EndpointSlot::NO_STATE,
        },
        state: "draining",
        close_after: Some(Duration::from_secs(seconds)),
    }
}

/// The endpoints `hosts` drain, and are closed after so many seconds.
fn wanted(hosts: &[u32], seconds: u64) -> Wanted {
    let asides = hosts.iter().map(|host| aside(*host, seconds));
    Wanted::of(&asides.collect::<Vec<_>>())
}

/// The marks in seconds, by number.
fn marks(model: &Model) -> Vec<(u64, u64)> {
    model.endpoints[1..5].iter().map(|it| (it.drains_ns / SECOND, it.closes_ns / SECOND)).collect()
}

#[test]
fn every_number_of_an_endpoint_that_drains_is_marked_once() {
    let mut model = model();
    let (drains, news) = mark(&mut model, &wanted(&[1], 30), NOW);
    let whole = [(100, 130), (0, 0), (0, 0), (100, 130)];
    assert_eq!(marks(&model), whole);
    assert_eq!((drains.0.len(), news.len(), drains.next_ns()), (2, 2, Some(130 * SECOND)));
    assert!(is_any(&model));
    // Whoever comes later, and saves something else, does not begin anew.
    let (_, news) = mark(&mut model, &wanted(&[1], 30), NOW + 20 * SECOND);
    assert_eq!((marks(&model), news.len()), (whole.to_vec(), 0));
    assert_eq!(marked(&model).next_ns(), Some(130 * SECOND));
    // Another time counts from when it began, too.
    mark(&mut model, &wanted(&[1, 2], 5), NOW + 20 * SECOND);
    assert_eq!(marks(&model), [(100, 105), (120, 125), (0, 0), (100, 105)]);
}

#[test]
fn how_long_is_left_is_that_of_the_last_connections() {
    let mut model = model();
    let (drains, _) = mark(&mut model, &wanted(&[1, 2], 30), NOW);
    let left = |model: &Model, drains: &Drains, host, now_ns| {
        drains.closings(model).of(&aside(host, 30))?.left_ms(now_ns)
    };
    assert_eq!(left(&model, &drains, 1, NOW), Some(30_000));
    assert_eq!(left(&model, &drains, 2, NOW + 30 * SECOND - 1), Some(1));
    assert_eq!(left(&model, &drains, 2, NOW + 31 * SECOND), Some(0));
    assert_eq!(left(&model, &drains, 3, NOW), None, "it does not drain");
    // A number that it got later is closed later.
    model.endpoints[4].closes_ns += 5 * SECOND;
    assert_eq!(left(&model, &marked(&model), 1, NOW), Some(35_000));
    model.endpoints[4].live = 0;
    assert_eq!(left(&model, &marked(&model), 1, NOW), Some(30_000));
    model.endpoints[1].live = 0;
    assert_eq!(left(&model, &marked(&model), 1, NOW), None, "it has no connections");
    let closings = marked(&model).closings(&model);
    assert_eq!(closings.of(&aside(1, 30)).map(|it| &it.numbers[..]), Some(&[1, 4][..]));
}

#[test]
fn what_drains_no_more_is_not_closed() {
    let mut model = model();
    mark(&mut model, &wanted(&[1, 2], 30), NOW);
    unmark(&mut model, &wanted(&[2], 30));
    assert_eq!(marks(&model), [(0, 0), (100, 130), (0, 0), (0, 0)]);
    assert!(is_any(&model));
    mark(&mut model, &wanted(&[], 0), NOW);
    assert_eq!(marks(&model), [(0, 0); 4]);
    assert!(!is_any(&model));
    // It drains again: its time begins anew.
    mark(&mut model, &wanted(&[1], 30), NOW + 50 * SECOND);
    assert_eq!(marks(&model)[0], (150, 180));
}

#[test]
fn endpoints_of_another_service_of_the_same_address_stay() {
    let mut model = model();
    model.records[SERVICE as usize].service = padded("api");
    let (drains, _) = mark(&mut model, &wanted(&[1, 2], 0), NOW);
    assert_eq!((marks(&model), drains.next_ns()), (vec![(0, 0); 4], None));
    assert!(!is_any(&model));
}

#[test]
fn nobody_looks_where_nothing_drains() {
    let mut model = model();
    // As no worker leaves it: it shows who looks.
    model.endpoints[1].closes_ns = 1;
    assert_eq!(marked(&model).next_ns(), None);
    mark(&mut model, &wanted(&[], 0), NOW);
    unmark(&mut model, &wanted(&[], 0));
    assert_eq!(model.endpoints[1].closes_ns, 1);
}

#[test]
fn it_is_asked_when_the_time_has_come_and_again_as_long_as_there_are_connections() {
    let mut model = model();
    let (mut drains, _) = mark(&mut model, &wanted(&[1], 30), NOW);
    assert_eq!(drains.ask(&model, 129 * SECOND).0, 0);
    let (count, news) = drains.ask(&model, 130 * SECOND);
    assert_eq!((count, news.len(), news[0].connections()), (2, 2, 1));
    assert_eq!(drains.next_ns(), Some(131 * SECOND));
    assert_eq!(drains.ask(&model, 130 * SECOND).0, 0);
    let (count, news) = drains.ask(&model, 131 * SECOND);
    assert_eq!((count, news.len()), (2, 0));
    assert_eq!(drains.next_ns(), Some(133 * SECOND));
    // One of the two has none any more.
    model.endpoints[1].live = 0;
    assert_eq!(drains.ask(&model, 133 * SECOND).0, 1);
    for _ in 0..10 {
        drains.ask(&model, drains.next_ns().expect("there still are some"));
    }
    let last = drains.next_ns().expect("there still are some");
    drains.ask(&model, last);
    assert_eq!(drains.next_ns(), Some(last + LONGEST_PAUSE_NS));
    model.endpoints[4].live = 0;
    assert_eq!((drains.ask(&model, u64::MAX).0, drains.next_ns()), (0, None));
}

#[test]
fn a_number_that_is_another_endpoints_by_now_is_asked_about_no_more() {
    let mut model = model();
    let (mut drains, _) = mark(&mut model, &wanted(&[2], 30), NOW);
    model.endpoints[2] = endpoint(9);
    assert_eq!(drains.ask(&model, 200 * SECOND).0, 0);
}

/// Whoever marks dies after any of its steps: the next one says the same in the end, and in between
/// nothing is closed before its time.
#[test]
fn a_writer_that_dies_half_way_leaves_nothing_that_is_closed_early() {
    let dying = |model: &Model, steps: usize, work: &dyn Fn(&mut Model)| {
        let mut dying = model.clone();
        dying.stamps = steps;
        work(&mut dying);
        dying.stamps = usize::MAX;
        dying
    };
    let full = {
        let mut model = model();
        mark(&mut model, &wanted(&[1, 2], 30), NOW);
        model
    };
    for steps in 0..20 {
        let mut half = dying(&model(), steps, &|it| drop(mark(it, &wanted(&[1, 2], 30), NOW)));
        for state in &half.endpoints[1..] {
            assert!(state.closes_ns == 0 || state.closes_ns == 130 * SECOND, "{steps}");
        }
        mark(&mut half, &wanted(&[1, 2], 30), NOW + SECOND);
        for (one, other) in marks(&half).into_iter().zip(marks(&full)) {
            // At most so much later, as if it had begun with the second one.
            assert!(one == other || one == (101, 131), "{steps}: {one:?}");
        }
        let mut half = dying(&full, steps, &|it| unmark(it, &wanted(&[2], 30)));
        mark(&mut half, &wanted(&[2], 30), NOW + SECOND);
        assert_eq!(marks(&half), [(0, 0), (100, 130), (0, 0), (0, 0)], "{steps}");
        let mut half = dying(&full, steps, &|it| drop(mark(it, &wanted(&[], 0), NOW)));
        mark(&mut half, &wanted(&[], 0), NOW);
        assert_eq!((marks(&half), is_any(&half)), (vec![(0, 0); 4], false), "{steps}");
    }
}
