//! The bytes of a state of this [`VERSION`](super::carried::VERSION): a successor has to understand
//! exactly these, whatever it was compiled from.

use holdfast_protocol::control::{DriftStatus, Replacements, Takeover, Takeovers};
use holdfast_protocol::handover::{ConfigReport, ConfigState, Origin, SetAside};
use holdfast_protocol::manifest::{Entry, Shape};

use super::carried::{Carried, CarriedWorker};

const GOLDEN: &str = include_str!("../../tests/golden/state.txt");

/// Set to write the golden file anew instead of comparing with it.
const REWRITE: &str = "HOLDFAST_REWRITE_GOLDEN";

fn report(state: ConfigState) -> ConfigReport {
    let (digest, error) = ("5e".to_owned(), "web.yaml:3:5: no".to_owned());
    ConfigReport { digest, state, error, services: 2, endpoints: 3, origin: Origin::Disk }
}

fn takeovers() -> Takeovers {
    let last = Takeover {
        reason: "crash".to_owned(),
        detect_us: 1,
        spawn_us: 2,
        handover_us: 3,
        ready_us: 4,
        grant_us: 5,
        total_us: 300,
    };
    Takeovers { count: 5, failed: 6, last: Some(last), last_failure: "refused".to_owned() }
}

/// A state of which every field says something. Every field is named: one that is added has to be put here, and into the golden bytes.
pub fn carried() -> Carried {
    let shape = Shape::Link { attach_type: 10, program_id: 2, cgroup_id: 3 };
    let worker = CarriedWorker {
        pid: 41,
        pidfd: 8,
        socket: 9,
        watch: Some(16),
        age_us: 700,
        version: "0.1.0".to_owned(),
        report: report(ConfigState::InForce),
    };
    Carried {
        build: "0.1.0".to_owned(),
        pid: 40,
        cgroup: b"/sys/fs/cgroup".to_vec(),
        age_us: 800,
        epoch: 300,
        worker: Some(worker),
        config: report(ConfigState::Rejected),
        trouble: "killed by SIGKILL".to_owned(),
        takeovers: takeovers(),
        drift: DriftStatus {
            audits: 400,
            repairs: 7,
            open: vec!["a report".to_owned()],
            last: "a pin is missing".to_owned(),
        },
        replacements: Replacements { count: 9, last_failure: "no such file".to_owned() },
        entries: vec![Entry { name: "hf_connect4".to_owned(), id: 19, shape }],
        objects: vec![10],
        lock: 11,
        pins_lock: Some(12),
        listener: 13,
        sessions: vec![14, 15],
        scrapes: Some(18),
        started_ms: 1_600_000_000_000,
        config_since_ms: 1_700_000_000_000,
        binary: Some(17),
        proved: "ab".to_owned(),
        set_aside: vec![SetAside { digest: "cd".to_owned(), reason: "SIGABRT".to_owned() }],
    }
}

#[test]
fn the_state_has_its_golden_bytes() {
    let bytes = carried().encode().expect("small");
    let hexadecimal: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    if std::env::var_os(REWRITE).is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/state.txt");
        std::fs::write(path, hexadecimal + "\n").expect("the golden file is writable");
    } else {
        assert_eq!(
            hexadecimal,
            GOLDEN.trim_end(),
            "another state needs another VERSION; then run this with {REWRITE}=1"
        );
    }
}
