//! What was tried, and what was found.

use std::collections::BTreeMap;
use std::fmt;

/// What the points of a full run do not fall below. They are as many as the updates make planners
/// plan, so a change of either moves it; that it has become less should not go unnoticed.
const LEAST_POINTS: u64 = 1000;
/// What the clients' connections do not fall below: a fifth of those of two busy processors.
const LEAST_CONNECTIONS: u64 = 10_000;

/// Most examples that are kept of what was wrong, and most of one kind at one point.
const EXAMPLES: usize = 20;
const EXAMPLES_AT_ONCE: usize = 2;

/// What was tried and what was found.
#[derive(Debug, Default)]
pub struct Figures {
    /// Points at which a writer died, by update and direction.
    pub points: BTreeMap<String, u64>,
    /// Deaths of successors, on top.
    pub second_deaths: u64,
    /// Takeovers by a worker in a process of its own.
    pub processes: u64,
    /// How often a worker waited for a grace period.
    pub rests: u64,
    /// Connections of the clients, and those made one by one after each death.
    pub connections: u64,
    pub probes: u64,
    /// Services found neither wholly old nor wholly new.
    pub torn: u64,
    /// Connections that came to something else than they should.
    pub troubled: u64,
    /// Slots, numbers and frontends that no successor found again.
    pub leaks: u64,
    /// The first of each.
    examples: Vec<String>,
}

impl Figures {
    pub fn total(&self) -> u64 {
        self.points.values().sum()
    }

    /// Fails if anything was wrong, or if less was tried than there is to try.
    pub fn check(&self) {
        assert_eq!((self.torn, self.troubled, self.leaks), (0, 0, 0), "{self}");
        assert!(self.total() >= LEAST_POINTS, "{self}");
        assert!(self.connections >= LEAST_CONNECTIONS, "{self}");
        assert!(self.second_deaths > 0 && self.processes > 0 && self.rests > 0, "{self}");
    }

    /// Keeps some of what was `found` wrong `at` a point, and says how much it was.
    pub fn note(&mut self, found: Vec<String>, at: &str) -> u64 {
        let count = found.len() as u64;
        self.examples
            .extend(found.into_iter().take(EXAMPLES_AT_ONCE).map(|what| format!("{at}: {what}")));
        self.examples.truncate(EXAMPLES);
        count
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "crash points: {} covered in {} updates, {} successors killed as well\n\
             taken over: {} times by a process of its own, {} waits for a grace period\n\
             connections: {} by clients, {} one by one; {} troubled\n\
             torn states: {}\nleaks left: {}",
            self.total(),
            self.points.len(),
            self.second_deaths,
            self.processes,
            self.rests,
            self.connections,
            self.probes,
            self.troubled,
            self.torn,
            self.leaks
        )?;
        self.points.iter().try_for_each(|(name, points)| writeln!(f, "  {points:5} {name}"))?;
        self.examples.iter().try_for_each(|example| writeln!(f, "  {example}"))
    }
}
