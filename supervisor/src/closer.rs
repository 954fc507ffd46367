//! Running the closer: the privileged child that closes the connections of endpoints that have drained long
//! enough, and ends. A worker says when; which ones, the child reads from the maps itself.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use holdfast_protocol::handover::{Closed, FromChild, MAX_TEXT_BYTES, Occasion, ToChild};
use holdfast_protocol::kernel::map;
use holdfast_protocol::wire;

use crate::channel::{Channel, ChannelError};
use crate::estate::Estate;
use crate::loader::Plan;
use crate::oom;
use crate::process::{self, Child, Ending};

/// How long it may take in all. It looks through the sockets of a few network namespaces: milliseconds; it gives
/// up looking for namespaces after four seconds by itself.
pub const CLOSING: Duration = Duration::from_secs(10);

/// How long it may take to end after its last word.
pub const ENDING: Duration = Duration::from_secs(5);

/// How soon another one may be started, at the earliest. Connections are closed so much later at most, and a
/// worker that asks all the time costs no more than one a second.
pub const SPACING: Duration = Duration::from_secs(1);

/// The same at most, after many that failed in a row.
pub const LONGEST_SPACING: Duration = Duration::from_secs(60);

/// How much is shown of what it should not have said.
const MAX_SHOWN_BYTES: usize = 200;

/// Why connections were not closed.
#[derive(Debug, thiserror::Error)]
pub enum CloserError {
    /// It did not start.
    #[error("cannot start the closer {}: {source}", path.display())]
    Spawn {
        /// Its binary.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It said no; why.
    #[error("{0}")]
    Refused(String),
    /// It ended early.
    #[error(
        "the closer ended before it was done: {0}; give --worker a holdfast-worker of this release"
    )]
    Ended(Ending),
    /// It said something else than it should.
    #[error("the closer said {0} instead of what it closed")]
    Unexpected(String),
    /// The conversation failed.
    #[error("the conversation with the closer failed: {0}")]
    Channel(#[from] ChannelError),
}

/// Starts a closer as `plan` says, with what it needs of `estate`.
///
/// # Errors
///
/// When it does not start.
pub fn start(plan: &Plan, estate: &Estate) -> Result<(Channel, Child), CloserError> {
    let Plan { worker, instance, cgroup, .. } = plan;
    let (channel, theirs) = Channel::pair()?;
    let mut command = Command::new(worker);
    command.arg("close").arg("--instance").arg(instance).arg("--cgroup").arg(cgroup);
    oom::offer_instead(&mut command);
    let child = process::spawn(&mut command, theirs, Stdio::null(), Vec::new())
        .map_err(|source| CloserError::Spawn { path: worker.clone(), source })?;
    // One that does not hear this has ended already, which is noticed next.
    let _heard = channel.send(&hello(instance), &[]);
    let (offer, maps) = estate.offer_of(&map::CLOSING);
    let _heard = channel.send(&ToChild::Offer(offer), &maps);
    Ok((channel, child))
}

/// Hears one message of the closer, if there is one: what it closed, once it says so.
///
/// # Errors
///
/// When it is not what a closer says.
pub fn hear(channel: &Channel) -> Result<Heard, CloserError> {
    let Some((word, _none)) = channel.receive_with_descriptors()? else {
        return Ok(Heard::Nothing);
    };
    match word {
        FromChild::Welcome { newest, oldest, .. }
            if newest >= wire::OLDEST_VERSION && oldest <= wire::VERSION =>
        {
            Ok(Heard::Greeting)
        }
        FromChild::Closed(Closed { closed, left, reason }) => {
            Ok(Heard::Done(Closed { closed, left, reason: wire::bounded(&reason, MAX_TEXT_BYTES) }))
        }
        FromChild::Refused { reason } => {
            Err(CloserError::Refused(wire::bounded(&reason, MAX_TEXT_BYTES)))
        }
        other => {
            let said = wire::bounded(&format!("{other:?}"), MAX_SHOWN_BYTES);
            Err(CloserError::Unexpected(said))
        }
    }
}

/// What a closer has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing at this moment.
    Nothing,
    /// That it is there.
    Greeting,
    /// What it closed, which is the last thing it says.
    Done(Closed),
}

fn hello(instance: &str) -> ToChild {
    ToChild::Hello {
        newest: wire::VERSION,
        oldest: wire::OLDEST_VERSION,
        instance: instance.to_owned(),
        // A closer is granted nothing.
        epoch: 0,
        occasion: Occasion::Start,
    }
}

/// When the next closer may be started. Pure: times come in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spacing {
    not_before: Duration,
    failures: u32,
}

impl Spacing {
    /// Whether one may be started now.
    #[must_use]
    pub fn allows(&self, now: Duration) -> bool {
        now >= self.not_before
    }

    /// One ended, having done its work or not.
    pub fn ended(&mut self, well: bool, now: Duration) {
        self.failures = if well { 0 } else { self.failures.saturating_add(1) };
        let doubled = SPACING.saturating_mul(1 << self.failures.min(16));
        self.not_before = now + doubled.min(LONGEST_SPACING);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closers_are_a_second_apart_and_further_after_failures() {
        let mut spacing = Spacing::default();
        assert!(spacing.allows(Duration::ZERO));
        let mut now = Duration::from_secs(5);
        spacing.ended(true, now);
        assert!(!spacing.allows(now) && spacing.allows(now + SPACING));
        for expected in [2, 4, 8, 16, 32, 60, 60] {
            spacing.ended(false, now);
            let next = now + Duration::from_secs(expected);
            assert!(!spacing.allows(next - Duration::from_millis(1)), "{expected}");
            assert!(spacing.allows(next), "{expected}");
            now = next;
        }
        spacing.ended(true, now);
        assert!(spacing.allows(now + SPACING));
    }
}
