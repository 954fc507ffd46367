//! How the endpoints of one table are chosen: its policy, and what that policy is looked up in. Pure.

use std::num::NonZeroU32;

use holdfast_config::{
    ClientBy, ClientRate, Endpoint, Limits, Locality, LogEntries, LogEvent, Policy, Sample, Service,
};
use holdfast_protocol::kernel::event::kind;
use holdfast_protocol::kernel::{Settings, client, feature, policy};

use super::alias::{self, Row};
use super::locality::{self, Standing};
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
    /// Some of [`feature`].
    pub features: u8,
    /// What policy and features are told beside that.
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

/// The candidates that get connections to `service` from `node`, in their order: of those that
/// `is_healthy` says may get some.
#[must_use]
pub fn chosen<'a>(
    service: &Service,
    node: Option<&Locality>,
    candidates: &[&'a Endpoint],
    is_healthy: impl Fn(&Endpoint) -> bool,
) -> Vec<Chosen<'a>> {
    let healthy: Vec<bool> = candidates.iter().map(|endpoint| is_healthy(endpoint)).collect();
    let weight = |endpoint: &Endpoint| match service.policy {
        Policy::Random | Policy::RoundRobin => 1,
        Policy::Weighted | Policy::Maglev | Policy::LeastConnections => u64::from(endpoint.weight),
    };
    let shares = match service.balancing.locality {
        None => candidates
            .iter()
            .zip(&healthy)
            .map(|(endpoint, healthy)| if *healthy { weight(endpoint) } else { 0 })
            .collect(),
        Some(mode) => {
            let standing = |endpoint: &&Endpoint| Standing {
                priority: locality::priority(mode, node, endpoint.place.as_deref()),
                weight: weight(endpoint),
            };
            let standings: Vec<Standing> = candidates.iter().map(standing).collect();
            locality::shares(mode, &standings, &healthy)
        }
    };
    let chosen = candidates.iter().zip(shares).filter(|(_, share)| *share > 0);
    chosen.map(|(endpoint, share)| Chosen { endpoint, share }).collect()
}

/// How connections to `service` are spread over `chosen`.
#[must_use]
pub fn spread(service: &Service, chosen: &[Chosen<'_>]) -> Spread {
    let (features, settings) = settings(service);
    let full = |policy| Spread {
        policy,
        rows: (0..).take(chosen.len()).map(Row::full).collect(),
        lookup: Vec::new(),
        features,
        settings: (features != 0).then_some(settings),
    };
    let is_even = chosen.windows(2).all(|pair| pair[0].share == pair[1].share);
    match service.policy {
        Policy::Random if is_even => full(policy::RANDOM),
        Policy::RoundRobin => full(policy::ROUND_ROBIN),
        // Random is uneven when connections spill over from one priority to another.
        Policy::Random | Policy::Weighted => {
            let shares: Vec<u64> = chosen.iter().map(|it| it.share).collect();
            Spread { rows: alias::rows(&shares), ..full(policy::WEIGHTED) }
        }
        Policy::Maglev => Spread {
            lookup: lookup(service, chosen),
            settings: Some(Settings { hash_by: client(service.balancing.hash_by), ..settings }),
            ..full(policy::MAGLEV)
        },
        // The programs weigh what is live against the weight itself.
        Policy::LeastConnections => full(policy::LEAST_CONNECTIONS),
    }
}

/// Which features `service` uses, and what they are told.
pub(super) fn settings(service: &Service) -> (u8, Settings) {
    let mut features = 0;
    let mut settings = Settings::NONE;
    if let Some(affinity) = service.balancing.affinity {
        features |= feature::AFFINITY;
        settings.affinity_by = client(affinity.by);
        settings.affinity_ms =
            u32::try_from(affinity.duration.as_millis()).expect("it is at most 7 days");
    }
    let Limits { connections, pending, endpoint_connections, endpoint_pending, rate, client_rate } =
        service.limits;
    let bounds = [connections, pending, endpoint_connections, endpoint_pending];
    if bounds.iter().any(Option::is_some) {
        features |= feature::LIMITS;
        [settings.open, settings.pending, settings.endpoint_open, settings.endpoint_pending] =
            bounds.map(|bound| bound.map_or(0, NonZeroU32::get));
    }
    if let Some(rate) = rate {
        features |= feature::RATE;
        (settings.rate, settings.burst) = (rate.per_second.get(), rate.burst.get());
    }
    if let Some(ClientRate { rate, by }) = client_rate {
        features |= feature::RATE;
        settings.client_rate = rate.per_second.get();
        settings.client_burst = rate.burst.get();
        settings.rate_by = client(by);
    }
    if let Some(entries) = &service.access_log {
        features |= feature::EVENTS;
        let (sample, kinds) = logged(entries);
        (settings.sample, settings.logged) = (sample, kinds.into());
    }
    if service.drain.is_some() {
        features |= feature::DRAIN;
    }
    (features, settings)
}

/// What the programs are told of the access log: the share of connections, and the kinds of event.
#[must_use]
pub fn logged(entries: &LogEntries) -> (u32, u16) {
    let (part, whole) = (u64::from(entries.sample.0), u64::from(Sample::WHOLE.0));
    let sample = u32::try_from(u64::from(u32::MAX) * part / whole).expect("a part of the whole");
    let kinds = entries.events.iter().map(|event| match event {
        LogEvent::Closed => kind::CLOSED,
        LogEvent::Failed => kind::FAILED,
        LogEvent::Refused => kind::REFUSED,
        LogEvent::Denied => kind::DENIED,
        LogEvent::Limited => kind::LIMITED,
        LogEvent::Unsettled => kind::UNSETTLED,
        LogEvent::Flow => kind::FLOW,
        LogEvent::WouldDeny => kind::WOULD_DENY,
    });
    let kinds = kinds.fold(0, |kinds, kind| kinds | kind::bit(kind));
    (sample, if entries.sample == Sample::NONE { 0 } else { kinds })
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
