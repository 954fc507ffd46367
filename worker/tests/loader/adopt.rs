//! A start after a former life.

use holdfast_bpf::object;
use holdfast_protocol::manifest::Kind;
use holdfast_protocol::wire::VERSION;

use crate::assert_governed;
use crate::supervisor::{SERVICES, SLOTS, hello, load, start};
use crate::world::{World, exists};

#[test]
fn a_second_start_adopts_every_object_as_it_is() {
    let world = World::new();
    let first = load(&world).estate().entries;
    let census = world.census();
    for _ in 0..3 {
        let again = load(&world).estate();
        assert_eq!(again.entries, first);
        assert_eq!(again.repaired, [""; 0]);
        assert_eq!(world.census(), census);
    }
    assert_governed(&world.cgroup, &first);
}

#[test]
fn an_adoption_leaves_no_second_program_in_the_kernel() {
    let world = World::new();
    let estate = load(&world).estate();
    let newest = estate.entries.iter().filter(|entry| entry.shape.kind() == Kind::Program);
    let newest = newest.map(|entry| entry.id).max().expect("programs");
    let maps = crate::of_kind(&estate.entries, Kind::Map);
    let again = load(&world).estate();
    assert_eq!(again.entries, estate.entries);
    // Other tests load programs meanwhile: only those on our maps count.
    crate::world::eventually("the programs that were compared to be gone", || {
        object::ids(Kind::Program).expect("ids").into_iter().filter(|id| *id > newest).all(|id| {
            let Ok(program) = object::by_id(Kind::Program, id) else { return true };
            let info = object::program_info(std::os::fd::AsFd::as_fd(&program)).expect("info");
            !info.map_ids.iter().any(|id| maps.iter().any(|map| map.id == *id))
        })
    });
}

#[test]
fn a_supervisor_that_leaves_before_it_greets_leaves_nothing() {
    let world = World::new();
    let loader = start(&world, "load", &world.cgroup.path, SERVICES, SLOTS);
    assert_eq!(loader.hang_up().code(), Some(1));
    assert_eq!(world.census(), [""; 0]);
}

#[test]
fn an_estate_that_was_not_accepted_waits_for_the_next_supervisor() {
    let world = World::new();
    let loader = start(&world, "load", &world.cgroup.path, SERVICES, SLOTS);
    loader.say(&hello(&world.instance));
    let mut offered = None;
    while offered.is_none() {
        let (message, descriptors) = loader.hear().expect("the loader gets as far as its offer");
        if let holdfast_protocol::handover::FromChild::Offer(offer) = message {
            offered = Some((offer.entries, descriptors));
        }
    }
    assert_eq!(loader.hang_up().code(), Some(1));
    let (entries, descriptors) = offered.expect("the loop ends with it");
    drop(descriptors);
    for entry in &entries {
        assert!(exists(entry.shape.kind(), entry.id), "{}", entry.name);
    }
    assert_eq!(load(&world).estate().entries, entries);
}

#[test]
fn a_supervisor_of_another_version_or_instance_is_refused() {
    use holdfast_protocol::handover::{Occasion, ToChild};
    let world = World::new();
    let greet = |newest, oldest, instance: &str| ToChild::Hello {
        newest,
        oldest,
        instance: instance.to_owned(),
        epoch: 0,
        occasion: Occasion::Start,
    };
    let cases = [
        (greet(VERSION + 2, VERSION + 1, "test"), "versions"),
        (greet(VERSION, VERSION, "stranger"), "`stranger`"),
        (ToChild::Leave, "greeting"),
    ];
    for (greeting, expected) in cases {
        let loader = start(&world, "load", &world.cgroup.path, SERVICES, SLOTS);
        loader.say(&greeting);
        let reason = loader.finish().reason();
        assert!(reason.contains(expected), "`{expected}` in: {reason}");
    }
    assert_eq!(world.census(), [""; 0]);
}
