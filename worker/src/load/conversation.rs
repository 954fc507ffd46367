//! What the loader and the supervisor say to each other, each step with a deadline.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use holdfast_protocol::handover::{
    Closed, FromChild, MAX_CLEARED_ITEMS, MAX_TEXT_BYTES, Offer, ToChild,
};
use holdfast_protocol::manifest::Entry;
use holdfast_protocol::wire::{
    MAX_DESCRIPTORS, MAX_PACKET_BYTES, OLDEST_VERSION, VERSION, bounded,
};

use super::build::Member;
use crate::lifeline::{Lifeline, LifelineError};

/// How long the supervisor may take for its next word. It answers within a millisecond; a machine
/// that is stalled for longer than this would have killed the loader by the supervisor's deadline.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many bytes of items one message may hold: half a packet leaves ample room for its framing.
const CLEARED_BYTES: usize = MAX_PACKET_BYTES / 2;

/// A conversation that came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ConversationError {
    /// The socket.
    #[error(transparent)]
    Lifeline(#[from] LifelineError),
    /// The supervisor is of another version.
    #[error(
        "the supervisor speaks protocol versions {oldest} to {newest}, this loader {OLDEST_VERSION} \
         to {VERSION}; install both from the same release"
    )]
    Versions {
        /// The oldest version it speaks.
        oldest: u8,
        /// The newest version it speaks.
        newest: u8,
    },
    /// The supervisor is another instance's.
    #[error("started for instance `{argument}`, greeted by the supervisor of `{greeting}`")]
    Instance {
        /// What the command line says.
        argument: String,
        /// What the supervisor says.
        greeting: String,
    },
    /// The supervisor said something else than it should have.
    #[error("the supervisor said {found} where {wanted} was due")]
    Unexpected {
        /// What it said.
        found: String,
        /// What it should have said.
        wanted: &'static str,
    },
}

/// The loader's side of the conversation.
#[derive(Debug)]
pub struct Conversation {
    lifeline: Lifeline,
}

impl Conversation {
    /// Waits for the supervisor's greeting and answers it.
    ///
    /// # Errors
    ///
    /// [`ConversationError`]; the supervisor has been told of what is not the socket's fault.
    pub fn begin(lifeline: Lifeline, instance: &str) -> Result<Self, ConversationError> {
        let conversation = Self { lifeline };
        let greeting = conversation.receive()?;
        let checked = check_greeting(&greeting, instance);
        if let Err(error) = &checked {
            conversation.refuse(&error.to_string())?;
        }
        checked?;
        conversation.say(
            &FromChild::Welcome {
                newest: VERSION,
                oldest: OLDEST_VERSION,
                build: concat!("holdfast-worker ", env!("CARGO_PKG_VERSION")).to_owned(),
            },
            &[],
        )?;
        Ok(conversation)
    }

    /// Says what was repaired.
    ///
    /// # Errors
    ///
    /// When the supervisor is gone.
    pub fn repaired(&self, what: &str) -> Result<(), ConversationError> {
        self.say(&FromChild::Repaired { what: bounded(what, MAX_TEXT_BYTES) }, &[])
    }

    /// Hands the estate over, and waits until the supervisor has it.
    ///
    /// # Errors
    ///
    /// When the supervisor is gone, or does not accept.
    pub fn hand_over(&self, members: &[Member]) -> Result<(), ConversationError> {
        let packets: Vec<&[Member]> = members.chunks(MAX_DESCRIPTORS).collect();
        let of = u16::try_from(packets.len()).expect("an estate is a few dozen objects");
        for (index, packet) in (0..of).zip(packets) {
            let entries: Vec<Entry> = packet.iter().map(|member| member.entry.clone()).collect();
            let descriptors: Vec<BorrowedFd<'_>> =
                packet.iter().map(|member| member.descriptor.as_fd()).collect();
            self.say(&FromChild::Offer(Offer { index, of, entries }), &descriptors)?;
            match self.receive()? {
                ToChild::Accept { index: accepted } if accepted == index => {}
                other => return Err(unexpected(&other, "the acceptance of the offer")),
            }
        }
        Ok(())
    }

    /// Lists what was removed.
    ///
    /// # Errors
    ///
    /// When the supervisor is gone.
    pub fn cleared(&self, items: &[String]) -> Result<(), ConversationError> {
        let messages = in_messages(items);
        let last = messages.len() - 1;
        for (index, items) in messages.into_iter().enumerate() {
            self.say(&FromChild::Cleared { items, last: index == last }, &[])?;
        }
        Ok(())
    }

    /// What the supervisor offers to whoever closes connections.
    ///
    /// # Errors
    ///
    /// When the supervisor is gone, or says something else.
    pub fn offered(&self) -> Result<(Offer, Vec<OwnedFd>), ConversationError> {
        match self.lifeline.receive(Instant::now() + PATIENCE)? {
            (ToChild::Offer(offer), descriptors) => Ok((offer, descriptors)),
            (other, _) => Err(unexpected(&other, "an offer")),
        }
    }

    /// Says what became of connections.
    ///
    /// # Errors
    ///
    /// When the supervisor is gone.
    pub fn closed(&self, closed: Closed) -> Result<(), ConversationError> {
        self.say(&FromChild::Closed(closed), &[])
    }

    /// Says why nothing will come of it.
    ///
    /// # Errors
    ///
    /// When the supervisor is gone.
    pub fn refuse(&self, reason: &str) -> Result<(), ConversationError> {
        self.say(&FromChild::Refused { reason: bounded(reason, MAX_TEXT_BYTES) }, &[])
    }

    fn say(
        &self,
        message: &FromChild,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), ConversationError> {
        Ok(self.lifeline.send(message, descriptors, Instant::now() + PATIENCE)?)
    }

    fn receive(&self) -> Result<ToChild, ConversationError> {
        // Descriptors a loader was sent are closed here: it has no use for any.
        let (message, _descriptors) = self.lifeline.receive(Instant::now() + PATIENCE)?;
        Ok(message)
    }
}

/// `items` in as many messages as they need, and in one when there are none.
fn in_messages(items: &[String]) -> Vec<Vec<String>> {
    let mut messages = vec![Vec::new()];
    let mut bytes = 0;
    for item in items.iter().map(|item| bounded(item, MAX_TEXT_BYTES)) {
        let message = messages.last_mut().expect("there is one from the start");
        if message.len() < MAX_CLEARED_ITEMS && bytes + item.len() <= CLEARED_BYTES {
            bytes += item.len();
            message.push(item);
        } else {
            bytes = item.len();
            messages.push(vec![item]);
        }
    }
    messages
}

fn check_greeting(greeting: &ToChild, instance: &str) -> Result<(), ConversationError> {
    let ToChild::Hello { newest, oldest, instance: greeting, .. } = greeting else {
        return Err(unexpected(greeting, "its greeting"));
    };
    if *newest < OLDEST_VERSION || *oldest > VERSION {
        return Err(ConversationError::Versions { oldest: *oldest, newest: *newest });
    }
    if greeting != instance {
        let (argument, greeting) = (instance.to_owned(), greeting.clone());
        return Err(ConversationError::Instance { argument, greeting });
    }
    Ok(())
}

fn unexpected(found: &ToChild, wanted: &'static str) -> ConversationError {
    let found = match found {
        ToChild::Hello { .. } => "hello",
        ToChild::Offer(_) => "an offer",
        ToChild::Accept { .. } => "an acceptance of something else",
        ToChild::Release => "release",
        ToChild::Grant { .. } => "a grant",
        ToChild::Leave => "leave",
        ToChild::Query { .. } => "a query",
        ToChild::InForce(_) => "what is in force",
        ToChild::Seen(_) => "what was read",
        ToChild::History(_) => "what became of configurations",
        ToChild::Keep => "a snapshot to write",
        ToChild::Vitals(_) => "what the supervisor knows",
        ToChild::Attached | ToChild::NotAttached { .. } => "whether something is attached",
    };
    ConversationError::Unexpected { found: found.to_owned(), wanted }
}

#[cfg(test)]
mod tests {
    use holdfast_protocol::wire;

    use super::*;

    #[test]
    fn a_list_of_any_length_travels_in_messages_that_fit() {
        let short = |count: usize| vec!["pin".to_owned(); count];
        let long = |count: usize| vec!["x".repeat(2 * MAX_TEXT_BYTES); count];
        let cases = [
            (short(0), vec![0]),
            (short(1), vec![1]),
            (short(MAX_CLEARED_ITEMS), vec![MAX_CLEARED_ITEMS]),
            (short(MAX_CLEARED_ITEMS + 1), vec![MAX_CLEARED_ITEMS, 1]),
            (long(20), vec![8, 8, 4]),
        ];
        for (items, expected) in cases {
            let messages = in_messages(&items);
            assert_eq!(messages.iter().map(Vec::len).collect::<Vec<_>>(), expected);
            for items in messages {
                let message = FromChild::Cleared { items, last: false };
                wire::encode(&message).expect("it fits a packet");
            }
        }
    }

    #[test]
    fn a_greeting_is_checked_for_version_and_instance() {
        let greeting = |newest, oldest, instance: &str| ToChild::Hello {
            newest,
            oldest,
            instance: instance.to_owned(),
            epoch: 0,
            occasion: holdfast_protocol::handover::Occasion::Start,
        };
        assert!(check_greeting(&greeting(VERSION, OLDEST_VERSION, "a"), "a").is_ok());
        assert!(check_greeting(&greeting(VERSION + 1, VERSION, "a"), "a").is_ok());
        let newer = check_greeting(&greeting(VERSION + 2, VERSION + 1, "a"), "a");
        assert!(matches!(newer, Err(ConversationError::Versions { .. })));
        let older = check_greeting(&greeting(OLDEST_VERSION - 1, 0, "a"), "a");
        assert!(matches!(older, Err(ConversationError::Versions { .. })));
        let other = check_greeting(&greeting(VERSION, OLDEST_VERSION, "b"), "a");
        assert!(matches!(other, Err(ConversationError::Instance { .. })));
        let early = check_greeting(&ToChild::Leave, "a");
        assert!(matches!(early, Err(ConversationError::Unexpected { .. })));
    }
}
