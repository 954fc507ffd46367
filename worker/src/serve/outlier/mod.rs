//! Outlier ejection: an endpoint whose connections fail gets no new ones for a time.
//!
//! - [`detector`]: when the endpoints of one port are ejected, and when they are back. Pure:
//!   `step(settings, readings, now)` gives what has turned.
//! - [`ejections`]: the detectors of a configuration, and where their readings are in the maps.
//!
//! The programs count anyway what becomes of each connection. A worker that writes looks at those counts
//! several times a second, in memory that it has mapped; it asks nobody anything, and needs no system call.
//!
//! **Architecture Invariant:** failures count from when this worker has first seen the counts: a new
//! worker ejects nobody for what is past.

pub mod detector;
pub mod ejections;

#[cfg(test)]
mod detector_tests;
#[cfg(test)]
mod ejections_tests;
