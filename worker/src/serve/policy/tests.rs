//! What the kernel programs make of an image, against what the configuration says. The programs' own
//! source judges here; the other judge reads the configuration rule by rule and compiles nothing.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use holdfast_config::{
    Access, AccessPolicy, Action, Cidr, Direction, Group, Identity, PortRange, Rule, Side, Sources,
    parse,
};
use holdfast_protocol::kernel::rules::{Cell, NO_POLICY};
use proptest::prelude::*;

use self::programs::{Cells, Policies, Request, Section, Vectors, judge, judge_arrival, sentence};
use super::image::{image, records};
use super::resolve::Resolution;

/// The judge of the kernel programs, from its own source.
#[path = "../../../../ebpf/src/policy.rs"]
mod programs;
/// What it is written with.
#[expect(dead_code, reason = "the judge needs little of it")]
#[path = "../../../../ebpf/src/words.rs"]
mod words;

/// A connection, as far as policies are about it.
#[derive(Clone, Debug)]
struct Connection {
    asked: (IpAddr, u16),
    endpoint: (IpAddr, u16),
    local: Option<IpAddr>,
    cgroup: PathBuf,
}

/// What becomes of a connection, and on whose account.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    Passes,
    WouldBeDenied,
    Denied(Vec<String>),
}

// The judge that compiles nothing.

struct Naive<'a> {
    access: &'a Access,
    direction: Direction,
    connection: &'a Connection,
}

impl Naive<'_> {
    fn fate(&self) -> Fate {
        let policies =
            || self.access.policies.iter().filter(|policy| policy.direction == self.direction);
        let matches = |policy: &AccessPolicy| self.matches(policy);
        let of = |action, dry_run| {
            policies().filter(move |policy| policy.action == action && policy.dry_run == dry_run)
        };
        let about = |policy: &AccessPolicy| self.is_member(&policy.selector);
        let names = |found: Vec<&AccessPolicy>| found.iter().map(|it| it.name.clone()).collect();
        let denying: Vec<_> = of(Action::Deny, false).filter(|it| matches(it)).collect();
        if !denying.is_empty() {
            return Fate::Denied(names(denying));
        }
        let allowed = of(Action::Allow, false).any(matches);
        let selecting: Vec<_> = of(Action::Allow, false).filter(|it| about(it)).collect();
        if !selecting.is_empty() && !allowed {
            return Fate::Denied(names(selecting));
        }
        let dry_allowed = allowed || of(Action::Allow, true).any(matches);
        let dry_selected = of(Action::Allow, true).any(about);
        if of(Action::Deny, true).any(matches) || (dry_selected && !dry_allowed) {
            return Fate::WouldBeDenied;
        }
        Fate::Passes
    }

    fn matches(&self, policy: &AccessPolicy) -> bool {
        self.is_member(&policy.selector) && policy.rules.iter().any(|rule| self.rule(rule))
    }

    fn rule(&self, rule: &Rule) -> bool {
        match self.direction {
            Direction::Outbound => self.outbound(rule),
            Direction::Inbound => self.inbound(rule),
        }
    }

    /// The client is known by its address, and the port is the workload's own.
    fn inbound(&self, Rule { from, to }: &Rule) -> bool {
        let local = |cidrs: &[Cidr]| self.connection.local.is_some_and(|it| is_in(it, cidrs));
        let (client, port) = self.connection.asked;
        let to_holds = (to.cidrs.is_empty() || local(&to.cidrs))
            && !local(&to.not_cidrs)
            && (to.ports.is_empty() || is_among(port, &to.ports))
            && !is_among(port, &to.not_ports)
            && self.is_member(&to.group);
        to_holds && self.holds(from, (client, port)) && !self.rules_out(from, (client, port))
    }

    fn outbound(&self, Rule { from, to }: &Rule) -> bool {
        let local = |cidrs: &[Cidr]| self.connection.local.is_some_and(|it| is_in(it, cidrs));
        let from_holds = (from.cidrs.is_empty() || local(&from.cidrs))
            && !local(&from.not_cidrs)
            && self.is_member(&from.group);
        let (asked, endpoint) = (self.connection.asked, self.connection.endpoint);
        from_holds
            && (self.holds(to, asked) || self.holds(to, endpoint))
            && !self.rules_out(to, asked)
            && !self.rules_out(to, endpoint)
    }

    fn holds(&self, to: &Side, (address, port): (IpAddr, u16)) -> bool {
        let known = |names: &[String], spaces: &[String]| {
            self.access.members(names, spaces).any(|it| is_in(address, &it.cidrs))
        };
        let group = &to.group;
        (to.cidrs.is_empty() || is_in(address, &to.cidrs))
            && (to.ports.is_empty() || is_among(port, &to.ports))
            && (group.identities.is_empty() || known(&group.identities, &[]))
            && (group.namespaces.is_empty() || known(&[], &group.namespaces))
    }

    fn rules_out(&self, to: &Side, (address, port): (IpAddr, u16)) -> bool {
        let group = &to.group;
        let mut excluded = self.access.members(&group.not_identities, &group.not_namespaces);
        is_in(address, &to.not_cidrs)
            || is_among(port, &to.not_ports)
            || excluded.any(|it| is_in(address, &it.cidrs))
    }

    /// Whether the workload is in `group`.
    fn is_member(&self, group: &Group) -> bool {
        let is = |identity: &Identity| {
            identity.cgroups.iter().any(|path| self.connection.cgroup.starts_with(path))
                || self.connection.local.is_some_and(|it| is_in(it, &identity.cidrs))
        };
        let known =
            |names: &[String], spaces: &[String]| self.access.members(names, spaces).any(is);
        (group.identities.is_empty() || known(&group.identities, &[]))
            && (group.namespaces.is_empty() || known(&[], &group.namespaces))
            && !known(&group.not_identities, &group.not_namespaces)
    }
}

fn is_in(address: IpAddr, cidrs: &[Cidr]) -> bool {
    cidrs.iter().any(|cidr| {
        let length = u32::from(cidr.length);
        match (address, cidr.address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let rest = 32 - length;
                u64::from(a.to_bits()) >> rest == u64::from(b.to_bits()) >> rest
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                (a.to_bits() ^ b.to_bits()).checked_shr(128 - length).unwrap_or(0) == 0
            }
            _ => false,
        }
    })
}

fn is_among(port: u16, ranges: &[PortRange]) -> bool {
    ranges.iter().any(|range| (range.first..=range.last).contains(&port))
}

// The judge of the kernel programs.

struct Programs<'a> {
    cells: &'a [Cell],
    /// The ids of the cgroups a workload is in, from the root on.
    cgroups: Vec<u64>,
}

impl Cells for Programs<'_> {
    fn cell(&self, index: u32) -> Option<Cell> {
        self.cells.get(index as usize).copied()
    }
}

impl Policies for Programs<'_> {
    fn find(&self, section: Section, value: u64) -> u32 {
        section.find(self, value)
    }

    fn find6(&self, section: Section, upper: u64, lower: u64) -> u32 {
        section.find6(self, upper, lower)
    }

    fn matches(&self, vectors: &mut Vectors, word: u32) -> u64 {
        vectors.matches(self, word)
    }

    fn cgroup(&self, level: u32) -> u64 {
        self.cgroups.get(level as usize).copied().unwrap_or(0)
    }
}

/// Where the image begins: not at 0, so that an offset that was not made one shows.
const PLACE: usize = 3;

fn compiled(access: &Access, direction: Direction, connection: &Connection) -> Fate {
    let resolution = resolution();
    let number = |name: &str| {
        let place = access.policies.iter().position(|it| it.name == name).expect("one of them");
        u32::try_from(place).expect("few") + 100
    };
    let own = image(access, &resolution, number).expect("it fits");
    if own.is_empty() {
        return Fate::Passes;
    }
    let mut cells = vec![[0; 2]; PLACE];
    cells.extend(own);
    let above: Vec<&Path> = connection.cgroup.ancestors().collect();
    let ids = above.iter().rev().map(|path| resolution.0.get(*path).copied().unwrap_or(1));
    let (asked, endpoint) = (address(connection.asked.0), address(connection.endpoint.0));
    let request = Request {
        asked: &asked,
        endpoint: &endpoint,
        local: connection.local.map_or([0; 4], address),
        cgroup: ids.clone().next_back().expect("a path has at least its root"),
        asked_port_be: connection.asked.1.to_be(),
        endpoint_port_be: connection.endpoint.1.to_be(),
    };
    let programs = Programs { cells: &cells, cgroups: ids.collect() };
    let ruling = match direction {
        Direction::Outbound => judge(&programs, 3, &request),
        Direction::Inbound => judge_arrival(&programs, 3, &request),
    };
    let name = || match ruling.policy() {
        NO_POLICY => String::new(),
        number => access.policies[number as usize - 100].name.clone(),
    };
    match ruling.sentence() {
        sentence::ALLOWED => Fate::Passes,
        sentence::WOULD_DENY => Fate::WouldBeDenied,
        sentence::DENIED => Fate::Denied(vec![name()]),
        _ => panic!("the image contradicts itself"),
    }
}

fn address(address: IpAddr) -> [u32; 4] {
    let octets = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    };
    std::array::from_fn(|word| {
        u32::from_ne_bytes(octets[word * 4..word * 4 + 4].try_into().expect("four bytes"))
    })
}

/// The cgroups that exist. One that identities can name does not.
fn resolution() -> Resolution {
    let paths = ["/c/a", "/c/a/x", "/c/b", "/c/b/y/z"];
    Resolution(paths.iter().zip(7000..).map(|(path, id)| (PathBuf::from(path), id)).collect())
}

#[track_caller]
fn check(access: &Access, connection: &Connection) {
    check_in(access, Direction::Outbound, connection);
    // What arrives goes where it was going.
    let connection = &Connection { endpoint: connection.asked, ..connection.clone() };
    check_in(access, Direction::Inbound, connection);
}

#[track_caller]
fn check_in(access: &Access, direction: Direction, connection: &Connection) {
    let naive = Naive { access, direction, connection }.fate();
    let compiled = compiled(access, direction, connection);
    match (&naive, &compiled) {
        // The programs name one of those it may be.
        (Fate::Denied(all), Fate::Denied(one)) => {
            assert!(all.contains(&one[0]), "{one:?}: {all:?}")
        }
        _ => assert_eq!(naive, compiled, "{connection:?} of {access:?}"),
    }
}

// Few values of everything, so that they meet.

fn addresses() -> impl Strategy<Value = IpAddr> {
    let all = [
        "10.0.0.1",
        "10.0.0.9",
        "10.128.0.1",
        "0.0.0.1",
        "255.255.255.255",
        "fd00::1",
        "fd00::ffff",
        "fd00:1::1",
        "::2",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    ];
    prop::sample::select(all.map(|text| text.parse().expect("an address")).to_vec())
}

fn cidrs() -> impl Strategy<Value = Vec<Cidr>> {
    let all = [
        "10.0.0.0/8",
        "10.0.0.0/29",
        "10.0.0.1/32",
        "10.128.0.0/9",
        "0.0.0.0/0",
        "255.255.255.255/32",
        "fd00::/16",
        "fd00::/112",
        "fd00::1/128",
        "::/0",
        "ffff::/16",
        "0.0.0.0/1",
        "fd00::/64",
    ];
    let parse = |text: &str| {
        let (address, length) = text.split_once('/').expect("a range");
        let (address, length) = (address.parse().expect("one"), length.parse().expect("one"));
        Cidr { address, length }
    };
    prop::collection::vec(prop::sample::select(all.map(parse).to_vec()), 0..3)
}

fn ports() -> impl Strategy<Value = Vec<PortRange>> {
    let all = [(1, 1), (80, 80), (80, 90), (85, 65535), (65535, 65535), (1, 65535)];
    let ranges = all.map(|(first, last)| PortRange { first, last }).to_vec();
    prop::collection::vec(prop::sample::select(ranges), 0..3)
}

fn names(all: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(prop::sample::select(all).prop_map(str::to_owned), 0..2)
}

fn groups() -> impl Strategy<Value = Group> {
    let (identities, namespaces) = (&["i0", "i1", "i2"], &["n0", "n1"]);
    (names(identities), names(identities), names(namespaces), names(namespaces)).prop_map(
        |(identities, not_identities, namespaces, not_namespaces)| Group {
            identities,
            not_identities,
            namespaces,
            not_namespaces,
        },
    )
}

fn rules() -> impl Strategy<Value = Rule> {
    let from = (cidrs(), cidrs(), groups()).prop_map(|(cidrs, not_cidrs, group)| Side {
        cidrs,
        not_cidrs,
        group,
        ..Side::default()
    });
    let to = (cidrs(), cidrs(), ports(), ports(), groups()).prop_map(
        |(cidrs, not_cidrs, ports, not_ports, group)| Side {
            cidrs,
            not_cidrs,
            ports,
            not_ports,
            group,
        },
    );
    let or_nothing = |side| prop_oneof![Just(Side::default()), side];
    (or_nothing(from.boxed()), or_nothing(to.boxed())).prop_map(|(from, to)| Rule { from, to })
}

fn policies() -> impl Strategy<Value = AccessPolicy> {
    let action = prop_oneof![Just(Action::Allow), Just(Action::Deny)];
    let direction = prop_oneof![Just(Direction::Outbound), Just(Direction::Inbound)];
    let selector = prop_oneof![Just(Group::default()), groups()];
    (direction, action, any::<bool>(), selector, prop::collection::vec(rules(), 1..4)).prop_map(
        |(direction, action, dry_run, selector, rules)| AccessPolicy {
            name: String::new(),
            direction,
            action,
            dry_run,
            selector,
            rules,
        },
    )
}

fn accesses() -> impl Strategy<Value = Access> {
    let paths = ["/c/a", "/c/a/x", "/c/b/y/z", "/c/gone"].map(PathBuf::from).to_vec();
    let namespace = prop::option::of(prop::sample::select(&["n0", "n1"][..]));
    let cgroups = prop::collection::vec(prop::sample::select(paths), 0..3);
    let identity = (namespace, cgroups, cidrs()).prop_map(|(namespace, cgroups, cidrs)| Identity {
        name: String::new(),
        namespace: namespace.map(str::to_owned),
        cgroups,
        cidrs,
    });
    (prop::collection::vec(identity, 3), prop::collection::vec(policies(), 0..5)).prop_map(
        |(mut identities, mut policies)| {
            for (number, identity) in identities.iter_mut().enumerate() {
                identity.name = format!("i{number}");
            }
            for (number, policy) in policies.iter_mut().enumerate() {
                policy.name = format!("p{number}");
            }
            Access { identities, policies, cuts_existing: false }
        },
    )
}

fn connections() -> impl Strategy<Value = Connection> {
    let paths = ["/c", "/c/a", "/c/a/x", "/c/a/x/deep/er", "/c/b", "/c/b/y/z", "/d"];
    let port = prop::sample::select(vec![1_u16, 79, 80, 84, 90, 91, 65535]);
    let peer = (addresses(), port).boxed();
    let endpoint = prop::option::of(peer.clone());
    let cgroup = prop::sample::select(paths.map(PathBuf::from).to_vec());
    (peer, endpoint, prop::option::of(addresses()), cgroup).prop_map(
        |(asked, endpoint, local, cgroup)| Connection {
            asked,
            endpoint: endpoint.unwrap_or(asked),
            local,
            cgroup,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn the_programs_judge_as_the_configuration_says(
        access in accesses(),
        connections in prop::collection::vec(connections(), 8),
    ) {
        for connection in &connections {
            check(&access, connection);
        }
    }
}

fn access(text: &str) -> Access {
    let text = format!("services: []\n{text}");
    parse(&Sources::single("test.yaml", text)).expect("a valid configuration").access
}

fn to(address: &str, port: u16) -> Connection {
    let asked = (address.parse().expect("an address"), port);
    Connection { asked, endpoint: asked, local: None, cgroup: PathBuf::from("/c/a/x") }
}

#[track_caller]
fn expect(access: &Access, connection: &Connection, expected: &Fate) {
    check(access, connection);
    assert_eq!(compiled(access, Direction::Outbound, connection), *expected, "{connection:?}");
}

fn denied_by(name: &str) -> Fate {
    Fate::Denied(vec![name.to_owned()])
}

#[test]
fn a_denial_comes_before_what_is_allowed() {
    let both = access(
        "policies:
           - { name: allow-all, action: allow, rules: [{}] }
           - { name: no-db, action: deny, rules: [{ to: { cidrs: [10.0.0.9], ports: [5432] } }] }",
    );
    expect(&both, &to("10.0.0.9", 5432), &denied_by("no-db"));
    expect(&both, &to("10.0.0.9", 5433), &Fate::Passes);
    expect(&both, &to("10.0.0.8", 5432), &Fate::Passes);
}

#[test]
fn what_no_allowing_policy_matches_is_denied_of_the_workloads_it_is_about() {
    let allow = access(
        "identities: [{ name: a, cgroups: [/c/a] }]
policies: [{ name: only, action: allow, selector: { identities: [a] }, rules: [{ to: { ports: [80-90] } }] }]",
    );
    expect(&allow, &to("10.0.0.9", 85), &Fate::Passes);
    expect(&allow, &to("10.0.0.9", 91), &denied_by("only"));
    let other = Connection { cgroup: PathBuf::from("/c/b"), ..to("10.0.0.9", 91) };
    expect(&allow, &other, &Fate::Passes);
}

#[test]
fn a_rule_can_name_the_virtual_address_or_the_endpoint_and_rules_out_both() {
    let through =
        Connection { endpoint: (IpAddr::from([10, 0, 0, 1]), 8080), ..to("127.96.0.1", 80) };
    let deny = |to: &str| {
        access(&format!("policies: [{{ name: p, action: deny, rules: [{{ to: {to} }}] }}]"))
    };
    expect(&deny("{ cidrs: [127.96.0.1], ports: [80] }"), &through, &denied_by("p"));
    expect(&deny("{ cidrs: [10.0.0.1], ports: [8080] }"), &through, &denied_by("p"));
    expect(&deny("{ cidrs: [10.0.0.1], ports: [80] }"), &through, &Fate::Passes);
    expect(&deny("{ not_cidrs: [10.0.0.0/8] }"), &through, &Fate::Passes);
    expect(&deny("{ not_cidrs: [127.96.0.0/16] }"), &through, &Fate::Passes);
    expect(&deny("{ not_cidrs: [172.16.0.0/12] }"), &through, &denied_by("p"));
}

#[test]
fn a_policy_that_is_tried_out_decides_nothing() {
    let dry = access(
        "policies: [{ name: p, action: allow, dry_run: true, rules: [{ to: { ports: [1] } }] }]",
    );
    expect(&dry, &to("10.0.0.9", 2), &Fate::WouldBeDenied);
    expect(&dry, &to("10.0.0.9", 1), &Fate::Passes);
}

#[test]
fn many_rules_fit_and_too_many_are_refused_by_name() {
    let rule = |nth: usize| format!("{{ to: {{ cidrs: [10.0.{}.{}] }} }}", nth / 256, nth % 256);
    let rules: Vec<String> = (0..1000).map(rule).collect();
    let many = |keys: &str| {
        access(&format!(
            "identities: [{{ name: i, cgroups: [/c/a], cidrs: [10.9.0.0/16] }}]
policies: [{{ name: p, action: deny, {keys} rules: [{}] }}]",
            rules.join(", ")
        ))
    };
    let fits = many("");
    expect(&fits, &to("10.0.3.231", 1), &denied_by("p"));
    expect(&fits, &to("10.0.3.232", 1), &Fate::Passes);
    // Two terms for each.
    let error = image(&many("selector: { identities: [i] },"), &resolution(), |_| 0);
    let error = error.expect_err("too many").to_string();
    assert!(error.contains("come to 2000 terms"), "{error}");
}

#[test]
fn an_image_gives_its_policies_back() {
    let text = access(
        "policies:
           - { name: a, action: allow, dry_run: true, rules: [{}] }
           - { name: a-name-of-sixty-three-letters-is-the-longest-that-there-may-be0, action: deny, rules: [{}, {}] }",
    );
    let cells =
        image(&text, &Resolution::default(), |name| if name == "a" { 5 } else { 9 }).expect("fits");
    let records = records(|cell| cells[cell as usize]).expect("an image");
    let found: Vec<_> =
        records.iter().map(|it| (it.name.as_str(), it.number, it.flags, it.terms)).collect();
    assert_eq!(found[0], ("a", 5, 3, 2));
    assert_eq!((found[1].1, found[1].2, found[1].3), (9, 0, 2));
    assert_eq!(found[1].0, text.policies[1].name);
    assert_eq!(super::image::records(|_| [u64::MAX; 2]), None);
}
