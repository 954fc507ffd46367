//! What the keeper does when a worker needs what judges arriving connections: sees to it that it is attached,
//! and says so.
//!
//! That is drift like any other, and a loader's work. Who has asked is remembered only until the answer: a
//! worker that hears none asks again, and from then on what is attached says by itself that it is needed.

use std::time::Instant;

use actix::Context;
use holdfast_protocol::handover::{MAX_TEXT_BYTES, ToChild};
use holdfast_protocol::wire;

use super::keeper::Keeper;
use crate::takeover::WorkerId;

/// What is said when no loader has failed, and none can be tried yet.
const UNKNOWN: &str = "nothing could attach it so far; see `drift` in `holdfastctl status` and the \
                       supervisor's log";

/// What is said of an estate that no loader of this release has made.
const NO_LINK: &str = "the estate has no link for it: install binaries of one release, and restart the \
                       supervisor";

/// What was asked for, and why it is not there.
#[derive(Debug, Default)]
pub(super) struct Attachments {
    /// Who waits for an answer.
    asked: Option<WorkerId>,
    /// Why the last loader failed; empty if it did not.
    failure: String,
}

impl Attachments {
    /// Whether somebody waits for an answer.
    pub(super) const fn are_asked_for(&self) -> bool {
        self.asked.is_some()
    }

    /// What became of the last loader.
    pub(super) fn note(&mut self, failure: String) {
        self.failure = failure;
    }
}

impl Keeper {
    /// `worker` is about to put policies for arriving connections in force. Whoever may not write is not heard.
    pub(super) fn attach(&mut self, worker: WorkerId, ctx: &mut Context<Self>) {
        let may_write = self.state.phase(worker).is_some_and(|phase| phase.may_write());
        if !may_write || self.state.leaving().is_some() {
            return;
        }
        self.attachments.asked = Some(worker);
        if self.repair.is_none() && self.estate.arrivals_attached() == Some(false) {
            self.audit(None, ctx);
        }
        self.answer_attachment(ctx);
    }

    /// Answers who has asked, unless a loader is at work.
    pub(super) fn answer_attachment(&mut self, ctx: &mut Context<Self>) {
        if self.repair.is_some() {
            return;
        }
        let Some(worker) = self.attachments.asked.take() else { return };
        let not_attached = |reason: &str| {
            tracing::error!(reason, "what judges arriving connections is not attached");
            ToChild::NotAttached { reason: wire::bounded(reason, MAX_TEXT_BYTES) }
        };
        let answer = match self.estate.arrivals_attached() {
            Some(true) => ToChild::Attached,
            Some(false) if self.attachments.failure.is_empty() => not_attached(UNKNOWN),
            Some(false) => not_attached(&self.attachments.failure),
            None => not_attached(NO_LINK),
        };
        if let Some(event) = self.tell(worker, &answer) {
            self.feed(event, Instant::now(), ctx);
        }
    }
}
