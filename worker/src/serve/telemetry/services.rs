//! The metrics of each service, read from the maps.

use std::collections::HashMap;

use holdfast_protocol::kernel::{ServiceCounters, ServiceRecord};

use super::family::{Family, Kind, labels};
use super::sample::Counted;
use super::system::Fill;
use crate::serve::tables::desired::{name, protocol};
use crate::serve::tables::maps::plus;

/// The labels of every family here.
const LABELS: &[&str] = &["service", "port_name", "protocol"];

/// A family with a sample for each port of each service.
#[derive(Clone, Copy, Debug)]
pub struct OfServices {
    /// The family.
    pub family: Family,
    /// The value of one port of one service.
    pub value: fn(&Row) -> u64,
}

/// Every family of services, in the order they are written.
pub const FAMILIES: &[OfServices] = &[
    counter(
        "holdfast_service_connections_total",
        "Connections sent to an endpoint of the service.",
        |row| row.counters.connections,
    ),
    counter(
        "holdfast_service_connections_refused_total",
        "Connections refused because the service has no endpoint that the socket can reach.",
        |row| row.counters.refused,
    ),
    counter(
        "holdfast_service_connections_unsettled_total",
        "Connections refused with EAGAIN because every look found the service being changed.",
        |row| row.counters.unsettled,
    ),
    counter(
        "holdfast_service_lookup_retries_total",
        "Times a program looked again because the service was changed while it looked.",
        |row| row.counters.retries,
    ),
    gauge(
        "holdfast_service_endpoints",
        "Endpoints of the service that get new connections.",
        |row| row.endpoints,
    ),
    gauge(
        "holdfast_service_endpoints_unhealthy",
        "Endpoints of the service that health checks keep from new connections.",
        |row| row.unhealthy,
    ),
];

/// One port of a service, both address families together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// As they stand behind a family's name.
    pub labels: String,
    /// The most that one of its address families has: both may use the same endpoints.
    pub endpoints: u64,
    /// Of both families together.
    pub unhealthy: u64,
    /// The sum of both.
    pub counters: ServiceCounters,
}

/// The rows, as far as the maps have been read.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    rows: Vec<Row>,
    places: HashMap<ServiceRecord, usize>,
    fill: Fill,
}

impl Rows {
    /// Adds what was `counted` in one turn.
    pub fn add(&mut self, counted: &[Counted]) {
        for one in counted {
            let port = ServiceRecord { family: 0, ..one.record };
            let rows = &mut self.rows;
            let at = *self.places.entry(port).or_insert_with(|| {
                let (labels, counters) = (labels_of(&port), ServiceCounters::default());
                rows.push(Row { labels, endpoints: 0, unhealthy: 0, counters });
                rows.len() - 1
            });
            let row = &mut self.rows[at];
            row.endpoints = row.endpoints.max(one.endpoints.into());
            // Both families say the same of the port.
            row.unhealthy = one.unhealthy.into();
            row.counters = plus(row.counters, &one.counters);
            self.fill.services += 1;
            self.fill.slots += u64::from(one.endpoints) + 1;
        }
    }

    /// In the order they were found.
    #[must_use]
    pub fn all(&self) -> &[Row] {
        &self.rows
    }

    /// What they take of the maps.
    #[must_use]
    pub const fn fill(&self) -> Fill {
        self.fill
    }
}

fn labels_of(record: &ServiceRecord) -> String {
    let (service, port_name) = (name(&record.service), name(&record.port_name));
    labels(&FAMILIES[0].family, &[&service, &port_name, protocol(record.protocol)])
}

const fn counter(name: &'static str, help: &'static str, value: fn(&Row) -> u64) -> OfServices {
    OfServices { family: Family { name, kind: Kind::Counter, labels: LABELS, help }, value }
}

const fn gauge(name: &'static str, help: &'static str, value: fn(&Row) -> u64) -> OfServices {
    OfServices { family: Family { name, kind: Kind::Gauge, labels: LABELS, help }, value }
}

#[cfg(test)]
mod tests {
    use holdfast_protocol::kernel::{PROTOCOL_TCP, PROTOCOL_UDP};

    use super::*;

    fn counted(service: &[u8], protocol: u8, family: u8, connections: u64) -> Counted {
        let mut record = ServiceRecord {
            service: [0; 64],
            port_name: [0; 16],
            port_be: 80_u16.to_be(),
            protocol,
            family,
            reserved: 0,
        };
        record.service[..service.len()].copy_from_slice(service);
        record.port_name[..4].copy_from_slice(b"http");
        let counters = ServiceCounters { connections, refused: 1, ..ServiceCounters::default() };
        Counted { record, endpoints: u32::from(family), unhealthy: 1, counters }
    }

    #[test]
    fn both_families_of_a_port_are_one_row() {
        let mut found = Rows::default();
        found.add(&[counted(b"web", PROTOCOL_TCP, 4, 3), counted(b"dns", PROTOCOL_UDP, 4, 7)]);
        found.add(&[counted(b"web", PROTOCOL_TCP, 6, 5)]);
        assert_eq!(found.fill(), Fill { services: 3, slots: 4 + 4 + 6 + 3 });
        let rows = found.all();
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0].labels, r#"{service="web",port_name="http",protocol="tcp"}"#);
        assert_eq!((rows[0].counters.connections, rows[0].counters.refused), (8, 2));
        assert_eq!((rows[0].endpoints, rows[0].unhealthy), (6, 1));
        assert_eq!(rows[1].labels, r#"{service="dns",port_name="http",protocol="udp"}"#);
    }
}
