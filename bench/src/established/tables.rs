//! What was measured, as tables and targets (pure).

use super::{Figures, PROTOCOLS, Protocol, Quantity, WAYS, Way};
use crate::peers::proxy::Kind;
use crate::results::{Scale, Section, Table, Unit};

/// How far apart direct and governed may be, in the median of paired rounds, in per cent.
const APART_PERCENT: f64 = 1.0;

/// All of it. `absent` are the proxies that are not here, and why.
pub fn section(figures: &Figures, absent: &[(Kind, String)]) -> Section {
    let mut section = Section::new(
        "established",
        "Connections that stay",
        "wrk with 8 keep-alive connections to nginx, and redis-benchmark with 8 clients and a pipeline of \
         16; a run is a round of a way. Direct, governed and direct once more take turns in every round and \
         are compared within it; the proxies, of one thread each, in every third one. In slices: one process \
         with eight connections of each kind, which uses them by turns for some milliseconds, 24 times each in \
         a round.",
    );
    for protocol in PROTOCOLS {
        compared(figures, protocol, &mut section);
        absolute(figures, protocol, absent, &mut section);
    }
    section.note(
        "The servers run on one processor and the clients on another, where there are two; a proxy shares \
         them, so its rate is also what it takes from them. What direct is apart from itself is what this \
         cannot tell apart.",
    );
    section
}

/// Direct and governed, within each round; and direct with itself, which shows the noise.
fn compared(figures: &Figures, protocol: Protocol, section: &mut Section) {
    let name = protocol.name();
    let title = format!("{name}: Holdfast, times direct in the same round");
    let mut apart = Table::new(&title, Unit::Times, Scale::AroundOne);
    let slices = [Quantity::SliceRate, Quantity::SliceP50];
    for quantity in slices.iter().chain(protocol.quantities()) {
        let ratio =
            |way| figures.ratio(&(protocol, way, *quantity), &(protocol, Way::Direct, *quantity));
        let found = ratio(Way::Holdfast);
        if slices.contains(quantity) {
            let percent = (found.count > 0).then_some((1.0 - found.p50).abs() * 100.0);
            let what = format!("{name}, {}: Holdfast and direct apart", quantity.name());
            section.target(&what, Unit::Percent, APART_PERCENT, percent);
        }
        apart.measured(quantity.name(), found);
        let noise = format!("{}: direct, once more", quantity.name());
        apart.measured(&noise, ratio(Way::DirectAgain));
    }
    section.tables.push(apart);
}

/// Every way for itself.
fn absolute(
    figures: &Figures,
    protocol: Protocol,
    absent: &[(Kind, String)],
    section: &mut Section,
) {
    let name = protocol.name();
    let kind = |way, quantity| (protocol, way, quantity);
    for quantity in protocol.quantities() {
        let (unit, scale) = match quantity {
            Quantity::Rate => (Unit::PerSecond, Scale::Linear),
            _ => (Unit::Microseconds, Scale::Linear),
        };
        let title = format!("{name}: {}", quantity.name());
        let mut table = Table::new(&title, unit, scale);
        for way in WAYS {
            match absent.iter().find(|(kind, _)| way == Way::Proxy(*kind)) {
                Some((_, why)) => table.not_measured(way.name(), why.as_str()),
                None => table.measured(way.name(), figures.summary(&kind(way, *quantity))),
            }
        }
        section.tables.push(table);
    }
}
