//! What follows from a state, whatever event led to it. Everything that decides who may write is
//! here, so that no order of events can lead around it.

use std::time::Duration;

use holdfast_protocol::handover::Occasion;

use super::event::{Action, Cause, Exit, Outcome, WorkerId};
use super::phase::{Phase, Worker};
use super::state::{State, Takeover};

impl State {
    /// Adds to `actions` what the state calls for.
    pub(super) fn settle(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if let Some(exit) = self.exit {
            return self.settle_exit(exit, actions);
        }
        self.settle_grant(now, actions);
        self.settle_outcome(actions);
        self.settle_need(now, actions);
    }

    fn settle_exit(&mut self, exit: Exit, actions: &mut Vec<Action>) {
        if self.takeover.take().is_some() {
            actions.push(Action::Conclude(Outcome::Failed("the supervisor is leaving".to_owned())));
        }
        if self.workers.is_empty() && !self.exited {
            self.exited = true;
            actions.push(Action::Exit(exit));
        }
    }

    /// The only place where anybody is granted or asked to let go.
    fn settle_grant(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let ready =
            self.candidate().filter(|id| matches!(self.phase(*id), Some(Phase::Shadow { .. })));
        if self.workers.iter().any(|worker| worker.phase.may_write()) {
            if let (Some(_), Some(writer)) = (ready, self.writer()) {
                self.enter(writer, Phase::Releasing, now);
                actions.push(Action::Release(writer));
            }
            return;
        }
        // A candidate on its way keeps the former worker waiting; one that failed does not.
        let underway = self.takeover.as_ref().is_some_and(|takeover| takeover.verdict.is_none());
        let former = self.in_phase(|phase| phase == Phase::Released).filter(|_| !underway);
        if let Some(id) = ready.or(former) {
            self.epoch += 1;
            self.enter(id, Phase::Granting { epoch: self.epoch }, now);
            actions.push(Action::Grant(id, self.epoch));
        }
    }

    /// A takeover is over when its candidate writes, or when that is gone and whoever can serve
    /// instead does so.
    fn settle_outcome(&mut self, actions: &mut Vec<Action>) {
        let Some(Takeover { candidate, verdict }) = &self.takeover else { return };
        let outcome = match (self.phase(*candidate), verdict) {
            (Some(Phase::Granted { epoch, .. }), None) => Outcome::Granted(*candidate, epoch),
            (None, Some(verdict)) if self.writer().is_some() || !self.is_served() => {
                Outcome::Failed(verdict.clone())
            }
            _ => return,
        };
        self.takeover = None;
        actions.push(Action::Conclude(outcome));
    }

    fn settle_need(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let Some(cause) = self.wanted() else { return self.settle_spare(now, actions) };
        let spare = self.spare().map(|spare| spare.id).filter(|_| cause != Cause::Reload);
        if let Some(candidate) = spare {
            self.takeover = Some(Takeover { candidate, verdict: None });
            actions.push(Action::Promote(candidate, cause));
            // It may be ready already.
            return self.settle_grant(now, actions);
        }
        if cause != Cause::Reload {
            if self.pace.next() > now {
                return;
            }
            self.pace.started(now);
        }
        self.reload = false;
        actions.push(Action::Begin(cause));
        let candidate = self.start(
            match cause {
                Cause::Start => Occasion::Start,
                Cause::Crash | Cause::Hang => Occasion::Recovery,
                Cause::Reload => Occasion::Reload,
            },
            now,
            actions,
        );
        self.takeover = Some(Takeover { candidate, verdict: None });
    }

    fn settle_spare(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.wants_spare() && self.spare_pace.next() <= now {
            self.spare_pace.started(now);
            self.start(Occasion::Standby, now, actions);
        }
    }

    fn start(&mut self, occasion: Occasion, now: Duration, actions: &mut Vec<Action>) -> WorkerId {
        let id = WorkerId(self.next_worker);
        let phase = Phase::Spawning;
        let mut worker = Worker { id, occasion, phase, deadline: None, fault: None };
        worker.enter(phase, now);
        self.next_worker += 1;
        self.workers.push(worker);
        actions.push(Action::Spawn { worker: id, epoch: self.epoch + 1, occasion });
        id
    }

    fn in_phase(&self, wanted: impl Fn(Phase) -> bool) -> Option<WorkerId> {
        self.workers.iter().find(|worker| wanted(worker.phase)).map(|worker| worker.id)
    }

    fn enter(&mut self, id: WorkerId, phase: Phase, now: Duration) {
        if let Some(worker) = self.find(id) {
            worker.enter(phase, now);
        }
    }
}
