//! `holdfast-chaos`: faults against a running Holdfast, and the demonstration.
//!
//! - [`outside`]: makes a private patch of the machine, runs this program again in it, cleans up.
//! - [`demo`]: the inside of the demonstration: 15 seconds of kills under load, counted.
//! - [`command`]: `run` and `replay`, from the arguments to the exit status.
//! - [`plan`]: which fault comes when, drawn from a seed (pure).
//! - [`fault`]: faults as data, and what injects each.
//! - [`load`], [`watch`]: what goes on meanwhile, and what is seen of it.
//! - [`run`]: brings them together, and records a [`history`].
//! - [`excuses`]: what excuses what, once all of it is known (pure).
//! - [`invariants`]: what G1 to G9 say about a history (pure).
//! - [`report`]: as JSON, as HTML, for a terminal.
//!
//! **Architecture Invariant:** nothing in production depends on this crate, and it reaches nothing
//! but the Holdfast it has started itself.
//!
//! **Architecture Invariant:** whatever goes wrong counts. Only a window that is declared in the
//! history, with its fault, its effect and its end, excuses it.

mod command;
mod demo;
mod excuses;
mod fault;
mod history;
mod invariants;
mod load;
mod outside;
mod plan;
mod report;
mod run;
mod watch;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use holdfast_lab::{Lab, LabError};

/// Exit code when a promise was not kept.
const BROKEN: u8 = 1;
/// Exit code when the run itself could not be made (`EX_SOFTWARE` of sysexits.h).
const NOT_RUN: u8 = 70;
/// Exit code without root (`EX_NOPERM`).
const NO_PERMISSION: u8 = 77;
/// Exit code when the machine or the build lacks something (`EX_CONFIG`).
const NOT_CONFIGURED: u8 = 78;

/// What starting, uninstalling and checking may take beside the demonstration.
const ALLOWANCE: Duration = Duration::from_secs(120);

const EXIT_CODES: &str = "\
Exit codes:
  0    every promise was kept
  1    one was not; the complaint is on standard error
  2    the arguments are not understood
  70   the run could not be made
  77   root is needed
  78   something is missing on this machine; the message names it
  130  interrupted; everything was cleaned up";

/// Injects faults into a Holdfast of its own while counting every connection.
#[derive(Debug, Parser)]
#[command(name = "holdfast-chaos", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the main job: no connection notices that workers come and go.
    ///
    /// Starts `holdfast run` on a configuration of its own in private namespaces and a private
    /// cgroup, two TCP backends and one UDP backend, clients that keep connecting and a handful of
    /// long byte-checked streams. Meanwhile it kills the worker at random instants and restarts it
    /// with SIGHUP. Uninstalls at the end and checks that nothing is left.
    ///
    /// The last line is JSON. `takeover_p50_ms` and `takeover_p99_ms` are measured from outside:
    /// from just before a worker that writes is killed until the supervisor says that the next one
    /// is granted.
    #[command(after_help = EXIT_CODES)]
    Demo(Arguments),
    /// Inject faults under load, and judge every promise.
    ///
    /// Starts `holdfast run` in private namespaces and a private cgroup, backends, clients that keep
    /// opening TCP and UDP connections, long byte-checked streams, and saves by which endpoints come
    /// and go. Injects what a seeded plan says, records everything, uninstalls, and judges the
    /// promises G1 to G9 over the record.
    #[command(after_help = EXIT_CODES)]
    Run(command::Run),
    /// Inject exactly the faults of a report again, at the same instants with the same choices.
    #[command(after_help = EXIT_CODES)]
    Replay(command::Replay),
    /// Write the HTML page of a report.
    #[command(after_help = EXIT_CODES)]
    Render(command::Render),
}

/// What `demo` takes.
#[derive(Clone, Debug, clap::Args)]
struct Arguments {
    /// How long to go on: `15s`, `2m`. Below about ten seconds there are too few kills to pass.
    #[arg(long, default_value = "15s", value_name = "TIME", value_parser = duration)]
    duration: Duration,
    /// Repeat the faults of a former run; without it, every run has others.
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
}

fn main() -> ExitCode {
    let ended = match Cli::parse().command {
        Command::Demo(arguments) => demonstrate(&arguments),
        Command::Run(arguments) => command::run(&arguments),
        Command::Replay(arguments) => command::replay(&arguments),
        Command::Render(arguments) => command::render(&arguments),
    };
    ended.unwrap_or_else(|error| {
        eprintln!("holdfast-chaos: {error:#}");
        ExitCode::from(code_of(&error))
    })
}

fn demonstrate(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    match Lab::here()? {
        Some(lab) if demo::run(&lab, arguments)? => Ok(ExitCode::SUCCESS),
        Some(_) => Ok(ExitCode::from(BROKEN)),
        None => outside::run(arguments.duration + ALLOWANCE),
    }
}

fn code_of(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<LabError>() {
        Some(LabError::NotRoot) => NO_PERMISSION,
        Some(LabError::NoCgroup2 | LabError::NoBinary { .. }) => NOT_CONFIGURED,
        _ => NOT_RUN,
    }
}

/// Different in every run; its quality does not matter.
fn arbitrary_seed() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::from(since.subsec_nanos()) ^ since.as_secs())
}

/// Longest run, in seconds: a day.
const LONGEST_SECONDS: u64 = 24 * 60 * 60;

fn duration(text: &str) -> Result<Duration, String> {
    let units = [('h', 60 * 60), ('m', 60), ('s', 1)];
    let with_unit = |(name, seconds)| Some((text.strip_suffix(name)?, seconds));
    let (number, unit) = units.into_iter().find_map(with_unit).unwrap_or((text, 1));
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit))
        .filter(|seconds| (1..=LONGEST_SECONDS).contains(seconds))
        .map(Duration::from_secs)
        .ok_or_else(|| "write seconds, minutes or hours, up to a day: 15s, 2m, 1h".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_are_read_with_and_without_a_unit() {
        assert_eq!(duration("15s"), Ok(Duration::from_secs(15)));
        assert_eq!(duration("15"), Ok(Duration::from_secs(15)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("24h"), Ok(Duration::from_secs(86_400)));
        for wrong in ["", "s", "0", "0s", "-1s", "1.5s", "25h", "86401", "999999999999999999m"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
