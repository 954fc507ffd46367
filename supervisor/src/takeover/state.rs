//! What the takeover machine remembers.

use std::time::Duration;

use holdfast_protocol::handover::Occasion;

use super::deadline;
use super::event::{Cause, Exit, WorkerId};
use super::pace::Pace;
use super::phase::{Phase, Worker};

/// Most worker processes at any time, but for a spare: the one that writes, and the one that will
/// or did.
pub const MAX_SERVING: usize = 2;

/// Most worker processes at any time: those, and a spare.
pub const MAX_WORKERS: usize = MAX_SERVING + 1;

/// The takeover machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// How many offers make up the estate; at least 1.
    pub(super) offers: u16,
    /// The newest epoch that was granted. Every grant gets the next one, so a message that carries
    /// an epoch can belong to one grant only.
    pub(super) epoch: u64,
    /// Every process that exists, in the order they were started; at most [`MAX_WORKERS`].
    pub(super) workers: Vec<Worker>,
    /// The takeover under way.
    pub(super) takeover: Option<Takeover>,
    /// Whether somebody asked for a reload that no takeover has begun to serve.
    pub(super) reload: bool,
    /// Why there is no writer, from its loss until the next grant.
    pub(super) loss: Option<Cause>,
    /// How fast lost workers are replaced.
    pub(super) pace: Pace,
    /// Whether a spare is wanted.
    pub(super) keeps_spare: bool,
    /// How fast lost spares are replaced: what is wrong with one delays no writer.
    pub(super) spare_pace: Pace,
    /// Set once the supervisor leaves; no worker is started or granted from then on.
    pub(super) exit: Option<Exit>,
    /// Whether the exit was announced.
    pub(super) exited: bool,
    /// The next worker's number.
    pub(super) next_worker: u64,
}

/// A takeover under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Takeover {
    /// The worker it is for.
    pub candidate: WorkerId,
    /// Why it failed, once it has.
    pub verdict: Option<String>,
}

impl State {
    /// A machine without workers. `offers` is how many packets the estate is offered in, `epoch`
    /// the newest that was ever granted, `seed` decides the jitter of retries.
    #[must_use]
    pub fn new(offers: u16, epoch: u64, seed: u64) -> Self {
        Self {
            offers: offers.max(1),
            epoch,
            workers: Vec::with_capacity(MAX_WORKERS),
            takeover: None,
            reload: false,
            loss: None,
            pace: Pace::new(seed),
            keeps_spare: false,
            spare_pace: Pace::new(seed),
            exit: None,
            exited: false,
            next_worker: 0,
        }
    }

    /// A machine with one worker, which was granted `epoch` by a predecessor and writes: its first
    /// heartbeat is due as if it had just sent one. The rest is as in [`new`](Self::new).
    #[must_use]
    pub fn resumed(offers: u16, epoch: u64, seed: u64, now: Duration) -> Self {
        let mut state = Self::new(offers, epoch, seed);
        let (id, phase) = (WorkerId(state.next_worker), Phase::Granted { epoch, progress: 0 });
        let (occasion, deadline, fault) = (Occasion::Start, None, None);
        let mut worker = Worker { id, occasion, phase, deadline, fault };
        worker.enter(phase, now);
        state.next_worker += 1;
        state.workers.push(worker);
        state
    }

    /// The newest epoch that was granted; 0 before the first.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Every worker process that exists.
    #[must_use]
    pub fn workers(&self) -> &[Worker] {
        &self.workers
    }

    /// Where `id` stands; `None` once it is reaped.
    #[must_use]
    pub fn phase(&self, id: WorkerId) -> Option<Phase> {
        self.workers.iter().find(|worker| worker.id == id).map(|worker| worker.phase)
    }

    /// Why `id` was killed, if it was, and not merely because it had closed its socket.
    #[must_use]
    pub fn fault(&self, id: WorkerId) -> Option<&str> {
        self.workers.iter().find(|worker| worker.id == id)?.fault.as_deref()
    }

    /// The worker whose grant is confirmed and not taken back.
    #[must_use]
    pub fn writer(&self) -> Option<WorkerId> {
        self.workers
            .iter()
            .find(|worker| matches!(worker.phase, Phase::Granted { .. }))
            .map(|worker| worker.id)
    }

    /// Whether a takeover is under way.
    #[must_use]
    pub const fn in_takeover(&self) -> bool {
        self.takeover.is_some()
    }

    /// The worker the takeover under way is for.
    #[must_use]
    pub fn candidate(&self) -> Option<WorkerId> {
        self.takeover.as_ref().map(|takeover| takeover.candidate)
    }

    /// The worker that waits for the writer's death, or is on its way to that.
    #[must_use]
    pub fn spare(&self) -> Option<&Worker> {
        self.workers.iter().find(|worker| self.is_spare(worker))
    }

    /// Whether something has happened that calls for a takeover, and none has begun for it.
    #[must_use]
    pub fn awaits_takeover(&self) -> bool {
        let lost = self.loss.is_some() && self.takeover.is_none() && !self.is_served();
        self.exit.is_none() && (self.reload || lost)
    }

    /// Whether this state is told whole by its epoch and by who writes, so that
    /// [`resumed`](Self::resumed) and [`new`](Self::new) can go on from there.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        let settled = match &self.workers[..] {
            [] => true,
            [one] => matches!(one.phase, Phase::Granted { .. }),
            _ => false,
        };
        settled && self.takeover.is_none() && self.exit.is_none()
    }

    /// Whether the supervisor is leaving.
    #[must_use]
    pub const fn leaving(&self) -> Option<Exit> {
        self.exit
    }

    /// Until when no replacement is started although one is needed.
    #[must_use]
    pub fn backing_off_until(&self) -> Option<Duration> {
        (self.wanted().is_some() && !self.is_served()).then(|| self.pace.next())
    }

    /// When the next worker is started that only its pace delays, a replacement or a spare.
    #[must_use]
    pub fn next_start(&self) -> Option<Duration> {
        let spare = self.wants_spare().then(|| self.spare_pace.next());
        self.backing_off_until().or(spare)
    }

    /// When [`Event::Tick`](super::Event::Tick) is due, if nothing else happens before.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        let workers = self.workers.iter().filter_map(|worker| worker.deadline);
        workers.chain(self.next_start()).min()
    }

    /// Whether some worker writes, or will be given its grant back if the candidate fails.
    pub(super) fn is_served(&self) -> bool {
        self.is_served_without(None)
    }

    /// The same, were it not for `id`.
    pub(super) fn is_served_without(&self, id: Option<WorkerId>) -> bool {
        self.workers.iter().filter(|worker| Some(worker.id) != id).any(|worker| {
            matches!(
                worker.phase,
                Phase::Granting { .. } | Phase::Granted { .. } | Phase::Releasing | Phase::Released
            )
        })
    }

    /// Why a takeover should begin, if one should and there is a worker for it, or room for one.
    pub(super) fn wanted(&self) -> Option<Cause> {
        if self.exit.is_some() || self.takeover.is_some() {
            return None;
        }
        let spares = usize::from(self.spare().is_some());
        let has_room = self.workers.len() - spares < MAX_SERVING;
        if self.is_served() {
            (self.reload && has_room).then_some(Cause::Reload)
        } else {
            self.loss.filter(|_| has_room || spares > 0)
        }
    }

    /// Whether a spare should be started: nothing else is under way, and there is none.
    pub(super) fn wants_spare(&self) -> bool {
        let is_quiet = self.exit.is_none() && self.takeover.is_none() && !self.reload;
        self.keeps_spare && is_quiet && self.writer().is_some() && self.workers.len() == 1
    }

    /// Whether `worker` is on its way to a grant that no takeover is about.
    pub(super) fn is_spare(&self, worker: &Worker) -> bool {
        worker.phase.is_candidate() && !self.is_candidate(worker.id)
    }

    pub(super) fn is_candidate(&self, id: WorkerId) -> bool {
        self.takeover.as_ref().is_some_and(|takeover| takeover.candidate == id)
    }

    pub(super) fn find(&mut self, id: WorkerId) -> Option<&mut Worker> {
        self.workers.iter_mut().find(|worker| worker.id == id)
    }
}

impl Worker {
    /// Moves on to `phase`, whose deadline starts now.
    pub(super) fn enter(&mut self, phase: Phase, now: Duration) {
        self.phase = phase;
        self.deadline = deadline::of(phase).map(|limit| now + limit);
    }
}
