//! What it costs to tell of connections, and how many a second can be told of.
//!
//! An event costs the connection it is of, in the kernel, and nobody else waits for anything: what is
//! told waits in a buffer until a worker has written its line. So there are two questions: what a
//! connection pays, and at how many connections a second the buffer runs full. The second is asked by
//! climbing: clients open connections at one rate after another, each above the one before, until an
//! event is lost or the clients can do no more. Beside it stands what is lost when no worker reads.
//!
//! - [`place`]: instances of which nothing, the access log, or a follower is told.
//! - [`cost`]: what that costs a connection.
//! - [`load`]: clients that open connections at a rate.
//! - [`climb`]: up to the rate at which an event is lost.
//! - [`tables`]: what was measured, as tables (pure).

mod climb;
mod cost;
mod load;
mod place;
mod tables;

use std::time::Duration;

use holdfast_lab::{Lab, cgroup};

use self::climb::Climber;
use self::place::{Place, Telling};
use crate::connect::backend::Backends;
use crate::connect::case::{Case, Family, Transport};
use crate::results::Section;

/// What is connected: IPv6 is told of in the same way.
const CASES: [Case; 2] = [Case { transport: Transport::Tcp, family: Family::V4 }, FASTEST];

/// What most connections a second can be opened of.
const FASTEST: Case = Case { transport: Transport::Udp, family: Family::V4 };

/// Measure what telling of connections costs, and how many a second can be told of.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Rounds in which connections are timed
    #[arg(long, default_value_t = 100, value_name = "N")]
    rounds: usize,
    /// Connections of each kind in a round
    #[arg(long, default_value_t = 100, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Climbs of each kind to the rate at which an event is lost
    #[arg(long, default_value_t = 3, value_name = "N")]
    climbs: usize,
    /// Milliseconds at each rate
    #[arg(long, default_value_t = 1_000, value_name = "N",
          value_parser = clap::value_parser!(u64).range(1..))]
    step: u64,
}

/// Measures.
pub fn measure(lab: &Lab, arguments: &Arguments) -> anyhow::Result<Section> {
    let log = place::memory(lab)?;
    // Outside every governed cgroup: only the client's end of a connection is told of.
    let backends = Backends::start()?;
    let places = Telling::ALL
        .into_iter()
        .map(|telling| Place::start(lab, telling, &log))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let costs = cost::measure(&backends, &places, arguments.rounds, arguments.connections)?;
    // Only the one with the access log stays, to have the machine to itself.
    let logged = places.into_iter().find(|place| place.telling == Telling::Log);
    let mut climber = Climber {
        backends: &backends,
        place: logged.expect("it is one of all"),
        step: Duration::from_millis(arguments.step),
    };
    let (mut ascents, mut rooms) = (Vec::new(), Vec::new());
    for _ in 0..arguments.climbs {
        for case in CASES {
            ascents.push((case, climber.climb(case)?));
        }
        rooms.push(climber.room(lab, FASTEST)?);
    }
    cgroup::enter(&lab.governed())?;
    Ok(tables::section(&costs, &ascents, &rooms))
}
