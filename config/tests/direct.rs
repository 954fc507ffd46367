//! Services whose endpoints are asked for themselves: `direct`, without `addresses`, and `aliases`.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::fmt::Write as _;

use common::{check_text as check, parse_text};
use holdfast_config::Alias;

/// A service that is direct, with these further keys.
fn direct(more: &str) -> String {
    format!(
        "services:\n- name: web\n  addresses: [127.96.0.1]\n  direct: true\n  ports: [{{ name: p, port: 80 }}]\n  {more}\n"
    )
}

/// One without addresses.
fn headless(more: &str) -> String {
    direct(more).replace("  addresses: [127.96.0.1]\n", "")
}

#[test]
fn a_service_says_that_its_endpoints_are_asked_for_themselves() {
    let web = |text: &str| parse_text(text).unwrap().services[0].clone();
    let listed = "endpoints: [{ address: 127.0.0.1 }, { address: 127.0.0.2, port: 81, weight: 0 }]";
    let both = web(&direct(listed));
    assert!(both.is_direct && !both.is_headless());
    assert_eq!(both.direct_count(), 2);
    let without = web(&direct(listed).replace("true", "false"));
    assert!(!without.is_direct && !without.is_headless());
    assert_eq!(without.direct_count(), 0);
    let headless = web(&headless(listed));
    assert!(headless.is_headless() && headless.addresses.is_empty());
    assert!(web(&direct("")).endpoints.is_empty());
}

#[test]
fn an_endpoint_has_further_addresses_with_its_port_or_another() {
    let text = direct(
        "endpoints: [{ address: 127.0.0.1, port: 81, aliases: [{ address: 'fd00::1' }, { address: 127.0.0.9, port: 30081 }] },
               { address: 127.0.0.2, aliases: [{ address: 'fd00::2' }] }, { address: 127.0.0.3, aliases: [] }]",
    );
    let services = parse_text(&text).unwrap().services;
    let web = &services[0];
    let ipv6 = |last: u16| format!("fd00::{last}").parse().unwrap();
    let first = &web.endpoints[0];
    let port = std::num::NonZeroU16::new(30081);
    let host = Alias { address: "127.0.0.9".parse().unwrap(), port };
    assert_eq!(first.aliases[..], [Alias { address: ipv6(1), port: None }, host]);
    let answers = |index: usize| {
        let answers = web.endpoints[index].answers_at(&web.ports[0]);
        answers.map(|(address, port)| format!("{address} {port}")).collect::<Vec<_>>()
    };
    assert_eq!(answers(0), ["127.0.0.1 81", "fd00::1 81", "127.0.0.9 30081"]);
    assert_eq!(answers(1), ["127.0.0.2 80", "fd00::2 80"]);
    assert_eq!(answers(2), ["127.0.0.3 80"]);
    assert_eq!(web.direct_count(), 6);
}

#[test]
fn a_headless_service_says_nothing_about_a_choice() {
    check(
        &headless(
            "load_balancing: { policy: random }\n  no_endpoint: deny\n  health_check: { tcp: {} }\n  outlier_ejection: {}",
        ),
        &[
            "5:19: `load_balancing` is about connections to the service's addresses, and it has none: remove it, or add `addresses`",
            "6:16: `no_endpoint` is about connections to the service's addresses, and it has none: remove it, or add `addresses`",
            "7:17: `health_check` is about connections to the service's addresses, and it has none: remove it, or add `addresses`",
            "8:21: `outlier_ejection` is about connections to the service's addresses, and it has none: remove it, or add `addresses`",
        ],
    );
    check(
        &headless("limits: { connections: 3 }\n  endpoints: [{ address: 127.0.0.1, weight: 0 }]"),
        &[],
    );
    check(
        &headless("").replace("true", "false"),
        &[
            "2:3: `addresses` is missing in the service: add it, or `direct: true` if clients find its endpoints by themselves",
        ],
    );
    check(&headless("addresses: []"), &["5:14: `addresses` is empty: write at least one"]);
}

#[test]
fn what_cannot_be_is_said_with_its_place() {
    for (endpoints, expected) in [
        (
            "[{ address: 127.0.0.1, aliases: [{ address: 127.0.0.1 }] }]",
            &["6:47: this alias is listed already at 6:15"][..],
        ),
        (
            "[{ address: 127.0.0.1, aliases: [{ address: 127.0.0.2, port: 80 }] }, { address: 127.0.0.2 }]",
            &["6:84: this endpoint is listed already at 6:47"],
        ),
        (
            "[{ address: 127.0.0.1, aliases: [{ address: 127.0.0.3 }] }, { address: 127.0.0.2, aliases: [{ address: 127.0.0.3, port: 80 }] }]",
            &["6:106: this alias is listed already at 6:47"],
        ),
        (
            "[{ address: 127.0.0.1, aliases: [{ address: 127.96.0.1 }] }]",
            &[
                "6:47: the alias 127.96.0.1:80/tcp is a frontend of service `web` (web.yaml:3:15), which sends connections elsewhere: remove one of them",
            ],
        ),
        (
            "[{ address: 127.96.0.1 }]",
            &[
                "6:15: the endpoint 127.96.0.1:80/tcp is itself a frontend of service `web` (web.yaml:3:15), and a connection is forwarded only once: list the endpoints behind it",
            ],
        ),
        ("[{ address: 127.0.0.1, aliases: [{}] }]", &["6:47: the alias has no `address`: add it"]),
        (
            "[{ address: 127.0.0.1, aliases: [{ address: 127.0.0.2, port: 0, weight: 1 }] }]",
            &[
                "6:75: port 0 is out of range: write a port between 1 and 65535",
                "6:78: unknown key `weight` in the alias; Possible here: `address` or `port`",
            ],
        ),
    ] {
        check(&direct(&format!("endpoints: {endpoints}")), expected);
    }
    let text = direct("endpoints: [{ address: 127.0.0.1, aliases: [{ address: 127.0.0.2 }] }]");
    check(
        &text.replace("  direct: true\n", ""),
        &[
            "5:47: aliases are about connections that clients make to endpoints themselves: write `direct: true` in the service, or remove them",
        ],
    );
    let mut aliases = String::new();
    (0..9).for_each(|host| write!(aliases, "{{ address: 127.0.1.{host} }},").unwrap());
    check(
        &direct(&format!("endpoints: [{{ address: 127.0.0.1, aliases: [{aliases}] }}]")),
        &["6:46: `aliases` has 9 entries; the limit is 8"],
    );
    check(
        &direct("direct: maybe").replace("  direct: true\n", ""),
        &["5:11: unknown `direct` `maybe`; Possible here: `true` or `false`"],
    );
}

#[test]
fn two_services_may_have_the_same_endpoint() {
    let other = direct("endpoints: [{ address: 127.0.0.1, aliases: [{ address: 127.0.0.2 }] }]");
    let other = other
        .replace("services:\n", "")
        .replace("name: web", "name: other")
        .replace("127.96.0.1", "127.96.0.2");
    let text = direct("endpoints: [{ address: 127.0.0.1 }, { address: 127.0.0.2 }]") + &other;
    check(&text, &[]);
}
