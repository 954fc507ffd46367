//! What can happen to the takeover machine, and what it can ask for.

use holdfast_protocol::handover::Occasion;

/// A worker of this supervisor's life. Never reused, unlike a process id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u64);

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The supervisor holds an estate: workers may be started from here on.
    Start,
    /// The worker's process runs.
    Spawned(WorkerId),
    /// The worker's process could not be started.
    SpawnFailed(WorkerId, String),
    /// The worker said something.
    Said(WorkerId, Word),
    /// The worker closed its socket.
    Closed(WorkerId),
    /// The worker broke the protocol, or does not take its messages.
    Fault(WorkerId, String),
    /// The worker's process is dead and reaped; how it ended.
    Reaped(WorkerId, String),
    /// Somebody wants the worker replaced.
    Reload,
    /// A spare worker is wanted from here on, or not any more. It is not, at first.
    Spare(bool),
    /// Leave, keeping governance.
    Stop,
    /// Leave, in order to remove everything.
    Uninstall,
    /// Time has passed.
    Tick,
}

/// What a worker can say, as far as the takeover is concerned.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Word {
    /// It speaks these versions.
    Welcome {
        /// The newest protocol version it speaks.
        newest: u8,
        /// The oldest one.
        oldest: u8,
    },
    /// It has checked this offer and found it right.
    Accepted(u16),
    /// It will not serve.
    Refused(String),
    /// It could be granted.
    Ready,
    /// It writes nothing any more.
    Released,
    /// It has put its configuration in force under this epoch.
    Granted(u64),
    /// It is alive, writes under this epoch, and got this far.
    Heartbeat {
        /// 0 while in shadow.
        epoch: u64,
        /// Grows while it gets on.
        progress: u64,
    },
}

/// Why a takeover happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The supervisor has just started.
    Start,
    /// The writer died.
    Crash,
    /// The writer lived, and did nothing.
    Hang,
    /// Somebody asked for it.
    Reload,
}

impl Cause {
    /// As `holdfastctl status` calls it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Crash => "crash",
            Self::Hang => "hang",
            Self::Reload => "reload",
        }
    }
}

/// What the shell has to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A takeover begins: requests to reload from before this moment are served by it.
    Begin(Cause),
    /// A takeover begins for the spare, which was started before: it serves no request to reload.
    Promote(WorkerId, Cause),
    /// Start this worker's process and say so with [`Event::Spawned`] or [`Event::SpawnFailed`].
    Spawn {
        /// Its number.
        worker: WorkerId,
        /// The epoch it will be granted.
        epoch: u64,
        /// What it is told about why it exists.
        occasion: Occasion,
    },
    /// Send `Hello`.
    Hello {
        /// To whom.
        worker: WorkerId,
        /// The epoch it will be granted.
        epoch: u64,
        /// Why it exists.
        occasion: Occasion,
    },
    /// Send the estate's maps.
    Offer(WorkerId),
    /// Send `Release`.
    Release(WorkerId),
    /// Record the epoch, then send `Grant`.
    Grant(WorkerId, u64),
    /// Send `Leave`.
    Leave(WorkerId),
    /// Kill it. [`Event::Reaped`] will follow.
    Kill(WorkerId),
    /// The takeover that began is over.
    Conclude(Outcome),
    /// No worker is left: end.
    Exit(Exit),
}

/// How a takeover ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// This worker writes.
    Granted(WorkerId, u64),
    /// It did not come to that; why, for people.
    Failed(String),
}

/// In which way the supervisor leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Exit {
    /// What is in the kernel stays there.
    KeepingGovernance,
    /// What is in the kernel is removed next.
    ToUninstall,
}
