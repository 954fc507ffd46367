//! Where one worker stands.

use std::time::Duration;

use holdfast_protocol::handover::Occasion;

use super::event::WorkerId;

/// A worker's process, from the order to start it until it is reaped.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Worker {
    /// Its number.
    pub id: WorkerId,
    /// What it was told about why it exists.
    pub occasion: Occasion,
    /// Where it stands.
    pub phase: Phase,
    /// When its present phase has lasted too long; `None` where another worker's deadline or the
    /// kernel bounds it.
    pub deadline: Option<Duration>,
    /// Why it was killed, if there is more to say than that it closed its socket.
    pub fault: Option<String>,
}

/// Where a worker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Ordered, not yet running.
    Spawning,
    /// `Hello` sent.
    Greeted,
    /// The estate is offered, and this much of it accepted.
    Offered {
        /// How many offers it accepted.
        accepted: u16,
    },
    /// It has the estate and prepares.
    Preparing,
    /// Ready: it could be granted.
    Shadow {
        /// The newest progress it reported.
        progress: u64,
    },
    /// `Grant` sent. It may write from here on.
    Granting {
        /// The epoch of its grant.
        epoch: u64,
    },
    /// It writes.
    Granted {
        /// The epoch of its grant.
        epoch: u64,
        /// The newest progress it reported.
        progress: u64,
    },
    /// `Release` sent. It may still write.
    Releasing,
    /// It said that it writes nothing any more.
    Released,
    /// `Leave` sent.
    Leaving,
    /// Killed, not yet reaped.
    Dying {
        /// Whether it might still have written when it was killed.
        writer: bool,
    },
}

impl Phase {
    /// Whether a worker in this phase may be writing, as far as anybody can know.
    #[must_use]
    pub const fn may_write(self) -> bool {
        matches!(
            self,
            Self::Granting { .. }
                | Self::Granted { .. }
                | Self::Releasing
                | Self::Dying { writer: true }
        )
    }

    /// Whether a worker in this phase is on its way to its first grant, or waits for it.
    #[must_use]
    pub const fn is_candidate(self) -> bool {
        matches!(
            self,
            Self::Spawning
                | Self::Greeted
                | Self::Offered { .. }
                | Self::Preparing
                | Self::Shadow { .. }
        )
    }

    /// As `holdfastctl status` calls it; `None` once it is on its way out.
    #[must_use]
    pub const fn as_str(self) -> Option<&'static str> {
        match self {
            Self::Spawning | Self::Greeted | Self::Offered { .. } | Self::Preparing => {
                Some("starting")
            }
            Self::Shadow { .. } | Self::Granting { .. } => Some("shadow"),
            Self::Granted { .. } | Self::Releasing => Some("granted"),
            Self::Released => Some("released"),
            Self::Leaving | Self::Dying { .. } => None,
        }
    }

    /// What a worker in this phase is expected to do, for messages about those that did not.
    #[must_use]
    pub const fn duty(self) -> &'static str {
        match self {
            Self::Spawning | Self::Greeted => "answer the greeting",
            Self::Offered { .. } => "accept the estate",
            Self::Preparing => "get ready",
            Self::Granting { .. } => "confirm its grant",
            Self::Shadow { .. } | Self::Granted { .. } => "make progress",
            Self::Releasing => "let go",
            Self::Released => "wait",
            Self::Leaving | Self::Dying { .. } => "leave",
        }
    }
}
