//! Drift: the kernel and the bpffs against the manifest.
//!
//! Anybody with the rights can detach a link, remove a pin or attach a program a second time, and
//! none of that tells this process. So it looks, every [`INTERVAL`] and after each takeover, and
//! mends what it can.
//!
//! - [`audit`]: what differs, decided without a system call.
//! - [`observe`]: what there is, asked of the kernel.
//! - [`repin`]: puts missing pins back, from the descriptors this process holds.
//! - [`book`]: what is open, what was repaired, when to try again. Pure.
//!
//! Everything else (a lost attachment, a copy too many) is left to the loader, which knows how to
//! attach without ever leaving two programs of ours on a hook.

pub mod audit;
pub mod book;
pub mod observe;
pub mod repin;

use std::time::Duration;

/// How long after an audit the next one is due, and thereby what it costs when somebody detaches a
/// link: connections opened from then on are not governed until the next audit, so for this long
/// and the ten milliseconds a loader takes. Connections that were open stay as they are. An audit
/// is some eighty system calls when nothing has changed, and three hundred the first time.
pub const INTERVAL: Duration = Duration::from_secs(2);

pub use audit::{Drift, Remedy, audit};
pub use book::Book;
