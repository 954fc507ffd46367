//! The tables of the estate: what they say, what they should say, and the way from one to the other.
//!
//! In reading order:
//!
//! - [`desired`]: what a configuration asks of the tables.
//! - [`slot`]: the bytes of one slot.
//! - [`estate`]: the narrow interface to the maps. Everything that is ever written goes through
//!   [`Writer`](estate::Writer), one mutation a call.
//! - [`observe`]: what the maps say now. No allocation state is stored anywhere: a worker that
//!   takes over walks the heads and knows what is in use.
//! - [`plan`]: from observed to desired, as a list of mutations of which every prefix leaves each
//!   service wholly old or wholly new. Pure.
//! - [`ledger`]: what this worker has programmed, so that a small change is planned without reading
//!   all of it back.
//! - [`enrolment`]: the same for who is enrolled.
//! - [`ranges`]: which slots are free.
//! - [`rest`]: which free slots and numbers no program can still be reading.
//! - [`apply`]: a plan, carried out a bounded batch at a time.
//! - [`maps`]: the real maps. What writes exists only while this worker is granted.

pub mod apply;
pub mod desired;
pub mod enrolment;
pub mod estate;
pub mod ledger;
pub mod maps;
#[cfg(test)]
pub(super) mod model;
pub mod observe;
pub mod plan;
pub mod ranges;
pub mod rest;
pub mod slot;
