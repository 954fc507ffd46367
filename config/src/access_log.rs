//! `access_log`: which connections get a line in the access log.

use crate::fields::{Fields, list, scalar};
use crate::report::{Excerpt, Report};
use crate::scalar::one_of;
use crate::tree::{Node, Scalar};

/// The key of a file, and of a service.
pub(crate) const KEY: &str = "access_log";
const FORMAT: &str = "format";
const SAMPLE: &str = "sample";
const EVENTS: &str = "events";
const FILE_KEYS: [&str; 3] = [FORMAT, SAMPLE, EVENTS];
const SERVICE_KEYS: [&str; 2] = [SAMPLE, EVENTS];

/// The access log: how it is written, and what is in it of services that do not say it themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessLog {
    /// How its lines are written.
    pub format: LogFormat,
    /// What it has.
    pub entries: LogEntries,
}

/// How a line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// As a JSON object.
    #[default]
    Json,
    /// For people.
    Text,
}

/// What is in the access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntries {
    /// Of which share of connections.
    pub sample: Sample,
    /// Which ends of a connection; no duplicates.
    pub events: Vec<LogEvent>,
}

/// A share, in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sample(pub u32);

/// How the story of a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogEvent {
    /// It was established, and has ended.
    Closed,
    /// The endpoint was not reached.
    Failed,
    /// There was no endpoint.
    Refused,
    /// An access policy denied it.
    Denied,
    /// A limit was reached.
    Limited,
    /// The service was being changed at every look.
    Unsettled,
    /// A datagram of an unconnected socket has begun a flow.
    Flow,
    /// An access policy that is tried out would have denied it.
    WouldDeny,
}

impl Sample {
    /// The whole.
    pub const WHOLE: Self = Self(1_000_000);
    /// Nothing.
    pub const NONE: Self = Self(0);
}

impl LogEvent {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Closed,
        Self::Failed,
        Self::Refused,
        Self::Denied,
        Self::Limited,
        Self::Unsettled,
        Self::Flow,
        Self::WouldDeny,
    ];

    /// As the configuration writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Denied => "denied",
            Self::Limited => "limited",
            Self::Unsettled => "unsettled",
            Self::Flow => "flow",
            Self::WouldDeny => "would_deny",
        }
    }
}

impl Default for LogEntries {
    fn default() -> Self {
        Self { sample: Sample::WHOLE, events: LogEvent::ALL.to_vec() }
    }
}

/// The access log that `node` says, the value of [`KEY`] in a file.
pub(crate) fn of_file(node: &Node, report: &mut Report<'_>) -> Option<AccessLog> {
    let fields = Fields::of(node, "`access_log`", &FILE_KEYS, report)?;
    let format = fields.get(FORMAT).map(|node| format(node, report));
    let entries = entries(&fields, report);
    Some(AccessLog {
        format: format.unwrap_or_else(|| Some(LogFormat::default()))?,
        entries: entries?,
    })
}

/// What `node` says, the value of [`KEY`] in a service.
pub(crate) fn of_service(node: &Node, report: &mut Report<'_>) -> Option<LogEntries> {
    let fields = Fields::of(node, "`access_log`", &SERVICE_KEYS, report)?;
    entries(&fields, report)
}

fn format(node: &Node, report: &mut Report<'_>) -> Option<LogFormat> {
    const WHAT: &str = "format of the access log";
    let scalar = scalar(node, "the format of the access log", report)?;
    let word = report.accept(node.position, one_of(scalar, WHAT, &["json", "text"]))?;
    Some(if word == "text" { LogFormat::Text } else { LogFormat::Json })
}

fn entries(fields: &Fields<'_>, report: &mut Report<'_>) -> Option<LogEntries> {
    let all = LogEntries::default();
    let sample = fields.get(SAMPLE).map(|node| {
        let scalar = scalar(node, "`sample`", report)?;
        report.accept(node.position, share(scalar))
    });
    let events = fields.get(EVENTS).map(|node| events(node, report));
    Some(LogEntries {
        sample: sample.unwrap_or(Some(all.sample))?,
        events: events.unwrap_or(Some(all.events))?,
    })
}

/// The list may be short, but not empty: `sample: 0` is what says nothing is logged.
fn events(node: &Node, report: &mut Report<'_>) -> Option<Vec<LogEvent>> {
    let names = LogEvent::ALL.map(LogEvent::as_str);
    let items = list(node, EVENTS, names.len(), report)?;
    if items.is_empty() {
        report
            .at(node.position, "`events` is empty: write at least one, or `sample: 0` to log none");
        return None;
    }
    let mut events: Vec<LogEvent> = Vec::new();
    for item in items {
        let scalar = scalar(item, "the event", report)?;
        let word = report.accept(item.position, one_of(scalar, "event", &names))?;
        let event = LogEvent::ALL.into_iter().find(|event| event.as_str() == word)?;
        if events.contains(&event) {
            report.at(item.position, format_args!("{word} is listed already"));
            return None;
        }
        events.push(event);
    }
    events.sort_unstable();
    Some(events)
}

/// A percentage, `0` to `100`, with up to four decimals.
fn share(scalar: &Scalar) -> Result<Sample, String> {
    const MAX_DECIMALS: usize = 4;
    let text = scalar.text.as_str();
    let wanted =
        "write a percentage between 0 and 100, such as 1 or 0.05, with up to four decimals";
    let refused = || format!("the `sample` {} is not a percentage: {wanted}", Excerpt(text));
    if scalar.is_null() {
        return Err(format!("the `sample` is empty: {wanted}"));
    }
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let are_digits = |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    if !scalar.plain || !are_digits(whole) || !are_digits(decimals) || decimals.len() > MAX_DECIMALS
    {
        return Err(refused());
    }
    let millionths = format!("{whole}{decimals:0<MAX_DECIMALS$}").parse().ok().map(Sample);
    millionths.filter(|sample| *sample <= Sample::WHOLE).ok_or_else(refused)
}
