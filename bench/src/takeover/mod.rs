//! From the end of the worker that writes to the grant of the next one, as whoever ends it sees it.
//!
//! The time starts just before the signal is sent and ends when the supervisor's log, which is read
//! from a pipe, says that a worker is granted: this includes that the kernel ends the process, that the
//! supervisor notices, and that the line is written. All kinds take turns, a block each, so that whatever
//! else the machine does hits all; each block also kills some processes that do nothing, for what a kill
//! costs by itself at that time.
//!
//! - [`log`]: reading what the supervisor says.
//! - [`busy`]: threads that want all processors.

mod busy;
mod log;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use holdfast_lab::process::Process;
use holdfast_lab::random::Random;
use holdfast_lab::supervisor::GRANTED;
use holdfast_lab::{Lab, Supervisor};
use holdfast_protocol::control::Status;
use holdfast_protocol::handover::ConfigState;
use nix::sys::signal::Signal;

use self::busy::Busy;
use self::log::Log;
use crate::results::{Scale, Section, Table, Unit};
use crate::rounds::Rounds;
use crate::sized::Size;

/// Ends in a row of one kind.
const BLOCK: usize = 10;

/// Shortest rest before an end, in microseconds, and what it is more for each endpoint: the
/// configuration is compiled within it, by the worker that was granted and by its spare.
const SHORTEST_REST_US: u64 = 100_000;
const REST_PER_ENDPOINT_US: u64 = 5;

/// How much longer a rest may be: ends come at any point between two heartbeats.
const REST_SPREAD_US: u64 = 100_000;

/// From this many endpoints on there are fewer ends, because each takes seconds to prepare.
const LARGE_ENDPOINTS: u32 = 200_000;
const LARGE_SHARE: usize = 10;

/// Slots for the largest size, and for what is changed. An endpoint has a number too, of which there is one
/// for each fourth slot; the first is nobody's, so four times as many slots as endpoints are not enough.
const MAX_SLOTS: &str = "4259840";

/// `standby.state` of a spare that is ready.
const SHADOW: &str = "shadow";

/// How long a dead process may take to be gone, and a worker to be granted.
const PATIENCE: Duration = Duration::from_secs(60);

/// The size that is aimed for, and the most that the median may be then, in milliseconds.
const AIMED: Size = Size { services: 10_000, endpoints: 10 };
const AIMED_COLD_MS: f64 = 10.0;
const AIMED_STANDBY_MS: f64 = 2.0;

/// End the worker that writes, again and again, and time the next one's grant.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Sizes to measure: services, and endpoints of each
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "10x10,1000x10,10000x10",
        value_name = "NxM,…"
    )]
    sizes: Vec<Size>,
    /// Ends of each kind and size; a tenth of them from 200,000 endpoints on
    #[arg(long, default_value_t = 100, value_name = "N",
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    kills: usize,
    /// Threads that compute all the while, in the same priority
    #[arg(long, default_value_t = 0, value_name = "N")]
    busy: usize,
}

/// How the next worker comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The worker is killed, and the next one started then.
    Cold,
    /// The worker is killed, and a spare waits in shadow.
    Standby,
    /// SIGHUP: the next one is started, and the worker hands over to it.
    Reload,
    /// The supervisor is killed, with it its worker, and another one started at once.
    Supervisor,
}

const KINDS: [Kind; 4] = [Kind::Cold, Kind::Standby, Kind::Reload, Kind::Supervisor];

/// Measures.
pub fn measure(lab: &Lab, arguments: &Arguments) -> anyhow::Result<Section> {
    let busy = Busy::start(arguments.busy);
    let mut random = Random::new(1);
    let mut figures = Rounds::default();
    let (mut floor, mut absent) = (Vec::new(), Vec::new());
    for size in arguments.sizes.iter().copied() {
        let path = size.write(lab)?;
        let wanted = match size.all_endpoints() >= LARGE_ENDPOINTS {
            true => arguments.kills.div_ceil(LARGE_SHARE),
            false => arguments.kills,
        };
        for done in (0..wanted).step_by(BLOCK) {
            let scene = Scene { lab, path: &path, size, count: (wanted - done).min(BLOCK) };
            for kind in KINDS {
                if absent.iter().any(|(of, other, _)| (*of, *other) == (size, kind)) {
                    continue;
                }
                let durations = match kind {
                    Kind::Supervisor => scene.end_supervisors(&mut random),
                    Kind::Cold | Kind::Standby | Kind::Reload => {
                        scene.end_workers(kind, &mut random)
                    }
                };
                // One that cannot be had must not take the others with it.
                match durations {
                    Ok(durations) => durations
                        .into_iter()
                        .for_each(|duration| figures.add((size, kind), milliseconds(duration))),
                    Err(error) => absent.push((size, kind, format!("{error:#}"))),
                }
                floor.push(milliseconds(kill_bystander()?));
            }
        }
    }
    busy.stop();
    Ok(section(&figures, (floor, &absent), arguments))
}

/// All of it, with what could not be measured.
fn section(
    figures: &Rounds<(Size, Kind)>,
    (floor, absent): (Vec<f64>, &[(Size, Kind, String)]),
    arguments: &Arguments,
) -> Section {
    let mut section = Section::new(
        "takeover",
        "From the end of a worker to the next one's grant",
        "From just before the signal until the supervisor's log, read through a pipe, says that a worker \
         is granted. Kinds take turns in blocks of ten. Connections do not wait for this: the kernel \
         governs them whether a worker lives or not.",
    );
    for kind in KINDS {
        let mut table = Table::new(kind.name(), Unit::Milliseconds, kind.scale());
        for size in &arguments.sizes {
            // What failed in a later block stays beside what was measured before.
            let is_it = |(of, other, _): &&(Size, Kind, String)| (of, *other) == (size, kind);
            if let Some((_, _, why)) = absent.iter().find(is_it) {
                table.not_measured(format!("{size}: ended early"), why.as_str());
            }
            let summary = figures.summary(&(*size, kind));
            if summary.count > 0 {
                table.measured(size.to_string(), summary);
            }
        }
        section.tables.push(table);
    }
    let mut table =
        Table::new("SIGKILL until the end can be seen", Unit::Milliseconds, Scale::Linear);
    table.measured("a process that does nothing", crate::results::Summary::of(floor));
    section.tables.push(table);
    for (kind, at_most) in [(Kind::Cold, AIMED_COLD_MS), (Kind::Standby, AIMED_STANDBY_MS)] {
        let found = figures.summary(&(AIMED, kind));
        let what = format!("{}, {AIMED}, median", kind.name());
        let found = (found.count > 0).then_some(found.p50);
        section.target(&what, Unit::Milliseconds, at_most, found);
    }
    if arguments.busy > 0 {
        section.note(format!("{} threads computed all the while", arguments.busy));
    }
    section.note(
        "A worker that follows a killed one is told what is in force and compiles it after its grant. With \
         SIGHUP it compiles first, because it is to put in force what is on disk; the former one serves \
         meanwhile. So it is with a supervisor that starts.",
    );
    section.note(
        "Whoever starts a killed supervisor again, a service manager for one, adds its own time; here it \
         is started at once. It runs a loader, most of whose time is the kernel's verifier.",
    );
    section
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Cold => "Worker killed, the next one starts cold",
            Self::Standby => "Worker killed, a spare stands by",
            Self::Reload => "SIGHUP, the worker hands over",
            Self::Supervisor => "Supervisor killed, and started again",
        }
    }

    const fn scale(self) -> Scale {
        match self {
            Self::Cold | Self::Standby | Self::Reload => Scale::Linear,
            Self::Supervisor => Scale::Logarithmic,
        }
    }
}

/// A block of ends.
struct Scene<'a> {
    lab: &'a Lab,
    path: &'a Path,
    size: Size,
    count: usize,
}

impl Scene<'_> {
    fn start(&self, kind: Kind) -> anyhow::Result<(Supervisor, Log)> {
        let (log, writer) = Log::pipe()?;
        let launch =
            self.lab.supervisor(self.path).logging_to(writer).with("--max-slots", MAX_SLOTS);
        let launch = match kind {
            Kind::Standby => launch.flag("--standby"),
            Kind::Cold | Kind::Reload | Kind::Supervisor => launch,
        };
        Ok((launch.spawn()?, log))
    }

    /// Starts a supervisor, and ends its worker again and again.
    fn end_workers(&self, kind: Kind, random: &mut Random) -> anyhow::Result<Vec<Duration>> {
        let (mut supervisor, mut log) = self.start(kind)?;
        let mut worker = open(log.granted(PATIENCE)?.pid)?;
        self.check(&mut supervisor)?;
        let mut durations = Vec::with_capacity(self.count);
        for _ in 0..self.count {
            supervisor.wait_until("a quiet moment", |status| is_quiet(kind, status))?;
            self.rest(random);
            let begin = Instant::now();
            let reason = match kind {
                Kind::Reload => {
                    supervisor.signal(Signal::SIGHUP)?;
                    "reload"
                }
                _ => {
                    worker.signal(Signal::SIGKILL).context("cannot kill the worker")?;
                    "crash"
                }
            };
            let grant = log.granted(PATIENCE)?;
            ensure!(grant.reason == reason, "a takeover for another reason: {grant:?}");
            durations.push(grant.read_at - begin);
            worker = open(grant.pid)?;
        }
        supervisor.end(Signal::SIGTERM)?;
        Ok(durations)
    }

    /// Kills supervisor after supervisor, each with its worker.
    fn end_supervisors(&self, random: &mut Random) -> anyhow::Result<Vec<Duration>> {
        let (mut supervisor, mut log) = self.start(Kind::Supervisor)?;
        log.granted(PATIENCE)?;
        self.check(&mut supervisor)?;
        let mut durations = Vec::with_capacity(self.count);
        for _ in 0..self.count {
            self.rest(random);
            let begin = Instant::now();
            supervisor.signal(Signal::SIGKILL)?;
            let former = supervisor;
            (supervisor, log) = self.start(Kind::Supervisor)?;
            let grant = log.granted(PATIENCE)?;
            durations.push(grant.read_at - begin);
            drop(former);
        }
        supervisor.end(Signal::SIGTERM)?;
        Ok(durations)
    }

    /// Waits until the size is in force: figures of one that was refused would be of another.
    fn check(&self, supervisor: &mut Supervisor) -> anyhow::Result<()> {
        let status = supervisor.wait_until("what becomes of the configuration", |status| {
            status.config.state != ConfigState::Unknown
        })?;
        let (state, error) = (status.config.state, &status.config.error);
        ensure!(state == ConfigState::InForce, "the configuration is not in force: {error}");
        let services = status.services;
        ensure!(services == self.size.services, "{services} services are in force: {}", self.size);
        Ok(())
    }

    fn rest(&self, random: &mut Random) {
        let rest = SHORTEST_REST_US
            + REST_PER_ENDPOINT_US * u64::from(self.size.all_endpoints())
            + random.below(REST_SPREAD_US);
        std::thread::sleep(Duration::from_micros(rest));
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
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
        Kind::Cold | Kind::Reload | Kind::Supervisor => status.worker.state == GRANTED,
        Kind::Standby => status.standby.as_ref().is_some_and(|spare| spare.state == SHADOW),
    }
}
