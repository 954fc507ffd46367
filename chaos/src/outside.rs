//! The outside: this program again, in a patch of the machine that is removed afterwards.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use holdfast_lab::patch::End;
use holdfast_lab::program;

use crate::NOT_RUN;

/// The shell's exit code for SIGINT: 128 and the signal's number.
const INTERRUPTED: u8 = 130;

/// Runs this program again, with the same arguments, inside a patch for at most `deadline`, and gives
/// its exit code.
pub fn run(deadline: Duration) -> anyhow::Result<ExitCode> {
    let end = program::rerun(deadline).context("cannot run in a patch")?;
    match end {
        End::Exited(status) => {
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            Ok(ExitCode::from(code.unwrap_or(NOT_RUN)))
        }
        End::Interrupted => Ok(ExitCode::from(INTERRUPTED)),
        End::Overdue => bail!("the run did not end within {} s", deadline.as_secs()),
    }
}
