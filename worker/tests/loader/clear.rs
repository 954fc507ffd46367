//! The removal.

use std::fs;
use std::os::fd::AsFd;

use holdfast_bpf::{link, object};
use holdfast_protocol::kernel::{map, program};
use holdfast_protocol::manifest::{Entry, Kind};

use crate::kernel::{self, CONNECT6};
use crate::supervisor::{Estate, clear, load};
use crate::world::{World, eventually, exists};
use crate::{hooks, of_kind};

fn assert_gone(entries: &[Entry]) {
    eventually("every object to be gone", || {
        entries.iter().all(|entry| !exists(entry.shape.kind(), entry.id))
    });
}

#[test]
fn nothing_is_left_and_everything_is_listed() {
    let world = World::new();
    let Estate { entries, descriptors, .. } = load(&world).estate();
    drop(descriptors);
    let removed = clear(&world).removed();
    assert_eq!(world.census(), [""; 0]);
    assert_gone(&entries);
    let count = |prefix: &str| removed.iter().filter(|item| item.starts_with(prefix)).count();
    let (maps, programs) = (map::ALL.len(), program::ALL.len());
    let expected = (programs, maps + 2 * programs, 5);
    assert_eq!((count("link "), count("pin "), count("directory ")), expected, "{removed:?}");
    for (name, _, _) in hooks(&entries) {
        let id = of_kind(&entries, Kind::Link).into_iter().find(|link| link.name == name);
        let id = id.expect("it was linked").id;
        let line = format!("link {name} (id {id}) detached from {}", world.cgroup.path.display());
        assert!(removed.contains(&line), "`{line}` in: {removed:?}");
    }
}

#[test]
fn a_second_time_there_is_nothing_to_list() {
    let world = World::new();
    let _estate = load(&world).estate();
    assert!(!clear(&world).removed().is_empty());
    assert_eq!(clear(&world).removed(), [""; 0]);
}

#[test]
fn what_never_was_is_cleared_without_a_trace() {
    let world = World::new();
    assert_eq!(clear(&world).removed(), [""; 0]);
    assert_eq!(world.census(), [""; 0]);
}

#[test]
fn governance_ends_though_a_supervisor_still_holds_every_descriptor() {
    let world = World::new();
    let estate = load(&world).estate();
    clear(&world).removed();
    for (name, attach_type, _) in hooks(&estate.entries) {
        assert_eq!(world.cgroup.attached(attach_type), [0; 0], "{name}");
    }
}

#[test]
fn it_works_when_the_cgroup_is_gone() {
    let world = World::new();
    let Estate { entries, descriptors, .. } = load(&world).estate();
    drop(descriptors);
    fs::remove_dir(&world.cgroup.path).expect("it is empty");
    clear(&world).removed();
    assert_eq!(world.census(), [""; 0]);
    assert_gone(&entries);
}

#[test]
fn it_works_with_what_pins_there_are() {
    let world = World::new();
    for lost in [Kind::Map, Kind::Program, Kind::Link] {
        let Estate { entries, descriptors, .. } = load(&world).estate();
        for entry in of_kind(&entries, lost) {
            fs::remove_file(world.pin(lost, &entry.name)).expect("it is pinned");
        }
        // Here the descriptors keep the links alive although their pins are gone.
        clear(&world).removed();
        for (name, attach_type, _) in hooks(&entries) {
            assert_eq!(world.cgroup.attached(attach_type), [0; 0], "{name} without {lost} pins");
        }
        assert_eq!(world.census(), [""; 0]);
        drop(descriptors);
        assert_gone(&entries);
    }
}

#[test]
fn copies_and_pins_of_other_versions_go_as_well() {
    let world = World::new();
    let estate = load(&world).estate();
    let map = estate.descriptors[0].as_fd();
    let sendmsg6 = 15;
    let future = kernel::program("hf_sendmsg6", sendmsg6, Some(map));
    let cgroup = world.cgroup.open();
    let link = link::create(future.as_fd(), cgroup.as_fd(), sendmsg6).expect("room");
    object::pin(future.as_fd(), &world.pin(Kind::Program, "hf_sendmsg6")).expect("pinned");
    object::pin(link.as_fd(), &world.pin(Kind::Link, "hf_sendmsg6")).expect("pinned");
    let copy = link::create(future.as_fd(), cgroup.as_fd(), sendmsg6).expect("room");
    fs::create_dir_all(world.pins().join("later").join("deeper")).expect("made");
    let removed = clear(&world).removed();
    assert_eq!(world.cgroup.attached(sendmsg6), [0; 0]);
    let detached = removed.iter().filter(|item| item.contains("hf_sendmsg6 (id")).count();
    assert_eq!(detached, 2, "{removed:?}");
    assert_eq!(world.census(), [""; 0]);
    drop(copy);
}

#[test]
fn other_instances_and_foreign_programs_are_left_alone() {
    let mut world = World::new();
    let mine = load(&world).estate();
    world.instance = "other".to_owned();
    let theirs = load(&world).estate();
    let foreign = kernel::program("hf_connect6", CONNECT6, None);
    let foreign_link =
        link::create(foreign.as_fd(), world.cgroup.open().as_fd(), CONNECT6).expect("room");
    world.instance = "test".to_owned();
    clear(&world).removed();
    world.instance = "other".to_owned();
    for (name, attach_type, program_id) in hooks(&theirs.entries) {
        let attached = world.cgroup.attached(attach_type);
        assert!(attached.contains(&program_id), "{name}");
        let foreign = usize::from(name == program::CONNECT6);
        assert_eq!(attached.len(), 1 + foreign, "{name}");
    }
    let again = load(&world).estate();
    assert_eq!((again.entries, again.repaired), (theirs.entries, Vec::new()));
    drop((mine, foreign_link));
}
