//! What the supervisor says about its worker while faults are injected.
//!
//! A takeover is measured from outside: from just before the worker that writes is killed until the
//! supervisor's status says that the next one is granted. Kills of other workers (one on its way in
//! or out) interrupt nothing and are not measured. Should further kills hit before the grant, the
//! first one counts: the time is how long nobody could write.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use holdfast_lab::control::status;
use holdfast_lab::supervisor::GRANTED;
use holdfast_protocol::control::Status;

/// Time between two looks while a takeover is measured: what the measure is exact to.
const CLOSE_LOOK: Duration = Duration::from_millis(1);

/// Time between two looks otherwise: often enough to know the worker that writes, seldom enough to
/// leave the supervisor alone.
const IDLE_LOOK: Duration = Duration::from_millis(20);

/// `takeovers.last.reason` after a worker has died.
const CRASH: &str = "crash";

/// What was seen last.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Process id of the worker that writes.
    pub worker: u32,
    /// The newest epoch.
    pub epoch: u64,
    /// The newest takeover that was measured.
    pub last_takeover: Option<Duration>,
}

/// A thread that keeps asking the supervisor.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    seen: Seen,
    /// When the worker that wrote in this epoch was killed, until the next one is granted.
    outage: Option<(u64, Instant)>,
    takeovers: Vec<Duration>,
}

impl Watch {
    /// Starts watching the supervisor that listens at `socket`.
    pub fn start(socket: PathBuf) -> Self {
        let shared = Arc::new(Shared::default());
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                while !shared.stop.load(Ordering::Relaxed) {
                    if let Ok(status) = status(&socket) {
                        shared.lock().note(&status, Instant::now());
                    }
                    let close = shared.lock().outage.is_some();
                    std::thread::sleep(if close { CLOSE_LOOK } else { IDLE_LOOK });
                }
            }
        });
        Self { shared, thread }
    }

    /// Somebody has killed the worker `pid`, and took the time just before.
    pub fn killed(&self, pid: u32, instant: Instant) {
        self.shared.lock().killed(pid, instant);
    }

    /// What was seen last.
    pub fn seen(&self) -> Seen {
        self.shared.lock().seen.clone()
    }

    /// Stops watching, and gives all takeovers that were measured.
    pub fn finish(self) -> Vec<Duration> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the watch does not panic");
        std::mem::take(&mut self.shared.lock().takeovers)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn killed(&mut self, pid: u32, instant: Instant) {
        if pid == self.seen.worker && self.outage.is_none() {
            self.outage = Some((self.seen.epoch, instant));
        }
    }

    fn note(&mut self, status: &Status, now: Instant) {
        if status.worker.state != GRANTED {
            return;
        }
        self.seen.worker = status.worker.pid;
        self.seen.epoch = status.epoch;
        if let Some((epoch, instant)) = self.outage
            && status.epoch > epoch
        {
            self.outage = None;
            // A worker that was being replaced anyway: whether it was still the one that wrote when
            // the kill hit cannot be told.
            if status.takeovers.last.as_ref().is_some_and(|last| last.reason == CRASH) {
                self.takeovers.push(now - instant);
                self.seen.last_takeover = Some(now - instant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use holdfast_protocol::control::{Takeover, Takeovers, WorkerStatus};

    use super::*;

    fn granted(pid: u32, epoch: u64, reason: &str) -> Status {
        let last = Some(Takeover { reason: reason.to_owned(), ..Takeover::default() });
        Status {
            worker: WorkerStatus { pid, state: GRANTED.to_owned(), ..WorkerStatus::default() },
            epoch,
            takeovers: Takeovers { last, ..Takeovers::default() },
            ..Status::default()
        }
    }

    #[test]
    fn an_outage_lasts_from_the_first_kill_to_the_next_grant() {
        let (mut state, begin) = (State::default(), Instant::now());
        let at = |ms| begin + Duration::from_millis(ms);
        state.note(&granted(10, 1, "start"), at(0));
        state.killed(10, at(5));
        state.killed(11, at(7));
        // The supervisor has not noticed yet.
        state.note(&granted(10, 1, "start"), at(8));
        state.note(&granted(12, 2, "crash"), at(9));
        state.note(&granted(12, 2, "crash"), at(10));
        assert_eq!(state.takeovers, [Duration::from_millis(4)]);
    }

    #[test]
    fn a_kill_that_interrupts_nothing_is_not_measured() {
        let (mut state, now) = (State::default(), Instant::now());
        state.note(&granted(10, 1, "start"), now);
        state.killed(11, now);
        state.note(&granted(10, 1, "start"), now);
        state.killed(10, now);
        state.note(&granted(12, 2, "reload"), now);
        assert_eq!(state.takeovers, []);
        assert!(state.outage.is_none());
    }
}
