//! Access policies: what is accepted, and every error with its exact place.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use holdfast_config::{Action, Config, Diagnostics, PortRange, Sources, parse};

const VALID: &str = "\
services: []
identities:
  - { name: frontend, namespace: shop, cgroups: [/sys/fs/cgroup/frontend.slice] }
  - { name: db, namespace: data, cidrs: [127.0.0.9, \"fd96::/16\"] }
policies:
  - name: only-the-shop
    action: allow
    dry_run: true
    selector: { namespaces: [shop] }
    rules:
      - from: { identities: [frontend], not_cidrs: [10.0.0.0/8] }
        to: { identities: [db], not_ports: [22, 8000-8080] }
      - {}
";

fn parse_text(text: &str) -> Result<Config, Diagnostics> {
    parse(&Sources::single("p.yaml", text))
}

/// Checks that the errors in `text` are those that start with `expected`, and no others.
#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let found: Vec<String> = match parse_text(text) {
        Ok(_) => Vec::new(),
        Err(errors) => {
            errors.iter().map(|e| format!("{}:{}: {}", e.line(), e.column(), e.message())).collect()
        }
    };
    let same = found.len() == expected.len()
        && found.iter().zip(expected).all(|(found, expected)| found.starts_with(expected));
    assert!(same, "\n--- text\n{text}\n--- expected\n{expected:#?}\n--- found\n{found:#?}");
}

/// Checks one rule; it starts at 3:38.
#[track_caller]
fn check_rule(rule: &str, expected: &[&str]) {
    let head = "services: []\npolicies:\n";
    check(&format!("{head}  - {{ name: p, action: deny, rules: [{rule}] }}\n"), expected);
}

#[test]
fn a_valid_file_says_what_it_says() {
    let access = parse_text(VALID).unwrap().access;
    assert_eq!(access.identities.len(), 2);
    assert_eq!(access.identities[1].cidrs[0].to_string(), "127.0.0.9/32");
    assert_eq!(access.identities[1].cidrs[1].to_string(), "fd96::/16");
    let [policy] = &access.policies[..] else { panic!("one policy: {access:?}") };
    assert_eq!((policy.action, policy.dry_run), (Action::Allow, true));
    assert_eq!(policy.selector.namespaces, ["shop"]);
    let [rule, everything] = &policy.rules[..] else { panic!("two rules: {policy:?}") };
    assert_eq!(rule.from.group.identities, ["frontend"]);
    let ports = [PortRange { first: 22, last: 22 }, PortRange { first: 8000, last: 8080 }];
    assert_eq!(rule.to.not_ports, ports);
    assert_eq!(*everything, holdfast_config::Rule::default());
    assert_eq!(parse_text("services: []\n").unwrap().access, Default::default());
}

#[test]
fn names_are_unique_and_known() {
    check(
        "services: []\nidentities:\n  - { name: a, cidrs: [10.0.0.1] }\n  - { name: a, cidrs: [10.0.0.2] }\n\
         policies:\n  - { name: p, action: deny, rules: [{}] }\n  - { name: p, action: deny, rules: [{}] }\n",
        &[
            "4:13: the identity `a` is there already, at p.yaml:3:13",
            "7:13: the policy `p` is there already, at p.yaml:6:13",
        ],
    );
    check_rule("{ from: { identities: [b] } }", &["3:61: there is no identity `b`"]);
    check_rule("{ to: { not_namespaces: [n] } }", &["3:63: no identity has the namespace `n`"]);
    check(
        &VALID.replace("identities: [db], not", "identities: [frontend], not"),
        &["12:28: the identity `frontend` is known by its cgroups only"],
    );
    check("services: []\nidentities: [{ name: a }]\n", &["2:14: the identity has neither"]);
}

#[test]
fn what_says_nothing_is_refused() {
    check(
        "services: []\npolicies:\n  - { name: p, action: allow, rules: [] }\n",
        &["3:38: `rules` is empty: write at least one; `- {}` matches every connection"],
    );
    check(
        "services: []\npolicies:\n  - { name: p }\n",
        &["3:5: the policy has no `action`", "3:5: the policy has no `rules`"],
    );
    check_rule("{ to: { ports: [] } }", &["3:53: `ports` is empty"]);
    check_rule("{ from: { ports: [1] } }", &["3:48: unknown key `ports` in `from`"]);
    check_rule("{ when: { a: 1 } }", &["3:40: unknown key `when` in the rule"]);
    check(
        "services: []\npolicies: [{ name: p, action: audit, rules: [{}] }]\n",
        &["2:31: unknown action `audit`"],
    );
}

#[test]
fn ranges_are_exact() {
    let cases = [
        ("10.0.0.1/8", "`10.0.0.1/8` has bits beyond its length: write 10.0.0.0/8"),
        ("10.0.0.0/33", "the length in `10.0.0.0/33` is out of range: write one between 0 and 32"),
        ("10.0.0.0/-1", "the length in `10.0.0.0/-1` is out of range"),
        ("\"fd96::1/64\"", "`fd96::1/64` has bits beyond its length: write fd96::/64"),
        ("\"::ffff:10.0.0.0/104\"", "`::ffff:10.0.0.0/104` is IPv4 in IPv6 form: write 10.0.0.0/8"),
        ("web", "`web` is not a range of addresses"),
    ];
    for (cidr, expected) in cases {
        let rule = format!("{{ to: {{ cidrs: [{cidr}] }} }}");
        check_rule(&rule, &[&format!("3:54: {expected}")]);
    }
    for whole in ["0.0.0.0/0", "\"::/0\"", "10.1.2.3/32", "\"fd96::1\""] {
        check_rule(&format!("{{ to: {{ cidrs: [{whole}] }} }}"), &[]);
    }
}

#[test]
fn ports_are_numbers_or_ranges() {
    let cases = [
        ("0", "port 0 is out of range"),
        ("65536", "port 65536 is out of range"),
        ("90-80", "the ports `90-80` are in the wrong order"),
        ("80-", "the port is empty"),
        ("http", "the port `http` is not a number"),
    ];
    for (port, expected) in cases {
        check_rule(&format!("{{ to: {{ ports: [{port}] }} }}"), &[&format!("3:54: {expected}")]);
    }
}

#[test]
fn cgroups_are_plain_paths() {
    let place = "2:35: ";
    for path in ["web.slice", "/sys/../web", "/sys/fs/cgroup/", "/sys//fs", "/", "/a/./b"] {
        let text = format!("services: []\nidentities: [{{ name: a, cgroups: [{path}] }}]\n");
        check(&text, &[&format!("{place}the cgroup ")]);
    }
    let deep = "/d".repeat(25);
    check(
        &format!("services: []\nidentities: [{{ name: a, cgroups: [{deep}] }}]\n"),
        &[&format!("{place}the cgroup `")],
    );
}

#[test]
fn rules_are_bounded_by_name() {
    let rules = vec!["{}"; 1024].join(", ");
    let text = format!(
        "services: []\npolicies:\n  - {{ name: p, action: deny, rules: [{rules}] }}\n  - {{ name: q, action: deny, rules: [{{}}] }}\n"
    );
    check(&text, &["4:13: with this there are more than 1024 rules"]);
}
