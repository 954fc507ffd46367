//! Access policies: who may connect to what. What a valid configuration says about it; `decode`
//! (with `value`) and `check` make it from the text.

pub(crate) mod check;
pub(crate) mod decode;
mod value;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

/// All of it, in the order of the files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// The workloads that policies can name. Names are unique.
    pub identities: Vec<Identity>,
    /// Names are unique.
    pub policies: Vec<AccessPolicy>,
    /// Whether what [arrives](Direction::Inbound) is judged also when it has been let in before.
    pub cuts_existing: bool,
}

/// A name for workloads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// A DNS label.
    pub name: String,
    /// A label that identities can have in common: a DNS label too.
    pub namespace: Option<String>,
    /// Every process in these cgroups and in those below them: absolute paths without `.` and `..`.
    /// At least one of these or of [`cidrs`](Self::cidrs).
    pub cgroups: Vec<PathBuf>,
    /// Whoever has an address in these.
    pub cidrs: Vec<Cidr>,
}

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessPolicy {
    /// A DNS label.
    pub name: String,
    /// Which connections of its workloads it is about.
    pub direction: Direction,
    /// What its rules do.
    pub action: Action,
    /// Whether it is tried out only: it counts what it would deny.
    pub dry_run: bool,
    /// The workloads it is about; without any condition all of them.
    pub selector: Group,
    /// At least one. The policy matches a connection that one of them matches.
    pub rules: Vec<Rule>,
}

/// Which connections of a workload a policy is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Those that it makes: the workload is the `from` of its rules.
    #[default]
    Outbound,
    /// Those that are made to it: the workload is the `to` of its rules.
    Inbound,
}

/// What the rules of a policy do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A connection of its workloads that no allowing policy matches is denied.
    Allow,
    /// A connection that it matches is denied, whatever else matches.
    Deny,
}

/// A rule: it matches what both sides match. A side without any condition matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Who connects. It has no ports.
    pub from: Side,
    /// What to.
    pub to: Side,
}

/// Conditions on one side of a connection, all of which have to hold. An empty list is no condition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Side {
    /// Its address is in one of these.
    pub cidrs: Vec<Cidr>,
    /// Its address is in none of these.
    pub not_cidrs: Vec<Cidr>,
    /// Its port is in one of these.
    pub ports: Vec<PortRange>,
    /// Its port is in none of these.
    pub not_ports: Vec<PortRange>,
    /// Which workload it is.
    pub group: Group,
}

/// Conditions on a workload, all of which have to hold. An empty list is no condition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// It is one of these.
    pub identities: Vec<String>,
    /// It is none of these.
    pub not_identities: Vec<String>,
    /// It is one of an identity in one of these namespaces.
    pub namespaces: Vec<String>,
    /// It is none of any identity in these namespaces.
    pub not_namespaces: Vec<String>,
}

/// A range of addresses: all that have the first `length` bits of `address`, whose other bits are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    /// Its first address; never an IPv4-mapped IPv6 address.
    pub address: IpAddr,
    /// 0 to 32, or 0 to 128 for IPv6.
    pub length: u8,
}

/// Ports from the first to the last, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortRange {
    /// At least 1.
    pub first: u16,
    /// At least `first`.
    pub last: u16,
}

impl Access {
    /// The identities that `names` and `namespaces` mean.
    pub fn members<'a>(
        &'a self,
        names: &'a [String],
        namespaces: &'a [String],
    ) -> impl Iterator<Item = &'a Identity> {
        self.identities.iter().filter(move |identity| {
            let of_namespace = |name: &String| namespaces.contains(name);
            names.contains(&identity.name) || identity.namespace.as_ref().is_some_and(of_namespace)
        })
    }
}

impl Direction {
    /// As the configuration writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }
}

impl Action {
    /// As the configuration writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}
