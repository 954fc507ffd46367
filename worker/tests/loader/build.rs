//! A first start.

use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;

use holdfast_bpf::object;
use holdfast_protocol::kernel::{self, RECENTS, limit, map, rules};
use holdfast_protocol::manifest::{Kind, Shape};

use crate::supervisor::{FLOWS, SERVICES, SLOTS, load};
use crate::world::World;
use crate::{assert_governed, of_kind};

#[test]
fn a_first_start_builds_pins_attaches_and_hands_over() {
    let world = World::new();
    let estate = load(&world).estate();
    assert_eq!(estate.repaired, [""; 0]);

    let names: Vec<&str> = estate.entries.iter().map(|entry| entry.name.as_str()).collect();
    let mut expected = map::ALL.to_vec();
    expected.extend(kernel::program::ALL);
    expected.extend(kernel::program::ALL);
    assert_eq!(names, expected);
    assert_governed(&world.cgroup, &estate.entries);

    for (entry, descriptor) in estate.entries.iter().zip(&estate.descriptors) {
        let kind = entry.shape.kind();
        assert_eq!(object::kind_of(descriptor.as_fd()), Some(kind));
        let pinned = object::get(&world.pin(kind, &entry.name)).expect("it is pinned");
        let id = match kind {
            Kind::Map => object::map_info(pinned.as_fd()).expect("info").id,
            Kind::Program => object::program_info(pinned.as_fd()).expect("info").id,
            Kind::Link => object::link_info(pinned.as_fd()).expect("info").id,
        };
        assert_eq!(id, entry.id, "{}", entry.name);
    }
}

#[test]
fn maps_have_the_sizes_that_were_asked_for() {
    let world = World::new();
    let estate = load(&world).estate();
    for entry in of_kind(&estate.entries, Kind::Map) {
        let Shape::Map(shape) = entry.shape else { panic!("a map has a map's shape") };
        let expected = match entry.name.as_str() {
            map::FRONTENDS => SERVICES * limit::FRONTENDS_PER_SERVICE,
            map::TABLES => SLOTS,
            map::SOCKETS => limit::SOCKETS,
            map::ADDRESS_CACHE => limit::CACHE_ELEMENTS,
            // Socket storage has no size of its own.
            map::OVERFLOW | map::ARRIVALS => 0,
            map::FLOWS | map::REPLIES => FLOWS,
            map::ENROLMENT | map::EVENT_CONTROL => 1,
            map::EVENTS => limit::DEFAULT_EVENT_BYTES,
            map::ENROLLED => limit::ENROLLED,
            map::AFFINITIES => limit::AFFINITIES,
            map::RECENTS => RECENTS,
            map::CLIENT_RATES => limit::CLIENT_RATES,
            map::ENDPOINTS => limit::endpoints(SLOTS),
            // Policies have a limit of their own, and no setting.
            map::POLICY_HEAD => rules::HEADS,
            map::POLICIES => rules::CELLS,
            map::POLICY_COUNTERS => rules::POLICY_NUMBERS,
            map::PRECEDENTS => rules::PRECEDENTS,
            _ => SERVICES,
        };
        assert_eq!(shape.max_entries, expected, "{}", entry.name);
    }
}

#[test]
fn the_pins_are_closed_to_other_users() {
    let world = World::new();
    let _estate = load(&world).estate();
    let mut directories = vec![world.bpffs().join("holdfast"), world.pins()];
    for kind in ["maps", "programs", "links"] {
        directories.push(world.pins().join(kind));
    }
    for directory in directories {
        let mode = std::fs::metadata(&directory).expect("it exists").permissions().mode();
        assert_eq!(mode & 0o7777, 0o700, "{}", directory.display());
    }
}

#[test]
fn two_instances_share_a_bpffs_and_a_cgroup() {
    let mut world = World::new();
    let first = load(&world).estate();
    world.instance = "other".to_owned();
    let second = load(&world).estate();
    assert_eq!(second.repaired, [""; 0]);
    for (first, second) in first.entries.iter().zip(&second.entries) {
        assert_ne!(first.id, second.id, "{}", first.name);
    }
    for (name, attach_type, program) in crate::hooks(&first.entries) {
        assert!(world.cgroup.attached(attach_type).contains(&program), "{name}");
    }
}
