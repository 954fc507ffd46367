//! A new configuration, and the processes that come with it: how long until a connection meets it, and
//! what connections fail meanwhile. Holdfast, and what people use instead.
//!
//! There are two backends, and a configuration that names one of them. For each change it names the other
//! one; then the order is given that makes it hold, and the time ends when the first connection is
//! answered by the other backend. Meanwhile clients open connections as fast as they can, and every one
//! that is not answered counts. The ways take turns in each round.
//!
//! - [`mechanism`]: what orders a change where.
//! - [`clients`]: connections, each counted.

mod clients;
mod mechanism;

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use holdfast_lab::{Attempt, Backend, Lab, Target, attempt};

use self::clients::Clients;
use self::mechanism::{ALL, Kind, Mechanism};
use crate::peers::Missing;
use crate::results::{Scale, Section, Table, Unit};
use crate::rounds::{Rounds, turns};

/// How long a change may take to be seen.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long clients go on after a change was seen: the former process drains in that time.
const AFTERGLOW: Duration = Duration::from_millis(300);

/// Measure changes of the configuration that come with new processes.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Changes of each way
    #[arg(long, default_value_t = 15, value_name = "N")]
    rounds: usize,
    /// Clients that connect meanwhile
    #[arg(long, default_value_t = 3, value_name = "N")]
    clients: usize,
}

/// What a figure is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quantity {
    /// Milliseconds until the first connection meets it.
    Time,
    /// Connections of one change.
    Connections,
    /// Those of them that failed.
    Failed,
    /// The longest one, in milliseconds.
    Longest,
}

type Figures = Rounds<(Kind, Quantity)>;

/// Measures.
pub fn measure(lab: &Lab, arguments: &Arguments) -> anyhow::Result<Section> {
    let backends = [Backend::tcp("red")?, Backend::tcp("blue")?];
    let (mut mechanisms, mut absent) = (Vec::new(), Vec::new());
    for kind in ALL {
        match kind.find() {
            Ok(()) => mechanisms.push(Mechanism::start(lab, kind, backends[0].v4())?),
            Err(Missing(why)) => absent.push((kind, why)),
        }
    }
    let mut figures = Figures::default();
    for round in 0..arguments.rounds {
        let backend = &backends[(round + 1) % backends.len()];
        for turn in turns(round, mechanisms.len()) {
            change(lab, &mut mechanisms[turn], backend, arguments, &mut figures)?;
        }
    }
    Ok(section(&figures, &absent))
}

/// Makes one change, and counts.
fn change(
    lab: &Lab,
    mechanism: &mut Mechanism,
    to: &Backend,
    arguments: &Arguments,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let kind = mechanism.kind();
    let target = Target::tcp(kind.address(), &["red", "blue"]);
    let clients = Clients::start(&target, arguments.clients);
    // Some connections before the order: an error that has nothing to do with it would show.
    std::thread::sleep(AFTERGLOW / 3);
    let begin = mechanism.order(lab, to.v4())?;
    let mut failed = 0;
    let took = loop {
        match attempt(&target) {
            Attempt::Reached(name) if name == to.name() => break begin.elapsed(),
            Attempt::Reached(_) => {}
            Attempt::Ungoverned(_) | Attempt::Reset(_) | Attempt::Failed(_) => failed += 1,
        }
        ensure!(begin.elapsed() < PATIENCE, "{}: the change was never seen", kind.name());
    };
    std::thread::sleep(AFTERGLOW);
    let counted = clients.stop();
    mechanism.settle().with_context(|| kind.name())?;
    figures.add((kind, Quantity::Time), took.as_secs_f64() * 1e3);
    figures.add((kind, Quantity::Connections), counted.connections as f64);
    figures.add((kind, Quantity::Failed), (counted.failed + failed) as f64);
    figures.add((kind, Quantity::Longest), counted.longest.as_secs_f64() * 1e3);
    Ok(())
}

fn section(figures: &Figures, absent: &[(Kind, String)]) -> Section {
    let mut section = Section::new(
        "reload",
        "A new configuration, and connections that fail meanwhile",
        "Two backends, and a configuration that names the other one at each change: from the order until \
         a connection is answered by it, while clients open connections as fast as they can. Ways take \
         turns in each round.",
    );
    for (quantity, title, unit, scale) in [
        (
            Quantity::Time,
            "From the order to the first connection",
            Unit::Milliseconds,
            Scale::Logarithmic,
        ),
        (Quantity::Failed, "Failed connections of a change", Unit::Count, Scale::Undrawn),
        (Quantity::Connections, "All connections of a change", Unit::Count, Scale::Undrawn),
        (
            Quantity::Longest,
            "The longest connection of a change",
            Unit::Milliseconds,
            Scale::Logarithmic,
        ),
    ] {
        let mut table = Table::new(title, unit, scale);
        for kind in ALL {
            match absent.iter().find(|(absent, _)| *absent == kind) {
                Some((_, why)) => table.not_measured(kind.name(), why.as_str()),
                None => table.measured(kind.name(), figures.summary(&(kind, quantity))),
            }
        }
        section.tables.push(table);
    }
    for kind in ALL {
        let failed: f64 = figures.of(&(kind, Quantity::Failed)).iter().sum();
        let all: f64 = figures.of(&(kind, Quantity::Connections)).iter().sum();
        if all > 0.0 {
            section.note(format!("{}: {failed:.0} of {all:.0} connections failed", kind.name()));
        }
        if kind.is_ours() && all > 0.0 {
            let what = format!("{}: failed connections", kind.name());
            section.target(&what, Unit::Count, 0.0, Some(failed));
        }
    }
    section.note(
        "Holdfast waits for 30 ms of quiet after a save before it reads, so that it never reads half of \
         a deployment; SIGHUP does not wait.",
    );
    section
}

/// When an order was given.
type Ordered = Instant;
