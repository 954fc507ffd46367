//! What `holdfastctl status` shows of a worker, from the machine's state and from the kernel.

use std::time::Duration;

use holdfast_protocol::control::{Takeover, Takeovers, WorkerStatus};

use crate::proc_status;
use crate::takeover::phase::Worker;
use crate::takeover::{Phase, State};

/// Counts takeovers and keeps the newest.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    takeovers: Takeovers,
}

impl Ledger {
    /// Goes on where `takeovers` ends.
    #[must_use]
    pub const fn resumed(takeovers: Takeovers) -> Self {
        Self { takeovers }
    }

    /// One ended in a grant.
    pub fn granted(&mut self, takeover: Takeover) {
        self.takeovers.count += 1;
        self.takeovers.last = Some(takeover);
    }

    /// One did not.
    pub fn failed(&mut self, reason: &str) {
        self.takeovers.failed += 1;
        reason.clone_into(&mut self.takeovers.last_failure);
    }

    /// As it is shown.
    #[must_use]
    pub const fn shown(&self) -> &Takeovers {
        &self.takeovers
    }
}

/// The worker people mean: the one that writes, or else the one on its way to.
#[must_use]
pub fn foremost(state: &State) -> Option<&Worker> {
    let rank = |phase: Phase| match phase {
        Phase::Granted { .. } => 0,
        Phase::Releasing => 1,
        Phase::Granting { .. } => 2,
        Phase::Released => 3,
        phase if phase.is_candidate() => 4,
        _ => 5,
    };
    let shown = |worker: &&Worker| worker.phase.as_str().is_some();
    state.workers().iter().filter(shown).min_by_key(|worker| rank(worker.phase))
}

/// The status of a worker in `phase` whose process is `pid` and `age` old.
#[must_use]
pub fn worker(phase: Phase, pid: u32, age: Duration, version: &str, epoch: u64) -> WorkerStatus {
    let privileges = proc_status::of(pid).unwrap_or_default();
    WorkerStatus {
        pid,
        uid: privileges.uid,
        state: phase.as_str().unwrap_or("absent").to_owned(),
        epoch: match phase {
            Phase::Granted { epoch, .. } | Phase::Granting { epoch } => epoch,
            Phase::Releasing | Phase::Released => epoch,
            _ => 0,
        },
        uptime_s: age.as_secs(),
        capabilities: proc_status::names(privileges.capabilities),
        no_new_privs: privileges.no_new_privs,
        version: version.to_owned(),
        binary: String::new(),
        reason: String::new(),
    }
}

/// The status of no worker, at `now`.
#[must_use]
pub fn no_worker(state: &State, now: Duration) -> WorkerStatus {
    let waits = state.backing_off_until().filter(|until| *until > now);
    WorkerStatus {
        state: if waits.is_some() { "backing-off" } else { "absent" }.to_owned(),
        ..WorkerStatus::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::takeover::{Event, WorkerId};

    #[test]
    fn without_a_worker_it_says_whether_one_is_waited_for() {
        let mut state = State::new(1, 0, 1);
        assert_eq!(no_worker(&state, Duration::ZERO).state, "absent");
        state.step(Event::Start, Duration::ZERO);
        for id in 0.. {
            let failed = Event::SpawnFailed(WorkerId(id), "no such file".to_owned());
            state.step(failed, Duration::ZERO);
            if state.workers().is_empty() {
                break;
            }
        }
        assert!(foremost(&state).is_none());
        assert_eq!(no_worker(&state, Duration::ZERO).state, "backing-off");
    }

    #[test]
    fn a_process_without_privileges_shows_none() {
        let own = std::process::id();
        let shown = worker(Phase::Shadow { progress: 0 }, own, Duration::from_secs(3), "1", 9);
        assert_eq!((shown.pid, shown.epoch, shown.uptime_s), (own, 0, 3));
        assert!(!shown.capabilities.is_empty(), "the tests run as root");
        let gone = worker(Phase::Released, u32::MAX, Duration::ZERO, "", 9);
        assert_eq!((gone.capabilities.len(), gone.epoch), (0, 9));
    }
}
