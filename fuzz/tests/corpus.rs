//! The short run of the fuzzers: every input that is kept, and a bounded number of changes of each,
//! through the very functions the fuzzers call.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use holdfast::succession::{Carried, CarriedWorker};
use holdfast_fuzz::{TARGETS, framed_state, state_body};
use holdfast_protocol::manifest::{Entry, Shape};

/// Changed inputs per input that is kept. All of them take a second or two without optimisation.
const CHANGES: u64 = 200;

/// Most changes in one input.
const MOST_AT_ONCE: u64 = 4;

/// What changes are drawn from, the same in every run: a failure comes again.
const SEED: u64 = 0x686f_6c64_6661_7374;

/// The golden packets, which are kept where they are tested.
const GOLDEN: &str = include_str!("../../protocol/tests/golden/v1.txt");

fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The files in a directory, in the order of their names.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| {
        panic!("{}: {error}", directory.display());
    });
    let paths: BTreeSet<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.into_iter().collect()
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let mut inputs: Vec<Vec<u8>> = files(&directory("corpus").join(target))
        .iter()
        .map(|path| fs::read(path).unwrap())
        .collect();
    let golden = golden_packets();
    match target {
        "packet" => inputs.extend(golden),
        // The channel counts from 1, the choice from 0.
        "body" => inputs.extend(golden.iter().map(|packet| {
            let mut body = packet[3..].to_vec();
            body[0] -= 1;
            body
        })),
        "state" => inputs.extend(states().iter().map(state_body)),
        _ => {}
    }
    inputs
}

fn golden_packets() -> Vec<Vec<u8>> {
    let bytes = |text: &str| {
        let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
        (0..text.len()).step_by(2).map(byte).collect()
    };
    GOLDEN.lines().map(|line| bytes(line.split_once(' ').unwrap().1)).collect()
}

/// States that can be taken over: with a worker and without.
fn states() -> Vec<Carried> {
    let shape = Shape::Link { attach_type: 10, program_id: 2, cgroup_id: 3 };
    let idle = Carried {
        build: "0.1.0".to_owned(),
        pid: 40,
        entries: vec![Entry { name: "hf_connect4".to_owned(), id: 19, shape }],
        objects: vec![10],
        lock: 11,
        listener: 13,
        ..Carried::default()
    };
    let worker = CarriedWorker { pid: 41, pidfd: 8, socket: 9, ..CarriedWorker::default() };
    let busy = Carried { worker: Some(worker), sessions: vec![14, 15], ..idle.clone() };
    vec![idle, busy]
}

/// `SplitMix64` (Steele, Lea, Flood, 2014).
struct Random(u64);

impl Random {
    fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.word() % bound as u64).unwrap()
    }
}

/// Changes a few places of `input`: a byte, a bit, a piece left out, said twice or taken from
/// `other`, or the end cut off.
fn change(input: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=random.word() % MOST_AT_ONCE {
        let at = random.below(bytes.len() + 1);
        let end = at + random.below((bytes.len() - at).min(32) + 1);
        let piece = bytes[at..end].to_vec();
        match random.below(6) {
            0 => bytes.truncate(at),
            1 => drop(bytes.splice(at..end, [])),
            2 => drop(bytes.splice(at..at, piece)),
            3 => bytes.insert(at, random.word().to_le_bytes()[0]),
            4 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            _ => {
                let from = random.below(other.len() + 1);
                let to = from + random.below((other.len() - from).min(32) + 1);
                drop(bytes.splice(at..end, other[from..to].iter().copied()));
            }
        }
    }
    bytes
}

/// Runs `check` on `input`; when that panics, says on what.
fn run(name: &str, check: fn(&[u8]), input: &[u8]) {
    let outcome = std::panic::catch_unwind(|| check(input));
    assert!(outcome.is_ok(), "{name} fails on {:?}", String::from_utf8_lossy(input));
}

#[test]
fn every_decoder_keeps_its_promises_on_the_corpus_and_on_changes_of_it() {
    for (name, check) in TARGETS {
        let corpus = corpus(name);
        assert!(corpus.len() >= 8, "{name} has only {} inputs", corpus.len());
        let mut random = Random(SEED);
        for input in &corpus {
            run(name, check, input);
            for _ in 0..CHANGES {
                let other = &corpus[random.below(corpus.len())];
                run(name, check, &change(input, other, &mut random));
            }
        }
    }
}

#[test]
fn every_fuzzer_has_a_corpus_and_is_called_like_its_function() {
    let names: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let stems = |directory: &Path| -> BTreeSet<String> {
        files(directory)
            .iter()
            .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(stems(&directory("fuzz_targets")), names);
    assert_eq!(stems(&directory("corpus")), names);
    for name in &names {
        let text =
            fs::read_to_string(directory("fuzz_targets").join(format!("{name}.rs"))).unwrap();
        assert!(text.contains(&format!("holdfast_fuzz::{name}(bytes)")), "{text}");
    }
    let manifest = fs::read_to_string(directory("Cargo.toml")).unwrap();
    assert_eq!(manifest.matches("[[bin]]").count(), names.len(), "each has a binary");
}

/// A function that accepts anything would be a fuzzer that finds nothing.
#[test]
fn the_corpus_reaches_both_verdicts_of_every_decoder() {
    use holdfast_config::{Sources, parse};
    use holdfast_protocol::pin;
    let both = |name: &str, accepted: &dyn Fn(&[u8]) -> bool| {
        let verdicts: BTreeSet<bool> = corpus(name).iter().map(|input| accepted(input)).collect();
        assert_eq!(verdicts, BTreeSet::from([false, true]), "{name}");
    };
    both("configuration", &|text| parse(&Sources::single("a.yaml", text)).is_ok());
    both("instance", &|name| {
        str::from_utf8(name).is_ok_and(|name| pin::check_instance(name).is_ok())
    });
    let is_message = |packet: &[u8]| {
        use holdfast_protocol::handover::ToChild;
        holdfast_protocol::wire::decode::<ToChild>(packet).is_ok()
    };
    both("packet", &is_message);
    both("request", &|head| {
        matches!(holdfast_worker::serve::http::request::parse(head), Ok(Some(_)))
    });
    both("sockets", &|packet| {
        use holdfast_worker::close::message::{Answer, answers};
        let mut rows = answers(packet).filter_map(|answer| match answer.ok()? {
            Answer::Row(row) => Some(row),
            _ => None,
        });
        rows.any(|row| row.cgroup().is_some())
    });
    // As `state` frames them: that it forgets the checksum would make it refuse everything.
    let is_state = |body: &[u8]| Carried::decode(&framed_state(body)).is_ok();
    both("state", &is_state);
}
