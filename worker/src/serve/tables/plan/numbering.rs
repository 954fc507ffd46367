//! Which endpoint has which number.
//!
//! An endpoint of a service, that is its address and port, keeps its number from one table to the next.
//! One that stands in a table twice, or at several addresses, has one number.

use std::collections::{HashMap, HashSet};

use holdfast_protocol::kernel::{Address, EndpointSlot};

use super::Operation;
use super::matching::Matching;
use super::space::{DoesNotFit, Space, Target};
use crate::serve::tables::desired::{Desired, DesiredService, Label};
use crate::serve::tables::observe::{Observed, Programmed};

/// What an endpoint is within its service.
type Identity = (Address, u16);

/// The numbers in the new tables.
#[derive(Debug)]
pub(super) struct Numbering {
    /// For each wanted service that gets a table, those of its endpoints; nothing for the others.
    pub states: Vec<Vec<u32>>,
    /// For each wanted service, what gives a number to those endpoints that had none.
    pub fresh: Vec<Vec<Operation>>,
}

impl Numbering {
    /// Keeps what numbers there are, and takes new ones from `space`.
    pub(super) fn new(
        observed: &Observed,
        desired: &Desired,
        matching: &Matching<'_>,
        targets: &[Target],
        space: &mut impl Space,
    ) -> Result<Self, DoesNotFit> {
        let services = desired.services.len();
        let mut numbering =
            Self { states: vec![Vec::new(); services], fresh: vec![Vec::new(); services] };
        for (index, (service, target)) in desired.services.iter().zip(targets).enumerate() {
            if target.table.is_none() {
                continue;
            }
            let mut known = matching.current[index].map(known).unwrap_or_default();
            numbering.number(index, service, target, &mut known, space).ok_or_else(|| {
                let service = Label(&service.record).to_string();
                // The first number is nobody's.
                let capacity = observed.capacity.endpoints.saturating_sub(1);
                DoesNotFit::Endpoints { service, capacity }
            })?;
        }
        Ok(numbering)
    }

    /// Numbers the endpoints of one service; `None` when there are not enough numbers.
    fn number(
        &mut self,
        index: usize,
        service: &DesiredService,
        target: &Target,
        known: &mut HashMap<Identity, u32>,
        space: &mut impl Space,
    ) -> Option<()> {
        for row in 0..service.table.endpoints.len() {
            let endpoint = service.table.counted(row);
            let slot = &service.table.endpoints[endpoint];
            let state = match known.get(&identity(slot)) {
                Some(state) => *state,
                None => {
                    let state = space.take_endpoint()?;
                    let number = target.number;
                    let fresh =
                        Operation::NumberEndpoint { state, number, service: index, endpoint };
                    self.fresh[index].push(fresh);
                    known.insert(identity(slot), state);
                    state
                }
            };
            self.states[index].push(state);
        }
        Some(())
    }

    /// The numbers that no table names once the plan is done, and one did before.
    pub(super) fn freed(
        &self,
        matching: &Matching<'_>,
        targets: &[Target],
        retired: &[&Programmed],
    ) -> Vec<u32> {
        let kept: HashSet<u32> = self.states.iter().flatten().copied().collect();
        let replaced = matching
            .current
            .iter()
            .zip(targets)
            .filter(|(_, target)| target.table.is_some())
            .filter_map(|(current, _)| *current);
        replaced
            .chain(retired.iter().copied())
            .flat_map(|service| &service.states)
            .copied()
            .filter(|state| *state != EndpointSlot::NO_STATE && !kept.contains(state))
            .collect()
    }
}

/// The numbers that the endpoints of `current` have.
fn known(current: &Programmed) -> HashMap<Identity, u32> {
    let Some(table) = &current.table else { return HashMap::new() };
    let counted = |row| identity(&table.endpoints[table.counted(row)]);
    let endpoints = (0..table.endpoints.len()).map(counted);
    let numbered = endpoints.zip(current.states.iter().copied());
    numbered.filter(|(_, state)| *state != EndpointSlot::NO_STATE).collect()
}

const fn identity(endpoint: &EndpointSlot) -> Identity {
    (endpoint.address, endpoint.port_be)
}
