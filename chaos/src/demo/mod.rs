//! The demonstration, inside its patch.
//!
//! - [`traffic`]: the backends, the clients and the streams.
//! - [`plan`]: which fault comes when, drawn from a seed (pure).
//! - [`watch`]: what the supervisor says about its worker, and how long takeovers take.
//! - [`report`]: the closing line, and what it means (pure).

mod plan;
mod report;
mod traffic;
mod watch;

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use holdfast_lab::control::socket_path;
use holdfast_lab::random::Random;
use holdfast_lab::{Census, Lab, Supervisor};
use nix::sys::signal::Signal;

use self::plan::{Fault, Plan};
use self::report::Report;
use self::traffic::Traffic;
use self::watch::Watch;
use crate::{Arguments, arbitrary_seed};

/// What `holdfast run` is started on.
const CONFIGURATION: &str = include_str!("demo.yaml");

/// Time between two live lines.
const LINE_INTERVAL: Duration = Duration::from_secs(1);

/// When no worker runs at the instant of a fault, the next look for one.
const NO_WORKER_RETRY: Duration = Duration::from_millis(1);

/// How much of the supervisor's log is shown when a promise was broken, in lines.
const SHOWN_LOG_LINES: usize = 60;

/// How often each fault hit.
#[derive(Clone, Copy, Debug, Default)]
struct Faults {
    kills: u64,
    sighups: u64,
}

/// Runs the demonstration; says whether every promise was kept.
pub fn run(lab: &Lab, arguments: &Arguments) -> anyhow::Result<bool> {
    let seed = arguments.seed.unwrap_or_else(arbitrary_seed);
    println!("faults for {} s; repeat them with --seed {seed}", arguments.duration.as_secs());
    let before = Census::take(lab, &Census::default())?;
    let configuration = lab.write("demo.yaml", CONFIGURATION)?;
    let mut supervisor = lab.supervisor(&configuration).start()?;
    let watch = Watch::start(socket_path(lab));
    let traffic = Traffic::start(seed)?;

    let faults = inject(&supervisor, &traffic, &watch, seed, arguments.duration)?;
    supervisor.wait_for_grant().context("no worker is granted after the last fault")?;
    let counted = traffic.finish();
    let report = Report::new(&counted, faults, watch.finish());

    let mut complaints = report.complaints();
    complaints.extend(counted.details());
    complaints
        .extend(uninstall(lab, &mut supervisor, &before).err().map(|error| error.to_string()));
    if !complaints.is_empty() {
        explain(&complaints, &supervisor);
    }
    println!("{}", serde_json::to_string(&report).context("cannot write the report")?);
    Ok(complaints.is_empty())
}

/// Injects faults until `duration` has passed, with a live line each second.
fn inject(
    supervisor: &Supervisor,
    traffic: &Traffic,
    watch: &Watch,
    seed: u64,
    duration: Duration,
) -> anyhow::Result<Faults> {
    let mut plan = Plan::new(seed);
    let mut random = Random::new(!seed);
    let mut faults = Faults::default();
    let begin = Instant::now();
    let (mut rest, mut fault) = plan.draw();
    let (mut next_fault, mut next_line) = (begin + rest, begin + LINE_INTERVAL);
    while begin.elapsed() < duration {
        let now = Instant::now();
        if now >= next_fault {
            if strike(fault, supervisor, watch, &mut random, &mut faults)? {
                (rest, fault) = plan.draw();
            } else {
                rest = NO_WORKER_RETRY;
            }
            next_fault = now + rest;
        }
        if now >= next_line {
            show(begin.elapsed(), traffic, watch)?;
            next_line += LINE_INTERVAL;
        }
        std::thread::sleep(next_fault.min(next_line).saturating_duration_since(Instant::now()));
    }
    if std::io::stdout().is_terminal() {
        println!();
    }
    Ok(faults)
}

/// Injects one fault; says whether there was something it could hit.
fn strike(
    fault: Fault,
    supervisor: &Supervisor,
    watch: &Watch,
    random: &mut Random,
    faults: &mut Faults,
) -> anyhow::Result<bool> {
    match fault {
        Fault::Restart => {
            supervisor.signal(Signal::SIGHUP)?;
            faults.sighups += 1;
            Ok(true)
        }
        Fault::Kill => {
            let workers = supervisor.workers();
            let Some(bound) = (!workers.is_empty()).then_some(workers.len() as u64) else {
                return Ok(false);
            };
            let victim = workers[usize::try_from(random.below(bound)).context("below a usize")?];
            let instant = Instant::now();
            let hit = supervisor.kill_worker(victim);
            if hit {
                faults.kills += 1;
                watch.killed(victim, instant);
            }
            Ok(hit)
        }
    }
}

/// Shows where things stand: redrawn on a terminal, a line of its own elsewhere.
fn show(elapsed: Duration, traffic: &Traffic, watch: &Watch) -> anyhow::Result<()> {
    let (tally, seen) = (traffic.so_far(), watch.seen());
    let last = seen.last_takeover.map_or_else(|| "-".to_owned(), |time| format!("{time:.1?}"));
    let line = format!(
        "{:>4} s  connections {:>7}  failures {:>3}  worker {:>7}  epoch {:>4}  last takeover {last}",
        elapsed.as_secs(),
        tally.connections(),
        tally.failed + tally.ungoverned,
        seen.worker,
        seen.epoch,
    );
    let mut out = std::io::stdout().lock();
    if out.is_terminal() {
        write!(out, "\r\x1b[K{line}")?;
    } else {
        writeln!(out, "{line}")?;
    }
    Ok(out.flush()?)
}

/// Uninstalls, and checks that nothing is left: no kernel object, no file, no process.
fn uninstall(lab: &Lab, supervisor: &mut Supervisor, before: &Census) -> anyhow::Result<()> {
    let during = Census::take(lab, before)?;
    ensure!(!during.objects.is_empty(), "there was nothing in the kernel to uninstall");
    let ended = lab.uninstall()?;
    ensure!(ended.code == Some(0), "holdfast uninstall failed: {}", ended.stderr.trim());
    let status = supervisor.ended()?;
    ensure!(status.success(), "the supervisor left with {status} after the uninstall");
    before.wait_for_return(lab, &during).context("uninstall left something")
}

fn explain(complaints: &[String], supervisor: &Supervisor) {
    let log = std::fs::read_to_string(supervisor.log()).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    eprintln!("the end of the supervisor's log:");
    for line in &lines[lines.len().saturating_sub(SHOWN_LOG_LINES)..] {
        eprintln!("  {line}");
    }
    for complaint in complaints {
        eprintln!("holdfast-chaos: {complaint}");
    }
}
