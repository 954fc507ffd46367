//! `/healthz` and `/readyz`: whether each component does what it is there for.
//!
//! A worker answers while it writes, so that it answers at all says that there is one. Healthy means
//! that this process does its work: whoever restarts it when it is not, does right. Ready means that
//! connections are governed as configured: restarting this process would not help otherwise.

use holdfast_protocol::handover::{ConfigState, Origin};
use serde_json::{Value, json};

use super::{Known, system};

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Whether all is well.
    pub is_well: bool,
    /// The answer's body, a JSON object with a line break behind it.
    pub body: String,
}

/// Whether this process does its work. `maps` is whether they could be asked about.
#[must_use]
pub fn healthz(known: &Known, maps: Result<(), &str>) -> Health {
    health(&[("worker", worker(known)), ("maps", self::maps(maps))])
}

/// Whether connections are governed as configured.
#[must_use]
pub fn readyz(known: &Known, maps: Result<(), &str>) -> Health {
    health(&[
        ("worker", worker(known)),
        ("maps", self::maps(maps)),
        ("configuration", configuration(known)),
        ("links", links(known)),
    ])
}

/// A component: whether it is well, and what there is to say.
type Component = (bool, Value);

fn worker(known: &Known) -> Component {
    let is_well = known.epoch > 0 && known.facts.is_settled;
    let state = match (known.epoch, known.facts.is_settled) {
        (0, _) => "not granted",
        (_, false) => "has not taken over yet",
        (_, true) => "granted",
    };
    (is_well, json!({ "state": state, "epoch": known.epoch }))
}

fn maps(found: Result<(), &str>) -> Component {
    match found {
        Ok(()) => (true, json!({ "state": "readable" })),
        Err(reason) => (false, json!({ "state": "not readable", "error": reason })),
    }
}

/// Well as long as something is in force that somebody wrote: what is on disk, what was before, or the
/// snapshot. A save that is rejected costs nobody a connection; `state` and `error` say it.
fn configuration(known: &Known) -> Component {
    let Some(config) = &known.facts.config else {
        return (false, json!({ "state": "unknown" }));
    };
    let is_well = config.state == ConfigState::InForce || config.origin != Origin::Kernel;
    let mut said = json!({
        "state": system::state(config.state),
        "origin": system::origin(config.origin),
        "digest": config.digest,
    });
    if !config.error.is_empty() {
        said["error"] = config.error.as_str().into();
    }
    (is_well, said)
}

/// Well unless the supervisor found links, programs, maps or pins other than what was built.
fn links(known: &Known) -> Component {
    let open = known.vitals.drift_open;
    let state = if open == 0 { "as built" } else { "drifted" };
    (open == 0, json!({ "state": state, "drift_open": open }))
}

fn health(components: &[(&str, Component)]) -> Health {
    let is_well = components.iter().all(|(_, (is_well, _))| *is_well);
    let mut said = serde_json::Map::new();
    for (name, (is_well, about)) in components {
        let mut about = about.clone();
        about["ok"] = (*is_well).into();
        said.insert((*name).to_owned(), about);
    }
    let body = json!({ "ok": is_well, "components": said });
    Health { is_well, body: format!("{body}\n") }
}

#[cfg(test)]
mod tests {
    use holdfast_protocol::handover::{ConfigReport, Vitals};

    use super::super::Facts;
    use super::*;

    fn known(state: ConfigState, origin: Origin) -> Known {
        let config = Some(ConfigReport { state, origin, ..ConfigReport::default() });
        let facts = Facts { config, is_settled: true, ..Facts::default() };
        Known { epoch: 3, facts, ..Known::default() }
    }

    fn is_ready(known: &Known) -> bool {
        let health = readyz(known, Ok(()));
        let body: Value = serde_json::from_str(&health.body).expect("JSON");
        assert_eq!(body["ok"], health.is_well, "{body}");
        health.is_well
    }

    #[test]
    fn whatever_somebody_wrote_is_good_enough() {
        for (state, origin, ready) in [
            (ConfigState::InForce, Origin::Disk, true),
            (ConfigState::Rejected, Origin::Disk, true),
            (ConfigState::Rejected, Origin::Snapshot, true),
            (ConfigState::Rejected, Origin::Kernel, false),
            (ConfigState::Unknown, Origin::Kernel, false),
        ] {
            assert_eq!(is_ready(&known(state, origin)), ready, "{state:?} {origin:?}");
        }
    }

    #[test]
    fn each_component_counts() {
        let well = known(ConfigState::InForce, Origin::Disk);
        assert!(healthz(&well, Ok(())).is_well);
        assert!(!healthz(&well, Err("no")).is_well);
        assert!(!healthz(&Known { epoch: 0, ..well.clone() }, Ok(())).is_well);
        let drifted = Vitals { drift_open: 1, ..Vitals::default() };
        let drifted = Known { vitals: drifted, ..well.clone() };
        assert!(healthz(&drifted, Ok(())).is_well, "no restart would help");
        assert!(!is_ready(&drifted));
        let nothing = Known { facts: Facts::default(), ..well };
        assert!(!is_ready(&nothing));
    }
}
