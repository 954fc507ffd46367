//! A client that scrapes: one request on a connection of its own, and what came of it.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Where the tests have metrics served, each in a network namespace of its own.
pub const METRICS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9150);

/// Above what a start of a supervisor takes, so that a scrape waits it out.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why there is no answer.
#[derive(Debug)]
pub enum NoAnswer {
    /// Nobody listened.
    Refused(io::Error),
    /// Who had accepted it ended before it had answered.
    Cut(String),
}

/// What a server answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status line's number.
    pub status: u16,
    /// Everything before the body.
    pub head: String,
    /// Without its framing.
    pub body: String,
}

/// The samples of a scrape, by name and labels.
pub type Samples = BTreeMap<String, f64>;

/// Sends `request` and reads the answer to its end.
///
/// # Errors
///
/// [`NoAnswer`], also when less came than the answer said there would.
pub fn send(address: SocketAddr, request: &[u8]) -> Result<Answer, NoAnswer> {
    let cut = |error: io::Error| NoAnswer::Cut(error.to_string());
    let mut stream = TcpStream::connect(address).map_err(NoAnswer::Refused)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(cut)?;
    stream.write_all(request).map_err(cut)?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).map_err(cut)?;
    let text = String::from_utf8(bytes).map_err(|error| NoAnswer::Cut(error.to_string()))?;
    answer(&text).ok_or(NoAnswer::Cut(text))
}

/// Asks for `path`.
///
/// # Errors
///
/// As [`send`].
pub fn get(address: SocketAddr, path: &str) -> Result<Answer, NoAnswer> {
    send(address, format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes())
}

/// The samples that are served at [`METRICS`].
///
/// # Errors
///
/// As [`send`].
///
/// # Panics
///
/// When the answer is another one.
pub fn scrape() -> Result<Samples, NoAnswer> {
    let answer = get(METRICS, "/metrics")?;
    assert_eq!(answer.status, 200, "{answer:?}");
    Ok(samples(&answer.body))
}

/// The samples in `text`.
///
/// # Panics
///
/// When a line is none.
#[must_use]
pub fn samples(text: &str) -> Samples {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
        (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("no number: {line}")))
    };
    lines.map(sample).collect()
}

/// The counters in `samples` that went back since `before`, or are gone.
#[must_use]
pub fn gone_back(before: &Samples, samples: &Samples) -> Vec<String> {
    let name = |sample: &str| sample.split('{').next().unwrap_or_default().to_owned();
    let counters = before.iter().filter(|(sample, _)| name(sample).ends_with("_total"));
    let back =
        counters.filter(|(sample, value)| !samples.get(*sample).is_some_and(|now| now >= value));
    back.map(|(sample, value)| format!("{sample}: {value} then {:?}", samples.get(sample)))
        .collect()
}

/// `None` when its end is missing.
fn answer(text: &str) -> Option<Answer> {
    let (head, rest) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let field = |name: &str| {
        head.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
    };
    let body = if let Some(length) = field("Content-Length:") {
        let length: usize = length.parse().ok()?;
        // Nothing at all is right as well: it may have been asked for the head only.
        (rest.len() == length || rest.is_empty()).then(|| rest.to_owned())?
    } else if field("Transfer-Encoding:").is_some() && !rest.is_empty() {
        unchunked(rest)?
    } else {
        rest.to_owned()
    };
    Some(Answer { status, head: head.to_owned(), body })
}

fn unchunked(mut text: &str) -> Option<String> {
    let mut body = String::new();
    loop {
        let (length, rest) = text.split_once("\r\n")?;
        let length = usize::from_str_radix(length, 16).ok()?;
        if length == 0 {
            return (rest == "\r\n").then_some(body);
        }
        body.push_str(rest.get(..length)?);
        text = rest.get(length..)?.strip_prefix("\r\n")?;
    }
}
