//! What the keeper does when a takeover is over, and when everything is.

use std::time::Duration;

use actix::{ActorContext, Context, System};
use holdfast_protocol::handover::MAX_TEXT_BYTES;
use holdfast_protocol::wire;

use super::keeper::{Farewell, Keeper};
use super::requests::ReloadOutcome;
use crate::estate::Estate;
use crate::takeover::{Exit, Outcome};

impl Keeper {
    pub(super) fn conclude(&mut self, outcome: Outcome, now: Duration) {
        let timeline = self.timeline.take();
        match outcome {
            Outcome::Granted(worker, epoch) => {
                let Some(live) = self.workers.get(&worker) else { return };
                let pid = live.child.pid();
                self.config = live.report.clone();
                self.trouble.clear();
                let unanswered = self.relays.unanswered();
                self.ask_again(worker, unanswered);
                let Some(takeover) = timeline.map(|timeline| timeline.granted(now)) else { return };
                tracing::info!(
                    reason = takeover.reason,
                    pid,
                    epoch,
                    detect_us = takeover.detect_us,
                    spawn_us = takeover.spawn_us,
                    handover_us = takeover.handover_us,
                    ready_us = takeover.ready_us,
                    grant_us = takeover.grant_us,
                    total_us = takeover.total_us,
                    "a worker is granted"
                );
                self.waiters.takeover_ends(&ReloadOutcome::Granted { epoch, pid });
                self.ledger.granted(takeover);
            }
            Outcome::Failed(reason) => {
                let reason = wire::bounded(&reason, MAX_TEXT_BYTES);
                let after = if self.state.writer().is_some() {
                    "the former worker serves on"
                } else {
                    "what is in the kernel governs on, unchanged"
                };
                tracing::error!(reason, "a worker was not granted; {after}");
                self.ledger.failed(&reason);
                self.waiters.takeover_ends(&ReloadOutcome::Failed(format!(
                    "the new worker was not granted: {reason}; {after}"
                )));
                self.trouble = reason;
            }
        }
    }

    pub(super) fn exit(&mut self, exit: Exit, ctx: &mut Context<Self>) {
        self.abandon_repair();
        self.abandon_closing();
        self.abandon_rehearsal();
        let farewell = match exit {
            Exit::KeepingGovernance => Farewell::Keeping,
            Exit::ToUninstall => {
                // A detached link exists as long as somebody holds it.
                self.estate = Estate::default();
                Farewell::Uninstalling(std::mem::take(&mut self.uninstallers))
            }
        };
        *self.departure.borrow_mut() = Some(farewell);
        ctx.stop();
        System::current().stop();
    }
}
