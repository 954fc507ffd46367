//! What `load_balancing` may say, and every error with its exact place.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use holdfast_config::{
    Affinity, Balancing, ClientBy, Locality, LocalityMode, Place, Policy, Source, Sources,
    TABLE_SIZES, parse,
};

use common::{check_text, parse_text};

/// A service whose `load_balancing`, at 5:21, says `balancing`.
fn text(balancing: &str) -> String {
    format!(
        "services:\n  - name: web\n    addresses: [127.96.0.10]\n    ports: [{{ name: http, port: 80 }}]\n    \
         load_balancing: {{ {balancing} }}\n    endpoints: [{{ address: 127.0.0.1 }}]\n"
    )
}

/// What a service that says `balancing` is understood as.
fn said(balancing: &str) -> (Policy, Balancing) {
    let config = parse_text(&text(balancing)).unwrap();
    (config.services[0].policy, config.services[0].balancing.clone())
}

#[track_caller]
fn check(balancing: &str, expected: &[&str]) {
    check_text(&text(balancing), expected);
}

#[test]
fn maglev_says_whom_it_hashes_and_how_large_its_table_is() {
    assert_eq!(said("policy: maglev"), (Policy::Maglev, Balancing::default()));
    for (word, hash_by) in [
        ("cgroup", ClientBy::Cgroup),
        ("network_namespace", ClientBy::NetworkNamespace),
        ("source_address", ClientBy::SourceAddress),
    ] {
        let expected = Balancing { hash_by, table_size: Some(4093), ..Balancing::default() };
        let (policy, balancing) =
            said(&format!("policy: maglev, hash_by: {word}, table_size: 4093"));
        assert_eq!((policy, balancing), (Policy::Maglev, expected));
    }
    check(
        "policy: maglev, hash_by: port",
        &[
            "5:48: unknown `hash_by` `port`; Possible here: `cgroup`, `network_namespace` or `source_address`",
        ],
    );
}

#[test]
fn table_sizes_are_a_few_primes_that_fit_the_endpoints() {
    let is_prime =
        |size: &u32| (2..=255).all(|factor| *size == factor || !size.is_multiple_of(factor));
    assert!(TABLE_SIZES.iter().all(is_prime));
    check(
        "policy: maglev, table_size: 1000",
        &["5:51: the table size 1000 is not possible: write one of 251, 1021, 4093, 16381, 65537"],
    );
    check(
        "policy: maglev, table_size: 100000",
        &["5:51: table size 100000 is out of range: write a table size between 251 and 65537"],
    );
    let many: Vec<String> =
        (0..252).map(|number| format!("{{ address: 127.0.1.{number} }}")).collect();
    let many =
        text("policy: maglev, table_size: 251").replace("{ address: 127.0.0.1 }", &many.join(", "));
    check_text(
        &many,
        &["5:51: a lookup table of 251 entries is too small for 252 endpoints: write a larger"],
    );
}

#[test]
fn without_a_table_size_it_follows_the_number_of_endpoints() {
    let balancing = Balancing::default();
    let sizes = [1, 2, 3, 10, 11, 40, 41, 163, 164, 655, 656, 65_535];
    let expected =
        [251, 251, 1021, 1021, 4093, 4093, 16_381, 16_381, 65_537, 65_537, 65_537, 65_537];
    assert_eq!(sizes.map(|endpoints| balancing.table_size_for(endpoints)), expected);
    let chosen = Balancing { table_size: Some(16_381), ..Balancing::default() };
    assert_eq!(chosen.table_size_for(3), 16_381);
}

#[test]
fn what_belongs_to_another_policy_is_refused() {
    check(
        "policy: weighted, hash_by: cgroup",
        &["5:50: `hash_by` belongs to `policy: maglev`, and the policy is `weighted`: remove it"],
    );
    check(
        "table_size: 251",
        &["5:35: `table_size` belongs to `policy: maglev`, and the policy is `random`: remove it"],
    );
    check(
        "policy: magleb, table_size: 251",
        &["5:31: unknown policy `magleb`; did you mean `maglev`?"],
    );
}

/// A service with the endpoints `first` and `second`, at 6:18 and 7:18 where each begins, and before it
/// whatever `node` says.
fn placed(balancing: &str, first: &str, second: &str) -> String {
    text(balancing).replace(
        "    endpoints: [{ address: 127.0.0.1 }]",
        &format!("    endpoints: [ {{ address: 127.0.0.1, {first} }},\n                 {{ address: 127.0.0.2, {second} }}]"),
    )
}

#[test]
fn endpoints_and_the_node_have_localities() {
    let places = ("locality: { region: eu, zone: eu-1a }", "locality: { region: us.east_1 }");
    let text = placed("locality: { mode: failover, spill_over_below: 50 }", places.0, places.1);
    let config =
        parse_text(&format!("node: {{ region: eu, zone: eu-1a, subzone: r7 }}\n{text}")).unwrap();
    let node = config.node.unwrap();
    assert_eq!((node.region.as_str(), node.subzone.as_deref()), ("eu", Some("r7")));
    let web = &config.services[0];
    assert_eq!(web.balancing.locality, Some(LocalityMode::Failover { spill_over_below: 50 }));
    let distances: Vec<u32> = web
        .endpoints
        .iter()
        .map(|endpoint| match endpoint.place.as_deref() {
            Some(Place::Locality(locality)) => node.distance(locality),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(distances, [1, 3]);
    let (_, strict) = said_with(&placed("locality: { mode: strict }", places.0, places.1));
    assert_eq!(strict.locality, Some(LocalityMode::Strict));
    let (_, default) =
        said_with(&placed("locality: { mode: failover }", "priority: 0", "priority: 127"));
    assert_eq!(default.locality, Some(LocalityMode::Failover { spill_over_below: 70 }));
}

/// What the service of `text` says, on a node in the region `eu`.
fn said_with(text: &str) -> (Policy, Balancing) {
    let config = parse_text(&format!("node: {{ region: eu }}\n{text}")).unwrap();
    (config.services[0].policy, config.services[0].balancing.clone())
}

#[test]
fn distance_counts_the_parts_that_the_node_names() {
    let locality = |parts: [&str; 3]| Locality {
        region: parts[0].to_owned(),
        zone: Some(parts[1].to_owned()).filter(|part| !part.is_empty()),
        subzone: Some(parts[2].to_owned()).filter(|part| !part.is_empty()),
    };
    for (here, there, distance) in [
        (["a", "b", "c"], ["a", "b", "c"], 0),
        (["a", "b", "c"], ["a", "b", "x"], 1),
        (["a", "b", "c"], ["a", "b", ""], 1),
        (["a", "b", "c"], ["a", "x", "c"], 2),
        (["a", "b", "c"], ["x", "b", "c"], 3),
        (["a", "b", ""], ["a", "b", "x"], 0),
        (["a", "", ""], ["a", "x", "y"], 0),
        (["a", "", ""], ["x", "", ""], 1),
    ] {
        assert_eq!(locality(here).distance(&locality(there)), distance, "{here:?} {there:?}");
    }
}

#[test]
fn what_is_said_about_places_has_to_go_together() {
    let failover = "locality: { mode: failover }";
    let (eu, one) = ("locality: { region: eu }", "priority: 1");
    check_text(
        &placed(failover, "locality: { region: eu }, priority: 1", one),
        &["6:76: the endpoint has a `locality` and a `priority`, and can stand in one place only"],
    );
    check_text(
        &placed(failover, one, "weight: 1"),
        &["7:18: the endpoint has neither `locality` nor `priority`, which the service's"],
    );
    check_text(
        &placed("locality: { mode: strict }", one, one),
        &["6:18: the endpoint has a `priority`, and `mode: strict` goes by `locality`"],
    );
    check_text(
        &placed(failover, eu, one),
        &["7:18: some endpoints of the service have a `locality` and others a `priority`"],
    );
    check_text(
        &placed(failover, eu, eu),
        &["5:33: the endpoints have localities, and nothing says where this node is: add `node"],
    );
    check_text(
        &placed("policy: round_robin, locality: { mode: failover }", one, one),
        &["5:54: `policy: round_robin` gives every endpoint the same and cannot spill over"],
    );
    check_text(
        &placed("policy: least_connections, locality: { mode: failover }", one, one),
        &["5:60: `policy: least_connections` goes by what is open and cannot spill over"],
    );
}

#[test]
fn values_of_places_are_checked_one_by_one() {
    check("locality: { spill_over_below: 70 }", &["5:33: `locality` has no `mode`: add it"]);
    check(
        "locality: { mode: nearest }",
        &["5:41: unknown mode `nearest`; Possible here: `failover` or `strict`"],
    );
    check(
        "locality: { mode: failover, spill_over_below: 0 }",
        &["5:69: percentage 0 is out of range: write a percentage between 1 and 100"],
    );
    check(
        "locality: { mode: strict, spill_over_below: 70 }",
        &["5:67: `spill_over_below` belongs to `mode: failover`: remove it"],
    );
    check_text(
        &placed("", "priority: 128", "locality: { zone: a }"),
        &[
            "6:50: priority 128 is out of range: write a priority between 0 and 127",
            "7:50: `locality` has no `region`: add it",
        ],
    );
    check_text(
        &placed("", "locality: { region: a, subzone: b }", "locality: { region: -a }"),
        &[
            "6:72: `locality` has a `subzone` without a `zone`: add the zone",
            "7:60: the region `-a` is not a name: write 1 to 63 letters, digits",
        ],
    );
}

#[test]
fn the_node_is_said_once() {
    let file = |name: &str, text: &str| Source {
        label: name.to_owned(),
        name: name.to_owned(),
        contents: text.as_bytes().to_vec(),
    };
    let one = "node: { region: a }\nservices: []\n";
    let both = Sources::new(vec![file("a.yaml", one), file("b.yaml", one)]);
    let errors: Vec<String> =
        parse(&both).unwrap_err().iter().map(|error| error.message().to_owned()).collect();
    assert_eq!(errors, ["`node` is said already, at a.yaml:1:7: say it once"]);
}

#[test]
fn a_draining_endpoint_is_not_usable() {
    let config = parse_text(&placed("", "draining: true", "draining: false")).unwrap();
    let usable = config.services[0].endpoints.iter().map(holdfast_config::Endpoint::is_usable);
    assert_eq!(usable.collect::<Vec<_>>(), [false, true]);
    check_text(
        &placed("", "draining: yes", "weight: 1"),
        &["6:50: unknown `draining` `yes`; Possible here: `true` or `false`"],
    );
}

#[test]
fn affinity_has_a_client_and_a_time() {
    for (text, seconds) in [("1s", 1), ("1000ms", 1), ("30m", 1800), ("168h", 604_800)] {
        let (policy, balancing) =
            said(&format!("policy: weighted, affinity: {{ by: source_address, for: {text} }}"));
        let duration = std::time::Duration::from_secs(seconds);
        let expected = Affinity { by: ClientBy::SourceAddress, duration };
        assert_eq!((policy, balancing.affinity), (Policy::Weighted, Some(expected)));
    }
    let default = said("affinity: { for: 5m }").1.affinity.unwrap();
    assert_eq!(default.by, ClientBy::Cgroup);
    check("affinity: { by: cgroup }", &["5:33: `affinity` has no `for`: add it"]);
    check(
        "affinity: { by: user, for: 5m }",
        &["5:39: unknown `by` `user`; Possible here: `cgroup`"],
    );
    check("affinity: 5m", &["5:33: `affinity` is a single value"]);
}

#[test]
fn a_duration_is_a_whole_number_and_a_unit_in_its_range() {
    const WANTED: &str = "write one between 1s and 168h, such as 500ms, 30s, 5m or 2h";
    let refused = |text: &str, why: &str| {
        let error = format!("5:40: the duration {why}: {WANTED}");
        check(&format!("affinity: {{ for: {text} }}"), &[&error]);
    };
    refused("999ms", "`999ms` is out of range");
    refused("169h", "`169h` is out of range");
    refused("99999999999999999999h", "`99999999999999999999h` is out of range");
    for text in ["5", "m", "5 m", "1.5h", "05m", "-5m", "5d", "5M"] {
        refused(text, &format!("`{text}` is not a number and a unit"));
    }
    refused("''", "`` is not a number and a unit");
    refused("~", "is empty");
}
