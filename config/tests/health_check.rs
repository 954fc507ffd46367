//! What `health_check` may say, and every error with its exact place.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::num::NonZeroU16;
use std::time::Duration;

use holdfast_config::{HealthCheck, Http, Probe, WhenAllUnhealthy};

use common::{check_text, parse_text};

/// A service whose `health_check`, at 5:19, says `check`.
fn text(check: &str) -> String {
    format!(
        "services:\n  - name: web\n    addresses: [127.96.0.10]\n    ports: [{{ name: http, port: 80 }}]\n    \
         health_check: {{ {check} }}\n    endpoints: [{{ address: 127.0.0.1 }}]\n"
    )
}

/// What a service that says `check` is understood as.
fn said(check: &str) -> HealthCheck {
    parse_text(&text(check)).unwrap().services[0].health_check.clone().unwrap()
}

#[track_caller]
fn check(said: &str, expected: &[&str]) {
    check_text(&text(said), expected);
}

#[test]
fn what_is_left_out_has_its_default() {
    let tcp = HealthCheck {
        probe: Probe::Tcp,
        port: None,
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(1),
        healthy_threshold: 2,
        unhealthy_threshold: 3,
        when_all_unhealthy: WhenAllUnhealthy::UseAll,
    };
    assert_eq!(said("tcp: {}"), tcp);
    let http = Http { path: "/healthz".to_owned(), host: None, expected_statuses: vec![200..=299] };
    assert_eq!(said("http: { path: /healthz }"), HealthCheck { probe: Probe::Http(http), ..tcp });
    // A timeout that nobody wrote is never the error.
    assert_eq!(said("tcp: {}, interval: 500ms").timeout, Duration::from_millis(500));
    let without = parse_text(&text("tcp: {}").replace("health_check: { tcp: {} }", "")).unwrap();
    assert_eq!(without.services[0].health_check, None);
}

#[test]
fn everything_can_be_said() {
    let everything = said(
        "http: { path: '/live?deep=1', host: 'web.example:8080', expected_statuses: [200, 300-399] }, \
         port: 8081, interval: 1m, timeout: 10s, healthy_threshold: 1, unhealthy_threshold: 100, \
         when_all_unhealthy: no_endpoint",
    );
    let http = Http {
        path: "/live?deep=1".to_owned(),
        host: Some("web.example:8080".to_owned()),
        expected_statuses: vec![200..=200, 300..=399],
    };
    for (status, passes) in [(200, true), (201, false), (299, false), (300, true), (399, true)] {
        assert_eq!(http.expects(status), passes, "{status}");
    }
    let expected = HealthCheck {
        probe: Probe::Http(http),
        port: NonZeroU16::new(8081),
        interval: Duration::from_secs(60),
        timeout: Duration::from_secs(10),
        healthy_threshold: 1,
        unhealthy_threshold: 100,
        when_all_unhealthy: WhenAllUnhealthy::NoEndpoint,
    };
    assert_eq!(everything, expected);
}

#[test]
fn a_check_is_one_of_two() {
    check("interval: 1s", &["5:19: `health_check` says neither `tcp` nor `http`: write `tcp: {}`"]);
    check("tcp: {}, http: { path: / }", &["5:36: `health_check` says `tcp` and `http`, and"]);
    check("tcp: { port: 1 }", &["5:26: there is nothing to say about `tcp`: write `tcp: {}`"]);
    check("tcp: true", &["5:26: there is nothing to say about `tcp`"]);
    check(
        "tcp: {}, intervall: 1s",
        &[
            "5:30: unknown key `intervall` in `health_check`; did you mean `interval`? Possible here: \
         `tcp`, `http`, `port`, `interval`, `timeout`, `healthy_threshold`, `unhealthy_threshold` or \
         `when_all_unhealthy`",
        ],
    );
}

#[test]
fn times_have_a_unit_and_bounds() {
    let bounds = "write one between 100ms and 1h, such as 500ms, 30s, 5m or 2h";
    let no_time = "is not a number and a unit";
    for (interval, error) in [
        ("5", no_time),
        ("1.5s", no_time),
        ("-1s", no_time),
        ("1d", no_time),
        ("''", no_time),
        ("05s", no_time),
        ("0s", "is out of range"),
        ("99ms", "is out of range"),
        ("61m", "is out of range"),
        ("99999999999999999999h", "is out of range"),
    ] {
        let error = format!("the interval `{}` {error}", interval.trim_matches('\''));
        check(&format!("tcp: {{}}, interval: {interval}"), &[&format!("5:40: {error}: {bounds}")]);
    }
    for interval in ["100ms", "1s", "60m", "1h"] {
        said(&format!("tcp: {{}}, interval: {interval}"));
    }
    check("tcp: {}, timeout: 9ms", &["5:39: the timeout `9ms` is out of range: "]);
    check("tcp: {}, timeout: 6s", &["5:39: the timeout is longer than the interval"]);
    check("tcp: {}, interval: 1s, timeout: 2s", &["5:53: the timeout is longer than the interval"]);
}

#[test]
fn thresholds_and_ports_have_bounds() {
    check(
        "tcp: {}, healthy_threshold: 0",
        &["5:49: threshold 0 is out of range: write a threshold between 1 and 100"],
    );
    check("tcp: {}, unhealthy_threshold: 101", &["5:51: threshold 101 is out of range"]);
    check("tcp: {}, port: 0", &["5:36: port 0 is out of range: write a port between 1 and 65535"]);
    check(
        "tcp: {}, when_all_unhealthy: panic",
        &["5:50: unknown `when_all_unhealthy` `panic`; Possible here: `use_all` or `no_endpoint`"],
    );
}

#[test]
fn a_request_can_only_be_one() {
    check("http: {}", &["5:27: `http` has no `path`: add it"]);
    for path in ["healthz", "'/a b'", "'/a#b'", "'/ä'", "\"/a\\r\\nEvil: 1\""] {
        check(&format!("http: {{ path: {path} }}"), &["5:35: `"]);
    }
    let long = format!("/{}", "a".repeat(1024));
    check(&format!("http: {{ path: {long} }}"), &["5:35: a path of 1025 bytes: the limit is 1024"]);
    for host in ["'a b'", "'a/b'", "\"a\\r\\nEvil: 1\""] {
        check(&format!("http: {{ path: /, host: {host} }}"), &["5:44: `"]);
    }
    check("http: { path: /, method: HEAD }", &["5:38: unknown key `method` in `http`; "]);
}

#[test]
fn statuses_are_numbers_and_ranges() {
    let expecting = |list: &str| format!("http: {{ path: /, expected_statuses: {list} }}");
    check(&expecting("[]"), &["5:57: `expected_statuses` is empty: write at least one"]);
    check(&expecting("200"), &["5:57: `expected_statuses` is a single value: write a list"]);
    for (entry, error) in [
        ("99", "status 99 is out of range: write a status between 100 and 599"),
        ("600", "status 600 is out of range"),
        ("2xx", "the status `2xx` is not a number"),
        ("299-200", "`299-200` is not a range of statuses: write two numbers between 100 and 599"),
        ("200-600", "`200-600` is not a range"),
        ("200-", "`200-` is not a range"),
    ] {
        check(&expecting(&format!("[{entry}]")), &[&format!("5:58: {error}")]);
    }
}

#[test]
fn what_answers_no_tcp_needs_a_port_that_does() {
    let datagrams = |check: &str| text(check).replace("port: 80 }", "port: 80, protocol: udp }");
    check_text(&datagrams("tcp: {}"), &["5:19: the service has a `udp` port, and only TCP can be"]);
    check_text(&datagrams("tcp: {}, port: 8080"), &[]);
}

#[test]
fn what_is_checked_is_no_frontend() {
    let checked = text("tcp: {}, port: 81");
    let other = |address: &str| {
        let ports = "ports: [{ name: p, port: 81 }]";
        format!("{checked}  - {{ name: other, addresses: [{address}], {ports} }}\n")
    };
    check_text(
        &other("127.0.0.1"),
        &[
            "5:19: 127.0.0.1:81/tcp, which is checked, is a frontend of service `other` (web.yaml:7:32), so",
        ],
    );
    check_text(&other("127.96.0.2"), &[]);
}
