//! Endpoints that clients ask for themselves: the tables that lead there, and who counts an address that
//! several services have. Pure.
//!
//! A direct service has one more table for each port, beside those that endpoints are chosen from. It has
//! every address at which an endpoint answers, whether it is healthy, drains or has a weight or not: who asks
//! for an endpoint gets it. So nothing that happens to endpoints ever changes it, only a save does.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use holdfast_config::{Port, Service};
use holdfast_protocol::kernel::{
    EndpointSlot, FrontendKey, ServiceRecord, Settings, feature, policy,
};

use super::compile::{errno, kernel_address, protocol, record};
use super::spread::settings;
use super::tables::desired::{Desired, DesiredService, Table};

/// What is asked of every port of `service` that is direct, in the order of its ports.
pub fn compile(service: &Service) -> impl Iterator<Item = Arc<DesiredService>> + '_ {
    let ports = if service.is_direct { &service.ports[..] } else { &[] };
    ports.iter().map(move |port| {
        let table = table(service, port);
        let key = |slot: &EndpointSlot| FrontendKey {
            address: slot.address,
            port_be: slot.port_be,
            protocol: protocol(port.protocol),
            reserved: 0,
        };
        let keys = table.endpoints.iter().map(key).collect();
        Arc::new(DesiredService {
            record: record(service, port, ServiceRecord::DIRECT),
            keys,
            table,
        })
    })
}

/// The table that leads connections of `port` to the endpoint they ask for.
fn table(service: &Service, port: &Port) -> Table {
    let mut rows: Vec<(EndpointSlot, usize)> = Vec::new();
    for (index, endpoint) in service.endpoints.iter().enumerate() {
        rows.extend(endpoint.answers_at(port).map(|(address, port)| {
            let slot = EndpointSlot {
                address: kernel_address(address),
                port_be: port.get().to_be(),
                weight: endpoint.weight,
                threshold: 0,
                alias: 0,
                state: EndpointSlot::NO_STATE,
            };
            (slot, index)
        }));
    }
    rows.sort_unstable_by_key(|(slot, _)| EndpointSlot::rank(&slot.address, slot.port_be));
    let own = |index: usize| {
        let endpoint = &service.endpoints[index];
        let port = endpoint.port.unwrap_or(port.target_port);
        (kernel_address(endpoint.address), port.get().to_be())
    };
    let places: HashMap<_, u32> =
        (0..).zip(&rows).map(|(row, (slot, _))| ((slot.address, slot.port_be), row)).collect();
    let endpoints =
        rows.iter().map(|(slot, index)| EndpointSlot { alias: places[&own(*index)], ..*slot });
    let (features, settings) = settings(service);
    // There is nobody to stay with, or to be hashed to.
    let features = features & (feature::LIMITS | feature::RATE | feature::EVENTS);
    let settings = Settings { affinity_ms: 0, affinity_by: Settings::NONE.affinity_by, ..settings };
    Table {
        policy: policy::DIRECT,
        no_endpoint_errno: errno(service.no_endpoint),
        features,
        settings: (features != 0).then_some(settings),
        endpoints: endpoints.collect(),
        lookup: Vec::new(),
    }
}

/// Whether `service` is what leads to endpoints by their own addresses.
#[must_use]
pub const fn is_direct(service: &DesiredService) -> bool {
    service.record.family == ServiceRecord::DIRECT
}

/// What became of services that gave addresses away: before that, and after.
pub type Settled = Vec<(Arc<DesiredService>, Arc<DesiredService>)>;

/// `own`, with each address left to the first of its `direct` services that has it, whose connections it
/// is. The others keep their rows, so that it is one step when it becomes theirs. What was `former`ly settled
/// so is the same allocation again.
#[must_use]
pub fn settle(own: &Arc<Desired>, direct: &[usize], former: &Settled) -> (Arc<Desired>, Settled) {
    let known: HashMap<*const DesiredService, &Arc<DesiredService>> =
        former.iter().map(|(before, after)| (Arc::as_ptr(before), after)).collect();
    let (mut claimed, mut settled) = (HashSet::new(), Settled::new());
    let mut desired = Arc::clone(own);
    for at in direct {
        let before = &own.services[*at];
        let is_first = |key: &FrontendKey| claimed.insert(*key);
        let keys: Vec<FrontendKey> = before.keys.iter().copied().filter(is_first).collect();
        if keys.len() == before.keys.len() {
            continue;
        }
        let after = match known.get(&Arc::as_ptr(before)) {
            Some(after) if after.keys == keys => Arc::clone(after),
            _ => Arc::new(DesiredService { keys, ..DesiredService::clone(before) }),
        };
        settled.push((Arc::clone(before), Arc::clone(&after)));
        *Arc::make_mut(&mut desired).services.get_mut(*at) = after;
    }
    (desired, settled)
}

#[cfg(test)]
#[path = "direct_tests.rs"]
mod tests;
