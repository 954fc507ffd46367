//! Exit statuses: those of `sysexits.h` where it has one, so that scripts can tell what to do.

use std::process::ExitCode;

use crate::session::SessionError;

/// Refused, or invalid.
pub const REFUSED: u8 = 1;
/// `EX_NOINPUT`: the configuration to check cannot be read.
pub const NO_INPUT: u8 = 66;
/// `EX_UNAVAILABLE`: no supervisor runs.
pub const UNAVAILABLE: u8 = 69;
/// `EX_IOERR`: the output could not be written.
pub const OUTPUT: u8 = 74;
/// `EX_TEMPFAIL`: no answer in time.
pub const TEMPORARY: u8 = 75;
/// `EX_PROTOCOL`: the answer was not understood.
pub const PROTOCOL: u8 = 76;
/// `EX_NOPERM`: permission denied.
pub const PERMISSION: u8 = 77;

/// What a verb that could not be done ends with.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The supervisor could not be asked, or refused.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The configuration to check cannot be read.
    #[error(transparent)]
    Read(#[from] holdfast_config::ReadError),
    /// The output could not be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] std::io::Error),
}

impl Failure {
    /// The status to exit with.
    pub fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Session(error) => match error {
                SessionError::NotRunning { .. } => UNAVAILABLE,
                SessionError::Permission { .. } | SessionError::Denied { .. } => PERMISSION,
                SessionError::Failed { .. } => REFUSED,
                SessionError::Timeout { .. } | SessionError::Closed { .. } => TEMPORARY,
                SessionError::Transport { .. } => UNAVAILABLE,
                SessionError::Wire { .. } | SessionError::Unexpected { .. } => PROTOCOL,
            },
            // All of it could be read; it is too much of it.
            Self::Read(error) if error.is_over_limit() => REFUSED,
            Self::Read(_) => NO_INPUT,
            Self::Output(_) => OUTPUT,
        })
    }
}
