//! What a former worker has read is recognised by its mark, and not read before the next one is ready.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use holdfast_config::Sources;
use holdfast_protocol::handover::{
    ConfigReport, ConfigState, FromChild, Occasion, Origin, Seen, ToChild,
};
use holdfast_worker::serve::source::signature::{CERTAIN_AFTER, signature};

use crate::configuration::{file, key, services, write};
use crate::estate::Estate;
use crate::supervisor::{Worker, eventually, hello};

fn estate() -> Estate {
    Estate::new(16, 64)
}

fn digest(port: u16) -> String {
    Sources::single("holdfast.yaml", services(1, &[port])).digest()
}

/// What a former worker says of what is at `path` now, as if it had been something with this digest.
fn seen(path: &Path, digest: &str) -> Seen {
    Seen { digest: digest.to_owned(), mark: signature(path).mark().expect("it is a file") }
}

fn in_force(digest: &str) -> ConfigReport {
    let (digest, error) = (digest.to_owned(), String::new());
    let (state, origin) = (ConfigState::InForce, Origin::Disk);
    ConfigReport { digest, state, error, services: 1, endpoints: 1, origin }
}

/// A worker that follows one which has `seen` that, and had this in force.
fn successor(path: &Path, estate: &Estate, seen: Seen, report: &ConfigReport) -> Worker {
    let worker = Worker::spawn(path);
    worker.tell(&hello(Occasion::Recovery), &[]);
    worker.tell(&ToChild::Seen(seen), &[]);
    worker.tell(&ToChild::History(Default::default()), &[]);
    worker.tell(&ToChild::InForce(report.clone()), &[]);
    assert!(matches!(worker.hear(), FromChild::Welcome { .. }));
    worker.offer(estate);
    worker
}

#[test]
fn what_is_recognised_is_read_after_the_grant() {
    let (_directory, path) = file(&services(1, &[1001]));
    let estate = estate();
    // Whoever had read it would know that it has another digest.
    let former = in_force(&"ab".repeat(32));
    let worker = successor(&path, &estate, seen(&path, &former.digest), &former);
    assert_eq!(worker.await_ready(), former);
    worker.grant(1);
    let tried = worker.hear_until(|said| matches!(said, FromChild::Trying { .. }));
    assert_eq!(tried, FromChild::Trying { digest: digest(1001) });
    worker.await_config(|report| report.digest == digest(1001));
    assert_eq!(estate.connect(&key(0)), Some(vec![1001]));
}

#[test]
fn what_is_not_recognised_is_read_first() {
    let (_directory, path) = file(&services(1, &[1001]));
    let former = in_force(&"ab".repeat(32));
    let before = seen(&path, &former.digest);
    write(&path, &services(1, &[1002]));
    let worker = successor(&path, &estate(), before, &former);
    assert_eq!(worker.await_ready().digest, digest(1002));
}

/// Nobody says what was in force, so that it cannot be ready without reading.
#[test]
fn what_is_recognised_is_read_all_the_same_when_no_grant_comes() {
    let (_directory, path) = file(&services(1, &[1001]));
    let other = in_force(&"cd".repeat(32));
    let worker = successor(&path, &estate(), seen(&path, &"ab".repeat(32)), &other);
    assert_eq!(worker.await_ready().digest, digest(1001));
}

#[test]
fn what_changes_before_the_grant_is_put_in_force() {
    let (_directory, path) = file(&services(1, &[1001]));
    let estate = estate();
    let former = in_force(&digest(1001));
    let worker = successor(&path, &estate, seen(&path, &former.digest), &former);
    assert_eq!(worker.await_ready(), former);
    write(&path, &services(1, &[1002]));
    worker.grant(1);
    eventually(|| estate.connect(&key(0)) == Some(vec![1002]));
}

/// A change in the same step of the clock would not show.
#[test]
fn a_mark_is_given_when_any_other_change_would_show() {
    let begin = Instant::now();
    let (_directory, path) = file(&services(1, &[1001]));
    let estate = estate();
    let worker = Worker::granted(&path, &estate, 1);
    for port in [1001, 1002] {
        let begin = if port == 1001 { begin } else { Instant::now() };
        if port != 1001 {
            write(&path, &services(1, &[port]));
        }
        let said = worker.hear_until(|said| matches!(said, FromChild::Seen(_)));
        assert!(begin.elapsed() >= CERTAIN_AFTER, "{:?}", begin.elapsed());
        assert_eq!(said, FromChild::Seen(seen(&path, &digest(port))));
    }
}

#[test]
fn what_has_long_been_there_has_its_mark_at_once() {
    let (_directory, path) = file(&services(1, &[1001]));
    thread::sleep(CERTAIN_AFTER + Duration::from_millis(100));
    let begin = Instant::now();
    let worker = Worker::spawn(&path);
    worker.hand_over(&estate(), Occasion::Start);
    let said = worker.hear_until(|said| matches!(said, FromChild::Seen(_)));
    assert_eq!(said, FromChild::Seen(seen(&path, &digest(1001))));
    assert!(begin.elapsed() < CERTAIN_AFTER, "{:?}", begin.elapsed());
}
