//! What governance costs a connection: the run time of each program, and the time of `connect(2)`.
//!
//! One thread connects to itself from cgroups by turns: one without a program, one with an empty
//! program, and one for each number of services, which an instance of its own governs; there to an
//! address that is no service's, to one service, and to many services by turns. All are there at the
//! same time and each round visits all, beginning with another one each time, so that whatever else
//! the machine does hits all; figures are compared within a round. `connect(2)` is timed while the
//! kernel keeps no statistics of programs, and the programs while it does; what the statistics cost
//! shows in the empty program.
//!
//! - [`case`]: what is connected to what.
//! - [`place`]: where from, and what lies between.
//! - [`backend`]: connections of one thread to itself.
//! - [`kernel`]: statistics, and the empty program.

mod backend;
mod case;
mod kernel;
mod place;

use std::net::SocketAddr;

use anyhow::ensure;
use holdfast_lab::{Lab, cgroup};

use self::backend::Backends;
use self::case::Case;
use self::kernel::Runs;
use self::place::{Between, Place};
use crate::results::{Scale, Section, Table, Unit};
use crate::rounds::{Rounds, median, turns};

/// The most that a connection may cost with the most services, as many times as with the fewest.
const FLAT: f64 = 1.2;

/// The most that a program may take for a connection in the plain case, in nanoseconds.
const PLAIN_NS: f64 = 150.0;

/// Measure what governance costs a connection.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Sizes to measure: this many services, each of TCP and UDP, with IPv6 up to 16384
    #[arg(long, value_delimiter = ',', default_values_t = [1, 1_000, 65_536], value_name = "N,…",
          value_parser = clap::value_parser!(u32).range(1..=65_536))]
    services: Vec<u32>,
    /// Rounds
    #[arg(long, default_value_t = 100, value_name = "N")]
    rounds: usize,
    /// Connections of each kind in a round
    #[arg(long, default_value_t = 100, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
}

/// What a figure is of, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quantity {
    /// How long `connect(2)` takes, while no statistics are kept.
    Connect,
    /// How long a run of the program takes that `connect(2)` calls, while they are.
    Program,
    /// How long all programs take together that run from `connect(2)` to both ends' `close(2)`, less
    /// what the statistics of an empty one cost for each run.
    All,
}

type Figures = Rounds<(Case, Between, Quantity)>;

/// Measures.
pub fn measure(lab: &Lab, arguments: &Arguments) -> anyhow::Result<Section> {
    let backends = Backends::start()?;
    let mut places = vec![Place::nothing(lab)?, Place::empty(lab)?];
    for services in arguments.services.iter().copied() {
        places.push(Place::governed(lab, services)?);
    }
    let scene = Scene { backends, connections: arguments.connections };
    let mut figures = Figures::default();
    // The first round warms up, and sees that all is as it should be.
    scene.visit_all(&places, 0, &mut Figures::default())?;
    scene.check(&places)?;
    for round in 0..arguments.rounds {
        scene.visit_all(&places, round, &mut figures)?;
    }
    cgroup::enter(&lab.governed())?;
    Ok(section(&figures, &arguments.services))
}

/// Who connects.
struct Scene {
    backends: Backends,
    connections: u32,
}

impl Scene {
    fn visit_all(
        &self,
        places: &[Place],
        round: usize,
        figures: &mut Figures,
    ) -> anyhow::Result<()> {
        for turn in turns(round, places.len()) {
            let place = &places[turn];
            cgroup::enter(&place.cgroup)?;
            for (case, between) in kinds(place) {
                let time = self.connect(case, between)?;
                figures.add((case, between, Quantity::Connect), time);
            }
            if !place.programs.is_empty() {
                let _statistics = kernel::enable_statistics()?;
                for (case, between) in kinds(place) {
                    self.runs(place, (case, between), figures)?;
                }
            }
        }
        Ok(())
    }

    /// The median time of a `connect(2)`, in nanoseconds.
    fn connect(&self, case: Case, between: Between) -> anyhow::Result<f64> {
        let mut times = Vec::new();
        for turn in 0..self.connections {
            let duration = self.backends.connect(case, address(case, between, turn))?;
            times.push(duration.as_secs_f64() * 1e9);
        }
        Ok(median(times))
    }

    /// Adds the mean times that the programs take for a connection, in nanoseconds.
    fn runs(
        &self,
        place: &Place,
        (case, between): (Case, Between),
        figures: &mut Figures,
    ) -> anyhow::Result<()> {
        let all = || {
            let runs = place.programs.iter().map(|program| Runs::of(&program.descriptor));
            runs.collect::<anyhow::Result<Vec<Runs>>>()
        };
        let before = all()?;
        self.connect(case, between)?;
        let (mut own, mut together) = (Runs::default(), Runs::default());
        for ((after, before), program) in all()?.into_iter().zip(before).zip(&place.programs) {
            let runs = after.since(before);
            together = together.and(runs);
            own = if program.is_of_connect { own.and(runs) } else { own };
        }
        ensure!(
            own.count == u64::from(self.connections),
            "{} {}: the program ran {} times in {} connections",
            case.name(),
            between.name(),
            own.count,
            self.connections
        );
        let each = |runs: Runs| runs.time_ns as f64 / f64::from(self.connections);
        figures.add((case, between, Quantity::Program), each(own));
        // The statistics cost each run as much as a run of the empty program, whose turn may come later
        // in the round: the round before then.
        let empty = figures.of(&(case, Between::Empty, Quantity::Program)).last().copied();
        let runs = together.count as f64 / f64::from(self.connections);
        if let Some(empty) = empty {
            figures.add((case, between, Quantity::All), each(together) - runs * empty);
        }
        Ok(())
    }

    /// Each kind of connection gets where it should: a service that is not governed would be refused.
    fn check(&self, places: &[Place]) -> anyhow::Result<()> {
        for place in places {
            cgroup::enter(&place.cgroup)?;
            for (case, between) in kinds(place) {
                self.backends.check(case, address(case, between, 0))?;
            }
        }
        Ok(())
    }
}

/// What is measured at a place.
fn kinds(place: &Place) -> impl Iterator<Item = (Case, Between)> {
    place.between.iter().flat_map(|between| {
        let services = match *between {
            Between::Nothing | Between::Empty => 1,
            Between::Untouched(services)
            | Between::Governed(services)
            | Between::Turns(services) => services,
        };
        case::cases(services).map(|case| (case, *between))
    })
}

fn address(case: Case, between: Between, turn: u32) -> SocketAddr {
    match between {
        Between::Governed(services) => case::frontend(case.family, services, 1),
        Between::Turns(services) => case::frontend(case.family, services, turn),
        Between::Nothing | Between::Empty | Between::Untouched(_) => case::backend(case.family),
    }
}

fn section(figures: &Figures, services: &[u32]) -> Section {
    let mut section = Section::new(
        "connect",
        "What a connection costs",
        "One thread connects fresh sockets to itself, from cgroups without a program, with an empty \
         one, and with an instance for each number of services, all there at once. A figure is the \
         median of a hundred connections in a round; a program's is what the kernel's statistics say, \
         less what they say of an empty program.",
    );
    let tables = [runs, all, connects];
    let all = tables.into_iter().flat_map(|of| Case::ALL.map(|case| of(figures, case, services)));
    section.tables.extend(all);
    growth(figures, services, &mut section);
    section.note(
        "Client and server are in the same cgroup, so the programs that follow a socket run for both ends.",
    );
    section.note(
        "With the most services there is no room for IPv6 in the largest file that is read, so their \
         rows are IPv4's only.",
    );
    section
}

/// Of every number of services, what is measured with it.
fn governed(services: &[u32]) -> impl Iterator<Item = Between> {
    let first = services.first().map(|count| Between::Untouched(*count));
    first.into_iter().chain(services.iter().flat_map(|count| {
        let by_turns = (*count > 1).then_some(Between::Turns(*count));
        std::iter::once(Between::Governed(*count)).chain(by_turns)
    }))
}

fn runs(figures: &Figures, case: Case, services: &[u32]) -> Table {
    let title = format!("{}: run time of the connect program, above an empty one", case.name());
    let mut table = Table::new(&title, Unit::Nanoseconds, Scale::Linear);
    let base = (case, Between::Empty, Quantity::Program);
    for between in governed(services) {
        let kind = (case, between, Quantity::Program);
        if !figures.of(&kind).is_empty() {
            table.measured(between.name(), figures.difference(&kind, &base));
        }
    }
    table.measured("an empty program, statistics included", figures.summary(&base));
    table
}

fn all(figures: &Figures, case: Case, services: &[u32]) -> Table {
    let title =
        format!("{}: run time of all programs, from connect(2) to both close(2)", case.name());
    let mut table = Table::new(&title, Unit::Nanoseconds, Scale::Linear);
    for between in governed(services) {
        let kind = (case, between, Quantity::All);
        if !figures.of(&kind).is_empty() {
            table.measured(between.name(), figures.summary(&kind));
        }
    }
    table
}

fn connects(figures: &Figures, case: Case, services: &[u32]) -> Table {
    let title = format!("{}: connect(2), times one with nothing between", case.name());
    let mut table = Table::new(&title, Unit::Times, Scale::AroundOne);
    let base = (case, Between::Nothing, Quantity::Connect);
    for between in std::iter::once(Between::Empty).chain(governed(services)) {
        let kind = (case, between, Quantity::Connect);
        if !figures.of(&kind).is_empty() {
            table.measured(between.name(), figures.ratio(&kind, &base));
        }
    }
    table
}

/// How much more a connection costs with the most services than with the fewest, and what it takes
/// in absolute terms.
fn growth(figures: &Figures, services: &[u32], section: &mut Section) {
    let mut absolute = Table::new("connect(2), IPv4", Unit::Nanoseconds, Scale::Linear);
    let mut ratios =
        Table::new("With the most services, times with the fewest", Unit::Times, Scale::AroundOne);
    for case in case::cases(u32::MAX) {
        let kind = |between| (case, between, Quantity::Connect);
        for between in [Between::Nothing, Between::Empty].into_iter().chain(governed(services)) {
            let name = format!("{}: {}", case.name(), between.name());
            absolute.measured(name, figures.summary(&kind(between)));
        }
        let (Some(fewest), Some(most)) = (services.iter().min(), services.iter().max()) else {
            continue;
        };
        let plain = (case, Between::Governed(*fewest), Quantity::Program);
        let above = figures.difference(&plain, &(case, Between::Empty, Quantity::Program));
        let what = format!("{}: run time of the connect program, {}", case.name(), plain.1.name());
        section.target(&what, Unit::Nanoseconds, PLAIN_NS, (above.count > 0).then_some(above.p50));
        if fewest == most {
            continue;
        }
        for (quantity, of) in
            [(Quantity::Connect, "connect(2)"), (Quantity::Program, "its program")]
        {
            for (between, how) in [
                (Between::Governed(*most), "always the same service"),
                (Between::Turns(*most), "another service each time"),
            ] {
                let name = format!("{}, {of}, {how}", case.name());
                let base = (case, Between::Governed(*fewest), quantity);
                let ratio = figures.ratio(&(case, between, quantity), &base);
                let what = format!("Growth from {fewest} to {most} services: {name}");
                section.target(&what, Unit::Times, FLAT, (ratio.count > 0).then_some(ratio.p50));
                ratios.measured(name, ratio);
            }
        }
    }
    section.tables.extend([ratios, absolute]);
}
