//! Every point of every update, and what came of it.

use std::sync::Arc;

use holdfast_lab::random::Random;
use holdfast_lab::{Lab, LabError};
use holdfast_worker::serve::tables::desired::Desired;

use crate::clients::{Clients, Names, connect};
use crate::dying::{self, End, Tamper};
use crate::estate::Estate;
use crate::figures::Figures;
use crate::handed::Handed;
use crate::loading;
use crate::mistakes::{Mistake, without_tidying};
use crate::updates::{self, Backends, Configuration, Update};
use crate::verdict::{Meaning, keys, leaks, outcome, torn};
use crate::world::World;

/// Service numbers and slots of the estate: little more than the updates need at once, so that room
/// is scarce and workers have to wait for it.
const SERVICES: u32 = 64;
const SLOTS: u32 = 1024;

/// Points between two times that what nothing refers to is made untouched again. In between, workers
/// run out of untouched room and wait for a grace period, some 20 ms each time.
const RENEWAL_POINTS: usize = 16;

/// One in so many deaths is followed by that of the successor.
const SECOND_DEATHS: u64 = 3;

/// One in so many takeovers is by a worker in a process of its own, which takes some 50 ms.
const PROCESSES: u64 = 48;

/// Words after which a successor dies at the latest; its repair may be shorter.
const REPAIR_WORDS: u64 = 96;

/// What is drawn at random: the same in every run.
const SEED: u64 = 3;

/// The update in which mistakes are tried: it has every kind of operation but retirement.
const MISTAKEN: &str = "change addresses";

/// The update after which nothing is left.
const REMOVAL: &str = "remove all";

/// An estate with its programs attached to the cgroup this process is in, and servers behind it.
pub struct Laboratory<'a> {
    lab: &'a Lab,
    estate: Handed,
    names: Arc<Names>,
    updates: Vec<Update>,
    _backends: Backends,
    random: Random,
    figures: Figures,
}

/// A configuration, and what the maps of a worker say that has never known another.
struct Goal<'a> {
    configuration: &'a Configuration,
    fresh: Meaning,
}

impl<'a> Goal<'a> {
    fn new(configuration: &'a Configuration) -> Self {
        let Estate { entries, descriptors, .. } = Estate::new(SERVICES, SLOTS);
        let fresh = Handed::new(entries, descriptors);
        fresh.take_over(&configuration.compiled);
        Self { configuration, fresh: Meaning::of(&fresh.observed()) }
    }

    fn desired(&self) -> &'a Desired {
        &self.configuration.compiled.desired
    }
}

/// One direction of an update.
struct Step<'a> {
    name: String,
    from: &'a Goal<'a>,
    to: &'a Goal<'a>,
    tamper: Tamper,
}

impl<'a> Laboratory<'a> {
    pub fn new(lab: &'a Lab) -> Self {
        let built = loading::load_sized(&World::new(lab), SERVICES, SLOTS).estate();
        let backends = Backends::start();
        Self {
            lab,
            estate: Handed::new(built.entries, built.descriptors),
            names: Arc::new(Names::new(&backends)),
            updates: updates::all(&backends),
            _backends: backends,
            random: Random::new(SEED),
            figures: Figures::default(),
        }
    }

    /// Kills a writer at every point of every update, there and back, while clients connect.
    pub fn try_every_point(mut self) -> Result<Figures, LabError> {
        let updates = std::mem::take(&mut self.updates);
        self.estate.take_over(&updates[0].from.compiled);
        let desired = |of: &Configuration| of.compiled.desired.clone();
        let (from, to) = (desired(&updates[0].from), desired(&updates[0].to));
        let clients = Clients::start(&self.names, &from, &to);
        for update in &updates {
            clients.expect(&desired(&update.from), &desired(&update.to));
            let (from, to) = (Goal::new(&update.from), Goal::new(&update.to));
            let name = |way| format!("{}, {way}", update.name);
            let tamper = dying::right;
            self.attempt(&Step { name: name("there"), from: &from, to: &to, tamper })?;
            self.attempt(&Step { name: name("back"), from: &to, to: &from, tamper })?;
            self.settle(&from);
        }
        let tally = clients.finish();
        self.figures.connections = tally.connections;
        self.figures.troubled += self.figures.note(tally.wrong, "clients");
        Ok(self.figures)
    }

    /// Kills a writer that makes `mistake` at every point of an update.
    pub fn try_mistake(&mut self, mistake: Mistake) -> Result<Figures, LabError> {
        let updates = std::mem::take(&mut self.updates);
        let update = updates.iter().find(|it| it.name == MISTAKEN).expect("one of them");
        let (from, to) = (Goal::new(&update.from), Goal::new(&update.to));
        let (name, tamper) = (format!("{mistake:?}"), mistake.tamper());
        self.attempt(&Step { name, from: &from, to: &to, tamper })?;
        self.updates = updates;
        Ok(std::mem::take(&mut self.figures))
    }

    /// What a writer leaves over that removes every service and does not tidy up: whether the maps
    /// still say what fresh ones say, and the leaks.
    pub fn try_untidy(&mut self) -> (bool, Vec<String>) {
        let updates = std::mem::take(&mut self.updates);
        let update = updates.iter().find(|it| it.name == REMOVAL).expect("one of them");
        let (from, to) = (Goal::new(&update.from), Goal::new(&update.to));
        self.settle(&from);
        let end = dying::write(&self.estate, to.desired(), usize::MAX, without_tidying);
        assert_eq!(end, End::Finished);
        (Meaning::of(&self.estate.observed()) == to.fresh, leaks(&self.estate))
    }

    /// Kills a writer at every point of a step.
    fn attempt(&mut self, step: &Step<'_>) -> Result<(), LabError> {
        let (from, to) = (step.from, step.to);
        self.settle(from);
        let (plan, _) = dying::planned(&self.estate, to.desired());
        let last = dying::words(&plan.operations, to.desired());
        for words in 0..=last {
            let at = format!("{}, {words} of {last} words", step.name);
            let end = dying::write(&self.estate, to.desired(), words, step.tamper);
            assert_eq!(end == End::Finished, words == last, "{at}: {end:?}");
            *self.figures.points.entry(step.name.clone()).or_default() += 1;
            self.look(&at, step);
            if self.random.below(SECOND_DEATHS) == 0 {
                self.kill_successor(&at, step);
            }
            // A successor finds the new configuration on disk, or the old one again.
            self.succeed(&at, if words % 2 == 0 { to } else { from })?;
            self.settle(from);
            if words % RENEWAL_POINTS == 0 {
                self.estate.renew();
            }
        }
        Ok(())
    }

    fn kill_successor(&mut self, at: &str, step: &Step<'_>) {
        let goal = if self.random.below(2) == 0 { step.from } else { step.to };
        let words = usize::try_from(self.random.below(REPAIR_WORDS)).expect("few");
        let end = dying::write(&self.estate, goal.desired(), words, dying::right);
        self.figures.second_deaths += u64::from(end == End::Killed);
        // What a wrong writer has torn stays torn until somebody has repaired all of it.
        if step.tamper as usize == dying::right as Tamper as usize {
            self.look(&format!("{at}, then {words}"), step);
        }
    }

    /// Looks at what a dead writer has left, in the maps and by connecting to every address.
    fn look(&mut self, at: &str, step: &Step<'_>) {
        let (from, to) = (step.from.desired(), step.to.desired());
        let observed = self.estate.observed();
        let found = torn(&observed, from, to);
        self.figures.torn += self.figures.note(found, at);
        for key in keys(from, to) {
            let reply = connect(&self.names, &key);
            self.figures.probes += 1;
            if !self.names.expected(&key, &outcome(&observed, &key)).contains(&reply) {
                let trouble = vec![format!("{key:?}: {reply:?}")];
                self.figures.troubled += self.figures.note(trouble, at);
            }
        }
    }

    /// The next worker takes over; the maps have to say then what fresh ones say.
    fn succeed(&mut self, at: &str, goal: &Goal<'_>) -> Result<(), LabError> {
        if self.random.below(PROCESSES) == 0 {
            let path = self.lab.write("holdfast.yaml", &goal.configuration.text)?;
            self.estate.take_over_by_process(&path);
            self.figures.processes += 1;
        } else {
            self.take_over(goal);
        }
        assert_eq!(Meaning::of(&self.estate.observed()), goal.fresh, "{at}");
        let found = leaks(&self.estate);
        self.figures.leaks += self.figures.note(found, at);
        Ok(())
    }

    /// Puts `goal` in force, unless it is.
    fn settle(&mut self, goal: &Goal<'_>) {
        if Meaning::of(&self.estate.observed()) != goal.fresh {
            self.take_over(goal);
        }
    }

    fn take_over(&mut self, goal: &Goal<'_>) {
        self.figures.rests += self.estate.take_over(&goal.configuration.compiled) as u64;
    }
}
