//! What the keeper does to workers when the machine says so: starts them, talks to them, ends them.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::rc::Rc;
use std::time::Instant;

use actix::{Actor, AsyncContext, Context};
use holdfast_protocol::handover::{ConfigReport, ConfigState, History, Occasion, ToChild};
use holdfast_protocol::wire;

use super::keeper::{Keeper, Live};
use super::lifeline::Lifeline;
use super::trials::Exposure;
use crate::channel::{Channel, ChannelError};
use crate::takeover::{Event, Phase, WorkerId};
use crate::{oom, process, reactor, record};

/// How a worker's C library keeps its heap, if it is one that reads this: one for all threads, in pages
/// of 2 MiB where the kernel has them. A dead worker's memory is freed page by page before anybody else
/// may be granted, and with the largest configurations that is most of a takeover. Texts of configurations
/// are in it too, which without the last two would be mapped anew for each save, and unmapped.
const HEAP: (&str, &str) = (
    "GLIBC_TUNABLES",
    "glibc.malloc.arena_max=1:glibc.malloc.hugetlb=1:\
     glibc.malloc.mmap_threshold=67108864:glibc.malloc.trim_threshold=8388608",
);

/// What became of earlier configurations, and which one is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    history: History,
    in_force: ConfigReport,
}

impl Keeper {
    pub(super) fn spawn(
        &mut self,
        worker: WorkerId,
        ctx: &mut Context<Self>,
    ) -> Result<(), String> {
        let settings = &self.settings;
        let path = settings.plan.worker.display();
        let chosen = self.proof.binaries.choose().map_err(|error| format!("{path}: {error}"))?;
        let mut command = Command::new(&chosen.program);
        command.arg0(&settings.plan.worker);
        command.arg("serve").arg("--config").arg(&settings.config);
        command.args(["--user", &settings.worker_user]);
        command.args(["--log-format", settings.log_format.as_str()]);
        if settings.allow_root_worker {
            command.arg("--allow-root");
        }
        command.env(HEAP.0, HEAP.1);
        oom::offer_instead(&mut command);
        let (ours, theirs) = Channel::pair().map_err(|error| error.to_string())?;
        // Registered first: a child that cannot be heard must not exist.
        let channel = Rc::new(reactor::watch(ours).map_err(|error| error.to_string())?);
        // With them, no other supervisor starts while this worker lives, whatever becomes of this one.
        let mut kept = self.locks.borrow().descriptors();
        let watch = match self.watches.take() {
            Ok(watch) => {
                command.arg(format!("--watch={}", watch.as_raw_fd()));
                kept.push(watch.as_raw_fd());
                Some(watch)
            }
            Err(error) => {
                tracing::warn!(%error, "a worker has to look for changes: no instance of inotify");
                None
            }
        };
        let child = match process::spawn(&mut command, theirs, settings.access_log.open(), kept) {
            Ok(child) => child,
            Err(error) => {
                let reason = format!("{path}: {error}");
                self.put_binary_back(&chosen, &reason);
                return Err(reason);
            }
        };
        let gate = Rc::clone(&self.gate);
        let lifeline = Lifeline::new(worker, Rc::clone(&channel), gate, ctx.address()).start();
        let (since, version, report) = (Instant::now(), String::new(), ConfigReport::default());
        let exposure = Exposure { binary: Some(chosen), ..Exposure::default() };
        let told = None;
        let live = Live { child, since, version, report, exposure, told, channel, watch, lifeline };
        self.workers.insert(worker, live);
        Ok(())
    }

    pub(super) fn hello(&self, epoch: u64, occasion: Occasion) -> ToChild {
        ToChild::Hello {
            newest: wire::VERSION,
            oldest: wire::OLDEST_VERSION,
            instance: self.settings.plan.instance.clone(),
            epoch,
            occasion,
        }
    }

    /// Tells a worker how things stand.
    pub(super) fn tell_standing(&mut self, worker: WorkerId, occasion: Occasion) -> Option<Event> {
        let failed = self.tell_history(worker).or_else(|| self.tell_in_force(worker, occasion));
        let standing = self.standing();
        self.workers.get_mut(&worker)?.told = Some(standing);
        failed
    }

    fn standing(&self) -> Standing {
        Standing { history: self.proof.history(), in_force: self.config.clone() }
    }

    /// Says what the former worker had put in force to one that follows it after a crash, or would:
    /// who finds the same on disk is ready without compiling it first.
    fn tell_in_force(&self, worker: WorkerId, occasion: Occasion) -> Option<Event> {
        let follows = matches!(occasion, Occasion::Recovery | Occasion::Standby);
        let known = follows
            && self.config.state != ConfigState::Unknown
            && !self.proof.trials.is_set_aside(&self.config.digest);
        known.then(|| self.tell(worker, &ToChild::InForce(self.config.clone()))).flatten()
    }

    /// Says how to recognise what is in force to one that follows a crash: it need not read megabytes before it is
    /// ready. Spares have the time.
    pub(super) fn tell_seen(&self, worker: WorkerId, occasion: Occasion) -> Option<Event> {
        let is_awaited =
            occasion == Occasion::Recovery && self.config.state == ConfigState::InForce;
        let seen = self.proof.seen.as_ref().filter(|seen| {
            is_awaited
                && seen.digest == self.config.digest
                && !self.proof.trials.is_set_aside(&seen.digest)
        })?;
        self.tell(worker, &ToChild::Seen(seen.clone()))
    }

    /// Sends `message`; what it means that it could not be sent.
    pub(super) fn tell(&self, worker: WorkerId, message: &ToChild) -> Option<Event> {
        self.tell_with(worker, message, &[])
    }

    /// The same, with descriptors beside it.
    pub(super) fn tell_with(
        &self,
        worker: WorkerId,
        message: &ToChild,
        descriptors: &[BorrowedFd<'_>],
    ) -> Option<Event> {
        let channel = self.workers.get(&worker)?.channel.get_ref();
        fault(worker, channel.send(message, descriptors).err()?)
    }

    pub(super) fn offer(&self, worker: WorkerId) -> Option<Event> {
        let channel = self.workers.get(&worker)?.channel.get_ref();
        let send = |(offer, descriptors): (_, Vec<_>)| {
            channel.send(&ToChild::Offer(offer), &descriptors).err()
        };
        fault(worker, self.estate.offers().into_iter().find_map(send)?)
    }

    pub(super) fn grant(&mut self, worker: WorkerId, epoch: u64) -> Option<Event> {
        // Recorded first: a supervisor that starts again must never give an epoch out twice.
        if let Err(error) = record::write_epoch(&self.settings.places.epoch(), epoch) {
            tracing::error!(%error, epoch, "granting all the same; a restart may repeat this epoch");
        }
        let told = self.hand_listener(worker);
        told.or_else(|| self.tell(worker, &ToChild::Grant { epoch }))
    }

    /// Keeps a spare worker from here on, or none, as far as this supervisor was told to at all.
    pub(super) fn keep_spare(&mut self, wanted: bool, ctx: &mut Context<Self>) {
        if self.settings.standby {
            self.feed(Event::Spare(wanted), Instant::now(), ctx);
        }
    }

    /// Tells the spare, if it is ready, how things stand now, unless that is as it was told at its start: the
    /// next grant waits for this.
    pub(super) fn promote(&mut self, spare: WorkerId) -> Option<Event> {
        let is_ready =
            matches!(self.state.phase(spare)?, Phase::Shadow { .. } | Phase::Granting { .. });
        if is_ready && self.config.state == ConfigState::InForce {
            let (config, standing) = (self.config.clone(), self.standing());
            let live = self.workers.get_mut(&spare)?;
            live.report = config;
            if live.told != Some(standing) {
                return self.tell_standing(spare, Occasion::Standby);
            }
        }
        None
    }

    pub(super) fn kill(&mut self, worker: WorkerId) {
        let Some(live) = self.workers.get(&worker) else { return };
        if let Some(reason) = self.state.fault(worker) {
            tracing::warn!(pid = live.child.pid(), reason, "killing a worker");
            reason.clone_into(&mut self.trouble);
        }
        live.child.kill();
    }
}

fn fault(worker: WorkerId, error: ChannelError) -> Option<Event> {
    match error {
        // The end of file says so itself, after what the worker has said before.
        ChannelError::Closed => None,
        error => Some(Event::Fault(worker, error.to_string())),
    }
}
