//! Bounds on connections: the mapping `limits` of a service.

use std::num::NonZeroU32;

use crate::balancing::client_by;
use crate::fields::{Fields, scalar};
use crate::limit::MAX_CONNECTIONS;
use crate::model::{ClientRate, Limits, Rate};
use crate::report::Report;
use crate::scalar::whole_number;
use crate::tree::Node;

const BOUND_KEYS: [&str; 4] =
    ["connections", "pending", "endpoint_connections", "endpoint_pending"];
const RATE: &str = "rate";
const CLIENT_RATE: &str = "client_rate";
const KEYS: [&str; 6] =
    [BOUND_KEYS[0], BOUND_KEYS[1], BOUND_KEYS[2], BOUND_KEYS[3], RATE, CLIENT_RATE];
const PER_SECOND: &str = "connections_per_second";
const RATE_KEYS: [&str; 2] = [PER_SECOND, "burst"];
const CLIENT_RATE_KEYS: [&str; 3] = [PER_SECOND, "burst", "by"];

/// The bounds at `node`, as far as they can be told; what cannot is reported.
pub(crate) fn limits(node: &Node, report: &mut Report<'_>) -> Option<Limits> {
    let fields = Fields::of(node, "`limits`", &KEYS, report)?;
    let [connections, pending, endpoint_connections, endpoint_pending] =
        BOUND_KEYS.map(|key| fields.get(key).and_then(|node| bound(node, key, report)));
    let rate = fields.get(RATE).and_then(|node| {
        let fields = Fields::of(node, "`rate`", &RATE_KEYS, report)?;
        rate(&fields, "`rate`", report)
    });
    let client_rate = fields.get(CLIENT_RATE).and_then(|node| client_rate(node, report));
    Some(Limits { connections, pending, endpoint_connections, endpoint_pending, rate, client_rate })
}

fn client_rate(node: &Node, report: &mut Report<'_>) -> Option<ClientRate> {
    const WHAT: &str = "`client_rate`";
    let fields = Fields::of(node, WHAT, &CLIENT_RATE_KEYS, report)?;
    let by = fields.get("by").map(|node| client_by(node, "`by`", report));
    let rate = rate(&fields, WHAT, report)?;
    Some(ClientRate { rate, by: by.unwrap_or_else(|| Some(Default::default()))? })
}

/// The burst is a second's worth unless another one is said.
fn rate(fields: &Fields<'_>, what: &str, report: &mut Report<'_>) -> Option<Rate> {
    let per_second = fields.require(PER_SECOND, what, report);
    let per_second = per_second.and_then(|node| bound(node, PER_SECOND, report));
    let burst = fields.get("burst").map(|node| bound(node, "burst", report));
    let per_second = per_second?;
    Some(Rate { per_second, burst: burst.unwrap_or(Some(per_second))? })
}

/// A bound of 0 would let nothing through: that is what a service without endpoints says.
fn bound(node: &Node, key: &str, report: &mut Report<'_>) -> Option<NonZeroU32> {
    let what = format!("limit `{key}`");
    let scalar = scalar(node, &what, report)?;
    let number = report.accept(node.position, whole_number(scalar, &what, 1..=MAX_CONNECTIONS))?;
    NonZeroU32::new(number)
}
