//! How a command fails, and with which exit status.

use std::io;
use std::process::ExitCode;

use crate::capabilities::CapabilityError;
use crate::loader::LoaderError;
use crate::lock::LockError;
use crate::preflight::Missing;
use crate::record::RecordError;
use crate::succession::inherit::InheritError;

/// `EX_TEMPFAIL` of `sysexits.h`: another supervisor holds the instance.
const HELD: u8 = 75;
/// `EX_NOPERM`: a privilege is missing.
const PERMISSION: u8 = 77;
/// `EX_CONFIG`: something has to be set up first.
const CONFIGURATION: u8 = 78;
/// Everything else.
const GENERAL: u8 = 1;

/// Why a command did not do what it should. Each text says what is in force now, where it matters.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Something is not there that has to be.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// This process may do more than it needs.
    #[error(
        "{0}\n  holdfast does not run with more capabilities than it needs; start it as root of its \
             user namespace, without another program's seccomp filter on prctl(2) and capset(2)"
    )]
    Capability(#[from] CapabilityError),
    /// Another supervisor is there.
    #[error(
        "{0}\n  this instance has its supervisor; see `holdfastctl status`, or choose another \
             --instance"
    )]
    Held(LockError),
    /// A lock cannot be used.
    #[error(transparent)]
    Lock(LockError),
    /// A record cannot be used.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The estate could not be built.
    #[error(
        "the estate could not be {}: {source}\n  {}",
        if *pinned { "adopted" } else { "built" },
        if *pinned { "what is pinned governs on as it was" } else { "nothing is governed" }
    )]
    Load {
        /// Why.
        source: LoaderError,
        /// Whether an estate is pinned.
        pinned: bool,
    },
    /// What a predecessor left cannot be taken over.
    #[error("{0}")]
    Inherit(#[from] InheritError),
    /// Something could not be removed.
    #[error("not everything was removed: {0}\n  run `holdfast uninstall` again to go on")]
    Remove(String),
    /// Anything else.
    #[error("{what}: {source}")]
    System {
        /// What was tried, on what.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl Failure {
    /// Turns an error of the system into a failure of what was being done.
    pub fn doing(what: &str) -> impl FnOnce(io::Error) -> Self {
        let what = what.to_owned();
        move |source| Self::System { what, source }
    }

    /// The exit status it ends with.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Missing(Missing::Setup { .. }) => CONFIGURATION,
            Self::Missing(Missing::Privilege { .. }) | Self::Capability(_) => PERMISSION,
            Self::Held(_) => HELD,
            _ => GENERAL,
        })
    }
}

impl From<LockError> for Failure {
    fn from(error: LockError) -> Self {
        match error {
            LockError::Held { .. } | LockError::Elsewhere { .. } => Self::Held(error),
            LockError::File { .. } => Self::Lock(error),
        }
    }
}
