//! `holdfast-chaos run` and `holdfast-chaos replay`, outside and inside of the patch.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use holdfast_lab::Lab;

use crate::fault::{Kind, Kinds};
use crate::plan::{Order, Plan};
use crate::report::{Report, read, read_script};
use crate::run::Script;
use crate::run::size::Size;
use crate::{BROKEN, arbitrary_seed, duration, outside};

/// What starting, waiting for the last repair, uninstalling and checking may take beside the run.
const ALLOWANCE: Duration = Duration::from_secs(300);

/// Most faults a second: more would not leave a worker the time to start.
const HIGHEST_RATE: f64 = 100.0;

/// What `run` takes.
#[derive(Clone, Debug, clap::Args)]
pub struct Run {
    /// Repeat the plan of a former run; without it, every run has another
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// How long faults are injected: 60s, 2m
    #[arg(long, default_value = "60s", value_name = "TIME", value_parser = duration)]
    duration: Duration,
    /// Which faults, separated by commas: names, `all`, and `-NAME` to leave one out
    #[arg(long, default_value = "all", value_name = "LIST", allow_hyphen_values = true)]
    faults: Kinds,
    /// Mean number of kills and storms a second; all others follow each other as fast as they can
    #[arg(long, default_value_t = 2.0, value_name = "NUMBER", value_parser = rate)]
    rate: f64,
    /// Services in the configuration; clients connect to 4 of them
    #[arg(long, default_value_t = 100, value_name = "N")]
    services: u32,
    /// Endpoints of each service
    #[arg(long, default_value_t = 4, value_name = "N")]
    endpoints: u16,
    /// Clients at once
    #[arg(long, default_value_t = 4, value_name = "N")]
    clients: u16,
    /// A client's rest after each connection, in microseconds
    #[arg(long, default_value_t = 1_500, value_name = "US")]
    rest: u64,
    /// Long connections on which every byte is checked
    #[arg(long, default_value_t = 8, value_name = "N")]
    streams: u16,
    /// Mean number of saves of the configuration a second
    #[arg(long, default_value_t = 2.0, value_name = "NUMBER", value_parser = rate)]
    saves: f64,
    /// How long after its removal an endpoint may still be reached, in milliseconds; more than the 100 ms
    /// that are promised are for a machine that is busy with other things
    #[arg(long, default_value_t = 100, value_name = "MS")]
    grace: u64,
    #[command(flatten)]
    output: Output,
    /// Print every fault and what it does, and end
    #[arg(long)]
    list_faults: bool,
}

/// What `replay` takes.
#[derive(Clone, Debug, clap::Args)]
pub struct Replay {
    /// The JSON report of a former run
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    output: Output,
}

/// What `render` takes.
#[derive(Clone, Debug, clap::Args)]
pub struct Render {
    /// The JSON report of a former run
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The page to write
    #[arg(value_name = "PAGE")]
    page: PathBuf,
}

/// Where the outcome goes, beside the terminal.
#[derive(Clone, Debug, clap::Args)]
struct Output {
    /// Write everything that was recorded as JSON; `replay` reads it
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write one HTML page that needs no network
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Copy the supervisors' logs to this directory
    #[arg(long, value_name = "DIR")]
    logs: Option<PathBuf>,
}

/// `run`.
pub fn run(arguments: &Run) -> anyhow::Result<ExitCode> {
    if arguments.list_faults {
        for kind in Kind::ALL {
            println!("{:<22} {}", kind.name(), kind.about());
        }
        return Ok(ExitCode::SUCCESS);
    }
    let Some(lab) = Lab::here()? else {
        // Wrong arguments are said before anything is made.
        arguments.script(0)?;
        return outside::run(arguments.duration + ALLOWANCE);
    };
    let script = arguments.script(arguments.seed.unwrap_or_else(arbitrary_seed))?;
    perform(&lab, script, &arguments.output)
}

/// `replay`.
pub fn replay(arguments: &Replay) -> anyhow::Result<ExitCode> {
    let script = read_script(&arguments.file)?;
    match Lab::here()? {
        Some(lab) => perform(&lab, script, &arguments.output),
        None => {
            let duration = Duration::from_millis(script.plan.order.duration_ms);
            outside::run(duration + ALLOWANCE)
        }
    }
}

/// `render`.
pub fn render(arguments: &Render) -> anyhow::Result<ExitCode> {
    read(&arguments.file)?.write_html(&arguments.page)?;
    Ok(ExitCode::SUCCESS)
}

impl Run {
    fn script(&self, seed: u64) -> anyhow::Result<Script> {
        let size = Size {
            services: self.services,
            served_endpoints: self.endpoints,
            filler_endpoints: self.endpoints,
            clients: self.clients,
            rest_us: self.rest,
            streams: self.streams,
            churn_us: distance_us(self.saves),
            grace_us: self.grace.saturating_mul(1_000),
        };
        if let Err(wrong) = size.check() {
            bail!("{wrong}");
        }
        let order = Order {
            seed,
            duration_ms: u64::try_from(self.duration.as_millis()).context("a day fits")?,
            kinds: self.faults.clone(),
            distance_us: distance_us(self.rate),
        };
        Ok(Script { plan: Plan::draw(order), size })
    }
}

fn perform(lab: &Lab, script: Script, output: &Output) -> anyhow::Result<ExitCode> {
    let order = &script.plan.order;
    println!(
        "{} faults ({}) within {} s; repeat them with --seed {}",
        script.plan.faults.len(),
        order.kinds,
        order.duration_ms / 1000,
        order.seed
    );
    let ran = crate::run::run(lab, &script);
    if let Some(directory) = &output.logs {
        copy_logs(lab, directory)?;
    }
    let report = Report::new(script, ran?);
    print!("{}", report.text());
    if let Some(path) = &output.report {
        report.write_json(path)?;
    }
    if let Some(path) = &output.html {
        report.write_html(path)?;
    }
    Ok(if report.is_kept() { ExitCode::SUCCESS } else { ExitCode::from(BROKEN) })
}

/// Copies every log of the lab to `directory`, which is made if need be.
fn copy_logs(lab: &Lab, directory: &Path) -> anyhow::Result<()> {
    let cannot = || format!("cannot copy the logs to {}", directory.display());
    std::fs::create_dir_all(directory).with_context(cannot)?;
    for entry in std::fs::read_dir(lab.directory()).with_context(cannot)? {
        let path = entry.with_context(cannot)?.path();
        if let (Some(name), Some("log")) =
            (path.file_name(), path.extension().and_then(std::ffi::OsStr::to_str))
        {
            std::fs::copy(&path, directory.join(name)).with_context(cannot)?;
        }
    }
    Ok(())
}

fn rate(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "write a number, such as 2 or 0.5".to_owned())?;
    match number > 0.0 && number <= HIGHEST_RATE {
        true => Ok(number),
        false => Err(format!("write a number above 0, up to {HIGHEST_RATE}")),
    }
}

/// Mean distance of what happens `rate` times a second.
fn distance_us(rate: f64) -> u64 {
    let distance = Duration::from_secs(1).div_f64(rate);
    u64::try_from(distance.as_micros()).unwrap_or(u64::MAX)
}
