//! What a valid configuration says. Values of these types come out of [`parse`](crate::parse), and
//! keep every rule of the language; nothing here is serialised.

use std::fmt;
use std::net::IpAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;
use std::sync::Arc;

use crate::access_log::{AccessLog, LogEntries};
use crate::balancing::{Balancing, ClientBy};
use crate::drain::Drain;
use crate::health_check::HealthCheck;
use crate::list::List;
use crate::locality::{Locality, Place};
use crate::outlier::OutlierEjection;
use crate::policy::Access;

/// A whole configuration: all files together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Where the node is, if that is said.
    pub node: Option<Locality>,
    /// In the order of the files, and within a file in its own. Names are unique.
    pub services: List<Arc<Service>>,
    /// Which sockets are governed; all of them without it.
    pub enrolment: Option<Enrolment>,
    /// The access log, if there is one.
    pub access_log: Option<AccessLog>,
    /// Who may connect to what.
    pub access: Access,
}

/// Which sockets of the governed cgroup are governed: those that are in any of these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Enrolment {
    /// Directories of cgroups; those below them count too. Absolute, no duplicates.
    pub cgroups: Vec<PathBuf>,
    /// Files of network namespaces. Absolute, no duplicates.
    pub network_namespaces: Vec<PathBuf>,
}

/// A service: what clients connect to, and where their connections go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// A DNS label: 1 to 63 lower-case letters, digits and hyphens.
    pub name: String,
    /// The addresses clients connect to; at least one unless it is direct, no duplicates, none of them
    /// an IPv4-mapped IPv6 address.
    pub addresses: Vec<IpAddr>,
    /// The ports clients connect to; at least one, (port, protocol) and names unique.
    pub ports: Vec<Port>,
    /// Whether connections that clients make to its endpoints themselves are connections of the service.
    pub is_direct: bool,
    /// How an endpoint is chosen.
    pub policy: Policy,
    /// What else there is to that.
    pub balancing: Balancing,
    /// What a connection gets when there is no endpoint for it.
    pub no_endpoint: NoEndpoint,
    /// Bounds on what is open at once.
    pub limits: Limits,
    /// What the access log has of its connections, if that differs from what it has of others.
    pub access_log: Option<LogEntries>,
    /// How endpoints are checked; without it all of them count as healthy.
    pub health_check: Option<HealthCheck>,
    /// When endpoints are kept out because connections to them failed; without it never.
    pub outlier_ejection: Option<OutlierEjection>,
    /// When the connections of endpoints that drain are closed; without it never.
    pub drain: Option<Drain>,
    /// Where connections go. If there are any, and addresses, at least one has a weight above 0; and if the
    /// service has an IPv4 address, at least one of those is an IPv4 endpoint.
    pub endpoints: Vec<Endpoint>,
}

/// One port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// An IANA service name in lower case, unique in the service.
    pub name: String,
    /// The port clients connect to.
    pub port: NonZeroU16,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The port of endpoints that name none of their own.
    pub target_port: NonZeroU16,
}

/// One endpoint of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where connections go; never an IPv4-mapped IPv6 address.
    pub address: IpAddr,
    /// Its own port; without one it is the [`Port::target_port`] of each port.
    pub port: Option<NonZeroU16>,
    /// 0 to 10,000. An endpoint of weight 0 gets no new connections, whatever the policy.
    pub weight: u16,
    /// Whether it gets no new connections, and keeps those it has.
    pub draining: bool,
    /// Where it stands among the others, if that is said: rarely, so it takes no room if it is not.
    pub place: Option<Box<Place>>,
    /// Where else the same workload answers; only if the service is direct.
    pub aliases: Box<[Alias]>,
}

/// A further address of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alias {
    /// The address; never an IPv4-mapped IPv6 address.
    pub address: IpAddr,
    /// The port there; without one it is that of the endpoint.
    pub port: Option<NonZeroU16>,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

/// How an endpoint is chosen for a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Policy {
    /// Each endpoint of a weight above 0 with the same probability.
    #[default]
    Random,
    /// Each endpoint with a probability proportional to its weight.
    Weighted,
    /// One endpoint of a weight above 0 after the other.
    RoundRobin,
    /// The one that consistent hashing of the client gives, in proportion to its weight.
    Maglev,
    /// Of two endpoints that are drawn, the one with fewer connections for its weight.
    LeastConnections,
}

/// Bounds on what is open at once, for each port and address family of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Connections that are open or being opened.
    pub connections: Option<NonZeroU32>,
    /// Connections that are being opened.
    pub pending: Option<NonZeroU32>,
    /// Those of one endpoint that are open or being opened.
    pub endpoint_connections: Option<NonZeroU32>,
    /// Those of one endpoint that are being opened.
    pub endpoint_pending: Option<NonZeroU32>,
    /// Connections a second.
    pub rate: Option<Rate>,
    /// Those of one client.
    pub client_rate: Option<ClientRate>,
}

/// A bound on connections a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many a second.
    pub per_second: NonZeroU32,
    /// How many may come at once.
    pub burst: NonZeroU32,
}

/// A bound on connections a second that each client has for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientRate {
    /// The bound.
    pub rate: Rate,
    /// Who counts as one client.
    pub by: ClientBy,
}

/// What a connection to a service without a usable endpoint gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NoEndpoint {
    /// `ECONNREFUSED`: as if nobody listened.
    #[default]
    Refuse,
    /// `EHOSTUNREACH`: as if there were no way there.
    Unreachable,
    /// `EPERM`: as if a rule forbade it.
    Deny,
}

impl Service {
    /// The endpoints that can get the new connections to `frontend`, one of the service's addresses.
    ///
    /// An IPv4 socket reaches IPv4 endpoints only. An IPv6 socket uses the IPv6 ones, or, if none of
    /// them is usable, the IPv4 ones through their mapped form. Those that are not usable get none.
    pub fn endpoints_for(&self, frontend: IpAddr) -> impl Iterator<Item = &Endpoint> {
        self.candidates_for(frontend).filter(|endpoint| endpoint.is_usable())
    }

    /// The same with those that are not usable.
    pub fn candidates_for(&self, frontend: IpAddr) -> impl Iterator<Item = &Endpoint> {
        self.candidates_among(frontend, Endpoint::is_usable)
    }

    /// The same where `is_usable` says which ones are.
    pub fn candidates_among(
        &self,
        frontend: IpAddr,
        is_usable: impl Fn(&Endpoint) -> bool,
    ) -> impl Iterator<Item = &Endpoint> {
        let usable = |endpoint: &Endpoint| endpoint.address.is_ipv6() && is_usable(endpoint);
        let ipv6 = frontend.is_ipv6() && self.endpoints.iter().any(usable);
        self.endpoints.iter().filter(move |endpoint| endpoint.address.is_ipv6() == ipv6)
    }
}

impl Endpoint {
    /// Whether it may get new connections: it has a weight and is not draining.
    #[must_use]
    pub const fn is_usable(&self) -> bool {
        self.weight > 0 && !self.draining
    }
}

impl Protocol {
    /// As the configuration writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl Policy {
    /// As the configuration writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Weighted => "weighted",
            Self::RoundRobin => "round_robin",
            Self::Maglev => "maglev",
            Self::LeastConnections => "least_connections",
        }
    }
}

impl NoEndpoint {
    /// As the configuration writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Unreachable => "unreachable",
            Self::Deny => "deny",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for NoEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
