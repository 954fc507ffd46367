//! What was measured, as tables (pure).

use super::mechanism::{ALL, Kind};
use super::{Event, Figures, Quantity};
use crate::results::{Scale, Section, Table, Unit};

/// All of it. `absent` are the ways that are not here, and why.
pub fn section(figures: &Figures, absent: &[(Kind, String)]) -> Section {
    let mut section = Section::new(
        "reload",
        "A new configuration or a crash, and connections that fail meanwhile",
        "Two backends, and a configuration that names the other one at each change: from the order until \
         a connection is answered by it. And from SIGKILL until a connection is answered again. Meanwhile \
         clients open connections as fast as they can. Ways take turns in each round.",
    );
    let (milliseconds, count) = (Unit::Milliseconds, Unit::Count);
    let (drawn, undrawn) = (Scale::Logarithmic, Scale::Undrawn);
    for (event, quantity, title, unit, scale) in [
        (Event::Change, Quantity::Time, "Change: until a connection meets it", milliseconds, drawn),
        (Event::Change, Quantity::Failed, "Change: failed connections of each", count, undrawn),
        (
            Event::Change,
            Quantity::Longest,
            "Change: longest connection of each",
            milliseconds,
            drawn,
        ),
        (
            Event::Crash,
            Quantity::Time,
            "Crash: until a connection is answered",
            milliseconds,
            drawn,
        ),
        (Event::Crash, Quantity::Failed, "Crash: failed connections of each", count, undrawn),
        (Event::Crash, Quantity::Longest, "Crash: longest connection of each", milliseconds, drawn),
    ] {
        let mut table = Table::new(title, unit, scale);
        for kind in ALL {
            let Some(name) = name(event, kind) else { continue };
            match absent.iter().find(|(absent, _)| *absent == kind) {
                Some((_, why)) => table.not_measured(name, why.as_str()),
                None => table.measured(name, figures.summary(&(event, kind, quantity))),
            }
        }
        section.tables.push(table);
    }
    failures(figures, &mut section);
    section.note(
        "Holdfast waits for 30 ms of quiet after a save before it reads, so that it never reads half of \
         a deployment; SIGHUP does not wait. HAProxy as master and worker is not killed: by itself it ends \
         when its worker does. A client that is refused tries again at once: how many failed says how long nobody served. What happens to connections that a former process still has is not \
         measured: a proxy cuts them when it is killed.",
    );
    section
}

/// How many connections failed, in words, and as a target where they are Holdfast's.
fn failures(figures: &Figures, section: &mut Section) {
    for (event, kind) in
        [Event::Change, Event::Crash].into_iter().flat_map(|event| ALL.map(|kind| (event, kind)))
    {
        let sum = |quantity| figures.of(&(event, kind, quantity)).iter().sum::<f64>();
        let (failed, all) = (sum(Quantity::Failed), sum(Quantity::Connections));
        let Some(name) = name(event, kind).filter(|_| all > 0.0) else { continue };
        section.note(format!("{event:?}, {name}: {failed:.0} of {all:.0} connections failed"));
        if kind.is_ours() {
            section.target(
                &format!("{event:?}, {name}: failed connections"),
                Unit::Count,
                0.0,
                Some(failed),
            );
        }
    }
}

/// How a row is called; nothing of a kind that is not measured.
fn name(event: Event, kind: Kind) -> Option<&'static str> {
    match event {
        Event::Change => Some(kind.name()),
        Event::Crash => kind.crash_name(),
    }
}
