//! An event as a line, in JSON or as text. Pure.

use std::fmt::{self, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use holdfast_config::LogFormat;
use holdfast_protocol::kernel::event::{Event, kind};
use holdfast_protocol::kernel::{Address, PROTOCOL_TCP, PROTOCOL_UDP};
use nix::errno::Errno;
use serde::Serialize;

use crate::serve::rows::ip;

/// States that a TCP connection ends in (`include/net/tcp_states.h`).
mod state {
    pub const FIN_WAIT2: u8 = 5;
    pub const LAST_ACK: u8 = 9;
    pub const CLOSING: u8 = 11;
}

/// The names of what an event has numbers for.
pub trait Names {
    /// The service with this number, and its port's name.
    fn service(&self, number: u32) -> Option<(String, String)>;
    /// The access policy with this number.
    fn policy(&self, number: u32) -> Option<String>;
}

/// One line. Field names are those of the access log, which docs/access-log.md describes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    time: String,
    event: &'static str,
    /// The service, or nothing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    port_name: String,
    protocol: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<SocketAddr>,
    destination: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    handshake_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sent_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    received_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retransmits: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt_us: Option<u64>,
    cgroup: u64,
    socket: u64,
}

impl Line {
    /// The line of `event`, which happened when `CLOCK_MONOTONIC` said what it says; it began to count at
    /// `began`.
    #[must_use]
    pub fn new(event: &Event, began: SystemTime, names: &impl Names) -> Self {
        let (is_tcp, kind) = (event.protocol == PROTOCOL_TCP, event.kind);
        let (service, port_name) = match event.service {
            Event::NO_SERVICE => Default::default(),
            // A service that is gone by now has a number still.
            number => {
                names.service(number).unwrap_or_else(|| (format!("#{number}"), String::new()))
            }
        };
        let policy = (event.policy != Event::NO_POLICY)
            .then(|| names.policy(event.policy).unwrap_or_else(|| format!("#{}", event.policy)));
        let time = began + Duration::from_nanos(event.at_ns);
        let is_closed = kind == kind::CLOSED;
        let of_closed_tcp = |value| (is_closed && is_tcp).then_some(value);
        let has_handshake =
            is_tcp && matches!(kind, kind::ESTABLISHED | kind::CLOSED | kind::FAILED);
        Self {
            time: humantime::format_rfc3339_micros(time).to_string(),
            event: kind_name(kind),
            service,
            port_name,
            protocol: match event.protocol {
                PROTOCOL_TCP => "tcp",
                PROTOCOL_UDP => "udp",
                _ => "unknown",
            },
            source: socket(event.source, event.source_port_be)
                .filter(|address| !address.ip().is_unspecified()),
            destination: SocketAddr::new(ip(event.original), u16::from_be(event.original_port_be)),
            endpoint: socket(event.endpoint, event.endpoint_port_be),
            policy,
            error: (event.errno != 0).then(|| format!("{:?}", Errno::from_raw(event.errno.into()))),
            reason: reason(event),
            handshake_us: has_handshake.then_some(event.handshake_ns / 1000),
            duration_us: is_closed.then_some(event.lifetime_ns / 1000),
            sent_bytes: of_closed_tcp(event.sent),
            received_bytes: of_closed_tcp(event.received),
            retransmits: (is_tcp && matches!(kind, kind::CLOSED | kind::FAILED))
                .then_some(event.retransmits),
            rtt_us: of_closed_tcp(event.smoothed_rtt_us.into()).filter(|time| *time > 0),
            cgroup: event.cgroup,
            socket: event.socket,
        }
    }

    /// Adds the line to `text`, with its end.
    pub fn write(&self, format: LogFormat, text: &mut String) {
        match format {
            LogFormat::Json => text.push_str(
                &serde_json::to_string(self).expect("texts, numbers and addresses can be written"),
            ),
            LogFormat::Text => write!(text, "{self}").expect("a string takes everything"),
        }
        text.push('\n');
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { time, event, service, protocol, destination, .. } = self;
        let service = if service.is_empty() { "-" } else { service };
        write!(f, "{time} {event} {service} {protocol} ")?;
        match self.source {
            Some(source) => write!(f, "{source}")?,
            None => write!(f, "-")?,
        }
        write!(f, " > {destination}")?;
        if let Some(endpoint) = self.endpoint {
            write!(f, " > {endpoint}")?;
        }
        let texts = [
            ("policy", self.policy.as_deref()),
            ("error", self.error.as_deref()),
            ("reason", self.reason),
        ];
        for (name, value) in texts {
            if let Some(value) = value {
                write!(f, " {name}={value}")?;
            }
        }
        let numbers = [
            ("handshake_us", self.handshake_us),
            ("duration_us", self.duration_us),
            ("sent_bytes", self.sent_bytes),
            ("received_bytes", self.received_bytes),
            ("retransmits", self.retransmits.map(u64::from)),
            ("rtt_us", self.rtt_us),
            ("cgroup", Some(self.cgroup)),
            ("socket", Some(self.socket)),
        ];
        for (name, value) in numbers {
            if let Some(value) = value {
                write!(f, " {name}={value}")?;
            }
        }
        Ok(())
    }
}

fn socket(address: Address, port_be: u16) -> Option<SocketAddr> {
    (address != [0; 4]).then(|| SocketAddr::new(ip(address), u16::from_be(port_be)))
}

const fn kind_name(number: u8) -> &'static str {
    match number {
        kind::SENT => "sent",
        kind::ESTABLISHED => "established",
        kind::CLOSED => "closed",
        kind::FAILED => "failed",
        kind::REFUSED => "refused",
        kind::DENIED => "denied",
        kind::LIMITED => "limited",
        kind::UNSETTLED => "unsettled",
        kind::FLOW => "flow",
        kind::WOULD_DENY => "would_deny",
        _ => "unknown",
    }
}

/// How a connection ended, as far as the kernel tells.
const fn reason(event: &Event) -> Option<&'static str> {
    match (event.kind, event.last_state) {
        (kind::FAILED, Event::GIVEN_UP) => Some("given_up"),
        // What is refused is refused by the first answer.
        (kind::FAILED, _) if event.retransmits == 0 => Some("refused"),
        (kind::FAILED, _) => Some("timed_out"),
        (kind::CLOSED, _) if event.protocol != PROTOCOL_TCP => None,
        (kind::CLOSED, state::LAST_ACK) => Some("endpoint_closed"),
        (kind::CLOSED, state::FIN_WAIT2 | state::CLOSING) => Some("client_closed"),
        (kind::CLOSED, Event::DRAINED) => Some("drained"),
        // A reset by either side, or nothing was heard for too long.
        (kind::CLOSED, _) => Some("aborted"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use holdfast_protocol::kernel::mapped;

    use super::*;

    struct Web;

    impl Names for Web {
        fn service(&self, number: u32) -> Option<(String, String)> {
            (number == 7).then(|| ("web".to_owned(), "http".to_owned()))
        }
        fn policy(&self, number: u32) -> Option<String> {
            (number == 2).then(|| "no-web".to_owned())
        }
    }

    fn at(host: u8) -> Address {
        mapped(u32::from_ne_bytes([127, 0, 0, host]))
    }

    fn closed() -> Event {
        Event {
            at_ns: 1_500_000_000,
            socket: 41,
            cgroup: 12,
            handshake_ns: 31_000,
            lifetime_ns: 2_000_000,
            sent: 80,
            received: 512,
            source: at(1),
            original: at(10),
            endpoint: at(2),
            source_port_be: 40_000_u16.to_be(),
            original_port_be: 80_u16.to_be(),
            endpoint_port_be: 8080_u16.to_be(),
            protocol: PROTOCOL_TCP,
            kind: kind::CLOSED,
            service: 7,
            policy: Event::NO_POLICY,
            smoothed_rtt_us: 25,
            last_state: state::LAST_ACK,
            is_logged: 1,
            ..Event::default()
        }
    }

    fn written(event: &Event, format: LogFormat) -> String {
        let mut text = String::new();
        Line::new(event, SystemTime::UNIX_EPOCH, &Web).write(format, &mut text);
        text
    }

    #[test]
    fn a_closed_connection_is_told_in_full() {
        assert_eq!(
            written(&closed(), LogFormat::Json),
            concat!(
                r#"{"time":"1970-01-01T00:00:01.500000Z","event":"closed","service":"web","#,
                r#""port_name":"http","protocol":"tcp","source":"127.0.0.1:40000","#,
                r#""destination":"127.0.0.10:80","endpoint":"127.0.0.2:8080","#,
                r#""reason":"endpoint_closed","handshake_us":31,"duration_us":2000,"sent_bytes":80,"#,
                r#""received_bytes":512,"retransmits":0,"rtt_us":25,"cgroup":12,"socket":41}"#,
                "\n"
            )
        );
        assert_eq!(
            written(&closed(), LogFormat::Text),
            "1970-01-01T00:00:01.500000Z closed web tcp 127.0.0.1:40000 > 127.0.0.10:80 > \
             127.0.0.2:8080 reason=endpoint_closed handshake_us=31 duration_us=2000 sent_bytes=80 \
             received_bytes=512 retransmits=0 rtt_us=25 cgroup=12 socket=41\n"
        );
    }

    #[test]
    fn what_a_policy_denies_is_told_by_its_name_and_error() {
        let event = Event {
            kind: kind::DENIED,
            service: Event::NO_SERVICE,
            policy: 2,
            errno: 1,
            source: [0; 4],
            ..closed()
        };
        let line = written(&event, LogFormat::Text);
        let wanted = "denied - tcp - > 127.0.0.10:80 > 127.0.0.2:8080 policy=no-web error=EPERM ";
        assert!(line.contains(wanted), "{line}");
        let nameless = Event { policy: 3, service: 9, ..event };
        let line = written(&nameless, LogFormat::Json);
        assert!(line.contains(r##""service":"#9""##) && line.contains(r##""policy":"#3""##));
    }

    #[test]
    fn how_an_attempt_failed_is_told_apart() {
        let failed = |last_state, retransmits| {
            reason(&Event { kind: kind::FAILED, last_state, retransmits, ..closed() })
        };
        assert_eq!(failed(2, 0), Some("refused"));
        assert_eq!(failed(2, 3), Some("timed_out"));
        assert_eq!(failed(Event::GIVEN_UP, 3), Some("given_up"));
        let ended = |last_state| reason(&Event { last_state, ..closed() });
        assert_eq!(
            [5, 11, 9].map(ended),
            ["client_closed", "client_closed", "endpoint_closed"].map(Some)
        );
        assert_eq!([1, 4, 8].map(ended), [Some("aborted"); 3]);
        assert_eq!(reason(&Event { protocol: PROTOCOL_UDP, ..closed() }), None);
    }
}
