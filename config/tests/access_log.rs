//! `access_log`: what is accepted, and what is refused where.

use holdfast_config::{Config, LogEvent, LogFormat, Sample, Source, Sources, parse};

fn config(text: &str) -> Result<Config, String> {
    parse(&Sources::single("a.yaml", text)).map_err(|errors| errors.to_string())
}

fn sample(text: &str) -> Result<Sample, String> {
    let config = config(&format!("services: []\naccess_log: {{ sample: {text} }}\n"))?;
    Ok(config.access_log.expect("said").entries.sample)
}

#[track_caller]
fn refused(text: &str, expected: &str) {
    let errors = config(&format!("services: []\n{text}")).expect_err("it is refused");
    assert!(errors.contains(expected), "`{expected}` in: {errors}");
}

#[test]
fn everything_is_logged_unless_said() {
    let log = |text: &str| config(&format!("services: []\n{text}")).expect("valid").access_log;
    assert_eq!(log(""), None);
    let all = log("access_log: {}\n").expect("said");
    assert_eq!((all.format, all.entries.sample), (LogFormat::Json, Sample::WHOLE));
    assert_eq!(all.entries.events, LogEvent::ALL);
    let some = log("access_log: { format: text, events: [would_deny, failed] }\n").expect("said");
    assert_eq!(some.format, LogFormat::Text);
    assert_eq!(some.entries.events, [LogEvent::Failed, LogEvent::WouldDeny]);
}

#[test]
fn a_service_says_what_it_wants_for_itself() {
    let text = "services:\n  - name: web\n    addresses: [127.96.0.1]\n    ports: [{ name: http, port: \
                80 }]\n    access_log: { sample: 0 }\n  - name: other\n    addresses: \
                [127.96.0.2]\n    ports: [{ name: http, port: 80 }]\n";
    let services = config(text).expect("valid").services;
    assert_eq!(services[0].access_log.as_ref().map(|log| log.sample), Some(Sample::NONE));
    assert_eq!(services[1].access_log, None);
}

#[test]
fn a_sample_is_a_percentage() {
    for (text, millionths) in [
        ("0", 0),
        ("100", 1_000_000),
        ("1", 10_000),
        ("12.5", 125_000),
        ("0.0001", 1),
        ("100.0000", 1_000_000),
    ] {
        assert_eq!(sample(text), Ok(Sample(millionths)), "{text}");
    }
    for text in ["100.1", "101", "-1", "1e1", "0.00001", "all", "'5'", "1.", ".5", "99999999999"] {
        let errors = sample(text).expect_err("refused");
        let expected = "a.yaml:2:23: the `sample` ";
        assert!(errors.contains(expected) && errors.contains("is not a percentage"), "{errors}");
    }
    assert!(sample("null").expect_err("refused").contains("the `sample` is empty"));
}

#[test]
fn what_makes_no_sense_is_refused_where_it_stands() {
    refused("access_log:\n", "`access_log` is empty");
    refused("access_log: { samples: 1 }\n", "did you mean `sample`?");
    refused("access_log: { format: xml }\n", "a.yaml:2:23: unknown format of the access log `xml`");
    refused("access_log: { events: [] }\n", "a.yaml:2:23: `events` is empty: write at least one");
    refused("access_log: { events: [closed, opened] }\n", "a.yaml:2:32: unknown event `opened`");
    refused("access_log: { events: [closed, closed] }\n", "a.yaml:2:32: closed is listed already");
}

#[test]
fn it_is_said_once_in_all_files() {
    let file = |label: &str, log: &str| Source {
        label: label.to_owned(),
        name: label.to_owned(),
        contents: format!("services: []\n{log}").into_bytes(),
    };
    let files = vec![file("a.yaml", "access_log: {}\n"), file("b.yaml", "access_log: {}\n")];
    let errors = parse(&Sources::new(files)).expect_err("twice").to_string();
    assert!(
        errors.contains("b.yaml:2:13: `access_log` is said already, at a.yaml:2:13"),
        "{errors}"
    );
}
