//! The worker's side of the conversation with the supervisor, as a state machine. Pure.
//!
//! It decides what a message means at this point, and whether it may come at all: a worker that
//! wrote on a word it misunderstood would break the promise that there are never two writers.

use holdfast_protocol::handover::{Occasion, ToChild};
use holdfast_protocol::wire;

/// Where the conversation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// `Hello` has to come.
    Greeting,
    /// `Offer`s have to come.
    Gathering,
    /// The estate is here; this worker has to say that it is ready.
    Preparing,
    /// Ready, or released: it writes nothing.
    Shadow,
    /// It writes.
    Granted,
}

/// What a message asks of the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Answer with `Welcome`.
    Welcome(Occasion),
    /// Note what is in force, as far as the supervisor knows.
    Note,
    /// Take an offer in, and answer with `Accepted`.
    Gather,
    /// Write from now on.
    Write {
        /// The epoch granted.
        epoch: u64,
    },
    /// Stop writing, and answer with `Released`.
    Stop,
    /// Answer a query.
    Answer,
    /// Learn how what is in force is recognised.
    Recall,
    /// Learn what became of earlier configurations.
    Learn,
    /// Write a snapshot.
    Keep,
    /// Learn what the supervisor knows, and where scrapes arrive.
    Serve,
    /// Learn whether what judges arriving connections is attached.
    Attached,
    /// End.
    Leave,
}

/// Why the conversation cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misunderstanding {
    /// The two builds have no version in common.
    #[error(
        "the supervisor speaks protocol versions {oldest} to {newest}, this worker {} to {}; \
         install both from one release",
        wire::OLDEST_VERSION,
        wire::VERSION
    )]
    Version {
        /// The supervisor's newest.
        newest: u8,
        /// Its oldest.
        oldest: u8,
    },
    /// A message at a time at which it means nothing.
    #[error("the supervisor sent {message} to a worker that is {stage}")]
    OutOfTurn {
        /// Which message.
        message: &'static str,
        /// Where the conversation stands.
        stage: &'static str,
    },
    /// A grant that is not newer than the one before.
    #[error("the supervisor granted epoch {granted} after epoch {former}")]
    StaleGrant {
        /// The epoch granted.
        granted: u64,
        /// The one before.
        former: u64,
    },
}

/// The worker's side of the conversation.
#[derive(Clone, Debug)]
pub struct Conversation {
    stage: Stage,
    /// The newest epoch that was granted; 0 before the first.
    epoch: u64,
}

impl Default for Conversation {
    fn default() -> Self {
        Self { stage: Stage::Greeting, epoch: 0 }
    }
}

impl Conversation {
    /// What `message` asks for at this point.
    ///
    /// # Errors
    ///
    /// [`Misunderstanding`]: the worker has to end.
    pub fn hear(&mut self, message: &ToChild) -> Result<Task, Misunderstanding> {
        match (message, self.stage) {
            (ToChild::Leave, _) => Ok(Task::Leave),
            (ToChild::Hello { newest, oldest, occasion, .. }, Stage::Greeting) => {
                let (newest, oldest) = (*newest, *oldest);
                if newest < wire::OLDEST_VERSION || oldest > wire::VERSION {
                    return Err(Misunderstanding::Version { newest, oldest });
                }
                self.stage = Stage::Gathering;
                Ok(Task::Welcome(*occasion))
            }
            (ToChild::InForce(_), Stage::Gathering | Stage::Shadow) => Ok(Task::Note),
            (ToChild::Seen(_), Stage::Gathering | Stage::Shadow) => Ok(Task::Recall),
            (ToChild::History(_), Stage::Gathering | Stage::Shadow) => Ok(Task::Learn),
            (ToChild::Keep, Stage::Shadow | Stage::Granted) => Ok(Task::Keep),
            (ToChild::Vitals(_), Stage::Shadow | Stage::Granted) => Ok(Task::Serve),
            (ToChild::Attached | ToChild::NotAttached { .. }, Stage::Shadow | Stage::Granted) => {
                Ok(Task::Attached)
            }
            (ToChild::Offer(_), Stage::Gathering) => Ok(Task::Gather),
            (ToChild::Grant { epoch }, Stage::Shadow) => self.grant(*epoch),
            (ToChild::Release, Stage::Granted) => {
                self.stage = Stage::Shadow;
                Ok(Task::Stop)
            }
            (ToChild::Query { .. }, Stage::Shadow | Stage::Granted) => Ok(Task::Answer),
            (message, stage) => {
                Err(Misunderstanding::OutOfTurn { message: name(message), stage: stage.name() })
            }
        }
    }

    fn grant(&mut self, epoch: u64) -> Result<Task, Misunderstanding> {
        if epoch <= self.epoch {
            return Err(Misunderstanding::StaleGrant { granted: epoch, former: self.epoch });
        }
        self.epoch = epoch;
        self.stage = Stage::Granted;
        Ok(Task::Write { epoch })
    }

    /// The last offer has been accepted.
    pub fn gathered(&mut self) {
        self.stage = Stage::Preparing;
    }

    /// `Ready` has been said.
    pub fn ready(&mut self) {
        self.stage = Stage::Shadow;
    }

    /// Whether `Ready` has been said.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        matches!(self.stage, Stage::Shadow | Stage::Granted)
    }

    /// The epoch this worker writes in; 0 while it does not.
    #[must_use]
    pub const fn writing_epoch(&self) -> u64 {
        match self.stage {
            Stage::Granted => self.epoch,
            _ => 0,
        }
    }
}

impl Stage {
    const fn name(self) -> &'static str {
        match self {
            Self::Greeting => "waiting to be greeted",
            Self::Gathering => "being handed the estate",
            Self::Preparing => "preparing",
            Self::Shadow => "in shadow",
            Self::Granted => "granted",
        }
    }
}

const fn name(message: &ToChild) -> &'static str {
    match message {
        ToChild::Hello { .. } => "Hello",
        ToChild::Offer(_) => "Offer",
        ToChild::Accept { .. } => "Accept",
        ToChild::Release => "Release",
        ToChild::Grant { .. } => "Grant",
        ToChild::Leave => "Leave",
        ToChild::Query { .. } => "Query",
        ToChild::InForce(_) => "InForce",
        ToChild::Seen(_) => "Seen",
        ToChild::History(_) => "History",
        ToChild::Keep => "Keep",
        ToChild::Vitals(_) => "Vitals",
        ToChild::Attached => "Attached",
        ToChild::NotAttached { .. } => "NotAttached",
    }
}

#[cfg(test)]
mod tests {
    use holdfast_protocol::handover::Offer;

    use super::*;

    fn hello(newest: u8, oldest: u8) -> ToChild {
        let instance = "test".to_owned();
        ToChild::Hello { newest, oldest, instance, epoch: 1, occasion: Occasion::Start }
    }

    fn offer() -> ToChild {
        ToChild::Offer(Offer { index: 0, of: 1, entries: Vec::new() })
    }

    fn in_shadow() -> Conversation {
        let mut conversation = Conversation::default();
        conversation.hear(&hello(1, 1)).expect("greeted");
        conversation.hear(&offer()).expect("offered");
        conversation.gathered();
        conversation.ready();
        conversation
    }

    #[test]
    fn a_worker_is_greeted_handed_the_estate_granted_and_released() {
        let mut conversation = in_shadow();
        assert_eq!(conversation.writing_epoch(), 0);
        assert_eq!(conversation.hear(&ToChild::Grant { epoch: 7 }), Ok(Task::Write { epoch: 7 }));
        assert_eq!(conversation.writing_epoch(), 7);
        assert_eq!(conversation.hear(&ToChild::Release), Ok(Task::Stop));
        assert_eq!(conversation.writing_epoch(), 0);
        assert_eq!(conversation.hear(&ToChild::Grant { epoch: 8 }), Ok(Task::Write { epoch: 8 }));
        assert_eq!(conversation.hear(&ToChild::Leave), Ok(Task::Leave));
    }

    #[test]
    fn nothing_but_a_newer_grant_in_shadow_makes_a_writer() {
        let grant = ToChild::Grant { epoch: 7 };
        let mut fresh = Conversation::default();
        assert!(matches!(fresh.hear(&grant), Err(Misunderstanding::OutOfTurn { .. })));
        let mut conversation = in_shadow();
        conversation.hear(&grant).expect("granted");
        let twice = conversation.hear(&grant);
        assert!(matches!(twice, Err(Misunderstanding::OutOfTurn { .. })));
        conversation.hear(&ToChild::Release).expect("released");
        let stale = Misunderstanding::StaleGrant { granted: 7, former: 7 };
        assert_eq!(conversation.hear(&grant), Err(stale));
        assert_eq!(conversation.writing_epoch(), 0);
    }

    #[test]
    fn versions_have_to_overlap() {
        let (oldest, newest) = (wire::OLDEST_VERSION, wire::VERSION);
        let hear = |newest, oldest| Conversation::default().hear(&hello(newest, oldest));
        assert_eq!(hear(newest, oldest), Ok(Task::Welcome(Occasion::Start)));
        assert_eq!(hear(u8::MAX, newest), Ok(Task::Welcome(Occasion::Start)));
        let ahead = Misunderstanding::Version { newest: u8::MAX, oldest: newest + 1 };
        assert_eq!(hear(u8::MAX, newest + 1), Err(ahead));
        let behind = Misunderstanding::Version { newest: oldest - 1, oldest: 0 };
        assert_eq!(hear(oldest - 1, 0), Err(behind));
    }

    #[test]
    fn messages_of_another_child_are_out_of_turn() {
        let misheard = in_shadow().hear(&ToChild::Accept { index: 0 });
        let expected = Misunderstanding::OutOfTurn { message: "Accept", stage: "in shadow" };
        assert_eq!(misheard, Err(expected));
    }
}
