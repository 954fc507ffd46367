//! Noticing that the configuration on disk has changed.
//!
//! - [`places`]: which directories to watch, so that a replaced symbolic link anywhere on the way is
//!   noticed as well as a write.
//! - [`watcher`]: inotify on those directories.
//! - [`signature`]: what the file system says about the configuration without reading it; compared
//!   every [`POLL_INTERVAL`], it finds what inotify cannot see.
//! - [`settling`]: waiting until a save is complete. Pure.
//! - [`reading`]: the text, or an error that says what to do about it.

use std::time::Duration;

use holdfast_protocol::handover::HEARTBEAT_INTERVAL;

pub mod places;
pub mod reading;
pub mod settling;
pub mod signature;
pub mod watcher;

/// How often the file system is asked whether something has changed that inotify did not report: a
/// change made by another machine on a network file system, for one. One look costs a system call
/// per file.
pub const POLL_INTERVAL: Duration = HEARTBEAT_INTERVAL.saturating_mul(BEATS_PER_POLL);

/// The same in heartbeats: a worker at rest wakes up for those, and for nothing else.
pub const BEATS_PER_POLL: u32 = 4;
