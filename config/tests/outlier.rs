//! What `outlier_ejection` may say, and every error with its exact place.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::time::Duration;

use holdfast_config::{FailureRate, OutlierEjection};

use common::{check_text, parse_text};

/// A service whose `outlier_ejection`, at 5:23, says `said`.
fn text(said: &str) -> String {
    format!(
        "services:\n  - name: web\n    addresses: [127.96.0.10]\n    ports: [{{ name: http, port: 80 }}]\n    \
         outlier_ejection: {{ {said} }}\n    endpoints: [{{ address: 127.0.0.1 }}]\n"
    )
}

fn understood(said: &str) -> OutlierEjection {
    parse_text(&text(said)).unwrap().services[0].outlier_ejection.clone().unwrap()
}

#[track_caller]
fn check(said: &str, expected: &[&str]) {
    check_text(&text(said), expected);
}

#[test]
fn what_is_left_out_has_its_default() {
    let usual = OutlierEjection {
        consecutive_failures: Some(5),
        failure_rate: None,
        base_time: Duration::from_secs(30),
        max_time: Duration::from_secs(300),
        max_ejected_percent: 50,
    };
    assert_eq!(understood(""), usual);
    let rate = FailureRate { percent: 50, min_attempts: 20, interval: Duration::from_secs(10) };
    let by_rate =
        OutlierEjection { consecutive_failures: None, failure_rate: Some(rate), ..usual.clone() };
    assert_eq!(understood("failure_rate: {}"), by_rate);
    let both = OutlierEjection { consecutive_failures: Some(3), ..by_rate };
    assert_eq!(understood("failure_rate: {}, consecutive_failures: 3"), both);
    // A time that nobody wrote is never the error.
    assert_eq!(understood("base_time: 1h").max_time, Duration::from_secs(3600));
    let without = parse_text(&text("").replace("outlier_ejection: {  }", "")).unwrap();
    assert_eq!(without.services[0].outlier_ejection, None);
}

#[test]
fn everything_can_be_said() {
    let said = understood(
        "consecutive_failures: 7, failure_rate: { percent: 20, min_attempts: 100, interval: 1m },
         base_time: 1s, max_time: 1s, max_ejected_percent: 100",
    );
    let interval = Duration::from_secs(60);
    assert_eq!(
        said,
        OutlierEjection {
            consecutive_failures: Some(7),
            failure_rate: Some(FailureRate { percent: 20, min_attempts: 100, interval }),
            base_time: Duration::from_secs(1),
            max_time: Duration::from_secs(1),
            max_ejected_percent: 100,
        }
    );
}

#[test]
fn every_error_has_its_place() {
    check("consecutive_failures: 0", &["5:47: consecutive_failures 0 is out of range: write a"]);
    check("consecutive_failures: five", &["5:47: the consecutive_failures `five` is not a number"]);
    check("max_ejected_percent: 0", &["5:46: max_ejected_percent 0 is out of range"]);
    check("max_ejected_percent: 101", &["5:46: max_ejected_percent 101 is out of range"]);
    check("base_time: 0s", &["5:36: the base_time `0s` is out of range"]);
    check("base_time: 10", &["5:36: the base_time `10` is not a number and a unit"]);
    check("base_time: 10s, max_time: 9s", &["5:51: `max_time` is shorter than `base_time`"]);
    check("failure_rate: { percent: 0 }", &["5:50: percent 0 is out of range"]);
    check(
        "failure_rate: { min_attempts: 0, interval: 2h }",
        &["5:55: min_attempts 0 is out of range", "5:68: the interval `2h` is out of range"],
    );
    check("base_ejection_time: 30s", &["5:25: unknown key `base_ejection_time` in `outlier_ejec"]);
    check("failure_rate: { percnt: 5 }", &["5:41: unknown key `percnt` in `failure_rate`; did"]);
    check_text(
        &text("").replace("outlier_ejection: {  }", "outlier_ejection: yes"),
        &["5:23: `outlier_ejection` is "],
    );
    check_text(
        &text("").replace("port: 80 }", "port: 80, protocol: udp }"),
        &["5:23: the service has only `udp` ports, and datagrams do not fail"],
    );
}
