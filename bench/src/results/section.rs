//! What one measurement says (pure).

use serde::{Deserialize, Serialize};

use super::summary::Summary;
use super::unit::Unit;

/// One measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Section {
    /// The word for it on the command line.
    pub name: String,
    /// What it is about.
    pub title: String,
    /// How it was measured.
    pub method: String,
    /// How long it took, in seconds.
    pub took_s: f64,
    /// Load average over a minute before and after: what else the machine did shows here.
    pub load: [String; 2],
    /// What should be.
    pub targets: Vec<Target>,
    /// What was found.
    pub tables: Vec<Table>,
    /// What has to be known to read it.
    pub notes: Vec<String>,
}

/// Figures of one unit that can be compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// What they are of.
    pub title: String,
    /// In what they are.
    pub unit: Unit,
    /// How they are drawn.
    pub scale: Scale,
    /// One each.
    pub rows: Vec<Row>,
}

/// How figures are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// From 0 on.
    Linear,
    /// For what differs by orders of magnitude.
    Logarithmic,
    /// Around 1, for ratios.
    AroundOne,
    /// Not at all: the figures stand for themselves.
    Undrawn,
}

/// A quantity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What it is.
    pub name: String,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What became of a quantity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was measured.
    Measured(Summary),
    /// It was not, and why.
    NotMeasured(String),
}

/// What should be, and what is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// What it is about.
    pub what: String,
    /// In what.
    pub unit: Unit,
    /// The most that it should be.
    pub at_most: f64,
    /// What it is; `None` when it was not measured.
    pub found: Option<f64>,
}

impl Section {
    /// One without anything in it.
    pub fn new(name: &str, title: &str, method: &str) -> Self {
        Self {
            name: name.to_owned(),
            title: title.to_owned(),
            method: method.to_owned(),
            took_s: 0.0,
            load: [const { String::new() }; 2],
            targets: Vec::new(),
            tables: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// One that could not be measured at all.
    pub fn not_measured(name: &str, why: &str) -> Self {
        let mut section = Self::new(name, name, "");
        let mut table = Table::new("everything", Unit::Count, Scale::Undrawn);
        table.not_measured("all of it", why);
        section.tables.push(table);
        section
    }

    /// Whether anything in it was measured.
    pub fn is_measured(&self) -> bool {
        let mut rows = self.tables.iter().flat_map(|table| &table.rows);
        rows.any(|row| matches!(row.outcome, Outcome::Measured(_)))
    }

    /// Adds what should be.
    pub fn target(&mut self, what: &str, unit: Unit, at_most: f64, found: Option<f64>) {
        self.targets.push(Target { what: what.to_owned(), unit, at_most, found });
    }

    /// Adds what has to be known.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }
}

impl Table {
    /// One without rows.
    pub fn new(title: &str, unit: Unit, scale: Scale) -> Self {
        Self { title: title.to_owned(), unit, scale, rows: Vec::new() }
    }

    /// Adds a quantity; one without figures was not measured.
    pub fn measured(&mut self, name: impl Into<String>, summary: Summary) {
        let outcome = match summary.count {
            0 => Outcome::NotMeasured("there was no round".to_owned()),
            _ => Outcome::Measured(summary),
        };
        self.rows.push(Row { name: name.into(), outcome });
    }

    /// Adds one that was not measured.
    pub fn not_measured(&mut self, name: impl Into<String>, why: impl Into<String>) {
        self.rows.push(Row { name: name.into(), outcome: Outcome::NotMeasured(why.into()) });
    }

    /// The summaries of what was measured.
    pub fn summaries(&self) -> impl Iterator<Item = &Summary> {
        self.rows.iter().filter_map(|row| match &row.outcome {
            Outcome::Measured(summary) => Some(summary),
            Outcome::NotMeasured(_) => None,
        })
    }
}

impl Target {
    /// Whether it is met; `None` when it was not measured.
    pub fn is_met(&self) -> Option<bool> {
        Some(self.found? <= self.at_most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantity_without_a_round_was_not_measured() {
        let mut table = Table::new("t", Unit::Count, Scale::Linear);
        table.measured("none", Summary::of([]));
        assert!(matches!(table.rows[0].outcome, Outcome::NotMeasured(_)));
        assert_eq!(table.summaries().count(), 0);
    }

    #[test]
    fn a_target_is_met_up_to_its_bound() {
        let target = |found| Target { what: String::new(), unit: Unit::Times, at_most: 1.2, found };
        assert_eq!(target(Some(1.2)).is_met(), Some(true));
        assert_eq!(target(Some(1.21)).is_met(), Some(false));
        assert_eq!(target(None).is_met(), None);
    }

    #[test]
    fn a_row_is_written_and_read_with_its_outcome() {
        for text in [
            r#"{"name":"a","not_measured":"no such kernel"}"#,
            r#"{"name":"b","measured":{"count":1,"min":1.0,"p10":1.0,"p50":1.0,"p90":1.0,"p99":1.0,"max":1.0,"rounds":[1.0]}}"#,
        ] {
            let row: Row = serde_json::from_str(text).expect("a row");
            assert_eq!(serde_json::to_string(&row).expect("plain data"), text);
        }
    }
}
