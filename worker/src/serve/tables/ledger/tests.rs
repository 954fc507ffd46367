//! What is planned from a ledger is carried out on the model of the maps, and every step of it is held to
//! what a plan of everything is held to.
#![expect(clippy::unwrap_used, reason = "in a test, what is not there is a failure")]

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::strategy::ValueTree as _;

use super::*;
use crate::serve::tables::estate::Writer as _;
use crate::serve::tables::model::Model;
use crate::serve::tables::observe::observe;
use crate::serve::tables::plan::tests::{CAPACITY, any_desired, check_history, record_all};

/// A worker with its ledger.
struct Worker {
    model: Model,
    rest: Rest,
    ledger: Option<Ledger>,
    /// How many plans came from the ledger.
    small: usize,
}

impl Worker {
    fn new(rest: Rest) -> Self {
        Self { model: Model::new(CAPACITY), rest, ledger: None, small: 0 }
    }

    /// Puts `desired` in force if it fits.
    fn put(&mut self, desired: &Desired) {
        let desired = Arc::new(self.shared(desired));
        if self.put_small(&desired) {
            self.small += 1;
            return;
        }
        self.model.pass_grace_period();
        self.rest.end();
        // There may be room now.
        if self.put_small(&desired) {
            return;
        }
        let observed = observe(&self.model).unwrap();
        let space = &mut self.rest.space(&self.model, &observed);
        let Ok(plan) = plan(&observed, &desired, space) else { return };
        let ledger = Ledger::after(&observed, &desired, &plan);
        let history = record_all(&mut self.model, plan, &desired, &mut self.rest);
        check_history(&history, &desired);
        self.ledger = Some(ledger);
    }

    fn put_small(&mut self, desired: &Arc<Desired>) -> bool {
        let Some(ledger) = &self.ledger else { return false };
        let Some(excerpt) = ledger.excerpt(&self.model, desired).unwrap() else { return false };
        let small = ledger.plan(&self.model, &self.rest, desired, &excerpt);
        let Ok((plan, wanted, next)) = small else { return false };
        let history = record_all(&mut self.model, plan, &wanted, &mut self.rest);
        check_history(&history, desired);
        let observed = observe(&self.model).unwrap();
        let nothing =
            super::plan(&observed, desired, &mut Rest::default().space(&self.model, &observed));
        let afresh = Ledger::after(&observed, desired, &nothing.unwrap());
        assert_eq!(next.numbers, afresh.numbers);
        assert_eq!((&next.slots, next.frontends), (&afresh.slots, afresh.frontends));
        let named = |ledger: &Ledger| {
            (0..CAPACITY.endpoints).filter(|it| ledger.endpoints.has(*it)).collect::<Vec<_>>()
        };
        assert_eq!(named(&next), named(&afresh));
        self.ledger = Some(next);
        true
    }

    /// `desired` with what the ledger has already.
    fn shared(&self, desired: &Desired) -> Desired {
        let known = self.ledger.iter().flat_map(|ledger| &ledger.desired.services);
        let known: Vec<&Arc<DesiredService>> = known.collect();
        let share = |service: &Arc<DesiredService>| {
            Arc::clone(known.iter().find(|it| **it == service).copied().unwrap_or(service))
        };
        Desired { services: desired.services.iter().map(share).collect() }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Whatever comes after one another: slots and numbers are reused, never too soon, and every prefix
    /// leaves each service wholly old or wholly new.
    #[test]
    fn a_small_plan_leads_where_a_plan_of_everything_does(
        configurations in prop::collection::vec(any_desired(), 2..8),
        has_rested in any::<bool>(),
    ) {
        let mut rest = Rest::default();
        if has_rested {
            rest.end();
        }
        let mut worker = Worker::new(rest);
        for desired in configurations {
            worker.model.counters.iter_mut().for_each(|counter| *counter += 1);
            worker.put(&desired);
        }
    }

    /// A change of one service, among others that stay.
    #[test]
    fn damage_of_what_changes_is_left_to_a_plan_of_everything(
        before in any_desired(), after in any_desired(), place in any::<Index>(), kind in 0..3_u8,
    ) {
        let mut worker = Worker::new(Rest::default());
        worker.put(&before);
        let Some(ledger) = worker.ledger.clone() else { return Ok(()) };
        let desired = worker.shared(&after);
        let Some(excerpt) = ledger.excerpt(&worker.model, &desired).unwrap() else { return Ok(()) };
        if excerpt.observed.services.is_empty() {
            return Ok(());
        }
        let harmed = place.get(&excerpt.observed.services);
        match kind {
            0 => worker.model.heads[harmed.number as usize] = holdfast_protocol::kernel::HeadWord::UNPUBLISHED,
            1 => worker.model.records[harmed.number as usize].service[0] ^= 1,
            _ => {
                let Some(key) = excerpt.observed.frontends.keys().next() else { return Ok(()) };
                worker.model.delete_frontend(key).unwrap();
            }
        }
        prop_assert!(ledger.excerpt(&worker.model, &desired).unwrap().is_none());
    }
}

#[test]
fn small_plans_are_the_rule() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut small = 0;
    for _ in 0..50 {
        let all = prop::collection::vec(any_desired(), 4).new_tree(&mut runner).unwrap().current();
        let mut worker = Worker::new(Rest::default());
        all.iter().for_each(|desired| worker.put(desired));
        small += worker.small;
    }
    assert!(small > 50, "{small} of at most 150");
}
