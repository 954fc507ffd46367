//! How long a worker takes from its start to its grant. A measurement, not a test: run it with
//! `cargo test -p holdfast-worker --release --test serve -- --ignored --nocapture measure`.

use std::time::{Duration, Instant};

use holdfast_protocol::handover::{ConfigReport, FromChild, Occasion, ToChild};

use crate::configuration::{file, services};
use crate::estate::Estate;
use crate::supervisor::Worker;

#[test]
#[ignore = "a measurement: it asserts nothing"]
fn from_start_to_grant_after_a_crash() {
    measure(true);
}

#[test]
#[ignore = "a measurement: it asserts nothing"]
fn from_start_to_grant_with_a_configuration_to_compile() {
    measure(false);
}

/// Starts worker after worker; `told` is whether each is told what is in force.
fn measure(told: bool) {
    let mut in_force = None;
    let (_directory, path) = file(&services(1000, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]));
    let estate = Estate::new(65_536, 1_048_576);
    let mut steps: [Vec<Duration>; 4] = Default::default();
    for epoch in 1..=41 {
        let start = Instant::now();
        let mut worker = Worker::spawn(&path);
        let spawned = start.elapsed();
        worker.greet(Occasion::Recovery);
        if let Some(report) = &in_force {
            worker.tell(&ToChild::InForce(ConfigReport::clone(report)), &[]);
        }
        worker.offer(&estate);
        let accepted = start.elapsed();
        let report = worker.await_ready();
        let ready = start.elapsed();
        worker.tell(&ToChild::Grant { epoch }, &[]);
        worker.hear_until(|message| *message == FromChild::Granted { epoch });
        let granted = start.elapsed();
        worker.kill();
        // The first one writes everything.
        if epoch == 1 {
            in_force = told.then_some(report);
        } else {
            for (step, time) in steps.iter_mut().zip([spawned, accepted, ready, granted]) {
                step.push(time);
            }
        }
    }
    for (name, step) in ["spawned", "accepted", "ready", "granted"].iter().zip(&mut steps) {
        step.sort_unstable();
        let at = |part: usize| step[(step.len() - 1) * part / 100];
        println!("{name:>9}: p50 {:?}, p95 {:?}, most {:?}", at(50), at(95), at(100));
    }
}
