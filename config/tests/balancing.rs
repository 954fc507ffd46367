//! What `load_balancing` may say, and every error with its exact place.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use holdfast_config::{Balancing, ClientBy, Config, Policy, Sources, TABLE_SIZES, parse};

/// A service whose `load_balancing`, at 5:21, says `balancing`.
fn text(balancing: &str) -> String {
    format!(
        "services:\n  - name: web\n    addresses: [127.96.0.10]\n    ports: [{{ name: http, port: 80 }}]\n    \
         load_balancing: {{ {balancing} }}\n    endpoints: [{{ address: 127.0.0.1 }}]\n"
    )
}

fn parse_text(text: &str) -> Result<Config, Vec<String>> {
    parse(&Sources::single("web.yaml", text)).map_err(|errors| {
        errors.iter().map(|e| format!("{}:{}: {}", e.line(), e.column(), e.message())).collect()
    })
}

/// What a service that says `balancing` is understood as.
fn said(balancing: &str) -> (Policy, Balancing) {
    let config = parse_text(&text(balancing)).unwrap();
    (config.services[0].policy, config.services[0].balancing.clone())
}

/// Checks that the errors in `text` are those that start with `expected`, and no others.
#[track_caller]
fn check_text(text: &str, expected: &[&str]) {
    let found = parse_text(text).err().unwrap_or_default();
    let same = found.len() == expected.len()
        && found.iter().zip(expected).all(|(found, expected)| found.starts_with(expected));
    assert!(same, "\n--- text\n{text}\n--- expected\n{expected:#?}\n--- found\n{found:#?}");
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
    let is_prime = |size: &u32| (2..=255).all(|factor| *size == factor || size % factor != 0);
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
