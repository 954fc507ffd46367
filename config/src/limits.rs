//! Bounds on connections: the mapping `limits` of a service.

use std::num::NonZeroU32;

use crate::fields::{Fields, scalar};
use crate::limit::MAX_CONNECTIONS;
use crate::model::Limits;
use crate::report::Report;
use crate::scalar::whole_number;
use crate::tree::Node;

const KEYS: [&str; 4] = ["connections", "pending", "endpoint_connections", "endpoint_pending"];

/// The bounds at `node`, as far as they can be told; what cannot is reported.
pub(crate) fn limits(node: &Node, report: &mut Report<'_>) -> Option<Limits> {
    let fields = Fields::of(node, "`limits`", &KEYS, report)?;
    let [connections, pending, endpoint_connections, endpoint_pending] =
        KEYS.map(|key| fields.get(key).and_then(|node| bound(node, key, report)));
    Some(Limits { connections, pending, endpoint_connections, endpoint_pending })
}

/// A bound of 0 would let nothing through: that is what a service without endpoints says.
fn bound(node: &Node, key: &str, report: &mut Report<'_>) -> Option<NonZeroU32> {
    let what = format!("limit `{key}`");
    let scalar = scalar(node, &what, report)?;
    let number = report.accept(node.position, whole_number(scalar, &what, 1..=MAX_CONNECTIONS))?;
    NonZeroU32::new(number)
}
