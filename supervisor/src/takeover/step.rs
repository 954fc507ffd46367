//! How an event changes the state.

use std::time::Duration;

use holdfast_protocol::wire;

use super::deadline;
use super::event::{Action, Cause, Event, Exit, Word, WorkerId};
use super::phase::Phase;
use super::state::State;

/// What is said of a worker that closed its socket, until it is known how it ended.
const CLOSED: &str = "it closed its socket";

impl State {
    /// What has to be done because `event` happened at `now`, which never goes back.
    ///
    /// Events about workers that are already gone or on their way out change nothing, so a shell
    /// need not know whether an event is still of interest.
    pub fn step(&mut self, event: Event, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Start => self.loss = Some(Cause::Start),
            Event::Spawned(id) => self.spawned(id, now, &mut actions),
            Event::SpawnFailed(id, reason) => {
                self.lost(id, &format!("it could not be started: {reason}"), Cause::Crash, now);
                self.workers.retain(|worker| worker.id != id);
            }
            Event::Said(id, word) => self.said(id, word, now, &mut actions),
            Event::Closed(id) => self.give_up(id, CLOSED, Cause::Crash, now, &mut actions),
            Event::Fault(id, reason) => self.give_up(id, &reason, Cause::Crash, now, &mut actions),
            Event::Reaped(id, how) => self.reaped(id, &how, now),
            Event::Reload => {
                self.reload = self.exit.is_none();
                self.pace.forget();
                self.spare_pace.forget();
            }
            Event::Spare(wanted) => {
                self.keeps_spare = wanted;
                if !wanted {
                    self.dismiss_spare(now, &mut actions);
                }
            }
            Event::Stop => self.leave(Exit::KeepingGovernance, now, &mut actions),
            Event::Uninstall => self.leave(Exit::ToUninstall, now, &mut actions),
            Event::Tick => self.tick(now, &mut actions),
        }
        self.settle(now, &mut actions);
        actions
    }

    fn spawned(&mut self, id: WorkerId, now: Duration, actions: &mut Vec<Action>) {
        let (leaving, epoch) = (self.exit.is_some(), self.epoch + 1);
        let Some(worker) = self.find(id) else { return };
        match worker.phase {
            Phase::Spawning if !leaving => {
                worker.enter(Phase::Greeted, now);
                actions.push(Action::Hello { worker: id, epoch, occasion: worker.occasion });
            }
            Phase::Spawning | Phase::Dying { .. } => {
                worker.enter(Phase::Dying { writer: false }, now);
                actions.push(Action::Kill(id));
            }
            _ => {}
        }
    }

    fn said(&mut self, id: WorkerId, word: Word, now: Duration, actions: &mut Vec<Action>) {
        let offers = self.offers;
        let Some(worker) = self.find(id) else { return };
        match (worker.phase, word) {
            // It may have spoken before it read that it should leave.
            (Phase::Leaving | Phase::Dying { .. }, _) => {}
            (_, Word::Refused(reason)) => {
                self.give_up(id, &reason, Cause::Crash, now, actions);
            }
            (Phase::Greeted, Word::Welcome { newest, oldest }) => {
                if newest < wire::OLDEST_VERSION || oldest > wire::VERSION {
                    let reason = foreign_version(newest, oldest);
                    return self.give_up(id, &reason, Cause::Crash, now, actions);
                }
                worker.enter(Phase::Offered { accepted: 0 }, now);
                actions.push(Action::Offer(id));
            }
            (Phase::Offered { accepted }, Word::Accepted(index)) if index == accepted => {
                if accepted + 1 == offers {
                    worker.enter(Phase::Preparing, now);
                } else {
                    // The deadline is for the estate, not for each of its parts.
                    worker.phase = Phase::Offered { accepted: accepted + 1 };
                }
            }
            (Phase::Preparing, Word::Ready) => {
                worker.enter(Phase::Shadow { progress: 0 }, now);
                if !self.is_candidate(id) {
                    self.spare_pace.granted();
                }
            }
            (Phase::Releasing, Word::Released) => worker.enter(Phase::Released, now),
            (Phase::Granting { epoch }, Word::Granted(said)) if said == epoch => {
                worker.enter(Phase::Granted { epoch, progress: 0 }, now);
                self.granted(id, now, actions);
            }
            (Phase::Granted { epoch, progress }, Word::Heartbeat { epoch: of, progress: new }) => {
                // Another epoch's heartbeat was on its way before the grant; the same progress
                // twice is a worker that lives and does nothing.
                if of == epoch && new != progress {
                    worker.enter(Phase::Granted { epoch, progress: new }, now);
                }
            }
            (Phase::Shadow { progress }, Word::Heartbeat { progress: new, .. }) => {
                if new != progress {
                    worker.enter(Phase::Shadow { progress: new }, now);
                }
            }
            (_, Word::Heartbeat { .. }) => {}
            (phase, word) => {
                let reason = format!("it said {word:?} when it should {}", phase.duty());
                self.give_up(id, &reason, Cause::Crash, now, actions);
            }
        }
    }

    /// `id` confirmed its grant: the former worker may go.
    fn granted(&mut self, id: WorkerId, now: Duration, actions: &mut Vec<Action>) {
        if !self.is_candidate(id) {
            // The former worker got its grant back; `settle` concludes the takeover that failed.
            return;
        }
        self.loss = None;
        self.pace.granted();
        for former in self.workers.iter_mut().filter(|former| former.phase == Phase::Released) {
            former.enter(Phase::Leaving, now);
            actions.push(Action::Leave(former.id));
        }
        // It is of the former binary, or would have been the candidate.
        self.dismiss_spare(now, actions);
    }

    /// Kills the spare, if there is one: it holds nothing that it could leave half done.
    fn dismiss_spare(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let Some(id) = self.spare().map(|spare| spare.id) else { return };
        if let Some(spare) = self.find(id) {
            spare.enter(Phase::Dying { writer: false }, now);
            actions.push(Action::Kill(id));
        }
    }

    fn reaped(&mut self, id: WorkerId, how: &str, now: Duration) {
        self.lost(id, &format!("it ended: {how}"), Cause::Crash, now);
        self.workers.retain(|worker| worker.id != id);
        // How it ended says more than that its socket closed.
        if let Some(takeover) = &mut self.takeover
            && takeover.candidate == id
            && takeover.verdict.as_deref() == Some(CLOSED)
        {
            takeover.verdict = Some(format!("it ended: {how}"));
        }
    }

    /// Kills `id` because it can no longer be relied on.
    fn give_up(
        &mut self,
        id: WorkerId,
        reason: &str,
        cause: Cause,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        self.lost(id, reason, cause, now);
        let Some(worker) = self.find(id) else { return };
        if !matches!(worker.phase, Phase::Dying { .. }) {
            worker.enter(Phase::Dying { writer: worker.phase.may_write() }, now);
            worker.fault = (reason != CLOSED).then(|| reason.to_owned());
            actions.push(Action::Kill(id));
        }
    }

    /// Notes what the loss of `id` means, if anything was expected of it.
    fn lost(&mut self, id: WorkerId, reason: &str, cause: Cause, now: Duration) {
        let Some(phase) = self.phase(id) else { return };
        if matches!(phase, Phase::Leaving | Phase::Dying { .. }) {
            return;
        }
        let others_serve = self.is_served_without(Some(id));
        match &mut self.takeover {
            Some(takeover) if takeover.candidate == id && takeover.verdict.is_none() => {
                takeover.verdict = Some(reason.to_owned());
                if !others_serve {
                    self.loss = self.loss.or(Some(cause));
                    self.pace.failed(now);
                }
            }
            _ if !phase.is_candidate() => self.loss = Some(cause),
            // A spare. One that was ready has shown that its kind works.
            _ if !matches!(phase, Phase::Shadow { .. }) => self.spare_pace.failed(now),
            _ => {}
        }
    }

    fn leave(&mut self, exit: Exit, now: Duration, actions: &mut Vec<Action>) {
        // Once removal was asked for, a mere stop does not take it back.
        self.exit = self.exit.max(Some(exit));
        self.reload = false;
        for worker in &mut self.workers {
            match worker.phase {
                // Not running yet: it is killed as soon as it is.
                Phase::Spawning | Phase::Dying { .. } => continue,
                Phase::Leaving => {}
                _ => {
                    worker.phase = Phase::Leaving;
                    worker.deadline = None;
                    actions.push(Action::Leave(worker.id));
                }
            }
            let latest = now + deadline::STOPPING;
            worker.deadline = Some(worker.deadline.map_or(latest, |deadline| deadline.min(latest)));
        }
    }

    fn tick(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let late: Vec<_> = self
            .workers
            .iter()
            .filter(|worker| worker.deadline.is_some_and(|deadline| deadline <= now))
            .map(|worker| (worker.id, worker.phase))
            .collect();
        for (id, phase) in late {
            let limit = deadline::of(phase).unwrap_or_default();
            let reason = format!("it did not {} within {limit:?}", phase.duty());
            self.give_up(id, &reason, Cause::Hang, now, actions);
        }
    }
}

fn foreign_version(newest: u8, oldest: u8) -> String {
    let (ours_oldest, ours_newest) = (wire::OLDEST_VERSION, wire::VERSION);
    format!(
        "it speaks protocol versions {oldest} to {newest}, this supervisor {ours_oldest} to \
         {ours_newest}: install binaries of one release"
    )
}
