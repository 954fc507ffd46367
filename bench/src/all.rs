//! Every measurement, each in a patch of its own, into one file and one page.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use holdfast_lab::machine::Machine;
use holdfast_lab::patch::End;
use holdfast_lab::program;

use crate::results::{Results, Section, VERSION, read_json};

/// The longest one measurement may take: several times what the longest does on a busy machine.
const DEADLINE: Duration = Duration::from_secs(15 * 60);

/// The shell's exit code for SIGINT: 128 and the signal's number.
const INTERRUPTED: u8 = 130;

/// A measurement: its word on the command line, and its options for a whole run and for a smoke test.
struct Planned {
    name: &'static str,
    whole: &'static str,
    quick: &'static str,
}

/// What is measured, in order. A whole run stays below twenty minutes, a smoke test below half a one.
const PLAN: [Planned; 8] = [
    Planned {
        name: "connect",
        whole: "--rounds 100",
        quick: "--services 1,100 --rounds 2 --connections 10",
    },
    Planned { name: "against", whole: "--rounds 100", quick: "--rounds 2 --connections 5" },
    Planned {
        name: "established",
        whole: "--rounds 30",
        quick: "--rounds 1 --slices 1 --commands 20000",
    },
    Planned {
        name: "takeover",
        whole: "--sizes 10x10,1000x10,10000x10,65536x16 --kills 40",
        quick: "--sizes 10x10 --kills 2",
    },
    Planned { name: "reload", whole: "--rounds 12", quick: "--rounds 1 --clients 1" },
    Planned {
        name: "apply",
        whole: "--loads 15 --changes 30",
        quick: "--size 100x10 --loads 2 --changes 1",
    },
    Planned {
        name: "footprint",
        whole: "",
        quick: "--sizes 1x1 --rounds 1 --seconds 1 --settling 0",
    },
    Planned { name: "events", whole: "", quick: "--rounds 2 --connections 5 --climbs 1 --step 20" },
];

/// Measure everything.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Where to write `DATE.json` and `DATE.html`
    #[arg(long, default_value = "bench/results", value_name = "DIR")]
    out: PathBuf,
    /// A smoke test: so few rounds that the figures say nothing
    #[arg(long)]
    quick: bool,
    /// Only these measurements
    #[arg(long, value_delimiter = ',', value_name = "NAME,…")]
    only: Vec<String>,
}

/// Write the page of results that were measured before.
#[derive(Clone, Debug, clap::Args)]
pub struct Render {
    /// The JSON file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The page to write
    #[arg(value_name = "PAGE")]
    page: PathBuf,
}

/// `all`.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    for name in &arguments.only {
        let names = PLAN.map(|planned| planned.name);
        ensure!(names.contains(&name.as_str()), "there is no measurement {name}: {names:?}");
    }
    let is_wanted = |planned: &&Planned| {
        arguments.only.is_empty() || arguments.only.iter().any(|name| name == planned.name)
    };
    fs::create_dir_all(&arguments.out)
        .with_context(|| format!("cannot make {}", arguments.out.display()))?;
    let (begin, began) = (Instant::now(), Machine::here());
    let (mut sections, mut is_interrupted) = (Vec::new(), false);
    for planned in PLAN.iter().filter(is_wanted) {
        // What was measured before is not lost.
        let section = if is_interrupted { None } else { measure(planned, arguments)? };
        is_interrupted = section.is_none();
        let absent = || Section::not_measured(planned.name, "the run was interrupted");
        sections.push(section.unwrap_or_else(absent));
    }
    let is_measured = sections.iter().all(Section::is_measured);
    let results = Results {
        version: VERSION,
        // Without the directory it lies in, which is nobody else's business.
        command: ["holdfast-bench".to_owned()]
            .into_iter()
            .chain(std::env::args().skip(1))
            .collect::<Vec<_>>()
            .join(" "),
        build: env!("CARGO_PKG_VERSION").to_owned(),
        quick: arguments.quick,
        machine: Machine { time_s: began.time_s, ..Machine::here() },
        took_s: begin.elapsed().as_secs_f64(),
        sections,
    };
    // A day and an hour: a name that is not taken by the run before.
    let name = began.time().replace(" UTC", "").replace([' ', ':'], "-");
    let [json, html] = ["json", "html"].map(|kind| arguments.out.join(format!("{name}.{kind}")));
    results.write_json(&json)?;
    results.write_html(&html)?;
    println!("\nwrote {} and {}", json.display(), html.display());
    if is_interrupted {
        return Ok(ExitCode::from(INTERRUPTED));
    }
    ensure!(is_measured, "a measurement could not be made; its complaint is above and in the page");
    Ok(ExitCode::SUCCESS)
}

/// `render`.
pub fn render(arguments: &Render) -> anyhow::Result<ExitCode> {
    Results::read(&arguments.file)?.write_html(&arguments.page)?;
    Ok(ExitCode::SUCCESS)
}

/// Makes one measurement; `None` when somebody wants the run to end.
fn measure(planned: &Planned, arguments: &Arguments) -> anyhow::Result<Option<Section>> {
    println!("\n=== {} ===", planned.name);
    let file = arguments.out.join(format!("{}.section", planned.name));
    let options = if arguments.quick { planned.quick } else { planned.whole };
    let end = program::inside(command_line(planned.name, options, &file)?, DEADLINE)?;
    let section = match end {
        End::Interrupted => None,
        End::Exited(status) if status.success() => Some(read_json(&file)?),
        End::Exited(status) => {
            Some(Section::not_measured(planned.name, &format!("it ended with {status}")))
        }
        End::Overdue => {
            let why = format!("it did not end within {} s", DEADLINE.as_secs());
            Some(Section::not_measured(planned.name, &why))
        }
    };
    if file.exists() {
        fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
    }
    Ok(section)
}

fn command_line(name: &str, options: &str, file: &Path) -> anyhow::Result<Vec<OsString>> {
    let file = std::path::absolute(file).context("cannot find the current directory")?;
    let options = options.split_whitespace().map(OsString::from);
    let begin = std::iter::once(OsString::from(name));
    Ok(begin.chain(options).chain(["--json".into(), file.into()]).collect())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn every_planned_command_line_is_understood() -> anyhow::Result<()> {
        for planned in PLAN {
            for options in [planned.whole, planned.quick] {
                let line = command_line(planned.name, options, Path::new("x"))?;
                let line = std::iter::once("holdfast-bench".into()).chain(line);
                if let Err(error) = crate::Cli::try_parse_from(line) {
                    anyhow::bail!("{} {options}: {error}", planned.name);
                }
            }
        }
        Ok(())
    }
}
