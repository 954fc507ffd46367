//! `holdfast-bench`: how long things take, measured on the real binaries and the real kernel.
//!
//! - [`all`]: every measurement, each in a patch of its own, into one file and one page.
//! - [`connect`]: what governance costs a connection.
//! - [`against`]: a connection through Holdfast, and through what people use instead.
//! - [`established`]: connections that stay.
//! - [`takeover`]: from the kill of the worker that writes to the grant of the next one.
//! - [`reload`]: a new configuration, and connections that fail meanwhile.
//! - [`apply`]: a configuration on its way into the kernel.
//! - [`footprint`]: what Holdfast takes of a node.
//! - [`events`]: what telling of connections costs, and how many can be told of.
//! - [`exercise`]: a fixed piece of work, for whoever counts instructions.
//! - [`results`]: what measurements come to, as JSON, as a page, as lines.
//! - [`peers`]: what people use instead.
//! - [`place`]: where a client connects from. [`sized`]: configurations of any size.
//! - [`rounds`]: figures of many kinds, round by round (pure).
//!
//! Each measurement runs in a private patch of the machine and prints a table for people; with
//! `--json` it writes what it found. `docs/performance.md` says what was found.
//!
//! **Architecture Invariant:** nothing here judges. A figure depends on the machine and on what else
//! runs on it: a target that is missed is said, and is no failure. What must hold whatever the machine
//! is a test.
//!
//! **Architecture Invariant:** what could not be measured is a row that says why, and never left out.

mod against;
mod all;
mod apply;
mod connect;
mod established;
mod events;
mod exercise;
mod footprint;
mod peers;
mod place;
mod reload;
mod results;
mod rounds;
mod sized;
mod takeover;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::{Parser, Subcommand};
use holdfast_lab::machine::Machine;
use holdfast_lab::patch::End;
use holdfast_lab::{Lab, program};

use self::results::{Section, lines, write_json};

/// Exit code of a measurement that was not made (`EX_SOFTWARE` of sysexits.h).
const NOT_MEASURED: u8 = 70;

/// The longest a measurement may take: many times what the largest one does on an idle machine.
const DEADLINE: Duration = Duration::from_secs(60 * 60);

/// Measures the release binaries on this machine, in private namespaces and cgroups. Needs root.
#[derive(Debug, Parser)]
#[command(name = "holdfast-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    All(all::Arguments),
    Render(all::Render),
    Exercise(exercise::Arguments),
    #[command(flatten)]
    One(One),
}

/// One measurement, and where to write what it found.
#[derive(Debug, Subcommand)]
enum One {
    Against(With<against::Arguments>),
    Apply(With<apply::Arguments>),
    Connect(With<connect::Arguments>),
    Established(With<established::Arguments>),
    Events(With<events::Arguments>),
    Footprint(With<footprint::Arguments>),
    Reload(With<reload::Arguments>),
    Takeover(With<takeover::Arguments>),
}

#[derive(Debug, clap::Args)]
struct With<A: clap::Args> {
    #[command(flatten)]
    arguments: A,
    /// Where to write the result as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    let ended = match &Cli::parse().command {
        Command::All(arguments) => all::run(arguments),
        Command::Render(arguments) => all::render(arguments),
        Command::Exercise(arguments) => exercise::run(arguments).map(|()| ExitCode::SUCCESS),
        Command::One(one) => run(one),
    };
    ended.unwrap_or_else(|error| {
        eprintln!("holdfast-bench: {error:#}");
        ExitCode::from(NOT_MEASURED)
    })
}

fn run(one: &One) -> anyhow::Result<ExitCode> {
    let Some(lab) = Lab::here()? else { return outside() };
    match one {
        One::Against(it) => finish(&it.json, || against::measure(&lab, &it.arguments)),
        One::Apply(it) => finish(&it.json, || apply::measure(&lab, &it.arguments)),
        One::Connect(it) => finish(&it.json, || connect::measure(&lab, &it.arguments)),
        One::Established(it) => finish(&it.json, || established::measure(&lab, &it.arguments)),
        One::Events(it) => finish(&it.json, || events::measure(&lab, &it.arguments)),
        One::Footprint(it) => finish(&it.json, || footprint::measure(&lab, &it.arguments)),
        One::Reload(it) => finish(&it.json, || reload::measure(&lab, &it.arguments)),
        One::Takeover(it) => finish(&it.json, || takeover::measure(&lab, &it.arguments)),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// Makes a measurement, prints what was found, and writes it where that is wanted.
fn finish(
    json: &Option<PathBuf>,
    measure: impl FnOnce() -> anyhow::Result<Section>,
) -> anyhow::Result<()> {
    let (begin, before) = (Instant::now(), Machine::here().load);
    let mut section = measure()?;
    section.took_s = begin.elapsed().as_secs_f64();
    section.load = [before, Machine::here().load];
    print!("{}", lines(&section));
    json.as_deref().map_or(Ok(()), |path: &Path| write_json(path, &section))
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
