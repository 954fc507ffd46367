//! How the endpoints of one table are chosen: its policy, and what that policy is looked up in. Pure.

use holdfast_config::{ClientBy, Endpoint, Policy, Service};
use holdfast_protocol::kernel::{Settings, client, policy};

use super::alias::{self, Row};
use super::maglev::{self, Member};

/// What a table says about the choice among its endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spread {
    /// One of [`policy`].
    pub policy: u8,
    /// A row of the alias table for each endpoint.
    pub rows: Vec<Row>,
    /// Indices of endpoints, under [`policy::MAGLEV`].
    pub lookup: Vec<u32>,
    /// What the policy is told beside that.
    pub settings: Option<Settings>,
}

/// An endpoint that gets connections.
#[derive(Clone, Copy, Debug)]
pub struct Chosen<'a> {
    /// As configured.
    pub endpoint: &'a Endpoint,
    /// Its part of all connections, in units of which the others have theirs; above 0.
    pub share: u64,
}

/// How connections to `service` are spread over `chosen`.
#[must_use]
pub fn spread(service: &Service, chosen: &[Chosen<'_>]) -> Spread {
    let full = |policy| Spread {
        policy,
        rows: (0..).take(chosen.len()).map(Row::full).collect(),
        lookup: Vec::new(),
        settings: None,
    };
    match service.policy {
        Policy::Random => full(policy::RANDOM),
        Policy::RoundRobin => full(policy::ROUND_ROBIN),
        Policy::Weighted => {
            let shares: Vec<u64> = chosen.iter().map(|it| it.share).collect();
            Spread { rows: alias::rows(&shares), ..full(policy::WEIGHTED) }
        }
        Policy::Maglev => Spread {
            lookup: lookup(service, chosen),
            settings: Some(Settings {
                hash_by: client(service.balancing.hash_by),
                ..Settings::NONE
            }),
            ..full(policy::MAGLEV)
        },
    }
}

/// The number of a way to tell clients apart.
#[must_use]
pub const fn client(by: ClientBy) -> u8 {
    match by {
        ClientBy::Cgroup => client::CGROUP,
        ClientBy::NetworkNamespace => client::NETWORK_NAMESPACE,
        ClientBy::SourceAddress => client::SOURCE,
    }
}

/// The lookup table of consistent hashing. Its size follows the endpoints that are listed and not those
/// that are in use, so that none of these changes the size by going out of use.
fn lookup(service: &Service, chosen: &[Chosen<'_>]) -> Vec<u32> {
    let member = |it: &Chosen<'_>| Member {
        address: it.endpoint.address,
        port: it.endpoint.port.map_or(0, std::num::NonZeroU16::get),
        weight: it.share,
    };
    let members: Vec<Member> = chosen.iter().map(member).collect();
    maglev::table(&members, service.balancing.table_size_for(service.endpoints.len()))
}
