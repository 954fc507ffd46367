//! The conversation between the supervisor and the children it spawns, over the
//! `socketpair(SOCK_SEQPACKET)` a child inherits as descriptor [`CHILD_DESCRIPTOR`].
//!
//! With a worker, in order (an end of file at any step aborts it and changes nothing):
//!
//! ```text
//! supervisor                                worker
//! Hello { instance, epoch, occasion } ───►
//!                                     ◄───  Welcome { versions, build }
//! Seen { digest, mark }               ───►                                  after a crash, if it is known
//! History { … } [+ snapshot]          ───►
//! InForce { … }                       ───►                                  after a crash
//! Offer { index, of, entries } + fds  ───►                                  once per packet
//!                                     ◄───  Accepted { index }   or  Refused { reason }
//!                                     ◄───  Trying { digest }    before each compilation
//!                                     ◄───  Ready { … }          or  Refused { reason }
//!        (the former worker: Release, Released, or killed and reaped)
//! Vitals { … } + listener             ───►                                  if there is a listener
//! Grant { epoch }                     ───►
//!                                     ◄───  Granted { epoch }    once the difference is applied
//!                                     ◄───  Heartbeat { … }      every HEARTBEAT_INTERVAL
//!                                     ◄───  Seen { digest, mark }  once it is certain of what it has read
//! Keep + file                         ───►                       after its probation
//!                                     ◄───  Kept { digest }      or  NotKept { reason }
//! Release                             ───►                       it writes nothing from here on
//!                                     ◄───  Released
//! Leave                               ───►                       it drains and exits
//! ```
//!
//! With the loader the estate travels the other way: `Hello`, then `Offer`s from the loader, each
//! answered by `Accept`; or, when it was told to clear, one or more `Cleared`.
//!
//! A granted worker may say `Overdue` at any time. The closer, which the supervisor then starts, hears `Hello`,
//! answers `Welcome`, hears one `Offer` of the few maps it needs, and ends with `Closed`, or `Refused`.
//!
//! Before it puts policies for arriving connections in force, a granted worker says `Attach`, and waits for
//! `Attached` or `NotAttached`.

pub mod snapshot;
mod vitals;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::manifest::Entry;
use crate::wire::{Channel, Message};

pub use vitals::Vitals;

/// The descriptor a child finds its end of the socket at.
pub const CHILD_DESCRIPTOR: i32 = 3;

/// How often a granted worker says that it is alive.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(500);

/// Longest text in any message, in bytes: a reason, an error, a path.
pub const MAX_TEXT_BYTES: usize = 4096;

/// Most items one [`FromChild::Cleared`] lists.
pub const MAX_CLEARED_ITEMS: usize = 256;

/// Largest opaque question or answer the supervisor passes on, in bytes.
pub const MAX_RELAY_BYTES: usize = 48 * 1024;

/// Longest digest in any message, in bytes: SHA-256 in hexadecimal.
pub const DIGEST_BYTES: usize = 64;

/// Longest mark in any message, in bytes: seven numbers of 64 bits in hexadecimal, and what stands between them;
/// a digest is shorter.
pub const MARK_BYTES: usize = 128;

/// Most configurations that are remembered as set aside: one that people still try is among the
/// newest.
pub const MAX_SET_ASIDE: usize = 8;

/// Why a worker is being started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Occasion {
    /// The supervisor itself has just started.
    Start,
    /// The former worker is gone.
    Recovery,
    /// Somebody asked for it: a worker that cannot serve the configuration refuses, and the former
    /// one serves on.
    Reload,
    /// The writer lives. This worker waits in shadow for its death, and follows what is on disk.
    Standby,
}

/// From the supervisor to a child.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToChild {
    /// The first message.
    Hello {
        /// The newest protocol version the supervisor speaks.
        newest: u8,
        /// The oldest one.
        oldest: u8,
        /// Name of the instance.
        instance: String,
        /// The epoch this child will be granted, if it is a worker.
        epoch: u64,
        /// Why it was started.
        occasion: Occasion,
    },
    /// Objects of the estate; their descriptors travel beside it, in the same order.
    Offer(Offer),
    /// The loader's offer was taken over.
    Accept {
        /// Which offer.
        index: u16,
    },
    /// Stop writing.
    Release,
    /// Write: nobody else does.
    Grant {
        /// The epoch from which this worker writes.
        epoch: u64,
    },
    /// Another worker has been granted: drain and exit.
    Leave,
    /// A question for the worker that the supervisor does not read.
    Query {
        /// Comes back in the answer.
        id: u64,
        /// At most [`MAX_RELAY_BYTES`].
        body: Vec<u8>,
    },
    /// What the former worker said is in force. A worker that finds the same text on disk need not
    /// compile it before it is ready: the tables say it already, and it makes sure of that once it
    /// is granted.
    InForce(ConfigReport),
    /// What became of earlier configurations: sent once, before the estate.
    History(History),
    /// Write what is in force to the file whose descriptor travels beside it, as a snapshot.
    Keep,
    /// What only the supervisor knows, for whoever scrapes the worker: before each grant with the
    /// descriptor of the listener beside it, and without it whenever it changes.
    Vitals(Vitals),
    /// What judges arriving connections is attached, and stays so.
    Attached,
    /// It is not.
    NotAttached {
        /// Why, for people; at most [`MAX_TEXT_BYTES`].
        reason: String,
    },
    /// What a former worker has read, and is in force. Who finds the same mark on disk need not read it to know its
    /// digest. Sent before the history; without it the worker reads at once.
    Seen(Seen),
}

/// What a worker has read, so that the next one can tell without reading it that it is still there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Its digest, in hexadecimal.
    pub digest: String,
    /// What changes whenever it does; only workers know what it means. At most [`MARK_BYTES`].
    pub mark: String,
}

/// What became of earlier configurations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Those that crashed workers and are not to be tried again; at most [`MAX_SET_ASIDE`].
    pub set_aside: Vec<SetAside>,
    /// Digest of the snapshot, whose file's descriptor travels beside it; empty when there is none.
    pub snapshot: String,
}

/// A configuration that crashed workers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAside {
    /// Its digest, in hexadecimal.
    pub digest: String,
    /// How the last of those workers ended; at most [`MAX_TEXT_BYTES`].
    pub reason: String,
}

/// From a child to the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromChild {
    /// The answer to `Hello`.
    Welcome {
        /// The newest protocol version the child speaks.
        newest: u8,
        /// The oldest one.
        oldest: u8,
        /// Its build, for people.
        build: String,
    },
    /// An offer was checked and found right.
    Accepted {
        /// Which offer.
        index: u16,
    },
    /// This child will not serve; nothing was changed.
    Refused {
        /// Why, for people.
        reason: String,
    },
    /// Mapped, read back, compiled, compared; nothing written yet.
    Ready {
        /// What it is ready to put in force.
        config: ConfigReport,
    },
    /// Writes nothing any more.
    Released,
    /// The difference has been applied: the kernel is as the configuration says.
    Granted {
        /// The epoch it was granted.
        epoch: u64,
    },
    /// Alive, and getting on.
    Heartbeat {
        /// The epoch it writes in; 0 while in shadow.
        epoch: u64,
        /// Grows while the worker's actors take turns; a worker that says the same number twice
        /// is alive but stuck.
        progress: u64,
    },
    /// What configuration is in force, whenever that changes.
    Config(ConfigReport),
    /// The answer to a `Query`.
    Answer {
        /// The question's.
        id: u64,
        /// At most [`MAX_RELAY_BYTES`].
        body: Vec<u8>,
    },
    /// From the loader: objects of the estate, their descriptors beside it in the same order.
    Offer(Offer),
    /// From the loader: what it repaired or changed on the way, for the log.
    Repaired {
        /// One sentence.
        what: String,
    },
    /// From the loader: what it removed, at most [`MAX_CLEARED_ITEMS`] a message.
    Cleared {
        /// One line each, for people.
        items: Vec<String>,
        /// Whether this is the last such message.
        last: bool,
    },
    /// This configuration is about to be parsed: if the worker crashes from here on, it may be why.
    Trying {
        /// Its digest, in hexadecimal.
        digest: String,
    },
    /// The file of [`ToChild::Keep`] has been written and is on the disk.
    Kept {
        /// Digest of the configuration in it.
        digest: String,
    },
    /// It has not been.
    NotKept {
        /// Why, for people.
        reason: String,
    },
    /// The snapshot cannot be used and should be set aside.
    SnapshotUnusable {
        /// Why, for people.
        reason: String,
    },
    /// The time of draining endpoints has come, and they have connections. Which ones is for the maps to
    /// say: this closes nothing by itself.
    Overdue {
        /// How many endpoints.
        endpoints: u32,
    },
    /// From whoever was to close them: done.
    Closed(Closed),
    /// What is about to be put in force judges arriving connections. What does that has to be attached
    /// first: nothing is written before the answer.
    Attach,
    /// What this worker has read, and knows how to recognise.
    Seen(Seen),
}

/// What became of the connections of endpoints that had drained long enough.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// Connections that were closed.
    pub closed: u64,
    /// Connections that were found in the maps and could not be closed.
    pub left: u64,
    /// Why some were left, for people; at most [`MAX_TEXT_BYTES`].
    pub reason: String,
}

/// A part of the estate on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Which packet this is, from 0.
    pub index: u16,
    /// How many packets there are.
    pub of: u16,
    /// One entry per descriptor: a short delivery shows as a difference of the two.
    pub entries: Vec<Entry>,
}

/// The state of the configuration as the worker sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigReport {
    /// SHA-256 of the configuration in force, in hexadecimal; empty while there is none.
    pub digest: String,
    /// Whether the file on disk is the one in force.
    pub state: ConfigState,
    /// When it is not: why, with file, line and column; at most [`MAX_TEXT_BYTES`].
    pub error: String,
    /// Services in force, as the configuration counts them.
    pub services: u32,
    /// Endpoints in force.
    pub endpoints: u32,
    /// Where what is in force came from.
    pub origin: Origin,
}

/// Where the configuration in force came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "std", serde(rename_all = "snake_case"))]
pub enum Origin {
    /// It is what a former life left in the kernel, and nobody has said what it was made of.
    #[default]
    Kernel,
    /// The file or directory it is read from.
    Disk,
    /// The snapshot: what is on disk cannot be used, and nothing was in the kernel to go on with.
    Snapshot,
}

/// Whether the configuration on disk is in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "std", serde(rename_all = "snake_case"))]
pub enum ConfigState {
    /// No worker has said yet.
    #[default]
    Unknown,
    /// What is on disk is in force.
    InForce,
    /// What is on disk is invalid or cannot be read; the last good one stays in force.
    Rejected,
    /// What is on disk is valid but does not fit the estate's limits, or cannot be enforced because the
    /// kernel does not attach what it needs; the last good one stays.
    DoesNotFit,
    /// What is on disk crashed workers and is not tried again; the last good one stays.
    SetAside,
}

impl Message for ToChild {
    const CHANNEL: Channel = Channel::ToChild;
}

impl Message for FromChild {
    const CHANNEL: Channel = Channel::FromChild;
}
