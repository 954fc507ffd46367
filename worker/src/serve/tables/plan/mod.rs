//! From what the maps say to what they should say. Pure.
//!
//! A plan is a list of mutations in this order, and every prefix of it leaves each service wholly
//! old or wholly new for every connection:
//!
//! 1. **Prepare.** Frontends that lead nowhere and that nobody wants are deleted. New tables go
//!    into free slots and new records to free numbers, which no head names. New frontends are
//!    inserted with `from` at the generation their service gets next, frontends that are to go get
//!    `until` at it: none of that is in force yet, so no connection sees any of it.
//! 2. **Publish.** One head word per changed service. That one store brings its table into force,
//!    begins its new frontends and ends its old ones.
//! 3. **Move**, right after the publication of the service it goes to: an address that leads from
//!    one service to another changes with a single update of its hash element, so at every instant
//!    it leads to one of the two. A service that gives an address away is published only after
//!    that (see `order`).
//! 4. **Retire.** The head of a service that is gone becomes 0: all its addresses end in that store.
//! 5. **Tidy.** Frontends that have ended are deleted.
//!
//! An endpoint keeps its number, and with it what is counted for it, as long as it is one of the
//! service; the numbers of new endpoints are given before the tables that name them are written.
//!
//! A service that is as it should be gets no mutation at all. One that is kept keeps its number, and
//! with it its counters.
//!
//! The same plan repairs what a dead writer left, because all of that shows in what was observed:
//! frontends that wait for a generation that was never published, or whose end was decided but not
//! published; frontends of numbers that are not published; heads that name no table of theirs; two
//! numbers of one service. What is in force is brought to the wanted state by the steps above,
//! everything else is deleted or overwritten while preparing.

mod frontends;
mod matching;
mod numbering;
mod order;
mod space;

#[cfg(test)]
pub(super) mod tests;

use holdfast_protocol::kernel::{Frontend, FrontendKey, HeadWord};

pub use space::{DoesNotFit, Space};

use self::frontends::Routes;
use self::matching::Matching;
use self::numbering::Numbering;
use self::space::Target;
use super::desired::Desired;
use super::observe::{Observed, Programmed};
use super::ranges::Range;

/// What to do, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Carried out one after the other, with the [`Desired`] the plan was made for.
    pub operations: Vec<Operation>,
    /// What nothing refers to any more once all of it is done.
    pub freed: Freed,
    /// For each of [`Desired::services`] the number that stands for it then.
    pub numbers: Vec<u32>,
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Remove a frontend.
    DeleteFrontend(FrontendKey),
    /// Set where an address leads, and when.
    SetFrontend(FrontendKey, Frontend),
    /// Set the counters of this number, which is not published, to 0.
    ZeroCounters(u32),
    /// Say which service a number that is not published stands for.
    WriteRecord {
        /// The number.
        number: u32,
        /// Index in [`Desired::services`].
        service: usize,
    },
    /// Give a number that no published table names to an endpoint.
    NumberEndpoint {
        /// The endpoint's number.
        state: u32,
        /// The service's number.
        number: u32,
        /// Index in [`Desired::services`].
        service: usize,
        /// Index in the endpoints of its table.
        endpoint: usize,
    },
    /// Write a table to slots that nothing refers to.
    WriteTable {
        /// The number it is for.
        number: u32,
        /// The generation it is for.
        generation: u32,
        /// Where its header goes.
        slot: u32,
        /// Index in [`Desired::services`].
        service: usize,
        /// For each endpoint its number.
        states: Vec<u32>,
    },
    /// Store a head.
    Publish(u32, HeadWord),
}

/// Slots and numbers that are free once a plan is done, but that a program may still be reading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Where tables were.
    pub slots: Vec<Range>,
    /// Numbers nothing refers to any more.
    pub numbers: Vec<u32>,
    /// Endpoint numbers that no table names any more.
    pub endpoints: Vec<u32>,
}

/// The way from `observed` to `desired`, with new tables and numbers from `space`.
///
/// # Errors
///
/// [`DoesNotFit`], by name, when the new cannot be written beside the old.
pub fn plan(
    observed: &Observed,
    desired: &Desired,
    space: &mut impl Space,
) -> Result<Plan, DoesNotFit> {
    let matching = Matching::new(observed, desired);
    let targets = space::targets(desired, &matching, space)?;
    let mut numbering = Numbering::new(observed, desired, &matching, &targets, space)?;
    let routes = Routes::new(&matching, &targets, desired.services.len());
    routes.check_room(observed, desired)?;
    let retired: Vec<&Programmed> = matching.retired(observed).collect();
    let endpoints = numbering.freed(&matching, &targets, &retired);
    let freed = Freed { endpoints, ..freed(observed, &matching, &targets, &retired) };
    let mut operations = Vec::new();
    prepare(&mut operations, &targets, &mut numbering, &routes);
    publish(&mut operations, &targets, &routes);
    operations.extend(
        retired.iter().map(|service| Operation::Publish(service.number, HeadWord::UNPUBLISHED)),
    );
    operations.extend(routes.ended.iter().copied().map(Operation::DeleteFrontend));
    let numbers = targets.iter().map(|target| target.number).collect();
    Ok(Plan { operations, freed, numbers })
}

fn prepare(
    operations: &mut Vec<Operation>,
    targets: &[Target],
    numbering: &mut Numbering,
    routes: &Routes,
) {
    operations.extend(routes.idle.iter().copied().map(Operation::DeleteFrontend));
    for (service, target) in targets.iter().enumerate() {
        let Target { number, generation, .. } = *target;
        if target.fresh {
            // The record comes before any frontend of the number: a number without a record has
            // never been in use, and a successor may take it at once.
            operations.push(Operation::WriteRecord { number, service });
            operations.push(Operation::ZeroCounters(number));
        }
        if let Some(table) = target.table {
            let slot = table.start;
            operations.append(&mut numbering.fresh[service]);
            let states = std::mem::take(&mut numbering.states[service]);
            operations.push(Operation::WriteTable { number, generation, slot, service, states });
        }
    }
    operations.extend(
        routes.prepared.iter().map(|(key, frontend)| Operation::SetFrontend(*key, *frontend)),
    );
}

fn publish(operations: &mut Vec<Operation>, targets: &[Target], routes: &Routes) {
    for service in order::order(targets, routes) {
        let target = &targets[service];
        if let Some(table) = target.table {
            let head = HeadWord::new(table.start, target.generation);
            operations.push(Operation::Publish(target.number, head));
        }
        operations.extend(
            routes.moves[service]
                .iter()
                .map(|moved| Operation::SetFrontend(moved.key, target.frontend(&moved.key))),
        );
    }
}

fn freed(
    observed: &Observed,
    matching: &Matching<'_>,
    targets: &[Target],
    retired: &[&Programmed],
) -> Freed {
    let replaced = matching
        .current
        .iter()
        .zip(targets)
        .filter(|(_, target)| target.table.is_some())
        .filter_map(|(current, _)| *current);
    let slots = replaced.chain(retired.iter().copied()).filter_map(Programmed::range).collect();
    // A program may have read a frontend that names a number before the frontend was removed.
    let unpublished = matching
        .known
        .iter()
        .map(|known| known.frontend.service)
        .filter(|number| *number < observed.capacity.services)
        .filter(|number| observed.published(*number).is_none());
    let mut numbers: Vec<u32> =
        retired.iter().map(|service| service.number).chain(unpublished).collect();
    numbers.sort_unstable();
    numbers.dedup();
    Freed { slots, numbers, endpoints: Vec::new() }
}
