//! What is new has to prove itself: a configuration or a worker's binary that workers have only just
//! begun to use may be the reason why they crash.
//!
//! - [`configuration`]: a configuration that crashes [`CRASHES`](configuration::CRASHES) workers
//!   before it has proved itself is set aside by its digest. Pure.
//! - [`binary`]: a worker's binary that fails before it has proved itself is not used again; the one
//!   before it, which this process still holds open, is put back.
//! - [`suspicion`]: which ends of a worker count, and which are somebody else's doing.
//!
//! Both have proved themselves after [`PROBATION`] in use, whoever serves meanwhile: workers that
//! others kill say nothing about either.

pub mod binary;
pub mod configuration;
pub mod suspicion;

use std::time::Duration;

/// How long what is new is in use before it has proved itself. Long enough for ten heartbeats and
/// two looks at everything that is done now and then; short enough that a machine that fails soon
/// after a change has the change in its snapshot.
pub const PROBATION: Duration = Duration::from_secs(5);
