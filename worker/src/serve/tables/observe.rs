//! What the maps say now.

use std::collections::HashMap;
use std::ops;

use holdfast_bpf::BpfError;
use holdfast_protocol::kernel::{
    EndpointSlot, Frontend, FrontendKey, HeadWord, LOOKUP_PER_SLOT, SETTINGS_SLOTS, ServiceRecord,
};

use super::desired::Table;
use super::estate::{Capacity, Reader};
use super::ranges::Range;
use super::slot;

/// What was read back from the maps.
#[derive(Clone, Debug)]
pub struct Observed {
    /// How much the maps hold.
    pub capacity: Capacity,
    /// The published service numbers, ascending.
    pub services: Vec<Programmed>,
    /// Every frontend, whether it leads anywhere or not.
    pub frontends: HashMap<FrontendKey, Frontend>,
}

/// A published service number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programmed {
    /// The number.
    pub number: u32,
    /// What is published for it.
    pub head: HeadWord,
    /// Which service it is, by its record.
    pub record: ServiceRecord,
    /// What it says. `None` when the head does not name a table of this number and generation, all
    /// of it within `TABLES`: connections to it are refused then, and it has to be written anew.
    ///
    /// It is without the numbers of its endpoints: a configuration does not know them.
    pub table: Option<Table>,
    /// For each endpoint of the table its number, or [`EndpointSlot::NO_STATE`] if it names none, or
    /// one that is not its own.
    pub states: Vec<u32>,
}

impl Programmed {
    /// Whether every endpoint has a number of its own.
    #[must_use]
    pub fn is_numbered(&self) -> bool {
        self.states.iter().all(|state| *state != EndpointSlot::NO_STATE)
    }

    /// The slots its table occupies, if it has one.
    #[must_use]
    pub fn range(&self) -> Option<Range> {
        let table = self.table.as_ref()?;
        Some(Range { start: self.head.slot(), length: table.slots() })
    }
}

impl Observed {
    /// The slots that published tables occupy, ascending by their starts.
    #[must_use]
    pub fn used_slots(&self) -> Vec<Range> {
        let mut used: Vec<Range> = self.services.iter().filter_map(Programmed::range).collect();
        used.sort_unstable_by_key(|range| range.start);
        used
    }

    /// Where a program that looks up `key` now is led.
    #[must_use]
    pub fn lead(&self, key: &FrontendKey) -> Option<(Frontend, Lead)> {
        let frontend = *self.frontends.get(key)?;
        if frontend.tag != key.tag() || frontend.service >= self.capacity.services {
            return Some((frontend, Lead::Garbled));
        }
        let lead = match self.published(frontend.service) {
            Some(service) if frontend.in_force(service.head.generation()) => {
                Lead::To(frontend.service)
            }
            _ => Lead::Idle,
        };
        Some((frontend, lead))
    }

    /// The published service with this number.
    #[must_use]
    pub fn published(&self, number: u32) -> Option<&Programmed> {
        let at = self.services.binary_search_by_key(&number, |service| service.number).ok()?;
        Some(&self.services[at])
    }
}

/// Where a frontend leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lead {
    /// To this published service number, at its present generation.
    To(u32),
    /// Nowhere: it is not in force, and connections pass untouched.
    Idle,
    /// The value was not written for its key, or names no service number: connections are refused.
    Garbled,
}

/// Reads the maps back. While another worker writes, the answer may mix two of its states.
///
/// # Errors
///
/// When the kernel refuses to list the frontends.
pub fn observe(estate: &impl Reader) -> Result<Observed, BpfError> {
    let capacity = estate.capacity();
    let services = (0..capacity.services)
        .map(|number| (number, estate.head(number)))
        .filter(|(_, head)| head.is_published())
        .map(|(number, head)| {
            let mut table = table(estate, number, head);
            let states = table.iter_mut().flat_map(|table| states(estate, number, table)).collect();
            Programmed { number, head, record: estate.record(number), table, states }
        })
        .collect();
    let frontends = estate.frontends()?.into_iter().collect();
    Ok(Observed { capacity, services, frontends })
}

/// Takes the numbers out of the endpoints of `table`, which is that of the service `number`.
pub(super) fn states(estate: &impl Reader, number: u32, table: &mut Table) -> Vec<u32> {
    let (count, rows) = (estate.capacity().endpoints, 0..table.endpoints.len());
    let take = |index: usize| {
        let EndpointSlot { address, port_be, .. } = table.endpoints[table.counted(index)];
        let endpoint = &mut table.endpoints[index];
        let state = std::mem::replace(&mut endpoint.state, EndpointSlot::NO_STATE);
        let own = state < count && estate.endpoint(state).is_of(number, &address, port_be);
        if own { state } else { EndpointSlot::NO_STATE }
    };
    rows.map(take).collect()
}

/// The table that `head` names, if all of it is there and it is the one of `number`.
pub(super) fn table(estate: &impl Reader, number: u32, head: HeadWord) -> Option<Table> {
    let slots = estate.capacity().slots;
    if head.slot() >= slots {
        return None;
    }
    let header = slot::to_header(&estate.slot(head.slot()));
    let own = header.service == number
        && header.generation == head.generation()
        && matches!(header.settings, 0 | SETTINGS_SLOTS);
    let settings = run(head.slot() + 1, header.settings)?;
    let endpoints = run(settings.end, header.endpoints)?;
    let lookup = run(endpoints.end, header.lookup.div_ceil(LOOKUP_PER_SLOT))?;
    if !own || lookup.end > slots {
        return None;
    }
    let read = |run: ops::Range<u32>| run.map(|index| estate.slot(index));
    let indices = read(lookup).flat_map(|slot| slot::to_lookup(&slot));
    Some(Table {
        policy: header.policy,
        no_endpoint_errno: header.no_endpoint_errno,
        features: header.features,
        settings: match read(settings).collect::<Vec<_>>()[..] {
            [first, second] => Some(slot::to_settings(&[first, second])),
            _ => None,
        },
        endpoints: read(endpoints).map(|slot| slot::to_endpoint(&slot)).collect(),
        lookup: indices.take(header.lookup as usize).collect(),
    })
}

/// `length` slots from `start`, if there can be so many.
fn run(start: u32, length: u32) -> Option<ops::Range<u32>> {
    Some(start..start.checked_add(length)?)
}
