//! What governance costs a connection: the run time of each program, and the time of `connect(2)`.
//!
//! One thread connects to itself from cgroups by turns: one without a program, one with an empty
//! program, one for each number of services, which an instance of its own governs, there to an
//! address that is no service's, to one service, and to many services by turns; and one with a service that
//! asks for limits, affinity and policies. All are there at the
//! same time and each round visits all, beginning with another one each time, so that whatever else
//! the machine does hits all; figures are compared within a round. `connect(2)` is timed while the
//! kernel keeps no statistics of programs, and the programs while it does; what the statistics cost
//! shows in the empty program.
//!
//! - [`case`]: what is connected to what.
//! - [`place`]: where from, and what lies between.
//! - [`backend`]: connections of one thread to itself.
//! - [`kernel`]: statistics, and the empty program.
//! - [`tables`]: what was measured, as tables and targets (pure).

pub mod backend;
pub mod case;
pub mod kernel;
mod place;
mod tables;

use std::net::SocketAddr;

use anyhow::ensure;
use holdfast_lab::{Lab, cgroup};

use self::backend::Backends;
use self::case::Case;
use self::kernel::Runs;
use self::place::{Between, Place};
use crate::results::Section;
use crate::rounds::{Rounds, median, turns};

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
    places.push(Place::asked(lab, &places[0])?);
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
    Ok(tables::section(&figures, &arguments.services))
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
            Between::Nothing | Between::Empty | Between::Asked => 1,
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
        Between::Asked => case::frontend(case.family, 1, 1),
        Between::Turns(services) => case::frontend(case.family, services, turn),
        Between::Nothing | Between::Empty | Between::Untouched(_) => case::backend(case.family),
    }
}
