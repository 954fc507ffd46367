//! A start of another version: stood for by programs of another make on the same maps.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};

use holdfast_bpf::{link, object};
use holdfast_protocol::kernel::program;
use holdfast_protocol::manifest::{Entry, Kind, Shape};

use crate::kernel::{self, CONNECT6, MAX_PROGRAMS};
use crate::supervisor::{Estate, load};
use crate::world::{World, eventually, exists};
use crate::{assert_governed, hooks, of_kind};

/// Makes every link run a program of another make, and pins those; their ids.
fn make_it_old(world: &World, estate: &Estate) -> Vec<u32> {
    let map = &estate.descriptors[0];
    let mut ids = Vec::new();
    for (name, attach_type, program_id) in hooks(&estate.entries) {
        let old = kernel::program(&name, attach_type, Some(map.as_fd()));
        let now = object::by_id(Kind::Program, program_id).expect("it runs");
        let link = object::get(&world.pin(Kind::Link, &name)).expect("it is pinned");
        link::update(link.as_fd(), old.as_fd(), now.as_fd()).expect("it runs that program");
        let pin = world.pin(Kind::Program, &name);
        fs::remove_file(&pin).expect("it is pinned");
        object::pin(old.as_fd(), &pin).expect("pinned");
        ids.push(object::program_info(old.as_fd()).expect("info").id);
    }
    ids
}

/// What the links run, in their order.
fn running(entries: &[Entry]) -> Vec<u32> {
    hooks(entries).into_iter().map(|(_, _, program)| program).collect()
}

#[test]
fn an_upgrade_replaces_the_programs_under_the_same_links_and_maps() {
    let world = World::new();
    let Estate { entries, descriptors, repaired } = load(&world).estate();
    let estate = Estate { entries, descriptors, repaired };
    let old = make_it_old(&world, &estate);
    let entries = estate.entries;
    drop(estate.descriptors);

    let new = load(&world).estate();
    assert_eq!(of_kind(&new.entries, Kind::Map), of_kind(&entries, Kind::Map));
    let ids = |entries| of_kind(entries, Kind::Link).iter().map(|link| link.id).collect::<Vec<_>>();
    assert_eq!(ids(&new.entries), ids(&entries));
    for (old, new) in old.iter().zip(running(&new.entries)) {
        assert_ne!(*old, new);
    }
    let tags = |entries: &[Entry]| -> Vec<Shape> {
        of_kind(entries, Kind::Program).into_iter().map(|program| program.shape).collect()
    };
    assert_eq!(tags(&new.entries), tags(&entries));
    assert_governed(&world.cgroup, &new.entries);
    eventually("the old programs to be gone", || old.iter().all(|id| !exists(Kind::Program, *id)));
    let again = load(&world).estate();
    assert_eq!((again.entries, again.repaired), (new.entries, Vec::new()));
}

#[test]
fn an_upgrade_that_was_killed_half_way_is_completed() {
    let world = World::new();
    let estate = load(&world).estate();
    let old = make_it_old(&world, &estate);
    // Two links have been updated by a loader that died before it moved any pin.
    for (name, _, wanted) in &hooks(&estate.entries)[..2] {
        let link = object::get(&world.pin(Kind::Link, name)).expect("it is pinned");
        let now = object::link_info(link.as_fd()).expect("info").program_id;
        let now = object::by_id(Kind::Program, now).expect("it runs");
        let wanted = object::by_id(Kind::Program, *wanted).expect("it is held");
        link::update(link.as_fd(), wanted.as_fd(), now.as_fd()).expect("it runs that program");
    }
    let new = load(&world).estate();
    assert_governed(&world.cgroup, &new.entries);
    // Those two keep the programs they run; the others get new ones.
    assert_eq!(running(&new.entries)[..2], running(&estate.entries)[..2]);
    assert!(running(&new.entries)[2..].iter().all(|id| !old.contains(id)));
    let again = load(&world).estate();
    assert_eq!((again.entries, again.repaired), (new.entries, Vec::new()));
}

/// Fills the hook with programs of somebody else's.
fn fill(world: &World, attach_type: u32) -> Vec<OwnedFd> {
    let foreign = kernel::program("foreign", attach_type, None);
    let free = MAX_PROGRAMS - world.cgroup.attached(attach_type).len();
    let cgroup = world.cgroup.open();
    (0..free)
        .map(|_| link::create(foreign.as_fd(), cgroup.as_fd(), attach_type).expect("room"))
        .collect()
}

#[test]
fn an_upgrade_that_fails_half_way_leaves_the_old_set_attached() {
    let world = World::new();
    let estate = load(&world).estate();
    make_it_old(&world, &estate);
    // One hook has lost its link, and has no room for another.
    let lost = object::get(&world.pin(Kind::Link, program::CONNECT6)).expect("it is pinned");
    link::detach(lost.as_fd()).expect("root may detach");
    let _foreign = fill(&world, CONNECT6);
    let census = world.census();
    let attached: Vec<Vec<u32>> =
        hooks(&estate.entries).iter().map(|(_, hook, _)| world.cgroup.attached(*hook)).collect();

    let reason = load(&world).reason();
    for part in [program::CONNECT6, "64 programs", &world.cgroup.path.display().to_string()] {
        assert!(reason.contains(part), "`{part}` in: {reason}");
    }
    assert_eq!(world.census(), census);
    let after: Vec<Vec<u32>> =
        hooks(&estate.entries).iter().map(|(_, hook, _)| world.cgroup.attached(*hook)).collect();
    assert_eq!(after, attached);
}

#[test]
fn a_first_start_that_fails_half_way_leaves_nothing() {
    let world = World::new();
    let foreign = fill(&world, CONNECT6);
    let reason = load(&world).reason();
    assert!(reason.contains("64 programs"), "{reason}");
    assert_eq!(world.census(), [""; 0]);
    assert_eq!(world.cgroup.attached(CONNECT6).len(), MAX_PROGRAMS);
    for attach_type in [CONNECT6 - 1, 29, 30] {
        assert_eq!(world.cgroup.attached(attach_type), [0; 0]);
    }
    // The room made, the same start succeeds.
    for link in foreign {
        link::detach(link.as_fd()).expect("root may detach");
    }
    let estate = load(&world).estate();
    assert_governed(&world.cgroup, &estate.entries);
}
