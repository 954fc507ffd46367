//! The language: what is accepted, and every error with its exact place.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fmt::Write as _;
use std::net::IpAddr;

use holdfast_config::{
    Config, Diagnostics, NoEndpoint, Policy, Protocol, Source, Sources, limit, parse,
};

const VALID: &str = "\
services:
  - name: web                                    # a comment
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
      - name: dns-tcp
        port: 53
";

fn parse_text(text: &str) -> Result<Config, Diagnostics> {
    parse(&Sources::single("web.yaml", text))
}

/// The errors in `text`, as `line:column: message`.
fn errors(text: &str) -> Vec<String> {
    match parse_text(text) {
        Ok(_) => Vec::new(),
        Err(errors) => {
            errors.iter().map(|e| format!("{}:{}: {}", e.line(), e.column(), e.message())).collect()
        }
    }
}

/// Checks that the errors in `text` are those that start with `expected`, and no others.
#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let found = errors(text);
    let same = found.len() == expected.len()
        && found.iter().zip(expected).all(|(found, expected)| found.starts_with(expected));
    let text = &text[..text.floor_char_boundary(2000)];
    assert!(same, "\n--- text\n{text}\n--- expected\n{expected:#?}\n--- found\n{found:#?}");
}

/// Checks `lines` as the further keys of a service that is valid but for them; they start at
/// line 3, column 5.
#[track_caller]
fn check_service(lines: &str, expected: &[&str]) {
    let indented: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    check(&format!("services:\n  - name: web\n{indented}"), expected);
}

/// Checks a port `{ name: http, … }` written as `port`; what follows `name: http, ` is at 4:26.
#[track_caller]
fn check_port(port: &str, expected: &[&str]) {
    check_service(&format!("addresses: [127.96.0.1]\nports: [{{ name: http, {port} }}]"), expected);
}

/// Checks endpoints in the lines from 5 on; the service has port 80 and target port 8080.
#[track_caller]
fn check_endpoints(endpoints: &str, expected: &[&str]) {
    let service = "addresses: [127.96.0.1]\nports: [{ name: http, port: 80, target_port: 8080 }]";
    check_service(&format!("{service}\n{endpoints}"), expected);
}

/// Checks one address of a service; it is at 3:17.
#[track_caller]
fn check_address(address: &str, expected: &[&str]) {
    let ports = "ports: [{ name: http, port: 80 }]";
    check_service(&format!("addresses: [{address}]\n{ports}"), expected);
}

#[test]
fn a_valid_file_says_what_it_says() {
    let config = parse_text(VALID).unwrap();
    let [web, dns] = &config.services.to_vec()[..] else { panic!("two services: {config:?}") };
    assert_eq!(web.name, "web");
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    assert_eq!(web.addresses, [address("127.96.0.10"), address("fd96::10")]);
    assert_eq!((web.ports[0].name.as_str(), web.ports[0].port.get()), ("http", 80));
    assert_eq!((web.ports[0].protocol, web.ports[0].target_port.get()), (Protocol::Tcp, 18080));
    assert_eq!((web.policy, web.no_endpoint), (Policy::Weighted, NoEndpoint::Deny));
    assert_eq!(web.endpoints[0].port, None);
    assert_eq!(web.endpoints[1].port.unwrap().get(), 81);
    assert_eq!((web.endpoints[0].weight, web.endpoints[1].weight), (1, 0));
    assert_eq!((dns.policy, dns.no_endpoint), (Policy::Random, NoEndpoint::Refuse));
    assert_eq!((dns.ports[0].protocol, dns.ports[1].protocol), (Protocol::Udp, Protocol::Tcp));
    assert_eq!(dns.ports[0].target_port.get(), 53);
    assert!(dns.endpoints.is_empty());
}

#[test]
fn a_frontend_uses_the_endpoints_its_sockets_can_reach() {
    let text = VALID.replace(
        "      - { address: 127.0.0.2, port: 81, weight: 0 }",
        "      - { address: \"fd96::1\", weight: 0 }\n      - { address: \"fd96::2\", port: 2 }",
    );
    let config = parse_text(&text).unwrap();
    let web = &config.services[0];
    let reached = |service: &holdfast_config::Service, i: usize| -> Vec<String> {
        service.endpoints_for(service.addresses[i]).map(|e| e.address.to_string()).collect()
    };
    assert_eq!(reached(web, 0), ["127.0.0.1"]);
    assert_eq!(reached(web, 1), ["fd96::2"]);
    let without_ipv6 = parse_text(VALID).unwrap();
    assert_eq!(reached(&without_ipv6.services[0], 1), ["127.0.0.1"]);
}

#[test]
fn other_ways_to_write_the_same_are_accepted() {
    let config = parse_text(VALID).unwrap();
    let crlf = VALID.replace('\n', "\r\n");
    for text in [crlf, format!("\u{feff}{VALID}"), format!("---\n{VALID}...\n")] {
        assert_eq!(parse_text(&text).unwrap(), config, "{text}");
    }
    let json = r#"{"services": [{"name": "a", "addresses": ["127.96.0.1"],
        "ports": [{"name": "p", "port": 80}], "endpoints": [{"address": "127.0.0.1"}]}]}"#;
    assert_eq!(parse_text(json).unwrap().services.len(), 1);
    assert_eq!(parse_text("services: []").unwrap(), Config::default());
    check_address("::1", &[]);
}

#[test]
fn an_empty_file_is_not_an_empty_configuration() {
    let message = "1:1: the file is empty, as after a save that was cut off: write `services: []`";
    for text in ["", "\n\n", "# only\n# comments\n", "---\n", "~", "\u{feff}"] {
        check(text, &[message]);
    }
    check("services:\n", &["1:9: `services` is empty: write `[]` for none"]);
    check("{}", &["1:1: the file has no `services`"]);
}

#[test]
fn syntax_errors_have_a_place() {
    check("services: [", &["1:12: not valid YAML"]);
    check("services:\n  - name: \"web\n", &["2:11: not valid YAML"]);
    check("services:\n\t- name: web\n", &["2:2: not valid YAML"]);
    check("a: b: c\n", &["1:5: not valid YAML"]);
    check("services: []\n]", &["2:1: not valid YAML"]);
}

#[test]
fn no_error_is_behind_the_text() {
    check("  ?  # a key", &["1:3: the file has no `services`", "1:13: unknown key ``"]);
    check("services: [\n", &["2:1: not valid YAML"]);
}

#[test]
fn every_kind_of_line_break_is_one() {
    for line_break in ["\n", "\r", "\r\n"] {
        check(&["services:", "", "  - }"].join(line_break), &["3:5: not valid YAML"]);
    }
}

#[test]
fn what_yaml_has_beyond_the_language_is_refused_by_name() {
    check("services: &a []\n", &["1:11: anchors (&name) are not supported"]);
    check(
        "services: [&a x, *a]\n",
        &["1:12: anchors (&name) are not supported", "1:18: aliases (*name) are not supported"],
    );
    check("services: !!seq []\n", &["1:11: tags are not supported: remove `!!seq`"]);
    check("<<: {}\nservices: []\n", &["1:1: merge keys (<<) are not supported"]);
    check("services: []\n---\nservices: []\n", &["2:1: a second document"]);
    check("? [a]\n: b\nservices: []\n", &["1:3: a list or mapping as a key"]);
    check("services: []\nservices: []\n", &["2:1: the key `services` is here twice, first at 1:1"]);
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth: usize| format!("services: {}{}", "[".repeat(depth), "]".repeat(depth));
    check(&nested(limit::MAX_DEPTH), &["1:26: nested more than 16 deep"]);
    check(&nested(limit::MAX_DEPTH - 1), &["1:12: the service is a list"]);
    check(&"- ".repeat(100_000), &["1:33: nested more than 16 deep"]);
}

#[test]
fn brackets_that_are_never_closed_cost_bounded_work() {
    check(&"[".repeat(1_000_000), &["1:256: nested more than 16 deep"]);
    check(&"{".repeat(1_000_000), &["1:256: nested more than 16 deep"]);
    check(&"a: {".repeat(1_000_000), &["1:"]);
}

#[test]
fn wrong_shapes_are_named() {
    check("- name: web\n", &["1:1: the file is a list: write a mapping with keys of `services`"]);
    check("services: web\n", &["1:11: `services` is a single value: write a list"]);
    check("services: [web]\n", &["1:12: the service is a single value: write a mapping"]);
    check("services:\n  - \n", &["2:5: the service is empty"]);
    check(
        "services: [{}]\n",
        &[
            "1:12: the service has no `name`: add it",
            "1:12: `addresses` is missing in the service: add it, or",
            "1:12: the service has no `ports`: add it",
        ],
    );
    check_service(
        "addresses: 127.96.0.1\nports: []",
        &[
            "3:16: `addresses` is a single value: write a list",
            "4:12: `ports` is empty: write at least one",
        ],
    );
    check_address("", &["3:16: `addresses` is empty: write at least one"]);
    check_address("[127.0.0.1]", &["3:17: the address is a list: write one value"]);
    check_endpoints("endpoints:", &["5:14: `endpoints` is empty: write `[]` for none"]);
    check_endpoints("endpoints: []", &[]);
    check_endpoints("endpoints: [127.0.0.1]", &["5:17: the endpoint is a single value"]);
    check_endpoints("endpoints: [{}]", &["5:17: the endpoint has no `address`"]);
}

#[test]
fn unknown_keys_come_with_the_known_ones() {
    let known = "Possible here: `name`, `port`, `protocol` or `target_port`";
    check_port(
        "port: 80, prot: tcp",
        &[&format!("4:37: unknown key `prot` in the port; did you mean `port`? {known}")],
    );
    check_port(
        "port: 80, target-port: 1",
        &[&format!(
            "4:37: unknown key `target-port` in the port; did you mean `target_port`? {known}"
        )],
    );
    check_port(
        "port: 80, colour: red",
        &[&format!("4:37: unknown key `colour` in the port; {known}")],
    );
    check(
        "service: []\n",
        &[
            "1:1: unknown key `service` in the file; did you mean `services`?",
            "1:1: the file has no `services`",
        ],
    );
}

#[test]
fn ports_are_whole_numbers_in_range() {
    check_port("port: 0", &["4:33: port 0 is out of range: write a port between 1 and 65535"]);
    check_port("port: 65536", &["4:33: port 65536 is out of range"]);
    check_port("port: -1", &["4:33: port -1 is out of range"]);
    check_port(
        "port: 99999999999999999999999",
        &["4:33: port 99999999999999999999… is out of range"],
    );
    check_port("port: 80.0", &["4:33: the port `80.0` is not in whole decimal digits"]);
    check_port("port: 8e1", &["4:33: the port `8e1` is not in whole decimal digits"]);
    check_port("port: +80", &["4:33: the port `+80` is not in whole decimal digits"]);
    check_port("port: 0x50", &["4:33: the port `0x50` is not a number"]);
    check_port("port: 8_0", &["4:33: the port `8_0` is not a number"]);
    check_port("port: 080", &["4:33: the port `080` has leading zeros"]);
    check_port("port: \"80\"", &["4:33: the port `80` is in quotes"]);
    check_port("port: http", &["4:33: the port `http` is not a number"]);
    check_port("port: ", &["4:31: the port is empty"]);
    check_port("port: [80]", &["4:33: port is a list"]);
    check_port("port: 80, target_port: 0", &["4:50: target port 0 is out of range"]);
    check_port("port: 80, protocol: TCP", &["4:47: unknown protocol `TCP`; did you mean `tcp`?"]);
    check_port(
        "port: 80, protocol: sctp",
        &["4:47: unknown protocol `sctp`; Possible here: `tcp`"],
    );
    check_port("target_port: 1", &["4:13: the port has no `port`"]);
}

#[test]
fn limits_are_whole_numbers_above_0() {
    let service = "addresses: [127.96.0.1]\nports: [{ name: http, port: 80 }]\nlimits: ";
    let check = |limits: &str, expected: &[&str]| {
        check_service(
            &format!("{service}{limits}\nendpoints: [{{ address: 127.0.0.1 }}]"),
            expected,
        );
    };
    check(
        "{ connections: 1, pending: 1000000, endpoint_connections: 2, endpoint_pending: 3 }",
        &[],
    );
    check("{}", &[]);
    check(
        "{ connections: 0 }",
        &[
            "5:28: limit `connections` 0 is out of range: write a limit `connections` between 1 and 1000000",
        ],
    );
    check(
        "{ endpoint_pending: 1000001 }",
        &[
            "5:33: limit `endpoint_pending` 1000001 is out of range: write a limit `endpoint_pending` between 1 and 1000000",
        ],
    );
    check(
        "{ pending: many }",
        &[
            "5:24: the limit `pending` `many` is not a number: write a limit `pending` between 1 and 1000000",
        ],
    );
    check(
        "{ conections: 1 }",
        &["5:15: unknown key `conections` in `limits`; did you mean `connections`?"],
    );
    check("{ rate: { connections_per_second: 5 } }", &[]);
    check(
        "{ rate: { connections_per_second: 5, burst: 9 }, client_rate: { connections_per_second: 1, by: network_namespace } }",
        &[],
    );
    check("{ rate: { burst: 9 } }", &["5:21: `rate` has no `connections_per_second`"]);
    check(
        "{ rate: { connections_per_second: 0 } }",
        &["5:47: limit `connections_per_second` 0 is out of range"],
    );
    check(
        "{ client_rate: { connections_per_second: 5, burst: 0 } }",
        &["5:64: limit `burst` 0 is out of range"],
    );
    check(
        "{ client_rate: { connections_per_second: 5, by: pod } }",
        &[
            "5:61: unknown `by` `pod`; Possible here: `cgroup`, `network_namespace` or `source_address`",
        ],
    );
    check(
        "{ rate: { connections_per_second: 5, by: cgroup } }",
        &["5:50: unknown key `by` in `rate`"],
    );
}

#[test]
fn weights_are_whole_numbers_in_range() {
    let weight = |weight: &str| format!("endpoints: [{{ address: 127.0.0.1, weight: {weight} }}]");
    check_endpoints(&weight("10000"), &[]);
    check_endpoints(
        &weight("10001"),
        &["5:47: weight 10001 is out of range: write a weight between 0"],
    );
    check_endpoints(&weight("-1"), &["5:47: weight -1 is out of range"]);
    check_endpoints(&weight("0.5"), &["5:47: the weight `0.5` is not in whole decimal digits"]);
    check_endpoints(&weight("0"), &["5:17: every endpoint has weight 0"]);
    let drained = "endpoints:\n- { address: 127.0.0.1, weight: 0 }\n- { address: 127.0.0.2 }";
    check_endpoints(drained, &[]);
}

#[test]
fn addresses_are_unicast_and_written_in_their_own_family() {
    check_address("127.96.0.1", &[]);
    check_address("0.0.0.0", &["3:17: `0.0.0.0` is the unspecified address"]);
    check_address("\"::\"", &["3:17: `::` is the unspecified address"]);
    check_address("255.255.255.255", &["3:17: `255.255.255.255` is the broadcast address"]);
    check_address("224.0.0.1", &["3:17: `224.0.0.1` is a multicast address"]);
    check_address("ff02::1", &["3:17: `ff02::1` is a multicast address"]);
    check_address("fe80::1", &["3:17: `fe80::1` is a link-local address"]);
    check_address("fe80::1%eth0", &["3:17: the address `fe80::1%eth0` names an interface"]);
    check_address(
        "\"::ffff:127.96.0.1\"",
        &["3:17: `::ffff:127.96.0.1` is an IPv4 address in IPv6 form: write 127.96.0.1"],
    );
    check_address("127.96.0.1:80", &["3:17: `127.96.0.1:80` is an address and a port"]);
    check_address("\"[fd96::1]\"", &["3:17: the address `[fd96::1]` is in brackets"]);
    check_address("127.96.0.0/24", &["3:17: `127.96.0.0/24` is a range of addresses"]);
    check_address("127.096.0.1", &["3:17: the address `127.096.0.1` has leading zeros"]);
    check_address("example.com", &["3:17: `example.com` is not an IP address"]);
    check_address("127.96.0", &["3:17: `127.96.0` is not an IP address"]);
    check_address("~", &["3:17: the address is empty"]);
    check_address("127.96.0.1, 127.96.0.1", &["3:29: 127.96.0.1 is listed already at 3:17"]);
}

#[test]
fn names_are_labels() {
    let service = |name: &str| VALID.replace("name: web  ", &format!("name: {name}"));
    check(&service(&"a".repeat(63)), &[]);
    check(&service("8080"), &[]);
    check(&service(&"a".repeat(64)), &["2:11: a service name of 64 bytes"]);
    for name in ["Web", "-web", "web-", "w.eb", "wéb", "'w b'"] {
        check(&service(name), &["2:11: the service name `"]);
    }
    check(&service("''"), &["2:11: the service name `` is not a DNS label"]);
    check(&service("~"), &["2:11: the service name is empty"]);
    let port = |name: &str| VALID.replace("{ name: http,", &format!("{{ name: {name},"));
    check(&port(&"a".repeat(15)), &[]);
    check(&port(&"a".repeat(16)), &["4:21: a port name of 16 bytes"]);
    for name in ["HTTP", "80", "a--b", "-a", "a-"] {
        check(&port(name), &["4:21: the port name `"]);
    }
    check(&service("\"a\\u001b[31m\""), &["2:11: the service name `a\\u{1b}[31m`"]);
}

#[test]
fn enumerations_name_their_words() {
    check(
        &VALID.replace("weighted", "wieghted"),
        &[
            "5:31: unknown policy `wieghted`; did you mean `weighted`? Possible here: `random`, `weighted`, `round_robin`, `maglev` or `least_connections`",
        ],
    );
    check(
        &VALID.replace("deny", "drop"),
        &["6:18: unknown `no_endpoint` `drop`; Possible here: `refuse`, `unreachable` or `deny`"],
    );
    check(
        &VALID.replace("{ policy: weighted }", "weighted"),
        &["5:21: `load_balancing` is a single value: write a mapping with keys of `policy`"],
    );
}

#[test]
fn duplicates_name_both_places() {
    check(
        &VALID.replace("name: dns\n    addresses", "name: web\n    addresses"),
        &["10:11: there is a service `web` already, at web.yaml:2:11"],
    );
    let shared = VALID.replace("[127.96.0.53]", "[127.96.0.10]").replace("port: 53", "port: 80");
    check(
        &shared,
        &["11:17: 127.96.0.10:80/tcp is a frontend of service `web` (web.yaml:3:17) already"],
    );
    check(
        &VALID.replace("        protocol: udp\n", ""),
        &["16:15: port 53/tcp is listed already at 14:15"],
    );
    check(
        &VALID.replace("name: dns-tcp", "name: dns"),
        &["16:15: the port name `dns` is taken already at 13:15"],
    );
    let twice = "endpoints:\n- { address: 127.0.0.1 }\n- { address: 127.0.0.1, weight: 2 }";
    check_endpoints(twice, &["7:7: this endpoint is listed already at 6:7"]);
    let ported = "endpoints:\n- { address: 127.0.0.1, port: 8080 }\n- { address: 127.0.0.1 }";
    check_endpoints(ported, &["7:7: this endpoint is listed already at 6:7"]);
    let reverse = "endpoints:\n- { address: 127.0.0.1 }\n- { address: 127.0.0.1, port: 8080 }";
    check_endpoints(reverse, &["7:7: this endpoint is listed already at 6:7"]);
    let distinct = "endpoints:\n- { address: 127.0.0.1 }\n- { address: 127.0.0.1, port: 8081 }";
    check_endpoints(distinct, &[]);
}

#[test]
fn duplicates_are_found_across_files() {
    let file = |name: &str, contents: &str| Source {
        label: format!("/etc/holdfast/{name}"),
        name: name.to_owned(),
        contents: contents.into(),
    };
    let sources = Sources::new(vec![file("b.yaml", VALID), file("a.yaml", VALID)]);
    let errors = parse(&sources).unwrap_err();
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines[0],
        "/etc/holdfast/b.yaml:2:11: there is a service `web` already, at \
                          /etc/holdfast/a.yaml:2:11"
    );
    assert_eq!(
        lines[1],
        "/etc/holdfast/b.yaml:3:17: 127.96.0.10:80/tcp is a frontend of service \
                          `web` (/etc/holdfast/a.yaml:3:17) already"
    );
    // Two names, two addresses of one port, one address of two ports.
    assert_eq!(lines.len(), 2 + 2 + 2, "{lines:#?}");
}

#[test]
fn an_endpoint_that_is_a_frontend_is_a_loop() {
    check(
        &VALID.replace("{ address: 127.0.0.1, weight: 1 }", "{ address: 127.96.0.53, port: 53 }"),
        &[
            "8:9: the endpoint 127.96.0.53:53/tcp is itself a frontend of service `dns` (web.yaml:11:17)",
        ],
    );
    check_endpoints(
        "endpoints: [{ address: 127.96.0.1, port: 80 }]",
        &[
            "5:17: the endpoint 127.96.0.1:80/tcp is itself a frontend of service `web` (web.yaml:3:17)",
        ],
    );
    // The same address on another port is somebody else.
    check_endpoints("endpoints: [{ address: 127.96.0.1 }]", &[]);
}

#[test]
fn an_ipv4_address_needs_an_ipv4_endpoint() {
    check_endpoints(
        "endpoints: [{ address: fd96::1 }]",
        &["3:17: every endpoint is an IPv6 one, which a connection to the IPv4 address 127.96.0.1"],
    );
    let drained = "endpoints:\n- { address: fd96::1 }\n- { address: 127.0.0.1, weight: 0 }";
    check_endpoints(drained, &["3:17: every IPv4 endpoint has weight 0"]);
    // An endpoint that was refused could have been the one.
    check_endpoints(
        "endpoints:\n- { address: fd96::1 }\n- { address: 127.0.0 }",
        &["7:18: `127.0.0` is not an IP address"],
    );
}

#[test]
fn every_error_is_found_in_one_go_and_in_order() {
    let text = VALID
        .replace("port: 80,", "port: 0,")
        .replace("weight: 1 ", "weight: x ")
        .replace("name: dns\n", "name: DNS\n");
    let places: Vec<String> = errors(&text)
        .iter()
        .map(|e| e.splitn(3, ':').take(2).collect::<Vec<_>>().join(":"))
        .collect();
    assert_eq!(places, ["4:33", "8:39", "10:11", "13:15"]);
}

#[test]
fn text_that_is_not_utf8_is_refused_with_its_offset() {
    let mut text = b"services: []\n# caf\xc3\xa9 ".to_vec();
    text.push(0xff);
    let errors = parse(&Sources::single("a.yaml", text)).unwrap_err();
    assert_eq!(
        errors.to_string(),
        "a.yaml:2:8: the byte at offset 21 is not UTF-8: save the file as UTF-8"
    );
}

#[test]
fn more_errors_than_anyone_reads_are_counted() {
    let mut text = String::from("services:\n");
    for _ in 0..250 {
        text.push_str("  - nonsense\n");
    }
    let errors = parse_text(&text).unwrap_err();
    assert_eq!((errors.iter().count(), errors.omitted(), errors.total()), (100, 150, 250));
    assert!(errors.to_string().ends_with("(and 249 more)"), "{errors}");
    assert!(errors.pretty().ends_with("\nand 150 more"));
}

#[test]
fn the_terminal_form_points_at_the_place() {
    let text = "services:\n  - name: web\n    addresses: [127.96.0.1]\n    ports: [{ name: p, port: 0 }]\r\n";
    assert_eq!(
        parse_text(text).unwrap_err().pretty(),
        "web.yaml:4:30: port 0 is out of range: write a port between 1 and 65535\n \
         4 |     ports: [{ name: p, port: 0 }]\n   |                              ^"
    );
    let long = format!("services: [{{ name: {} }}]", "a".repeat(100_000));
    let errors = parse_text(&long).unwrap_err();
    assert!(
        errors.iter().all(|e| e.snippet().is_some_and(|(line, at)| line.len() <= 160 && at < 160))
    );
}

#[test]
fn what_exceeds_a_bound_is_refused_by_name() {
    let services = |count: usize| {
        let mut text = String::from("services:\n");
        for i in 0..count {
            let (a, b, c) = (i >> 16 & 63 | 64, i >> 8 & 255, i & 255);
            writeln!(
                text,
                "  - name: s{i}\n    addresses: [127.{a}.{b}.{c}]\n    ports: [{{ name: p, port: 80 }}]\n    endpoints:\n      - address: 127.0.0.1"
            )
            .unwrap();
        }
        text
    };
    let listed = format!("services:\n{}", "  - x\n".repeat(limit::MAX_SERVICES + 1));
    check(&listed, &["2:3: `services` has 65537 entries; the limit is 65536"]);
    // As many as fit are no error; the one more in the other file is.
    let half = services(limit::MAX_SERVICES);
    let more =
        "services: [{ name: one-more, addresses: [127.255.0.1], ports: [{ name: p, port: 1 }] }]";
    let file = |name: &str, contents: &str| Source {
        label: name.to_owned(),
        name: name.to_owned(),
        contents: contents.into(),
    };
    let errors = parse(&Sources::new(vec![file("a", &half), file("b", more)])).unwrap_err();
    assert_eq!(errors.to_string(), "b:1:20: with this service there are more than 65536 services");

    let addresses: Vec<String> = (0..65).map(|i| format!("127.96.0.{i}")).collect();
    check_address(&addresses.join(", "), &["3:16: `addresses` has 65 entries; the limit is 64"]);
    let huge = " ".repeat(limit::MAX_FILE_BYTES + 1);
    check(&huge, &["1:1: the file is larger than the limit of 16777216 bytes"]);
}

#[test]
fn the_digest_is_of_names_and_contents() {
    let sources = |files: &[(&str, &str, &str)]| {
        let file = |(label, name, contents): &(&str, &str, &str)| Source {
            label: (*label).to_owned(),
            name: (*name).to_owned(),
            contents: (*contents).into(),
        };
        Sources::new(files.iter().map(file).collect())
    };
    let digest = sources(&[("x/a", "a", "1"), ("x/b", "b", "2")]).digest();
    assert_eq!(digest.len(), 64);
    assert_eq!(digest, sources(&[("y/b", "b", "2"), ("y/a", "a", "1")]).digest());
    for other in [
        &[("a", "a", "2"), ("b", "b", "1")][..],
        &[("a", "a", "1b"), ("b", "", "2")],
        &[("a", "a", "1"), ("c", "c", "2")],
        &[("a", "a", "1")],
    ] {
        assert_ne!(digest, sources(other).digest(), "{other:?}");
    }
}

#[test]
fn the_documentation_shows_valid_configurations() {
    let documentation = include_str!("../../docs/configuration.md");
    let examples: Vec<&str> = documentation
        .split("```yaml\n")
        .skip(1)
        .map(|rest| rest.split_once("```").expect("the example ends").0)
        .collect();
    assert!(examples.len() >= 2, "the examples are found");
    for example in examples {
        check(example, &[]);
    }
}
