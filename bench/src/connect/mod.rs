//! What governance costs a connection: the run time of each program, and the time of `connect(2)`.
//!
//! One thread connects to itself from cgroups by turns: one without a program, one with an empty
//! program, and the governed one; there to an address that is no service's, to one service, and to
//! many services by turns. Each round visits all three, beginning with another one each time, so that
//! whatever else the machine does hits all; figures are compared within a round. `connect(2)` is timed
//! while the kernel keeps no statistics of programs, and the programs while it does; what the
//! statistics cost shows in the empty program.
//!
//! - [`case`]: what is connected to what.
//! - [`backend`]: connections of one thread to itself.
//! - [`kernel`]: statistics, and the empty program.
//! - [`series`]: figures, and the rows they come to.

mod backend;
mod case;
mod kernel;
mod series;

use std::fs;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use holdfast_bpf::object;
use holdfast_lab::{Lab, Supervisor, cgroup};
use holdfast_protocol::control::Status;
use holdfast_protocol::handover::ConfigState;
use holdfast_protocol::manifest::Kind;
use serde::Serialize;

use self::backend::Backends;
use self::case::{Case, Family};
use self::kernel::{Empty, Runs};
use self::series::{Between, ConnectRow, Measured, Quantity, RunRow};
use crate::place::beside;
use crate::spread::Spread;

/// What the empty program is called in a table.
const EMPTY: &str = "(empty)";

/// Measure what governance costs a connection.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Sizes to measure: this many services, each of TCP and UDP, IPv4 and IPv6
    #[arg(long, value_delimiter = ',', default_values_t = [1, 1000, 10_000], value_name = "N,…",
          value_parser = clap::value_parser!(u32).range(1..=16_384))]
    services: Vec<u32>,
    /// Rounds of each size
    #[arg(long, default_value_t = 100, value_name = "N")]
    rounds: usize,
    /// Connections of each kind in a round
    #[arg(long, default_value_t = 100, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Where to write the result as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Serialize)]
struct Report {
    rounds: usize,
    connections: u32,
    runs: Vec<RunRow>,
    connects: Vec<ConnectRow>,
}

/// A cgroup to connect from, and the programs that run there.
struct Place {
    cgroup: PathBuf,
    programs: Vec<(String, OwnedFd)>,
    /// What is between, and whether services are connected to.
    between: Vec<Between>,
}

/// Measures, and prints what was found.
pub fn run(lab: &Lab, arguments: &Arguments) -> anyhow::Result<()> {
    let backends = Backends::start()?;
    let (nothing, (empty, _held)) = (nothing(lab)?, empty(lab)?);
    let mut report = Report {
        rounds: arguments.rounds,
        connections: arguments.connections,
        runs: Vec::new(),
        connects: Vec::new(),
    };
    let mut places = vec![nothing, empty];
    for services in arguments.services.iter().copied() {
        let (supervisor, governed) = governed(lab, services)?;
        places.push(governed);
        let scene = Scene { backends: &backends, services, connections: arguments.connections };
        let measured = measure(&scene, &places, arguments.rounds)?;
        places.pop();
        cgroup::enter(&lab.governed())?;
        supervisor.end(nix::sys::signal::Signal::SIGTERM)?;
        report.runs.extend(measured.runs(services));
        report.connects.extend(measured.connects(services));
    }
    show(&report, arguments.json.as_deref())
}

/// Prints the tables, and the report where it is wanted.
fn show(report: &Report, json: Option<&Path>) -> anyhow::Result<()> {
    println!("medians of rounds [p10 p90], differences and ratios within each round\n");
    println!("{}", RunRow::head());
    report.runs.iter().for_each(|row| println!("{}", row.line()));
    println!("\n{}", ConnectRow::head());
    report.connects.iter().for_each(|row| println!("{}", row.line()));
    let text = serde_json::to_string(report).context("cannot write the report")?;
    if let Some(path) = json {
        return fs::write(path, text)
            .with_context(|| format!("cannot write the report to {}", path.display()));
    }
    println!("{text}");
    Ok(())
}

/// A cgroup without a program, beside the governed one.
fn nothing(lab: &Lab) -> anyhow::Result<Place> {
    let cgroup = beside(lab, "nothing")?;
    Ok(Place { cgroup, programs: Vec::new(), between: vec![Between::Nothing] })
}

/// One with an empty program for each family, as long as these are held.
fn empty(lab: &Lab) -> anyhow::Result<(Place, [Empty; 2])> {
    let cgroup = beside(lab, "empty")?;
    let empties = [Empty::attach(&cgroup, Family::V4)?, Empty::attach(&cgroup, Family::V6)?];
    let program = |empty: &Empty| -> anyhow::Result<(String, OwnedFd)> {
        Ok((EMPTY.to_owned(), empty.program.try_clone().context("cannot copy a descriptor")?))
    };
    let programs = empties.iter().map(program).collect::<Result<_, _>>()?;
    Ok((Place { cgroup, programs, between: vec![Between::Empty] }, empties))
}

/// The governed cgroup, with this many services in force.
fn governed(lab: &Lab, services: u32) -> anyhow::Result<(Supervisor, Place)> {
    let file = lab.write("holdfast.yaml", case::configuration(services))?;
    let mut supervisor = lab.supervisor(&file).start()?;
    let is_in_force = |status: &Status| {
        status.config.state == ConfigState::InForce && status.services >= services
    };
    let status = supervisor.wait_until("the services to be in force", is_in_force)?;
    let program = |link: &holdfast_protocol::control::LinkStatus| -> anyhow::Result<_> {
        Ok((link.name.clone(), object::by_id(Kind::Program, link.prog_id)?))
    };
    let programs = status.links.iter().map(program).collect::<Result<_, _>>()?;
    let between = vec![Between::Untouched, Between::Governed, Between::Turns];
    Ok((supervisor, Place { cgroup: lab.governed(), programs, between }))
}

fn measure(scene: &Scene<'_>, places: &[Place], rounds: usize) -> anyhow::Result<Measured> {
    let mut measured = Measured::default();
    // The first round warms up, and sees that all is as it should be.
    visit_all(scene, places, 0, &mut Measured::default())?;
    scene.check(places)?;
    for round in 0..rounds {
        visit_all(scene, places, round, &mut measured)?;
    }
    Ok(measured)
}

fn visit_all(
    scene: &Scene<'_>,
    places: &[Place],
    round: usize,
    measured: &mut Measured,
) -> anyhow::Result<()> {
    for turn in 0..places.len() {
        let place = &places[(round + turn) % places.len()];
        cgroup::enter(&place.cgroup)?;
        for case in Case::ALL {
            for between in place.between.iter().copied() {
                let median = scene.connect(case, between)?;
                measured.add(case, between, Quantity::Connect, median);
            }
        }
        if !place.programs.is_empty() {
            let _statistics = kernel::enable_statistics()?;
            scene.watch_runs(place, measured)?;
        }
    }
    Ok(())
}

/// Who connects, to how many services.
struct Scene<'a> {
    backends: &'a Backends,
    services: u32,
    connections: u32,
}

impl Scene<'_> {
    /// The median time of a `connect(2)`, in nanoseconds.
    fn connect(&self, case: Case, between: Between) -> anyhow::Result<f64> {
        let mut times = Vec::new();
        for turn in 0..self.connections {
            let duration = self.backends.connect(case, self.address(case, between, turn))?;
            times.push(duration.as_secs_f64() * 1e9);
        }
        Ok(Spread::of(times).p50)
    }

    /// Adds the mean time of a run of each program that has run.
    fn watch_runs(&self, place: &Place, measured: &mut Measured) -> anyhow::Result<()> {
        let runs = || -> anyhow::Result<Vec<Runs>> {
            place.programs.iter().map(|(_, program)| Runs::of(program)).collect()
        };
        for case in Case::ALL {
            for between in place.between.iter().copied() {
                let before = runs()?;
                self.connect(case, between)?;
                for (after, (before, (name, _))) in
                    runs()?.into_iter().zip(before.into_iter().zip(&place.programs))
                {
                    let Runs { count, time_ns } = after.since(before);
                    if count >= u64::from(self.connections) {
                        let mean = time_ns as f64 / count as f64;
                        measured.add(case, between, Quantity::Run(name.clone()), mean);
                    }
                }
            }
        }
        Ok(())
    }

    fn address(&self, case: Case, between: Between, turn: u32) -> SocketAddr {
        match between {
            Between::Governed => case::frontend(case.family, self.services, 1),
            Between::Turns => case::frontend(case.family, self.services, turn),
            Between::Nothing | Between::Empty | Between::Untouched => case::backend(case.family),
        }
    }

    /// Each kind of connection gets where it should: a service that is not governed would be refused,
    /// and a program that does not run would cost nothing.
    fn check(&self, places: &[Place]) -> anyhow::Result<()> {
        let mut measured = Measured::default();
        for place in places.iter().filter(|place| !place.programs.is_empty()) {
            cgroup::enter(&place.cgroup)?;
            for case in Case::ALL {
                for between in place.between.iter().copied() {
                    self.backends.check(case, self.address(case, between, 0))?;
                }
            }
            let _statistics = kernel::enable_statistics()?;
            self.watch_runs(place, &mut measured)?;
        }
        let runs = measured.runs(self.services);
        let expected = Case::ALL.len() * 4;
        ensure!(runs.len() >= expected, "only {} of {expected} kinds have run", runs.len());
        Ok(())
    }
}
