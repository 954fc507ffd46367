//! What happens to the services: a line for each port of each, the busiest first.

use super::table::{Cell, Column, Table};
use super::{FAINT, NOTABLE, paint};
use crate::top::Activity;

/// Lines beside the services: the heading, and how many are not shown.
const AROUND: usize = 2;

/// Lines of a terminal that does not say how many it has.
const USUAL_LINES: usize = 24;

/// How many services fit the terminal.
pub fn room() -> usize {
    let lines = terminal_size::terminal_size().map_or(USUAL_LINES, |(_, lines)| lines.0.into());
    lines.saturating_sub(AROUND).max(1)
}

/// The first `most` of `active`.
pub fn top(active: &[Activity], most: usize) -> String {
    if active.is_empty() {
        return "no services\n".to_owned();
    }
    let mut table = Table::new(&[
        Column::text("SERVICE"),
        Column::text("PORT"),
        Column::number("CONNECTIONS/S"),
        Column::number("REFUSED/S"),
        Column::number("CONNECTIONS"),
        Column::number("REFUSED"),
        Column::number("ENDPOINTS"),
    ]);
    for row in active.iter().take(most) {
        let refused = format!("{:.1}", row.refused_per_s);
        table.push([
            Cell::new(&row.service),
            Cell::new(format_args!("{} {}/{}", row.port_name, row.port, row.protocol)),
            Cell::new(format_args!("{:.1}", row.connections_per_s)),
            if row.refused_per_s > 0.0 {
                Cell::styled(NOTABLE, refused)
            } else {
                Cell::new(refused)
            },
            Cell::new(row.connections),
            Cell::new(row.refused),
            if row.endpoints == 0 { Cell::styled(NOTABLE, 0) } else { Cell::new(row.endpoints) },
        ]);
    }
    let mut text = table.render();
    if active.len() > most {
        text.push_str(&paint(FAINT, &format!("and {} more", active.len() - most)));
    }
    text
}

#[cfg(test)]
mod tests {
    use anstream::adapter::strip_str;

    use super::*;

    fn activity(service: &str, refused_per_s: f64) -> Activity {
        Activity {
            service: service.to_owned(),
            port_name: "http".to_owned(),
            port: 80,
            protocol: "tcp".to_owned(),
            connections_per_s: 1234.56,
            refused_per_s,
            connections: 98_765,
            refused: 3,
            endpoints: 2,
        }
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let text = top(&[activity("web", 0.5), activity("dns", 0.0), activity("idle", 0.0)], 2);
        assert_eq!(
            strip_str(&text).to_string(),
            "\
SERVICE  PORT         CONNECTIONS/S  REFUSED/S  CONNECTIONS  REFUSED  ENDPOINTS
web      http 80/tcp         1234.6        0.5        98765        3          2
dns      http 80/tcp         1234.6        0.0        98765        3          2
and 1 more"
        );
        assert_eq!(top(&[], 2), "no services\n");
    }
}
