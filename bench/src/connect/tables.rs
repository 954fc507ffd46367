//! What was measured, as tables and targets (pure).

use super::case::{self, Case};
use super::place::Between;
use super::{Figures, Quantity};
use crate::results::{Scale, Section, Table, Unit};

/// The most that a connection may cost with the most services, as many times as with the fewest.
const FLAT: f64 = 1.2;

/// The most that a program may take for a connection in the plain case, in nanoseconds.
const PLAIN_NS: f64 = 150.0;

/// The most that it may take with access policies, limits and affinity in use, in nanoseconds.
const ASKED_NS: f64 = 250.0;

/// All of it.
pub fn section(figures: &Figures, services: &[u32]) -> Section {
    let mut section = Section::new(
        "connect",
        "What a connection costs",
        "One thread connects fresh sockets to itself, from cgroups without a program, with an empty \
         one, and with an instance for each number of services, all there at once. A figure is the \
         median of a hundred connections in a round; a program's is what the kernel's statistics say, \
         less what they say of an empty program.",
    );
    let tables = [runs, all, connects];
    let all = tables.into_iter().flat_map(|of| Case::ALL.map(|case| of(figures, case, services)));
    section.tables.extend(all);
    growth(figures, services, &mut section);
    section.note(
        "Client and server are in the same cgroup, so the programs that follow a socket run for both ends.",
    );
    section.note(
        "With the most services there is no room for IPv6 in the largest file that is read, so their \
         rows are IPv4's only.",
    );
    section
}

/// Of every number of services, what is measured with it.
fn governed(services: &[u32]) -> impl Iterator<Item = Between> {
    let first = services.first().map(|count| Between::Untouched(*count));
    first.into_iter().chain([Between::Asked]).chain(services.iter().flat_map(|count| {
        let by_turns = (*count > 1).then_some(Between::Turns(*count));
        std::iter::once(Between::Governed(*count)).chain(by_turns)
    }))
}

fn runs(figures: &Figures, case: Case, services: &[u32]) -> Table {
    let title = format!("{}: run time of the connect program, above an empty one", case.name());
    let mut table = Table::new(&title, Unit::Nanoseconds, Scale::Linear);
    let base = (case, Between::Empty, Quantity::Program);
    for between in governed(services) {
        let kind = (case, between, Quantity::Program);
        if !figures.of(&kind).is_empty() {
            table.measured(between.name(), figures.difference(&kind, &base));
        }
    }
    table.measured("an empty program, statistics included", figures.summary(&base));
    table
}

fn all(figures: &Figures, case: Case, services: &[u32]) -> Table {
    let title =
        format!("{}: run time of all programs, from connect(2) to both close(2)", case.name());
    let mut table = Table::new(&title, Unit::Nanoseconds, Scale::Linear);
    for between in governed(services) {
        let kind = (case, between, Quantity::All);
        if !figures.of(&kind).is_empty() {
            table.measured(between.name(), figures.summary(&kind));
        }
    }
    table
}

fn connects(figures: &Figures, case: Case, services: &[u32]) -> Table {
    let title = format!("{}: connect(2), times one with nothing between", case.name());
    let mut table = Table::new(&title, Unit::Times, Scale::AroundOne);
    let base = (case, Between::Nothing, Quantity::Connect);
    for between in std::iter::once(Between::Empty).chain(governed(services)) {
        let kind = (case, between, Quantity::Connect);
        if !figures.of(&kind).is_empty() {
            table.measured(between.name(), figures.ratio(&kind, &base));
        }
    }
    table
}

/// How much more a connection costs with the most services than with the fewest, and what it takes
/// in absolute terms.
fn growth(figures: &Figures, services: &[u32], section: &mut Section) {
    let mut absolute = Table::new("connect(2), IPv4", Unit::Nanoseconds, Scale::Linear);
    let mut ratios =
        Table::new("With the most services, times with the fewest", Unit::Times, Scale::AroundOne);
    for case in case::cases(u32::MAX) {
        let kind = |between| (case, between, Quantity::Connect);
        for between in [Between::Nothing, Between::Empty].into_iter().chain(governed(services)) {
            let name = format!("{}: {}", case.name(), between.name());
            absolute.measured(name, figures.summary(&kind(between)));
        }
        let (Some(fewest), Some(most)) = (services.iter().min(), services.iter().max()) else {
            continue;
        };
        for (between, at_most) in
            [(Between::Governed(*fewest), PLAIN_NS), (Between::Asked, ASKED_NS)]
        {
            let runs = (case, between, Quantity::Program);
            let above = figures.difference(&runs, &(case, Between::Empty, Quantity::Program));
            let name = between.name();
            let what = format!("{}: run time of the connect program, {name}", case.name());
            let found = (above.count > 0).then_some(above.p50);
            section.target(&what, Unit::Nanoseconds, at_most, found);
        }
        if fewest == most {
            continue;
        }
        for (quantity, of) in
            [(Quantity::Connect, "connect(2)"), (Quantity::Program, "its program")]
        {
            for (between, how) in [
                (Between::Governed(*most), "always the same service"),
                (Between::Turns(*most), "another service each time"),
            ] {
                let name = format!("{}, {of}, {how}", case.name());
                let base = (case, Between::Governed(*fewest), quantity);
                let ratio = figures.ratio(&(case, between, quantity), &base);
                let what = format!("Growth from {fewest} to {most} services: {name}");
                section.target(&what, Unit::Times, FLAT, (ratio.count > 0).then_some(ratio.p50));
                ratios.measured(name, ratio);
            }
        }
    }
    section.tables.extend([ratios, absolute]);
}
