//! Where nodes and endpoints are, and what follows from that: types, decoding and rules.

use crate::fields::{Fields, scalar};
use crate::model::{Endpoint, Policy, Service};
use crate::report::{Excerpt, Report};
use crate::scalar::whole_number;
use crate::tree::{Node, Scalar};

/// Where something is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locality {
    /// The widest part.
    pub region: String,
    /// A part of the region.
    pub zone: Option<String>,
    /// A part of the zone.
    pub subzone: Option<String>,
}

/// Where an endpoint stands among the others of its service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Where it is: the nearer to the node, the sooner it is used.
    Locality(Locality),
    /// When it is used: those of the lowest number first.
    Priority(u32),
}

/// What the places of endpoints mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalityMode {
    /// Those of one priority are used while enough of them are healthy; then connections spill over to
    /// the next.
    Failover {
        /// Percent of a priority's endpoints, 1 to 100: with fewer healthy ones it spills over.
        spill_over_below: u8,
    },
    /// Only those in the node's own locality are used.
    Strict,
}

/// Largest priority. Envoy has as many.
pub const MAX_PRIORITY: u32 = 127;

/// Percent of healthy endpoints below which a priority spills over, unless something else is
/// configured: that of Envoy's default factor of 1.4, rounded to ten.
const SPILL_OVER_BELOW: u8 = 70;

/// Longest name of a region, zone or subzone, in bytes: as long as a Kubernetes label's value.
const MAX_NAME_BYTES: usize = 63;

const LOCALITY_KEYS: [&str; 3] = ["region", "zone", "subzone"];
const MODE_KEYS: [&str; 2] = ["mode", "spill_over_below"];

impl Locality {
    /// How far `other` is from here: 0 if it agrees in every part that is named here, and one more for
    /// each part, from the narrowest, that it has to be widened by until it does.
    #[must_use]
    pub fn distance(&self, other: &Self) -> u32 {
        let parts = |it: &Self| [Some(it.region.clone()), it.zone.clone(), it.subzone.clone()];
        let named = parts(self).into_iter().take_while(Option::is_some);
        let apart = named.zip(parts(other)).skip_while(|(here, there)| here == there);
        u32::try_from(apart.count()).expect("there are three parts")
    }
}

/// The locality at `node`; `what` names it in errors.
pub(crate) fn locality(node: &Node, what: &str, report: &mut Report<'_>) -> Option<Locality> {
    let fields = Fields::of(node, what, &LOCALITY_KEYS, report)?;
    let region = fields.require("region", what, report);
    let region = region.map(|node| name(node, "region", report));
    let zone = fields.get("zone").map(|node| name(node, "zone", report));
    let subzone = fields.get("subzone").map(|node| name(node, "subzone", report));
    if let (None, Some(node)) = (&zone, fields.get("subzone")) {
        report.at(
            node.position,
            format_args!("{what} has a `subzone` without a `zone`: add the zone"),
        );
        return None;
    }
    Some(Locality {
        region: region??,
        zone: zone.map_or(Some(None), |zone| zone.map(Some))?,
        subzone: subzone.map_or(Some(None), |subzone| subzone.map(Some))?,
    })
}

fn name(node: &Node, what: &str, report: &mut Report<'_>) -> Option<String> {
    let scalar = scalar(node, &format!("the {what}"), report)?;
    report.accept(node.position, label(scalar, what)).map(str::to_owned)
}

/// A name of the form Kubernetes' topology labels have.
fn label<'a>(scalar: &'a Scalar, what: &str) -> Result<&'a str, String> {
    let name = scalar.text.as_str();
    let wanted = format!(
        "write 1 to {MAX_NAME_BYTES} letters, digits, `-`, `_` and `.`, a letter or digit first and last"
    );
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let outer = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    if scalar.is_null() {
        return Err(format!("the {what} is empty: {wanted}"));
    }
    let fits = name.len() <= MAX_NAME_BYTES && name.bytes().all(inner);
    if !fits || !outer(name.bytes().next()) || !outer(name.bytes().last()) {
        return Err(format!("the {what} {} is not a name: {wanted}", Excerpt(name)));
    }
    Ok(name)
}

/// The place of an endpoint, if `fields` say one. The outer `None` means that it is wrong.
pub(crate) fn place(fields: &Fields<'_>, report: &mut Report<'_>) -> Option<Option<Place>> {
    match (fields.get("locality"), fields.get("priority")) {
        (Some(_), Some(node)) => {
            let message = "the endpoint has a `locality` and a `priority`, and can stand in one place \
                           only: remove one of them";
            report.at(node.position, message);
            None
        }
        (Some(node), None) => {
            locality(node, "`locality`", report).map(|locality| Some(Place::Locality(locality)))
        }
        (None, Some(node)) => {
            let scalar = scalar(node, "the priority", report)?;
            let number = whole_number(scalar, "priority", 0..=MAX_PRIORITY);
            report.accept(node.position, number).map(|number| Some(Place::Priority(number)))
        }
        (None, None) => Some(None),
    }
}

/// What `load_balancing.locality` at `node` says.
pub(crate) fn mode(node: &Node, report: &mut Report<'_>) -> Option<LocalityMode> {
    const WHAT: &str = "`locality`";
    let fields = Fields::of(node, WHAT, &MODE_KEYS, report)?;
    let failover = LocalityMode::Failover { spill_over_below: SPILL_OVER_BELOW };
    let known = [("failover", failover), ("strict", LocalityMode::Strict)];
    let mode = fields.require("mode", WHAT, report);
    // Also what is wrong about a percentage without a mode is said.
    let percent = fields.get("spill_over_below").map(|node| percentage(node, report));
    let mode = crate::decode::choice(mode?, "mode", &known, report)?;
    match (fields.get("spill_over_below"), mode) {
        (None, mode) => Some(mode),
        (Some(node), LocalityMode::Strict) => {
            let message = "`spill_over_below` belongs to `mode: failover`: remove it";
            report.at(node.position, message);
            None
        }
        (Some(_), LocalityMode::Failover { .. }) => {
            Some(LocalityMode::Failover { spill_over_below: percent?? })
        }
    }
}

fn percentage(node: &Node, report: &mut Report<'_>) -> Option<u8> {
    let scalar = scalar(node, "`spill_over_below`", report)?;
    report.accept(node.position, whole_number(scalar, "percentage", 1..=100))
}

/// Something in a service that does not go with its `load_balancing.locality`.
pub(crate) enum Clash {
    /// In what stands under that key.
    Mode(&'static str),
    /// In the endpoint of this index.
    Endpoint(usize, &'static str),
}

/// What in `service` does not go with its `load_balancing.locality`, of a node that `is_placed` or not.
pub(crate) fn clash(service: &Service, is_placed: bool) -> Option<Clash> {
    let mode = service.balancing.locality?;
    let by_locality =
        |endpoint: &Endpoint| matches!(endpoint.place.as_deref(), Some(Place::Locality(_)));
    let endpoints = &service.endpoints;
    if mode != LocalityMode::Strict {
        match service.policy {
            Policy::RoundRobin => {
                return Some(Clash::Mode(
                    "`policy: round_robin` gives every endpoint the same and cannot spill over: \
                     write another policy, or `mode: strict`",
                ));
            }
            Policy::LeastConnections => {
                return Some(Clash::Mode(
                    "`policy: least_connections` goes by what is open and cannot spill over: write \
                     another policy, or `mode: strict`",
                ));
            }
            Policy::Random | Policy::Weighted | Policy::Maglev => {}
        }
    }
    if let Some(at) = endpoints.iter().position(|endpoint| endpoint.place.is_none()) {
        return Some(Clash::Endpoint(
            at,
            "the endpoint has neither `locality` nor `priority`, which the service's \
             `load_balancing.locality` goes by: add one",
        ));
    }
    let odd = endpoints.iter().position(|endpoint| match mode {
        LocalityMode::Strict => !by_locality(endpoint),
        LocalityMode::Failover { .. } => by_locality(endpoint) != by_locality(&endpoints[0]),
    });
    if let Some(at) = odd {
        return Some(Clash::Endpoint(
            at,
            match mode {
                LocalityMode::Strict => {
                    "the endpoint has a `priority`, and `mode: strict` goes by `locality`: write that"
                }
                LocalityMode::Failover { .. } => {
                    "some endpoints of the service have a `locality` and others a `priority`, which \
                     cannot be compared: write one kind for all of them"
                }
            },
        ));
    }
    let needs_node = endpoints.first().is_some_and(by_locality);
    (needs_node && !is_placed).then_some(Clash::Mode(
        "the endpoints have localities, and nothing says where this node is: add \
         `node: { region: …, zone: … }` beside `services`",
    ))
}
