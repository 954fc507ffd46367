//! Loaders killed at instants spread over their whole life.

use std::time::{Duration, Instant};

use holdfast_protocol::manifest::Entry;

use crate::supervisor::{SERVICES, SLOTS, clear, hello, load, start};
use crate::world::World;
use crate::{assert_governed, hooks};

/// How many loaders are killed in each test.
const KILLS: u32 = 48;

/// Starts a loader and kills it after `life`.
fn kill_after(world: &World, verb: &str, life: Duration) {
    let loader = start(world, verb, &world.cgroup.path, SERVICES, SLOTS);
    loader.say(&hello(&world.instance));
    // The instant is the fault that is tried, and not a wait for anything.
    std::thread::sleep(life);
    loader.kill();
}

/// `KILLS` instants from the start of a loader's life to somewhat after its end.
fn instants(whole: Duration) -> impl Iterator<Item = Duration> {
    (0..KILLS).map(move |number| whole * 5 / 4 * number / KILLS)
}

fn timed(work: impl FnOnce()) -> Duration {
    let before = Instant::now();
    work();
    before.elapsed()
}

#[test]
fn a_first_start_killed_at_any_instant_is_completed_by_the_next() {
    let world = World::new();
    let whole = timed(|| drop(load(&world).estate()));
    clear(&world).removed();
    for life in instants(whole) {
        kill_after(&world, "load", life);
        let estate = load(&world).estate();
        assert_governed(&world.cgroup, &estate.entries);
        let again = load(&world).estate();
        assert_eq!((again.entries, again.repaired), (estate.entries, Vec::new()), "{life:?}");
        clear(&world).removed();
    }
    assert_eq!(world.census(), [""; 0]);
}

#[test]
fn a_later_start_killed_at_any_instant_changes_nothing() {
    let world = World::new();
    let entries: Vec<Entry> = load(&world).estate().entries;
    let whole = timed(|| drop(load(&world).estate()));
    for life in instants(whole) {
        kill_after(&world, "load", life);
        assert_governed(&world.cgroup, &entries);
    }
    let again = load(&world).estate();
    assert_eq!((again.entries, again.repaired), (entries, Vec::new()));
}

#[test]
fn a_removal_killed_at_any_instant_is_completed_by_the_next() {
    let world = World::new();
    let entries = load(&world).estate().entries;
    let whole = timed(|| drop(clear(&world).removed()));
    for life in instants(whole) {
        drop(load(&world).estate());
        kill_after(&world, "clear", life);
        clear(&world).removed();
        assert_eq!(world.census(), [""; 0], "{life:?}");
        for (name, attach_type, _) in hooks(&entries) {
            assert_eq!(world.cgroup.attached(attach_type), [0; 0], "{name} after {life:?}");
        }
    }
}

#[test]
fn a_start_after_a_removal_was_killed_is_whole() {
    let world = World::new();
    drop(load(&world).estate());
    let whole = timed(|| drop(clear(&world).removed()));
    for life in instants(whole) {
        drop(load(&world).estate());
        kill_after(&world, "clear", life);
        let estate = load(&world).estate();
        assert_governed(&world.cgroup, &estate.entries);
    }
}
