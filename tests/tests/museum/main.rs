//! The failure museum: what systems of this kind have shipped to their users as bugs, one test each,
//! and what happens here instead.
//!
//! - [`starts`]: starts, ends and upgrades that fail (PF01 to PF03).
//! - [`state`]: what is programmed and set, across deaths (PF05 to PF08, PF14).
//! - [`policy`]: what connections get while nobody, or somebody new, is in charge (PF09, PF12, PF13).
//! - [`hooks`]: what is attached, and what holds it (PF04, PF10, PF11, PF15, PF16).
//! - [`handover`]: handovers that do not come to their end (PF17 to PF20, PF22).
//! - [`descriptors`]: descriptors that are handed on (PF21).
//! - [`quarantine`]: a configuration that crashes workers (PF30).
//! - [`processes`]: which processes there are, and who may touch what (PF23 to PF25).
//! - [`clients`]: what those notice who connect, are connected, or ask (PF26 to PF28).
//! - [`removal`]: what is left in the end (PF29).
//! - [`documents`]: every row is there, and so is every test that `docs/failure-model.md` names.

mod clients;
mod descriptors;
mod documents;
mod handover;
mod hooks;
mod policy;
mod processes;
mod quarantine;
mod removal;
mod starts;
mod state;
