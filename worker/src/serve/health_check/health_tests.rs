//! What follows from health for the tables, and what a worker that takes over makes of these.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use holdfast_config::Sources;
use holdfast_protocol::kernel::HeadWord;
use proptest::prelude::*;

use super::health::Health;
use super::target::{Change, Counts, Prior, Target, Verdict};
use crate::serve::compile::{Compiled, compile_sources};
use crate::serve::tables::desired::{Desired, Label};
use crate::serve::tables::estate::Capacity;
use crate::serve::tables::observe::{Observed, Programmed};

fn compiled(text: &str) -> Arc<Compiled> {
    Arc::new(compile_sources(&Sources::single("test.yaml", text)).expect("a valid configuration"))
}

/// A service of four endpoints, ports 11 to 14.
fn four(keys: &str) -> Arc<Compiled> {
    let endpoints: String =
        (11..15).map(|port| format!("{{ address: 127.0.0.1, port: {port} }}, ")).collect();
    compiled(&format!(
        "services: [{{ name: a, addresses: [127.96.0.1], ports: [{{ name: p, port: 1 }}], {keys},
           endpoints: [{endpoints}] }}]"
    ))
}

/// What the maps would say after `desired` has been applied.
fn programmed(desired: &Desired) -> Observed {
    let services = (0..).zip(&desired.services).map(|(number, service)| Programmed {
        number,
        head: HeadWord::new(1, 1),
        record: service.record,
        table: Some(service.table.clone()),
        states: vec![0; service.table.endpoints.len()],
    });
    let capacity = Capacity { services: 64, slots: 1024, frontends: 64, endpoints: 64 };
    Observed { capacity, services: services.collect(), frontends: std::collections::HashMap::new() }
}

fn nothing() -> Observed {
    programmed(&Desired::default())
}

/// The endpoints' ports in each table, by the table's label.
fn used(desired: &Desired) -> BTreeMap<String, BTreeSet<u16>> {
    let ports = |service: &crate::serve::tables::desired::DesiredService| {
        service.table.endpoints.iter().map(|slot| u16::from_be(slot.port_be)).collect()
    };
    desired.services.iter().map(|it| (Label(&it.record).to_string(), ports(it))).collect()
}

/// The same of a configuration with one table.
fn used_by_one(desired: &Desired) -> Vec<u16> {
    used(desired).into_values().next().expect("a table").into_iter().collect()
}

/// A worker, as far as health is concerned.
struct Worker {
    health: Health,
    compiled: Arc<Compiled>,
    desired: Arc<Desired>,
}

impl Worker {
    /// Takes over what is `observed`, with nothing of its own in force.
    fn takes_over(compiled: &Arc<Compiled>, observed: &Observed) -> Self {
        let mut health = Health::default();
        let (desired, version) = health.desired(compiled, observed, true);
        health.programmed(version);
        let mut worker = Self { health, compiled: Arc::clone(compiled), desired };
        let _watches = worker.health.watches(compiled);
        worker
    }

    fn save(&mut self, compiled: &Arc<Compiled>) {
        self.compiled = Arc::clone(compiled);
        self.apply();
        let _watches = self.health.watches(compiled);
    }

    fn apply(&mut self) {
        let observed = programmed(&self.desired);
        let (desired, version) = self.health.desired(&self.compiled, &observed, false);
        self.health.programmed(version);
        self.desired = desired;
    }

    fn find(&mut self, address: SocketAddr, verdict: Verdict) {
        let target = Target { service: Arc::from("a"), address };
        let reason = "refused".to_owned();
        let change = Change { target, verdict, reason };
        let generation = self.health.generation();
        self.health.note(generation, vec![change], Counts::default());
        self.apply();
    }

    fn find_port(&mut self, port: u16, verdict: Verdict) {
        self.find(([127, 0, 0, 1], port).into(), verdict);
    }

    fn priors(&mut self) -> BTreeMap<SocketAddr, Prior> {
        let (_, watches) = self.health.watches(&self.compiled.clone());
        watches.into_iter().map(|watch| (watch.target.address, watch.prior)).collect()
    }
}

/// What a worker that takes over from `worker` makes of each port.
fn recalled(worker: &Worker) -> Vec<(u16, Prior)> {
    let mut next = Worker::takes_over(&worker.compiled, &programmed(&worker.desired));
    next.priors().into_iter().map(|(address, prior)| (address.port(), prior)).collect()
}

#[test]
fn an_unhealthy_endpoint_is_in_no_table_and_comes_back() {
    let mut worker = Worker::takes_over(&four("health_check: { tcp: {} }"), &nothing());
    assert_eq!(used_by_one(&worker.desired), [11, 12, 13, 14]);
    worker.find_port(12, Verdict::Unhealthy);
    assert_eq!(used_by_one(&worker.desired), [11, 13, 14]);
    worker.find_port(12, Verdict::Healthy);
    assert_eq!(*worker.desired, *worker.compiled.desired);
    assert!(!worker.health.is_pending());
}

#[test]
fn when_nobody_is_healthy_the_configuration_decides() {
    for (keys, expected) in [
        ("health_check: { tcp: {} }", vec![11, 12, 13, 14]),
        ("health_check: { tcp: {}, when_all_unhealthy: no_endpoint }", vec![]),
    ] {
        let mut worker = Worker::takes_over(&four(keys), &nothing());
        (11..15).for_each(|port| worker.find_port(port, Verdict::Unhealthy));
        assert_eq!(used_by_one(&worker.desired), expected, "{keys}");
        worker.find_port(13, Verdict::Healthy);
        assert_eq!(used_by_one(&worker.desired), [13], "{keys}");
    }
}

#[test]
fn a_worker_that_takes_over_keeps_out_who_was_kept_out() {
    let mut worker = Worker::takes_over(&four("health_check: { tcp: {} }"), &nothing());
    let all = |prior| [11, 12, 13, 14].map(|port| (port, prior)).to_vec();
    // A service that begins uses everybody, and so it is not known whether that was for want of better.
    assert_eq!(worker.priors().into_values().collect::<Vec<_>>(), [Prior::Presumed; 4]);
    assert_eq!(recalled(&worker), all(Prior::Presumed));
    worker.find_port(12, Verdict::Unhealthy);
    let mut expected = all(Prior::Healthy);
    expected[1].1 = Prior::Unhealthy;
    assert_eq!(recalled(&worker), expected);
    let next = Worker::takes_over(&worker.compiled, &programmed(&worker.desired));
    assert_eq!(*next.desired, *worker.desired, "nothing is written");
    // One whose tables say that nobody is healthy is not in doubt.
    let none = four("health_check: { tcp: {}, when_all_unhealthy: no_endpoint }");
    let mut worker = Worker::takes_over(&none, &nothing());
    assert_eq!(recalled(&worker), all(Prior::Healthy));
    (11..15).for_each(|port| worker.find_port(port, Verdict::Unhealthy));
    assert_eq!(recalled(&worker), all(Prior::Unhealthy));
}

#[test]
fn an_endpoint_that_comes_to_others_waits_for_its_first_check() {
    let three = four("health_check: { tcp: {} }");
    let text = |ports: &[u16]| {
        let endpoints: String =
            ports.iter().map(|port| format!("{{ address: 127.0.0.1, port: {port} }}, ")).collect();
        compiled(&format!(
            "services: [{{ name: a, addresses: [127.96.0.1], ports: [{{ name: p, port: 1 }}],
               health_check: {{ tcp: {{}} }}, endpoints: [{endpoints}] }}]"
        ))
    };
    let mut worker = Worker::takes_over(&three, &nothing());
    worker.save(&text(&[11, 12, 15]));
    assert_eq!(used_by_one(&worker.desired), [11, 12]);
    assert_eq!(worker.priors()[&([127, 0, 0, 1], 15).into()], Prior::Unchecked);
    worker.find_port(15, Verdict::Healthy);
    assert_eq!(used_by_one(&worker.desired), [11, 12, 15]);
    // Checks that are no longer wanted leave nobody out.
    worker.find_port(15, Verdict::Unhealthy);
    worker.save(&four("no_endpoint: deny"));
    assert_eq!(used_by_one(&worker.desired), [11, 12, 13, 14]);
    // And those that begin to be checked go on while that is not known.
    worker.save(&four("health_check: { tcp: {}, when_all_unhealthy: no_endpoint }"));
    assert_eq!(used_by_one(&worker.desired), [11, 12, 13, 14]);
}

#[test]
fn news_of_an_endpoint_that_was_gone_meanwhile_are_no_news() {
    let mut worker = Worker::takes_over(&four("health_check: { tcp: {} }"), &nothing());
    let old = worker.health.generation();
    worker.save(&compiled("services: []"));
    worker.save(&four("health_check: { tcp: {} }"));
    let address = ([127, 0, 0, 1], 11).into();
    let target = Target { service: Arc::from("a"), address };
    let change = Change { target, verdict: Verdict::Unhealthy, reason: "refused".to_owned() };
    assert_eq!(worker.health.note(old, vec![change.clone()], Counts::default()), []);
    let new = worker.health.generation();
    assert_eq!(worker.health.note(new, vec![change.clone()], Counts::default()), [change]);
}

#[test]
fn connections_spill_over_as_with_endpoints_that_drain() {
    let text = |keys: &str| {
        compiled(&format!(
            "services: [{{ name: a, addresses: [127.96.0.1], ports: [{{ name: p, port: 1 }}],
               health_check: {{ tcp: {{}}, port: 9 }},
               load_balancing: {{ locality: {{ mode: failover }} }},
               endpoints: [{{ address: 127.0.0.1, priority: 0 {keys} }},
                           {{ address: 127.0.0.2, priority: 0 }},
                           {{ address: 127.0.0.3, priority: 1 }},
                           {{ address: 127.0.0.4, priority: 2 }}] }}]"
        ))
    };
    let at = |host: u8| SocketAddr::from(([127, 0, 0, host], 9));
    let mut worker = Worker::takes_over(&text(""), &nothing());
    worker.find(at(1), Verdict::Unhealthy);
    let draining = text(", draining: true");
    assert_eq!(worker.desired.services[0].table, draining.desired.services[0].table);
    // Nothing is known of a priority that nobody spills over to.
    let mut next = Worker::takes_over(&worker.compiled, &programmed(&worker.desired));
    let expected = [Prior::Unhealthy, Prior::Healthy, Prior::Healthy, Prior::Unchecked];
    assert_eq!(next.priors().into_values().collect::<Vec<_>>(), expected);
}

#[test]
fn a_table_of_all_for_want_of_a_healthy_one_may_span_priorities() {
    let compiled = compiled(
        "services: [{ name: a, addresses: [127.96.0.1], ports: [{ name: p, port: 1 }],
           load_balancing: { locality: { mode: failover } }, health_check: { tcp: {} },
           endpoints: [{ address: 127.0.0.1, port: 11, priority: 0, draining: true },
                       { address: 127.0.0.1, port: 12, priority: 0 },
                       { address: 127.0.0.1, port: 13, priority: 1 }] }]",
    );
    let mut worker = Worker::takes_over(&compiled, &nothing());
    (12..14).for_each(|port| worker.find_port(port, Verdict::Unhealthy));
    assert_eq!(used_by_one(&worker.desired), [12, 13]);
    assert_eq!(recalled(&worker), [(12, Prior::Presumed), (13, Prior::Presumed)]);
}

#[test]
fn families_and_ports_are_told_apart() {
    let compiled = compiled(
        "services: [{ name: a, addresses: [127.96.0.1, 'fd96::1'],
           ports: [{ name: p, port: 1, target_port: 11 }, { name: q, port: 2, target_port: 12 }],
           health_check: { tcp: {}, when_all_unhealthy: no_endpoint },
           endpoints: [{ address: 127.0.0.1 }, { address: '::1' }] }]",
    );
    let v6 = |port| SocketAddr::new("::1".parse().expect("an address"), port);
    let mut worker = Worker::takes_over(&compiled, &nothing());
    worker.find(v6(11), Verdict::Unhealthy);
    let tables: Vec<_> = worker.desired.services.iter().map(|it| &it.table.endpoints).collect();
    let ports = |at: usize| -> Vec<u16> {
        tables[at].iter().map(|slot| u16::from_be(slot.port_be)).collect()
    };
    // IPv6 clients of the first port use the IPv4 endpoint; the second port is another matter.
    assert_eq!([ports(0), ports(1), ports(2), ports(3)], [[11], [11], [12], [12]]);
    assert_eq!(tables[0], tables[1]);
    assert_ne!(tables[2], tables[3]);
    assert_eq!(
        recalled(&worker),
        [(11, Prior::Healthy), (12, Prior::Healthy), (11, Prior::Unhealthy), (12, Prior::Healthy)]
    );
    worker.find_port(11, Verdict::Unhealthy);
    let next = Worker::takes_over(&compiled, &programmed(&worker.desired));
    assert_eq!(*next.desired, *worker.desired);
}

/// A random service, and the verdicts of its endpoints.
fn service() -> impl Strategy<Value = (String, Vec<bool>)> {
    let endpoint = (0_u8..3, 0_u8..8, any::<bool>(), any::<bool>());
    let endpoints = prop::collection::vec(endpoint, 1..8);
    (endpoints, any::<[bool; 4]>()).prop_map(|(endpoints, [failover, use_all, v6, own_port])| {
        let mut list = String::new();
        let mut healthy = Vec::new();
        for (at, (priority, keys, is_v6, is_healthy)) in endpoints.into_iter().enumerate() {
            // The first is what an IPv4 client needs by the rules of the language.
            let address = if is_v6 && at > 0 { "'::1'" } else { "127.0.0.1" };
            let keys = match keys {
                0 if at > 0 => ", weight: 0",
                1 => ", draining: true",
                _ => "",
            };
            let port = 20 + at;
            list += &format!("{{ address: {address}, port: {port}, priority: {priority}{keys} }}, ");
            healthy.push(is_healthy);
        }
        let mode = if failover { "locality: { mode: failover }" } else { "policy: random" };
        let all = if use_all { "use_all" } else { "no_endpoint" };
        let addresses = if v6 { "127.96.0.1, 'fd96::1'" } else { "127.96.0.1" };
        // Then one check speaks for both ports of an endpoint.
        let other = if own_port { ", { name: q, port: 2 }" } else { "" };
        let text = format!(
            "services: [{{ name: a, addresses: [{addresses}], ports: [{{ name: p, port: 1 }}{other}],
               load_balancing: {{ {mode} }},
               health_check: {{ tcp: {{}}, when_all_unhealthy: {all} }}, endpoints: [{list}] }}]"
        );
        (text, healthy)
    })
}

proptest! {
    /// A worker that takes over writes nothing, and nobody gets connections by that who had none: also
    /// when a check of any other endpoint then ends in any way.
    #[test]
    fn a_takeover_reinstates_nobody(
        (text, healthy) in service(),
        then in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..6),
    ) {
        let compiled = compiled(&text);
        let mut worker = Worker::takes_over(&compiled, &nothing());
        let mut verdicts: BTreeMap<SocketAddr, bool> = BTreeMap::new();
        let addresses: Vec<SocketAddr> = worker.priors().into_keys().collect();
        for address in &addresses {
            let is_healthy = healthy[usize::from(address.port()) - 20];
            verdicts.insert(*address, is_healthy);
            let verdict = if is_healthy { Verdict::Healthy } else { Verdict::Unhealthy };
            worker.find(*address, verdict);
        }
        let mut next = Worker::takes_over(&compiled, &programmed(&worker.desired));
        prop_assert_eq!(&*next.desired, &*worker.desired);
        for (address, prior) in next.priors() {
            // Nobody who was healthy is taken for unhealthy, so that nobody is lost by it either.
            prop_assert!(prior != Prior::Unhealthy || !verdicts[&address], "{}", address);
            // Whoever was unhealthy is not trusted without a check.
            prop_assert!(prior != Prior::Healthy || verdicts[&address], "{}", address);
        }
        for (index, is_healthy) in then.into_iter().take(addresses.len()) {
            let address = *index.get(&addresses);
            let verdict = if is_healthy { Verdict::Healthy } else { Verdict::Unhealthy };
            verdicts.insert(address, is_healthy);
            worker.find(address, verdict);
            next.find(address, verdict);
            let (with, without) = (used(&next.desired), used(&worker.desired));
            for (label, ports) in &with {
                let uses_all = super::checked::uses_all(&compiled.checked[0].service);
                for port in ports.difference(&without[label]) {
                    let is_known = addresses.iter().find(|it| it.port() == *port);
                    let is_healthy = is_known.is_some_and(|it| verdicts[it]);
                    prop_assert!(is_healthy || uses_all, "{} in {}", port, label);
                }
            }
        }
    }
}
