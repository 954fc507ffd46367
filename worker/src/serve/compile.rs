//! From a configuration to what the tables should say. Pure.

use std::net::IpAddr;
use std::sync::Arc;

use holdfast_config::{
    Access, AccessLog, Config, Diagnostics, Endpoint, Enrolment, Locality, NoEndpoint, Port,
    Protocol, Service, Sources, parse,
};
use holdfast_protocol::kernel::{
    Address, EndpointSlot, FrontendKey, PROTOCOL_TCP, PROTOCOL_UDP, ServiceRecord, mapped,
};

use super::alias::Row;
use super::aside::Aside;
use super::compilation::Parts;
use super::health_check::checked::{Checked, uses_all};
use super::spread::{Chosen, Spread, chosen, spread};
use super::tables::desired::{Desired, DesiredService, Table};

/// The family of a service number, as [`ServiceRecord::family`] says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Ipv4 = 4,
    Ipv6 = 6,
}

/// Every port of a service has one table for each of them, in this order.
const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];

/// A configuration that can be put in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// What it asks of the tables while everybody is healthy.
    pub desired: Arc<Desired>,
    /// The services whose endpoints are checked, or may be ejected.
    pub checked: Vec<Checked>,
    /// Where the node is.
    pub node: Option<Locality>,
    /// Who is enrolled; everybody without it.
    pub enrolment: Option<Enrolment>,
    /// The access log, if there is one.
    pub access_log: Option<AccessLog>,
    /// Endpoints that are configured and get no connections, so that they can be shown.
    pub aside: Vec<Aside>,
    /// Who may connect to what. Compiled when it is put in force: it names cgroups, which come and go.
    pub access: Access,
    /// What it is known by.
    pub summary: Summary,
}

/// What a configuration is known by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// SHA-256 of its text, in hexadecimal.
    pub digest: String,
    /// How many services it has.
    pub services: u32,
    /// How many endpoints those have together.
    pub endpoints: u32,
}

/// The configuration that `sources` say.
///
/// # Errors
///
/// Every error in it.
pub fn compile_sources(sources: &Sources) -> Result<Compiled, Diagnostics> {
    let config = parse(sources)?;
    Ok(Parts::of(&config).compiled(&config, sources.digest()))
}

/// What `config` asks of the tables: one service for each port and address family, and one for each port
/// of a service that is direct.
#[must_use]
pub fn compile(config: &Config) -> Desired {
    let desired = Parts::of(config).compiled(config, String::new()).desired;
    Arc::unwrap_or_clone(desired)
}

/// What `service` asks of the tables that endpoints are chosen from.
pub(super) fn compile_service(
    service: &Service,
    node: Option<&Locality>,
) -> Vec<Arc<DesiredService>> {
    let side = |family| Side::of(service, node, family, &|_| true);
    let sides: Vec<Side<'_>> = FAMILIES.into_iter().filter_map(side).collect();
    let each = |port| sides.iter().map(move |side| compile_port(service, port, side).into());
    service.ports.iter().flat_map(each).collect()
}

/// The tables of `service` while only those endpoints are healthy of which `is_healthy` says so for a
/// port; in the order in which a configuration's are compiled.
#[must_use]
pub fn tables(
    service: &Service,
    node: Option<&Locality>,
    is_healthy: impl Fn(&Port, &Endpoint) -> bool,
) -> Vec<Table> {
    let mut tables = Vec::new();
    // Most ports have the same endpoints out of order as the one before.
    let mut former: Option<(Vec<bool>, Vec<Side<'_>>)> = None;
    for port in &service.ports {
        let is_healthy = |endpoint: &Endpoint| is_healthy(port, endpoint);
        let healthy: Vec<bool> = service.endpoints.iter().map(is_healthy).collect();
        let sides = match former.take() {
            Some((same, sides)) if same == healthy => sides,
            _ => {
                let side = |family| Side::of(service, node, family, &is_healthy);
                FAMILIES.into_iter().filter_map(side).collect()
            }
        };
        tables.extend(sides.iter().map(|side| table(service, port, side)));
        former = Some((healthy, sides));
    }
    tables
}

/// Each port of `service` in each family it has addresses of, with its record, in the same order.
pub fn records(service: &Service) -> impl Iterator<Item = (&Port, ServiceRecord)> {
    let has = |family: &Family| {
        service.addresses.iter().any(|it| it.is_ipv4() == (*family == Family::Ipv4))
    };
    let both = |port| FAMILIES.into_iter().filter(has).map(move |family| (port, family));
    let each: Vec<_> = service.ports.iter().flat_map(both).collect();
    each.into_iter().map(|(port, family)| (port, record(service, port, family as u8)))
}

/// What the ports of a service have in common in one address family. A lookup table takes milliseconds
/// to make, and a service may have hundreds of ports.
struct Side<'a> {
    family: Family,
    addresses: Vec<IpAddr>,
    chosen: Vec<Chosen<'a>>,
    spread: Spread,
}

impl<'a> Side<'a> {
    /// That of `service` in `family`, if it has an address of that family, while those endpoints are
    /// healthy of which `is_healthy` says so.
    fn of(
        service: &'a Service,
        node: Option<&Locality>,
        family: Family,
        is_healthy: &dyn Fn(&Endpoint) -> bool,
    ) -> Option<Self> {
        let of_family = |address: &&IpAddr| address.is_ipv4() == (family == Family::Ipv4);
        let addresses: Vec<IpAddr> = service.addresses.iter().filter(of_family).copied().collect();
        // All addresses of a family have the same endpoints, so any of them answers for all.
        let frontend = *addresses.first()?;
        let choose = |is_healthy: &dyn Fn(&Endpoint) -> bool| {
            let candidates: Vec<_> = service.candidates_among(frontend, is_healthy).collect();
            chosen(service, node, &candidates, is_healthy)
        };
        let mut chosen = choose(&|endpoint| endpoint.is_usable() && is_healthy(endpoint));
        if chosen.is_empty() && uses_all(service) {
            chosen = choose(&Endpoint::is_usable);
        }
        let spread = spread(service, &chosen);
        Some(Self { family, addresses, chosen, spread })
    }
}

/// One port of `service` in one family.
fn compile_port(service: &Service, port: &Port, side: &Side<'_>) -> DesiredService {
    DesiredService {
        record: record(service, port, side.family as u8),
        keys: side.addresses.iter().map(|address| key(*address, port)).collect(),
        table: table(service, port, side),
    }
}

/// The record of `port` of `service` in that [`ServiceRecord::family`].
pub(super) fn record(service: &Service, port: &Port, family: u8) -> ServiceRecord {
    ServiceRecord {
        service: padded(&service.name),
        port_name: padded(&port.name),
        port_be: port.port.get().to_be(),
        protocol: protocol(port.protocol),
        family,
        reserved: 0,
    }
}

fn key(address: IpAddr, port: &Port) -> FrontendKey {
    FrontendKey {
        address: kernel_address(address),
        port_be: port.port.get().to_be(),
        protocol: protocol(port.protocol),
        reserved: 0,
    }
}

fn table(service: &Service, port: &Port, side: &Side<'_>) -> Table {
    let Spread { policy, rows, lookup, features, settings } = &side.spread;
    let slot = |(Chosen { endpoint, .. }, row): (&Chosen<'_>, &Row)| EndpointSlot {
        address: kernel_address(endpoint.address),
        port_be: endpoint.port.unwrap_or(port.target_port).get().to_be(),
        weight: endpoint.weight,
        threshold: row.threshold,
        alias: row.alias,
        state: EndpointSlot::NO_STATE,
    };
    Table {
        policy: *policy,
        no_endpoint_errno: errno(service.no_endpoint),
        endpoints: side.chosen.iter().zip(rows).map(slot).collect(),
        lookup: lookup.clone(),
        features: *features,
        settings: *settings,
    }
}

/// The number of a protocol.
#[must_use]
pub const fn protocol(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => PROTOCOL_TCP,
        Protocol::Udp => PROTOCOL_UDP,
    }
}

pub(super) fn errno(no_endpoint: NoEndpoint) -> u16 {
    let errno = match no_endpoint {
        NoEndpoint::Refuse => libc::ECONNREFUSED,
        NoEndpoint::Unreachable => libc::EHOSTUNREACH,
        NoEndpoint::Deny => libc::EPERM,
    };
    u16::try_from(errno).expect("errnos are positive and below 4096")
}

/// `address` in the form of the maps: its bytes in network order, as native words.
#[must_use]
pub fn kernel_address(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(address) => mapped(u32::from_ne_bytes(address.octets())),
        IpAddr::V6(address) => {
            let octets = address.octets();
            std::array::from_fn(|word| {
                let at = word * 4;
                u32::from_ne_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]])
            })
        }
    }
}

/// `name` padded with zeros. The configuration keeps names at most one byte shorter than the field.
#[must_use]
pub fn padded<const BYTES: usize>(name: &str) -> [u8; BYTES] {
    let mut field = [0; BYTES];
    field[..name.len()].copy_from_slice(name.as_bytes());
    field
}

#[cfg(test)]
mod tests {
    use holdfast_config::{Sources, parse};
    use holdfast_protocol::kernel::{LOOKUP_PER_SLOT, Settings, client, feature, policy};

    use super::*;
    use crate::serve::tables::desired::Label;

    fn desired(text: &str) -> Desired {
        compile(&parse(&Sources::single("test.yaml", text)).expect("a valid configuration"))
    }

    fn ports(service: &DesiredService) -> Vec<u16> {
        service.table.endpoints.iter().map(|e| u16::from_be(e.port_be)).collect()
    }

    fn labels(desired: &Desired) -> Vec<String> {
        desired.services.iter().map(|service| Label(&service.record).to_string()).collect()
    }

    #[test]
    fn each_port_and_family_is_a_service_of_its_own() {
        let desired = desired(
            "services: [{ name: web, addresses: [127.96.0.10, 'fd96::10', 127.96.0.11],
               ports: [{ name: http, port: 80, target_port: 18080 }, { name: dns, port: 53, protocol: udp }],
               endpoints: [{ address: 127.0.0.1 }] }]",
        );
        assert_eq!(
            labels(&desired),
            [
                "web, port http (80/tcp, IPv4)",
                "web, port http (80/tcp, IPv6)",
                "web, port dns (53/udp, IPv4)",
                "web, port dns (53/udp, IPv6)",
            ]
        );
        let keys: Vec<usize> = desired.services.iter().map(|service| service.keys.len()).collect();
        assert_eq!(keys, [2, 1, 2, 1]);
        assert_eq!(ports(&desired.services[0]), [18080]);
        assert_eq!(ports(&desired.services[2]), [53]);
    }

    #[test]
    fn ipv6_frontends_use_ipv4_endpoints_only_when_there_are_no_others() {
        let both = desired(
            "services: [{ name: a, addresses: [127.96.0.1, 'fd96::1'], ports: [{ name: p, port: 1 }],
               endpoints: [{ address: 127.0.0.1, port: 11 }, { address: '::1', port: 12 }] }]",
        );
        assert_eq!(ports(&both.services[0]), [11]);
        assert_eq!(ports(&both.services[1]), [12]);
        let mapped_only = desired(
            "services: [{ name: a, addresses: ['fd96::1'], ports: [{ name: p, port: 1 }],
               endpoints: [{ address: 127.0.0.1, port: 11 }] }]",
        );
        assert_eq!(ports(&mapped_only.services[0]), [11]);
        assert_eq!(
            mapped_only.services[0].table.endpoints[0].address,
            mapped(u32::from_ne_bytes([127, 0, 0, 1]))
        );
    }

    #[test]
    fn endpoints_of_weight_0_are_left_out() {
        let desired = desired(
            "services: [{ name: a, addresses: [127.96.0.1], ports: [{ name: p, port: 1 }],
               load_balancing: { policy: weighted },
               endpoints: [{ address: 127.0.0.1, port: 11, weight: 0 },
                           { address: 127.0.0.1, port: 12, weight: 1 },
                           { address: 127.0.0.1, port: 13, weight: 3 }] }]",
        );
        let table = &desired.services[0].table;
        assert_eq!(table.policy, policy::WEIGHTED);
        assert_eq!(ports(&desired.services[0]), [12, 13]);
        assert_eq!((table.endpoints[0].threshold, table.endpoints[0].alias), (1 << 31, 1));
    }

    #[test]
    fn maglev_brings_its_lookup_table_and_whom_it_hashes() {
        let text = "services: [{ name: a, addresses: [127.96.0.1, 'fd96::1'],
               ports: [{ name: p, port: 1 }, { name: q, port: 2 }],
               load_balancing: { policy: maglev, hash_by: source_address },
               endpoints: [{ address: 127.0.0.1 }, { address: 127.0.0.2, weight: 3 },
                           { address: '::1' }, { address: 127.0.0.3, weight: 0 }] }]";
        let desired = desired(text);
        let [ipv4, ipv6, other_port, _] = &desired.services.to_vec()[..] else {
            panic!("{desired:?}")
        };
        assert_eq!((ipv4.table.policy, ipv4.table.features), (policy::MAGLEV, 0));
        assert_eq!(ipv4.table.settings.expect("settings").hash_by, client::SOURCE);
        // Four endpoints are listed, so there is room for ten: 1,021 entries.
        let count = |index| ipv4.table.lookup.iter().filter(|it| **it == index).count();
        assert_eq!((ipv4.table.lookup.len(), count(0), count(1)), (1021, 255, 766));
        assert_eq!(ipv4.table.slots(), 1 + 2 + 2 + 1021_u32.div_ceil(LOOKUP_PER_SLOT));
        assert_eq!(ipv6.table.lookup, [0; 1021]);
        // A client has the same endpoint on every port.
        assert_eq!(ipv4.table.lookup, other_port.table.lookup);
    }

    #[test]
    fn locality_becomes_shares_that_the_programs_need_not_understand() {
        let text = |mode: &str, broken: &str| {
            format!(
            "node: {{ region: eu, zone: a }}
services: [{{ name: a, addresses: [127.96.0.1], ports: [{{ name: p, port: 1 }}],
               load_balancing: {{ locality: {{ mode: {mode} }} }},
               endpoints: [{{ address: 127.0.0.1, port: 11, locality: {{ region: eu, zone: a }}, {broken} }},
                           {{ address: 127.0.0.1, port: 12, locality: {{ region: eu, zone: a }} }},
                           {{ address: 127.0.0.1, port: 13, locality: {{ region: eu, zone: b }} }}] }}]"
        )
        };
        let table = |mode, broken| desired(&text(mode, broken)).services[0].clone();
        let whole = table("failover", "weight: 1");
        assert_eq!((ports(&whole), whole.table.policy), (vec![11, 12], policy::RANDOM));
        // Half of two is healthy: 5/7 of all connections go to it, 2/7 to the other zone.
        let half = table("failover", "draining: true");
        assert_eq!((ports(&half), half.table.policy), (vec![12, 13], policy::WEIGHTED));
        let share = u64::from(u32::MAX) * 4 / 7;
        let [first, second] = &half.table.endpoints[..] else { panic!("{half:?}") };
        assert_eq!((first.alias, second.alias), (0, 0));
        assert!(u64::from(second.threshold).abs_diff(share) < 2, "{second:?}");
        assert_eq!(ports(&table("strict", "weight: 1")), [11, 12]);
        assert_eq!(ports(&table("strict", "draining: true")), [12]);
    }

    #[test]
    fn strict_with_nothing_in_the_own_locality_has_no_endpoint() {
        let desired = desired(
            "node: { region: eu }
services: [{ name: a, addresses: [127.96.0.1], ports: [{ name: p, port: 1 }], no_endpoint: deny,
               load_balancing: { policy: weighted, locality: { mode: strict } },
               endpoints: [{ address: 127.0.0.1, locality: { region: us } }] }]",
        );
        let table = &desired.services[0].table;
        assert_eq!((table.endpoints.len(), table.no_endpoint_errno), (0, 1));
    }

    #[test]
    fn affinity_is_a_feature_with_settings() {
        let text = |policy| {
            format!(
            "services: [{{ name: a, addresses: [127.96.0.1], ports: [{{ name: p, port: 1 }}],
               load_balancing: {{ policy: {policy}, affinity: {{ by: network_namespace, for: 2m }} }},
               endpoints: [{{ address: 127.0.0.1 }}] }}]"
        )
        };
        for policy in ["random", "weighted", "round_robin", "maglev"] {
            let table = desired(&text(policy)).services[0].table.clone();
            let settings = table.settings.expect("settings");
            assert_eq!(table.features, feature::AFFINITY);
            assert_eq!(settings.affinity_by, client::NETWORK_NAMESPACE);
            assert_eq!((settings.affinity_ms, settings.hash_by), (120_000, client::CGROUP));
        }
    }

    #[test]
    fn limits_are_settings_of_the_table() {
        let desired = desired(
            "services: [{ name: a, addresses: [127.96.0.1], ports: [{ name: p, port: 1 }],
               load_balancing: { policy: least_connections },
               limits: { connections: 10, endpoint_pending: 3 },
               endpoints: [{ address: 127.0.0.1, weight: 7 }] }]",
        );
        let table = &desired.services[0].table;
        assert_eq!((table.policy, table.features), (policy::LEAST_CONNECTIONS, feature::LIMITS));
        let wanted = Settings { open: 10, endpoint_pending: 3, ..Settings::NONE };
        assert_eq!(table.settings, Some(wanted));
    }

    #[test]
    fn rates_are_settings_of_the_table_and_need_no_places() {
        let desired = desired(
            "services: [{ name: a, addresses: [127.96.0.1], ports: [{ name: p, port: 1 }],
               limits: { rate: { connections_per_second: 50 },
                         client_rate: { connections_per_second: 2, burst: 7, by: source_address } },
               endpoints: [{ address: 127.0.0.1 }] }]",
        );
        let table = &desired.services[0].table;
        let wanted = Settings {
            rate: 50,
            burst: 50,
            client_rate: 2,
            client_burst: 7,
            rate_by: client::SOURCE,
            ..Settings::NONE
        };
        assert_eq!((table.features, table.settings), (feature::RATE, Some(wanted)));
    }

    #[test]
    fn a_service_without_endpoints_refuses_as_configured() {
        let desired = desired(
            "services: [{ name: a, addresses: [127.96.0.1], ports: [{ name: p, port: 1 }],
               no_endpoint: unreachable, endpoints: [] }]",
        );
        let table = &desired.services[0].table;
        assert_eq!((table.endpoints.len(), table.no_endpoint_errno), (0, 113));
    }
}
