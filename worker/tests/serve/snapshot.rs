//! The snapshot: what is in force when nothing else could be, and how it is written.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _};
use std::os::fd::{AsRawFd as _, RawFd};
use std::path::Path;

use holdfast_config::{Source, Sources, snapshot};
use holdfast_protocol::handover::{
    ConfigReport, ConfigState, FromChild, History, Occasion, Origin, SetAside, ToChild,
};

use crate::configuration::{directory, file, key, services};
use crate::estate::Estate;
use crate::supervisor::{Worker, eventually};

fn estate() -> Estate {
    Estate::new(16, 64)
}

fn sources(text: &str) -> Sources {
    Sources::new(vec![Source {
        label: "snapshot/holdfast.yaml".to_owned(),
        name: "holdfast.yaml".to_owned(),
        contents: text.into(),
    }])
}

/// A snapshot of `text`, as the supervisor opens it: read up to the end of the header.
fn opened(directory: &Path, text: &str) -> (File, History) {
    let path = directory.join("snapshot");
    fs::write(&path, snapshot::encode(&sources(text))).unwrap();
    let mut file = File::open(path).unwrap();
    file.seek(std::io::SeekFrom::Start(42)).unwrap();
    (file, History { snapshot: sources(text).digest(), ..History::default() })
}

/// A worker that was told of `history`, handed `estate`, and is ready.
fn ready(
    config: &Path,
    estate: &Estate,
    history: &History,
    snapshot: &[RawFd],
) -> (Worker, Vec<FromChild>, ConfigReport) {
    let worker = Worker::spawn(config);
    worker.greet_with(Occasion::Start, history, snapshot);
    // What is read meanwhile may be tried before the offer is accepted.
    worker.send_offer(estate);
    let mut said = Vec::new();
    let last = worker.hear_until(|message| {
        said.push(message.clone());
        matches!(message, FromChild::Ready { .. })
    });
    let FromChild::Ready { config } = last else { unreachable!("only that ends it") };
    (worker, said, config)
}

#[test]
fn with_nothing_on_disk_and_nothing_in_the_kernel_it_is_restored() {
    let directory = directory();
    let (snapshot, history) = opened(directory.path(), &services(2, &[1001]));
    let missing = directory.path().join("holdfast.yaml");
    let estate = estate();
    let (worker, _, report) = ready(&missing, &estate, &history, &[snapshot.as_raw_fd()]);
    assert_eq!((report.state, report.origin), (ConfigState::Rejected, Origin::Snapshot));
    assert_eq!((report.digest, report.services), (history.snapshot, 2));
    assert!(report.error.contains("cannot find the configuration"), "{}", report.error);
    worker.grant(1);
    assert_eq!(estate.connect(&key(1)), Some(vec![1001]));

    crate::configuration::write(&missing, &services(1, &[1002]));
    let report = worker.await_config(|report| report.state == ConfigState::InForce);
    assert_eq!(report.origin, Origin::Disk);
    assert_eq!((estate.connect(&key(0)), estate.connect(&key(1))), (Some(vec![1002]), None));
    fs::remove_file(&missing).unwrap();
    let report = worker.await_config(|report| report.state == ConfigState::Rejected);
    assert_eq!(report.origin, Origin::Disk, "what was in force stays, and not the snapshot");
}

#[test]
fn what_is_in_the_kernel_is_newer_and_stays() {
    let (directory, path) = file(&services(1, &[1001]));
    let estate = estate();
    Worker::granted(&path, &estate, 1).kill();
    fs::remove_file(&path).unwrap();
    let (snapshot, history) = opened(directory.path(), &services(1, &[2001]));
    let (worker, _, report) = ready(&path, &estate, &history, &[snapshot.as_raw_fd()]);
    assert_eq!((report.origin, report.digest.as_str()), (Origin::Kernel, ""));
    worker.grant(2);
    assert_eq!(estate.connect(&key(0)), Some(vec![1001]));
}

#[test]
fn a_damaged_one_is_not_used_at_all_and_reported() {
    let directory = directory();
    let text = services(2, &[1001]);
    let (_, history) = opened(directory.path(), &text);
    let path = directory.path().join("snapshot");
    let whole = fs::read(&path).unwrap();
    for length in [42, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        let snapshot = File::open(&path).unwrap();
        let estate = estate();
        let missing = directory.path().join("holdfast.yaml");
        let (worker, said, report) = ready(&missing, &estate, &history, &[snapshot.as_raw_fd()]);
        let unusable = said.iter().find_map(|message| match message {
            FromChild::SnapshotUnusable { reason } => Some(reason),
            _ => None,
        });
        assert!(unusable.is_some_and(|reason| reason.contains("damaged")), "{said:?}");
        assert_eq!((report.origin, report.services), (Origin::Kernel, 0));
        worker.grant(1);
        assert_eq!(estate.connect(&key(0)), None);
    }
}

#[test]
fn a_configuration_that_was_set_aside_is_not_parsed_and_the_snapshot_takes_its_place() {
    let bad = services(1, &[666]);
    let (directory, path) = file(&bad);
    let estate = estate();
    // It had come into force before it crashed anybody.
    Worker::granted(&path, &estate, 1).kill();
    let (snapshot, history) = opened(directory.path(), &services(1, &[1001]));
    let aside = SetAside { digest: sources(&bad).digest(), reason: "killed by SIGSEGV".to_owned() };
    let history = History { set_aside: vec![aside], ..history };
    let (worker, said, report) = ready(&path, &estate, &history, &[snapshot.as_raw_fd()]);
    let tried = said.iter().any(|message| matches!(message, FromChild::Trying { .. }));
    assert!(!tried, "{said:?}");
    assert_eq!((report.state, report.origin), (ConfigState::SetAside, Origin::Snapshot));
    assert!(report.error.contains("killed by SIGSEGV"), "{}", report.error);
    worker.grant(2);
    assert_eq!(estate.connect(&key(0)), Some(vec![1001]));
    crate::configuration::write(&path, &services(1, &[1002]));
    worker.await_config(|report| report.state == ConfigState::InForce);
    assert_eq!(estate.connect(&key(0)), Some(vec![1002]), "something else is tried");
}

#[test]
fn what_is_tried_is_said_before_it_is_parsed() {
    let (_directory, path) = file("services: [");
    let (_, said, report) = ready(&path, &estate(), &History::default(), &[]);
    assert_eq!(report.state, ConfigState::Rejected);
    let digest = sources("services: [").digest();
    assert!(said.contains(&FromChild::Trying { digest }), "{said:?}");
}

#[test]
fn it_is_written_whole_when_the_supervisor_says_so() {
    let (directory, path) = file(&services(2, &[1001]));
    let worker = Worker::granted(&path, &estate(), 1);
    let written = directory.path().join("snapshot.new");
    let mut file = File::options().read(true).write(true).create_new(true).open(&written).unwrap();
    worker.tell(&ToChild::Keep, &[file.as_raw_fd()]);
    let digest = sources(&services(2, &[1001])).digest();
    worker.hear_until(|message| *message == FromChild::Kept { digest: digest.clone() });
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    let kept = snapshot::decode(&bytes).unwrap();
    assert_eq!((kept.digest(), kept.files()[0].name.as_str()), (digest, "holdfast.yaml"));
}

#[test]
fn what_cannot_be_written_is_said() {
    let (_directory, path) = file(&services(2, &[1001]));
    let worker = Worker::granted(&path, &estate(), 1);
    let full = File::options().write(true).open("/dev/full").unwrap();
    worker.tell(&ToChild::Keep, &[full.as_raw_fd()]);
    let not_kept = |message: &FromChild| match message {
        FromChild::NotKept { reason } => reason.contains("No space left"),
        _ => false,
    };
    worker.hear_until(not_kept);
}

#[test]
fn without_its_descriptor_the_conversation_ends() {
    let (_directory, path) = file(&services(1, &[1001]));
    let mut worker = Worker::spawn(&path);
    let history = History { snapshot: "ab".repeat(32), ..History::default() };
    worker.greet_with(Occasion::Start, &history, &[]);
    let refused = |message: &FromChild| match message {
        FromChild::Refused { reason } => reason.contains("ulimit -n"),
        _ => false,
    };
    worker.hear_until(refused);
    eventually(|| worker.child.try_wait().unwrap().is_some());
}
