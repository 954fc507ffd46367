//! From the kill of the worker that writes to the grant of the next one, as the killer sees it.
//!
//! The time starts just before SIGKILL is sent and ends when the supervisor's log, which is read from
//! a pipe, says that a worker is granted: this includes that the kernel ends the process, that the
//! supervisor notices, and that the line is written. The two kinds of start take turns, a block of
//! kills each, so that whatever else the machine does hits both; each block also kills some processes
//! that do nothing, for what a kill costs by itself at that time.
//!
//! - [`log`]: reading what the supervisor says.
//! - [`busy`]: threads that want all processors.

mod busy;
mod log;

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use holdfast_lab::process::Process;
use holdfast_lab::random::Random;
use holdfast_lab::supervisor::GRANTED;
use holdfast_lab::{Lab, Service, render};
use holdfast_protocol::control::Status;
use nix::sys::signal::Signal;
use serde::Serialize;

use self::busy::Busy;
use self::log::Log;
use crate::figures::Figures;

/// Kills in a row of one kind.
const BLOCK: usize = 10;

/// Endpoints of each service.
const ENDPOINTS: u8 = 10;

/// Shortest rest before a kill, in microseconds: the largest configuration here is compiled within
/// it, by the worker that was granted and by its spare.
const SHORTEST_REST_US: u64 = 100_000;

/// How much longer a rest may be: kills come at any point between two heartbeats.
const REST_SPREAD_US: u64 = 100_000;

/// `standby.state` of a spare that is ready.
const SHADOW: &str = "shadow";

/// How long a dead process may take to be gone, and a worker to be granted.
const PATIENCE: Duration = Duration::from_secs(20);

/// Kill the worker that writes, again and again, and time the next one's grant.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Sizes to measure: this many services of ten endpoints
    #[arg(long, value_delimiter = ',', default_values_t = [10, 1000], value_name = "N,…")]
    services: Vec<u16>,
    /// Kills of each kind and size
    #[arg(long, default_value_t = 200, value_name = "N")]
    kills: usize,
    /// Threads that compute all the while, in the same priority
    #[arg(long, default_value_t = 0, value_name = "N")]
    busy: usize,
}

/// How the next worker comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    /// It is started after the kill.
    Cold,
    /// It waits in shadow.
    Standby,
}

const KINDS: [Kind; 2] = [Kind::Cold, Kind::Standby];

/// The durations of one kind and size.
#[derive(Debug)]
struct Series {
    services: u16,
    kind: Kind,
    durations: Vec<Duration>,
}

#[derive(Serialize)]
struct Row {
    services: u16,
    kind: Kind,
    #[serde(flatten)]
    figures: Figures,
}

#[derive(Serialize)]
struct Report {
    busy: usize,
    takeovers: Vec<Row>,
    /// A process that does nothing: from its kill until the kernel says that it has ended.
    floor: Figures,
}

/// Measures, and prints what was found.
pub fn run(lab: &Lab, arguments: &Arguments) -> anyhow::Result<()> {
    let busy = Busy::start(arguments.busy);
    let mut random = Random::new(1);
    let mut floor = Vec::new();
    let mut takeovers = Vec::new();
    println!("{}", Figures::head());
    for services in arguments.services.iter().copied() {
        let path = lab.write("holdfast.yaml", render(&configuration(services)))?;
        let mut series = KINDS.map(|kind| Series {
            services,
            kind,
            durations: Vec::with_capacity(arguments.kills),
        });
        while series.iter().any(|series| series.durations.len() < arguments.kills) {
            for series in &mut series {
                let left = arguments.kills - series.durations.len();
                series.durations.extend(block(
                    lab,
                    &path,
                    series.kind,
                    left.min(BLOCK),
                    &mut random,
                )?);
                floor.push(kill_bystander()?);
            }
        }
        for Series { services, kind, durations } in series {
            let figures = Figures::of(&durations);
            println!("{}", figures.line(&format!("{kind:?}, {services} services")));
            takeovers.push(Row { services, kind, figures });
        }
    }
    busy.stop();
    let floor = Figures::of(&floor);
    println!("{}", floor.line("a process that does nothing"));
    let report = Report { busy: arguments.busy, takeovers, floor };
    println!("{}", serde_json::to_string(&report).context("cannot write the report")?);
    Ok(())
}

/// Starts a supervisor and kills its worker `kills` times.
fn block(
    lab: &Lab,
    configuration: &Path,
    kind: Kind,
    kills: usize,
    random: &mut Random,
) -> anyhow::Result<Vec<Duration>> {
    let (mut log, writer) = Log::pipe()?;
    let launch = lab.supervisor(configuration).logging_to(writer);
    let launch = match kind {
        Kind::Cold => launch,
        Kind::Standby => launch.flag("--standby"),
    };
    let mut supervisor = launch.start()?;
    let mut worker = open(log.granted(PATIENCE)?.pid)?;
    let mut durations = Vec::with_capacity(kills);
    for _ in 0..kills {
        supervisor.wait_until("a quiet moment", |status| is_quiet(kind, status))?;
        let rest = SHORTEST_REST_US + random.below(REST_SPREAD_US);
        std::thread::sleep(Duration::from_micros(rest));
        let killed = Instant::now();
        worker.signal(Signal::SIGKILL).context("cannot kill the worker")?;
        let grant = log.granted(PATIENCE)?;
        ensure!(grant.reason == "crash", "a takeover for another reason: {grant:?}");
        durations.push(grant.read_at - killed);
        worker = open(grant.pid)?;
    }
    supervisor.end(Signal::SIGTERM)?;
    Ok(durations)
}

fn open(worker: u32) -> anyhow::Result<Process> {
    Process::open(worker).with_context(|| format!("cannot watch the worker {worker}"))
}

/// How long a process that waits for its input takes to end.
fn kill_bystander() -> anyhow::Result<Duration> {
    let mut command = Command::new("cat");
    let mut child = command.stdin(Stdio::piped()).spawn().context("cannot start `cat`")?;
    let process = Process::open(child.id()).context("cannot watch `cat`")?;
    std::thread::sleep(Duration::from_millis(5));
    let killed = Instant::now();
    process.signal(Signal::SIGKILL)?;
    let ended = process.wait(PATIENCE)?;
    let duration = killed.elapsed();
    child.wait().context("cannot reap `cat`")?;
    ensure!(ended, "`cat` does not end");
    Ok(duration)
}

/// Whether nothing is on its way in or out.
fn is_quiet(kind: Kind, status: &Status) -> bool {
    match kind {
        Kind::Cold => status.worker.state == GRANTED,
        Kind::Standby => status.standby.as_ref().is_some_and(|spare| spare.state == SHADOW),
    }
}

fn configuration(services: u16) -> Vec<Service> {
    let service = |number: u16| {
        let [high, low] = number.to_be_bytes();
        let address = SocketAddr::from(([127, 97, high, low], 80));
        (1..=ENDPOINTS).fold(Service::tcp(&format!("s{number}"), address), |service, host| {
            service.endpoint(SocketAddr::from(([127, 0, 1, host], 18080)))
        })
    };
    (0..services).map(service).collect()
}
