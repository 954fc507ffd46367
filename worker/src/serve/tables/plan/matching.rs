//! Which service number stands for which wanted service, and which services change.

use std::collections::{HashMap, HashSet};

use holdfast_protocol::kernel::{Frontend, FrontendKey, HeadWord, ServiceRecord};

use crate::serve::tables::desired::Desired;
use crate::serve::tables::observe::{Lead, Observed, Programmed};

/// The observed and the desired, side by side.
#[derive(Debug)]
pub(super) struct Matching<'a> {
    /// For each wanted service, the number that stands for it and is kept.
    pub current: Vec<Option<&'a Programmed>>,
    /// For each wanted service, whether it needs another generation.
    pub changes: Vec<bool>,
    /// Every frontend there is, ascending by key.
    pub known: Vec<Known>,
    /// Wanted frontends that there are none of yet, and the services that want them.
    pub absent: Vec<(FrontendKey, usize)>,
}

/// A frontend there is.
#[derive(Debug)]
pub(super) struct Known {
    pub key: FrontendKey,
    pub frontend: Frontend,
    pub lead: Lead,
    /// The service that wants the address.
    pub wanted: Option<usize>,
    /// The kept service the frontend leads to.
    pub leads_to: Option<usize>,
}

impl<'a> Matching<'a> {
    pub(super) fn new(observed: &'a Observed, desired: &Desired) -> Self {
        let mut current = current(observed, desired);
        let wanted = wanted(desired);
        let mut known = known(observed, &wanted, &current);
        let absent: Vec<(FrontendKey, usize)> = desired
            .services
            .iter()
            .enumerate()
            .flat_map(|(index, service)| service.keys.iter().map(move |key| (*key, index)))
            .filter(|(key, _)| !observed.frontends.contains_key(key))
            .collect();
        let changes = changes(desired, &current, &known, &absent);
        // A number that has no generation left is given up: its service moves to a fresh one.
        for (current, _) in current.iter_mut().zip(&changes).filter(|(_, changes)| **changes) {
            if current.is_some_and(|it| it.head.generation() >= HeadWord::LAST_GENERATION) {
                *current = None;
            }
        }
        for known in &mut known {
            known.leads_to = known.leads_to.filter(|service| current[*service].is_some());
        }
        Self { current, changes, known, absent }
    }

    /// The published numbers that are not kept.
    pub(super) fn retired(&self, observed: &'a Observed) -> impl Iterator<Item = &'a Programmed> {
        let kept: HashSet<u32> = self.current.iter().flatten().map(|kept| kept.number).collect();
        observed.services.iter().filter(move |service| !kept.contains(&service.number))
    }
}

/// For each wanted service the lowest number whose record names it. A second one of the same
/// service can only come from damage; it is retired.
fn current<'a>(observed: &'a Observed, desired: &Desired) -> Vec<Option<&'a Programmed>> {
    let mut by_record: HashMap<&ServiceRecord, &Programmed> = HashMap::new();
    for service in &observed.services {
        by_record.entry(&service.record).or_insert(service);
    }
    desired.services.iter().map(|service| by_record.get(&service.record).copied()).collect()
}

fn wanted(desired: &Desired) -> HashMap<FrontendKey, usize> {
    let services = desired.services.iter().enumerate();
    services
        .flat_map(|(index, service)| service.keys.iter().map(move |key| (*key, index)))
        .collect()
}

fn known(
    observed: &Observed,
    wanted: &HashMap<FrontendKey, usize>,
    current: &[Option<&Programmed>],
) -> Vec<Known> {
    let kept: HashMap<u32, usize> = current
        .iter()
        .enumerate()
        .filter_map(|(index, service)| Some(((*service)?.number, index)))
        .collect();
    let mut known: Vec<Known> = observed
        .frontends
        .keys()
        .filter_map(|key| {
            let (frontend, lead) = observed.lead(key)?;
            let leads_to = match lead {
                Lead::To(number) => kept.get(&number).copied(),
                Lead::Idle | Lead::Garbled => None,
            };
            let wanted = wanted.get(key).copied();
            Some(Known { key: *key, frontend, lead, wanted, leads_to })
        })
        .collect();
    // The plan does not depend on the order in which the kernel lists a hash.
    known.sort_unstable_by_key(|known| known.key);
    known
}

/// Which services need another generation: those whose table differs, or for which a frontend has
/// to begin or to end. A frontend that comes from another service does not wait for a generation.
fn changes(
    desired: &Desired,
    current: &[Option<&Programmed>],
    known: &[Known],
    absent: &[(FrontendKey, usize)],
) -> Vec<bool> {
    let mut changes: Vec<bool> = desired
        .services
        .iter()
        .zip(current)
        .map(|(service, current)| {
            current.is_none_or(|current| {
                current.table.as_ref() != Some(&service.table) || !current.is_numbered()
            })
        })
        .collect();
    for (_, service) in absent {
        changes[*service] = true;
    }
    for known in known {
        match known {
            Known { wanted: Some(service), lead: Lead::Idle, .. }
            | Known { wanted: None, leads_to: Some(service), .. } => changes[*service] = true,
            Known { .. } => {}
        }
    }
    changes
}
