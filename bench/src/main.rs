//! `holdfast-bench`: how long things take, measured on the real binaries and the real kernel.
//!
//! - [`takeover`]: from the kill of the worker that writes to the grant of the next one.
//! - [`connect`]: what governance costs a connection.
//! - [`against`]: a connection through Holdfast, and through what people use instead.
//! - [`place`]: where a client connects from.
//! - [`figures`], [`spread`]: many durations, and the figures of many rounds, summed up (pure).
//!
//! Each measurement runs in a private patch of the machine, prints a table for people, and last a
//! line of JSON. `docs/performance.md` says what was found.
//!
//! **Architecture Invariant:** nothing here judges. A figure depends on the machine and on what else
//! runs on it; what must hold whatever the machine is a test.

mod against;
mod connect;
mod figures;
mod place;
mod spread;
mod takeover;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::{Parser, Subcommand};
use holdfast_lab::patch::End;
use holdfast_lab::{Lab, program};

/// Exit code of a measurement that was not made (`EX_SOFTWARE` of sysexits.h).
const NOT_MEASURED: u8 = 70;

/// The longest a measurement may take: many times what the largest one does on an idle machine.
const DEADLINE: Duration = Duration::from_secs(60 * 60);

/// Measures the release binaries on this machine, in private namespaces and cgroups. Needs root.
#[derive(Debug, Parser)]
#[command(name = "holdfast-bench", version)]
struct Cli {
    #[command(subcommand)]
    measurement: Measurement,
}

#[derive(Debug, Subcommand)]
enum Measurement {
    Against(against::Arguments),
    Connect(connect::Arguments),
    Takeover(takeover::Arguments),
}

fn main() -> ExitCode {
    let Cli { measurement } = Cli::parse();
    run(&measurement).unwrap_or_else(|error| {
        eprintln!("holdfast-bench: {error:#}");
        ExitCode::from(NOT_MEASURED)
    })
}

fn run(measurement: &Measurement) -> anyhow::Result<ExitCode> {
    let Some(lab) = Lab::here()? else { return outside() };
    match measurement {
        Measurement::Against(arguments) => against::run(&lab, arguments)?,
        Measurement::Connect(arguments) => connect::run(&lab, arguments)?,
        Measurement::Takeover(arguments) => takeover::run(&lab, arguments)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn outside() -> anyhow::Result<ExitCode> {
    match program::rerun(DEADLINE)? {
        End::Exited(status) if status.success() => Ok(ExitCode::SUCCESS),
        // The inside has said why.
        End::Exited(_) => Ok(ExitCode::from(NOT_MEASURED)),
        End::Interrupted => bail!("interrupted; everything was cleaned up"),
        End::Overdue => bail!("the measurement did not end within {DEADLINE:?}"),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
