//! What has to be so at every step of a plan, and at its end.

use super::*;

/// Which service `key` leads to.
fn owner(model: &Model, key: &FrontendKey) -> Option<ServiceRecord> {
    let observed = observe(model).unwrap();
    match observed.lead(key)? {
        (_, crate::serve::tables::observe::Lead::To(number)) => Some(model.record(number)),
        _ => None,
    }
}

struct Expectation {
    before: Outcome,
    after: Outcome,
    owner_before: Option<ServiceRecord>,
    owner_after: Option<ServiceRecord>,
}

impl Expectation {
    /// The service the address belongs to throughout, if it does not move.
    fn resident(&self) -> Option<ServiceRecord> {
        match (self.owner_before, self.owner_after) {
            (Some(before), Some(after)) => (before == after).then_some(before),
            (before, after) => before.or(after),
        }
    }

    fn is_moved(&self) -> bool {
        self.owner_before.is_some() && self.owner_after.is_some() && self.resident().is_none()
    }
}

fn expectations(before: &Model, desired: &Desired) -> BTreeMap<FrontendKey, Expectation> {
    let mut expectations: BTreeMap<FrontendKey, Expectation> = keys()
        .map(|key| {
            let owner_before = owner(before, &key);
            let before = before.connect(&key);
            let after = Outcome::Untouched;
            (key, Expectation { before, after, owner_before, owner_after: None })
        })
        .collect();
    for service in &desired.services {
        for key in &service.keys {
            let expectation = expectations.get_mut(key).unwrap();
            expectation.after = Outcome::Governed(service.table.clone());
            expectation.owner_after = Some(service.record);
        }
    }
    expectations
}

/// Whether services give each other addresses in a circle: the one case in which an address may
/// lead to its giver's new table for a moment.
fn moves_in_a_circle(expectations: &BTreeMap<FrontendKey, Expectation>) -> bool {
    let mut edges: BTreeSet<(u8, u8)> = expectations
        .values()
        .filter(|it| it.is_moved())
        .map(|it| (it.owner_before.unwrap().service[0], it.owner_after.unwrap().service[0]))
        .collect();
    // Whoever receives nothing cannot be in a circle.
    loop {
        let receivers: BTreeSet<u8> = edges.iter().map(|(_, receiver)| *receiver).collect();
        let count = edges.len();
        edges.retain(|(giver, _)| receivers.contains(giver));
        if edges.len() == count {
            return !edges.is_empty();
        }
    }
}

/// At every step, every service is wholly old or wholly new, and nothing ever goes back.
pub(super) fn check_every_step(history: &[Model], desired: &Desired) {
    history.iter().for_each(check_numbers);
    let expectations = expectations(&history[0], desired);
    let circle = moves_in_a_circle(&expectations);
    let mut changed: BTreeSet<FrontendKey> = BTreeSet::new();
    for (step, model) in history.iter().enumerate() {
        let mut sides: BTreeMap<u8, BTreeSet<bool>> = BTreeMap::new();
        for (key, expected) in &expectations {
            let outcome = model.connect(key);
            let giver_new = circle
                && expected.is_moved()
                && desired.services.iter().any(|service| {
                    // One that is asked for by name refuses what it does not know.
                    let is_direct = service.table.policy == policy::DIRECT;
                    Some(service.record) == expected.owner_before
                        && (outcome == Outcome::Governed(service.table.clone())
                            || is_direct && outcome == Outcome::Unsettled)
                });
            assert!(
                outcome == expected.before || outcome == expected.after || giver_new,
                "step {step}: {key:?} got {outcome:?}, which is neither old nor new"
            );
            if expected.before == expected.after {
                continue;
            }
            let is_new = outcome == expected.after;
            assert!(is_new || !changed.contains(key), "step {step}: {key:?} went back");
            if is_new {
                changed.insert(*key);
            }
            if let Some(resident) = expected.resident() {
                sides.entry(resident.service[0]).or_default().insert(is_new);
            }
        }
        for (name, sides) in sides {
            assert_eq!(sides.len(), 1, "step {step}: service {} is half new", char::from(name));
        }
    }
}

/// Whatever a program has learnt of an address counts as long as the era lasts and the service keeps its head: at every
/// step it is what a lookup would find then.
pub(super) fn check_cache(history: &[Model]) {
    let mut learnt: BTreeMap<(u64, FrontendKey), BTreeSet<Found>> = BTreeMap::new();
    for (step, model) in history.iter().enumerate().filter(|(_, model)| model.era.is_open()) {
        let counts = |known: &Found| match known {
            Some((service, head)) => model.heads[*service as usize].0 == *head,
            None => true,
        };
        for key in keys() {
            let found = model.find(&key);
            let of_key = learnt.entry((model.era.0, key)).or_default();
            for known in of_key.iter().filter(|known| counts(known)) {
                assert_eq!(Some(*known), found, "step {step}: {key:?} in {:?}", model.era);
            }
            of_key.extend(found);
        }
    }
}

/// Every endpoint of every service has a number, and no two the same.
fn check_numbers(model: &Model) {
    let mut seen = BTreeSet::new();
    for service in observe(model).unwrap().services {
        let table = service.table.as_ref().expect("a published table is whole");
        assert!(service.is_numbered(), "{service:?}");
        let counted = |row| &table.endpoints[table.counted(row)];
        let endpoints = (0..table.endpoints.len()).map(counted).map(|it| (it.address, it.port_be));
        let numbers: BTreeMap<(Address, u16), u32> =
            endpoints.clone().zip(service.states.iter().copied()).collect();
        assert!(endpoints.zip(&service.states).all(|(it, state)| numbers[&it] == *state));
        assert!(numbers.values().all(|state| seen.insert(*state)), "{service:?}");
    }
}

/// An endpoint that stays keeps its number, and a number that connections count on its endpoint.
fn check_endpoints(before: &Model, after: &Model) {
    let (was, is) = (observe(before).unwrap(), observe(after).unwrap());
    for service in &was.services {
        let kept = is.published(service.number).filter(|it| it.record == service.record);
        let numbers = |service: &Programmed| -> BTreeMap<(Address, u16), u32> {
            let endpoints = service.table.iter().flat_map(|table| {
                let counted = |row| table.endpoints[table.counted(row)];
                (0..table.endpoints.len()).map(counted)
            });
            let states = service.states.iter().copied();
            endpoints.map(|it| (it.address, it.port_be)).zip(states).collect()
        };
        let now = kept.map(numbers).unwrap_or_default();
        for (endpoint, state) in numbers(service) {
            assert!(now.get(&endpoint).is_none_or(|it| *it == state), "{endpoint:?} was {state}");
            if now.contains_key(&endpoint) {
                assert_eq!(after.endpoint(state), before.endpoint(state));
            }
        }
    }
    for (before, after) in before.endpoints.iter().zip(&after.endpoints) {
        assert!(before.live == 0 || before == after, "{before:?} became {after:?}");
    }
    assert_eq!(before.lives, after.lives);
}

/// The model says what is desired and nothing else, and what is found in it may be remembered.
pub(super) fn check_exact(model: &Model, desired: &Desired) {
    assert!(model.era.is_open());
    for (key, expected) in expectations(model, desired) {
        assert_eq!(model.connect(&key), expected.after, "{key:?}");
        assert_eq!(expected.owner_before, expected.owner_after, "{key:?}");
    }
    let wanted: usize = desired.services.iter().map(|service| service.keys.len()).sum();
    assert_eq!(model.frontends.len(), wanted, "no frontend is left over");
    assert!(model.frontends.values().all(|it| it.until == Frontend::FOREVER), "no end is pending");
    let published = model.heads.iter().filter(|head| head.is_published()).count();
    assert_eq!(published, desired.services.len(), "no number is left over");
    let mut rest = Rest::default();
    let again = carry_out(&mut model.clone(), desired, &mut rest).expect("what is there fits");
    assert_eq!(again.len(), 1, "what is as it should be is not touched");
}

/// Services in both keep their number and what was counted for it.
fn check_counters(before: &Model, after: &Model, desired: &Desired) {
    for number in 0..CAPACITY.services {
        let record = before.record(number);
        let first = (0..number)
            .all(|other| before.record(other) != record || !before.head(other).is_published());
        let kept = desired.services.iter().any(|service| service.record == record);
        let at = number as usize;
        if before.head(number).is_published() && first && kept {
            assert_eq!(after.record(number), record);
            assert!(after.head(number).generation() >= before.head(number).generation());
            assert_eq!(after.counters[at], before.counters[at]);
        }
    }
}

pub(super) fn check_transition(
    model: &mut Model,
    desired: &Desired,
    rest: &mut Rest,
) -> Option<Vec<Model>> {
    let history = carry_out(model, desired, rest)?;
    check_history(&history, desired);
    Some(history)
}

/// Each of `history` is as it should be on the way to `desired`, and the last one says that.
pub(in crate::serve::tables) fn check_history(history: &[Model], desired: &Desired) {
    let after = history.last().unwrap();
    check_every_step(history, desired);
    check_cache(history);
    check_exact(after, desired);
    check_counters(&history[0], after, desired);
    check_endpoints(&history[0], after);
}
