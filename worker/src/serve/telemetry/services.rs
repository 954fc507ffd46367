//! The metrics of each service, read from the maps.

use std::borrow::Cow;
use std::collections::HashMap;

use holdfast_protocol::kernel::endpoint::Live;
use holdfast_protocol::kernel::traffic::{
    HANDSHAKE_BUCKETS, HANDSHAKE_FIRST_NS, LIFETIME_BUCKETS, LIFETIME_FIRST_NS, Traffic,
};
use holdfast_protocol::kernel::{ServiceCounters, ServiceRecord};

use super::family::{Family, Kind, Nanoseconds, labels};
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
    /// What it says of one port of one service.
    pub value: Value,
}

/// What a family says of one port of one service.
#[derive(Clone, Copy, Debug)]
pub enum Value {
    /// A number.
    Number(fn(&Row) -> u64),
    /// A histogram of its connections; of a port that never had one nothing.
    Histogram(fn(&Traffic) -> Histogram<'_>),
}

/// Times, by how long they were.
#[derive(Clone, Copy, Debug)]
pub struct Histogram<'a> {
    /// How many were in each bucket.
    pub counts: &'a [u64],
    /// Nanoseconds that the first bucket goes up to.
    pub first_ns: u64,
    /// By how many powers of two each of the others goes up further; the last one holds the rest.
    pub shift: usize,
    /// Nanoseconds of all together.
    pub sum_ns: u64,
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
        "holdfast_service_connections_denied_total",
        "Connections that an access policy denied.",
        |row| row.counters.denied,
    ),
    counter(
        "holdfast_service_connections_limited_total",
        "Connections refused because a limit of the service was reached.",
        |row| row.counters.limited,
    ),
    counter(
        "holdfast_service_connections_unsettled_total",
        "Connections refused with EAGAIN because every look found the service being changed.",
        |row| row.counters.unsettled,
    ),
    counter(
        "holdfast_service_connections_opened_total",
        "Connections that were established; of UDP sockets, those that were connected.",
        |row| row.traffic.established,
    ),
    counter(
        "holdfast_service_connections_failed_total",
        "Connections that were sent to an endpoint and never established.",
        |row| row.traffic.failed,
    ),
    counter(
        "holdfast_service_connections_closed_total",
        "Connections that were established and have ended.",
        |row| row.traffic.closed,
    ),
    counter(
        "holdfast_service_connections_drained_total",
        "Connections that were closed because their endpoint had drained for the time its service gives it.",
        |row| row.traffic.drained,
    ),
    gauge("holdfast_service_connections_open", "Connections that are established now.", |row| {
        Live(row.traffic.live).open().into()
    }),
    gauge(
        "holdfast_service_connections_pending",
        "Connections that are being established now.",
        |row| Live(row.traffic.live).pending().into(),
    ),
    counter(
        "holdfast_service_sent_bytes_total",
        "Bytes that closed TCP connections have sent to endpoints, as far as acknowledged.",
        |row| row.traffic.sent,
    ),
    counter(
        "holdfast_service_received_bytes_total",
        "Bytes that closed TCP connections have received from endpoints.",
        |row| row.traffic.received,
    ),
    counter(
        "holdfast_service_retransmits_total",
        "TCP segments that were sent again by connections that have ended.",
        |row| row.traffic.retransmits,
    ),
    counter(
        "holdfast_service_lookup_retries_total",
        "Times a program looked again because the service was changed while it looked.",
        |row| row.counters.retries,
    ),
    gauge(
        "holdfast_service_endpoints",
        "Endpoints of the service that get new connections.",
        Row::endpoints,
    ),
    gauge(
        "holdfast_service_endpoints_unhealthy",
        "Endpoints of the service that are kept from new connections because they are not healthy.",
        |row| row.unhealthy,
    ),
    gauge(
        "holdfast_service_endpoints_ejected",
        "Endpoints of the service that are kept from new connections because connections to them failed.",
        |row| row.ejected,
    ),
    histogram(
        "holdfast_service_handshake_duration_seconds",
        "How long TCP connections took to be established.",
        |traffic| Histogram {
            counts: &traffic.handshakes,
            first_ns: HANDSHAKE_FIRST_NS,
            shift: 1,
            sum_ns: traffic.handshake_ns,
        },
    ),
    histogram(
        "holdfast_service_connection_duration_seconds",
        "How long connections that have ended were established.",
        |traffic| Histogram {
            counts: &traffic.lifetimes,
            first_ns: LIFETIME_FIRST_NS,
            shift: 2,
            sum_ns: traffic.lifetime_ns,
        },
    ),
];

/// One port of a service, both address families together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// As they stand behind a family's name.
    pub labels: String,
    /// The most that one of its address families has to choose from: both may use the same endpoints. `None`
    /// of a headless service.
    pub chosen: Option<u64>,
    /// Those that may be asked for by their own addresses.
    pub direct: u64,
    /// Of both families together.
    pub unhealthy: u64,
    /// Likewise.
    pub ejected: u64,
    /// The sum of both.
    pub counters: ServiceCounters,
    /// Likewise.
    pub traffic: Cow<'static, Traffic>,
}

impl Row {
    /// How many endpoints get connections.
    fn endpoints(&self) -> u64 {
        self.chosen.unwrap_or(self.direct)
    }
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
                let traffic = Cow::Borrowed(&NO_TRAFFIC);
                rows.push(Row {
                    labels,
                    chosen: None,
                    direct: 0,
                    unhealthy: 0,
                    ejected: 0,
                    counters,
                    traffic,
                });
                rows.len() - 1
            });
            let row = &mut self.rows[at];
            match one.record.family {
                ServiceRecord::DIRECT => row.direct = one.endpoints.into(),
                _ => row.chosen = row.chosen.max(Some(one.endpoints.into())),
            }
            // Both families say the same of the port.
            row.unhealthy = one.unhealthy.into();
            row.ejected = one.ejected.into();
            row.counters = plus(row.counters, &one.counters);
            if let Some(traffic) = &one.traffic {
                add(row.traffic.to_mut(), traffic);
            }
            self.fill.services += 1;
            self.fill.slots += u64::from(one.endpoints) + u64::from(one.aliases) + 1;
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

/// What a service has that never had a connection.
static NO_TRAFFIC: Traffic = Traffic {
    live: 0,
    established: 0,
    closed: 0,
    failed: 0,
    sent: 0,
    received: 0,
    retransmits: 0,
    handshake_ns: 0,
    lifetime_ns: 0,
    handshakes: [0; HANDSHAKE_BUCKETS],
    lifetimes: [0; LIFETIME_BUCKETS],
    drained: 0,
    reserved: [0; 2],
};

fn add(sum: &mut Traffic, other: &Traffic) {
    let pairs = [
        (&mut sum.live, other.live),
        (&mut sum.established, other.established),
        (&mut sum.closed, other.closed),
        (&mut sum.failed, other.failed),
        (&mut sum.sent, other.sent),
        (&mut sum.received, other.received),
        (&mut sum.retransmits, other.retransmits),
        (&mut sum.handshake_ns, other.handshake_ns),
        (&mut sum.lifetime_ns, other.lifetime_ns),
        (&mut sum.drained, other.drained),
    ];
    let handshakes = sum.handshakes.iter_mut().zip(other.handshakes);
    let lifetimes = sum.lifetimes.iter_mut().zip(other.lifetimes);
    for (sum, other) in pairs.into_iter().chain(handshakes).chain(lifetimes) {
        *sum = sum.wrapping_add(other);
    }
}

impl Histogram<'_> {
    /// What each bucket but the last goes up to.
    pub fn bounds(self) -> impl Iterator<Item = Nanoseconds> {
        (0..self.counts.len() - 1).map(move |at| Nanoseconds(self.first_ns << (at * self.shift)))
    }
}

fn labels_of(record: &ServiceRecord) -> String {
    let (service, port_name) = (name(&record.service), name(&record.port_name));
    labels(&FAMILIES[0].family, &[&service, &port_name, protocol(record.protocol)])
}

const fn counter(name: &'static str, help: &'static str, value: fn(&Row) -> u64) -> OfServices {
    let value = Value::Number(value);
    OfServices { family: Family { name, kind: Kind::Counter, labels: LABELS, help }, value }
}

const fn gauge(name: &'static str, help: &'static str, value: fn(&Row) -> u64) -> OfServices {
    let value = Value::Number(value);
    OfServices { family: Family { name, kind: Kind::Gauge, labels: LABELS, help }, value }
}

const fn histogram(
    name: &'static str,
    help: &'static str,
    value: fn(&Traffic) -> Histogram<'_>,
) -> OfServices {
    let value = Value::Histogram(value);
    OfServices { family: Family { name, kind: Kind::Histogram, labels: LABELS, help }, value }
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
        let traffic = Traffic { established: connections, ..NO_TRAFFIC };
        let traffic = (connections > 5).then(|| Box::new(traffic));
        Counted {
            record,
            endpoints: u32::from(family),
            aliases: 0,
            unhealthy: 1,
            ejected: 2,
            counters,
            traffic,
        }
    }

    #[test]
    fn what_is_asked_for_itself_counts_for_the_same_port() {
        let direct = |service: &[u8]| Counted {
            endpoints: 9,
            aliases: 2,
            ..counted(service, PROTOCOL_TCP, ServiceRecord::DIRECT, 7)
        };
        let mut found = Rows::default();
        found.add(&[direct(b"web"), counted(b"web", PROTOCOL_TCP, 4, 3), direct(b"headless")]);
        let [web, headless] = found.all() else { panic!("{found:?}") };
        assert_eq!((web.counters.connections, web.traffic.established), (10, 7));
        assert_eq!((web.endpoints(), headless.endpoints()), (4, 9));
        assert_eq!(found.fill(), Fill { services: 3, slots: 2 * (9 + 2) + 4 + 3 });
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
        assert_eq!((rows[0].endpoints(), rows[0].unhealthy, rows[0].ejected), (6, 1, 2));
        assert_eq!((rows[0].traffic.established, rows[1].traffic.established), (0, 7));
        assert_eq!(rows[1].labels, r#"{service="dns",port_name="http",protocol="udp"}"#);
    }

    #[test]
    fn what_is_live_is_summed_by_halves() {
        let mut sum = Traffic { live: Live::OPEN + 2 * Live::PENDING, ..NO_TRAFFIC };
        let mut other = Traffic { live: 4 * Live::OPEN, closed: 3, ..NO_TRAFFIC };
        other.lifetimes[15] = 9;
        add(&mut sum, &other);
        assert_eq!((Live(sum.live).open(), Live(sum.live).pending()), (5, 2));
        assert_eq!((sum.closed, sum.lifetimes[15]), (3, 9));
    }
}
