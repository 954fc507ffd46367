//! Policies as terms: conditions that all have to hold, on one value each.
//!
//! A workload can be told by its cgroup or by its address. A rule that it may be told by either way
//! becomes a term for each way.

use holdfast_config::{
    Access, AccessPolicy, Action, Cidr, Direction, Group, Identity, PortRange, Side,
};
use holdfast_protocol::kernel::rules::kind;

use super::resolve::Resolution;

/// Conditions that all have to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Term {
    /// One of [`kind`].
    pub kind: u32,
    /// Which policy it belongs to, by its place in the configuration.
    pub policy: usize,
    /// On the address of the far side.
    pub remote: Conditions<Cidr>,
    /// On the port that is connected to.
    pub ports: Conditions<PortRange>,
    /// On the workload's own address.
    pub local: Conditions<Cidr>,
    /// On the workload's cgroup, by id.
    pub cgroups: Conditions<u64>,
}

/// What a value has to be in, and what not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conditions<T> {
    /// It has to be in one of each of these lists.
    pub any: Vec<Vec<T>>,
    /// It has to be in none of these.
    pub none: Vec<T>,
}

impl<T> Default for Conditions<T> {
    fn default() -> Self {
        Self { any: Vec::new(), none: Vec::new() }
    }
}

impl<T> Conditions<T> {
    fn one_of(&mut self, list: Vec<T>) {
        if !list.is_empty() {
            self.any.push(list);
        }
    }
}

/// The terms of all policies that are about this direction.
#[must_use]
pub fn terms(access: &Access, resolution: &Resolution, direction: Direction) -> Vec<Term> {
    let expand = Expand { access, resolution };
    let policies = access.policies.iter().enumerate();
    let policies = policies.filter(|(_, policy)| policy.direction == direction);
    policies.flat_map(|(number, policy)| expand.policy(number, policy)).collect()
}

struct Expand<'a> {
    access: &'a Access,
    resolution: &'a Resolution,
}

impl Expand<'_> {
    fn policy(&self, number: usize, policy: &AccessPolicy) -> Vec<Term> {
        let (matching, selecting) = match (policy.action, policy.dry_run) {
            (Action::Deny, false) => (kind::DENY, None),
            (Action::Deny, true) => (kind::DRY_DENY, None),
            (Action::Allow, false) => (kind::ALLOW, Some(kind::SELECT)),
            (Action::Allow, true) => (kind::DRY_ALLOW, Some(kind::DRY_SELECT)),
        };
        let bare = |kind| Term { kind, policy: number, ..Term::default() };
        let mut terms = Vec::new();
        if let Some(kind) = selecting {
            terms.extend(self.workload(bare(kind), &policy.selector));
        }
        for rule in &policy.rules {
            let (near, far) = match policy.direction {
                Direction::Outbound => (&rule.from, &rule.to),
                Direction::Inbound => (&rule.to, &rule.from),
            };
            let mut term = bare(matching);
            self.far_side(&mut term, far);
            term.local.one_of(near.cidrs.clone());
            term.local.none.extend(&near.not_cidrs);
            // Who connects has no port that anything could be said about: these are of the one side that has.
            for side in [near, far] {
                term.ports.one_of(side.ports.clone());
                term.ports.none.extend(&side.not_ports);
            }
            for term in self.workload(term, &policy.selector) {
                terms.extend(self.workload(term, &near.group));
            }
        }
        terms
    }

    /// The far side is known by its address only.
    fn far_side(&self, term: &mut Term, side: &Side) {
        let Group { identities, not_identities, namespaces, not_namespaces } = &side.group;
        term.remote.one_of(side.cidrs.clone());
        for (names, spaces) in [(&identities[..], &[][..]), (&[][..], &namespaces[..])] {
            if !names.is_empty() || !spaces.is_empty() {
                term.remote.any.push(self.cidrs(names, spaces));
            }
        }
        term.remote.none.extend(&side.not_cidrs);
        term.remote.none.extend(self.cidrs(not_identities, not_namespaces));
    }

    /// `term` with the conditions of `group` on the workload, once for each way they can hold.
    fn workload(&self, mut term: Term, group: &Group) -> Vec<Term> {
        let Group { identities, not_identities, namespaces, not_namespaces } = group;
        term.local.none.extend(self.cidrs(not_identities, not_namespaces));
        term.cgroups.none.extend(self.cgroups(not_identities, not_namespaces));
        let mut terms = vec![term];
        for (names, spaces) in [(&identities[..], &[][..]), (&[][..], &namespaces[..])] {
            if names.is_empty() && spaces.is_empty() {
                continue;
            }
            let (cidrs, cgroups) = (self.cidrs(names, spaces), self.cgroups(names, spaces));
            terms = terms.into_iter().flat_map(|term| either(term, &cidrs, &cgroups)).collect();
        }
        terms
    }

    fn cidrs(&self, names: &[String], namespaces: &[String]) -> Vec<Cidr> {
        self.access.members(names, namespaces).flat_map(|it| it.cidrs.clone()).collect()
    }

    fn cgroups(&self, names: &[String], namespaces: &[String]) -> Vec<u64> {
        let ids = |identity: &Identity| -> Vec<u64> {
            identity
                .cgroups
                .iter()
                .filter_map(|path| self.resolution.0.get(path).copied())
                .collect()
        };
        self.access.members(names, namespaces).flat_map(ids).collect()
    }
}

/// `term` for a workload in one of `cidrs`, and for one in one of `cgroups`. Without either nobody is
/// meant: a list that nothing is in stays a condition.
fn either(term: Term, cidrs: &[Cidr], cgroups: &[u64]) -> Vec<Term> {
    let mut terms = Vec::new();
    if !cidrs.is_empty() {
        let mut by_address = term.clone();
        by_address.local.any.push(cidrs.to_vec());
        terms.push(by_address);
    }
    if !cgroups.is_empty() || cidrs.is_empty() {
        let mut by_cgroup = term;
        by_cgroup.cgroups.any.push(cgroups.to_vec());
        terms.push(by_cgroup);
    }
    terms
}
