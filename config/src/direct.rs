//! Endpoints that clients ask for themselves: `direct` of a service, and `aliases` of an endpoint.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::num::NonZeroU16;

use crate::decode::{Located, number, own_address};
use crate::diagnostic::Position;
use crate::fields::{Fields, list};
use crate::limit::MAX_ALIASES_PER_ENDPOINT;
use crate::model::{Alias, Endpoint, Port, Service};
use crate::report::Report;
use crate::tree::Node;
use crate::{health_check, outlier};

/// Of a service: whether clients may ask for its endpoints themselves.
pub(crate) const KEY: &str = "direct";
/// Of an endpoint: where else it answers.
pub(crate) const ALIASES_KEY: &str = "aliases";
const ALIAS_KEYS: [&str; 2] = ["address", "port"];

/// What chooses among endpoints, or stands in for them. Nobody chooses for a service without addresses.
const CHOOSING_KEYS: [&str; 4] = ["load_balancing", health_check::KEY, outlier::KEY, "no_endpoint"];

impl Service {
    /// Whether clients cannot ask for it, only for its endpoints.
    #[must_use]
    pub fn is_headless(&self) -> bool {
        self.is_direct && self.addresses.is_empty()
    }

    /// How many addresses and ports its endpoints are asked for at.
    #[must_use]
    pub fn direct_count(&self) -> usize {
        if !self.is_direct {
            return 0;
        }
        let places = |endpoint: &Endpoint| 1 + endpoint.aliases.len();
        self.endpoints.iter().map(places).sum::<usize>() * self.ports.len()
    }
}

impl Endpoint {
    /// Each address at which it answers, its own one first, and the port that it has there, if it is not
    /// the target port of each port.
    pub fn answers(&self) -> impl Iterator<Item = (IpAddr, Option<NonZeroU16>)> {
        let alias = |alias: &Alias| (alias.address, alias.port.or(self.port));
        std::iter::once((self.address, self.port)).chain(self.aliases.iter().map(alias))
    }

    /// Each address at which it answers connections of `port`, its own one first.
    pub fn answers_at(&self, port: &Port) -> impl Iterator<Item = (IpAddr, NonZeroU16)> {
        let target = port.target_port;
        self.answers().map(move |(address, port)| (address, port.unwrap_or(target)))
    }
}

/// Reports what a service without addresses says all the same about a choice that nobody makes.
pub(crate) fn headless(fields: &Fields<'_>, report: &mut Report<'_>) {
    for key in CHOOSING_KEYS {
        if let Some(node) = fields.get(key) {
            let message = format_args!(
                "`{key}` is about connections to the service's addresses, and it has none: remove it, or \
                 add `addresses`"
            );
            report.at(node.position, message);
        }
    }
}

/// The further addresses of an endpoint, and where they stand.
pub(crate) fn aliases(
    fields: &Fields<'_>,
    report: &mut Report<'_>,
) -> Option<(Box<[Alias]>, Vec<Position>)> {
    let Some(node) = fields.get(ALIASES_KEY) else { return Some(Default::default()) };
    let listed = list(node, ALIASES_KEY, MAX_ALIASES_PER_ENDPOINT, report)?;
    let read: Vec<_> = listed.iter().filter_map(|node| alias(node, report)).collect();
    let is_whole = read.len() == listed.len();
    let (aliases, positions): (Vec<Alias>, Vec<Position>) = read.into_iter().unzip();
    is_whole.then(|| (aliases.into(), positions))
}

fn alias(node: &Node, report: &mut Report<'_>) -> Option<(Alias, Position)> {
    const WHAT: &str = "the alias";
    let fields = Fields::of(node, WHAT, &ALIAS_KEYS, report)?;
    let address = own_address(&fields, WHAT, report);
    let port = match fields.get("port") {
        None => None,
        Some(node) => Some(number(node, "port", report)?),
    };
    Some((Alias { address: address?, port }, node.position))
}

/// Each address at which an endpoint of `located` answers.
pub(crate) fn places(located: &Located) -> impl Iterator<Item = Place<'_>> {
    let endpoints = located.service.endpoints.iter().zip(&located.endpoints);
    endpoints.enumerate().flat_map(|(index, (endpoint, at))| {
        let aliases = located.aliases.get(&index).into_iter().flatten();
        let places = std::iter::once((at, false)).chain(aliases.map(|at| (at, true)));
        let place = |((address, port), (at, is_alias)): ((IpAddr, _), (&Position, bool))| Place {
            address,
            port,
            at: *at,
            endpoint,
            is_alias,
        };
        endpoint.answers().zip(places).map(place)
    })
}

/// An address at which an endpoint answers.
pub(crate) struct Place<'a> {
    pub(crate) address: IpAddr,
    /// The port that the endpoint has there, if it is not the target port of each port.
    pub(crate) port: Option<NonZeroU16>,
    /// Where that is said.
    pub(crate) at: Position,
    pub(crate) endpoint: &'a Endpoint,
    /// Whether it is not the endpoint's own address.
    pub(crate) is_alias: bool,
}

/// The places of `located` that stand for what an earlier one stands for: connections of some port go to
/// the same address and port. Each with the place of the earlier one.
pub(crate) fn duplicates(located: &Located) -> Vec<(Place<'_>, Position)> {
    let targets: HashSet<NonZeroU16> =
        located.service.ports.iter().map(|port| port.target_port).collect();
    let mut first: HashMap<(IpAddr, Option<NonZeroU16>), Position> = HashMap::new();
    // Per address, the first place whose own port is one of the target ports.
    let mut on_target: HashMap<IpAddr, Position> = HashMap::new();
    let mut duplicates = Vec::new();
    for place in places(located) {
        let Place { address, port, at, .. } = place;
        let is_target = port.is_some_and(|port| targets.contains(&port));
        let earlier = first.get(&(address, port)).or_else(|| match port {
            Some(_) if is_target => first.get(&(address, None)),
            Some(_) => None,
            None => on_target.get(&address),
        });
        if let Some(earlier) = earlier {
            duplicates.push((place, *earlier));
            continue;
        }
        first.insert((address, port), at);
        if is_target {
            on_target.entry(address).or_insert(at);
        }
    }
    duplicates
}
