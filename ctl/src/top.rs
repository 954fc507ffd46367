//! `holdfastctl top`: what happens to the services, interval by interval.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::thread::sleep;
use std::time::{Duration, Instant};

use holdfast_protocol::control::ServiceRow;
use serde::Serialize;

use crate::command::Pace;
use crate::exit::Failure;
use crate::output;
use crate::render;
use crate::session::{Session, SessionError};

/// How long a worker that is just being replaced is waited for, and how often it is asked.
const REPLACING: Duration = Duration::from_secs(5);
const ASKING: Duration = Duration::from_millis(100);

/// Moves the cursor to the top left of the terminal and clears everything from there.
const CLEAR: &str = "\x1b[H\x1b[J";

/// One port of a service over one interval. Field names are those of `top --json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Activity {
    /// The service's name.
    pub service: String,
    /// The port's name.
    pub port_name: String,
    /// The port clients connect to.
    pub port: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Connections sent to an endpoint, per second of the interval.
    pub connections_per_s: f64,
    /// Connections refused, per second of the interval.
    pub refused_per_s: f64,
    /// Connections sent to an endpoint so far.
    pub connections: u64,
    /// Connections refused so far.
    pub refused: u64,
    /// How many endpoints it has.
    pub endpoints: u32,
}

/// One line of `top --json`.
#[derive(Serialize)]
struct Line<'a> {
    /// How long the interval was, in seconds.
    interval_s: f64,
    services: &'a [Activity],
}

/// Shows interval after interval, until there were as many as `pace` says or nobody reads any more.
/// A program that did not say how many gets one; one that reads JSON gets them until it closes.
pub fn top(json: bool, pace: &Pace, session: &Session) -> Result<(), Failure> {
    let is_terminal = output::is_terminal();
    let count = pace.count.or((!json && !is_terminal).then_some(1));
    let mut before = (Instant::now(), services(session)?);
    let mut shown = 0;
    while count.is_none_or(|count| shown < count) {
        sleep(pace.interval.saturating_sub(before.0.elapsed()));
        let after = (Instant::now(), services(session)?);
        let elapsed = after.0.duration_since(before.0);
        let active = activities(&before.1, &after.1, elapsed);
        let text = match (json, is_terminal) {
            (true, _) => line(elapsed, &active)?,
            (false, true) => format!("{CLEAR}{}", render::top::top(&active, render::top::room())),
            (false, false) => render::top::top(&active, usize::MAX),
        };
        if output::part(&text)? == ControlFlow::Break(()) {
            return Ok(());
        }
        (before, shown) = (after, shown + 1);
    }
    Ok(())
}

fn line(elapsed: Duration, active: &[Activity]) -> Result<String, Failure> {
    let line = Line { interval_s: elapsed.as_secs_f64(), services: active };
    let line = serde_json::to_string(&line).map_err(std::io::Error::from)?;
    Ok(line + "\n")
}

/// The services in force, also while the worker is being replaced.
fn services(session: &Session) -> Result<Vec<ServiceRow>, SessionError> {
    let end = Instant::now() + REPLACING;
    loop {
        match session.services() {
            Err(SessionError::Failed { .. }) if Instant::now() < end => sleep(ASKING),
            answer => return answer,
        }
    }
}

/// What happened between two readings, the busiest first.
fn activities(before: &[ServiceRow], after: &[ServiceRow], elapsed: Duration) -> Vec<Activity> {
    fn key(row: &ServiceRow) -> (&str, &str) {
        (&row.service, &row.port_name)
    }
    let former: HashMap<_, _> = before.iter().map(|row| (key(row), row)).collect();
    let seconds = elapsed.as_secs_f64().max(f64::EPSILON);
    // A service that is new, or was removed and added again, begins at 0.
    let rate = |before: Option<u64>, after: u64| {
        after.checked_sub(before.unwrap_or(0)).unwrap_or(after) as f64 / seconds
    };
    let activity = |row: &ServiceRow| {
        let former = former.get(&key(row));
        Activity {
            service: row.service.clone(),
            port_name: row.port_name.clone(),
            port: row.port,
            protocol: row.protocol.clone(),
            connections_per_s: rate(former.map(|row| row.connections), row.connections),
            refused_per_s: rate(former.map(|row| row.refused), row.refused),
            connections: row.connections,
            refused: row.refused,
            endpoints: row.endpoints,
        }
    };
    let mut all: Vec<Activity> = after.iter().map(activity).collect();
    let busy = |activity: &Activity| activity.connections_per_s + activity.refused_per_s;
    // Stable: the idle ones stay in the configuration's order.
    all.sort_by(|one, other| busy(other).total_cmp(&busy(one)));
    all
}

#[cfg(test)]
mod tests {
    use holdfast_protocol::control::TrafficRow;

    use super::*;

    fn row(service: &str, connections: u64, refused: u64) -> ServiceRow {
        ServiceRow {
            service: service.to_owned(),
            port_name: "http".to_owned(),
            port: 80,
            protocol: "tcp".to_owned(),
            addresses: Vec::new(),
            policy: "random".to_owned(),
            endpoints: 1,
            connections,
            refused,
            limited: 0,
            traffic: TrafficRow::default(),
            retransmits: 0,
        }
    }

    #[test]
    fn the_busiest_come_first_and_what_is_new_begins_at_0() {
        let before = [row("idle", 5, 0), row("again", 100, 0), row("busy", 10, 2)];
        let after = [row("idle", 5, 0), row("again", 4, 0), row("busy", 30, 6), row("new", 6, 0)];
        let all = activities(&before, &after, Duration::from_secs(2));
        let rates: Vec<_> = all
            .iter()
            .map(|it| (it.service.as_str(), it.connections_per_s, it.refused_per_s))
            .collect();
        let expected =
            [("busy", 10.0, 2.0), ("new", 3.0, 0.0), ("again", 2.0, 0.0), ("idle", 0.0, 0.0)];
        assert_eq!(rates, expected);
    }
}
