//! Tests of what configurations with direct services come to.

use std::net::SocketAddr;

use holdfast_config::Sources;

use super::*;
use crate::serve::compilation::Compilation;
use crate::serve::compile::compile_sources;
use crate::serve::rows::ip;
use crate::serve::tables::desired::Label;

fn desired(text: &str) -> Arc<Desired> {
    let compiled = compile_sources(&Sources::single("test.yaml", text));
    compiled.expect("a valid configuration").desired
}

fn place(slot: &EndpointSlot) -> SocketAddr {
    SocketAddr::new(ip(slot.address), u16::from_be(slot.port_be))
}

/// Each row's address and that of the endpoint it is counted for, sorted.
fn rows(service: &DesiredService) -> Vec<(String, String)> {
    let table = &service.table;
    let row = |index: usize| [index, table.counted(index)].map(|at| place(&table.endpoints[at]));
    let mut rows: Vec<[SocketAddr; 2]> = (0..table.endpoints.len()).map(row).collect();
    rows.sort();
    rows.into_iter().map(|[at, of]| (at.to_string(), of.to_string())).collect()
}

fn keys(service: &DesiredService) -> Vec<String> {
    let key = |key: &FrontendKey| SocketAddr::new(ip(key.address), u16::from_be(key.port_be));
    let mut keys: Vec<SocketAddr> = service.keys.iter().map(key).collect();
    keys.sort();
    keys.into_iter().map(|key| key.to_string()).collect()
}

#[test]
fn every_port_has_a_table_of_all_endpoints_beside_those_that_are_chosen_from() {
    let desired = desired(
        "services: [{ name: web, addresses: [127.96.0.1], direct: true, limits: { connections: 5 },
           load_balancing: { policy: maglev, affinity: { for: 5s } },
           ports: [{ name: http, port: 80, target_port: 8080 }, { name: dns, port: 53, protocol: udp }],
           endpoints: [{ address: 127.0.0.2, aliases: [{ address: 'fd00::2' }, { address: 127.0.0.9, port: 30 }] },
                       { address: 127.0.0.1, port: 7, weight: 0, draining: true }] }]",
    );
    let labels: Vec<String> =
        desired.services.iter().map(|service| Label(&service.record).to_string()).collect();
    assert_eq!(
        labels,
        [
            "web, port http (80/tcp, IPv4)",
            "web, port dns (53/udp, IPv4)",
            "web, port http (80/tcp, direct)",
            "web, port dns (53/udp, direct)",
        ]
    );
    let [_, _, http, dns] = &desired.services.to_vec()[..] else { panic!("{labels:?}") };
    let own = |of: &str, at: &[&str]| {
        at.iter().map(|at| ((*at).to_owned(), of.to_owned())).collect::<Vec<_>>()
    };
    let second = own("127.0.0.2:8080", &["127.0.0.2:8080", "127.0.0.9:30", "[fd00::2]:8080"]);
    assert_eq!(rows(http), [own("127.0.0.1:7", &["127.0.0.1:7"]), second].concat());
    assert_eq!(keys(dns), ["127.0.0.1:7", "127.0.0.2:53", "127.0.0.9:30", "[fd00::2]:53"]);
    let ranks = |service: &DesiredService| {
        let slots = service.table.endpoints.iter();
        slots.map(|it| EndpointSlot::rank(&it.address, it.port_be)).collect::<Vec<_>>()
    };
    assert!(ranks(http).is_sorted() && ranks(dns).is_sorted());
    let table = &http.table;
    assert_eq!((table.policy, table.features), (policy::DIRECT, feature::LIMITS));
    assert_eq!(table.settings.expect("bounds").open, 5);
}

#[test]
fn a_headless_service_has_nothing_else() {
    let desired = desired(
        "services: [{ name: db, direct: true, ports: [{ name: p, port: 5432 }],
           endpoints: [{ address: 127.0.0.1 }, { address: '::1' }] }]",
    );
    let [db] = &desired.services.to_vec()[..] else { panic!("{desired:?}") };
    assert_eq!(keys(db), ["127.0.0.1:5432", "[::1]:5432"]);
    assert_eq!((db.table.features, db.table.settings), (0, None));
}

/// Services that share endpoints, in this order.
fn shared(services: &[(&str, &[u8])]) -> String {
    let line = |(name, hosts): &(&str, &[u8])| {
        let endpoints: Vec<String> =
            hosts.iter().map(|host| format!("{{ address: 127.0.0.{host} }}")).collect();
        format!(
            "- {{ name: {name}, direct: true, ports: [{{ name: p, port: 80 }}, {{ name: q, port: 81, target_port: 80 }}], \
             endpoints: [{}] }}\n",
            endpoints.join(", ")
        )
    };
    format!("services:\n{}", services.iter().map(line).collect::<String>())
}

#[test]
fn the_first_that_has_an_address_counts_it_and_the_others_are_ready_to() {
    let all = desired(&shared(&[("a", &[1, 2]), ("b", &[2, 3])]));
    let [a, a_second, b, b_second] = &all.services.to_vec()[..] else { panic!("{all:?}") };
    assert_eq!(keys(a), ["127.0.0.1:80", "127.0.0.2:80"]);
    assert_eq!(keys(b), ["127.0.0.3:80"]);
    assert_eq!((keys(a_second), keys(b_second)), (Vec::new(), Vec::new()));
    assert_eq!(rows(b).len(), 2);
    let alone = desired(&shared(&[("b", &[2, 3])]));
    assert_eq!(alone.services[0].table, b.table);
    assert_eq!(keys(&alone.services[0]), ["127.0.0.2:80", "127.0.0.3:80"]);
}

#[test]
fn saves_that_are_compiled_in_part_say_the_same_and_keep_what_is_the_same() {
    let saves: [&[(&str, &[u8])]; 6] = [
        &[("a", &[1, 2]), ("b", &[2, 3]), ("c", &[3, 9])],
        &[("a", &[1, 2]), ("b", &[2, 3]), ("c", &[3, 9]), ("d", &[7])],
        &[("a", &[1]), ("b", &[2, 3]), ("c", &[3, 9]), ("d", &[7])],
        &[("b", &[2, 3]), ("c", &[3, 9]), ("d", &[7])],
        &[("d", &[7, 3]), ("b", &[2, 3]), ("c", &[3, 9])],
        &[("x", &[5]), ("d", &[7, 3]), ("b", &[2, 3]), ("c", &[3, 9])],
    ];
    let mut compilation = Compilation::default();
    let mut former: Option<Arc<Desired>> = None;
    let mut partial = 0;
    for services in saves {
        let sources = Arc::new(Sources::single("test.yaml", shared(services)));
        let outcome = compilation.compile(&sources, String::new()).expect("a valid configuration");
        let now = Arc::clone(&outcome.compiled.desired);
        assert_eq!(now, desired(&shared(services)));
        for before in former.iter().filter(|_| !outcome.is_whole).flat_map(|it| &it.services) {
            partial += 1;
            let same = now.services.iter().find(|it| *it == before);
            assert!(same.is_none_or(|it| Arc::ptr_eq(it, before)), "{:?}", Label(&before.record));
        }
        former = Some(now);
    }
    assert!(partial > 20, "{partial}");
}
