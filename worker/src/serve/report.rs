//! What the supervisor is told about the configuration. Pure.

use std::collections::{HashMap, HashSet};

use holdfast_protocol::handover::{ConfigReport, ConfigState, MAX_TEXT_BYTES, Origin};
use holdfast_protocol::kernel::{Address, SERVICE_NAME_BYTES};
use holdfast_protocol::wire;

use super::compile::Summary;
use super::tables::observe::Observed;

/// `summary` is in force and is what is on disk.
#[must_use]
pub fn in_force(summary: &Summary) -> ConfigReport {
    kept(summary, Origin::Disk, ConfigState::InForce, "")
}

/// `summary` is in force and came from `origin`; what is on disk is not, because of `error`.
#[must_use]
pub fn kept(summary: &Summary, origin: Origin, state: ConfigState, error: &str) -> ConfigReport {
    ConfigReport {
        digest: summary.digest.clone(),
        state,
        error: wire::bounded(error, MAX_TEXT_BYTES),
        services: summary.services,
        endpoints: summary.endpoints,
        origin,
    }
}

/// What is programmed, when the configuration it came from is not known any more: it has no digest,
/// and an endpoint counts once for each address that gets connections of its service.
#[must_use]
pub fn programmed(observed: &Observed) -> Summary {
    let mut services: HashMap<[u8; SERVICE_NAME_BYTES], HashSet<Address>> = HashMap::new();
    for service in &observed.services {
        let endpoints = service.table.iter().flat_map(|table| &table.endpoints);
        let addresses = services.entry(service.record.service).or_default();
        addresses.extend(endpoints.map(|endpoint| endpoint.address));
    }
    let count = |items: usize| u32::try_from(items).unwrap_or(u32::MAX);
    Summary {
        digest: String::new(),
        services: count(services.len()),
        endpoints: count(services.values().map(HashSet::len).sum()),
    }
}
