//! What `drain` may say, and every error with its exact place.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::time::Duration;

use holdfast_config::Drain;

use common::{check_text, parse_text};

/// A service whose `drain`, at 5:12, is `said`.
fn text(said: &str) -> String {
    format!(
        "services:\n  - name: web\n    addresses: [127.96.0.10]\n    ports: [{{ name: http, port: 80 }}]\n    \
         drain: {said}\n    endpoints: [{{ address: 127.0.0.1, draining: true }}]\n"
    )
}

#[test]
fn a_time_from_none_to_a_day() {
    let understood = |said: &str| parse_text(&text(said)).unwrap().services[0].drain;
    let ends = [("0s", 0), ("0h", 0), ("24h", 86_400), ("1440m", 86_400), ("86400s", 86_400)];
    for (said, seconds) in ends.into_iter().chain([("1s", 1), ("30s", 30), ("5m", 300)]) {
        let close_after = Duration::from_secs(seconds);
        let said = format!("{{ close_after: {said} }}");
        assert_eq!(understood(&said), Some(Drain { close_after }), "{said}");
    }
    let without = text("{}").replace("drain: {}", "no_endpoint: deny");
    assert_eq!(parse_text(&without).unwrap().services[0].drain, None);
}

#[test]
fn anything_else_is_an_error_with_its_place() {
    let wanted = "write one between 0ms and 24h, such as 500ms, 30s, 5m or 2h";
    let check = |said: &str, expected: String| check_text(&text(said), &[expected.as_str()]);
    check("{}", "5:12: `drain` has no `close_after`: add it".to_owned());
    check(
        "yes",
        "5:12: `drain` is a single value: write a mapping with keys of `close_after`".to_owned(),
    );
    check(
        "[30s]",
        "5:12: `drain` is a list: write a mapping with keys of `close_after`".to_owned(),
    );
    for far in ["25h", "1441m", "86401s", "86400001ms", "99999999999999999999h"] {
        let said = format!("{{ close_after: {far} }}");
        check(&said, format!("5:27: the close_after `{far}` is out of range: {wanted}"));
    }
    for odd in ["30", "0", "-1s", "1.5s", "1h30m", "1 s", "s", "01s", "30S", "never"] {
        let said = format!("{{ close_after: {odd} }}");
        check(&said, format!("5:27: the close_after `{odd}` is not a number and a unit: {wanted}"));
    }
    check("{ close_after: }", format!("5:25: the close_after is empty: {wanted}"));
    check(
        "{ close_after: 1s, close_after: 2s }",
        "5:31: the key `close_after` is here twice, first at 5:14".to_owned(),
    );
    check(
        "{ close_after: 1s, after: 1s }",
        "5:31: unknown key `after` in `drain`; Possible here: `close_after`".to_owned(),
    );
}
