//! The actors: thin shells that turn what the kernel and people do into messages. All of them
//! share one thread, so none of them ever waits for anything but its next message.
//!
//! - [`keeper`]: holds the estate, feeds the takeover machine and does what it says; `hearing` and
//!   `answers` are what it hears from the machine's and from people's side, `audits` is what it
//!   does about drift, `closings` about endpoints that have drained long enough, `orders` what it does to workers, `outcomes` what it does at the end of a
//!   takeover and of everything, `trials` what it does about what is new.
//! - `successions`, `resumption` and [`gate`]: how the keeper becomes another binary, and how that
//!   goes on.
//! - [`lifeline`]: reads what one worker says.
//! - [`signals`]: reads signals, reaps children.
//! - [`control`]: answers `holdfastctl`.

mod answers;
mod attachments;
mod audits;
mod closings;
pub mod control;
pub mod gate;
mod hearing;
pub mod keeper;
pub mod lifeline;
mod orders;
mod outcomes;
mod requests;
mod resumption;
pub mod signals;
mod successions;
mod trials;
mod vitals;
