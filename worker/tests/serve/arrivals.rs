//! Policies for arriving connections: nothing of them is in force, or said to be, before the supervisor has
//! said that what judges by them is attached.

use std::os::fd::AsFd as _;
use std::path::Path;

use holdfast_bpf::policies;
use holdfast_lab::handover::Said;
use holdfast_protocol::handover::{ConfigReport, ConfigState, FromChild, Occasion, ToChild};
use holdfast_protocol::kernel::map;

use crate::configuration::{file, key, services, write};
use crate::estate::Estate;
use crate::supervisor::Worker;

const CLOSED: &str = "policies:\n  - { name: closed, direction: inbound, action: deny, rules: [{ to: { \
                      ports: [7] } }] }\n";

fn with_policy(services: &str) -> String {
    format!("{services}{CLOSED}")
}

/// Whether the policies in force judge what arrives, by the maps.
fn judges(estate: &Estate) -> bool {
    let find = |name| {
        let at = estate.entries.iter().position(|entry| entry.name == name);
        estate.descriptors[at.expect("every map is there")].as_fd()
    };
    policies::judge_arrivals(find(map::POLICY_HEAD), find(map::POLICIES)).expect("they can be read")
}

/// Waits for the question. Nothing may be said to be in force before.
fn hear_question(worker: &Worker) {
    worker.hear_until(|message| {
        assert!(!is_said_to_be_in_force(message), "{message:?} before it is attached");
        *message == FromChild::Attach
    });
}

fn is_said_to_be_in_force(message: &FromChild) -> bool {
    match message {
        FromChild::Granted { .. } => true,
        FromChild::Config(report) => report.state == ConfigState::InForce,
        _ => false,
    }
}

fn await_in_force(worker: &Worker) -> ConfigReport {
    worker.await_config(|report| report.state == ConfigState::InForce)
}

fn missing(worker: &Worker, reason: &str) -> ConfigReport {
    worker.tell(&ToChild::NotAttached { reason: reason.to_owned() }, &[]);
    worker.await_config(|report| report.state != ConfigState::InForce)
}

/// A worker that has been granted with such policies on disk, and has asked.
fn asking(path: &Path, estate: &Estate, epoch: u64) -> Worker {
    let (worker, _) = Worker::ready(path, estate, Occasion::Start);
    worker.tell(&ToChild::Grant { epoch }, &[]);
    hear_question(&worker);
    worker
}

#[test]
fn a_grant_is_answered_when_it_is_attached_and_not_before() {
    let (_directory, path) = file(&with_policy(&services(1, &[1001])));
    let estate = Estate::new(16, 64);
    let worker = asking(&path, &estate, 1);
    // It asks as long as it is not answered, and does nothing else.
    for _ in 0..2 {
        hear_question(&worker);
    }
    assert!(!judges(&estate) && estate.published().is_empty(), "nothing is written before");
    worker.tell(&ToChild::Attached, &[]);
    worker.hear_until(|message| *message == FromChild::Granted { epoch: 1 });
    assert!(judges(&estate));
    assert_eq!(estate.connect(&key(0)), Some(vec![1001]));
}

#[test]
fn a_save_is_in_force_when_it_is_attached_and_not_before() {
    let (_directory, path) = file(&services(1, &[1001]));
    let estate = Estate::new(16, 64);
    let worker = Worker::granted(&path, &estate, 1);
    write(&path, &with_policy(&services(1, &[1002])));
    hear_question(&worker);
    hear_question(&worker);
    assert!(!judges(&estate));
    assert_eq!(estate.connect(&key(0)), Some(vec![1001]), "services of the same save wait too");
    worker.tell(&ToChild::Attached, &[]);
    await_in_force(&worker);
    assert!(judges(&estate));
    assert_eq!(estate.connect(&key(0)), Some(vec![1002]));
    // From now on it is attached: nobody is asked for the next one.
    write(&path, &with_policy(&services(1, &[1003])));
    worker.hear_until(|message| {
        assert_ne!(*message, FromChild::Attach);
        matches!(message, FromChild::Config(report) if report.state == ConfigState::InForce)
    });
}

#[test]
fn what_cannot_be_attached_is_refused_by_name_and_what_was_in_force_stays() {
    let (_directory, path) = file(&services(1, &[1001]));
    let estate = Estate::new(16, 64);
    let worker = Worker::granted(&path, &estate, 1);
    write(&path, &with_policy(&services(1, &[1002])));
    hear_question(&worker);
    let report = missing(&worker, "the hook is full");
    assert_eq!(report.state, ConfigState::DoesNotFit);
    for part in ["arriving connections", "the hook is full", "direction: inbound"] {
        assert!(report.error.contains(part), "`{part}` in: {}", report.error);
    }
    assert!(!judges(&estate));
    assert_eq!(estate.connect(&key(0)), Some(vec![1001]));
    // It asks by itself some time, and with the next save at once.
    write(&path, &with_policy(&services(1, &[1003])));
    hear_question(&worker);
    worker.tell(&ToChild::Attached, &[]);
    await_in_force(&worker);
    assert!(judges(&estate));
    assert_eq!(estate.connect(&key(0)), Some(vec![1003]));
}

#[test]
fn what_was_refused_is_in_force_once_it_is_attached_after_all() {
    let (_directory, path) = file(&services(1, &[1001]));
    let estate = Estate::new(16, 64);
    let worker = Worker::granted(&path, &estate, 1);
    write(&path, &with_policy(&services(1, &[1002])));
    hear_question(&worker);
    missing(&worker, "the hook is full");
    hear_question(&worker);
    worker.tell(&ToChild::Attached, &[]);
    await_in_force(&worker);
    assert!(judges(&estate));
}

#[test]
fn a_save_that_needs_nothing_attached_does_not_wait_for_one_that_did() {
    let (_directory, path) = file(&services(1, &[1001]));
    let estate = Estate::new(16, 64);
    let worker = Worker::granted(&path, &estate, 1);
    write(&path, &with_policy(&services(1, &[1002])));
    hear_question(&worker);
    write(&path, &services(1, &[1003]));
    await_in_force(&worker);
    assert_eq!(estate.connect(&key(0)), Some(vec![1003]));
    assert!(!judges(&estate));
    // The answer to the former comes late, and changes nothing.
    worker.tell(&ToChild::Attached, &[]);
    write(&path, &services(1, &[1004]));
    await_in_force(&worker);
    assert!(!judges(&estate));
}

#[test]
fn a_grant_that_cannot_be_served_so_is_answered_and_says_why() {
    let (_directory, path) = file(&services(1, &[1001]));
    let estate = Estate::new(16, 64);
    Worker::granted(&path, &estate, 1).kill();
    write(&path, &with_policy(&services(1, &[1002])));
    let worker = asking(&path, &estate, 2);
    let report = missing(&worker, "the hook is full");
    assert!(report.error.contains("the hook is full"), "{}", report.error);
    worker.hear_until(|message| *message == FromChild::Granted { epoch: 2 });
    assert_eq!(estate.connect(&key(0)), Some(vec![1001]), "what was programmed stays");
}

#[test]
fn a_worker_that_died_while_it_waited_leaves_the_question_to_the_next() {
    let (_directory, path) = file(&with_policy(&services(1, &[1001])));
    let estate = Estate::new(16, 64);
    asking(&path, &estate, 1).kill();
    assert!(!judges(&estate) && estate.published().is_empty());
    let mut next = asking(&path, &estate, 2);
    next.tell(&ToChild::Attached, &[]);
    next.hear_until(|message| Said::from(message) == Said::Granted);
    assert!(judges(&estate));
    // Also where policies are in force that judge arrivals: nobody knows whether it still is attached.
    next.kill();
    let third = asking(&path, &estate, 3);
    third.tell(&ToChild::Attached, &[]);
    third.hear_until(|message| Said::from(message) == Said::Granted);
}
