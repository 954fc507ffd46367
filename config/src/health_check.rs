//! `health_check`: how a service's endpoints are asked whether they work. Types, decoding and rules.

use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::diagnostic::Position;
use crate::fields::{Fields, list, scalar};
use crate::limit::{
    MAX_CHECK_HOST_BYTES, MAX_CHECK_INTERVAL, MAX_CHECK_PATH_BYTES, MAX_CHECK_THRESHOLD,
    MAX_EXPECTED_STATUSES, MIN_CHECK_INTERVAL, MIN_CHECK_TIMEOUT,
};
use crate::model::{Protocol, Service};
use crate::report::{Excerpt, Report};
use crate::scalar::{duration, whole_number};
use crate::tree::{Node, Scalar, Value};

/// How the endpoints of a service are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is done.
    pub probe: Probe,
    /// At which port; without one at the port that connections go to.
    pub port: Option<NonZeroU16>,
    /// From the start of one check of an endpoint to the start of its next.
    pub interval: Duration,
    /// How long a check may take; not longer than the interval.
    pub timeout: Duration,
    /// Passed checks in a row after which an unhealthy endpoint is healthy.
    pub healthy_threshold: u8,
    /// Failed checks in a row after which a healthy endpoint is unhealthy.
    pub unhealthy_threshold: u8,
    /// What connections get when nobody is healthy.
    pub when_all_unhealthy: WhenAllUnhealthy,
}

/// What a check does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// It opens a TCP connection, and closes it.
    Tcp,
    /// It asks over HTTP/1.1.
    Http(Http),
}

/// What a check asks over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// Of the `GET`; it begins with a slash.
    pub path: String,
    /// The `Host`; without one it is the address and port that are checked.
    pub host: Option<String>,
    /// Statuses that pass; at least one.
    pub expected_statuses: Vec<RangeInclusive<u16>>,
}

/// What connections get when no endpoint is healthy that their sockets could use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenAllUnhealthy {
    /// All endpoints, as if they were healthy.
    #[default]
    UseAll,
    /// What `no_endpoint` says.
    NoEndpoint,
}

/// The key of a service.
pub(crate) const KEY: &str = "health_check";
const WHAT: &str = "`health_check`";
const KEYS: [&str; 8] = [
    "tcp",
    "http",
    "port",
    "interval",
    "timeout",
    "healthy_threshold",
    "unhealthy_threshold",
    "when_all_unhealthy",
];
const HTTP_KEYS: [&str; 3] = ["path", "host", "expected_statuses"];

/// Interval unless one is configured: that of Kubernetes' probes, halved.
const INTERVAL: Duration = Duration::from_secs(5);
/// Timeout unless one is configured, or the interval is shorter: that of Kubernetes' probes.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Thresholds unless they are configured: `rise` and `fall` of HAProxy.
const HEALTHY_THRESHOLD: u8 = 2;
const UNHEALTHY_THRESHOLD: u8 = 3;
/// What passes unless something else is configured: success (RFC 9110, section 15.3).
const SUCCESS: RangeInclusive<u16> = 200..=299;
/// Every status there can be (RFC 9110, section 15).
const STATUSES: RangeInclusive<u16> = 100..=599;

impl Http {
    /// Whether an answer with `status` passes.
    #[must_use]
    pub fn expects(&self, status: u16) -> bool {
        self.expected_statuses.iter().any(|range| range.contains(&status))
    }
}

impl WhenAllUnhealthy {
    /// As the configuration writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UseAll => "use_all",
            Self::NoEndpoint => "no_endpoint",
        }
    }
}

/// A check, and where it stands.
pub(crate) struct Decoded {
    pub(crate) check: HealthCheck,
    pub(crate) position: Position,
}

/// The check that `node` says, the value of [`KEY`].
pub(crate) fn decode(node: &Node, report: &mut Report<'_>) -> Option<Decoded> {
    let fields = Fields::of(node, WHAT, &KEYS, report)?;
    // Each is looked at, so that every error is found in one go.
    let probe = probe(&fields, report);
    let port = optional(&fields, "port", report, port);
    let times = times(&fields, report);
    let healthy = optional(&fields, "healthy_threshold", report, threshold);
    let unhealthy = optional(&fields, "unhealthy_threshold", report, threshold);
    let all = optional(&fields, "when_all_unhealthy", report, when_all_unhealthy);
    let (interval, timeout) = times?;
    let check = HealthCheck {
        probe: probe?,
        port: port?,
        interval,
        timeout,
        healthy_threshold: healthy?.unwrap_or(HEALTHY_THRESHOLD),
        unhealthy_threshold: unhealthy?.unwrap_or(UNHEALTHY_THRESHOLD),
        when_all_unhealthy: all?.unwrap_or_default(),
    };
    Some(Decoded { check, position: node.position })
}

/// What `decode` makes of the value of `key`. The outer `None` means that it is wrong.
fn optional<T>(
    fields: &Fields<'_>,
    key: &'static str,
    report: &mut Report<'_>,
    decode: fn(&Node, &'static str, &mut Report<'_>) -> Option<T>,
) -> Option<Option<T>> {
    match fields.get(key) {
        None => Some(None),
        Some(node) => decode(node, key, report).map(Some),
    }
}

fn probe(fields: &Fields<'_>, report: &mut Report<'_>) -> Option<Probe> {
    let tcp = fields.get("tcp").map(|node| tcp(node, report));
    let http = fields.get("http").map(|node| http(node, report));
    match (tcp, http) {
        (Some(tcp), None) => tcp,
        (None, Some(http)) => http,
        (None, None) => {
            let message = "`health_check` says neither `tcp` nor `http`: write `tcp: {}` to connect, or \
                           `http: { path: /healthz }` to ask";
            report.at(fields.position, message);
            None
        }
        (Some(_), Some(_)) => {
            let message = "`health_check` says `tcp` and `http`, and an endpoint is checked in one way: \
                           remove one of them";
            report.at(fields.get("http").map_or(fields.position, |node| node.position), message);
            None
        }
    }
}

fn tcp(node: &Node, report: &mut Report<'_>) -> Option<Probe> {
    match &node.value {
        Value::Mapping(entries) if entries.is_empty() => Some(Probe::Tcp),
        Value::Refused => None,
        _ => {
            report.at(node.position, "there is nothing to say about `tcp`: write `tcp: {}`");
            None
        }
    }
}

fn http(node: &Node, report: &mut Report<'_>) -> Option<Probe> {
    let fields = Fields::of(node, "`http`", &HTTP_KEYS, report)?;
    let path = fields.require("path", "`http`", report).map(|node| {
        let scalar = scalar(node, "the path", report)?;
        report.accept(node.position, path(scalar)).map(str::to_owned)
    });
    let host = optional(&fields, "host", report, |node, _, report| {
        let scalar = scalar(node, "the host", report)?;
        report.accept(node.position, host(scalar)).map(str::to_owned)
    });
    let expected = optional(&fields, "expected_statuses", report, statuses);
    let expected_statuses = expected?.unwrap_or_else(|| vec![SUCCESS]);
    Some(Probe::Http(Http { path: path??, host: host?, expected_statuses }))
}

/// What may stand in a request line: RFC 9112, section 3.2.1, and RFC 3986 have more to say, which is
/// left to whoever answers.
fn path(scalar: &Scalar) -> Result<&str, String> {
    let text = scalar.text.as_str();
    let wanted = "write it from the slash on, in visible ASCII, such as /healthz";
    if scalar.is_null() {
        return Err(format!("the path is empty: {wanted}"));
    }
    if text.len() > MAX_CHECK_PATH_BYTES {
        let bytes = text.len();
        return Err(format!("a path of {bytes} bytes: the limit is {MAX_CHECK_PATH_BYTES}"));
    }
    let is_visible = text.bytes().all(|byte| byte.is_ascii_graphic());
    if !text.starts_with('/') || !is_visible || text.contains('#') {
        return Err(format!("{} is not the path of a request: {wanted}", Excerpt(text)));
    }
    Ok(text)
}

/// What may stand behind `Host:` (RFC 9110, section 7.2).
fn host(scalar: &Scalar) -> Result<&str, String> {
    let text = scalar.text.as_str();
    let wanted =
        "write a name, such as web.example, or leave it out for the address that is checked";
    if scalar.is_null() {
        return Err(format!("the host is empty: {wanted}"));
    }
    if text.len() > MAX_CHECK_HOST_BYTES {
        let bytes = text.len();
        return Err(format!("a host of {bytes} bytes: the limit is {MAX_CHECK_HOST_BYTES}"));
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    if !text.bytes().all(allowed) {
        return Err(format!("{} is not a host: {wanted}", Excerpt(text)));
    }
    Ok(text)
}

fn statuses(
    node: &Node,
    key: &'static str,
    report: &mut Report<'_>,
) -> Option<Vec<RangeInclusive<u16>>> {
    let items = list(node, key, MAX_EXPECTED_STATUSES, report)?;
    if items.is_empty() {
        report.at(node.position, format_args!("`{key}` is empty: write at least one"));
        return None;
    }
    let decoded: Vec<_> = items.iter().map(|item| status_range(item, report)).collect();
    decoded.into_iter().collect()
}

/// `204`, or `200-299`.
fn status_range(node: &Node, report: &mut Report<'_>) -> Option<RangeInclusive<u16>> {
    let scalar = scalar(node, "the status", report)?;
    let Some((first, last)) = scalar.text.split_once('-').filter(|(first, _)| !first.is_empty())
    else {
        let status = whole_number(scalar, "status", STATUSES);
        return report.accept(node.position, status).map(|status| status..=status);
    };
    let bound = |text: &str| text.parse().ok().filter(|bound| STATUSES.contains(bound));
    match (bound(first), bound(last)) {
        (Some(first), Some(last)) if first <= last => Some(first..=last),
        _ => {
            let text = Excerpt(&scalar.text);
            let (least, most) = (STATUSES.start(), STATUSES.end());
            report.at(
                node.position,
                format_args!(
                    "{text} is not a range of statuses: write two numbers between {least} and \
                     {most}, the smaller one first, such as 200-299"
                ),
            );
            None
        }
    }
}

fn port(node: &Node, what: &'static str, report: &mut Report<'_>) -> Option<NonZeroU16> {
    let scalar = scalar(node, what, report)?;
    let number = report.accept(node.position, whole_number(scalar, what, 1..=u16::MAX))?;
    NonZeroU16::new(number)
}

fn threshold(node: &Node, _: &'static str, report: &mut Report<'_>) -> Option<u8> {
    let scalar = scalar(node, "the threshold", report)?;
    report.accept(node.position, whole_number(scalar, "threshold", 1..=MAX_CHECK_THRESHOLD))
}

fn when_all_unhealthy(
    node: &Node,
    _: &'static str,
    report: &mut Report<'_>,
) -> Option<WhenAllUnhealthy> {
    let all = [WhenAllUnhealthy::UseAll, WhenAllUnhealthy::NoEndpoint];
    let named = all.map(|what| (what.as_str(), what));
    crate::decode::choice(node, "`when_all_unhealthy`", &named, report)
}

/// Interval and timeout.
fn times(fields: &Fields<'_>, report: &mut Report<'_>) -> Option<(Duration, Duration)> {
    let interval = optional(fields, "interval", report, |node, what, report| {
        let scalar = scalar(node, "the interval", report)?;
        let range = MIN_CHECK_INTERVAL..=MAX_CHECK_INTERVAL;
        report.accept(node.position, duration(scalar, what, range))
    });
    let timeout = optional(fields, "timeout", report, |node, what, report| {
        let scalar = scalar(node, "the timeout", report)?;
        let range = MIN_CHECK_TIMEOUT..=MAX_CHECK_INTERVAL;
        report.accept(node.position, duration(scalar, what, range))
    });
    let interval = interval?.unwrap_or(INTERVAL);
    let timeout = timeout?.unwrap_or(TIMEOUT.min(interval));
    if timeout > interval {
        let at = fields.get("timeout").map_or(fields.position, |node| node.position);
        report.at(
            at,
            "the timeout is longer than the interval, so that the next check would come before the \
             end of this one: write a shorter `timeout`, or a longer `interval`",
        );
        return None;
    }
    Some((interval, timeout))
}

/// What in `service` does not go with its health check, if anything.
pub(crate) fn clash(service: &Service) -> Option<&'static str> {
    let check = service.health_check.as_ref()?;
    let is_datagram = service.ports.iter().any(|port| port.protocol == Protocol::Udp);
    (is_datagram && check.port.is_none()).then_some(
        "the service has a `udp` port, and only TCP can be checked: write in `port` where its \
         endpoints answer TCP",
    )
}
