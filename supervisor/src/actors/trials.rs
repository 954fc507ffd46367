//! What the keeper does about what is new: watches whether a configuration and a worker's binary
//! prove themselves, puts the former back if not, and has a snapshot written if so.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use actix::{AsyncContext, Context, SpawnHandle};
use holdfast_protocol::control::SnapshotStatus;
use holdfast_protocol::handover::{
    ConfigReport, ConfigState, FromChild, History, MAX_TEXT_BYTES, Occasion, Origin, Seen, ToChild,
};
use holdfast_protocol::wire;

use super::keeper::{Keeper, Live};
use crate::probation::binary::{Binaries, Chosen};
use crate::probation::configuration::Trials;
use crate::probation::suspicion::End;
use crate::process::Ending;
use crate::settings::Settings;
use crate::snapshot::Snapshot;
use crate::takeover::{Event, WorkerId};

/// Until a snapshot that could not be written is tried again: a full disk is not emptied sooner.
const RETRY: Duration = Duration::from_secs(30);

/// What is known of configurations and binaries.
pub(super) struct Proof {
    pub(super) trials: Trials,
    pub(super) binaries: Binaries,
    pub(super) snapshot: SnapshotStatus,
    /// What a worker of the present binary has read last, and how the next one recognises it.
    pub(super) seen: Option<Seen>,
    store: Snapshot,
    /// Which worker is writing a snapshot, and of what.
    keeping: Option<(WorkerId, String)>,
    retry: Option<Duration>,
    timer: Option<SpawnHandle>,
}

/// What a worker runs and does that may turn out to be why it crashes.
#[derive(Default)]
pub(super) struct Exposure {
    /// Its binary; unknown when a predecessor of this one started it.
    pub(super) binary: Option<Chosen>,
    /// Digest of the configuration it last began to parse.
    pub(super) tried: String,
    /// Whether it was granted.
    pub(super) granted: bool,
    /// Whether it refused to serve.
    pub(super) refused: bool,
    /// Whether it was told to leave.
    pub(super) dismissed: bool,
}

impl Proof {
    pub(super) fn new(settings: &Settings) -> Self {
        let store = Snapshot::at(settings.places.snapshot());
        let mut snapshot = SnapshotStatus::default();
        match store.open() {
            Ok(found) => snapshot.digest = found.map(|(_, digest)| digest).unwrap_or_default(),
            Err(error) => snapshot.error = error.to_string(),
        }
        Self {
            // It proved itself in a former life.
            trials: Trials::resumed(snapshot.digest.clone(), Vec::new()),
            binaries: Binaries::new(settings.plan.worker.clone()),
            snapshot,
            seen: None,
            store,
            keeping: None,
            retry: None,
            timer: None,
        }
    }

    /// What became of earlier configurations, as far as this process knows.
    pub(super) fn history(&self) -> History {
        let (set_aside, snapshot) =
            (self.trials.set_aside().to_vec(), self.snapshot.digest.clone());
        History { set_aside, snapshot }
    }

    /// Whether a worker is writing a snapshot.
    pub(super) const fn is_keeping(&self) -> bool {
        self.keeping.is_some()
    }

    fn cannot_keep(&mut self, reason: &str, now: Duration) {
        let reason = wire::bounded(reason, MAX_TEXT_BYTES);
        tracing::error!(reason, "no snapshot of the configuration; the former one stays");
        self.snapshot.error = reason;
        self.keeping = None;
        self.retry = Some(now + RETRY);
        self.store.abandon();
    }

    fn set_snapshot_aside(&mut self, reason: &str) {
        let reason = wire::bounded(reason, MAX_TEXT_BYTES);
        self.snapshot.error = match self.store.set_aside() {
            Ok(aside) => {
                format!("the snapshot is not used: {reason}; it is {} now", aside.display())
            }
            Err(error) => format!("the snapshot is not used: {reason}; {error}"),
        };
        self.snapshot.digest.clear();
        tracing::error!("{}", self.snapshot.error);
    }

    /// The snapshot to offer to a worker, if there is one.
    fn offered(&mut self) -> Option<std::fs::File> {
        match self.store.open() {
            Ok(Some((file, digest))) if !digest.is_empty() => {
                self.snapshot.digest = digest;
                Some(file)
            }
            Ok(Some(_)) => {
                self.set_snapshot_aside("it is not a snapshot");
                None
            }
            Ok(None) => {
                self.snapshot.digest.clear();
                None
            }
            Err(error) => {
                self.snapshot.error = error.to_string();
                None
            }
        }
    }
}

impl Keeper {
    /// Tells a worker what became of earlier configurations.
    pub(super) fn tell_history(&mut self, worker: WorkerId) -> Option<Event> {
        let file = self.proof.offered();
        let mut history = self.proof.history();
        if file.is_none() {
            history.snapshot.clear();
        }
        let descriptors: Vec<_> = file.iter().map(AsFd::as_fd).collect();
        self.tell_with(worker, &ToChild::History(history), &descriptors)
    }

    /// What a worker says about configurations and snapshots.
    pub(super) fn learn(&mut self, worker: WorkerId, said: FromChild, ctx: &mut Context<Self>) {
        let now = self.time(Instant::now());
        match said {
            FromChild::Trying { digest } => {
                self.proof.trials.tried(&digest);
                if let Some(live) = self.workers.get_mut(&worker) {
                    live.exposure.tried = digest;
                }
            }
            FromChild::Kept { digest } if self.proof.keeping == Some((worker, digest.clone())) => {
                self.proof.keeping = None;
                match self.proof.store.commit() {
                    Ok(()) => {
                        tracing::info!(digest, "a snapshot of the configuration is on the disk");
                        self.proof.snapshot = SnapshotStatus { digest, error: String::new() };
                    }
                    Err(error) => self.proof.cannot_keep(&error.to_string(), now),
                }
            }
            FromChild::NotKept { reason } if self.is_keeping(worker) => {
                self.proof.cannot_keep(&reason, now);
            }
            FromChild::SnapshotUnusable { reason } => self.proof.set_snapshot_aside(&reason),
            _ => {}
        }
        self.prove(ctx);
    }

    /// Something is in force, has been for long enough, or can be kept now.
    pub(super) fn prove(&mut self, ctx: &mut Context<Self>) {
        let now = self.time(Instant::now());
        let ConfigReport { digest, state, origin, .. } = &self.config;
        if let (ConfigState::InForce, Origin::Disk) = (state, origin) {
            self.proof.trials.in_force(digest, now);
        }
        if let Some(writer) = self.state.writer()
            && let Some(live) = self.workers.get_mut(&writer)
        {
            live.exposure.granted = true;
            if let Some(chosen) = &live.exposure.binary {
                self.proof.binaries.granted(&chosen.binary, now);
            }
        }
        self.proof.trials.pass(now);
        self.proof.binaries.pass(now);
        self.keep(now);
        self.arm_proof(now, ctx);
    }

    /// Has the writer put a snapshot on the disk, if what is in force deserves a new one.
    fn keep(&mut self, now: Duration) {
        let ConfigReport { digest, state, origin, .. } = &self.config;
        let in_force = *state == ConfigState::InForce && *origin == Origin::Disk;
        let is_news = digest == self.proof.trials.proved() && *digest != self.proof.snapshot.digest;
        let waits = self.proof.is_keeping() || self.proof.retry.is_some_and(|retry| now < retry);
        let Some(writer) = self.state.writer().filter(|_| in_force && is_news && !waits) else {
            return;
        };
        let digest = digest.clone();
        self.proof.retry = None;
        match self.proof.store.begin() {
            Ok(file) => {
                // What cannot be sent shows as the worker's end.
                self.tell_with(writer, &ToChild::Keep, &[file.as_fd()]);
                self.proof.keeping = Some((writer, digest));
            }
            Err(error) => self.proof.cannot_keep(&error.to_string(), now),
        }
    }

    fn is_keeping(&self, worker: WorkerId) -> bool {
        self.proof.keeping.as_ref().is_some_and(|(keeper, _)| *keeper == worker)
    }

    fn arm_proof(&mut self, now: Duration, ctx: &mut Context<Self>) {
        if let Some(timer) = self.proof.timer.take() {
            ctx.cancel_future(timer);
        }
        let Proof { trials, binaries, retry, .. } = &self.proof;
        let Some(next) = [trials.due(), binaries.due(), *retry].into_iter().flatten().min() else {
            return;
        };
        // A due time that has passed waits for something else, which calls this again.
        let Some(wait) = next.checked_sub(now).filter(|wait| !wait.is_zero()) else { return };
        self.proof.timer = Some(ctx.run_later(wait, |keeper, ctx| {
            keeper.proof.timer = None;
            keeper.prove(ctx);
        }));
    }

    /// Draws conclusions from the end of a worker, which is no longer among the others. Whether a
    /// configuration is set aside because of it.
    pub(super) fn judge(&mut self, worker: WorkerId, live: &Live, how: &str, end: End) -> bool {
        if self.is_keeping(worker) {
            self.proof.keeping = None;
            self.proof.store.abandon();
        }
        let Exposure { binary, tried, granted, refused, dismissed } = &live.exposure;
        if *dismissed {
            return false;
        }
        let is_suspicious = end.is_suspicious();
        // A worker that never served is no use, suspicious or not; except that one may well refuse
        // a configuration that somebody wants to have loaded.
        let found = self.state.workers().iter().find(|other| other.id == worker);
        let may_refuse = found.is_some_and(|worker| worker.occasion == Occasion::Reload);
        let ended_itself = matches!(end.ending, Ending::Exited(_)) && !(*refused && may_refuse);
        let never_served = !granted && ended_itself;
        if let Some(chosen) = binary.as_ref().filter(|_| is_suspicious || never_served)
            && self.proof.binaries.replaces(chosen.binary.identity())
        {
            let reason = format!("worker {} ended: {how}", live.child.pid());
            self.put_binary_back(chosen, &reason);
            return false;
        }
        // One that has said why it will not serve was killed for that, and crashed on nothing.
        is_suspicious && !*refused && self.blame_configuration(tried, how)
    }

    /// A worker that tried this configuration crashed; whether it is set aside for that.
    fn blame_configuration(&mut self, digest: &str, reason: &str) -> bool {
        let Some(aside) = self.proof.trials.crashed(digest, reason) else { return false };
        tracing::error!(
            digest = aside.digest,
            reason = aside.reason,
            "this configuration has crashed worker after worker and is set aside; the last good one \
             comes back into force, until something else is saved"
        );
        true
    }

    pub(super) fn put_binary_back(&mut self, failed: &Chosen, reason: &str) {
        if self.proof.binaries.failed(failed.binary.identity()) {
            // The former one may make other marks, or know of none.
            self.proof.seen = None;
            tracing::error!(
                binary = %failed.program.display(),
                reason,
                "the worker's binary failed before it had proved itself; the former one is put back \
                 until another is installed or a reload is asked for"
            );
        }
    }
}
