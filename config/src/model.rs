//! What a valid configuration says. Values of these types come out of [`parse`](crate::parse), and
//! keep every rule of the language; nothing here is serialised.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;

use crate::policy::Access;

/// A whole configuration: all files together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// In the order of the files, and within a file in its own. Names are unique.
    pub services: Vec<Service>,
    /// Who may connect to what.
    pub access: Access,
}

/// A service: what clients connect to, and where their connections go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// A DNS label: 1 to 63 lower-case letters, digits and hyphens.
    pub name: String,
    /// The addresses clients connect to; at least one, no duplicates, none of them an
    /// IPv4-mapped IPv6 address.
    pub addresses: Vec<IpAddr>,
    /// The ports clients connect to; at least one, (port, protocol) and names unique.
    pub ports: Vec<Port>,
    /// How an endpoint is chosen.
    pub policy: Policy,
    /// What a connection gets when there is no endpoint for it.
    pub no_endpoint: NoEndpoint,
    /// Where connections go. If there are any, at least one has a weight above 0; and if the
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
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP, on connected sockets.
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
    /// The endpoints that get the new connections to `frontend`, one of the service's addresses.
    ///
    /// An IPv4 socket reaches IPv4 endpoints only. An IPv6 socket uses the IPv6 ones, or, if there
    /// is none, the IPv4 ones through their mapped form. Those of weight 0 get none.
    pub fn endpoints_for(&self, frontend: IpAddr) -> impl Iterator<Item = &Endpoint> {
        let ipv6 = frontend.is_ipv6() && self.usable().any(|endpoint| endpoint.address.is_ipv6());
        self.usable().filter(move |endpoint| endpoint.address.is_ipv6() == ipv6)
    }

    fn usable(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.iter().filter(|endpoint| endpoint.weight > 0)
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
