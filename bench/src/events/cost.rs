//! What telling costs a connection: the time of system calls, and the run time of programs.

use std::time::Instant;

use anyhow::ensure;
use holdfast_lab::cgroup;

use super::CASES;
use super::place::{Place, Telling};
use crate::connect::backend::Backends;
use crate::connect::case::{self, Case};
use crate::connect::kernel::{Runs, enable_statistics};
use crate::rounds::{Rounds, median, turns};

/// What a figure is of, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// How long `connect(2)` takes, while no statistics are kept.
    Connect,
    /// How long all of a connection takes, from its socket to both ends' `close(2)`; likewise.
    Whole,
    /// How long all programs take together that run for it, while they are.
    Programs,
}

/// Figures of each kind, one each round.
pub type Costs = Rounds<(Case, Telling, Quantity)>;

/// Visits all `places` by turns in each round, beginning with another one each time.
pub fn measure(
    backends: &Backends,
    places: &[Place],
    rounds: usize,
    connections: u32,
) -> anyhow::Result<Costs> {
    let visitor = Visitor { backends, connections };
    // The first round warms up, and sees that all is as it should be.
    for place in places {
        let told = |place: &Place| place.control().told;
        let before = told(place);
        visitor.visit(place, &mut Costs::default())?;
        let (telling, told) = (place.telling, told(place) - before);
        let is_told = telling != Telling::Nobody;
        ensure!(is_told == (told > 0), "{}: {told} events were told", telling.name());
    }
    let mut costs = Costs::default();
    for round in 0..rounds {
        for turn in turns(round, places.len()) {
            visitor.visit(&places[turn], &mut costs)?;
        }
    }
    for place in places {
        let lost = place.control().lost;
        ensure!(
            lost == 0,
            "{}: {lost} events were lost, whose cost is another",
            place.telling.name()
        );
    }
    Ok(costs)
}

struct Visitor<'a> {
    backends: &'a Backends,
    connections: u32,
}

impl Visitor<'_> {
    fn visit(&self, place: &Place, costs: &mut Costs) -> anyhow::Result<()> {
        cgroup::enter(&place.cgroup)?;
        for case in CASES {
            let (connect, whole) = self.connect(case)?;
            costs.add((case, place.telling, Quantity::Connect), connect);
            costs.add((case, place.telling, Quantity::Whole), whole);
        }
        let _statistics = enable_statistics()?;
        for case in CASES {
            let time = || {
                let runs = place.programs.iter().map(|program| Ok(Runs::of(program)?.time_ns));
                runs.sum::<anyhow::Result<u64>>()
            };
            let before = time()?;
            self.connect(case)?;
            let each = (time()? - before) as f64 / f64::from(self.connections);
            costs.add((case, place.telling, Quantity::Programs), each);
        }
        Ok(())
    }

    /// The median times of a `connect(2)` and of all of a connection, in nanoseconds.
    fn connect(&self, case: Case) -> anyhow::Result<(f64, f64)> {
        let (mut connects, mut wholes) = (Vec::new(), Vec::new());
        let to = case::frontend(case.family, 1, 0);
        for _ in 0..self.connections {
            let begin = Instant::now();
            let connect = self.backends.connect(case, to)?;
            wholes.push(begin.elapsed().as_secs_f64() * 1e9);
            connects.push(connect.as_secs_f64() * 1e9);
        }
        Ok((median(connects), median(wholes)))
    }
}
