//! The status on one screen.

use anstyle::Style;
use holdfast_protocol::control::{
    ConfigStatus, DriftStatus, LinkStatus, Replacements, StandbyStatus, Status, Takeover,
    WorkerStatus,
};
use holdfast_protocol::handover::{ConfigState, Origin, SetAside};

use super::{BAD, FAINT, GOOD, HEADING, NOTABLE, micros, paint, printable, seconds};

/// Columns before the values. The longest heading is `supervisor`.
const HEADING_WIDTH: usize = 12;

/// The status, one subject after the other; what is wrong stands below its subject.
pub fn status(status: &Status) -> String {
    let mut page = Page::default();
    let supervisor = &status.supervisor;
    page.line("instance", &printable(&status.instance));
    page.line(
        "supervisor",
        &format!(
            "pid {}, up {}, version {}",
            supervisor.pid,
            seconds(supervisor.uptime_s),
            printable(&supervisor.version)
        ),
    );
    replacements(&mut page, &status.replacements);
    worker(&mut page, &status.worker);
    if let Some(spare) = &status.standby {
        page.line("standby", &standby(spare));
    }
    page.line("epoch", &status.epoch.to_string());
    config(&mut page, &status.config);
    page.line("services", &status.services.to_string());
    page.line("endpoints", &status.endpoints.to_string());
    links(&mut page, &status.links);
    drift(&mut page, &status.drift);
    takeovers(&mut page, status);
    page.text
}

fn replacements(page: &mut Page, replacements: &Replacements) {
    if replacements.count > 0 {
        page.line("", &format!("replaced its binary {} times", replacements.count));
    }
    page.problem(&replacements.last_failure);
}

fn worker(page: &mut Page, worker: &WorkerStatus) {
    let style = match worker.state.as_str() {
        "granted" => GOOD,
        "absent" | "backing-off" => BAD,
        _ => NOTABLE,
    };
    let state = paint(style, &printable(&worker.state));
    if worker.pid == 0 {
        page.line("worker", &state);
    } else {
        let WorkerStatus { pid, uid, epoch, .. } = worker;
        let uptime = seconds(worker.uptime_s);
        let version = printable(&worker.version);
        let binary = match worker.binary.as_str() {
            "former" => paint(BAD, ", a former binary: the one on disk failed"),
            _ => String::new(),
        };
        page.line(
            "worker",
            &format!(
                "{state}, pid {pid}, uid {uid}, epoch {epoch}, up {uptime}, version {version}{binary}"
            ),
        );
        page.line("", &privileges(worker));
    }
    page.problem(&worker.reason);
}

fn standby(spare: &StandbyStatus) -> String {
    let state = match spare.state.as_str() {
        "shadow" => paint(GOOD, "ready"),
        other => paint(NOTABLE, &printable(other)),
    };
    let (uptime, version) = (seconds(spare.uptime_s), printable(&spare.version));
    format!("{state}, pid {}, up {uptime}, version {version}", spare.pid)
}

fn privileges(worker: &WorkerStatus) -> String {
    let capabilities = match worker.capabilities.as_slice() {
        [] => "no capabilities".to_owned(),
        names => paint(BAD, &format!("capabilities: {}", printable(&names.join(", ")))),
    };
    let gains = if worker.no_new_privs {
        "cannot gain any".to_owned()
    } else {
        paint(BAD, "could gain some: no_new_privs is not set")
    };
    format!("{capabilities}, {gains}")
}

fn config(page: &mut Page, config: &ConfigStatus) {
    let (style, state) = match config.state {
        ConfigState::Unknown => (NOTABLE, "not known yet"),
        ConfigState::InForce => (GOOD, "in force"),
        ConfigState::Rejected => (BAD, "rejected"),
        ConfigState::DoesNotFit => (BAD, "does not fit"),
        ConfigState::SetAside => (BAD, "set aside, because it crashed workers"),
    };
    let instead = match (config.state, config.origin) {
        (ConfigState::Unknown, _) | (ConfigState::InForce, Origin::Disk) => "",
        (_, Origin::Snapshot) => ": the snapshot of the last good one is in force",
        (_, Origin::Disk) => ": the last good one stays in force",
        (_, Origin::Kernel) => ": what is in the kernel stays in force",
    };
    let state = paint(style, &format!("{state}{instead}"));
    let probation = if config.probation { paint(NOTABLE, ", on probation") } else { String::new() };
    page.line("config", &format!("{} {state}{probation}", printable(&config.path)));
    if !config.digest.is_empty() {
        page.line("", &paint(FAINT, &format!("sha256 {}", printable(&config.digest))));
    }
    page.problem(&config.error);
    for aside in &config.set_aside {
        let SetAside { digest, reason } = aside;
        page.line(
            "",
            &paint(NOTABLE, &format!("set aside {}: {}", printable(digest), printable(reason))),
        );
    }
    let snapshot = match config.snapshot.digest.as_str() {
        "" => paint(NOTABLE, "none yet"),
        digest if digest == config.digest => "of what is in force".to_owned(),
        digest => format!("sha256 {}", printable(digest)),
    };
    page.line("snapshot", &snapshot);
    page.problem(&config.snapshot.error);
}

fn links(page: &mut Page, links: &[LinkStatus]) {
    let drifted = links.iter().filter(|link| !link.ok).count();
    let unpinned = links.iter().filter(|link| !link.pinned).count();
    let state = match (links.len(), drifted, unpinned) {
        (0, ..) => paint(BAD, "none: nothing is governed"),
        (all, 0, 0) => format!("{all}, {}{}", paint(GOOD, "all in place"), idle(links)),
        (all, 0, unpinned) => {
            format!("{all}, {}", paint(NOTABLE, &format!("{unpinned} not pinned")))
        }
        (all, drifted, _) => {
            format!("{all}, {}; see `holdfastctl links`", paint(BAD, &format!("{drifted} drifted")))
        }
    };
    page.line("links", &state);
}

/// Which links have nothing to do, for the end of a line.
fn idle(links: &[LinkStatus]) -> String {
    let idle: Vec<String> =
        links.iter().filter(|link| link.is_idle()).map(|link| printable(&link.name)).collect();
    match idle.is_empty() {
        true => String::new(),
        false => format!("; not needed, and not attached: {}", idle.join(", ")),
    }
}

/// One line, and one more for each difference that is there now.
fn drift(page: &mut Page, drift: &DriftStatus) {
    let state = match drift.open.len() {
        0 => paint(GOOD, "none"),
        open => paint(BAD, &format!("{open} open")),
    };
    let repaired = match drift.repairs {
        0 => String::new(),
        repairs => {
            let last = printable(&drift.last);
            paint(NOTABLE, &format!(", {repairs} repaired, last: {last}"))
        }
    };
    page.line("drift", &format!("{state} in {} audits{repaired}", drift.audits));
    for difference in &drift.open {
        page.problem(difference);
    }
}

fn takeovers(page: &mut Page, status: &Status) {
    let takeovers = &status.takeovers;
    let failed = match takeovers.failed {
        0 => "none failed".to_owned(),
        failed => paint(NOTABLE, &format!("{failed} failed")),
    };
    page.line("takeovers", &format!("{}, {failed}", takeovers.count));
    if let Some(last) = &takeovers.last {
        page.line("", &last_takeover(last));
    }
    if !takeovers.last_failure.is_empty() {
        let failure = printable(&takeovers.last_failure);
        page.line("", &paint(NOTABLE, &format!("last failure: {failure}")));
    }
}

fn last_takeover(last: &Takeover) -> String {
    let steps = [
        ("detect", last.detect_us),
        ("spawn", last.spawn_us),
        ("handover", last.handover_us),
        ("ready", last.ready_us),
        ("grant", last.grant_us),
    ];
    let steps: Vec<String> =
        steps.iter().map(|(step, time)| format!("{step} {}", micros(*time))).collect();
    let total = micros(last.total_us);
    format!("last: {} in {total} ({})", printable(&last.reason), steps.join(", "))
}

/// Lines of a heading and a value.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    /// A line; one without a heading belongs to the one before.
    fn line(&mut self, heading: &str, value: &str) {
        let style = if heading.is_empty() { Style::new() } else { HEADING };
        let blanks = " ".repeat(HEADING_WIDTH.saturating_sub(heading.len()));
        self.text.push_str(&format!("{}{blanks}{value}\n", paint(style, heading)));
    }

    /// A line about what is wrong, if anything is.
    fn problem(&mut self, problem: &str) {
        if !problem.is_empty() {
            self.line("", &paint(BAD, &printable(problem)));
        }
    }
}

#[cfg(test)]
mod tests {
    use anstream::adapter::strip_str;
    use holdfast_protocol::control::{SupervisorStatus, Takeovers};

    use super::*;

    fn healthy() -> Status {
        let link = LinkStatus { pinned: true, ok: true, ..LinkStatus::default() };
        Status {
            instance: "default".to_owned(),
            supervisor: SupervisorStatus {
                capabilities: Vec::new(),
                pid: 100,
                uptime_s: 90_061,
                version: "0.1.0".to_owned(),
            },
            worker: WorkerStatus {
                pid: 101,
                uid: 65534,
                state: "granted".to_owned(),
                epoch: 3,
                uptime_s: 12,
                no_new_privs: true,
                version: "0.1.0".to_owned(),
                ..WorkerStatus::default()
            },
            standby: Some(StandbyStatus {
                pid: 102,
                state: "shadow".to_owned(),
                uptime_s: 11,
                version: "0.1.0".to_owned(),
            }),
            epoch: 3,
            config: ConfigStatus {
                path: "/etc/holdfast.yaml".to_owned(),
                digest: "ab12".to_owned(),
                state: ConfigState::InForce,
                origin: Origin::Disk,
                ..ConfigStatus::default()
            },
            services: 2,
            endpoints: 5,
            links: vec![link; 4],
            takeovers: Takeovers {
                count: 3,
                failed: 0,
                last: Some(Takeover {
                    reason: "crash".to_owned(),
                    detect_us: 100,
                    spawn_us: 900,
                    handover_us: 1_000,
                    ready_us: 2_000,
                    grant_us: 500,
                    total_us: 4_500,
                }),
                last_failure: String::new(),
            },
            replacements: Replacements::default(),
            drift: DriftStatus { audits: 40, ..DriftStatus::default() },
        }
    }

    fn plain(given: &Status) -> String {
        strip_str(&status(given)).to_string()
    }

    #[test]
    fn a_healthy_instance_fits_one_screen() {
        assert_eq!(
            plain(&healthy()),
            "\
instance    default
supervisor  pid 100, up 1d 1h, version 0.1.0
worker      granted, pid 101, uid 65534, epoch 3, up 12s, version 0.1.0
            no capabilities, cannot gain any
standby     ready, pid 102, up 11s, version 0.1.0
epoch       3
config      /etc/holdfast.yaml in force
            sha256 ab12
snapshot    none yet
services    2
endpoints   5
links       4, all in place
drift       none in 40 audits
takeovers   3, none failed
            last: crash in 4.5 ms (detect 0.1 ms, spawn 0.9 ms, handover 1.0 ms, ready 2.0 ms, \
grant 0.5 ms)
"
        );
    }

    #[test]
    fn what_is_wrong_stands_below_its_subject() {
        let mut ailing = healthy();
        ailing.worker = WorkerStatus {
            state: "backing-off".to_owned(),
            reason: "cannot start /usr/bin/holdfast-worker: not found".to_owned(),
            ..WorkerStatus::default()
        };
        ailing.config.state = ConfigState::Rejected;
        ailing.config.error = "web.yaml:4:33: port 0 is\nout of range\u{1b}[2J".to_owned();
        ailing.links[1].ok = false;
        ailing.replacements =
            Replacements { count: 2, last_failure: "the new binary: exit status 1".to_owned() };
        ailing.drift.repairs = 2;
        ailing.drift.last = "link hf_connect6 was detached".to_owned();
        ailing.drift.open = vec!["link hf_connect4 is detached".to_owned()];
        ailing.takeovers.failed = 2;
        ailing.takeovers.last_failure = "the worker exited with status 1".to_owned();
        let text = plain(&ailing);
        for expected in [
            "version 0.1.0\n            replaced its binary 2 times\n            the new binary: exit \
             status 1\n",
            "worker      backing-off\n            cannot start /usr/bin/holdfast-worker: not found\n",
            "rejected: the last good one stays in force\n            sha256 ab12\n            \
             web.yaml:4:33: port 0 is out of range [2J\n",
            "links       4, 1 drifted; see `holdfastctl links`\n",
            "drift       1 open in 40 audits, 2 repaired, last: link hf_connect6 was detached\n\
             \x20           link hf_connect4 is detached\n",
            "takeovers   3, 2 failed\n",
            "            last failure: the worker exited with status 1\n",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in\n{text}");
        }
    }

    #[test]
    fn a_privileged_worker_stands_out() {
        let mut privileged = healthy();
        privileged.worker.capabilities = vec!["CAP_BPF".to_owned()];
        privileged.worker.no_new_privs = false;
        let text = status(&privileged);
        assert!(text.contains(&paint(BAD, "capabilities: CAP_BPF")), "{text:?}");
        assert!(plain(&privileged).contains("could gain some"));
    }
}
