//! What `load_balancing` says beside the policy, and how it is decoded.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::diagnostic::Position;
use crate::fields::{Fields, scalar};
use crate::locality::{self, LocalityMode};
use crate::model::Policy;
use crate::report::Report;
use crate::scalar::{duration, whole_number};
use crate::tree::Node;

/// What `load_balancing` says beside the policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Balancing {
    /// Under [`Policy::Maglev`]: whom the hash is taken of.
    pub hash_by: ClientBy,
    /// Under [`Policy::Maglev`]: one of [`TABLE_SIZES`], at least the number of endpoints.
    pub table_size: Option<u32>,
    /// What the places of endpoints mean; without it they mean nothing.
    pub locality: Option<LocalityMode>,
    /// Whether clients stay with their endpoints.
    pub affinity: Option<Affinity>,
}

/// Clients stay with their endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affinity {
    /// Who counts as one client.
    pub by: ClientBy,
    /// How long after its last connection: 1 second to 7 days.
    pub duration: Duration,
}

/// The shortest and the longest time a client can stay. Shorter ones are over before they can be seen;
/// the longest is far below what the kernel's field of 32 bits of milliseconds takes.
const STAYS: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(7 * 24 * 60 * 60);

/// How a service's clients are told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ClientBy {
    /// By the control group of the process that connects.
    #[default]
    Cgroup,
    /// By the network namespace of the socket.
    NetworkNamespace,
    /// By the address the socket is bound to; by its network namespace if it is bound to none.
    SourceAddress,
}

impl ClientBy {
    /// As the configuration writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cgroup => "cgroup",
            Self::NetworkNamespace => "network_namespace",
            Self::SourceAddress => "source_address",
        }
    }
}

/// Entries a lookup table can have: primes, so that consistent hashing can step through all of it, and
/// few of them, so that a service that grows seldom comes to a larger one, which moves most clients.
/// Four bytes of kernel memory each, for every port and family.
pub const TABLE_SIZES: [u32; 5] = [251, 1_021, 4_093, 16_381, 65_537];

/// Entries for each endpoint that keep every endpoint's share within 1 % of the fair one (D. E.
/// Eisenbud et al., "Maglev", NSDI 2016, section 3.4).
const ENTRIES_PER_ENDPOINT: usize = 100;

impl Balancing {
    /// Entries of the lookup table of a service that lists `endpoints` endpoints: what is configured,
    /// or the smallest size with 100 entries for each of them, or the largest.
    #[must_use]
    pub fn table_size_for(&self, endpoints: usize) -> u32 {
        let wanted = endpoints.saturating_mul(ENTRIES_PER_ENDPOINT);
        let enough = |size: &u32| *size as usize >= wanted;
        let [.., largest] = TABLE_SIZES;
        self.table_size.or_else(|| TABLE_SIZES.into_iter().find(enough)).unwrap_or(largest)
    }
}

/// What `load_balancing` says, and where.
#[derive(Default)]
pub(crate) struct Decoded {
    pub(crate) policy: Policy,
    pub(crate) balancing: Balancing,
    pub(crate) positions: Positions,
}

/// Where the parts of `load_balancing` stand that are checked against others.
#[derive(Default)]
pub(crate) struct Positions {
    pub(crate) table_size: Option<Position>,
    pub(crate) locality: Option<Position>,
}

const KEYS: [&str; 5] = ["policy", "hash_by", "table_size", "locality", "affinity"];
const AFFINITY_KEYS: [&str; 2] = ["by", "for"];

/// What `load_balancing` at `node` says; what is wrong with it is reported.
pub(crate) fn decode(node: &Node, report: &mut Report<'_>) -> Decoded {
    let Some(fields) = Fields::of(node, "`load_balancing`", &KEYS, report) else {
        return Decoded::default();
    };
    let all = [
        Policy::Random,
        Policy::Weighted,
        Policy::RoundRobin,
        Policy::Maglev,
        Policy::LeastConnections,
    ];
    let named = all.map(|policy| (policy.as_str(), policy));
    let policy =
        fields.get("policy").map(|node| crate::decode::choice(node, "policy", &named, report));
    for key in ["hash_by", "table_size"] {
        // Nothing is said about a policy that is unknown.
        let other = policy.unwrap_or(Some(Policy::default())).filter(|it| *it != Policy::Maglev);
        if let (Some(node), Some(policy)) = (fields.get(key), other) {
            let message = format_args!(
                "`{key}` belongs to `policy: maglev`, and the policy is `{policy}`: remove it, or \
                 write `policy: maglev`"
            );
            report.at(node.position, message);
        }
    }
    let hash_by = fields.get("hash_by").and_then(|node| client_by(node, "`hash_by`", report));
    let table_size = fields.get("table_size").and_then(|node| table_size(node, report));
    let locality = fields.get("locality").and_then(|node| locality::mode(node, report));
    let affinity = fields.get("affinity").and_then(|node| affinity(node, report));
    Decoded {
        policy: policy.flatten().unwrap_or_default(),
        balancing: Balancing {
            hash_by: hash_by.unwrap_or_default(),
            table_size,
            locality,
            affinity,
        },
        positions: Positions {
            table_size: fields.get("table_size").map(|node| node.position),
            locality: fields.get("locality").map(|node| node.position),
        },
    }
}

fn affinity(node: &Node, report: &mut Report<'_>) -> Option<Affinity> {
    const WHAT: &str = "`affinity`";
    let fields = Fields::of(node, WHAT, &AFFINITY_KEYS, report)?;
    let by = fields.get("by").map(|node| client_by(node, "`by`", report));
    let stay = fields.require("for", WHAT, report)?;
    let text = scalar(stay, "the duration", report)?;
    let duration = report.accept(stay.position, duration(text, "duration", STAYS))?;
    Some(Affinity { by: by.unwrap_or(Some(ClientBy::default()))?, duration })
}

pub(crate) fn client_by(node: &Node, what: &str, report: &mut Report<'_>) -> Option<ClientBy> {
    let all = [ClientBy::Cgroup, ClientBy::NetworkNamespace, ClientBy::SourceAddress];
    crate::decode::choice(node, what, &all.map(|by| (by.as_str(), by)), report)
}

fn table_size(node: &Node, report: &mut Report<'_>) -> Option<u32> {
    let scalar = scalar(node, "the table size", report)?;
    let [smallest, .., largest] = TABLE_SIZES;
    let size = whole_number(scalar, "table size", smallest..=largest);
    let size = report.accept(node.position, size)?;
    if TABLE_SIZES.contains(&size) {
        return Some(size);
    }
    let sizes = TABLE_SIZES.map(|size| size.to_string()).join(", ");
    report.at(
        node.position,
        format_args!("the table size {size} is not possible: write one of {sizes}"),
    );
    None
}
