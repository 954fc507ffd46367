//! What this worker has programmed, so that a small change is planned without reading all of it back.
//!
//! While a worker is granted, nobody else writes the maps. Once it has carried out a plan, it knows what
//! they say: the services of that plan, under these numbers, and nothing else. What comes next is compared
//! with that by identity: a [`DesiredService`] that is the same allocation needs no look. The others are read
//! back from the maps as always, and so is every frontend they have to do with: what is found there is
//! what a [`plan`](super::plan()) of a small estate starts from, one that has these services only.
//!
//! Whatever is not as it was left there is for a plan of everything, which repairs it. After a grant there is no
//! ledger: it begins with the first plan, which is one of everything.

mod difference;
mod space;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use holdfast_bpf::BpfError;
use holdfast_config::List;
use holdfast_protocol::kernel::EndpointSlot;

use self::difference::{Difference, difference};
use self::space::Remainder;
use super::desired::{Desired, DesiredService};
use super::estate::{Capacity, Reader};
use super::observe::{Observed, Programmed, states, table};
use super::plan::{DoesNotFit, Operation, Plan, plan};
use super::ranges::Range;
use super::rest::Rest;

/// What is programmed.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// The services, each of which is as it is said here.
    desired: Arc<Desired>,
    /// For each of them its number.
    numbers: Vec<u32>,
    /// For each of them the slots of its table.
    slots: Vec<Range>,
    /// How many frontends they have.
    frontends: usize,
    /// The endpoint numbers that their tables name.
    endpoints: Numbers,
}

/// A set of small numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Numbers(Vec<u64>);

/// What concerns the services that change, and nobody else.
#[derive(Debug)]
pub struct Excerpt {
    difference: Difference,
    /// What the maps say of them.
    pub observed: Observed,
    /// What they should say.
    wanted: Arc<Desired>,
}

impl Ledger {
    /// What is programmed once `plan`, which leads from `observed` to `desired`, has been carried out.
    #[must_use]
    pub fn after(observed: &Observed, desired: &Arc<Desired>, plan: &Plan) -> Self {
        let states = observed.services.iter().flat_map(|service| service.states.iter().copied());
        let mut endpoints = Numbers::default();
        states.filter(|state| *state != EndpointSlot::NO_STATE).for_each(|it| endpoints.add(it));
        endpoints.follow(plan);
        let (services, starts) = (&desired.services, starts(observed, plan));
        let tables = plan.numbers.iter().zip(services);
        Self {
            numbers: plan.numbers.clone(),
            slots: tables.map(|(number, service)| slots(&starts, *number, service)).collect(),
            frontends: services.iter().map(|service| service.keys.len()).sum(),
            desired: Arc::clone(desired),
            endpoints,
        }
    }

    /// How many frontends there are.
    #[must_use]
    pub const fn frontends(&self) -> usize {
        self.frontends
    }

    /// What of the maps has to do with getting to `desired`; `None` when that is most of it, or not as
    /// this worker has left it.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn excerpt(
        &self,
        maps: &impl Reader,
        desired: &Desired,
    ) -> Result<Option<Excerpt>, BpfError> {
        let Some(difference) = difference(&self.desired.services, &desired.services) else {
            return Ok(None);
        };
        let gone = difference.gone.iter().map(|at| self.programmed(maps, *at));
        let Some(mut services) = gone.collect::<Option<Vec<Programmed>>>() else { return Ok(None) };
        services.sort_unstable_by_key(|service| service.number);
        let whole = maps.capacity();
        let mut observed = Observed { capacity: whole, services, frontends: HashMap::new() };
        for at in &difference.gone {
            for key in &self.desired.services[*at].keys {
                let Some(frontend) = maps.frontend(key)? else { return Ok(None) };
                observed.frontends.insert(*key, frontend);
            }
        }
        let wanted: List<Arc<DesiredService>> =
            difference.come.iter().map(|at| Arc::clone(&desired.services[*at])).collect();
        for key in wanted.iter().flat_map(|service| &service.keys) {
            // Nobody has it, so there is none.
            if !observed.frontends.contains_key(key) && maps.frontend(key)?.is_some() {
                return Ok(None);
            }
        }
        // The others take their room.
        let others = u32::try_from(self.frontends - observed.frontends.len()).unwrap_or(u32::MAX);
        let frontends = whole.frontends.saturating_sub(others);
        observed.capacity = Capacity { frontends, ..whole };
        let wanted = Arc::new(Desired { services: wanted });
        Ok(Some(Excerpt { difference, observed, wanted }))
    }

    /// The service at `at` as the maps have it, if that is how it was left.
    fn programmed(&self, maps: &impl Reader, at: usize) -> Option<Programmed> {
        let (desired, number) = (&self.desired.services[at], self.numbers[at]);
        let (head, record) = (maps.head(number), maps.record(number));
        if !head.is_published() || record != desired.record {
            return None;
        }
        let mut table = table(maps, number, head)?;
        let states = states(maps, number, &mut table);
        let is_as_left = table == desired.table
            && desired.keys.iter().all(|key| {
                let frontend = maps.frontend(key).ok().flatten();
                frontend.is_some_and(|it| it.service == number && it.tag == key.tag())
            });
        is_as_left.then_some(Programmed { number, head, record, table: Some(table), states })
    }

    /// The way from what is programmed to `desired`, of which `excerpt` is everything that differs; what
    /// it is to be carried out with; and the ledger then.
    ///
    /// # Errors
    ///
    /// When there is no room. Named may be another service than by a plan of everything.
    pub fn plan(
        &self,
        maps: &impl Reader,
        rest: &Rest,
        desired: &Arc<Desired>,
        excerpt: &Excerpt,
    ) -> Result<(Plan, Arc<Desired>, Self), DoesNotFit> {
        let Excerpt { difference, observed, wanted } = excerpt;
        let plan = plan(observed, wanted, &mut Remainder::of(self, maps, rest))?;
        let mut endpoints = self.endpoints.clone();
        endpoints.follow(&plan);
        let starts = starts(observed, &plan);
        let mut fresh = plan.numbers.iter().zip(&wanted.services);
        let entries = difference.origins.iter().map(|origin| match origin {
            Some(at) => (self.numbers[*at], self.slots[*at]),
            None => {
                let (number, service) = fresh.next().expect("a number for each service that comes");
                (*number, slots(&starts, *number, service))
            }
        });
        let (fresh_numbers, fresh_slots): (Vec<u32>, Vec<Range>) = entries.unzip();
        let (mut numbers, mut slots) = (self.numbers.clone(), self.slots.clone());
        numbers.splice(difference.replaced.clone(), fresh_numbers);
        slots.splice(difference.replaced.clone(), fresh_slots);
        let keys = wanted.services.iter().map(|service| service.keys.len()).sum::<usize>();
        let frontends = self.frontends - observed.frontends.len() + keys;
        let desired = Arc::clone(desired);
        let next = Self { desired, numbers, slots, frontends, endpoints };
        Ok((plan, Arc::clone(wanted), next))
    }
}

/// For each published number where its table begins, once `plan`, which starts from `observed`, has been carried out.
fn starts(observed: &Observed, plan: &Plan) -> HashMap<u32, u32> {
    let before = observed.services.iter().map(|service| (service.number, service.head));
    let after = plan.operations.iter().filter_map(|operation| match operation {
        Operation::Publish(number, head) => Some((*number, *head)),
        _ => None,
    });
    before.chain(after).map(|(number, head)| (number, head.slot())).collect()
}

/// The slots of the table of `service`, which has that number.
fn slots(starts: &HashMap<u32, u32>, number: u32, service: &DesiredService) -> Range {
    let start = *starts.get(&number).expect("a service that is programmed is published");
    Range { start, length: service.table.slots() }
}

impl Numbers {
    const BITS: u32 = u64::BITS;

    fn of(numbers: &[u32]) -> Self {
        let mut set = Self::default();
        numbers.iter().for_each(|number| set.add(*number));
        set
    }

    const fn place(number: u32) -> (usize, u64) {
        ((number / Self::BITS) as usize, 1 << (number % Self::BITS))
    }

    fn add(&mut self, number: u32) {
        let (word, bit) = Self::place(number);
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= bit;
    }

    fn remove(&mut self, number: u32) {
        let (word, bit) = Self::place(number);
        if let Some(word) = self.0.get_mut(word) {
            *word &= !bit;
        }
    }

    fn has(&self, number: u32) -> bool {
        let (word, bit) = Self::place(number);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }

    /// The first number from `from` on that is not in it.
    fn next_absent(&self, from: u32) -> u32 {
        let (first, bit) = Self::place(from);
        let Some(word) = self.0.get(first) else { return from };
        // Those below count as being in it.
        let mut word = word | (bit - 1);
        let mut at = first;
        while word == u64::MAX {
            at += 1;
            let Some(next) = self.0.get(at) else { break };
            word = *next;
        }
        let base = u32::try_from(at).expect("small numbers") * Self::BITS;
        if at == self.0.len() { base } else { base + word.trailing_ones() }
    }

    /// What is in use once `plan` has been carried out.
    fn follow(&mut self, plan: &Plan) {
        for operation in &plan.operations {
            if let Operation::NumberEndpoint { state, .. } = operation {
                self.add(*state);
            }
        }
        plan.freed.endpoints.iter().for_each(|state| self.remove(*state));
    }
}
