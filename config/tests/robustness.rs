//! Whatever the text is, parsing ends with a valid model or with errors that have a place in it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::HashSet;

use holdfast_config::{Config, Sources, limit, parse};
use proptest::collection::vec;
use proptest::prelude::*;

const VALID: &str = "\
services:
  - name: web
    addresses: [127.96.0.10, \"fd96::10\"]
    ports: [{ name: http, port: 80, protocol: tcp, target_port: 18080 }]
    load_balancing: { policy: weighted }
    no_endpoint: deny
    endpoints:
      - { address: 127.0.0.1, weight: 1 }
      - { address: 127.0.0.2, port: 81, weight: 0 }
  - name: dns
    addresses: [127.96.0.53]
    ports:
      - name: dns
        port: 53
        protocol: udp
";

/// What a slip of the finger, a broken tool or somebody who knows YAML well puts into a file.
const FRAGMENTS: [&str; 36] = [
    "",
    " ",
    "\n",
    "\t",
    "\r",
    "-",
    ":",
    "?",
    "[",
    "]",
    "{",
    "}",
    ",",
    "#",
    "&a",
    "*a",
    "!!int",
    "<<",
    "|",
    ">",
    "'",
    "\"",
    "%",
    "@",
    "---\n",
    "...\n",
    "0",
    "-1",
    "65536",
    "null",
    "~",
    "\u{feff}",
    "\0",
    "é",
    "services:",
    "  - name: web\n",
];

/// Checks what every outcome has to satisfy.
fn check(bytes: &[u8]) {
    match parse(&Sources::single("a.yaml", bytes)) {
        Ok(config) => check_model(&config),
        Err(errors) => {
            assert!(errors.total() > 0 && errors.iter().count() <= limit::MAX_DIAGNOSTICS);
            let breaks = bytes.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count();
            for error in &errors {
                assert!((1..=breaks + 1).contains(&(error.line() as usize)), "{error}");
                assert!(error.column() >= 1 && !error.message().is_empty(), "{error}");
                assert!(!error.message().contains(char::is_control), "{error}");
            }
            assert!(!errors.pretty().is_empty());
        }
    }
}

fn check_model(config: &Config) {
    let mut names = HashSet::new();
    let mut frontends = HashSet::new();
    for service in &config.services {
        assert!(names.insert(&service.name) && !service.name.is_empty());
        assert!(!service.addresses.is_empty() && !service.ports.is_empty());
        for address in &service.addresses {
            for port in &service.ports {
                assert!(frontends.insert((address, port.port, port.protocol)), "{service:?}");
            }
            let served = service.endpoints_for(*address).count() > 0;
            assert_eq!(served, !service.endpoints.is_empty(), "{service:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_bytes(bytes in vec(any::<u8>(), 0..512)) {
        check(&bytes);
    }

    #[test]
    fn any_indicators(fragments in vec(prop::sample::select(&FRAGMENTS[..]), 0..64)) {
        check(fragments.concat().as_bytes());
    }

    #[test]
    fn any_change_of_a_valid_file(
        changes in vec((any::<prop::sample::Index>(), 0..12_usize, prop::sample::select(&FRAGMENTS[..])), 1..5)
    ) {
        let mut bytes = VALID.as_bytes().to_vec();
        for (at, removed, fragment) in changes {
            let at = at.index(bytes.len() + 1);
            let end = (at + removed).min(bytes.len());
            bytes.splice(at..end, fragment.bytes());
        }
        check(&bytes);
    }
}

#[test]
fn any_truncation_of_a_valid_file() {
    for end in 0..=VALID.len() {
        check(&VALID.as_bytes()[..end]);
    }
    let whole = parse(&Sources::single("a.yaml", VALID)).unwrap();
    assert_eq!(whole.services.len(), 2);
}

#[test]
fn duplicates_are_found_wherever_they_stand() {
    // Every pair of two services of the same frontend, at any distance.
    let service = |name: usize, address: usize| {
        format!(
            "  - {{ name: s{name}, addresses: [127.96.0.{address}], ports: [{{ name: p, port: 1 }}] }}\n"
        )
    };
    const SERVICES: usize = 12;
    for first in 0..SERVICES {
        for second in first + 1..SERVICES {
            let lines: String = (0..SERVICES)
                .map(|i| service(i, if i == second { first } else { i } + 1))
                .collect();
            let errors = parse(&Sources::single("a", format!("services:\n{lines}"))).unwrap_err();
            let column = format!("  - {{ name: s{second}, addresses: [").len() + 1;
            let first_column = format!("  - {{ name: s{first}, addresses: [").len() + 1;
            assert_eq!(
                errors.to_string(),
                format!(
                    "a:{}:{column}: 127.96.0.{}:1/tcp is a frontend of service `s{first}` \
                     (a:{}:{first_column}) already",
                    second + 2,
                    first + 1,
                    first + 2
                )
            );
        }
    }
}
