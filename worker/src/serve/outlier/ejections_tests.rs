//! What follows from ejections for the tables, and what a worker that takes over makes of these.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_config::Sources;
use holdfast_protocol::kernel::HeadWord;
use holdfast_protocol::kernel::endpoint::EndpointState;

use super::ejections::{Counts, Ejection};
use crate::serve::compile::{Compiled, compile_sources};
use crate::serve::health_check::health::Health;
use crate::serve::health_check::target::{Change, Target, Verdict};
use crate::serve::tables::desired::Desired;
use crate::serve::tables::estate::Capacity;
use crate::serve::tables::observe::{Observed, Programmed};

const EJECT: &str = "outlier_ejection: { consecutive_failures: 3, base_time: 30s }";

/// A service of endpoints at these ports.
fn service(keys: &str, ports: &[u16]) -> Arc<Compiled> {
    let endpoints: String =
        ports.iter().map(|port| format!("{{ address: 127.0.0.1, port: {port} }}, ")).collect();
    let text = format!(
        "services: [{{ name: a, addresses: [127.96.0.1, 'fd96::1'],
           ports: [{{ name: p, port: 1 }}, {{ name: u, port: 1, protocol: udp }}], {keys},
           endpoints: [{endpoints}] }}]"
    );
    Arc::new(compile_sources(&Sources::single("test.yaml", text)).expect("a valid configuration"))
}

/// What the maps would say after `desired` has been applied: the endpoint at port 12 of the table 0 has
/// the number 12, that of the table 1 the number 112, and so on.
fn programmed(desired: &Desired) -> Observed {
    let services = (0..).zip(&desired.services).map(|(number, service)| Programmed {
        number,
        head: HeadWord::new(1, 1),
        record: service.record,
        table: Some(service.table.clone()),
        states: service
            .table
            .endpoints
            .iter()
            .map(|slot| 100 * number + u32::from(u16::from_be(slot.port_be)))
            .collect(),
    });
    let capacity = Capacity { services: 64, slots: 1024, frontends: 64, endpoints: 1024 };
    Observed { capacity, services: services.collect(), frontends: HashMap::new() }
}

struct Worker {
    health: Health,
    compiled: Arc<Compiled>,
    desired: Arc<Desired>,
    /// Failures that have been counted under a number.
    failed: HashMap<u32, u64>,
    now: Instant,
}

impl Worker {
    fn takes_over(compiled: &Arc<Compiled>, observed: &Observed) -> Self {
        Self::takes_over_with(compiled, observed, HashMap::new())
    }

    fn takes_over_with(
        compiled: &Arc<Compiled>,
        observed: &Observed,
        failed: HashMap<u32, u64>,
    ) -> Self {
        let mut health = Health::default();
        let (desired, version) = health.desired(compiled, observed, true);
        health.programmed(version);
        let _watches = health.watches(compiled);
        let compiled = Arc::clone(compiled);
        let mut worker = Self { health, compiled, desired, failed, now: Instant::now() };
        assert_eq!(worker.look(), []);
        worker
    }

    /// Looks, and writes what follows.
    fn look(&mut self) -> Vec<Ejection> {
        let observed = programmed(&self.desired);
        if self.health.is_displaced() {
            self.health.place(&self.compiled, &observed);
        }
        let failed = &self.failed;
        let state = |number: u32| {
            let service = number / 100;
            let own = |slot: &&holdfast_protocol::kernel::EndpointSlot| {
                u32::from(u16::from_be(slot.port_be)) == number % 100
            };
            let table = &self.desired.services[service as usize].table;
            let slot = table.endpoints.iter().find(own).expect("it is in a table");
            let failed = failed.get(&number).copied().unwrap_or(0);
            let state = EndpointState::of(service, slot.address, slot.port_be);
            EndpointState { failed, failing: failed, ..state }
        };
        let turned = self.health.look(&self.compiled, state, self.now);
        self.write(&Arc::clone(&self.compiled));
        turned
    }

    fn write(&mut self, compiled: &Arc<Compiled>) {
        let (desired, version) = self.health.desired(compiled, &programmed(&self.desired), false);
        self.health.programmed(version);
        self.desired = desired;
    }

    fn save(&mut self, compiled: &Arc<Compiled>) {
        self.write(compiled);
        self.compiled = Arc::clone(compiled);
        let _watches = self.health.watches(compiled);
    }

    fn fail(&mut self, number: u32, times: u64) {
        *self.failed.entry(number).or_default() += times;
    }

    /// The endpoints' ports in the table `at`.
    fn used(&self, at: usize) -> Vec<u16> {
        let table = &self.desired.services[at].table;
        table.endpoints.iter().map(|slot| u16::from_be(slot.port_be)).collect()
    }
}

#[test]
fn an_ejected_endpoint_is_in_no_table_of_its_port_and_comes_back() {
    let mut worker =
        Worker::takes_over(&service(EJECT, &[11, 12, 13]), &programmed(&Desired::default()));
    // Failures of IPv4 clients and of IPv6 clients are two rows.
    worker.fail(12, 2);
    worker.fail(112, 2);
    assert_eq!(worker.look(), []);
    worker.fail(112, 1);
    assert_eq!(worker.look().len(), 1);
    assert_eq!([worker.used(0), worker.used(1)], [[11, 13], [11, 13]]);
    assert_eq!(worker.used(2), [11, 12, 13], "datagrams go on");
    assert_eq!(worker.health.ejections().counts(), Counts { in_a_row: 1, rate: 0 });
    // One of three is as many as the ceiling allows.
    worker.fail(13, 9);
    assert_eq!(worker.look(), []);
    worker.now += Duration::from_secs(30);
    assert_eq!(worker.look().len(), 2);
    assert_eq!(worker.used(0), [11, 12]);
}

#[test]
fn a_takeover_reinstates_nobody_and_ejects_nobody() {
    let compiled = service(EJECT, &[11, 12, 13]);
    let mut worker = Worker::takes_over(&compiled, &programmed(&Desired::default()));
    worker.fail(12, 3);
    worker.look();
    let mut next = Worker::takes_over(&compiled, &programmed(&worker.desired));
    assert_eq!(*next.desired, *worker.desired, "nothing is written");
    next.now += Duration::from_secs(29);
    assert_eq!(next.look(), []);
    assert_eq!(next.used(0), [11, 13]);
    next.now += Duration::from_secs(1);
    assert_eq!(next.look().len(), 1);
    assert_eq!(*next.desired, *compiled.desired);
    // What has failed before is nothing to a worker that begins.
    let failed = HashMap::from([(11, 100), (12, 100), (111, 100)]);
    let mut last = Worker::takes_over_with(&compiled, &programmed(&next.desired), failed);
    assert_eq!(last.look(), []);
    last.fail(12, 3);
    assert_eq!(last.look().len(), 1);
}

#[test]
fn a_save_forgets_who_is_gone_and_nobody_else() {
    let mut worker =
        Worker::takes_over(&service(EJECT, &[11, 12, 13, 14]), &programmed(&Desired::default()));
    worker.fail(12, 3);
    worker.fail(13, 3);
    assert_eq!(worker.look().len(), 2);
    worker.save(&service(EJECT, &[11, 12, 14, 15]));
    assert_eq!(worker.used(0), [11, 14, 15]);
    worker.save(&service(EJECT, &[11, 12, 13, 14]));
    assert_eq!(worker.used(0), [11, 13, 14], "one that is new is in");
    worker.save(&service("no_endpoint: deny", &[11, 12, 13]));
    assert_eq!(worker.used(0), [11, 12, 13]);
    assert!(!worker.health.ejects());
}

#[test]
fn with_checks_an_endpoint_is_used_if_neither_says_no() {
    let keys = format!("health_check: {{ tcp: {{}}, port: 9 }}, {EJECT}");
    let text = service(&keys, &[11, 12]);
    let mut worker = Worker::takes_over(&text, &programmed(&Desired::default()));
    worker.fail(12, 3);
    assert_eq!(worker.look().len(), 1);
    assert_eq!(worker.used(0), [11]);
    // Both endpoints are checked at one place.
    let find = |worker: &mut Worker, verdict| {
        let address = ([127, 0, 0, 1], 9).into();
        let target = Target { service: Arc::from("a"), address };
        let change = Change { target, verdict, reason: "refused".to_owned() };
        let generation = worker.health.generation();
        worker.health.note(
            generation,
            vec![change],
            crate::serve::health_check::target::Counts::default(),
        );
        worker.write(&Arc::clone(&worker.compiled));
    };
    find(&mut worker, Verdict::Unhealthy);
    assert_eq!(worker.used(0), [11, 12], "all, for want of a better one");
    let standing = |worker: &Worker| {
        let standings = worker.health.standings(&worker.compiled, worker.now);
        standings.iter().map(|it| it.verdict).collect::<Vec<_>>()
    };
    assert_eq!(standing(&worker), [Verdict::Unhealthy; 4]);
    find(&mut worker, Verdict::Healthy);
    assert_eq!(worker.used(0), [11]);
    assert_eq!(standing(&worker)[..2], [Verdict::Healthy, Verdict::Ejected]);
}
