//! A new configuration, and a crash: how long until a connection meets it, or is answered again, and what
//! connections fail meanwhile. Holdfast, and what people use instead.
//!
//! There are two backends, and a configuration that names one of them. For each change it names the other
//! one; then the order is given that makes it hold, and the time ends when the first connection is
//! answered by the other backend. Then what serves is killed. Meanwhile clients open connections as fast as they can, and every one
//! that is not answered counts. The ways take turns in each round.
//!
//! - [`mechanism`]: what orders a change where.
//! - [`clients`]: connections, each counted.
//! - [`tables`]: what was measured, as tables (pure).

mod clients;
mod mechanism;
mod tables;

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use holdfast_lab::{Attempt, Backend, Lab, Target, attempt};

use self::clients::Clients;
use self::mechanism::{ALL, Kind, Mechanism};
use crate::peers::Missing;
use crate::results::Section;
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

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// The configuration changes.
    Change,
    /// What serves is killed.
    Crash,
}

/// What a figure is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quantity {
    /// Milliseconds until the first connection meets it, or is answered again.
    Time,
    /// Connections of one event.
    Connections,
    /// Those of them that failed.
    Failed,
    /// The longest one, in milliseconds.
    Longest,
}

type Figures = Rounds<(Event, Kind, Quantity)>;

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
            let scene = Scene { lab, backend, clients: arguments.clients };
            scene.play(Event::Change, &mut mechanisms[turn], &mut figures)?;
            if mechanisms[turn].kind().crash_name().is_some() {
                scene.play(Event::Crash, &mut mechanisms[turn], &mut figures)?;
            }
        }
    }
    Ok(tables::section(&figures, &absent))
}

/// One event.
struct Scene<'a> {
    lab: &'a Lab,
    /// Who answers afterwards.
    backend: &'a Backend,
    clients: usize,
}

impl Scene<'_> {
    /// Makes it happen, and counts.
    fn play(
        &self,
        event: Event,
        mechanism: &mut Mechanism,
        figures: &mut Figures,
    ) -> anyhow::Result<()> {
        let (kind, address) = (mechanism.kind(), self.backend.v4());
        let target = Target::tcp(kind.address(), &["red", "blue"]);
        let clients = Clients::start(&target, self.clients);
        // Some connections before it: an error that has nothing to do with it would show.
        std::thread::sleep(AFTERGLOW / 3);
        let begin = match event {
            Event::Change => mechanism.order(self.lab, address),
            Event::Crash => mechanism.crash(self.lab, address),
        };
        let begin = begin.with_context(|| format!("{event:?} of {}", kind.name()))?;
        let mut failed = 0;
        let took = loop {
            match attempt(&target) {
                Attempt::Reached(name) if name == self.backend.name() => break begin.elapsed(),
                Attempt::Reached(_) => {}
                Attempt::Ungoverned(_) | Attempt::Reset(_) | Attempt::Failed(_) => failed += 1,
            }
            ensure!(begin.elapsed() < PATIENCE, "{event:?} of {}: not seen", kind.name());
            // A refusal comes at once: the processors are left to whoever is about to serve.
            std::thread::sleep(clients::REST);
        };
        std::thread::sleep(AFTERGLOW);
        let counted = clients.stop();
        mechanism.settle().with_context(|| kind.name())?;
        let mut add = |quantity, figure| figures.add((event, kind, quantity), figure);
        add(Quantity::Time, took.as_secs_f64() * 1e3);
        add(Quantity::Connections, counted.connections as f64);
        add(Quantity::Failed, (counted.failed + failed) as f64);
        add(Quantity::Longest, counted.longest.as_secs_f64() * 1e3);
        Ok(())
    }
}

/// When an order was given.
type Ordered = Instant;
