//! The metrics of Holdfast itself: takeovers, drift, the configuration, and how full the maps are.

use holdfast_protocol::control::Takeover;
use holdfast_protocol::handover::{ConfigReport, ConfigState, Origin, Vitals};

use super::family::{Family, Kind, head, labels, sample, seconds_of_ms, seconds_of_us};
use super::{Facts, Known};
use crate::serve::health_check::target::Counts;
use crate::serve::outlier::ejections;

const BUILD: Family = gauge(
    "holdfast_build_info",
    &["version", "supervisor_version"],
    "Always 1; the versions of the worker and of the supervisor.",
);
const SUPERVISOR_START: Family = gauge(
    "holdfast_supervisor_start_time_seconds",
    &[],
    "When the supervisor started, in seconds since the Unix epoch.",
);
const WORKER_START: Family = gauge(
    "holdfast_worker_start_time_seconds",
    &[],
    "When the worker started, in seconds since the Unix epoch.",
);
const EPOCH: Family =
    gauge("holdfast_epoch", &[], "Number of the newest grant; it grows by one with each.");
const TAKEOVERS: Family = counter(
    "holdfast_takeovers_total",
    "Takeovers that ended in a grant, since the supervisor started.",
);
const TAKEOVERS_FAILED: Family = counter(
    "holdfast_takeovers_failed_total",
    "Takeovers that did not end in a grant, since the supervisor started.",
);
const TAKEOVER_DURATION: Family = gauge(
    "holdfast_last_takeover_duration_seconds",
    &["step"],
    "How long each step of the newest takeover took.",
);
const REPLACEMENTS: Family = counter(
    "holdfast_supervisor_replacements_total",
    "Times the supervisor became another binary without a new process.",
);
const DRIFT_AUDITS: Family = counter(
    "holdfast_drift_audits_total",
    "Comparisons of the kernel with what was built, since the supervisor started.",
);
const DRIFT_REPAIRS: Family = counter(
    "holdfast_drift_repairs_total",
    "Differences from what was built that were repaired, since the supervisor started.",
);
const DRIFT_OPEN: Family =
    gauge("holdfast_drift_open", &[], "Differences from what was built that are there now.");
const CONFIG_SINCE: Family = gauge(
    "holdfast_config_in_force_timestamp_seconds",
    &[],
    "Since when the configuration in force is, in seconds since the Unix epoch.",
);
const CONFIG_INFO: Family = gauge(
    "holdfast_config_info",
    &["digest", "origin"],
    "Always 1; SHA-256 of the configuration in force, and where it came from.",
);
const CONFIG_STATE: Family = gauge(
    "holdfast_config_state",
    &["state"],
    "1 for what became of the configuration on disk, 0 for what did not.",
);
const CONFIG_SERVICES: Family =
    gauge("holdfast_config_services", &[], "Services of the configuration in force.");
const CONFIG_ENDPOINTS: Family =
    gauge("holdfast_config_endpoints", &[], "Endpoints of the configuration in force.");
const MAP_USED: Family = gauge("holdfast_map_used", &["map"], "Entries of the map in use.");
const MAP_CAPACITY: Family =
    gauge("holdfast_map_capacity", &["map"], "Entries that the map has room for.");
const CHECKS: Family = Family {
    name: "holdfast_health_checks_total",
    kind: Kind::Counter,
    labels: &["outcome"],
    help: "Health checks that have ended, by what they found, since the worker started to write.",
};

const EJECTIONS: Family = Family {
    name: "holdfast_outlier_ejections_total",
    kind: Kind::Counter,
    labels: &["reason"],
    help: "Endpoints that were ejected, by why, since the worker started to write.",
};

const EVENTS: Family =
    counter("holdfast_events_total", "Events that the kernel programs have told.");
const EVENTS_LOST: Family = counter(
    "holdfast_events_lost_total",
    "Events that found no room in the kernel, because they were not read in time.",
);

/// Every family here, in the order they are written.
pub const FAMILIES: &[Family] = &[
    BUILD,
    WORKER_START,
    EPOCH,
    SUPERVISOR_START,
    TAKEOVERS,
    TAKEOVERS_FAILED,
    TAKEOVER_DURATION,
    REPLACEMENTS,
    DRIFT_AUDITS,
    DRIFT_REPAIRS,
    DRIFT_OPEN,
    CONFIG_SINCE,
    CONFIG_INFO,
    CONFIG_STATE,
    CONFIG_SERVICES,
    CONFIG_ENDPOINTS,
    MAP_USED,
    MAP_CAPACITY,
    CHECKS,
    EJECTIONS,
    EVENTS,
    EVENTS_LOST,
];

/// What the published services take of the maps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fill {
    /// Service numbers.
    pub services: u64,
    /// Slots of `TABLES`.
    pub slots: u64,
}

/// Everything that is `known`, as text.
#[must_use]
pub fn text(known: &Known, fill: Fill) -> String {
    let mut text = String::new();
    let Known { epoch, started_ms, vitals, facts } = known;
    let versions = [env!("CARGO_PKG_VERSION"), &*vitals.version];
    head(&mut text, &BUILD);
    sample(&mut text, &BUILD, &labels(&BUILD, &versions), 1);
    one(&mut text, &WORKER_START, seconds_of_ms(*started_ms));
    one(&mut text, &EPOCH, epoch);
    put_vitals(&mut text, vitals);
    if let Some(config) = &facts.config {
        put_config(&mut text, config, vitals.config_since_ms);
    }
    put_fill(&mut text, facts, fill);
    put_checks(&mut text, facts.checks);
    put_ejections(&mut text, facts.ejections);
    if let Some(events) = facts.events {
        one(&mut text, &EVENTS, events.told);
        one(&mut text, &EVENTS_LOST, events.lost);
    }
    text
}

fn put_vitals(text: &mut String, vitals: &Vitals) {
    one(text, &SUPERVISOR_START, seconds_of_ms(vitals.started_ms));
    one(text, &TAKEOVERS, vitals.takeovers);
    one(text, &TAKEOVERS_FAILED, vitals.takeovers_failed);
    if let Some(takeover) = &vitals.last_takeover {
        head(text, &TAKEOVER_DURATION);
        for (step, time) in steps(takeover) {
            let step = labels(&TAKEOVER_DURATION, &[step]);
            sample(text, &TAKEOVER_DURATION, &step, seconds_of_us(time));
        }
    }
    one(text, &REPLACEMENTS, vitals.replacements);
    one(text, &DRIFT_AUDITS, vitals.drift_audits);
    one(text, &DRIFT_REPAIRS, vitals.drift_repairs);
    one(text, &DRIFT_OPEN, vitals.drift_open);
}

/// One after the other, so that their sum is the whole.
const fn steps(takeover: &Takeover) -> [(&'static str, u64); 5] {
    [
        ("detect", takeover.detect_us),
        ("spawn", takeover.spawn_us),
        ("handover", takeover.handover_us),
        ("ready", takeover.ready_us),
        ("grant", takeover.grant_us),
    ]
}

fn put_config(text: &mut String, config: &ConfigReport, since_ms: u64) {
    if since_ms > 0 {
        one(text, &CONFIG_SINCE, seconds_of_ms(since_ms));
    }
    head(text, &CONFIG_INFO);
    let info = labels(&CONFIG_INFO, &[&config.digest, origin(config.origin)]);
    sample(text, &CONFIG_INFO, &info, 1);
    head(text, &CONFIG_STATE);
    for (state, name) in STATES {
        let label = labels(&CONFIG_STATE, &[name]);
        sample(text, &CONFIG_STATE, &label, u8::from(config.state == *state));
    }
    one(text, &CONFIG_SERVICES, config.services);
    one(text, &CONFIG_ENDPOINTS, config.endpoints);
}

fn put_fill(text: &mut String, facts: &Facts, fill: Fill) {
    let Some(capacity) = facts.capacity else { return };
    let used = [
        ("frontends", facts.frontends),
        ("services", Some(fill.services)),
        ("slots", Some(fill.slots)),
    ];
    head(text, &MAP_USED);
    for (map, used) in used {
        if let Some(used) = used {
            sample(text, &MAP_USED, &labels(&MAP_USED, &[map]), used);
        }
    }
    head(text, &MAP_CAPACITY);
    let rooms = [capacity.frontends, capacity.services, capacity.slots];
    for ((map, _), room) in used.iter().zip(rooms) {
        sample(text, &MAP_CAPACITY, &labels(&MAP_CAPACITY, &[map]), room);
    }
}

fn put_checks(text: &mut String, counts: Counts) {
    let Counts { passed, failed, undecided } = counts;
    head(text, &CHECKS);
    for (outcome, count) in [("passed", passed), ("failed", failed), ("undecided", undecided)] {
        sample(text, &CHECKS, &labels(&CHECKS, &[outcome]), count);
    }
}

fn put_ejections(text: &mut String, counts: ejections::Counts) {
    let ejections::Counts { in_a_row, rate } = counts;
    head(text, &EJECTIONS);
    for (reason, count) in [("consecutive_failures", in_a_row), ("failure_rate", rate)] {
        sample(text, &EJECTIONS, &labels(&EJECTIONS, &[reason]), count);
    }
}

/// What can become of the configuration on disk.
const STATES: &[(ConfigState, &str)] = &[
    (ConfigState::InForce, "in_force"),
    (ConfigState::Rejected, "rejected"),
    (ConfigState::DoesNotFit, "does_not_fit"),
    (ConfigState::SetAside, "set_aside"),
    (ConfigState::Unknown, "unknown"),
];

/// As `holdfastctl status --json` names it.
#[must_use]
pub fn state(state: ConfigState) -> &'static str {
    STATES.iter().find(|(known, _)| *known == state).map_or("unknown", |(_, name)| name)
}

/// As `holdfastctl status --json` names it.
#[must_use]
pub const fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Kernel => "kernel",
        Origin::Disk => "disk",
        Origin::Snapshot => "snapshot",
    }
}

/// A family with one sample without labels.
fn one(text: &mut String, family: &Family, value: impl std::fmt::Display) {
    head(text, family);
    sample(text, family, "", value);
}

const fn counter(name: &'static str, help: &'static str) -> Family {
    Family { name, kind: Kind::Counter, labels: &[], help }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { name, kind: Kind::Gauge, labels, help }
}
