//! What the keeper does about SIGUSR2: becomes the binary on disk, or goes on.

use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use actix::{AsyncContext, Context, Handler, Message};
use holdfast_protocol::handover::MAX_TEXT_BYTES;
use holdfast_protocol::wire;

use super::keeper::Keeper;
use crate::loader;
use crate::process::Ending;
use crate::succession::{Carried, CarriedWorker, Rehearsal};
use crate::timeline::micros;

/// How long a takeover under way is waited for: as long as one may take when every step needs all
/// of its time, less than the minute after which whoever asked gives up.
const WAITING: Duration = Duration::from_secs(50);

/// How long a rehearsal may take: some milliseconds; a machine that swaps needs seconds.
const REHEARSING: Duration = Duration::from_secs(10);

/// Between two looks at whether a takeover or a request is over.
const LOOK: Duration = Duration::from_millis(10);

/// How far the replacement of this binary has come.
pub(super) enum Succession {
    /// Nobody asked.
    None,
    /// Asked for; waits until no takeover is under way.
    Wanted {
        /// No longer than this.
        until: Instant,
    },
    /// The new binary is being tried.
    Rehearsing {
        /// With this process.
        rehearsal: Rehearsal,
        /// With this worker.
        worker: Option<u32>,
        /// For whatever follows.
        until: Instant,
    },
    /// It was tried and found good; waits for a quiet moment.
    Due {
        /// No longer than this.
        until: Instant,
    },
}

/// Everything that was read before the gate closed has been dealt with.
pub struct Depart;

impl Message for Depart {
    type Result = ();
}

impl Handler<Depart> for Keeper {
    type Result = ();

    fn handle(&mut self, _: Depart, ctx: &mut Self::Context) {
        if let Succession::Due { .. } = self.succession {
            if self.is_quiet() && self.gate.is_idle() {
                self.depart(ctx);
            } else {
                self.look_again(ctx);
            }
        }
        // Not reached by a process that has become another.
        self.gate.open();
    }
}

impl Keeper {
    /// Somebody wants this binary replaced.
    pub(super) fn succeed(&mut self, ctx: &mut Context<Self>) {
        if matches!(self.succession, Succession::None) && self.state.leaving().is_none() {
            self.succession = Succession::Wanted { until: Instant::now() + WAITING };
            // The successor starts one of its own.
            self.keep_spare(false, ctx);
            self.advance(ctx);
        }
    }

    fn advance(&mut self, ctx: &mut Context<Self>) {
        match self.succession {
            Succession::Wanted { until } | Succession::Due { until } if !self.is_quiet() => {
                if self.state.leaving().is_some() {
                    self.succession = Succession::None;
                } else if Instant::now() >= until {
                    self.stay(&format!("a takeover was under way for {WAITING:?}"), ctx);
                } else {
                    self.look_again(ctx);
                }
            }
            Succession::Wanted { until } => self.rehearse(until, ctx),
            Succession::Due { until } if Instant::now() >= until => {
                self.stay(&format!("a request was not answered for {WAITING:?}"), ctx);
            }
            Succession::Due { .. } => {
                self.gate.close();
                // Behind everything that was read before.
                ctx.address().do_send(Depart);
            }
            Succession::None | Succession::Rehearsing { .. } => {}
        }
    }

    fn look_again(&self, ctx: &mut Context<Self>) {
        ctx.run_later(LOOK, |keeper, ctx| keeper.advance(ctx));
    }

    /// Whether nothing is under way that the successor would have to be told about.
    fn is_quiet(&self) -> bool {
        let is_known = self.state.workers().len() == self.workers.len();
        let is_busy = self.repair.is_some() || self.closings.is_busy() || self.proof.is_keeping();
        is_known && self.state.is_quiet() && !is_busy
    }

    fn rehearse(&mut self, until: Instant, ctx: &mut Context<Self>) {
        let rehearsal = match self.image.rehearse(&self.carried()) {
            Ok(rehearsal) => rehearsal,
            Err(error) => return self.stay(&error.to_string(), ctx),
        };
        let (pid, worker) = (rehearsal.child.pid(), self.writer_process());
        self.succession = Succession::Rehearsing { rehearsal, worker, until };
        ctx.run_later(REHEARSING, move |keeper, _| {
            if let Succession::Rehearsing { rehearsal, .. } = &keeper.succession
                && rehearsal.child.pid() == pid
            {
                rehearsal.child.kill();
            }
        });
    }

    /// Whether the child `pid`, which was reaped, was a rehearsal.
    pub(super) fn rehearsal_ended(
        &mut self,
        pid: u32,
        ending: Ending,
        ctx: &mut Context<Self>,
    ) -> bool {
        match std::mem::replace(&mut self.succession, Succession::None) {
            Succession::Rehearsing { rehearsal, worker, until } if rehearsal.child.pid() == pid => {
                match rehearsal.outcome(ending) {
                    Ok(()) => self.succession = Succession::Due { until },
                    // It was shown a worker that died meanwhile, which says nothing about it.
                    Err(_) if self.writer_process() != worker && Instant::now() < until => {
                        self.succession = Succession::Wanted { until };
                    }
                    Err(reason) => self.stay(&reason, ctx),
                }
                self.advance(ctx);
                true
            }
            other => {
                self.succession = other;
                false
            }
        }
    }

    /// Becomes the new binary, or not.
    fn depart(&mut self, ctx: &mut Context<Self>) {
        let path = self.image.path().display();
        tracing::info!(%path, worker = self.writer_process(), "this process goes on as the binary on disk");
        let mut carried = self.carried();
        carried.replacements.count += 1;
        carried.replacements.last_failure.clear();
        let error = self.image.become_it(&carried);
        self.stay(&error.to_string(), ctx);
    }

    fn writer_process(&self) -> Option<u32> {
        Some(self.workers.get(&self.state.writer()?)?.child.pid())
    }

    fn stay(&mut self, reason: &str, ctx: &mut Context<Self>) {
        self.succession = Succession::None;
        let path = self.image.path().display();
        let reason = wire::bounded(
            &format!("{path} does not replace this binary, which goes on: {reason}"),
            MAX_TEXT_BYTES,
        );
        tracing::error!("{reason}");
        self.replacements.last_failure = reason;
        self.keep_spare(true, ctx);
    }

    /// Ends a rehearsal that is under way: who leaves needs no successor.
    pub(super) fn abandon_rehearsal(&mut self) {
        let former = std::mem::replace(&mut self.succession, Succession::None);
        if let Succession::Rehearsing { rehearsal, .. } = former {
            rehearsal.child.kill();
            // It holds copies of every descriptor until it is gone. An error means that it was
            // reaped by whoever reaps strangers.
            let _ended = rehearsal.child.wait(Instant::now() + loader::ENDING);
        }
    }

    /// Everything the successor has to know at this moment.
    fn carried(&self) -> Carried {
        let writer = self.state.writer().and_then(|writer| self.workers.get(&writer));
        let worker = writer.map(|live| CarriedWorker {
            pid: live.child.pid(),
            pidfd: live.child.as_fd().as_raw_fd(),
            socket: live.channel.get_ref().as_raw_fd(),
            watch: live.watch.as_ref().map(AsRawFd::as_raw_fd),
            age_us: micros(live.since.elapsed()),
            version: live.version.clone(),
            report: live.report.clone(),
        });
        let locks = self.locks.borrow();
        let objects = self.estate.objects().map(|(_, descriptor)| descriptor.as_raw_fd());
        Carried {
            build: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            cgroup: self.settings.plan.cgroup.as_os_str().as_bytes().to_vec(),
            age_us: micros(self.started.elapsed()),
            epoch: self.state.epoch(),
            worker,
            config: self.config.clone(),
            proved: self.proof.trials.proved().to_owned(),
            set_aside: self.proof.trials.set_aside().to_vec(),
            trouble: self.trouble.clone(),
            takeovers: self.ledger.shown().clone(),
            drift: self.drift.shown(),
            replacements: self.replacements.clone(),
            entries: self.estate.manifest(),
            objects: objects.collect(),
            lock: locks.instance.as_fd().as_raw_fd(),
            pins_lock: locks.pins.as_ref().map(|lock| lock.as_fd().as_raw_fd()),
            binary: self.proof.binaries.held(),
            listener: self.listener,
            scrapes: self.scrapes.listener(),
            started_ms: self.scrapes.started_ms(),
            config_since_ms: self.scrapes.config_since_ms(),
            sessions: self.gate.sessions(),
        }
    }
}
