//! The bytes of every message, per protocol version: a build that speaks a version has to send and
//! understand exactly these, whatever it was compiled from.
//!
//! A changed line in `golden/v1.txt` is a changed protocol. Before the first release it may change;
//! after it, a change needs a new version beside the old one.

mod samples;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fmt::Write as _;

use holdfast_protocol::handover::{FromChild, ToChild};
use holdfast_protocol::wire::{self, Message, WireError};
use proptest::prelude::*;

const GOLDEN: &str = include_str!("golden/v1.txt");

/// Set to write the golden file anew instead of comparing with it.
const REWRITE: &str = "HOLDFAST_REWRITE_GOLDEN";

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string");
        text
    })
}

fn bytes(hexadecimal: &str) -> Vec<u8> {
    (0..hexadecimal.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hexadecimal[at..at + 2], 16).expect("hexadecimal digits"))
        .collect()
}

/// Checks each sample against its golden line, both ways, and returns the lines it needs.
fn check<M: Message + Debug + PartialEq>(
    golden: &BTreeMap<&str, &str>,
    samples: Vec<(&'static str, M)>,
) -> Vec<String> {
    let channel = M::CHANNEL;
    samples
        .into_iter()
        .map(|(name, message)| {
            let name = format!("{channel:?}.{name}");
            let encoded = wire::encode(&message).expect("samples are small");
            if std::env::var_os(REWRITE).is_none() {
                let expected =
                    golden.get(name.as_str()).unwrap_or_else(|| panic!("no line {name}"));
                assert_eq!(&hexadecimal(&encoded), expected, "{name} is sent differently");
                let decoded: M = wire::decode(&bytes(expected)).expect("golden bytes decode");
                assert_eq!(decoded, message, "{name} is understood differently");
            }
            format!("{name} {}", hexadecimal(&encoded))
        })
        .collect()
}

#[test]
fn every_message_has_its_golden_bytes() {
    let golden: BTreeMap<&str, &str> = GOLDEN.lines().filter_map(|l| l.split_once(' ')).collect();
    let lines: Vec<String> = [
        check(&golden, samples::to_child()),
        check(&golden, samples::from_child()),
        check(&golden, samples::requests()),
        check(&golden, samples::responses()),
        check(&golden, samples::queries()),
        check(&golden, samples::answers()),
    ]
    .concat();
    if std::env::var_os(REWRITE).is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/v1.txt");
        std::fs::write(path, lines.join("\n") + "\n").expect("the golden file is writable");
    } else {
        assert_eq!(lines.len(), golden.len(), "the golden file has lines of no message");
    }
}

/// Postcard numbers variants from 0 in their order, so the last sample's number says how many
/// variants have to have a sample.
#[test]
fn every_variant_has_a_sample() {
    fn check<M: Message>(samples: Vec<(&'static str, M)>) {
        let numbers: std::collections::BTreeSet<u8> = samples
            .iter()
            .map(|(_, message)| wire::encode(message).expect("small")[wire::HEADER_BYTES])
            .collect();
        let count = u8::try_from(numbers.len()).expect("few variants");
        assert_eq!(numbers, (0..count).collect());
        let mut beyond = wire::encode(&samples[0].1).expect("small")[..wire::HEADER_BYTES].to_vec();
        beyond.extend([count; 64]);
        assert!(
            matches!(wire::decode::<M>(&beyond), Err(WireError::Malformed(_))),
            "variant {count} of {:?} exists and has no sample",
            M::CHANNEL
        );
    }
    check(samples::to_child());
    check(samples::from_child());
    check(samples::requests());
    check(samples::responses());
    check(samples::queries());
    check(samples::answers());
}

#[test]
fn a_header_that_is_not_ours_is_refused_before_the_body_is_looked_at() {
    let good = wire::encode(&ToChild::Release).expect("small");
    let changed = |at: usize, to: u8| {
        let mut packet = good.clone();
        packet[at] = to;
        wire::decode::<ToChild>(&packet).expect_err("changed")
    };
    assert_eq!(changed(0, b'X'), WireError::Foreign);
    assert_eq!(changed(2, 0), WireError::Version(0));
    assert_eq!(changed(2, 99), WireError::Version(99));
    assert_eq!(changed(3, 2), WireError::Channel(2));
    assert_eq!(wire::decode::<FromChild>(&good), Err(WireError::Channel(1)));
    assert_eq!(wire::decode::<ToChild>(&good[..3]), Err(WireError::Foreign));
    assert_eq!(wire::decode::<ToChild>(&[]), Err(WireError::Foreign));
}

#[test]
fn bytes_after_a_message_are_refused() {
    let mut packet = wire::encode(&ToChild::Release).expect("small");
    packet.push(0);
    assert_eq!(wire::decode::<ToChild>(&packet), Err(WireError::Trailing(1)));
}

#[test]
fn a_packet_over_the_limit_is_neither_sent_nor_read() {
    let body = vec![0; wire::MAX_PACKET_BYTES];
    let sent = wire::encode(&ToChild::Query { id: 0, body });
    assert!(matches!(sent, Err(WireError::TooLong(_))));
    let read = wire::decode::<ToChild>(&vec![0; wire::MAX_PACKET_BYTES + 1]);
    assert_eq!(read, Err(WireError::TooLong(wire::MAX_PACKET_BYTES + 1)));
}

#[test]
fn text_is_cut_at_a_character() {
    assert_eq!(wire::bounded("añb", 2), "a");
    assert_eq!(wire::bounded("añb", 3), "añ");
    assert_eq!(wire::bounded("añb", 100), "añb");
}

fn decode_as_everything(packet: &[u8]) {
    use holdfast_protocol::control::{Request, Response, WorkerAnswer, WorkerQuery};
    let _ = wire::decode::<ToChild>(packet);
    let _ = wire::decode::<FromChild>(packet);
    let _ = wire::decode::<Request>(packet);
    let _ = wire::decode::<Response>(packet);
    let _ = wire::decode::<WorkerQuery>(packet);
    let _ = wire::decode::<WorkerAnswer>(packet);
}

proptest! {
    #[test]
    fn random_bytes_never_panic(packet in proptest::collection::vec(any::<u8>(), 0..2048)) {
        decode_as_everything(&packet);
    }

    #[test]
    fn random_bodies_never_panic(
        channel in 1_u8..=6,
        body in proptest::collection::vec(any::<u8>(), 0..2048),
    ) {
        let mut packet = vec![b'H', b'F', wire::VERSION, channel];
        packet.extend(body);
        decode_as_everything(&packet);
    }

    /// One changed byte gives an error or another message, and what was decoded encodes again.
    #[test]
    fn a_damaged_message_is_an_error_or_a_message(
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        to in any::<u8>(),
    ) {
        let samples = samples::from_child();
        let mut packet = wire::encode(&samples[which.index(samples.len())].1).expect("small");
        let at = at.index(packet.len());
        packet[at] = to;
        if let Ok(message) = wire::decode::<FromChild>(&packet) {
            prop_assert!(wire::encode(&message).is_ok());
        }
    }
}
