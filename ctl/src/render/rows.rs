//! Lists: services, endpoints, links.

use holdfast_protocol::control::{DrainRow, EndpointRow, LinkStatus, ServiceRow};

use super::table::{Cell, Column, Table};
use super::{BAD, GOOD, NOTABLE, seconds};

/// One line for each port of a service.
pub fn services(rows: &[ServiceRow]) -> String {
    if rows.is_empty() {
        return "no services\n".to_owned();
    }
    let mut table = Table::new(&[
        Column::text("SERVICE"),
        Column::text("PORT"),
        Column::text("ADDRESSES"),
        Column::text("POLICY"),
        Column::number("ENDPOINTS"),
        Column::number("CONNECTIONS"),
        Column::number("OPEN"),
        Column::number("PENDING"),
        Column::number("FAILED"),
        Column::number("REFUSED"),
        Column::number("LIMITED"),
    ]);
    for row in rows {
        let none = row.endpoints == 0;
        table.push([
            Cell::new(&row.service),
            Cell::new(format_args!("{} {}/{}", row.port_name, row.port, row.protocol)),
            if row.addresses.is_empty() {
                Cell::new(HEADLESS)
            } else {
                Cell::new(row.addresses.join(", "))
            },
            Cell::new(&row.policy),
            if none { Cell::styled(NOTABLE, 0) } else { Cell::new(row.endpoints) },
            Cell::new(row.connections),
            Cell::new(row.traffic.open),
            Cell::new(row.traffic.pending),
            notable(row.traffic.failed),
            notable(row.refused),
            notable(row.limited),
        ]);
    }
    table.render()
}

/// What a service without addresses has instead of them.
const HEADLESS: &str = "headless";
/// The state of an endpoint that gets connections.
const ACTIVE: &str = "active";
/// A count that is best 0.
fn notable(count: u64) -> Cell {
    if count > 0 { Cell::styled(NOTABLE, count) } else { Cell::new(0) }
}

/// One line for each endpoint of a port.
pub fn endpoints(rows: &[EndpointRow]) -> String {
    if rows.is_empty() {
        return "no endpoints\n".to_owned();
    }
    let mut table = Table::new(&[
        Column::text("SERVICE"),
        Column::text("PORT"),
        Column::text("ENDPOINT"),
        Column::number("WEIGHT"),
        Column::text("STATE"),
        Column::number("OPENED"),
        Column::number("OPEN"),
        Column::number("PENDING"),
        Column::number("FAILED"),
        Column::number("SENT"),
        Column::number("RECEIVED"),
    ]);
    for row in rows {
        table.push([
            Cell::new(&row.service),
            Cell::new(&row.port_name),
            match &row.aliases[..] {
                [] => Cell::new(&row.endpoint),
                aliases => {
                    Cell::new(format_args!("{} (also {})", row.endpoint, aliases.join(", ")))
                }
            },
            Cell::new(row.weight),
            match (&*row.reason, row.drain.and_then(|drain| closing(&drain))) {
                (_, Some(closing)) => Cell::styled(NOTABLE, format!("{}, {closing}", row.state)),
                ("", None) if row.state == ACTIVE => Cell::new(ACTIVE),
                ("", None) => Cell::styled(NOTABLE, &row.state),
                (reason, None) => Cell::styled(NOTABLE, format!("{}: {reason}", row.state)),
            },
            Cell::new(row.traffic.opened),
            Cell::new(row.traffic.open),
            Cell::new(row.traffic.pending),
            notable(row.traffic.failed),
            Cell::new(row.traffic.sent_bytes),
            Cell::new(row.traffic.received_bytes),
        ]);
    }
    table.render()
}

/// When the connections of an endpoint that drains are closed, if it has any.
fn closing(drain: &DrainRow) -> Option<String> {
    Some(match drain.closes_in_ms? {
        0 => "closing".to_owned(),
        // That it is not over before it says 0.
        left => format!("closes in {}", seconds(left.div_ceil(1000))),
    })
}

/// One line for each link.
pub fn links(links: &[LinkStatus]) -> String {
    if links.is_empty() {
        return "no links: nothing is governed\n".to_owned();
    }
    let mut table = Table::new(&[
        Column::text("LINK"),
        Column::text("HOOK"),
        Column::number("LINK ID"),
        Column::number("PROGRAM ID"),
        Column::text("PINNED"),
        Column::text("STATE"),
        Column::text("CGROUP"),
    ]);
    for link in links {
        table.push([
            Cell::new(&link.name),
            Cell::new(&link.attach_type),
            Cell::new(link.link_id),
            Cell::new(link.prog_id),
            if link.pinned { Cell::new("yes") } else { Cell::styled(NOTABLE, "no") },
            match link.ok {
                true if link.is_idle() => Cell::new("detached"),
                true => Cell::styled(GOOD, "ok"),
                false => Cell::styled(BAD, "drifted"),
            },
            Cell::new(&link.cgroup),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use anstream::adapter::strip_str;

    use holdfast_protocol::control::TrafficRow;

    use super::*;

    const TRAFFIC: TrafficRow = TrafficRow {
        opened: 11,
        open: 4,
        pending: 1,
        failed: 0,
        sent_bytes: 5000,
        received_bytes: 70,
    };

    #[test]
    fn services_line_up() {
        let row = |service: &str, endpoints, refused| ServiceRow {
            service: service.to_owned(),
            port_name: "http".to_owned(),
            port: 80,
            protocol: "tcp".to_owned(),
            addresses: vec!["127.96.0.10".to_owned(), "fd96::10".to_owned()],
            policy: "random".to_owned(),
            endpoints,
            connections: 12,
            refused,
            limited: 0,
            traffic: TRAFFIC,
            retransmits: 0,
        };
        let text = services(&[row("web", 2, 0), row("longer-name", 0, 3)]);
        assert_eq!(
            strip_str(&text).to_string(),
            "\
SERVICE      PORT         ADDRESSES              POLICY  ENDPOINTS  CONNECTIONS  OPEN  PENDING  FAILED  REFUSED  LIMITED
web          http 80/tcp  127.96.0.10, fd96::10  random          2           12     4        1       0        0        0
longer-name  http 80/tcp  127.96.0.10, fd96::10  random          0           12     4        1       0        3        0
"
        );
        assert!(text.contains(&super::super::paint(NOTABLE, "3")), "{text:?}");
        assert_eq!(services(&[]), "no services\n");
    }

    #[test]
    fn a_link_that_drifted_stands_out() {
        let link = |ok| LinkStatus {
            name: "hf_connect4".to_owned(),
            attach_type: "cgroup_inet4_connect".to_owned(),
            link_id: 7,
            prog_id: 42,
            cgroup: "/sys/fs/cgroup".to_owned(),
            pinned: ok,
            ok,
        };
        let text = links(&[link(true), link(false)]);
        assert!(text.contains(&super::super::paint(BAD, "drifted")), "{text:?}");
        assert_eq!(
            strip_str(&text).to_string(),
            "\
LINK         HOOK                  LINK ID  PROGRAM ID  PINNED  STATE    CGROUP
hf_connect4  cgroup_inet4_connect        7          42  yes     ok       /sys/fs/cgroup
hf_connect4  cgroup_inet4_connect        7          42  no      drifted  /sys/fs/cgroup
"
        );
    }

    #[test]
    fn a_link_with_nothing_to_do_is_no_drift() {
        let link = LinkStatus {
            name: "hf_ingress".to_owned(),
            cgroup: LinkStatus::NOT_NEEDED.to_owned(),
            pinned: true,
            ok: true,
            ..LinkStatus::default()
        };
        let text = links(&[link.clone(), LinkStatus { ok: false, ..link }]);
        assert_eq!(
            strip_str(&text).to_string(),
            "\
LINK        HOOK  LINK ID  PROGRAM ID  PINNED  STATE     CGROUP
hf_ingress              0           0  yes     detached  not needed
hf_ingress              0           0  yes     drifted   not needed
"
        );
    }

    #[test]
    fn endpoints_line_up() {
        let row = |weight, state: &str, reason: &str| EndpointRow {
            service: "web".to_owned(),
            port_name: "http".to_owned(),
            endpoint: "127.0.0.1:18080".to_owned(),
            weight,
            state: state.to_owned(),
            reason: reason.to_owned(),
            traffic: TRAFFIC,
            aliases: Vec::new(),
            drain: None,
        };
        let closing = |closes_in_ms| EndpointRow {
            drain: Some(DrainRow { close_after_ms: 30_000, closes_in_ms }),
            ..row(1, "draining", "connections are closed after 30s")
        };
        let text = endpoints(&[
            row(10_000, "active", ""),
            row(1, "draining", ""),
            row(1, "unhealthy", "answered 503"),
            closing(Some(11_001)),
            closing(Some(0)),
            closing(None),
        ]);
        assert_eq!(
            strip_str(&text).to_string(),
            "\
SERVICE  PORT  ENDPOINT         WEIGHT  STATE                                       OPENED  OPEN  PENDING  FAILED  SENT  RECEIVED
web      http  127.0.0.1:18080   10000  active                                          11     4        1       0  5000        70
web      http  127.0.0.1:18080       1  draining                                        11     4        1       0  5000        70
web      http  127.0.0.1:18080       1  unhealthy: answered 503                         11     4        1       0  5000        70
web      http  127.0.0.1:18080       1  draining, closes in 12s                         11     4        1       0  5000        70
web      http  127.0.0.1:18080       1  draining, closing                               11     4        1       0  5000        70
web      http  127.0.0.1:18080       1  draining: connections are closed after 30s      11     4        1       0  5000        70
"
        );
        assert!(text.contains(&super::super::paint(NOTABLE, "draining")), "{text:?}");
    }
}
