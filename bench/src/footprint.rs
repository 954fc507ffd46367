//! What Holdfast takes of a node: memory and threads of its processes, memory of its maps, and
//! processor time while nothing happens.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use holdfast_bpf::object;
use holdfast_lab::{Lab, Supervisor, process};
use holdfast_protocol::control::Status;
use holdfast_protocol::handover::ConfigState;

use crate::apply::estate;
use crate::results::{Scale, Section, Summary, Table, Unit};
use crate::rounds::Rounds;
use crate::sized::Size;

/// Bytes of a kibibyte.
const KIB: f64 = 1024.0;

/// The most that the supervisor may take, and the worker with the large configuration, in KiB.
const SUPERVISOR_KIB: f64 = 1.5 * KIB;
const WORKER_KIB: f64 = 64.0 * KIB;

/// The most processor time of all processes while nothing happens, in per cent of one processor.
const AT_REST_PERCENT: f64 = 0.1;

/// Measure what Holdfast takes of a node.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Sizes to measure: services, and endpoints of each
    #[arg(long, value_delimiter = ',', default_value = "1x1,10000x10", value_name = "NxM,…")]
    sizes: Vec<Size>,
    /// Starts of each size
    #[arg(long, default_value_t = 3, value_name = "N")]
    rounds: usize,
    /// Seconds in which nothing happens, after each start
    #[arg(long, default_value_t = 10, value_name = "N",
          value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Seconds before that, in which it comes to rest
    #[arg(long, default_value_t = 6, value_name = "N")]
    settling: u64,
}

/// How long after its start an instance is left alone first.
#[derive(Clone, Copy, Debug)]
struct Rests {
    /// It keeps a snapshot of what has proved itself, and gives memory back.
    settling: Duration,
    /// Nothing happens.
    measured: Duration,
}

/// What a figure is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quantity {
    /// Proportional set size, in KiB.
    SupervisorMemory,
    WorkerMemory,
    /// Threads.
    SupervisorThreads,
    WorkerThreads,
    /// Memory of all maps as the kernel says it, in KiB.
    Maps,
    /// Processor time at rest, in per cent of one processor.
    SupervisorTime,
    WorkerTime,
}

type Figures = Rounds<(Size, Quantity)>;

/// Measures.
pub fn measure(lab: &Lab, arguments: &Arguments) -> anyhow::Result<Section> {
    let mut figures = Figures::default();
    let rests = Rests {
        settling: Duration::from_secs(arguments.settling),
        measured: Duration::from_secs(arguments.seconds),
    };
    for _ in 0..arguments.rounds {
        for size in arguments.sizes.iter().copied() {
            round(lab, size, rests, &mut figures)?;
        }
    }
    Ok(section(&figures, arguments))
}

fn round(lab: &Lab, size: Size, rests: Rests, figures: &mut Figures) -> anyhow::Result<()> {
    let mut supervisor = lab.supervisor(&size.write(lab)?).start()?;
    let worker = settled(&mut supervisor, size)?;
    std::thread::sleep(rests.settling);
    let processes = [supervisor.pid(), worker];
    let (begin, before) = (Instant::now(), processes.map(processor_time));
    std::thread::sleep(rests.measured);
    let (took, after) = (begin.elapsed(), processes.map(processor_time));
    for ((quantity, before), after) in
        [Quantity::SupervisorTime, Quantity::WorkerTime].into_iter().zip(before).zip(after)
    {
        let used = after?.saturating_sub(before?);
        figures.add((size, quantity), used.as_secs_f64() / took.as_secs_f64() * 100.0);
    }
    let status = supervisor.status()?;
    ensure!(status.worker.pid == worker, "another worker has taken over at rest: {status:?}");
    let memory = [Quantity::SupervisorMemory, Quantity::WorkerMemory];
    let threads = [Quantity::SupervisorThreads, Quantity::WorkerThreads];
    for ((pid, memory), threads) in processes.into_iter().zip(memory).zip(threads) {
        let bytes = process::proportional_bytes(pid)?;
        figures.add((size, memory), bytes as f64 / KIB);
        figures.add((size, threads), process::threads(pid)? as f64);
    }
    let maps = estate::pinned(&lab.bpffs())?;
    let bytes = maps.iter().map(map_bytes).sum::<anyhow::Result<u64>>()?;
    figures.add((size, Quantity::Maps), bytes as f64 / KIB);
    supervisor.end(nix::sys::signal::Signal::SIGTERM)?;
    Ok(())
}

/// Waits until the configuration is in force, and gives the worker.
fn settled(supervisor: &mut Supervisor, size: Size) -> anyhow::Result<u32> {
    let is_in_force = |status: &Status| {
        status.config.state == ConfigState::InForce && status.services == size.services
    };
    Ok(supervisor.wait_until("the configuration to be in force", is_in_force)?.worker.pid)
}

/// What a process has used of the processors so far: the kernel counts it in nanoseconds.
fn processor_time(pid: u32) -> anyhow::Result<Duration> {
    let mut all = Duration::ZERO;
    for task in fs::read_dir(format!("/proc/{pid}/task")).context("cannot list threads")? {
        let path = task.context("cannot list threads")?.path().join("schedstat");
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let first = text.split(' ').next().and_then(|word| word.parse().ok());
        all += Duration::from_nanos(first.context("the kernel keeps no schedstat")?);
    }
    Ok(all)
}

/// What the kernel has allocated for a map.
fn map_bytes(map: &OwnedFd) -> anyhow::Result<u64> {
    let name = object::map_info(map.as_fd())?.name;
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_raw_fd()))
        .with_context(|| format!("cannot read about {name}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("memlock:"));
    line.and_then(|value| value.trim().parse().ok())
        .with_context(|| format!("the kernel does not say the memory of {name}"))
}

fn section(figures: &Figures, arguments: &Arguments) -> Section {
    let mut section = Section::new(
        "footprint",
        "What it takes of a node",
        "Each round starts an instance of each size, waits until it is at rest, and then for some seconds \
         more. Memory is the proportional set size of the process; the memory of maps is what the kernel \
         says it has allocated for them, which does not depend on the configuration.",
    );
    let mut memory = Table::new("Memory", Unit::Kibibytes, Scale::Logarithmic);
    let mut time = Table::new("Processor time at rest", Unit::Percent, Scale::Linear);
    let mut threads = Table::new("Threads", Unit::Count, Scale::Undrawn);
    for size in arguments.sizes.iter().copied() {
        let of = |quantity| figures.summary(&(size, quantity));
        memory.measured(format!("supervisor, {size}"), of(Quantity::SupervisorMemory));
        memory.measured(format!("worker, {size}"), of(Quantity::WorkerMemory));
        memory.measured(format!("all maps, {size}"), of(Quantity::Maps));
        time.measured(format!("supervisor, {size}"), of(Quantity::SupervisorTime));
        time.measured(format!("worker, {size}"), of(Quantity::WorkerTime));
        threads.measured(format!("supervisor, {size}"), of(Quantity::SupervisorThreads));
        threads.measured(format!("worker, {size}"), of(Quantity::WorkerThreads));
        for (what, quantity, at_most) in [
            ("Supervisor", Quantity::SupervisorMemory, SUPERVISOR_KIB),
            ("Worker", Quantity::WorkerMemory, WORKER_KIB),
        ] {
            let what = format!("{what}, {size}: memory, most of all rounds");
            section.target(&what, Unit::Kibibytes, at_most, most(&of(quantity)));
        }
        let both: Vec<f64> = {
            let [one, other] = [Quantity::SupervisorTime, Quantity::WorkerTime]
                .map(|quantity| figures.of(&(size, quantity)));
            one.iter().zip(other).map(|(one, other)| one + other).collect()
        };
        let both = Summary::of(both);
        let what = format!("Supervisor and worker, {size}: processor time at rest, median");
        section.target(&what, Unit::Percent, AT_REST_PERCENT, (both.count > 0).then_some(both.p50));
        time.measured(format!("both, {size}"), both);
    }
    section.tables.extend([memory, time, threads]);
    section
}

fn most(summary: &Summary) -> Option<f64> {
    (summary.count > 0).then_some(summary.max)
}
