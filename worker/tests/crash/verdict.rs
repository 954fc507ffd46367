//! What the maps say, as connections would find it: whole or torn, exact or with something left over.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use holdfast_protocol::kernel::{EndpointSlot, Frontend, FrontendKey, ServiceRecord, policy};
use holdfast_worker::serve::tables::desired::{Desired, DesiredService, Label, Table};
use holdfast_worker::serve::tables::observe::{Lead, Observed};
use holdfast_worker::serve::tables::plan::Space as _;
use holdfast_worker::serve::tables::rest::Rest;

use crate::handed::Handed;

/// What a connection to an address gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It passes untouched.
    Untouched,
    /// It gets what this table says.
    Governed(Table),
    /// It is refused because what it finds does not fit together.
    Unsettled,
}

/// What a connection to `key` gets while nobody writes: the way of `ebpf/src/decide.rs`.
pub fn outcome(observed: &Observed, key: &FrontendKey) -> Outcome {
    match observed.lead(key) {
        None | Some((_, Lead::Idle)) => Outcome::Untouched,
        Some((_, Lead::Garbled)) => Outcome::Unsettled,
        Some((_, Lead::To(number))) => {
            let table = observed.published(number).and_then(|service| service.table.clone());
            // Who is asked for by name has to be there.
            let is_row =
                |slot: &EndpointSlot| (slot.address, slot.port_be) == (key.address, key.port_be);
            let leads = |table: &Table| {
                table.policy != policy::DIRECT || table.endpoints.iter().any(is_row)
            };
            table.filter(leads).map_or(Outcome::Unsettled, Outcome::Governed)
        }
    }
}

/// The service that `desired` gives `key` to.
pub fn owner<'a>(desired: &'a Desired, key: &FrontendKey) -> Option<&'a DesiredService> {
    desired.services.iter().find(|service| service.keys.contains(key)).map(|it| &**it)
}

/// Every address of either.
pub fn keys(from: &Desired, to: &Desired) -> BTreeSet<FrontendKey> {
    let services = from.services.iter().chain(&to.services);
    services.flat_map(|service| service.keys.iter().copied()).collect()
}

/// What of `observed` is neither wholly `from` nor wholly `to`, service by service.
pub fn torn(observed: &Observed, from: &Desired, to: &Desired) -> Vec<String> {
    let mut torn = Vec::new();
    let mut sides: BTreeMap<String, BTreeSet<bool>> = BTreeMap::new();
    for key in keys(from, to) {
        let (before, after) = (owner(from, &key), owner(to, &key));
        let wanted = |service: Option<&DesiredService>| {
            service.map_or(Outcome::Untouched, |it| Outcome::Governed(it.table.clone()))
        };
        let (old, new) = (wanted(before), wanted(after));
        let found = outcome(observed, &key);
        if found != old && found != new && !is_givers(&found, before, after, from, to) {
            torn.push(format!("{key:?} gets {found:?}, which is neither old nor new"));
        }
        let stays = match (before, after) {
            (Some(before), Some(after)) => before.record == after.record,
            _ => true,
        };
        if let Some(service) = before.or(after).filter(|_| stays && old != new) {
            sides.entry(Label(&service.record).to_string()).or_default().insert(found == new);
        }
    }
    let halves = sides.into_iter().filter(|(_, sides)| sides.len() > 1);
    torn.extend(halves.map(|(service, _)| format!("{service} is half old and half new")));
    torn
}

/// Whether an address that moves gets what its giver becomes. It may for a moment where services
/// give each other addresses in a circle: somebody has to be first.
fn is_givers(
    found: &Outcome,
    before: Option<&DesiredService>,
    after: Option<&DesiredService>,
    from: &Desired,
    to: &Desired,
) -> bool {
    let (Some(before), Some(after)) = (before, after) else { return false };
    let is_given = |giver: &ServiceRecord, receiver: &ServiceRecord| {
        keys(from, to).iter().any(|key| {
            owner(from, key).is_some_and(|it| it.record == *giver)
                && owner(to, key).is_some_and(|it| it.record == *receiver)
        })
    };
    let in_circle = before.record != after.record && is_given(&after.record, &before.record);
    let becomes = |desired: &Desired| {
        let service = desired.services.iter().find(|it| it.record == before.record);
        service.is_some_and(|it| *found == Outcome::Governed(it.table.clone()))
    };
    // A writer on its way back makes the receiver the giver.
    let returns = |desired: &Desired| {
        let service = desired.services.iter().find(|it| it.record == after.record);
        service.is_some_and(|it| *found == Outcome::Governed(it.table.clone()))
    };
    in_circle && (becomes(to) || returns(from))
}

/// Everything the maps say, without the numbers, slots and generations that say it.
#[derive(Debug, PartialEq, Eq)]
pub struct Meaning {
    services: BTreeMap<String, (BTreeSet<FrontendKey>, Option<Table>)>,
    /// What no service of a configuration is made of.
    left_over: Vec<String>,
}

impl Meaning {
    pub fn of(observed: &Observed) -> Self {
        let mut left_over = Vec::new();
        let mut keys: BTreeMap<u32, BTreeSet<FrontendKey>> = BTreeMap::new();
        for (key, frontend) in &observed.frontends {
            match observed.lead(key) {
                Some((_, Lead::To(number))) => drop(keys.entry(number).or_default().insert(*key)),
                lead => left_over.push(format!("{key:?}: {lead:?}")),
            }
            if frontend.until != Frontend::FOREVER {
                left_over.push(format!("{key:?} has an end: {frontend:?}"));
            }
        }
        let mut services = BTreeMap::new();
        for service in &observed.services {
            let label = Label(&service.record).to_string();
            let keys = keys.remove(&service.number).unwrap_or_default();
            if services.insert(label.clone(), (keys, service.table.clone())).is_some() {
                left_over.push(format!("a second number of {label}"));
            }
        }
        Self { services, left_over }
    }
}

/// How long a number that nobody has may wait for its last connection to end.
const LAST_CONNECTIONS: Duration = Duration::from_secs(2);

/// What can be given to nobody although nobody has it: each slot and each number is in use or free,
/// once the connections of what is gone have ended.
pub fn leaks(estate: &Handed) -> Vec<String> {
    let deadline = Instant::now() + LAST_CONNECTIONS;
    loop {
        let leaks = leaks_now(estate);
        if leaks.is_empty() || Instant::now() > deadline {
            return leaks;
        }
    }
}

fn leaks_now(estate: &Handed) -> Vec<String> {
    let (maps, observed) = (estate.shadow(), estate.observed());
    let mut rest = Rest::default();
    rest.end();
    let mut space = rest.space(&maps, &observed);
    let used: u32 = observed.used_slots().iter().map(|run| run.length).sum();
    let (_, free) = space.free_slots();
    let free_numbers = std::iter::from_fn(|| space.take_number()).count();
    let mut leaks = Vec::new();
    if used + free != observed.capacity.slots {
        leaks.push(format!("{used} slots used and {free} free of {}", observed.capacity.slots));
    }
    let (published, numbers) = (observed.services.len(), observed.capacity.services as usize);
    if published + free_numbers != numbers {
        leaks.push(format!("{published} numbers used and {free_numbers} free of {numbers}"));
    }
    let named: BTreeSet<u32> =
        observed.services.iter().flat_map(|service| service.states.clone()).collect();
    let free = std::iter::from_fn(|| space.take_endpoint()).count();
    // The first is no endpoint's.
    let (named, numbers) = (named.len(), observed.capacity.endpoints as usize - 1);
    if named + free != numbers {
        leaks.push(format!("{named} endpoints numbered and {free} numbers free of {numbers}"));
    }
    leaks
}
