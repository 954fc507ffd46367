//! The snapshot: what a worker puts in force when it finds nothing on disk it could use, and nothing in
//! the kernel it could go on with.

use std::sync::Arc;

use holdfast_protocol::handover::{ConfigState, FromChild, Origin};

use super::{Session, SessionError, Unusable, Work};
use crate::serve::compile::Compiled;
use crate::serve::tables::observe::Observed;
use crate::serve::tables::plan::DoesNotFit;

/// How far the snapshot is.
#[derive(Debug, Default)]
pub(super) enum Snapshot {
    /// Nobody has needed it.
    #[default]
    Unread,
    /// It should be read.
    Wanted,
    /// It is being read.
    Reading,
    /// This is in it.
    Restored(Arc<Compiled>),
    /// There is none, or none that can be used.
    Absent,
}

impl Snapshot {
    /// Asks for it; whether it is still to come.
    pub(super) fn want(&mut self) -> bool {
        if let Self::Unread = self {
            *self = Self::Wanted;
        }
        matches!(self, Self::Wanted | Self::Reading)
    }

    pub(super) const fn is_wanted(&self) -> bool {
        matches!(self, Self::Wanted)
    }

    /// What is in it, once that is known.
    pub(super) const fn restored(&self) -> Option<&Arc<Compiled>> {
        match self {
            Self::Restored(compiled) => Some(compiled),
            _ => None,
        }
    }
}

impl Unusable {
    /// It is valid, but `error`.
    #[must_use]
    pub fn does_not_fit(error: &DoesNotFit) -> Self {
        Self { state: ConfigState::DoesNotFit, error: error.to_string() }
    }
}

impl Session {
    /// The snapshot is being read.
    pub fn restoring(&mut self) {
        self.snapshot = Snapshot::Reading;
    }

    /// What is in the snapshot, or why it cannot be used; without a reason there is none.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn restored(
        &mut self,
        restored: Result<Arc<Compiled>, String>,
    ) -> Result<(), SessionError> {
        self.snapshot = match restored {
            Ok(compiled) => Snapshot::Restored(compiled),
            Err(reason) => {
                if !reason.is_empty() {
                    self.outbox.push(FromChild::SnapshotUnusable { reason });
                }
                Snapshot::Absent
            }
        };
        if let super::Role::Granted { work: work @ Work::Restoring, .. } = &mut self.role {
            *work = Work::Due;
        }
        self.prepare()
    }

    /// Whether the snapshot is better than what is programmed, now that what is on disk is in `state`.
    ///
    /// What is programmed is newer, so it stays, unless there is nothing of it, or it is, at least in
    /// part, of a configuration that crashes workers. A snapshot that was restored before a crash is
    /// restored again, so that everybody knows what is in force.
    pub(super) fn calls_for_snapshot(&self, observed: &Observed, state: ConfigState) -> bool {
        let of_snapshot = self.noted.as_ref().is_some_and(|noted| noted.origin == Origin::Snapshot);
        let is_better =
            observed.services.is_empty() || state == ConfigState::SetAside || of_snapshot;
        self.summary.digest.is_empty() && is_better
    }
}
