//! A small change is put in force before the digest of its text is known.

use std::fs;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use holdfast_config::Sources;
use holdfast_protocol::handover::{ConfigReport, FromChild, Occasion, Offer};
use holdfast_protocol::wire;
use holdfast_worker::serve::compilation::Compilation;
use holdfast_worker::serve::offer::Gathering;
use holdfast_worker::serve::session::{Next, Session};
use holdfast_worker::serve::tables::maps::ShadowMaps;
use nix::sys::socket::{MsgFlags, recv};

use crate::configuration::{file, key, services, write};
use crate::estate::Estate;
use crate::supervisor::{PATIENCE, Worker};

/// Bytes of comment before the services: their digest takes many times what comparing them takes.
const COMMENT: usize = 8 * 1024 * 1024;

/// Saves of which one has to be seen in force before the supervisor has heard of it. Usually the first is, unless this
/// process gets no processor for as long as the digest takes.
const SAVES: u16 = 20;

/// How often it is looked whether a save is in force.
const LOOK: Duration = Duration::from_micros(100);

fn text(port: u16) -> String {
    format!("#{}\n{}", "x".repeat(COMMENT), services(2, &[port]))
}

fn sources(port: u16) -> Arc<Sources> {
    Arc::new(Sources::single("test.yaml", services(2, &[port])))
}

/// The maps of `estate`, as a worker maps them.
fn shadow(estate: &Estate) -> ShadowMaps {
    let copies = estate.descriptors.iter().map(|fd| fd.try_clone().unwrap());
    let mut gathering = Gathering::default();
    let offer = Offer { index: 0, of: 1, entries: estate.entries.clone() };
    assert!(gathering.take(offer, copies.collect()).unwrap());
    ShadowMaps::map(gathering.finish().unwrap()).unwrap()
}

/// Goes on until there is nothing to do, and gives the reports of what is in force.
fn settle(session: &mut Session) -> Vec<ConfigReport> {
    loop {
        match session.next() {
            Next::Advance => session.advance().unwrap(),
            Next::Wait => break,
            other => panic!("{other:?}"),
        }
    }
    let reports = session.outbox().into_iter().filter_map(|message| match message {
        FromChild::Config(report) => Some(report),
        _ => None,
    });
    reports.collect()
}

#[test]
fn what_has_no_digest_yet_is_in_force_and_not_reported() {
    let estate = Estate::new(16, 64);
    let (mut compilation, mut session) = (Compilation::default(), Session::default());
    let first = compilation.compile(&sources(1001), "first".to_owned()).unwrap().compiled;
    session.load(Ok(first)).unwrap();
    session.adopt(shadow(&estate), Occasion::Start).unwrap();
    session.grant(1, true).unwrap();
    settle(&mut session);

    let second = sources(1002);
    let ahead = compilation.prepare(&second).expect("it is little");
    session.anticipate(&ahead).unwrap();
    assert_eq!(estate.connect(&key(0)), Some(vec![1002]));
    assert_eq!(settle(&mut session), [], "nobody knows its digest");
    let heads = estate.published();

    let second = compilation.compile(&second, "second".to_owned()).unwrap().compiled;
    session.load(Ok(second)).unwrap();
    let digests: Vec<String> = settle(&mut session).into_iter().map(|it| it.digest).collect();
    assert_eq!(digests, ["second"]);
    assert_eq!(estate.published(), heads, "it is not written again");
}

/// Nobody would ever say the digest of what is in force: a text that has none of its own is not passed on.
#[test]
fn a_text_that_is_saved_again_is_not_put_in_force_without_its_digest() {
    let mut compilation = Compilation::default();
    compilation.compile(&sources(1001), "first".to_owned()).unwrap();
    assert!(compilation.prepare(&sources(1001)).is_none());
    assert!(compilation.prepare(&sources(1002)).is_some());
}

#[test]
fn what_is_not_certain_waits_for_its_digest() {
    let estate = Estate::new(16, 64);
    let (mut compilation, mut session) = (Compilation::default(), Session::default());
    let first = compilation.compile(&sources(1001), "first".to_owned()).unwrap().compiled;
    session.load(Ok(Arc::clone(&first))).unwrap();
    session.adopt(shadow(&estate), Occasion::Start).unwrap();
    let ahead = compilation.prepare(&sources(1002)).expect("it is little");
    session.anticipate(&ahead).unwrap();
    assert_eq!(estate.connect(&key(0)), None, "it may not write");
    session.grant(1, true).unwrap();
    assert_eq!(estate.connect(&key(0)), Some(vec![1001]), "what was loaded is put in force");
    settle(&mut session);

    let wrong = Arc::new(Sources::single("test.yaml", "services: [nonsense"));
    assert!(compilation.prepare(&wrong).is_none(), "errors need all of the text");
    // What is on disk is another one by now, and not in force: that comes first.
    let third = compilation.compile(&sources(1003), "third".to_owned()).unwrap().compiled;
    session.load(Ok(third)).unwrap();
    session.anticipate(&ahead).unwrap();
    assert_eq!(estate.connect(&key(0)), Some(vec![1001]));
    settle(&mut session);
    assert_eq!(estate.connect(&key(0)), Some(vec![1003]));
}

/// Whether the worker has said that it tries something, as far as what it has said can be read by now.
fn has_tried(worker: &Worker) -> bool {
    let mut packet = vec![0; wire::MAX_PACKET_BYTES];
    let mut has_tried = false;
    while let Ok(length @ 1..) =
        recv(worker.socket().as_raw_fd(), &mut packet, MsgFlags::MSG_DONTWAIT)
    {
        let message: FromChild = wire::decode(&packet[..length]).unwrap();
        has_tried |= matches!(message, FromChild::Trying { .. });
    }
    has_tried
}

#[test]
fn a_small_change_does_not_wait_for_the_digest_of_its_text() {
    let (directory, path) = file(&text(1001));
    let estate = Estate::new(16, 64);
    let worker = Worker::granted(&path, &estate, 1);
    let aside = directory.path().join("next");
    let is_ahead = |port: u16| {
        write(&aside, &text(port));
        assert!(!has_tried(&worker));
        fs::rename(&aside, &path).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while estate.connect(&key(0)) != Some(vec![port]) {
            assert!(Instant::now() < deadline, "the save is not in force");
            thread::sleep(LOOK);
        }
        if has_tried(&worker) {
            return false;
        }
        worker.hear_until(|message| matches!(message, FromChild::Trying { .. }));
        worker.await_config(|report| report.services == 2);
        true
    };
    assert!((1002..1002 + SAVES).any(is_ahead), "the supervisor has always heard of it before");
}
