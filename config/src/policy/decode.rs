//! The tree of one file to its identities and policies, each rule of a single value checked.

use super::value::{cgroup, cidr, label, ports};
use super::{AccessPolicy, Action, Direction, Group, Identity, Rule, Side};
use crate::diagnostic::Position;
use crate::fields::{Fields, list, scalar};
use crate::limit::{
    MAX_CIDRS_PER_LIST, MAX_IDENTITIES, MAX_NAMES_PER_LIST, MAX_POLICIES, MAX_PORTS_PER_LIST,
    MAX_RULES,
};
use crate::report::Report;
use crate::scalar::one_of;
use crate::tree::{Node, Scalar};

/// The identities and policies of one file, and where their parts stand.
#[derive(Default)]
pub(crate) struct Located {
    pub(crate) identities: Vec<(Identity, Place)>,
    pub(crate) policies: Vec<(AccessPolicy, Place)>,
    /// Every name that something refers to.
    pub(crate) references: Vec<Reference>,
}

/// Where something stands.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) file: usize,
    pub(crate) at: Position,
}

/// A name of an identity or a namespace.
pub(crate) struct Reference {
    pub(crate) name: String,
    pub(crate) is_namespace: bool,
    /// Whether it has to be known by addresses: nothing else is to be seen of the far side.
    pub(crate) is_remote: bool,
    pub(crate) place: Place,
}

/// The keys of a file.
pub(crate) const KEYS: [&str; 2] = ["identities", "policies"];
const IDENTITY_KEYS: [&str; 4] = ["name", "namespace", "cgroups", "cidrs"];
const POLICY_KEYS: [&str; 6] = ["name", "direction", "action", "dry_run", "selector", "rules"];
/// The key of a file that says what becomes of connections that have been let in before.
pub(crate) const INBOUND_KEY: &str = "inbound";
const INBOUND_KEYS: [&str; 1] = ["existing"];
const RULE_KEYS: [&str; 2] = ["from", "to"];
const GROUP_KEYS: [&str; 4] = ["identities", "not_identities", "namespaces", "not_namespaces"];
const FROM_KEYS: [&str; 6] =
    ["cidrs", "not_cidrs", "identities", "not_identities", "namespaces", "not_namespaces"];
const TO_KEYS: [&str; 8] = [
    "cidrs",
    "not_cidrs",
    "ports",
    "not_ports",
    "identities",
    "not_identities",
    "namespaces",
    "not_namespaces",
];

/// The identities and policies in the `fields` of a file, as far as they can be told.
pub(crate) fn access(fields: &Fields<'_>, file: usize, report: &mut Report<'_>) -> Located {
    let mut decoder = Decoder { file, located: Located::default(), report };
    if let Some(node) = fields.get(KEYS[0]) {
        for node in list(node, KEYS[0], MAX_IDENTITIES, decoder.report).unwrap_or_default() {
            decoder.identity(node);
        }
    }
    if let Some(node) = fields.get(KEYS[1]) {
        for node in list(node, KEYS[1], MAX_POLICIES, decoder.report).unwrap_or_default() {
            decoder.policy(node);
        }
    }
    decoder.located
}

/// Whether the value of [`INBOUND_KEY`] says that connections which exist are judged as well.
pub(crate) fn cuts_existing(node: &Node, report: &mut Report<'_>) -> Option<bool> {
    let fields = Fields::of(node, "`inbound`", &INBOUND_KEYS, report)?;
    let node = fields.require(INBOUND_KEYS[0], "`inbound`", report)?;
    let scalar = scalar(node, "`existing`", report)?;
    let word = one_of(scalar, "value of `existing`", &["keep", "cut"]);
    Some(report.accept(node.position, word)? == "cut")
}

struct Decoder<'a, 'r> {
    file: usize,
    located: Located,
    report: &'a mut Report<'r>,
}

impl Decoder<'_, '_> {
    fn identity(&mut self, node: &Node) -> Option<()> {
        const WHAT: &str = "the identity";
        let fields = Fields::of(node, WHAT, &IDENTITY_KEYS, self.report)?;
        let name = self.name(&fields, WHAT);
        let namespace = match fields.get("namespace") {
            Some(node) => Some(self.value(node, "namespace", |it| label(it, "namespace"))?),
            None => None,
        };
        let cgroups = self.items(&fields, "cgroups", MAX_NAMES_PER_LIST, "cgroup", cgroup);
        let cidrs = self.items(&fields, "cidrs", MAX_CIDRS_PER_LIST, "CIDR", cidr);
        if fields.get("cgroups").is_none() && fields.get("cidrs").is_none() {
            let message = format_args!("{WHAT} has neither `cgroups` nor `cidrs`: add one of them");
            self.report.at(node.position, message);
        }
        let (name, place) = name?;
        let namespace = namespace.map(str::to_owned);
        self.located.identities.push((Identity { name, namespace, cgroups, cidrs }, place));
        Some(())
    }

    fn policy(&mut self, node: &Node) -> Option<()> {
        const WHAT: &str = "the policy";
        let fields = Fields::of(node, WHAT, &POLICY_KEYS, self.report)?;
        let name = self.name(&fields, WHAT);
        let direction = match fields.get("direction") {
            Some(node) => {
                let known = ["outbound", "inbound"];
                match self.value(node, "direction", |it| one_of(it, "direction", &known))? {
                    "inbound" => Direction::Inbound,
                    _ => Direction::Outbound,
                }
            }
            None => Direction::default(),
        };
        let action = fields.require("action", WHAT, self.report);
        let action = action.and_then(|node| {
            self.value(node, "action", |it| one_of(it, "action", &["allow", "deny"]))
        });
        let dry_run = fields.get("dry_run").and_then(|node| {
            self.value(node, "`dry_run`", |it| one_of(it, "value of `dry_run`", &["true", "false"]))
        });
        let selector = match fields.get("selector") {
            Some(node) => Fields::of(node, "`selector`", &GROUP_KEYS, self.report)
                .map(|fields| self.group(&fields, false)),
            None => None,
        };
        let rules = fields.require("rules", WHAT, self.report);
        let listed = rules.and_then(|node| list(node, "rules", MAX_RULES, self.report));
        if let (Some([]), Some(node)) = (listed, rules) {
            let message = "`rules` is empty: write at least one; `- {}` matches every connection";
            self.report.at(node.position, message);
        }
        let rules: Vec<Rule> =
            listed.unwrap_or_default().iter().filter_map(|it| self.rule(it, direction)).collect();
        let action = if action? == "allow" { Action::Allow } else { Action::Deny };
        let (name, place) = name?;
        let (dry_run, selector) = (dry_run == Some("true"), selector.unwrap_or_default());
        let policy = AccessPolicy { name, direction, action, dry_run, selector, rules };
        self.located.policies.push((policy, place));
        Some(())
    }

    fn rule(&mut self, node: &Node, direction: Direction) -> Option<Rule> {
        let fields = Fields::of(node, "the rule", &RULE_KEYS, self.report)?;
        let mut side = |key: &str, keys: &[&str], is_remote| match fields.get(key) {
            Some(node) => self.side(node, key, keys, is_remote),
            None => Some(Side::default()),
        };
        let is_inbound = direction == Direction::Inbound;
        let from = side("from", &FROM_KEYS, is_inbound);
        let to = side("to", &TO_KEYS, !is_inbound);
        Some(Rule { from: from?, to: to? })
    }

    fn side(&mut self, node: &Node, key: &str, keys: &[&str], is_remote: bool) -> Option<Side> {
        let fields = Fields::of(node, &format!("`{key}`"), keys, self.report)?;
        Some(Side {
            cidrs: self.items(&fields, "cidrs", MAX_CIDRS_PER_LIST, "CIDR", cidr),
            not_cidrs: self.items(&fields, "not_cidrs", MAX_CIDRS_PER_LIST, "CIDR", cidr),
            ports: self.items(&fields, "ports", MAX_PORTS_PER_LIST, "port", ports),
            not_ports: self.items(&fields, "not_ports", MAX_PORTS_PER_LIST, "port", ports),
            group: self.group(&fields, is_remote),
        })
    }

    fn group(&mut self, fields: &Fields<'_>, is_remote: bool) -> Group {
        Group {
            identities: self.references(fields, "identities", false, is_remote),
            not_identities: self.references(fields, "not_identities", false, is_remote),
            namespaces: self.references(fields, "namespaces", true, is_remote),
            not_namespaces: self.references(fields, "not_namespaces", true, is_remote),
        }
    }

    fn references(
        &mut self,
        fields: &Fields<'_>,
        key: &str,
        is_namespace: bool,
        is_remote: bool,
    ) -> Vec<String> {
        let what = if is_namespace { "namespace" } else { "identity" };
        let mut names = Vec::new();
        for node in self.listed(fields, key, MAX_NAMES_PER_LIST) {
            let Some(name) = self.value(node, what, |it| label(it, what)) else { continue };
            let place = Place { file: self.file, at: node.position };
            let name = name.to_owned();
            names.push(name.clone());
            self.located.references.push(Reference { name, is_namespace, is_remote, place });
        }
        names
    }

    fn name(&mut self, fields: &Fields<'_>, what: &str) -> Option<(String, Place)> {
        let node = fields.require("name", what, self.report)?;
        let name = self.value(node, "name", |it| label(it, "name"))?;
        Some((name.to_owned(), Place { file: self.file, at: node.position }))
    }

    /// The values of the list `key`, if it is there; then it is not empty.
    fn items<T>(
        &mut self,
        fields: &Fields<'_>,
        key: &str,
        most: usize,
        what: &str,
        rule: impl Fn(&Scalar) -> Result<T, String>,
    ) -> Vec<T> {
        let nodes = self.listed(fields, key, most);
        nodes.iter().filter_map(|node| self.value(node, what, &rule)).collect()
    }

    fn listed<'t>(&mut self, fields: &Fields<'t>, key: &str, most: usize) -> &'t [Node] {
        let Some(node) = fields.get(key) else { return &[] };
        let items = list(node, key, most, self.report);
        if let Some([]) = items {
            let message =
                format_args!("`{key}` is empty: write at least one, or leave the key out");
            self.report.at(node.position, message);
        }
        items.unwrap_or_default()
    }

    fn value<'t, T>(
        &mut self,
        node: &'t Node,
        what: &str,
        rule: impl FnOnce(&'t Scalar) -> Result<T, String>,
    ) -> Option<T> {
        let scalar = scalar(node, &format!("the {what}"), self.report)?;
        self.report.accept(node.position, rule(scalar))
    }
}
