//! From one worker to the next, as a pure state machine: no clock, no socket, no process.
//!
//! [`State::step`] takes what happened and the time, changes the state and says what to do. The
//! same code runs in production and under the random and exhaustive tests, so it is deterministic:
//! time comes in with each event, and the only randomness is a seed in the state.
//!
//! In reading order:
//!
//! - [`event`]: what can happen, and what the machine can ask for.
//! - [`phase`]: where one worker stands.
//! - [`state`]: what the machine remembers.
//! - [`step`](self::State::step): how an event changes it.
//! - [`settle`]: what follows from a state, whatever event led to it.
//! - [`pace`]: how fast workers that fail are replaced.
//! - [`deadline`]: how long each step may take, and why.
//!
//! The rules:
//!
//! 1. A worker is granted only when no other may be writing: every former one has answered
//!    `Released`, was never granted, or is dead *and reaped*.
//! 2. At most [`MAX_SERVING`] processes and a spare exist, those being killed included.
//! 3. A candidate that fails at any step before its grant changes nothing: the former worker was
//!    not even asked. One that fails between the former's release and its own confirmation gives
//!    the former its grant back, under a new epoch, once it is itself dead and reaped.
//! 4. Requests to reload that arrive during a takeover fold into one that follows it.
//! 5. A lost worker is replaced at once; how [`pace`] limits that never removes governance,
//!    because the kernel objects belong to the supervisor.
//! 6. A spare, if one is wanted, is started when nothing else is under way and one worker writes.
//!    When that is lost, the takeover is for the spare, however far it has come. When another worker
//!    is granted, the spare is ended, because it may be of a former binary. What becomes of a spare
//!    matters to nobody else.

pub mod deadline;
pub mod event;
pub mod pace;
pub mod phase;
pub mod settle;
pub mod state;
mod step;

pub use event::{Action, Cause, Event, Exit, Outcome, Word, WorkerId};
pub use phase::Phase;
pub use state::{MAX_SERVING, MAX_WORKERS, State};

#[cfg(test)]
mod random_tests;
#[cfg(test)]
mod rule_tests;
#[cfg(test)]
mod spare_tests;
