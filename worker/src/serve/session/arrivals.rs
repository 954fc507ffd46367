//! What judges arriving connections: attached by the supervisor, on demand, before policies that need it are
//! put in force. This worker could attach nothing.
//!
//! The kernel forgets nothing, and the supervisor attaches again what others detach, so it is enough to ask
//! once after a grant. Whoever asks may die, or be asked by another supervisor by now, so the question is
//! repeated until it is answered.

use holdfast_config::Direction;
use holdfast_protocol::handover::FromChild;

use super::{Role, Session, Work};
use crate::serve::compile::Compiled;
use crate::serve::tables::plan::DoesNotFit;

/// How many heartbeats an answer is waited for: eight seconds. A loader takes a fraction of one, and the
/// supervisor waits 15 for the answer to a grant, which waits for this.
const PATIENCE_BEATS: u32 = 16;

/// How many heartbeats after it was not attached it is asked for again: ten seconds.
const BEATS_PER_ATTEMPT: u32 = 20;

/// What is said of a supervisor that does not answer.
const NO_ANSWER: &str = "the supervisor has not said for eight seconds whether it is";

/// How far it is.
#[derive(Debug, Default)]
pub(super) enum Arrivals {
    /// Nobody has needed it since the grant.
    #[default]
    Unasked,
    /// It was asked for, so many heartbeats ago.
    Asked(u32),
    /// It is attached, and stays so.
    Attached,
    /// It is not.
    Missing {
        /// Why.
        reason: String,
        /// Heartbeats since then.
        beats: u32,
    },
}

impl Arrivals {
    /// Whether `compiled` can be put in force at once.
    pub(super) fn suffice(&self, compiled: &Compiled) -> bool {
        matches!(self, Self::Attached) || !needs(compiled)
    }

    /// What has failed is tried again at once.
    pub(super) fn forgive(&mut self) {
        if let Self::Missing { .. } = self {
            *self = Self::Unasked;
        }
    }
}

fn needs(compiled: &Compiled) -> bool {
    compiled.access.policies.iter().any(|policy| policy.direction == Direction::Inbound)
}

impl Session {
    /// Whether `compiled` can be put in force now, or once the supervisor has answered, who is asked.
    ///
    /// # Errors
    ///
    /// When what judges its arriving connections cannot be attached.
    pub(super) fn prepare_arrivals(&mut self, compiled: &Compiled) -> Result<bool, DoesNotFit> {
        if self.arrivals.suffice(compiled) {
            return Ok(true);
        }
        match &self.arrivals {
            Arrivals::Missing { reason, .. } => {
                return Err(DoesNotFit::NotAttached { reason: reason.clone() });
            }
            Arrivals::Unasked => {
                self.arrivals = Arrivals::Asked(0);
                self.outbox.push(FromChild::Attach);
            }
            Arrivals::Asked(_) | Arrivals::Attached => {}
        }
        Ok(false)
    }

    /// What judges arriving connections is attached, or why it is not.
    pub fn attached(&mut self, outcome: Result<(), String>) {
        let former = std::mem::take(&mut self.arrivals);
        let is_news = match (&former, &outcome) {
            (Arrivals::Attached, Ok(())) => false,
            (Arrivals::Missing { reason: former, .. }, Err(reason)) => former != reason,
            _ => true,
        };
        self.arrivals = match outcome {
            Ok(()) => Arrivals::Attached,
            Err(reason) => Arrivals::Missing { reason, beats: 0 },
        };
        if is_news {
            self.look_again_at_arrivals();
        }
    }

    /// Asks again for what was not answered, or has failed; with each heartbeat. Whether there is anything to
    /// send, or to do.
    pub fn ask_again(&mut self) -> bool {
        if !matches!(self.role, Role::Granted { .. }) {
            return false;
        }
        let is_due = match &mut self.arrivals {
            Arrivals::Unasked | Arrivals::Attached => return false,
            Arrivals::Asked(PATIENCE_BEATS) => {
                self.attached(Err(NO_ANSWER.to_owned()));
                return true;
            }
            Arrivals::Asked(beats) => {
                *beats += 1;
                true
            }
            Arrivals::Missing { beats, .. } => {
                *beats += 1;
                beats.is_multiple_of(BEATS_PER_ATTEMPT)
            }
        };
        if is_due {
            self.outbox.push(FromChild::Attach);
        }
        is_due
    }

    /// What waits for it, or could not be put in force without it, is planned anew.
    fn look_again_at_arrivals(&mut self) {
        if let Role::Granted { work: work @ (Work::Attaching | Work::Settled), .. } = &mut self.role
        {
            *work = Work::Due;
        }
    }
}
