//! What was measured, as tables (pure).

use super::CASES;
use super::climb::Ascent;
use super::cost::{Costs, Quantity};
use super::place::Telling;
use crate::connect::case::Case;
use crate::results::{Scale, Section, Summary, Table, Unit};
use holdfast_lab::page::grouped;

/// All of it.
pub fn section(costs: &Costs, ascents: &[(Case, Ascent)], rooms: &[u64]) -> Section {
    let mut section = Section::new(
        "events",
        "What telling of connections costs, and how many can be told of",
        "Three instances, one of which tells nobody, one an access log in memory of every connection, and one \
         a follower (`holdfastctl trace`). One thread connects from their cgroups by turns, as in the first \
         section. Then clients, one for each processor, open and close connections at one rate after another, \
         each half as much again as the one before, until the kernel counts an event as lost or they can do no \
         more; and then once more with supervisor and worker killed.",
    );
    for case in CASES {
        section.tables.extend([runs(costs, case), ratios(costs, case)]);
    }
    section.tables.extend([absolute(costs), rates(ascents), used(ascents)]);
    section.tables.extend(alone(ascents, rooms));
    section.note(
        "Run times contain what the kernel's statistics cost for each run, which is the same whoever is told. \
         A line is written for each connection; a follower is told of three events of one.",
    );
    section.note(
        "Clients and worker share the processors: where clients leave nothing to the worker, events wait \
         longer, and no connection does.",
    );
    section
}

fn runs(costs: &Costs, case: Case) -> Table {
    let title = format!(
        "{}: run time of all programs, from connect(2) to close(2), by who is told",
        case.name()
    );
    let mut table = Table::new(&title, Unit::Nanoseconds, Scale::Linear);
    for telling in Telling::ALL {
        table.measured(telling.name(), costs.summary(&(case, telling, Quantity::Programs)));
    }
    table
}

fn ratios(costs: &Costs, case: Case) -> Table {
    let title = format!("{}: times a connection that nobody is told of", case.name());
    let mut table = Table::new(&title, Unit::Times, Scale::AroundOne);
    for (quantity, what) in [
        (Quantity::Programs, "run time of programs"),
        (Quantity::Connect, "connect(2)"),
        (Quantity::Whole, "from socket(2) to close(2)"),
    ] {
        let base = (case, Telling::Nobody, quantity);
        for telling in [Telling::Log, Telling::Follower] {
            let ratio = costs.ratio(&(case, telling, quantity), &base);
            table.measured(format!("{what}: {}", telling.name()), ratio);
        }
    }
    table
}

fn absolute(costs: &Costs) -> Table {
    let mut table = Table::new("A connection, by who is told", Unit::Nanoseconds, Scale::Linear);
    for case in CASES {
        for (quantity, what) in
            [(Quantity::Connect, "connect(2)"), (Quantity::Whole, "from socket(2) to close(2)")]
        {
            for telling in Telling::ALL {
                let name = format!("{}, {what}: {}", case.name(), telling.name());
                table.measured(name, costs.summary(&(case, telling, quantity)));
            }
        }
    }
    table
}

/// The rates up to which nothing is lost, and those at which something is.
fn rates(ascents: &[(Case, Ascent)]) -> Table {
    let title = "Connections a second, each with a line in the access log";
    let mut table = Table::new(title, Unit::PerSecond, Scale::Linear);
    for case in CASES {
        let most = Summary::of(of(ascents, case).filter_map(Ascent::most));
        let lost = Summary::of(of(ascents, case).filter_map(|ascent| ascent.lost_at));
        let name = format!("{}: the most of which no event was lost", case.name());
        table.measured(name, most.clone());
        let name = format!("{}: the first event is lost", case.name());
        if lost.count > 0 {
            table.measured(name, lost);
        } else {
            table.not_measured(name, none_lost(most.max));
        }
    }
    table
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate, for people")]
fn none_lost(most: f64) -> String {
    let most = grouped(most as u64);
    format!("none lost up to {most}/s, the most that the clients could do")
}

fn used(ascents: &[(Case, Ascent)]) -> Table {
    let title = "Of the buffer's 4 MiB, in use at the end of each rate that lost nothing";
    let mut table = Table::new(title, Unit::Percent, Scale::Linear);
    for case in CASES {
        let longest = of(ascents, case).map(|ascent| ascent.steps.len()).max().unwrap_or(0);
        for number in 0..longest {
            let steps: Vec<_> =
                of(ascents, case).filter_map(|ascent| ascent.steps.get(number)).collect();
            let wanted = steps.first().map_or(0.0, |step| step.wanted);
            let name = format!("{}, {} wanted", case.name(), Unit::PerSecond.with_name(wanted));
            table.measured(name, Summary::of(steps.iter().map(|step| step.used)));
        }
    }
    table
}

/// What is lost without a worker: how much fits, and how long that lasts.
fn alone(ascents: &[(Case, Ascent)], rooms: &[u64]) -> [Table; 2] {
    let mut room = Table::new("With supervisor and worker killed", Unit::Count, Scale::Undrawn);
    let figures = Summary::of(rooms.iter().map(|room| *room as f64));
    room.measured("events that are told before the first is lost", figures);
    let title = "How long that lasts, at the rate at which a climb ended";
    let mut time = Table::new(title, Unit::Milliseconds, Scale::Linear);
    for case in CASES {
        let summits = of(ascents, case).filter_map(Ascent::summit);
        let lasts = summits.zip(rooms).map(|(rate, room)| *room as f64 / rate * 1e3);
        time.measured(case.name(), Summary::of(lasts));
    }
    [room, time]
}

fn of(ascents: &[(Case, Ascent)], case: Case) -> impl Iterator<Item = &Ascent> {
    ascents.iter().filter(move |(of, _)| *of == case).map(|(_, ascent)| ascent)
}
