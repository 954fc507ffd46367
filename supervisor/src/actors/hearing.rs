//! What the keeper hears: workers, signals, and the ends of children.

use std::rc::Rc;
use std::time::Instant;

use actix::{Context, Handler};
use holdfast_protocol::handover::{
    ConfigReport, DIGEST_BYTES, FromChild, MARK_BYTES, MAX_TEXT_BYTES, Seen, ToChild,
};
use holdfast_protocol::wire;
use nix::sys::signal::Signal;
use tokio::sync::oneshot;

use super::keeper::Keeper;
use super::lifeline::{self, HangUp, Heard, News};
use super::signals::{Arrived, Reaped};
use crate::probation::suspicion::End;
use crate::takeover::{Event, Word, WorkerId};

/// Most messages taken from a worker that is dead already: what fits its socket and more.
const MAX_LAST_WORDS: usize = 1024;

impl Handler<Heard> for Keeper {
    type Result = ();

    fn handle(&mut self, heard: Heard, ctx: &mut Self::Context) {
        self.hear(heard.worker, heard.news, heard.at, ctx);
    }
}

impl Handler<Reaped> for Keeper {
    type Result = ();

    fn handle(&mut self, reaped: Reaped, ctx: &mut Self::Context) {
        let Reaped { pid, ending, at } = reaped;
        // Of strangers too: what was killed for want of memory here was not the next worker.
        let is_starved = self.witness.explains(ending);
        let how = if is_starved { format!("{ending}: out of memory") } else { ending.to_string() };
        let found = self.workers.iter().find(|(_, live)| live.child.pid() == pid);
        let Some(worker) = found.map(|(worker, _)| *worker) else {
            if self.repairer_ended(pid, ending, ctx)
                || self.closer_ended(pid, ending)
                || self.rehearsal_ended(pid, ending, ctx)
            {
                return;
            }
            tracing::debug!(pid, %ending, "reaped a stranger");
            return;
        };
        // What it said before it died may not have been read. A refusal says more than an exit, and
        // what it tried may be why it died; whatever else it said, a dead worker is not to be granted
        // anything for it.
        let channel = Rc::clone(&self.workers[&worker].channel);
        for _ in 0..MAX_LAST_WORDS {
            match lifeline::next(channel.get_ref()) {
                Some(
                    news @ News::Message(FromChild::Refused { .. } | FromChild::Trying { .. }),
                ) => {
                    self.hear(worker, news, at, ctx);
                }
                Some(News::Message(_)) => {}
                _ => break,
            }
        }
        let Some(live) = self.workers.remove(&worker) else { return };
        let was_given_up = self.state.fault(worker).is_some();
        if self.judge(worker, &live, &how, End { ending, was_given_up, is_starved }) {
            // A spare has read what was set aside, and was not told that it should not have.
            self.keep_spare(false, ctx);
            self.keep_spare(true, ctx);
        }
        live.lifeline.do_send(HangUp);
        let watch = live.watch;
        let phase = self.state.phase(worker);
        if phase.is_some_and(|phase| phase.may_write()) {
            tracing::warn!(pid, ending = how, "the worker that writes is gone; governance stays");
            if self.state.fault(worker).is_none() {
                self.trouble = format!("worker {pid} ended: {how}");
            }
        }
        self.feed(Event::Reaped(worker, how), at, ctx);
        if let Some(watch) = watch {
            self.watches.give_back(watch);
        }
    }
}

impl Handler<Arrived> for Keeper {
    type Result = ();

    fn handle(&mut self, arrived: Arrived, ctx: &mut Self::Context) {
        let Arrived { signal, sender, at } = arrived;
        match signal {
            Signal::SIGHUP => {
                tracing::info!(sender, "reload asked for");
                self.proof.binaries.forgive();
                self.feed(Event::Reload, at, ctx);
            }
            Signal::SIGUSR2 => {
                tracing::info!(sender, "replacement by the binary on disk asked for");
                self.succeed(ctx);
            }
            Signal::SIGTERM | Signal::SIGINT => {
                tracing::info!(%signal, sender, "leaving; governance stays");
                self.feed(Event::Stop, at, ctx);
            }
            // Neither a reason to leave nor worth a line each: terminals and pipes send them.
            Signal::SIGWINCH | Signal::SIGCONT | Signal::SIGPIPE | Signal::SIGURG => {}
            signal => tracing::warn!(%signal, sender, "a signal without a meaning is ignored"),
        }
    }
}

impl Keeper {
    /// Deals with one message of `worker`.
    fn hear(&mut self, worker: WorkerId, news: News, at: Instant, ctx: &mut Context<Self>) {
        let event = match news {
            News::Message(message) => match self.understand(worker, message, ctx) {
                Ok(Some(word)) => {
                    self.observe(worker, &word, at);
                    Event::Said(worker, word)
                }
                Ok(None) => return,
                Err(reason) => Event::Fault(worker, reason),
            },
            News::Closed => Event::Closed(worker),
            News::Fault(reason) => Event::Fault(worker, reason),
        };
        self.feed(event, at, ctx);
    }

    /// What `message` means for the takeover; `None` when it is about something else, and why when no
    /// worker says it.
    fn understand(
        &mut self,
        worker: WorkerId,
        message: FromChild,
        ctx: &mut Context<Self>,
    ) -> Result<Option<Word>, String> {
        let Some(live) = self.workers.get_mut(&worker) else { return Ok(None) };
        Ok(Some(match message {
            FromChild::Welcome { newest, oldest, build } => {
                live.version = wire::bounded(&build, MAX_TEXT_BYTES);
                Word::Welcome { newest, oldest }
            }
            FromChild::Accepted { index } => Word::Accepted(index),
            FromChild::Refused { reason } => {
                live.exposure.refused = true;
                Word::Refused(wire::bounded(&reason, MAX_TEXT_BYTES))
            }
            FromChild::Ready { config } => {
                live.report = bounded(config);
                Word::Ready
            }
            FromChild::Released => Word::Released,
            FromChild::Granted { epoch } => Word::Granted(epoch),
            FromChild::Heartbeat { epoch, progress } => Word::Heartbeat { epoch, progress },
            FromChild::Config(report) => {
                live.report = bounded(report);
                if self.state.writer() == Some(worker) {
                    self.config = live.report.clone();
                    self.prove(ctx);
                    self.tell_vitals();
                }
                return Ok(None);
            }
            FromChild::Trying { digest } => {
                let digest = wire::bounded(&digest, DIGEST_BYTES);
                self.learn(worker, FromChild::Trying { digest }, ctx);
                return Ok(None);
            }
            FromChild::Kept { .. }
            | FromChild::NotKept { .. }
            | FromChild::SnapshotUnusable { .. } => {
                self.learn(worker, message, ctx);
                return Ok(None);
            }
            FromChild::Answer { id, body } => {
                self.relays.answered(id, body);
                return Ok(None);
            }
            FromChild::Overdue { endpoints } => {
                self.overdue(worker, endpoints, ctx);
                return Ok(None);
            }
            FromChild::Attach => {
                self.attach(worker, ctx);
                return Ok(None);
            }
            FromChild::Seen(Seen { digest, mark }) => {
                let digest = wire::bounded(&digest, DIGEST_BYTES);
                let mark = wire::bounded(&mark, MARK_BYTES);
                self.proof.seen = Some(Seen { digest, mark });
                return Ok(None);
            }
            FromChild::Closed(_) => return Err(loaders_word("what it closed")),
            FromChild::Offer(_) => return Err(loaders_word("an offer")),
            FromChild::Repaired { .. } => return Err(loaders_word("what it repaired")),
            FromChild::Cleared { .. } => return Err(loaders_word("what it removed")),
        }))
    }

    fn observe(&mut self, worker: WorkerId, word: &Word, at: Instant) {
        let now = self.time(at);
        if let Some(timeline) = &mut self.timeline
            && self.state.candidate() == Some(worker)
        {
            timeline.said(word, now);
        }
    }

    /// Asks the granted worker something; `None` when there is none, or it does not listen.
    pub(super) fn relay(
        &mut self,
        body: Vec<u8>,
        ctx: &mut Context<Self>,
    ) -> Option<oneshot::Receiver<Vec<u8>>> {
        let writer = self.state.writer()?;
        let (id, answer) = self.relays.asked(body.clone())?;
        if let Some(event) = self.tell(writer, &ToChild::Query { id, body }) {
            self.feed(event, Instant::now(), ctx);
            return None;
        }
        Some(answer)
    }

    /// Asks the worker that is granted now what the one before it has not answered.
    pub(super) fn ask_again(&self, worker: WorkerId, questions: Vec<(u64, Vec<u8>)>) {
        for (id, body) in questions {
            // One whose socket is full is judged by its heartbeats, not by this.
            let _later = self.tell(worker, &ToChild::Query { id, body });
        }
    }
}

fn loaders_word(what: &str) -> String {
    format!("it said {what}, which no worker does")
}

/// `report` with texts of a bounded size, so that a status always fits a packet.
fn bounded(report: ConfigReport) -> ConfigReport {
    ConfigReport {
        digest: wire::bounded(&report.digest, DIGEST_BYTES),
        error: wire::bounded(&report.error, MAX_TEXT_BYTES),
        ..report
    }
}
