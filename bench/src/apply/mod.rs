//! From a configuration to the kernel: a whole one, and one endpoint of it.
//!
//! - [`estate`]: the maps of an estate that nobody else writes.
//! - [`tables`]: the steps apart, in this process, on the maps of a real estate.
//! - [`live`]: from a save to the kernel, as a running worker does it.

pub mod estate;
mod live;
mod tables;

use holdfast_lab::Lab;

use crate::results::{Scale, Section, Table, Unit};
use crate::rounds::Rounds;
use crate::sized::Size;

/// The most that a cold load may take, and its writing, in milliseconds.
const WHOLE_MS: f64 = 500.0;
const WRITE_MS: f64 = 50.0;

/// The most that a changed endpoint may take from the file's event to the kernel, in milliseconds, but
/// for one in a hundred.
const CHANGE_MS: f64 = 5.0;

/// Measure how a configuration comes into the kernel.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// The size: services, and endpoints of each
    #[arg(long, default_value = "10000x10", value_name = "NxM")]
    size: Size,
    /// Whole loads
    #[arg(long, default_value_t = 20, value_name = "N")]
    loads: usize,
    /// Changes of each kind
    #[arg(long, default_value_t = 40, value_name = "N")]
    changes: usize,
}

/// A change of one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It comes.
    Added,
    /// It gets another weight.
    Reweighted,
    /// It goes.
    Removed,
}

/// All of them, in the order they are made in: each can follow the one before it.
pub const CHANGES: [Change; 3] = [Change::Added, Change::Reweighted, Change::Removed];

impl Change {
    const fn name(self) -> &'static str {
        match self {
            Self::Added => "an endpoint added",
            Self::Reweighted => "an endpoint reweighted",
            Self::Removed => "an endpoint removed",
        }
    }

    /// The watched service's last endpoint after it.
    const fn last(self) -> Option<u16> {
        match self {
            Self::Added => Some(1),
            Self::Reweighted => Some(7),
            Self::Removed => None,
        }
    }
}

/// A configuration of `size` with one service more, whose last endpoint changes.
fn text(size: Size, change: Change) -> String {
    let last = change
        .last()
        .map_or_else(String::new, |weight| format!(", {{address: 127.2.0.2, weight: {weight}}}"));
    let watched = format!(
        "  - {{name: watched, addresses: [127.99.0.1], ports: [{{name: m, port: 80, target_port: 18080}}], \
         load_balancing: {{policy: weighted}}, endpoints: [{{address: 127.2.0.1, weight: 1}}{last}]}}\n"
    );
    size.texts().concat().replacen("services:\n", &format!("services:\n{watched}"), 1)
}

/// Measures.
pub fn measure(lab: &Lab, arguments: &Arguments) -> anyhow::Result<Section> {
    let size = arguments.size;
    let live = live::measure(lab, size, arguments.changes)?;
    let tables = tables::measure(lab, size, arguments.loads)?;
    let mut section = Section::new(
        "apply",
        "A configuration on its way into the kernel",
        "The steps apart: in one process, on the maps that a loader has made, with the worker's own code; \
         loads and removals take turns. From a save to the kernel: a running worker, from the event that the \
         file is renamed to its place until the table of the service is published in the kernel's map.",
    );
    load_table(&tables, size, &mut section);
    change_tables(&tables, &live, size, &mut section);
    section.note(
        "A file that is renamed to its place is complete and read at once; after any other change a worker \
         waits for 30 ms without a further one. Of the text it parses what differs from the one before, and \
         of the maps it reads, compares and writes what that concerns: one service. The steps apart are \
         those of a worker that knows of no former text.",
    );
    Ok(section)
}

fn load_table(tables: &Rounds<tables::Step>, size: Size, section: &mut Section) {
    let mut table = Table::new(&format!("A cold load, {size}"), Unit::Milliseconds, Scale::Linear);
    for step in tables::LOAD {
        table.measured(step.name(), tables.summary(&step));
    }
    let found = |step| {
        let summary = tables.summary(&step);
        (summary.count > 0).then_some(summary.p50)
    };
    let what = format!("A cold load, {size}: parse, compile, plan and write, median");
    section.target(&what, Unit::Milliseconds, WHOLE_MS, found(tables::Step::Whole));
    let what = format!("A cold load, {size}: its writing, median");
    section.target(&what, Unit::Milliseconds, WRITE_MS, found(tables::Step::Write));
    section.tables.push(table);
}

fn change_tables(
    tables: &Rounds<tables::Step>,
    live: &live::Found,
    size: Size,
    section: &mut Section,
) {
    let mut table =
        Table::new("From a save to the kernel, of that size", Unit::Milliseconds, Scale::Linear);
    for change in CHANGES {
        table.measured(change.name(), live.times.summary(&change));
    }
    let all = CHANGES.into_iter().flat_map(|change| live.times.of(&change)).copied();
    let all = crate::results::Summary::of(all);
    let what = format!("One endpoint changed, {size}: from the save to the kernel, p99");
    let found = (all.count > 0).then_some(all.p99);
    section.target(&what, Unit::Milliseconds, CHANGE_MS, found);
    table.measured("all changes", all);
    let from_call = CHANGES.into_iter().flat_map(|change| live.from_call.of(&change)).copied();
    let from_call = crate::results::Summary::of(from_call);
    table.measured("all changes, from before the call that renames the file", from_call);
    section.tables.push(table);
    let mut table =
        Table::new("The steps of one such change, apart", Unit::Milliseconds, Scale::Linear);
    for step in tables::CHANGE {
        table.measured(step.name(), tables.summary(&step));
    }
    section.tables.push(table);
    let mut table = Table::new("Services rewritten by a change", Unit::Count, Scale::Undrawn);
    for change in CHANGES {
        table.measured(change.name(), live.rewritten.summary(&change));
    }
    let most = table.summaries().map(|summary| summary.max).reduce(f64::max);
    section.target("One endpoint changed: services rewritten", Unit::Count, 1.0, most);
    section.tables.push(table);
}

#[cfg(test)]
mod tests {
    use holdfast_config::{Sources, parse};

    use super::*;

    #[test]
    fn each_change_is_a_configuration_that_differs_in_one_service() {
        let size = Size { services: 20, endpoints: 3 };
        let endpoints = CHANGES.map(|change| {
            let config = parse(&Sources::single("x.yaml", text(size, change))).expect("valid");
            assert_eq!(config.services.len(), 21);
            config.services[0].endpoints.len()
        });
        assert_eq!(endpoints, [2, 2, 1]);
    }
}
