//! A save after another one says what it would say if it were parsed alone: the same model, or the same
//! errors in the same places.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;

use holdfast_config::{Incremental, Source, Sources, parse};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// What is written between two lines, or in the middle of one.
const FRAGMENTS: [&str; 66] = [
    "",
    " ",
    "  ",
    "\n",
    "\n\n",
    "\t",
    "\r",
    "\r\n",
    "-",
    "- ",
    "  - ",
    "\n  - ",
    "\n- ",
    ":",
    ": ",
    "? ",
    "[",
    "]",
    "{",
    "}",
    ",",
    "#",
    " # a comment\n",
    "&a ",
    "*a",
    "!!int ",
    "<<: ",
    "|\n",
    ">-\n",
    "|2\n",
    "'",
    "\"",
    "\\",
    "%YAML 1.2\n",
    "@",
    "\n---\n",
    "\n...\n",
    "0",
    "9",
    "-1",
    "65536",
    "null",
    "~",
    "\u{feff}",
    "\0",
    "é",
    "\u{2028}",
    "\u{85}",
    "services:",
    "\nservices:\n",
    "\nnode: { region: eu }\n",
    "\nidentities: []\n",
    "  - name: s1\n",
    "    text\n",
    "      text\n",
    "- { name: new, addresses: [127.96.9.9], ports: [{ name: p, port: 9 }] }\n",
    "  - { name: new, addresses: [127.96.9.9], ports: [{ name: p, port: 9 }] }\n",
    "  - name: new\n    addresses: [127.96.9.8]\n    ports:\n      - name: p\n        port: 8\n",
    ", weight: 7",
    ", aliases: [{ address: 127.0.0.78 }]",
    ", aliases: [{ address: 127.96.0.2, port: 80 }]",
    ", direct: true",
    "    direct: true\n",
    "{ address: 127.0.0.77 }",
    "127.96.0.1",
    "127.0.0.1",
];

/// A service in one of several styles; where its lines begin is up to `indent`.
fn service(number: usize, style: usize, endpoints: usize, indent: usize) -> String {
    let margin = " ".repeat(indent);
    let flow =
        |address: usize| format!("{{ address: 127.0.{number}.{address}, weight: {address} }}");
    let listed: Vec<String> = (1..=endpoints).map(flow).collect();
    let (flow, name) = (listed.join(", "), format!("s{number}"));
    match style {
        0 => format!(
            "{margin}- {{ name: {name}, addresses: [127.96.0.{number}], ports: [{{ name: p, port: 80 }}], \
             endpoints: [{flow}] }}\n"
        ),
        1 => {
            let lines: String = listed.iter().map(|it| format!("{margin}      - {it}\n")).collect();
            let endpoints =
                if lines.is_empty() { " []\n".to_owned() } else { format!("\n{lines}") };
            format!(
                "{margin}- name: {name}\n{margin}  addresses: [127.96.0.{number}, \"fd96::{number}\"]\n\
                 {margin}  ports: [{{ name: p, port: 80, protocol: udp }}]\n{margin}  endpoints:{endpoints}"
            )
        }
        2 => format!(
            "{margin}# {name}\n{margin}-   name: '{name}'\n{margin}    addresses:\n{margin}    - 127.96.0.{number}\n\
             {margin}    ports: [ {{ name: p,\n{margin}      port: 80 }} ]\n\n{margin}    endpoints: [{flow}]\n"
        ),
        3 => format!(
            "{margin}- name: >-\n{margin}    {name}\n{margin}  addresses: [127.96.0.{number}]\n\
             {margin}  ports: [{{ name: p, port: 80 }}]\n{margin}  no_endpoint: |-\n{margin}    deny\n"
        ),
        4 => format!(
            "{margin}- {{ name: {name}, direct: true, ports: [{{ name: p, port: 80 }}, {{ name: q, port: 81 }}], endpoints: \
             [{flow}] }}\n"
        ),
        5 => {
            let alias = |address: usize| {
                format!(
                    "{{ address: 127.0.{number}.{address}, aliases: [{{ address: 'fd00::{number}:{address}', port: 30 }}] }}"
                )
            };
            let aliased: Vec<String> = (1..=endpoints).map(alias).collect();
            format!(
                "{margin}- name: {name}\n{margin}  addresses: [127.96.0.{number}]\n{margin}  direct: true\n{margin}  \
                 ports: [{{ name: p, port: 80 }}]\n{margin}  endpoints: [{}]\n",
                aliased.join(", ")
            )
        }
        _ => format!(
            "{margin}-\n{margin}  name: {name}\n{margin}  addresses: [127.96.0.{number}]\n{margin}  ports: [{{ name: p, \
             port: 80, target_port: 81 }}]\n{margin}  endpoints: [{flow}]\n"
        ),
    }
}

const HEADS: [&str; 4] = ["", "# written by hand\n", "---\n", "node: { region: eu }\n"];
const TAILS: [&str; 5] = [
    "",
    "# the end\n",
    "identities: [{ name: a, cidrs: [10.0.0.0/8] }]\npolicies: [{ name: b, action: deny, rules: [{}] }]\n",
    "enrolment:\n  cgroups:\n  - /sys/fs/cgroup/a\n",
    "...\n",
];

/// A valid file.
fn file(first: usize) -> impl Strategy<Value = String> {
    let services = vec((0..7_usize, 0..4_usize), 1..7);
    let styles = (select(vec![0, 2, 4]), select(&HEADS[..]), select(&TAILS[..]));
    (services, styles).prop_map(move |(services, (indent, head, tail))| {
        let services = services.into_iter().zip(first..);
        let lines: String = services
            .map(|((style, endpoints), number)| service(number, style, endpoints, indent))
            .collect();
        format!("{head}services:\n{lines}{tail}")
    })
}

/// A change of a text.
#[derive(Clone, Debug)]
enum Edit {
    /// Bytes replaced by a fragment.
    Bytes(Index, usize, &'static str),
    /// Lines left out.
    Cut(Index, usize),
    /// Lines taken somewhere else, or said there again.
    Lines { from: Index, count: usize, to: Index, again: bool },
    /// A digit that becomes another.
    Digit(Index, u8),
    /// A whole service.
    Service { at: Index, number: usize, style: usize, endpoints: usize },
}

fn edit() -> impl Strategy<Value = Edit> {
    let index = any::<Index>;
    prop_oneof![
        (index(), 0..12_usize, select(&FRAGMENTS[..]))
            .prop_map(|(at, gone, by)| Edit::Bytes(at, gone, by)),
        (index(), 1..9_usize).prop_map(|(at, count)| Edit::Cut(at, count)),
        (index(), 1..9_usize, index(), any::<bool>())
            .prop_map(|(from, count, to, again)| Edit::Lines { from, count, to, again }),
        (index(), b'0'..=b'9').prop_map(|(at, digit)| Edit::Digit(at, digit)),
        (index(), 1..30_usize, 0..7_usize, 0..3_usize).prop_map(
            |(at, number, style, endpoints)| { Edit::Service { at, number, style, endpoints } }
        ),
    ]
}

impl Edit {
    fn make(&self, text: &[u8]) -> Vec<u8> {
        let mut lines: Vec<Vec<u8>> =
            text.split_inclusive(|it| *it == b'\n').map(<[u8]>::to_vec).collect();
        let at = |index: &Index, lines: &Vec<Vec<u8>>| index.index(lines.len() + 1);
        match self {
            Self::Bytes(index, gone, by) => {
                let mut text = text.to_vec();
                let at = index.index(text.len() + 1);
                let end = (at + gone).min(text.len());
                text.splice(at..end, by.bytes());
                return text;
            }
            Self::Cut(index, count) => {
                let at = at(index, &lines);
                lines.drain(at..(at + count).min(lines.len()));
            }
            Self::Lines { from, count, to, again } => {
                let from = at(from, &lines);
                let range = from..(from + count).min(lines.len());
                let taken = lines[range.clone()].to_vec();
                if !again {
                    lines.drain(range);
                }
                let to = at(to, &lines);
                lines.splice(to..to, taken);
            }
            Self::Digit(index, digit) => {
                let mut text = text.to_vec();
                let digits: Vec<usize> =
                    (0..text.len()).filter(|at| text[*at].is_ascii_digit()).collect();
                if !digits.is_empty() {
                    text[digits[index.index(digits.len())]] = *digit;
                }
                return text;
            }
            Self::Service { at: index, number, style, endpoints } => {
                let indent = lines.iter().find_map(|line| {
                    let indent = line.iter().take_while(|it| **it == b' ').count();
                    (line.get(indent) == Some(&b'-') && line.get(indent + 1) != Some(&b'-'))
                        .then_some(indent)
                });
                let service = service(*number, *style, *endpoints, indent.unwrap_or(2));
                let at = at(index, &lines);
                lines.insert(at, service.into_bytes());
            }
        }
        lines.concat()
    }
}

fn sources(texts: &[Vec<u8>]) -> Arc<Sources> {
    let file = |(number, text): (usize, &Vec<u8>)| Source {
        label: format!("dir/{number}.yaml"),
        name: format!("{number}.yaml"),
        contents: text.clone(),
    };
    Arc::new(Sources::new(texts.iter().enumerate().map(file).collect()))
}

/// Parses `sources` both ways; whether not all of it was parsed.
fn check(incremental: &mut Incremental, sources: &Arc<Sources>) -> bool {
    let whole = parse(sources);
    match incremental.parse(sources) {
        Ok(parsed) => {
            assert_eq!(Ok(&*parsed.config), whole.as_ref());
            !parsed.is_whole
        }
        Err(errors) => {
            assert_eq!(Err(&errors), whole.as_ref());
            false
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_saves_one_after_the_other(
        first in file(1),
        second in prop::option::of(file(11)),
        edits in vec((any::<Index>(), edit(), any::<bool>()), 1..8),
    ) {
        let mut texts: Vec<Vec<u8>> = [Some(first), second].into_iter().flatten().map(String::into_bytes).collect();
        let mut incremental = Incremental::default();
        check(&mut incremental, &sources(&texts));
        for (file, edit, stays) in edits {
            let file = file.index(texts.len());
            let before = texts[file].clone();
            texts[file] = edit.make(&before);
            let is_valid = parse(&sources(&texts)).is_ok();
            check(&mut incremental, &sources(&texts));
            // Most edits are errors; the next one is then mostly of the valid text.
            if !is_valid && !stays {
                texts[file] = before;
            }
        }
    }
}

const TEXT: &str = "\
# what clients connect to
services:
  - { name: a, addresses: [127.96.0.1], ports: [{ name: p, port: 80 }], endpoints: [{ address: 127.0.0.1 }] }
  - name: b
    addresses: [127.96.0.2]
    ports:
      - { name: p, port: 80 }
    endpoints:
      - address: 127.0.0.1
        weight: 3
  - { name: c, addresses: [127.96.0.3], ports: [{ name: p, port: 80 }] }
";
const TAIL: &str = "node: { region: eu }\n";

/// Saves `old`, then `new`: whether only a part of `new` is parsed.
fn is_partial(old: &str, new: &str) -> bool {
    let mut incremental = Incremental::default();
    assert!(!check(&mut incremental, &sources(&[old.into()])), "the first is parsed whole");
    check(&mut incremental, &sources(&[new.into()]))
}

#[test]
fn a_small_change_is_a_small_part() {
    let item = "  - { name: new, addresses: [127.96.0.9], ports: [{ name: p, port: 80 }] }\n";
    let c = TEXT.lines().last().unwrap().to_owned() + "\n";
    for tail in ["", TAIL, "# nothing more\n"] {
        let old = format!("{TEXT}{tail}");
        let edits = [
            ("127.0.0.1 }] }", "127.0.0.1 }, { address: 127.0.0.2 }] }"),
            ("weight: 3", "weight: 30"),
            ("        weight: 3\n", ""),
            ("weight: 3\n", "weight: 3\n      - address: 127.0.0.2\n"),
            ("  - name: b", &format!("{item}  - name: b")),
            (&c, ""),
            (&c, &format!("{c}{item}")),
            ("port: 80 }] }\n", "port: 81 }] }\n"),
        ];
        for (from, to) in edits {
            let new = old.replacen(from, to, 1);
            assert_ne!(old, new, "{from}");
            assert!(is_partial(&old, &new), "{from:?} to {to:?}, {tail:?}");
            assert!(is_partial(&new, &old), "{to:?} to {from:?}, {tail:?}");
        }
    }
}

#[test]
fn what_is_not_certain_is_parsed_whole() {
    let parts = [
        // Another key than `services`, before and after them.
        (TEXT.to_owned(), format!("node: {{ region: eu }}\n{TEXT}")),
        (TEXT.to_owned(), format!("{TEXT}{TAIL}")),
        (format!("{TEXT}{TAIL}"), format!("{TEXT}{TAIL}").replace("eu", "us")),
        // Line breaks of two kinds.
        (TEXT.replace('\n', "\r\n"), TEXT.replace('\n', "\r\n").replace("weight: 3", "weight: 4")),
        // Flow style.
        (
            "services: [{ name: a, addresses: [127.96.0.1], ports: [{ name: p, port: 1 }] }]"
                .to_owned(),
            "services: [{ name: a, addresses: [127.96.0.1], ports: [{ name: p, port: 2 }] }]"
                .to_owned(),
        ),
        // Another indentation.
        (TEXT.to_owned(), TEXT.replace("\n  ", "\n   ")),
    ];
    for (old, new) in parts {
        assert!(!is_partial(&old, &new), "{new}");
    }
}

#[test]
fn what_concerns_services_that_stay_is_an_error_with_its_place() {
    let text = |last: &str| format!("{TEXT}  - {{ name: d, {last} }}\n");
    let valid = text("addresses: [127.96.0.4], ports: [{ name: p, port: 80 }]");
    let mut incremental = Incremental::default();
    check(&mut incremental, &sources(&[valid.clone().into()]));
    let wrong = [
        ("addresses: [127.96.0.1], ports: [{ name: p, port: 80 }]", "a frontend of service `a`"),
        (
            "addresses: [127.0.0.1], ports: [{ name: p, port: 80 }]",
            "is itself a frontend of service `d`",
        ),
        (
            "addresses: [127.96.0.4], ports: [{ name: p, port: 80 }], endpoints: [{ address: 127.96.0.1 }]",
            "is itself a frontend of service `a`",
        ),
        (
            "addresses: [127.96.0.4], ports: [{ name: p, port: 80 }], direct: true, \
             endpoints: [{ address: 127.0.0.4, aliases: [{ address: 127.96.0.1 }] }]",
            "is a frontend of service `a`",
        ),
        (
            "addresses: [127.96.0.4], ports: [{ name: p, port: 80, target_port: 81 }], health_check: { tcp: {}, port: 80 }, \
             endpoints: [{ address: 127.96.0.1 }]",
            "could reach another endpoint",
        ),
    ];
    for (last, message) in wrong {
        let sources = sources(&[text(last).into()]);
        let errors = parse(&sources).unwrap_err();
        assert!(errors.pretty().contains(message), "{}", errors.pretty());
        assert!(!check(&mut incremental, &sources));
    }
    let twice = valid.replace("name: d", "name: a");
    assert!(!check(&mut incremental, &sources(&[twice.into()])));
    // What follows an error is compared with what was valid.
    assert!(check(&mut incremental, &sources(&[valid.replace("0.4]", "0.5]").into()])));
}

#[test]
fn no_more_is_parsed_ahead_than_is_allowed() {
    let mut incremental = Incremental::default();
    check(&mut incremental, &sources(&[TEXT.into()]));
    let changed = sources(&[TEXT.replace("weight: 3", "weight: 30").into()]);
    assert!(incremental.follow(&changed, 100).is_none());
    assert_eq!(incremental.follow(&changed, 1000).as_deref(), parse(&changed).ok().as_ref());
}
