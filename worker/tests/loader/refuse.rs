//! Starts that must change nothing.

use std::fs;
use std::os::fd::AsFd;

use holdfast_bpf::object;
use holdfast_protocol::kernel::map;
use holdfast_protocol::manifest::{Kind, MapShape};
use holdfast_worker::load::create;
use nix::fcntl::{Flock, FlockArg};

use crate::assert_governed;
use crate::kernel::ARRAY;
use crate::supervisor::{SERVICES, SLOTS, hello, load, load_sized, start, start_on};
use crate::world::World;

#[track_caller]
fn assert_says(reason: &str, parts: &[&str]) {
    for part in parts {
        assert!(reason.contains(part), "`{part}` in: {reason}");
    }
}

#[test]
fn other_sizes_than_the_estates_are_refused() {
    let world = World::new();
    let estate = load(&world).estate();
    let census = world.census();
    let reason = load_sized(&world, 2 * SERVICES, SLOTS).reason();
    assert_says(&reason, &[map::FRONTENDS, "keep --max-services 64", "holdfast uninstall"]);
    let reason = load_sized(&world, SERVICES, 2 * SLOTS).reason();
    assert_says(&reason, &[map::TABLES, "keep --max-slots 1024", "holdfast uninstall"]);
    assert_eq!(world.census(), census);
    assert_governed(&world.cgroup, &estate.entries);
}

#[test]
fn a_map_of_another_layout_is_refused_by_name() {
    let world = World::new();
    let shape =
        MapShape { map_type: ARRAY, key_bytes: 4, value_bytes: 40, max_entries: SLOTS, flags: 0 };
    let other = create::map(map::TABLES, shape, None).expect("root may create a map");
    fs::create_dir_all(world.pins().join("maps")).expect("made");
    object::pin(other.as_fd(), &world.pin(Kind::Map, map::TABLES)).expect("pinned");

    let reason = load(&world).reason();
    let parts = [map::TABLES, "values of 40 bytes", "values of 32 bytes", "holdfast uninstall"];
    assert_says(&reason, &parts);
    let pins: Vec<String> =
        world.census().into_iter().filter(|line| !line.ends_with(" directory")).collect();
    assert_eq!(pins.len(), 1, "{pins:?}");
    for hook in [3, 10, 11, 29, 30, 34] {
        assert_eq!(world.cgroup.attached(hook), [0; 0]);
    }
}

#[test]
fn places_of_the_wrong_kind_are_refused_with_the_remedy() {
    let world = World::new();
    let elsewhere = tempfile::TempDir::new().expect("a temporary directory");
    let missing = elsewhere.path().join("missing");
    let cases = [
        (elsewhere.path(), world.bpffs(), "cgroup2"),
        (&missing, world.bpffs(), "cgroup2"),
        (&world.cgroup.path, elsewhere.path(), "mount -t bpf"),
        (&world.cgroup.path, &missing, "mount -t bpf"),
    ];
    for (cgroup, bpffs, expected) in cases {
        let loader = start_on(&world, "load", cgroup, bpffs, SERVICES, SLOTS);
        loader.say(&hello(&world.instance));
        assert_says(&loader.finish().reason(), &[expected]);
    }
    assert_eq!(world.census(), [""; 0]);
}

#[test]
fn an_instance_that_another_loader_works_on_is_refused() {
    let world = World::new();
    let estate = load(&world).estate();
    let census = world.census();
    let directory = fs::File::open(world.pins()).expect("it exists");
    // Shared is enough: the loader wants it for itself.
    let lock = Flock::lock(directory, FlockArg::LockShared).expect("nobody else has it");
    for verb in ["load", "clear"] {
        let loader = start(&world, verb, &world.cgroup.path, SERVICES, SLOTS);
        loader.say(&hello(&world.instance));
        assert_says(&loader.finish().reason(), &["another loader"]);
    }
    assert_eq!(world.census(), census);
    drop(lock);
    assert_eq!(load(&world).estate().entries, estate.entries);
}

#[test]
fn a_name_that_leads_out_of_the_pins_is_refused() {
    let mut world = World::new();
    for name in ["..", "a/b", "a.b", ""] {
        world.instance = name.to_owned();
        for verb in ["load", "clear"] {
            let loader = start(&world, verb, &world.cgroup.path, SERVICES, SLOTS);
            loader.say(&hello(name));
            assert_says(&loader.finish().reason(), &["instance name"]);
        }
    }
    assert_eq!(world.census(), [""; 0]);
}

#[test]
fn maps_too_large_for_the_kernel_are_refused_by_name() {
    let world = World::new();
    let reason = load_sized(&world, u32::MAX, SLOTS).reason();
    assert_says(&reason, &["cannot create map", "--max-services"]);
    assert_eq!(world.census(), [""; 0]);
}
