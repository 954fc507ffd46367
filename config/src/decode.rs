//! The tree of one file to its services, each rule of a single value checked. What concerns more
//! than one value is left to [`check`](crate::check).

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU16;

use crate::access_log::{self, AccessLog};
use crate::balancing;
use crate::diagnostic::Position;
use crate::direct;
use crate::drain;
use crate::enrolment;
use crate::fields::{Fields, list, scalar};
use crate::health_check;
use crate::limit::{
    MAX_ADDRESSES_PER_SERVICE, MAX_ENDPOINTS_PER_SERVICE, MAX_PORTS_PER_SERVICE, MAX_SERVICES,
    MAX_WEIGHT,
};
use crate::limits::limits;
use crate::locality::{self, Locality};
use crate::model::{Endpoint, Enrolment, NoEndpoint, Port, Protocol, Service};
use crate::once::Said;
use crate::outlier;
use crate::policy;
use crate::report::Report;
use crate::scalar::{address, one_of, port_name, service_name, whole_number};
use crate::tree::{Node, Value};

/// A service, and where its parts stand.
pub(crate) struct Located {
    /// Number of the file it is in.
    pub(crate) file: usize,
    pub(crate) service: Service,
    /// Of the name.
    pub(crate) position: Position,
    /// One for each address of the service.
    pub(crate) addresses: Vec<Position>,
    /// One for each port of the service.
    pub(crate) ports: Vec<PortPositions>,
    /// Of what `load_balancing` says.
    pub(crate) balancing: balancing::Positions,
    /// Of what `health_check` says, if it says something valid.
    pub(crate) health_check: Option<Position>,
    /// Likewise of `outlier_ejection`.
    pub(crate) outlier: Option<Position>,
    /// One for each endpoint of the service.
    pub(crate) endpoints: Vec<Position>,
    /// For each endpoint that has some, of its aliases.
    pub(crate) aliases: HashMap<usize, Vec<Position>>,
    /// Whether every endpoint that is listed could be told: what is said about all of them would
    /// be wrong otherwise.
    pub(crate) endpoints_whole: bool,
}

/// Where the parts of a port stand.
#[derive(Clone, Copy)]
pub(crate) struct PortPositions {
    pub(crate) name: Position,
    pub(crate) port: Position,
}

/// Where the node is.
pub(crate) const NODE_KEY: &str = "node";
const FILE_KEYS: [&str; 7] = [
    "services",
    NODE_KEY,
    enrolment::KEY,
    access_log::KEY,
    policy::decode::KEYS[0],
    policy::decode::KEYS[1],
    policy::decode::INBOUND_KEY,
];
const SERVICE_KEYS: [&str; 12] = [
    "name",
    "addresses",
    direct::KEY,
    "ports",
    "load_balancing",
    health_check::KEY,
    outlier::KEY,
    drain::KEY,
    "no_endpoint",
    "limits",
    access_log::KEY,
    "endpoints",
];
const PORT_KEYS: [&str; 4] = ["name", "port", "protocol", "target_port"];
const ENDPOINT_KEYS: [&str; 7] =
    ["address", "port", "weight", "draining", "locality", "priority", direct::ALIASES_KEY];

/// What a file says.
#[derive(Default)]
pub(crate) struct Contents {
    pub(crate) services: Vec<Located>,
    pub(crate) node: Option<Said<Locality>>,
    pub(crate) enrolment: Option<Said<Enrolment>>,
    pub(crate) access_log: Option<Said<AccessLog>>,
    pub(crate) access: policy::decode::Located,
    pub(crate) cuts_existing: Option<Said<bool>>,
}

/// What the tree `root` says, as far as it can be told; what cannot is reported. A service comes
/// without the parts that were refused, so that its other ones can be checked.
pub(crate) fn contents(root: &Node, file: usize, report: &mut Report<'_>) -> Contents {
    if matches!(&root.value, Value::Scalar(scalar) if scalar.is_null()) {
        report.at(
            Position::START,
            "the file is empty, as after a save that was cut off: write `services: []` for none",
        );
        return Contents::default();
    }
    let Some(fields) = Fields::of(root, "the file", &FILE_KEYS, report) else {
        return Contents::default();
    };
    let node = said(&fields, NODE_KEY, file, |node| locality::locality(node, "`node`", report));
    let enrolment = said(&fields, enrolment::KEY, file, |node| enrolment::enrolment(node, report));
    let access_log = said(&fields, access_log::KEY, file, |node| access_log::of_file(node, report));
    let services = fields
        .require("services", "the file", report)
        .and_then(|node| list(node, "services", MAX_SERVICES, report))
        .unwrap_or_default()
        .iter()
        .filter_map(|node| service(node, file, report))
        .collect();
    let access = policy::decode::access(&fields, file, report);
    let cuts_existing = said(&fields, policy::decode::INBOUND_KEY, file, |node| {
        policy::decode::cuts_existing(node, report)
    });
    Contents { services, node, enrolment, access_log, access, cuts_existing }
}

/// What `decode` makes of the value of `key`, if it is there and makes sense.
fn said<T>(
    fields: &Fields<'_>,
    key: &str,
    file: usize,
    decode: impl FnOnce(&Node) -> Option<T>,
) -> Option<Said<T>> {
    let node = fields.get(key)?;
    Some(Said { file, position: node.position, value: decode(node)? })
}

/// The service that `node` says, as far as it can be told.
pub(crate) fn service(node: &Node, file: usize, report: &mut Report<'_>) -> Option<Located> {
    const WHAT: &str = "the service";
    let fields = Fields::of(node, WHAT, &SERVICE_KEYS, report)?;
    let name = fields.require("name", WHAT, report);
    let position = name.map_or(node.position, |name| name.position);
    let name = name.and_then(|node| text(node, "the service name", service_name, report));

    let is_direct = fields.get(direct::KEY).map(|node| truth(node, "`direct`", report));
    // What is not understood may have meant it.
    let is_direct = is_direct.is_some_and(|it| it.unwrap_or(true));
    let (addresses, address_positions) = if is_direct && fields.get("addresses").is_none() {
        direct::headless(&fields, report);
        Default::default()
    } else if fields.get("addresses").is_none() {
        let message = "`addresses` is missing in the service: add it, or `direct: true` if clients find \
                       its endpoints by themselves";
        report.at(node.position, message);
        Default::default()
    } else {
        addresses(&fields, report)
    };
    let (ports, port_positions) = ports(&fields, report);
    let balancing = fields.get("load_balancing").map(|node| balancing::decode(node, report));
    let balancing = balancing.unwrap_or_default();
    let health_check =
        fields.get(health_check::KEY).and_then(|node| health_check::decode(node, report));
    let checked_at = health_check.as_ref().map(|decoded| decoded.position);
    let outlier = fields.get(outlier::KEY).and_then(|node| outlier::decode(node, report));
    let outlier_at = outlier.as_ref().map(|decoded| decoded.position);
    let drain = fields.get(drain::KEY).and_then(|node| drain::decode(node, report));
    let no_endpoint = fields.get("no_endpoint").and_then(|node| no_endpoint(node, report));
    let limits = fields.get("limits").and_then(|node| limits(node, report));
    let access_log =
        fields.get(access_log::KEY).and_then(|node| access_log::of_service(node, report));
    let listed = listed_endpoints(&fields, report);
    let (endpoints, endpoint_positions, alias_positions) = endpoints(listed, report);
    Some(Located {
        file,
        service: Service {
            name: name.unwrap_or_default(),
            addresses,
            is_direct,
            ports,
            policy: balancing.policy,
            balancing: balancing.balancing,
            health_check: health_check.map(|decoded| decoded.check),
            outlier_ejection: outlier.map(|decoded| decoded.ejection),
            drain,
            no_endpoint: no_endpoint.unwrap_or_default(),
            limits: limits.unwrap_or_default(),
            access_log,
            endpoints,
        },
        balancing: balancing.positions,
        health_check: checked_at,
        outlier: outlier_at,
        endpoints_whole: listed.len() == endpoint_positions.len(),
        position,
        addresses: address_positions,
        ports: port_positions,
        endpoints: endpoint_positions,
        aliases: alias_positions,
    })
}

fn addresses(fields: &Fields<'_>, report: &mut Report<'_>) -> (Vec<IpAddr>, Vec<Position>) {
    non_empty(fields, "addresses", MAX_ADDRESSES_PER_SERVICE, report)
        .iter()
        .filter_map(|node| {
            let scalar = scalar(node, "the address", report)?;
            Some((report.accept(node.position, address(scalar))?, node.position))
        })
        .unzip()
}

fn ports(fields: &Fields<'_>, report: &mut Report<'_>) -> (Vec<Port>, Vec<PortPositions>) {
    non_empty(fields, "ports", MAX_PORTS_PER_SERVICE, report)
        .iter()
        .filter_map(|node| port(node, report))
        .unzip()
}

fn port(node: &Node, report: &mut Report<'_>) -> Option<(Port, PortPositions)> {
    const WHAT: &str = "the port";
    let fields = Fields::of(node, WHAT, &PORT_KEYS, report)?;
    let name_node = fields.require("name", WHAT, report);
    let port_node = fields.require("port", WHAT, report);
    let protocol = match fields.get("protocol") {
        None => Some(Protocol::default()),
        Some(node) => protocol(node, report),
    };
    let target_port = fields.get("target_port").map(|node| number(node, "target port", report));

    let name = name_node.and_then(|node| text(node, "the port name", port_name, report));
    let port = port_node.and_then(|node| number(node, "port", report));
    let positions = PortPositions { name: name_node?.position, port: port_node?.position };
    let target_port = match target_port {
        None => port?,
        Some(target_port) => target_port?,
    };
    Some((Port { name: name?, port: port?, protocol: protocol?, target_port }, positions))
}

fn listed_endpoints<'t>(fields: &Fields<'t>, report: &mut Report<'_>) -> &'t [Node] {
    fields
        .get("endpoints")
        .and_then(|node| list(node, "endpoints", MAX_ENDPOINTS_PER_SERVICE, report))
        .unwrap_or_default()
}

/// The endpoints, where each stands, and where its aliases do.
fn endpoints(
    listed: &[Node],
    report: &mut Report<'_>,
) -> (Vec<Endpoint>, Vec<Position>, HashMap<usize, Vec<Position>>) {
    let (mut endpoints, mut positions, mut aliases) = (Vec::new(), Vec::new(), HashMap::new());
    for node in listed {
        let Some((endpoint, places)) = endpoint(node, report) else { continue };
        if !places.is_empty() {
            aliases.insert(endpoints.len(), places);
        }
        endpoints.push(endpoint);
        positions.push(node.position);
    }
    (endpoints, positions, aliases)
}

/// The `address` of `what`.
pub(crate) fn own_address(
    fields: &Fields<'_>,
    what: &str,
    report: &mut Report<'_>,
) -> Option<IpAddr> {
    let node = fields.require("address", what, report)?;
    let text = scalar(node, "the address", report)?;
    report.accept(node.position, address(text))
}

fn endpoint(node: &Node, report: &mut Report<'_>) -> Option<(Endpoint, Vec<Position>)> {
    const WHAT: &str = "the endpoint";
    let fields = Fields::of(node, WHAT, &ENDPOINT_KEYS, report)?;
    let address = own_address(&fields, WHAT, report);
    let port = fields.get("port").map(|node| number(node, "port", report));
    let weight = fields.get("weight").map(|node| weight(node, report));
    let draining = fields.get("draining").map(|node| truth(node, "`draining`", report));
    let place = locality::place(&fields, report);
    let aliases = direct::aliases(&fields, report);
    let (aliases, alias_positions) = aliases?;
    let endpoint = Endpoint {
        address: address?,
        port: match port {
            None => None,
            Some(port) => Some(port?),
        },
        weight: weight.unwrap_or(Some(DEFAULT_WEIGHT))?,
        draining: draining.unwrap_or(Some(false))?,
        place: place?.map(Box::new),
        aliases,
    };
    Some((endpoint, alias_positions))
}

/// The weight of an endpoint that says none: all such endpoints count the same.
const DEFAULT_WEIGHT: u16 = 1;

fn weight(node: &Node, report: &mut Report<'_>) -> Option<u16> {
    let scalar = scalar(node, "the weight", report)?;
    report.accept(node.position, whole_number(scalar, "weight", 0..=MAX_WEIGHT))
}

fn truth(node: &Node, what: &str, report: &mut Report<'_>) -> Option<bool> {
    choice(node, what, &[("true", true), ("false", false)], report)
}

pub(crate) fn number(node: &Node, what: &str, report: &mut Report<'_>) -> Option<NonZeroU16> {
    let scalar = scalar(node, what, report)?;
    let number = report.accept(node.position, whole_number(scalar, what, 1..=u16::MAX))?;
    NonZeroU16::new(number)
}

fn protocol(node: &Node, report: &mut Report<'_>) -> Option<Protocol> {
    let all = [Protocol::Tcp, Protocol::Udp];
    choice(node, "protocol", &all.map(|protocol| (protocol.as_str(), protocol)), report)
}

fn no_endpoint(node: &Node, report: &mut Report<'_>) -> Option<NoEndpoint> {
    let all = [NoEndpoint::Refuse, NoEndpoint::Unreachable, NoEndpoint::Deny];
    choice(node, "`no_endpoint`", &all.map(|answer| (answer.as_str(), answer)), report)
}

/// The one of `known` that `node` names.
pub(crate) fn choice<T: Copy>(
    node: &Node,
    what: &str,
    known: &[(&str, T)],
    report: &mut Report<'_>,
) -> Option<T> {
    let scalar = scalar(node, what, report)?;
    let words: Vec<&str> = known.iter().map(|(word, _)| *word).collect();
    let word = report.accept(node.position, one_of(scalar, what, &words))?;
    known.iter().find(|(known, _)| *known == word).map(|(_, value)| *value)
}

/// The text at `node` if `rule` accepts it.
fn text(
    node: &Node,
    what: &str,
    rule: fn(&crate::tree::Scalar) -> Result<&str, String>,
    report: &mut Report<'_>,
) -> Option<String> {
    let scalar = scalar(node, what, report)?;
    report.accept(node.position, rule(scalar)).map(str::to_owned)
}

/// The items of the list `key`, which has to be there and not empty.
fn non_empty<'t>(
    fields: &Fields<'t>,
    key: &str,
    most: usize,
    report: &mut Report<'_>,
) -> &'t [Node] {
    let Some(node) = fields.require(key, "the service", report) else { return &[] };
    match list(node, key, most, report) {
        Some([]) => {
            report.at(node.position, format_args!("`{key}` is empty: write at least one"));
            &[]
        }
        Some(items) => items,
        None => &[],
    }
}
