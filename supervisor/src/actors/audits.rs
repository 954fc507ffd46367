//! What the keeper does about drift: looks, pins again, and lets the loader do the rest.

use std::time::{Duration, Instant};

use actix::{ActorFutureExt, AsyncContext, Context, Handler, Message, WrapFuture};
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

use super::keeper::Keeper;
use crate::channel::{Channel, ChannelError};
use crate::drift::repin::repin;
use crate::drift::{Remedy, audit};
use crate::estate::Estate;
use crate::loader::{self, Arrival, LoaderError, Progress};
use crate::lock::Lock;
use crate::memory;
use crate::process::{Child, Ending};
use crate::reactor;
use crate::takeover::Event;

/// Compare the kernel with the manifest.
pub struct Audit;

impl Message for Audit {
    type Result = ();
}

/// A loader at work on a repair. It is over when the loader has both said its last word and ended.
pub(super) struct Repair {
    child: Child,
    /// Whether it was told to attach what judges arriving connections.
    arrivals: bool,
    outcome: Option<Result<Estate, LoaderError>>,
    ending: Option<Ending>,
}

impl Handler<Audit> for Keeper {
    type Result = ();

    fn handle(&mut self, _: Audit, ctx: &mut Self::Context) {
        // What a loader is working on is looked at when it is done.
        if self.repair.is_none() && self.state.leaving().is_none() {
            self.audit(None, ctx);
            self.tell_vitals();
        }
        // The last things that run before a time in which nothing does.
        self.watches.tidy();
        memory::give_back();
    }
}

impl Keeper {
    /// Compares, says what is new, and begins what can be done. `tried` is what was done just now.
    pub(super) fn audit(&mut self, tried: Option<Remedy>, ctx: &mut Context<Self>) {
        let mut observed = self.observer.observe(&self.estate, &self.settings.plan);
        observed.arrivals_wanted = self.attachments.are_asked_for();
        let found = audit(&observed, &self.estate.manifest());
        let now = self.time(Instant::now());
        let news = self.drift.note(found, tried, now);
        for drift in &news.appeared {
            match drift.remedy() {
                _ if !drift.is_fault() => tracing::info!("{drift}"),
                Remedy::Nobody => tracing::error!("drift that cannot be repaired here: {drift}"),
                _ => tracing::warn!("drift: {drift}"),
            }
        }
        for drift in &news.repaired {
            tracing::warn!(drift = %drift, "drift was repaired");
        }
        for drift in &news.gone {
            tracing::info!(drift = %drift, "drift is gone");
        }
        // The book lets a remedy that did not help wait, so this ends.
        match self.drift.remedy(now) {
            Some(Remedy::Pin) => {
                self.pin_again();
                self.audit(Some(Remedy::Pin), ctx);
            }
            Some(Remedy::Load) => self.begin_repair(ctx),
            _ => {}
        }
    }

    fn pin_again(&self) {
        if let Err(error) = repin(&self.estate, &self.settings.plan) {
            tracing::error!(%error, "cannot put every pin back; the descriptors still hold all");
        }
        self.lock_pins_again();
    }

    /// Whoever removed the pins' directory removed what kept other supervisors away with it.
    fn lock_pins_again(&self) {
        let path = self.settings.places.pins_in_use();
        let mut locks = self.locks.borrow_mut();
        if locks.pins.as_ref().is_some_and(|lock| lock.is_at(&path)) {
            return;
        }
        match Lock::directory(&path) {
            Ok(lock) => locks.pins = lock,
            Err(error) => tracing::error!(%error, "another supervisor may use the same pins"),
        }
    }

    fn begin_repair(&mut self, ctx: &mut Context<Self>) {
        // Once it is attached it stays so, whatever policies come.
        let arrivals = self.attachments.are_asked_for() || self.estate.arrivals_were_attached();
        let (child, channel) = match self.start_loader(arrivals) {
            Ok(started) => started,
            Err(error) => {
                self.report(&error);
                return self.drift.failed(self.time(Instant::now()));
            }
        };
        tracing::info!(pid = child.pid(), "a loader repairs the estate");
        self.repair = Some(Repair { child, arrivals, outcome: None, ending: None });
        let arriving = async {
            let silent = Err(LoaderError::Channel(ChannelError::Silent));
            timeout(loader::LOADING, arrive(channel)).await.unwrap_or(silent)
        };
        let heard = |outcome, keeper: &mut Self, ctx: &mut Context<Self>| {
            keeper.repairer_spoke(outcome, ctx);
        };
        ctx.spawn(arriving.into_actor(self).map(heard));
    }

    fn start_loader(&self, arrivals: bool) -> Result<(Child, AsyncFd<Channel>), LoaderError> {
        let (channel, child) = loader::start(&self.settings.plan, arrivals)?;
        match reactor::watch(channel) {
            Ok(channel) => Ok((child, channel)),
            Err(source) => {
                // It is reaped as a stranger.
                child.kill();
                Err(ChannelError::Socket { operation: "epoll_ctl", source }.into())
            }
        }
    }

    fn repairer_spoke(&mut self, outcome: Result<Estate, LoaderError>, ctx: &mut Context<Self>) {
        let Some(repair) = &mut self.repair else { return };
        let patience = if outcome.is_ok() { loader::ENDING } else { Duration::ZERO };
        repair.outcome = Some(outcome);
        let pid = repair.child.pid();
        ctx.run_later(patience, move |keeper, _| {
            // Not reaped, so the number still is that child's.
            if let Some(repair) = keeper.repair.as_ref().filter(|repair| repair.child.pid() == pid)
                && repair.ending.is_none()
            {
                repair.child.kill();
            }
        });
        self.conclude_repair(ctx);
    }

    /// Whether the child `pid`, which was reaped, was at work on a repair.
    pub(super) fn repairer_ended(
        &mut self,
        pid: u32,
        ending: Ending,
        ctx: &mut Context<Self>,
    ) -> bool {
        let Some(repair) = &mut self.repair else { return false };
        if repair.child.pid() != pid || repair.ending.is_some() {
            return false;
        }
        repair.ending = Some(ending);
        self.conclude_repair(ctx);
        true
    }

    fn conclude_repair(&mut self, ctx: &mut Context<Self>) {
        let arrivals = match self.repair.take() {
            Some(Repair { outcome: Some(outcome), ending: Some(ending), arrivals, .. }) => {
                self.learn_of_repair(outcome, ending, ctx);
                arrivals
            }
            unfinished => return self.repair = unfinished,
        };
        if self.state.leaving().is_none() {
            // One that was not told what has been asked for since has not failed at that.
            let has_tried = arrivals || !self.attachments.are_asked_for();
            self.audit(has_tried.then_some(Remedy::Load), ctx);
            self.answer_attachment(ctx);
        }
    }

    fn learn_of_repair(
        &mut self,
        outcome: Result<Estate, LoaderError>,
        ending: Ending,
        ctx: &mut Context<Self>,
    ) {
        match outcome {
            Ok(estate) => {
                self.attachments.note(String::new());
                self.renew(estate, ctx);
            }
            Err(LoaderError::Channel(ChannelError::Closed)) => {
                let path = self.settings.plan.worker.clone();
                self.report(&LoaderError::Ended { path, ending });
            }
            Err(error) => self.report(&error),
        }
    }

    fn renew(&mut self, estate: Estate, ctx: &mut Context<Self>) {
        self.lock_pins_again();
        if !self.estate.renew(estate) {
            tracing::warn!("a map was made anew: the worker, which has the former, is replaced");
            // The spare has it, too.
            self.keep_spare(false, ctx);
            self.keep_spare(true, ctx);
            self.feed(Event::Reload, Instant::now(), ctx);
        }
    }

    fn report(&mut self, error: &LoaderError) {
        tracing::error!(%error, "the estate was not repaired; it is tried again later");
        self.attachments.note(error.to_string());
    }

    /// Ends a loader that is at work: who leaves repairs nothing, and an uninstall needs the pins
    /// for itself.
    pub(super) fn abandon_repair(&mut self) {
        let Some(Repair { child, ending: None, .. }) = self.repair.take() else { return };
        child.kill();
        // An error means that it was reaped by whoever reaps strangers.
        let _ended = child.wait(Instant::now() + loader::ENDING);
    }
}

/// Hears a loader to its last word.
async fn arrive(channel: AsyncFd<Channel>) -> Result<Estate, LoaderError> {
    let mut arrival = Arrival::default();
    loop {
        let mut ready = channel
            .readable()
            .await
            .map_err(|source| ChannelError::Socket { operation: "epoll_wait", source })?;
        match arrival.hear(channel.get_ref())? {
            Progress::Silent => ready.clear_ready(),
            Progress::Underway => {}
            Progress::Done => return arrival.estate(),
        }
    }
}
