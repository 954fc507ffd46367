//! Mapped arrays of more elements than are mapped together.

use std::panic::{AssertUnwindSafe, catch_unwind};

use holdfast_bpf::mapped::MappedArray;
use holdfast_protocol::kernel::{HeadWord, ServiceRecord};

use crate::estate::Estate;

const LENGTH: u32 = 20_000;

/// The first and the last element, and those at the borders of windows.
const PLACES: [u32; 6] = [0, 8191, 8192, 16_383, 16_384, LENGTH - 1];

fn heads(estate: &Estate) -> MappedArray<HeadWord> {
    let heads = estate.descriptors[1].try_clone().expect("another descriptor");
    MappedArray::map(heads).expect("mapped")
}

#[test]
fn an_element_is_the_same_through_every_mapping() {
    let estate = Estate::new(LENGTH, LENGTH);
    let (reader, mut writer) = (heads(&estate), heads(&estate));
    // Some windows are mapped before the array may be written, some after.
    assert_eq!(writer.read(PLACES[2]), HeadWord(0));
    writer.protect(true).expect("made writable");
    for place in PLACES {
        writer.write(place, HeadWord(u64::from(place) + 1));
    }
    for place in PLACES {
        assert_eq!(reader.read(place), HeadWord(u64::from(place) + 1), "element {place}");
    }
    let set = (0..LENGTH).filter(|index| reader.read(*index) != HeadWord(0)).count();
    assert_eq!(set, PLACES.len(), "no element is written but those");
}

#[test]
fn elements_that_do_not_divide_a_page_are_where_the_kernel_has_them() {
    let estate = Estate::new(LENGTH, LENGTH);
    let map = || {
        let services = estate.descriptors[3].try_clone().expect("another descriptor");
        MappedArray::<ServiceRecord>::map(services).expect("mapped")
    };
    let (reader, mut writer) = (map(), map());
    writer.protect(true).expect("made writable");
    let record = |place: u32| {
        let mut record = reader.read(place);
        record.service[..4].copy_from_slice(&place.to_le_bytes());
        record.family = 4;
        record
    };
    (0..LENGTH).for_each(|place| writer.write(place, record(place)));
    assert!((0..LENGTH).all(|place| reader.read(place) == record(place)));
}

#[test]
fn what_may_not_be_written_is_not_whichever_window_it_is_in() {
    let estate = Estate::new(LENGTH, LENGTH);
    let mut array = heads(&estate);
    array.protect(true).expect("made writable");
    array.write(0, HeadWord(7));
    array.protect(false).expect("made read-only");
    for place in PLACES {
        let written = catch_unwind(AssertUnwindSafe(|| array.write(place, HeadWord(9))));
        assert!(written.is_err(), "element {place}");
    }
    assert!(catch_unwind(AssertUnwindSafe(|| array.read(LENGTH))).is_err(), "behind the end");
    assert_eq!(array.read(0), HeadWord(7));
}

#[test]
fn what_was_let_go_is_there_again_and_may_be_written_as_before() {
    let estate = Estate::new(LENGTH, LENGTH);
    let mut array = heads(&estate);
    array.protect(true).expect("made writable");
    array.write(PLACES[3], HeadWord(7));
    array.let_go();
    assert_eq!(array.read(PLACES[3]), HeadWord(7));
    array.write(PLACES[3], HeadWord(8));
    array.let_go();
    array.protect(false).expect("made read-only");
    assert_eq!(array.read(PLACES[3]), HeadWord(8));
    let written = catch_unwind(AssertUnwindSafe(|| array.write(PLACES[3], HeadWord(9))));
    assert!(written.is_err(), "it may be read only");
}

#[test]
fn what_is_no_map_is_not_taken_for_one() {
    for other in ["/dev/null", "/proc/self/status"] {
        let file = std::fs::File::open(other).expect("opened");
        let refused = MappedArray::<HeadWord>::map(file.into()).expect_err("no map");
        assert!(refused.to_string().contains("no bpf object"), "{refused}");
    }
}
