//! Requests that are answered later: reloads wait for their takeover, questions for the worker.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

/// Most questions the worker may have before it.
const MAX_QUESTIONS: usize = 32;

/// Most people that wait for a reload; more than may be connected.
const MAX_WAITERS: usize = 64;

/// How a reload ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReloadOutcome {
    /// A new worker writes.
    Granted {
        /// Its epoch.
        epoch: u64,
        /// Its process.
        pid: u32,
    },
    /// None does; why.
    Failed(String),
}

/// Who waits for a reload.
#[derive(Debug, Default)]
pub struct Waiters {
    /// For the takeover that has not begun.
    next: Vec<oneshot::Sender<ReloadOutcome>>,
    /// For the one under way.
    current: Vec<oneshot::Sender<ReloadOutcome>>,
}

impl Waiters {
    /// Waits for the next takeover; `None` when too many do.
    pub fn wait(&mut self) -> Option<oneshot::Receiver<ReloadOutcome>> {
        self.next.retain(|waiter| !waiter.is_closed());
        if self.next.len() >= MAX_WAITERS {
            return None;
        }
        let (waiter, outcome) = oneshot::channel();
        self.next.push(waiter);
        Some(outcome)
    }

    /// Whoever asked before this moment is served by the takeover that begins.
    pub fn takeover_begins(&mut self) {
        self.current.append(&mut self.next);
    }

    /// The takeover under way has ended.
    pub fn takeover_ends(&mut self, outcome: &ReloadOutcome) {
        for waiter in self.current.drain(..) {
            // Whoever has gone meanwhile does not want to know.
            let _gone = waiter.send(outcome.clone());
        }
    }

    /// There will be no takeover any more.
    pub fn give_up(&mut self, reason: &str) {
        self.takeover_begins();
        self.takeover_ends(&ReloadOutcome::Failed(reason.to_owned()));
    }
}

/// Questions the worker was asked.
#[derive(Debug, Default)]
pub struct Relays {
    last: u64,
    open: BTreeMap<u64, Question>,
}

/// A question that has no answer yet. It only wants to know something, so it may be asked twice.
#[derive(Debug)]
struct Question {
    body: Vec<u8>,
    asker: oneshot::Sender<Vec<u8>>,
}

impl Relays {
    /// A number for the question `body`, and its answer; `None` when too many are open.
    pub fn asked(&mut self, body: Vec<u8>) -> Option<(u64, oneshot::Receiver<Vec<u8>>)> {
        self.forget_abandoned();
        if self.open.len() >= MAX_QUESTIONS {
            return None;
        }
        let (asker, answer) = oneshot::channel();
        self.last += 1;
        self.open.insert(self.last, Question { body, asker });
        Some((self.last, answer))
    }

    /// What a worker that is gone was asked and has not answered.
    pub fn unanswered(&mut self) -> Vec<(u64, Vec<u8>)> {
        self.forget_abandoned();
        self.open.iter().map(|(id, question)| (*id, question.body.clone())).collect()
    }

    /// Those who stopped waiting leave their questions behind.
    fn forget_abandoned(&mut self) {
        self.open.retain(|_, question| !question.asker.is_closed());
    }

    /// The worker answered.
    pub fn answered(&mut self, id: u64, body: Vec<u8>) {
        if let Some(question) = self.open.remove(&id) {
            let _gone = question.asker.send(body);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_is_answered_by_the_takeover_that_began_after_it() {
        let mut waiters = Waiters::default();
        let mut early = waiters.wait().expect("room");
        waiters.takeover_begins();
        let mut late = waiters.wait().expect("room");
        let outcome = ReloadOutcome::Granted { epoch: 1, pid: 2 };
        waiters.takeover_ends(&outcome);
        assert_eq!(early.try_recv(), Ok(outcome));
        assert!(late.try_recv().is_err());
        waiters.give_up("leaving");
        assert_eq!(late.try_recv(), Ok(ReloadOutcome::Failed("leaving".to_owned())));
    }

    #[test]
    fn questions_are_bounded_and_those_nobody_waits_for_make_room() {
        let mut relays = Relays::default();
        let mut ask = || relays.asked(vec![1]);
        let mut open: Vec<_> = (0..MAX_QUESTIONS).map(|_| ask().expect("room")).collect();
        assert!(ask().is_none());
        let (id, mut answer) = open.pop().expect("there are some");
        relays.answered(id, vec![7]);
        relays.answered(id, vec![8]);
        assert_eq!(answer.try_recv(), Ok(vec![7]));
        open.clear();
        assert!(relays.unanswered().is_empty());
        let (id, _answer) = relays.asked(vec![2]).expect("room");
        assert_eq!(relays.unanswered(), [(id, vec![2])]);
    }
}
