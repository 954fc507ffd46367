//! Endpoints that are configured and get no connections: the tables do not have them, people want to
//! see them. Pure.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use holdfast_config::{Endpoint, Port, Service};
use holdfast_protocol::kernel::EndpointSlot;

use super::compile::{kernel_address, padded, protocol};
use super::tables::desired::DesiredService;

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
    /// How long after it began to drain its connections are closed; `None` for never.
    pub close_after: Option<Duration>,
}

/// An endpoint that gets connections.
pub const ACTIVE: &str = "active";
/// One that is draining.
const DRAINING: &str = "draining";
/// One of weight 0.
const IDLE: &str = "idle";
/// One that would be used if those of another locality, priority or family were not.
pub const STANDBY: &str = "standby";

/// The endpoints of `service` that `own`, what was made of it, does not have.
#[must_use]
pub fn aside(service: &Service, own: &[Arc<DesiredService>]) -> Vec<Aside> {
    let mut used = HashSet::new();
    for own in own {
        let port = (own.record.port_be, own.record.protocol);
        let slots = own.table.endpoints.iter();
        used.extend(slots.map(|slot| (port, slot.address, slot.port_be)));
    }
    let name = padded(&service.name);
    let mut aside = Vec::new();
    for port in &service.ports {
        let number = (port.port.get().to_be(), protocol(port.protocol));
        for endpoint in &service.endpoints {
            let slot = slot(endpoint, port);
            // Nobody chooses among the endpoints of a headless service: those that may be used are.
            if service.is_headless() && endpoint.is_usable() {
                continue;
            }
            if !used.contains(&(number, slot.address, slot.port_be)) {
                let state = state_of(endpoint);
                let drain = service.drain.filter(|_| endpoint.draining);
                let close_after = drain.map(|drain| drain.close_after);
                aside.push(Aside {
                    service: name,
                    port: number,
                    endpoint: slot,
                    state,
                    close_after,
                });
            }
        }
    }
    aside
}

/// `endpoint` as a table of `port` would have it.
fn slot(endpoint: &Endpoint, port: &Port) -> EndpointSlot {
    EndpointSlot {
        address: kernel_address(endpoint.address),
        port_be: endpoint.port.unwrap_or(port.target_port).get().to_be(),
        weight: endpoint.weight,
        threshold: 0,
        alias: 0,
        state: EndpointSlot::NO_STATE,
    }
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

#[cfg(test)]
mod tests {
    use holdfast_config::Sources;

    use super::*;
    use crate::serve::compile::compile_sources;

    #[test]
    fn each_endpoint_that_no_table_has_is_listed_with_the_reason() {
        let text = "services:
- { name: whole, addresses: [127.96.0.1], ports: [{ name: p, port: 1 }], endpoints: [{ address: 127.0.0.1 }] }
- name: a
  addresses: [127.96.0.2, 'fd96::2']
  ports: [{ name: p, port: 1, target_port: 7 }, { name: q, port: 2 }]
  load_balancing: { locality: { mode: failover } }
  endpoints:
  - { address: 127.0.0.1, priority: 0 }
  - { address: 127.0.0.2, priority: 0, draining: true, weight: 0 }
  - { address: 127.0.0.3, priority: 0, weight: 0 }
  - { address: 127.0.0.4, priority: 0 }
  - { address: 127.0.0.5, priority: 0 }
  - { address: 127.0.0.6, priority: 0 }
  - { address: 127.0.0.7, priority: 0 }
  - { address: 127.0.0.8, priority: 1 }
";
        let sources = Sources::single("test.yaml", text);
        let aside = compile_sources(&sources).expect("a valid configuration").aside;
        let seen = |it: &Aside| {
            let host = it.endpoint.address[3].to_ne_bytes()[3];
            (u16::from_be(it.port.0), host, u16::from_be(it.endpoint.port_be), it.state)
        };
        let listed: Vec<_> = aside.iter().map(seen).collect();
        assert!(aside.iter().all(|it| it.close_after.is_none()));
        let of = |port, to| [(port, 2, to, DRAINING), (port, 3, to, IDLE), (port, 8, to, STANDBY)];
        assert_eq!(listed, [of(1, 7), of(2, 2)].concat());
    }

    #[test]
    fn only_what_drains_in_a_service_that_says_when_is_closed() {
        let text = "services:
- name: a
  addresses: [127.96.0.2]
  ports: [{ name: p, port: 1 }]
  drain: { close_after: 30s }
  endpoints: [{ address: 127.0.0.1 }, { address: 127.0.0.2, draining: true },
              { address: 127.0.0.3, weight: 0 }]
";
        let sources = Sources::single("test.yaml", text);
        let aside = compile_sources(&sources).expect("a valid configuration").aside;
        let seen: Vec<_> = aside.iter().map(|it| (it.state, it.close_after)).collect();
        assert_eq!(seen, [(DRAINING, Some(Duration::from_secs(30))), (IDLE, None)]);
    }
}
