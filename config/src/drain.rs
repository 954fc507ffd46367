//! `drain`: what becomes of the connections of endpoints that drain.

use std::time::Duration;

use crate::fields::{Fields, scalar};
use crate::limit::MAX_DRAIN_TIME;
use crate::report::Report;
use crate::scalar::duration;
use crate::tree::Node;

/// What becomes of the connections that an endpoint has when it begins to drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// They are closed so long afterwards; at most a day.
    pub close_after: Duration,
}

/// The key of a service.
pub(crate) const KEY: &str = "drain";
const WHAT: &str = "`drain`";
const CLOSE_AFTER: &str = "close_after";

/// What `node` says, the value of [`KEY`].
pub(crate) fn decode(node: &Node, report: &mut Report<'_>) -> Option<Drain> {
    let fields = Fields::of(node, WHAT, &[CLOSE_AFTER], report)?;
    let node = fields.require(CLOSE_AFTER, WHAT, report)?;
    let scalar = scalar(node, "`close_after`", report)?;
    let time = duration(scalar, CLOSE_AFTER, Duration::ZERO..=MAX_DRAIN_TIME);
    let close_after = report.accept(node.position, time)?;
    Some(Drain { close_after })
}
