//! Endpoints that are configured and get no connections: the tables do not have them, people want to
//! see them. Pure.

use std::collections::HashSet;

use holdfast_config::{Config, Endpoint};
use holdfast_protocol::kernel::{Address, EndpointSlot};

use super::compile::{kernel_address, padded, protocol};
use super::tables::desired::Desired;

/// An endpoint that no table has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aside {
    /// The service's name, as its record has it.
    pub service: [u8; 64],
    /// The port of the service, in network order, and its protocol.
    pub port: (u16, u8),
    /// The endpoint, as a table would have it.
    pub endpoint: EndpointSlot,
    /// Why it gets no connections.
    pub state: &'static str,
}

/// An endpoint that gets connections.
pub const ACTIVE: &str = "active";
/// One that is draining.
const DRAINING: &str = "draining";
/// One of weight 0.
const IDLE: &str = "idle";
/// One that would be used if those of another locality, priority or family were not.
const STANDBY: &str = "standby";

/// A service's name, its port, and an endpoint's address and port: what tells endpoints apart.
type Place = ([u8; 64], (u16, u8), Address, u16);

/// The endpoints of `config` that `desired`, which was made of it, does not have.
#[must_use]
pub fn aside(config: &Config, desired: &Desired) -> Vec<Aside> {
    let key =
        |service: &[u8; 64], port, address, endpoint_port| (*service, port, address, endpoint_port);
    let used: HashSet<Place> = desired
        .services
        .iter()
        .flat_map(|service| {
            let record = &service.record;
            let port = (record.port_be, record.protocol);
            let slots = service.table.endpoints.iter();
            slots.map(move |slot| key(&record.service, port, slot.address, slot.port_be))
        })
        .collect();
    let mut aside = Vec::new();
    for service in &config.services {
        let name = padded(&service.name);
        for port in &service.ports {
            let number = (port.port.get().to_be(), protocol(port.protocol));
            for endpoint in &service.endpoints {
                let address = kernel_address(endpoint.address);
                let port_be = endpoint.port.unwrap_or(port.target_port).get().to_be();
                if !used.contains(&key(&name, number, address, port_be)) {
                    let weight = endpoint.weight;
                    let (threshold, alias, state) = (0, 0, EndpointSlot::NO_STATE);
                    let slot = EndpointSlot { address, port_be, weight, threshold, alias, state };
                    let state = state_of(endpoint);
                    aside.push(Aside { service: name, port: number, endpoint: slot, state });
                }
            }
        }
    }
    aside
}

const fn state_of(endpoint: &Endpoint) -> &'static str {
    if endpoint.draining {
        DRAINING
    } else if endpoint.weight == 0 {
        IDLE
    } else {
        STANDBY
    }
}
