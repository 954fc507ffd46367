//! A start after something was damaged.

use std::fs;
use std::os::fd::AsFd;

use holdfast_bpf::{link, object};
use holdfast_protocol::kernel::{map, program};
use holdfast_protocol::manifest::{Kind, MapShape, Shape};
use holdfast_worker::load::create;

use crate::kernel::{self, CONNECT6};
use crate::supervisor::{Estate, SERVICES, SLOTS, hello, load, start};
use crate::world::{Cgroup, World, eventually, exists};
use crate::{assert_governed, of_kind};

/// Index of an entry, which is that of its descriptor.
fn index(estate: &Estate, kind: Kind, name: &str) -> usize {
    estate
        .entries
        .iter()
        .position(|entry| entry.shape.kind() == kind && entry.name == name)
        .expect("the estate has it")
}

#[track_caller]
fn assert_mentions(repaired: &[String], part: &str) {
    assert!(repaired.iter().any(|what| what.contains(part)), "`{part}` in: {repaired:?}");
}

#[test]
fn a_missing_pin_is_made_again_for_the_same_object() {
    let world = World::new();
    // The descriptors keep the links alive, as a supervisor would.
    let estate = load(&world).estate();
    let census = world.census();
    for entry in &estate.entries {
        fs::remove_file(world.pin(entry.shape.kind(), &entry.name)).expect("it is pinned");
        let again = load(&world).estate();
        assert_eq!(again.entries, estate.entries, "after losing the pin of {entry:?}");
        assert_eq!(again.repaired.len(), 1, "{:?}", again.repaired);
        assert_mentions(&again.repaired, &entry.name);
        assert_mentions(&again.repaired, "missing");
        assert_eq!(world.census(), census);
    }
    assert_governed(&world.cgroup, &estate.entries);
}

#[test]
fn all_pins_of_a_kind_are_made_again_for_the_same_objects() {
    let world = World::new();
    let estate = load(&world).estate();
    let census = world.census();
    for kinds in [
        vec![Kind::Map],
        vec![Kind::Program],
        vec![Kind::Link],
        vec![Kind::Map, Kind::Program],
        vec![Kind::Map, Kind::Link],
        vec![Kind::Program, Kind::Link],
    ] {
        for kind in &kinds {
            for entry in of_kind(&estate.entries, *kind) {
                fs::remove_file(world.pin(*kind, &entry.name)).expect("it is pinned");
            }
        }
        let again = load(&world).estate();
        assert_eq!(again.entries, estate.entries, "after losing all pins of {kinds:?}");
        assert_eq!(world.census(), census);
    }
}

#[test]
fn one_map_pin_is_enough_to_find_everything_that_runs() {
    let world = World::new();
    let estate = load(&world).estate();
    for entry in &estate.entries {
        if entry.name != map::COUNTERS {
            fs::remove_file(world.pin(entry.shape.kind(), &entry.name)).expect("it is pinned");
        }
    }
    assert_eq!(load(&world).estate().entries, estate.entries);
    assert_governed(&world.cgroup, &estate.entries);
}

#[test]
fn a_link_whose_last_pin_went_is_attached_anew() {
    let world = World::new();
    let Estate { entries, descriptors, .. } = load(&world).estate();
    drop(descriptors);
    fs::remove_file(world.pin(Kind::Link, program::CONNECT4)).expect("it is pinned");
    let lost = of_kind(&entries, Kind::Link)
        .into_iter()
        .find(|entry| entry.name == program::CONNECT4)
        .expect("the estate has it");
    eventually("the link to be gone", || !exists(Kind::Link, lost.id));
    let again = load(&world).estate();
    assert_governed(&world.cgroup, &again.entries);
    for (before, after) in entries.iter().zip(&again.entries) {
        assert_eq!(before == after, *before != lost, "{before:?} {after:?}");
    }
}

#[test]
fn a_link_detached_behind_its_back_is_attached_anew() {
    let world = World::new();
    let estate = load(&world).estate();
    let detached = index(&estate, Kind::Link, program::CONNECT6);
    link::detach(estate.descriptors[detached].as_fd()).expect("root may detach");
    assert_eq!(world.cgroup.attached(CONNECT6), [0; 0]);
    let again = load(&world).estate();
    assert_mentions(&again.repaired, "detached");
    assert_governed(&world.cgroup, &again.entries);
    for (index, (before, after)) in estate.entries.iter().zip(&again.entries).enumerate() {
        assert_eq!(before == after, index != detached, "{before:?} {after:?}");
    }
    // And that is an end of it.
    let third = load(&world).estate();
    assert_eq!((third.entries, third.repaired), (again.entries, Vec::new()));
}

#[test]
fn a_second_copy_is_detached_and_the_pinned_one_stays() {
    let world = World::new();
    let estate = load(&world).estate();
    let program = &estate.descriptors[index(&estate, Kind::Program, program::CONNECT6)];
    let copy = link::create(program.as_fd(), world.cgroup.open().as_fd(), CONNECT6)
        .expect("the hook has room");
    assert_eq!(world.cgroup.attached(CONNECT6).len(), 2);
    let again = load(&world).estate();
    assert_eq!(again.entries, estate.entries);
    assert_mentions(&again.repaired, "one too many");
    assert_governed(&world.cgroup, &estate.entries);
    let at = object::link_info(copy.as_fd()).expect("info").cgroup.expect("a cgroup link");
    assert_eq!(at.cgroup_id, 0);
}

#[test]
fn an_unpinned_copy_is_adopted_where_the_pinned_link_is_dead() {
    let world = World::new();
    let estate = load(&world).estate();
    let program = &estate.descriptors[index(&estate, Kind::Program, program::CONNECT6)];
    let copy = link::create(program.as_fd(), world.cgroup.open().as_fd(), CONNECT6)
        .expect("the hook has room");
    let dead = index(&estate, Kind::Link, program::CONNECT6);
    link::detach(estate.descriptors[dead].as_fd()).expect("root may detach");
    let again = load(&world).estate();
    let copy = object::link_info(copy.as_fd()).expect("info").id;
    assert_eq!(again.entries[dead].id, copy);
    assert_governed(&world.cgroup, &again.entries);
}

#[test]
fn an_estate_moves_to_the_cgroup_it_is_asked_to_govern() {
    let world = World::new();
    let former = load(&world).estate();
    let elsewhere = Cgroup::new();
    let loader = start(&world, "load", &elsewhere.path, SERVICES, SLOTS);
    loader.say(&hello(&world.instance));
    let moved = loader.finish().estate();
    assert_governed(&elsewhere, &moved.entries);
    assert_mentions(&moved.repaired, "another cgroup");
    for (name, attach_type, _) in crate::hooks(&former.entries) {
        assert_eq!(world.cgroup.attached(attach_type), [0; 0], "{name}");
    }
    for kind in [Kind::Map, Kind::Program] {
        assert_eq!(of_kind(&moved.entries, kind), of_kind(&former.entries, kind));
    }
}

#[test]
fn links_on_a_removed_cgroup_are_attached_to_the_one_that_took_its_place() {
    let world = World::new();
    let former = load(&world).estate();
    let id = world.cgroup.id();
    fs::remove_dir(&world.cgroup.path).expect("it is empty");
    fs::create_dir(&world.cgroup.path).expect("root may make it");
    assert_ne!(world.cgroup.id(), id);
    let again = load(&world).estate();
    assert_governed(&world.cgroup, &again.entries);
    for entry in of_kind(&again.entries, Kind::Link) {
        let Shape::Link { cgroup_id, .. } = entry.shape else { panic!("a link's shape") };
        assert_eq!(cgroup_id, world.cgroup.id());
    }
    assert_eq!(of_kind(&again.entries, Kind::Map), of_kind(&former.entries, Kind::Map));
}

#[test]
fn what_does_not_belong_into_the_pins_does_not_stop_the_start() {
    let world = World::new();
    let estate = load(&world).estate();
    let foreign = kernel::program("foreign", CONNECT6, None);

    // A directory, another kind of object, a dangling link, in the place of pins.
    fs::remove_file(world.pin(Kind::Link, program::CONNECT4)).expect("it is pinned");
    fs::create_dir_all(world.pin(Kind::Link, program::CONNECT4).join("deeper")).expect("made");
    fs::remove_file(world.pin(Kind::Map, map::HEADS)).expect("it is pinned");
    object::pin(foreign.as_fd(), &world.pin(Kind::Map, map::HEADS)).expect("pinned");
    fs::remove_file(world.pin(Kind::Program, program::CONNECT6)).expect("it is pinned");
    object::pin(foreign.as_fd(), &world.pin(Kind::Program, program::CONNECT6)).expect("pinned");
    fs::remove_file(world.pin(Kind::Map, map::TABLES)).expect("it is pinned");
    std::os::unix::fs::symlink("nowhere", world.pin(Kind::Map, map::TABLES)).expect("linked");
    // Names nobody knows, and what a killed loader leaves.
    object::pin(foreign.as_fd(), &world.pin(Kind::Program, "hf_future")).expect("pinned");
    object::pin(foreign.as_fd(), &world.pin(Kind::Link, "new-1-hf_connect4")).expect("pinned");
    fs::create_dir(world.pins().join("stray")).expect("made");

    let again = load(&world).estate();
    assert_eq!(again.entries, estate.entries);
    assert_governed(&world.cgroup, &estate.entries);
    for part in ["hf_future", "stray", "new-1-hf_connect4", "directory", "symbolic link"] {
        assert_mentions(&again.repaired, part);
    }
    assert!(world.pin(Kind::Program, "hf_future").exists());
    assert!(!world.pin(Kind::Link, "new-1-hf_connect4").exists());
}

#[test]
fn a_file_in_place_of_a_directory_makes_way() {
    let world = World::new();
    let foreign = kernel::program("foreign", CONNECT6, None);
    fs::create_dir_all(world.pins()).expect("made");
    object::pin(foreign.as_fd(), &world.pins().join("links")).expect("pinned");
    let estate = load(&world).estate();
    assert_mentions(&estate.repaired, "in place of directory");
    assert_governed(&world.cgroup, &estate.entries);
}

#[test]
fn a_foreign_link_under_our_name_is_left_alone_but_for_its_pin() {
    let world = World::new();
    let estate = load(&world).estate();
    let foreign = kernel::program("foreign", CONNECT6, None);
    let theirs = link::create(foreign.as_fd(), world.cgroup.open().as_fd(), CONNECT6)
        .expect("the hook has room");
    let path = world.pin(Kind::Link, program::CONNECT6);
    fs::remove_file(&path).expect("it is pinned");
    object::pin(theirs.as_fd(), &path).expect("pinned");

    let again = load(&world).estate();
    assert_eq!(again.entries, estate.entries);
    assert_mentions(&again.repaired, "another program");
    let at = object::link_info(theirs.as_fd()).expect("info").cgroup.expect("a cgroup link");
    assert_eq!(at.cgroup_id, world.cgroup.id());
    assert_eq!(world.cgroup.attached(CONNECT6).len(), 2);
}

#[test]
fn a_program_somebody_attached_without_a_link_is_reported() {
    let world = World::new();
    let estate = load(&world).estate();
    let program = &estate.descriptors[index(&estate, Kind::Program, program::CONNECT6)];
    kernel::attach_without_link(program.as_fd(), world.cgroup.open().as_fd(), CONNECT6);
    let again = load(&world).estate();
    assert_eq!(again.entries, estate.entries);
    assert_mentions(&again.repaired, "runs 2 times");
}

#[test]
fn a_map_that_only_looks_like_ours_is_not_taken_for_ours() {
    let world = World::new();
    let heads = MapShape {
        map_type: kernel::ARRAY,
        key_bytes: 4,
        value_bytes: 8,
        max_entries: SERVICES,
        flags: kernel::MEMORY_MAPPED,
    };
    let theirs = create::map("theirs", heads, None).expect("root may create a map");
    fs::create_dir_all(world.pins().join("maps")).expect("made");
    object::pin(theirs.as_fd(), &world.pin(Kind::Map, map::HEADS)).expect("pinned");
    let estate = load(&world).estate();
    assert_mentions(&estate.repaired, "`theirs`");
    let ours = &estate.entries[index(&estate, Kind::Map, map::HEADS)];
    assert_ne!(ours.id, object::map_info(theirs.as_fd()).expect("info").id);
    // It was refused for its name alone.
    assert_eq!(ours.shape, Shape::Map(heads));
}
