//! What was measured, round by round, and the rows it comes to (pure).

use serde::Serialize;

use super::case::Case;
use crate::spread::Spread;

/// What lies between the client and the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Between {
    /// Nothing: a cgroup without a program.
    Nothing,
    /// A program that does nothing.
    Empty,
    /// Holdfast, and the address is not a service's.
    Untouched,
    /// Holdfast, and the address is that of one of its services, always the same.
    Governed,
    /// Holdfast, and each connection is to another of a hundred services or more: in no cache is
    /// anything that was read for the one before.
    Turns,
}

/// What a figure is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// How long `connect(2)` takes, while no statistics are kept.
    Connect,
    /// How long a run of the program of this name takes, while they are.
    Run(String),
}

/// The figures of one kind, in nanoseconds, one each round.
#[derive(Clone, Debug)]
pub struct Series {
    case: Case,
    between: Between,
    quantity: Quantity,
    figures: Vec<f64>,
}

/// All figures for one number of services.
#[derive(Clone, Debug, Default)]
pub struct Measured(Vec<Series>);

/// How long a run of a program takes.
#[derive(Debug, Serialize)]
pub struct RunRow {
    services: u32,
    #[serde(flatten)]
    case: Case,
    between: Between,
    program: String,
    /// With what the statistics themselves cost, in nanoseconds.
    run_ns: Spread,
    /// What it is more than a run of an empty program in the same round.
    above_empty_ns: Spread,
}

/// How long `connect(2)` takes.
#[derive(Debug, Serialize)]
pub struct ConnectRow {
    services: u32,
    #[serde(flatten)]
    case: Case,
    between: Between,
    connect_ns: Spread,
    /// What it is more than with nothing between in the same round.
    above_nothing_ns: Spread,
    /// How many times as much.
    ratio: Spread,
}

impl Measured {
    /// Adds the figure of a round.
    pub fn add(&mut self, case: Case, between: Between, quantity: Quantity, figure: f64) {
        let is_it = |series: &&mut Series| {
            (series.case, series.between) == (case, between) && series.quantity == quantity
        };
        match self.0.iter_mut().find(is_it) {
            Some(series) => series.figures.push(figure),
            None => self.0.push(Series { case, between, quantity, figures: vec![figure] }),
        }
    }

    /// What a run of each program takes.
    pub fn runs(&self, services: u32) -> Vec<RunRow> {
        let row = |series: &Series| {
            let Quantity::Run(program) = &series.quantity else { return None };
            let empty = self
                .of(series.case, Between::Empty, |quantity| matches!(quantity, Quantity::Run(_)));
            Some(RunRow {
                services,
                case: series.case,
                between: series.between,
                program: program.clone(),
                run_ns: Spread::of(series.figures.iter().copied()),
                above_empty_ns: Spread::of_differences(&series.figures, empty),
            })
        };
        self.0.iter().filter_map(row).collect()
    }

    /// What `connect(2)` takes.
    pub fn connects(&self, services: u32) -> Vec<ConnectRow> {
        let row = |series: &Series| {
            let is_connect = |quantity: &Quantity| *quantity == Quantity::Connect;
            let nothing = self.of(series.case, Between::Nothing, is_connect);
            is_connect(&series.quantity).then(|| ConnectRow {
                services,
                case: series.case,
                between: series.between,
                connect_ns: Spread::of(series.figures.iter().copied()),
                above_nothing_ns: Spread::of_differences(&series.figures, nothing),
                ratio: Spread::of_ratios(&series.figures, nothing),
            })
        };
        self.0.iter().filter_map(row).collect()
    }

    fn of(&self, case: Case, between: Between, wanted: impl Fn(&Quantity) -> bool) -> &[f64] {
        let is_it = |series: &&Series| {
            (series.case, series.between) == (case, between) && wanted(&series.quantity)
        };
        self.0.iter().find(is_it).map_or(&[], |series| &series.figures)
    }
}

impl RunRow {
    /// The head of the table.
    pub fn head() -> String {
        format!(
            "{:<8} {:<7} {:<10} {:<16} {:>26} {:>26}",
            "services", "case", "between", "program", "ns a run", "above an empty one"
        )
    }

    /// A line of it.
    pub fn line(&self) -> String {
        let between = format!("{:?}", self.between).to_lowercase();
        format!(
            "{:<8} {:<7} {between:<10} {:<16} {:>26} {:>26}",
            self.services,
            self.case.name(),
            self.program,
            self.run_ns.cell(0),
            self.above_empty_ns.cell(0)
        )
    }
}

impl ConnectRow {
    /// The head of the table.
    pub fn head() -> String {
        format!(
            "{:<8} {:<7} {:<10} {:>26} {:>26} {:>26}",
            "services", "case", "between", "ns of connect(2)", "above nothing", "times nothing"
        )
    }

    /// A line of it.
    pub fn line(&self) -> String {
        let between = format!("{:?}", self.between).to_lowercase();
        format!(
            "{:<8} {:<7} {between:<10} {:>26} {:>26} {:>26}",
            self.services,
            self.case.name(),
            self.connect_ns.cell(0),
            self.above_nothing_ns.cell(0),
            self.ratio.cell(3)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_compared_with_their_base_in_the_same_round() {
        let mut measured = Measured::default();
        let case = Case::ALL[0];
        for noise in [0.0, 1000.0, 500.0] {
            let run = |name: &str| Quantity::Run(name.to_owned());
            measured.add(case, Between::Empty, run("empty"), 60.0 + noise);
            measured.add(case, Between::Governed, run("ours"), 200.0 + noise);
            measured.add(case, Between::Nothing, Quantity::Connect, 1000.0 + noise);
            measured.add(case, Between::Governed, Quantity::Connect, 1150.0 + noise);
        }
        let runs = measured.runs(7);
        let ours = runs.iter().find(|row| row.program == "ours").expect("it was measured");
        assert_eq!((ours.services, ours.above_empty_ns.p50), (7, 140.0));
        assert_eq!((ours.above_empty_ns.p10, ours.above_empty_ns.p90), (140.0, 140.0));
        let connects = measured.connects(7);
        let governed = connects.iter().find(|row| row.between == Between::Governed);
        assert_eq!(governed.expect("it was measured").above_nothing_ns.p90, 150.0);
    }
}
