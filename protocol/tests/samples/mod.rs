//! One sample of every message, by name.

use holdfast_protocol::control::{
    ConfigStatus, DrainRow, DriftStatus, EndpointRow, LinkStatus, PolicyRow, Replacements, Request,
    Response, ServiceRow, SnapshotStatus, StandbyStatus, Status, SupervisorStatus, Takeover,
    Takeovers, TrafficRow, WorkerAnswer, WorkerQuery, WorkerStatus,
};
use holdfast_protocol::handover::{
    Closed, ConfigReport, ConfigState, FromChild, History, Occasion, Offer, Origin, Seen, SetAside,
    ToChild, Vitals,
};
use holdfast_protocol::manifest::{Entry, MapShape, Shape};

pub fn to_child() -> Vec<(&'static str, ToChild)> {
    vec![
        (
            "hello",
            ToChild::Hello {
                newest: 1,
                oldest: 1,
                instance: "default".into(),
                epoch: 300,
                occasion: Occasion::Recovery,
            },
        ),
        (
            "hello_standby",
            ToChild::Hello {
                newest: 1,
                oldest: 1,
                instance: "default".into(),
                epoch: 300,
                occasion: Occasion::Standby,
            },
        ),
        ("offer", ToChild::Offer(offer())),
        ("accept", ToChild::Accept { index: 2 }),
        ("release", ToChild::Release),
        ("grant", ToChild::Grant { epoch: 300 }),
        ("leave", ToChild::Leave),
        ("query", ToChild::Query { id: 7, body: vec![1, 2, 3] }),
        ("in_force", ToChild::InForce(report(ConfigState::InForce))),
        (
            "history",
            ToChild::History(History { set_aside: vec![set_aside()], snapshot: "cd".into() }),
        ),
        ("keep", ToChild::Keep),
        ("vitals", ToChild::Vitals(vitals())),
        ("attached", ToChild::Attached),
        ("not_attached", ToChild::NotAttached { reason: "no room".into() }),
        ("seen", ToChild::Seen(seen())),
    ]
}

pub fn from_child() -> Vec<(&'static str, FromChild)> {
    vec![
        ("welcome", FromChild::Welcome { newest: 1, oldest: 1, build: "0.1.0".into() }),
        ("accepted", FromChild::Accepted { index: 2 }),
        ("refused", FromChild::Refused { reason: "web.yaml:3:5: no".into() }),
        ("ready", FromChild::Ready { config: report(ConfigState::InForce) }),
        ("released", FromChild::Released),
        ("granted", FromChild::Granted { epoch: 300 }),
        ("heartbeat", FromChild::Heartbeat { epoch: 300, progress: 12 }),
        ("config", FromChild::Config(report(ConfigState::Rejected))),
        ("answer", FromChild::Answer { id: 7, body: vec![3, 2, 1] }),
        ("offer", FromChild::Offer(offer())),
        ("repaired", FromChild::Repaired { what: "pinned again".into() }),
        ("cleared", FromChild::Cleared { items: vec!["link".into()], last: true }),
        ("trying", FromChild::Trying { digest: "ab".into() }),
        ("kept", FromChild::Kept { digest: "ab".into() }),
        ("not_kept", FromChild::NotKept { reason: "no space".into() }),
        ("snapshot_unusable", FromChild::SnapshotUnusable { reason: "damaged".into() }),
        ("overdue", FromChild::Overdue { endpoints: 2 }),
        ("closed", FromChild::Closed(Closed { closed: 300, left: 1, reason: "no".into() })),
        ("attach", FromChild::Attach),
        ("seen", FromChild::Seen(seen())),
    ]
}

pub fn requests() -> Vec<(&'static str, Request)> {
    vec![
        ("status", Request::Status),
        ("reload", Request::Reload),
        ("uninstall", Request::Uninstall),
        ("worker", Request::Worker(vec![9])),
    ]
}

pub fn responses() -> Vec<(&'static str, Response)> {
    vec![
        ("status", Response::Status(Box::new(status()))),
        ("reloaded", Response::Reloaded { epoch: 300, pid: 41, total_us: 5100 }),
        ("uninstalled", Response::Uninstalled { items: vec!["pin".into()], last: true }),
        ("worker", Response::Worker(vec![9])),
        ("failed", Response::Failed { reason: "no".into() }),
        ("denied", Response::Denied { reason: "root only".into() }),
    ]
}

pub fn queries() -> Vec<(&'static str, WorkerQuery)> {
    vec![
        ("services", WorkerQuery::Services { offset: 0 }),
        ("endpoints", WorkerQuery::Endpoints { offset: 500 }),
        ("policies", WorkerQuery::Policies { offset: 7 }),
        ("trace", WorkerQuery::Trace { after: Some(99), service: "web".into(), json: true }),
    ]
}

pub fn answers() -> Vec<(&'static str, WorkerAnswer)> {
    vec![
        (
            "services",
            WorkerAnswer::Services {
                rows: vec![ServiceRow {
                    service: "web".into(),
                    port_name: "http".into(),
                    port: 80,
                    protocol: "tcp".into(),
                    addresses: vec!["127.96.0.10".into()],
                    policy: "random".into(),
                    endpoints: 2,
                    connections: 1000,
                    refused: 1,
                    limited: 5,
                    traffic: traffic(),
                    retransmits: 70_000,
                }],
                next: Some(500),
            },
        ),
        (
            "endpoints",
            WorkerAnswer::Endpoints {
                rows: vec![EndpointRow {
                    service: "web".into(),
                    port_name: "http".into(),
                    endpoint: "127.0.0.1:18080".into(),
                    weight: 10_000,
                    state: "unhealthy".into(),
                    reason: "answered 503".into(),
                    traffic: traffic(),
                    aliases: vec!["127.0.0.9:30080".into()],
                    drain: Some(DrainRow { close_after_ms: 30_000, closes_in_ms: Some(300) }),
                }],
                next: None,
            },
        ),
        ("failed", WorkerAnswer::Failed { reason: "no".into() }),
        (
            "trace",
            WorkerAnswer::Trace { lines: vec!["a line".into()], after: 300, more: true, lost: 2 },
        ),
        (
            "policies",
            WorkerAnswer::Policies {
                rows: vec![PolicyRow {
                    policy: "no-db".into(),
                    direction: "inbound".into(),
                    action: "deny".into(),
                    dry_run: true,
                    terms: 3,
                    denied: 4,
                    would_deny: 500,
                }],
                next: None,
            },
        ),
    ]
}

fn traffic() -> TrafficRow {
    TrafficRow {
        opened: 900,
        open: 20,
        pending: 3,
        failed: 77,
        sent_bytes: 1 << 40,
        received_bytes: 1 << 20,
    }
}

fn offer() -> Offer {
    let map =
        MapShape { map_type: 2, key_bytes: 4, value_bytes: 8, max_entries: 65_536, flags: 1024 };
    let entry = |name: &str, id, shape| Entry { name: name.into(), id, shape };
    Offer {
        index: 0,
        of: 1,
        entries: vec![
            entry("HEADS", 17, Shape::Map(map)),
            entry(
                "hf_connect4",
                18,
                Shape::Program { program_type: 18, tag: [1, 2, 3, 4, 5, 6, 7, 8] },
            ),
            entry(
                "hf_connect4",
                19,
                Shape::Link { attach_type: 10, program_id: 18, cgroup_id: 1 << 40 },
            ),
        ],
    }
}

fn report(state: ConfigState) -> ConfigReport {
    ConfigReport {
        digest: "ab".into(),
        state,
        error: "e".into(),
        services: 3,
        endpoints: 400,
        origin: Origin::Disk,
    }
}

fn takeover() -> Takeover {
    Takeover {
        reason: "crash".into(),
        detect_us: 1,
        spawn_us: 2,
        handover_us: 3,
        ready_us: 4,
        grant_us: 5,
        total_us: 15,
    }
}

fn vitals() -> Vitals {
    Vitals {
        listens: true,
        started_ms: 1_700_000_000_000,
        version: "0.1.0".into(),
        takeovers: 5,
        takeovers_failed: 1,
        last_takeover: Some(takeover()),
        replacements: 2,
        drift_audits: 900,
        drift_repairs: 7,
        drift_open: 1,
        config_since_ms: 1_700_000_000_500,
    }
}

fn seen() -> Seen {
    Seen { digest: "ab".into(), mark: "1.2.3".into() }
}

fn set_aside() -> SetAside {
    SetAside { digest: "ef".into(), reason: "killed by SIGABRT".into() }
}

fn status() -> Status {
    Status {
        instance: "default".into(),
        supervisor: SupervisorStatus {
            pid: 40,
            uptime_s: 3600,
            version: "0.1.0".into(),
            capabilities: vec!["cap_kill".into()],
        },
        worker: WorkerStatus {
            pid: 41,
            uid: 65_534,
            state: "granted".into(),
            epoch: 300,
            uptime_s: 60,
            capabilities: vec![],
            no_new_privs: true,
            version: "0.1.0".into(),
            binary: "on-disk".into(),
            reason: String::new(),
        },
        standby: Some(StandbyStatus {
            pid: 42,
            state: "shadow".into(),
            uptime_s: 50,
            version: "0.1.0".into(),
        }),
        epoch: 300,
        config: ConfigStatus {
            path: "/etc/holdfast".into(),
            digest: "ab".into(),
            state: ConfigState::DoesNotFit,
            error: "e".into(),
            origin: Origin::Snapshot,
            probation: true,
            set_aside: vec![set_aside()],
            snapshot: SnapshotStatus { digest: "cd".into(), error: "no space".into() },
        },
        services: 3,
        endpoints: 400,
        links: vec![LinkStatus {
            name: "hf_connect4".into(),
            attach_type: "cgroup_inet4_connect".into(),
            link_id: 19,
            prog_id: 18,
            cgroup: "/sys/fs/cgroup".into(),
            pinned: true,
            ok: true,
        }],
        takeovers: Takeovers {
            count: 5,
            failed: 1,
            last: Some(takeover()),
            last_failure: "refused".into(),
        },
        replacements: Replacements { count: 2, last_failure: "exit status 1".into() },
        drift: DriftStatus {
            audits: 900,
            repairs: 1,
            last: "the pin of link hf_connect4 is missing".into(),
            open: vec!["link hf_connect4 is detached".into()],
        },
    }
}
