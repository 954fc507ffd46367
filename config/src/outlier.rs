//! `outlier_ejection`: whom the connections of clients themselves tell apart.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::diagnostic::Position;
use crate::fields::{Fields, scalar};
use crate::limit::{
    MAX_EJECTION_TIME, MAX_FAILURES, MAX_RATE_INTERVAL, MIN_EJECTION_TIME, MIN_RATE_INTERVAL,
};
use crate::model::{Protocol, Service};
use crate::report::Report;
use crate::scalar::{duration, whole_number};
use crate::tree::Node;

/// When an endpoint gets no new connections for a time, because those it got have failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutlierEjection {
    /// So many connections in a row that failed, if that is looked at.
    pub consecutive_failures: Option<u32>,
    /// So large a share that failed, if that is looked at. At least one of the two is.
    pub failure_rate: Option<FailureRate>,
    /// How long the first ejection lasts; one after others so many times longer.
    pub base_time: Duration,
    /// How long one lasts at most; not shorter than the first.
    pub max_time: Duration,
    /// How many of a service's endpoints may be out at once, in percent: 1 to 100.
    pub max_ejected_percent: u8,
}

/// A share of connections that failed, over intervals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailureRate {
    /// So many percent, or more: 1 to 100.
    pub percent: u8,
    /// With fewer attempts in an interval it says nothing.
    pub min_attempts: u32,
    /// The interval.
    pub interval: Duration,
}

/// The key of a service.
pub(crate) const KEY: &str = "outlier_ejection";
const WHAT: &str = "`outlier_ejection`";
const CONSECUTIVE: &str = "consecutive_failures";
const RATE: &str = "failure_rate";
const BASE_TIME: &str = "base_time";
const MAX_TIME: &str = "max_time";
const MAX_EJECTED: &str = "max_ejected_percent";
const KEYS: [&str; 5] = [CONSECUTIVE, RATE, BASE_TIME, MAX_TIME, MAX_EJECTED];
const RATE_KEYS: [&str; 3] = ["percent", "min_attempts", "interval"];

/// Failures in a row unless something else is said: `consecutive_5xx` of Envoy.
const FAILURES: u32 = 5;
/// What a failure rate is without its keys. The share is what `failure_percentage_threshold` of Envoy is
/// seldom left at; fewer than 20 attempts say little about it.
const PERCENT: u8 = 50;
const MIN_ATTEMPTS: u32 = 20;
/// `interval` of Envoy.
const INTERVAL: Duration = Duration::from_secs(10);
/// `base_ejection_time` and `max_ejection_time` of Envoy.
const FIRST: Duration = Duration::from_secs(30);
const LONGEST: Duration = Duration::from_secs(5 * 60);
/// Half of the endpoints carry what all did, if anything can.
const EJECTED_PERCENT: u8 = 50;

const PERCENTAGES: RangeInclusive<u8> = 1..=100;

/// What it says, and where it stands.
pub(crate) struct Decoded {
    pub(crate) ejection: OutlierEjection,
    pub(crate) position: Position,
}

/// What `node` says, the value of [`KEY`].
pub(crate) fn decode(node: &Node, report: &mut Report<'_>) -> Option<Decoded> {
    let fields = Fields::of(node, WHAT, &KEYS, report)?;
    // Each is looked at, so that every error is found in one go.
    let in_a_row = number(&fields, CONSECUTIVE, 1..=MAX_FAILURES, report);
    let rate = match fields.get(RATE) {
        None => Some(None),
        Some(node) => failure_rate(node, report).map(Some),
    };
    let times = times(&fields, report);
    let percent = number(&fields, MAX_EJECTED, PERCENTAGES, report);
    let (in_a_row, failure_rate, (base_time, max_time)) = (in_a_row?, rate?, times?);
    let is_silent = in_a_row.is_none() && failure_rate.is_none();
    let ejection = OutlierEjection {
        consecutive_failures: in_a_row.or(is_silent.then_some(FAILURES)),
        failure_rate,
        base_time,
        max_time,
        max_ejected_percent: percent?.unwrap_or(EJECTED_PERCENT),
    };
    Some(Decoded { ejection, position: node.position })
}

fn failure_rate(node: &Node, report: &mut Report<'_>) -> Option<FailureRate> {
    let fields = Fields::of(node, "`failure_rate`", &RATE_KEYS, report)?;
    let percent = number(&fields, "percent", PERCENTAGES, report);
    let attempts = number(&fields, "min_attempts", 1..=MAX_FAILURES, report);
    let interval = time(&fields, "interval", MIN_RATE_INTERVAL..=MAX_RATE_INTERVAL, report);
    Some(FailureRate {
        percent: percent?.unwrap_or(PERCENT),
        min_attempts: attempts?.unwrap_or(MIN_ATTEMPTS),
        interval: interval?.unwrap_or(INTERVAL),
    })
}

/// The first ejection's time, and the longest one.
fn times(fields: &Fields<'_>, report: &mut Report<'_>) -> Option<(Duration, Duration)> {
    let range = MIN_EJECTION_TIME..=MAX_EJECTION_TIME;
    let base = time(fields, BASE_TIME, range.clone(), report);
    let most = time(fields, MAX_TIME, range, report);
    let base = base?.unwrap_or(FIRST);
    let most = most?.unwrap_or(LONGEST.max(base));
    if most < base {
        let at = fields.get(MAX_TIME).map_or(fields.position, |node| node.position);
        let message = "`max_time` is shorter than `base_time`, which the first ejection lasts: write a \
                       longer `max_time`, or a shorter `base_time`";
        report.at(at, message);
        return None;
    }
    Some((base, most))
}

/// The number that `key` says, if it is there. The outer `None` means that it is wrong.
fn number<N>(
    fields: &Fields<'_>,
    key: &str,
    range: RangeInclusive<N>,
    report: &mut Report<'_>,
) -> Option<Option<N>>
where
    N: Copy + std::fmt::Display + std::str::FromStr + PartialOrd,
{
    let Some(node) = fields.get(key) else { return Some(None) };
    let scalar = scalar(node, &format!("`{key}`"), report)?;
    report.accept(node.position, whole_number(scalar, key, range)).map(Some)
}

/// The same of a duration.
fn time(
    fields: &Fields<'_>,
    key: &str,
    range: RangeInclusive<Duration>,
    report: &mut Report<'_>,
) -> Option<Option<Duration>> {
    let Some(node) = fields.get(key) else { return Some(None) };
    let scalar = scalar(node, &format!("`{key}`"), report)?;
    report.accept(node.position, duration(scalar, key, range)).map(Some)
}

/// What in `service` does not go with it, if anything.
pub(crate) fn clash(service: &Service) -> Option<&'static str> {
    let has_tcp = service.ports.iter().any(|port| port.protocol == Protocol::Tcp);
    // Ports that were refused are an error of their own.
    (!has_tcp && !service.ports.is_empty() && service.outlier_ejection.is_some()).then_some(
        "the service has only `udp` ports, and datagrams do not fail: remove `outlier_ejection`, or \
         use `health_check` with a `port`",
    )
}
