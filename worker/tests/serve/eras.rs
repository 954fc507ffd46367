//! The times in which lookups may be remembered, in the map where programs look.

use holdfast_bpf::BpfError;
use holdfast_bpf::mapped::MappedArray;
use holdfast_protocol::handover::Offer;
use holdfast_protocol::kernel::cache::{CacheLine, Era};
use holdfast_protocol::kernel::{
    Frontend, FrontendKey, HeadWord, PROTOCOL_TCP, limit, map, mapped,
};
use holdfast_worker::serve::offer::Gathering;
use holdfast_worker::serve::tables::estate::{Reader as _, Writer as _};
use holdfast_worker::serve::tables::maps::{GrantedMaps, ShadowMaps};
use holdfast_worker::serve::tables::slot::UNTOUCHED;

use crate::estate::Estate;

const KEY: FrontendKey = FrontendKey {
    address: mapped(u32::from_le_bytes([127, 96, 0, 1])),
    port_be: 80_u16.to_be(),
    protocol: PROTOCOL_TCP,
    reserved: 0,
};
const FRONTEND: Frontend =
    Frontend { service: 1, tag: KEY.tag(), from: 1, until: Frontend::FOREVER };

/// The maps of a writer, and where programs look which era it is.
fn granted(estate: &Estate) -> (GrantedMaps, MappedArray<CacheLine>) {
    let copies = || estate.descriptors.iter().map(|it| it.try_clone().unwrap()).collect::<Vec<_>>();
    let mut gathering = Gathering::default();
    let offer = Offer { index: 0, of: 1, entries: estate.entries.clone() };
    assert!(gathering.take(offer, copies()).unwrap());
    let maps = ShadowMaps::map(gathering.finish().unwrap()).unwrap().grant().unwrap();
    let at = estate.entries.iter().position(|it| it.name == map::ADDRESS_CACHE).unwrap();
    (maps, MappedArray::map(copies().swap_remove(at)).unwrap())
}

fn era(cache: &MappedArray<CacheLine>) -> Era {
    Era(cache.read(limit::CACHE_LINES).era)
}

type Write = fn(&mut GrantedMaps) -> Result<(), BpfError>;

#[test]
fn an_era_ends_with_any_change_of_what_lookups_depend_on_but_heads() {
    let estate = Estate::new(16, 64);
    let (mut maps, cache) = granted(&estate);
    assert!(!era(&cache).is_open(), "nothing is remembered before anything was put in force");
    let ends: [Write; 3] = [
        |maps| maps.set_frontend(&KEY, FRONTEND),
        |maps| maps.delete_frontend(&KEY),
        |maps| {
            maps.write_record(1, maps.record(1));
            Ok(())
        },
    ];
    for (index, end) in ends.into_iter().enumerate() {
        maps.begin_era();
        let begun = era(&cache);
        assert!(begun.is_open(), "change {index}");
        maps.begin_era();
        assert_eq!(era(&cache), begun, "what goes on does not begin anew");
        end(&mut maps).unwrap();
        assert!(!era(&cache).is_open(), "change {index}");
        maps.begin_era();
        assert_ne!(era(&cache), begun, "none comes back");
    }
    let begun = era(&cache);
    maps.write_slot(3, UNTOUCHED);
    maps.publish(1, HeadWord::new(3, 1));
    assert_eq!(era(&cache), begun, "whoever remembers a head compares it");
}

#[test]
fn an_era_outlives_its_writer() {
    let estate = Estate::new(16, 64);
    let (mut maps, cache) = granted(&estate);
    maps.begin_era();
    let begun = era(&cache);
    drop(maps);
    let (mut maps, _) = granted(&estate);
    assert_eq!(era(&cache), begun);
    maps.set_frontend(&KEY, FRONTEND).unwrap();
    drop(maps);
    let (mut maps, _) = granted(&estate);
    assert!(!era(&cache).is_open(), "what the dead one was about may be half done");
    maps.begin_era();
    assert_eq!(era(&cache), begun.next());
}
