//! The link of what judges arriving connections: part of the estate, and attached only once that is needed.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use holdfast_bpf::map::HashMap;
use holdfast_bpf::{link, object};
use holdfast_protocol::kernel::rules::{Cell, ImageHeader};
use holdfast_protocol::kernel::{HeadWord, map, program};
use holdfast_protocol::manifest::{Entry, Kind, Shape};

use crate::supervisor::{Estate, clear, hello, load, load_idle, start_idle};
use crate::world::World;
use crate::{assert_governed, hooks};

/// `BPF_CGROUP_INET_INGRESS`.
const INGRESS: u32 = 0;

fn ingress(entries: &[Entry]) -> Entry {
    let found = entries
        .iter()
        .find(|entry| entry.shape.kind() == Kind::Link && entry.name == program::INGRESS);
    found.expect("it is part of the estate").clone()
}

fn cgroup_of(link: &Entry) -> u64 {
    match link.shape {
        Shape::Link { cgroup_id, .. } => cgroup_id,
        _ => panic!("a link's shape"),
    }
}

/// Fails unless every other hook is governed, and nothing runs on this one.
#[track_caller]
fn assert_idle(world: &World, entries: &[Entry]) {
    assert_eq!(cgroup_of(&ingress(entries)), 0);
    for (name, attach_type, program_id) in hooks(entries) {
        let expected = if attach_type == INGRESS { vec![] } else { vec![program_id] };
        assert_eq!(world.cgroup.attached(attach_type), expected, "{name}");
    }
}

/// Has the policies in force judge what arrives, as far as a loader looks.
fn judge_arrivals(world: &World) {
    let open = |name| object::get(&world.pin(Kind::Map, name)).expect("it is pinned");
    let cells = HashMap::<u32, Cell>::new(open(map::POLICIES)).expect("cells");
    let mut header: Cell = [0; 2];
    header[ImageHeader::DIRECTIONS] = 6 << 32;
    cells.update(&1, &header).expect("written");
    let heads = HashMap::<u32, u64>::new(open(map::POLICY_HEAD)).expect("a head");
    heads.update(&0, &HeadWord::new(1, 1).0).expect("written");
}

#[test]
fn a_first_start_attaches_it_only_when_it_is_asked_to() {
    let world = World::new();
    let first = load_idle(&world).estate();
    assert_eq!(first.repaired, [""; 0]);
    assert_idle(&world, &first.entries);
    let again = load_idle(&world).estate();
    assert_eq!((&again.entries, again.repaired), (&first.entries, Vec::new()));

    let attached = load(&world).estate();
    assert_governed(&world.cgroup, &attached.entries);
    for (before, after) in first.entries.iter().zip(&attached.entries) {
        assert_eq!(before == after, *before != ingress(&first.entries), "{before:?} {after:?}");
    }
    // What is attached is needed: nobody takes it away again.
    let later = load_idle(&world).estate();
    assert_eq!((later.entries, later.repaired), (attached.entries, Vec::new()));
    clear(&world).removed();
    assert_eq!(world.census(), [""; 0]);
}

#[test]
fn it_is_attached_when_the_policies_in_force_need_it() {
    let world = World::new();
    let Estate { entries, .. } = load_idle(&world).estate();
    judge_arrivals(&world);
    let attached = load_idle(&world).estate();
    assert_governed(&world.cgroup, &attached.entries);
    assert_ne!(ingress(&attached.entries).id, ingress(&entries).id);
    // Also when somebody detaches it while nobody looks.
    let link = object::get(&world.pin(Kind::Link, program::INGRESS)).expect("it is pinned");
    link::detach(link.as_fd()).expect("root may detach");
    assert_governed(&world.cgroup, &load_idle(&world).estate().entries);
}

#[test]
fn a_lost_pin_of_it_is_made_again_and_attaches_nothing() {
    let world = World::new();
    let estate = load_idle(&world).estate();
    std::fs::remove_file(world.pin(Kind::Link, program::INGRESS)).expect("it is pinned");
    let again = load_idle(&world).estate();
    assert_eq!(again.entries, estate.entries);
    assert_eq!(again.repaired.len(), 1, "{:?}", again.repaired);
    assert_idle(&world, &again.entries);
}

#[test]
fn a_start_killed_at_any_instant_leaves_it_detached() {
    const KILLS: u32 = 24;
    let world = World::new();
    let before = Instant::now();
    drop(load_idle(&world).estate());
    let whole = before.elapsed();
    clear(&world).removed();
    for number in 0..KILLS {
        let life: Duration = whole * 5 / 4 * number / KILLS;
        let loader = start_idle(&world);
        loader.say(&hello(&world.instance));
        // The instant is the fault that is tried, and not a wait for anything.
        std::thread::sleep(life);
        loader.kill();
        assert_idle(&world, &load_idle(&world).estate().entries);
        clear(&world).removed();
    }
    assert_eq!(world.census(), [""; 0]);
}
