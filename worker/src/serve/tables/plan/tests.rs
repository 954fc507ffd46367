//! Plans are carried out on a model of the maps, one mutation at a time, and after each mutation
//! every connection is tried.
#![expect(clippy::unwrap_used, reason = "in a test, what is not there is a failure")]

use std::collections::{BTreeMap, BTreeSet};

use holdfast_protocol::kernel::endpoint::{EndpointState, Live};
use holdfast_protocol::kernel::{
    Address, EndpointSlot, EnrolledKey, EnrolmentWord, Frontend, FrontendKey, HeadWord,
    PROTOCOL_TCP, ServiceRecord, mapped, policy,
};
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::serve::tables::apply::Application;
use crate::serve::tables::desired::{DesiredService, Table};
use crate::serve::tables::estate::{Capacity, Reader as _, Stamp, Writer};
use crate::serve::tables::model::{Found, Model, NO_RECORD, Outcome};
use crate::serve::tables::observe::observe;
use crate::serve::tables::rest::Rest;

mod checks;

pub(in crate::serve::tables) use self::checks::check_history;
use self::checks::{check_cache, check_every_step, check_exact, check_transition};

/// Services and addresses that configurations are made of: few, so that they meet often.
const NAMES: u8 = 5;
const ADDRESSES: u8 = 8;

/// Tight, so that slots and numbers are reused all the time and some configurations do not fit.
pub(in crate::serve::tables) const CAPACITY: Capacity =
    Capacity { services: 8, slots: 34, frontends: 14, endpoints: 20 };

fn key(address: u8) -> FrontendKey {
    FrontendKey {
        address: mapped(u32::from_ne_bytes([127, 96, 0, address])),
        port_be: 80_u16.to_be(),
        protocol: PROTOCOL_TCP,
        reserved: 0,
    }
}

fn keys() -> impl Iterator<Item = FrontendKey> {
    (0..ADDRESSES).map(key)
}

fn record(name: u8) -> ServiceRecord {
    let mut record = ServiceRecord { protocol: PROTOCOL_TCP, family: 4, ..NO_RECORD };
    record.service[0] = b'a' + name;
    record
}

fn table(ports: &[u16]) -> Table {
    let endpoint = |port: &u16| EndpointSlot {
        address: mapped(u32::from_ne_bytes([127, 0, 0, 1])),
        port_be: port.to_be(),
        weight: 1,
        threshold: u32::MAX,
        alias: 0,
        state: EndpointSlot::NO_STATE,
    };
    let endpoints = ports.iter().map(endpoint).collect();
    Table { policy: policy::RANDOM, no_endpoint_errno: 111, endpoints, ..Table::default() }
}

fn service(name: u8, addresses: &[u8], ports: &[u16]) -> DesiredService {
    let keys = addresses.iter().map(|address| key(*address)).collect();
    DesiredService { record: record(name), keys, table: table(ports) }
}

/// One whose endpoints are asked for by their own addresses: those in `own`, which lead there, and those in
/// `kept`, which lead to somebody else. Of two neighbours the second may be the other's alias.
fn direct(name: u8, own: &[u8], kept: &[u8], aliases: u8) -> DesiredService {
    let mut record = ServiceRecord { family: ServiceRecord::DIRECT, ..record(name) };
    record.service[0] = b'A' + name;
    let keys: Vec<FrontendKey> = own.iter().map(|address| key(*address)).collect();
    let mut rows: Vec<FrontendKey> =
        keys.iter().copied().chain(kept.iter().map(|address| key(*address))).collect();
    rows.sort_by_key(|key| EndpointSlot::rank(&key.address, key.port_be));
    rows.dedup();
    let is_alias = |row: u32| row % 2 == 1 && aliases >> (row / 2 % 8) & 1 == 1;
    let endpoint = |(row, key): (u32, &FrontendKey)| EndpointSlot {
        address: key.address,
        port_be: key.port_be,
        weight: 0,
        threshold: 0,
        alias: if is_alias(row) { row - 1 } else { row },
        state: EndpointSlot::NO_STATE,
    };
    let endpoints = (0..).zip(&rows).map(endpoint).collect();
    let table =
        Table { policy: policy::DIRECT, no_endpoint_errno: 111, endpoints, ..Table::default() };
    DesiredService { record, keys, table }
}

fn desired(services: &[(u8, &[u8], &[u16])]) -> Desired {
    let services = services
        .iter()
        .map(|(name, addresses, ports)| service(*name, addresses, ports).into())
        .collect();
    Desired { services }
}

pub(in crate::serve::tables) fn any_desired() -> impl Strategy<Value = Desired> {
    let ports = prop::option::weighted(0.7, prop::collection::vec(1_u16..5, 0..4));
    let shared = prop::collection::vec(0..ADDRESSES, 0..3);
    let direct_ones = prop::option::weighted(0.3, (shared, any::<u8>()));
    let services = prop::collection::vec((ports, direct_ones), NAMES as usize);
    let owners = prop::collection::vec(0..NAMES + 2, ADDRESSES as usize);
    (services, owners).prop_map(|(services, owners)| {
        let wanted = (0..NAMES).zip(services).filter_map(|(name, (ports, is_direct))| {
            let owned = (0..ADDRESSES).filter(|address| owners[*address as usize] == name);
            let owned: Vec<u8> = owned.collect();
            let ports = ports?;
            let service = match is_direct {
                Some((kept, aliases)) => direct(name, &owned, &kept, aliases),
                None => service(name, &owned, &ports),
            };
            Some(service.into())
        });
        Desired { services: wanted.collect() }
    })
}

/// Keeps the model as it was after each mutation.
struct Recorder {
    model: Model,
    history: Vec<Model>,
}

impl Recorder {
    fn after<T>(&mut self, mutate: impl FnOnce(&mut Model) -> T) -> T {
        let answer = mutate(&mut self.model);
        self.history.push(self.model.clone());
        answer
    }
}

impl Writer for Recorder {
    fn write_slot(&mut self, index: u32, slot: super::super::slot::Slot) {
        self.after(|model| model.write_slot(index, slot));
    }

    fn write_record(&mut self, number: u32, record: ServiceRecord) {
        self.after(|model| model.write_record(number, record));
    }

    fn publish(&mut self, number: u32, head: HeadWord) {
        self.after(|model| model.publish(number, head));
    }

    fn zero_counters(&mut self, number: u32) -> Result<(), holdfast_bpf::BpfError> {
        self.after(|model| model.zero_counters(number))
    }

    fn write_endpoint(&mut self, state: u32, endpoint: EndpointState) {
        self.after(|model| model.write_endpoint(state, endpoint));
    }

    fn stamp(&mut self, state: u32, stamp: Stamp) {
        self.after(|model| model.stamp(state, stamp));
    }

    fn set_frontend(
        &mut self,
        key: &FrontendKey,
        frontend: Frontend,
    ) -> Result<(), holdfast_bpf::BpfError> {
        self.after(|model| model.set_frontend(key, frontend))
    }

    fn delete_frontend(&mut self, key: &FrontendKey) -> Result<(), holdfast_bpf::BpfError> {
        self.after(|model| model.delete_frontend(key))
    }

    fn begin_era(&mut self) {
        if !self.model.era.is_open() {
            self.after(Writer::begin_era);
        }
    }

    fn list(&mut self, key: &EnrolledKey) -> Result<(), holdfast_bpf::BpfError> {
        self.after(|model| model.list(key))
    }

    fn strike(&mut self, key: &EnrolledKey) -> Result<(), holdfast_bpf::BpfError> {
        self.after(|model| model.strike(key))
    }

    fn publish_enrolment(&mut self, word: EnrolmentWord) {
        self.after(|model| model.publish_enrolment(word));
    }
}

/// Plans and carries out. The models after each mutation, the first being the one before all;
/// `None` when it does not fit.
fn carry_out(model: &mut Model, desired: &Desired, rest: &mut Rest) -> Option<Vec<Model>> {
    let observed = observe(model).unwrap();
    let first = plan(&observed, desired, &mut rest.space(model, &observed));
    let plan = match first {
        Ok(plan) => plan,
        Err(error) if error.is_space() && rest.is_resting() => {
            model.pass_grace_period();
            rest.end();
            plan(&observed, desired, &mut rest.space(model, &observed)).ok()?
        }
        Err(_) => return None,
    };
    Some(record_all(model, plan, desired, rest))
}

/// Carries `plan` out. The models after each mutation, the first being the one before all.
pub(in crate::serve::tables) fn record_all(
    model: &mut Model,
    plan: Plan,
    desired: &Desired,
    rest: &mut Rest,
) -> Vec<Model> {
    let mut recorder = Recorder { history: vec![model.clone()], model: model.clone() };
    let mut application = Application::new(plan);
    assert!(application.advance(desired, &mut recorder, usize::MAX).unwrap());
    rest.begin(application.into_freed());
    *model = recorder.model;
    recorder.history
}

/// A connection that opens on, or closes from, some endpoint that has a number.
fn connect_or_close(model: &mut Model, open: &mut Vec<(u32, u32)>, noise: u64) {
    let services = observe(model).unwrap().services;
    let numbered = services.iter().flat_map(|service| {
        service.states.iter().map(|state| (service.number, *state)).collect::<Vec<_>>()
    });
    let all: Vec<(u32, u32)> = numbered.collect();
    let at = usize::try_from(noise >> 1).unwrap();
    let (change, (number, state)) = match (noise % 2, all.is_empty(), open.is_empty()) {
        (0, false, _) => {
            open.push(all[at % all.len()]);
            (Live::OPEN, all[at % all.len()])
        }
        (_, _, false) => (Live::OPEN.wrapping_neg(), open.swap_remove(at % open.len())),
        _ => return,
    };
    let (endpoint, service) = (state as usize, number as usize);
    model.endpoints[endpoint].live = model.endpoints[endpoint].live.wrapping_add(change);
    model.endpoints[endpoint].established += 1;
    model.lives[service] = Live(model.lives[service].0.wrapping_add(change));
}

/// An empty estate on which `desired` is carried out.
fn programmed(desired: &Desired) -> Model {
    let mut model = Model::new(CAPACITY);
    check_transition(&mut model, desired, &mut Rest::default()).expect("fits");
    (0..).zip(&mut model.counters).for_each(|(number, counter)| *counter = 1000 + number);
    model
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// One worker, one configuration after the other: slots and numbers are reused, never too soon.
    #[test]
    fn every_prefix_is_wholly_old_or_wholly_new(
        configurations in prop::collection::vec(any_desired(), 1..6)
    ) {
        let mut model = Model::new(CAPACITY);
        let mut rest = Rest::default();
        for desired in configurations {
            model.counters.iter_mut().for_each(|counter| *counter += 1);
            check_transition(&mut model, &desired, &mut rest);
        }
    }

    /// A writer dies at any mutation, its successor at another, and so on; whoever comes last puts
    /// in force exactly what it is told, without a step between old and new.
    #[test]
    fn a_successor_repairs_whatever_a_dead_writer_left(
        lives in prop::collection::vec((any_desired(), any::<Index>()), 1..5),
        last in any_desired(),
    ) {
        let mut model = Model::new(CAPACITY);
        let mut all = Vec::new();
        for (desired, death) in lives {
            if let Some(history) = check_transition(&mut model, &desired, &mut Rest::default()) {
                all.extend_from_slice(&history[..=death.index(history.len())]);
                model = all.last().unwrap().clone();
            }
        }
        all.extend(check_transition(&mut model, &last, &mut Rest::default()).unwrap_or_default());
        check_cache(&all);
    }

    /// Connections open and close meanwhile, and live longer than what they were sent to.
    #[test]
    fn connections_are_counted_for_what_they_were_sent_to(
        steps in prop::collection::vec(
            (any_desired(), prop::collection::vec(0_u64..64, 0..6), any::<Index>()),
            1..6,
        ),
    ) {
        let mut model = Model::new(CAPACITY);
        let mut open = Vec::new();
        for (desired, connections, death) in steps {
            if let Some(history) = check_transition(&mut model, &desired, &mut Rest::default()) {
                model = death.get(&history).clone();
            }
            for noise in connections {
                connect_or_close(&mut model, &mut open, noise);
            }
        }
        while !open.is_empty() {
            connect_or_close(&mut model, &mut open, 1);
        }
        prop_assert!(model.endpoints.iter().all(|endpoint| endpoint.live == 0));
        prop_assert!(model.lives.iter().all(|live| *live == Live(0)));
    }

    /// Memory that nobody wrote on purpose: whatever stands in the maps, the plan ends it.
    #[test]
    fn damage_is_repaired(
        before in any_desired(),
        damage in prop::collection::vec((0_u8..5, any::<Index>(), any::<u64>()), 1..6),
        after in any_desired(),
    ) {
        let mut model = Model::new(CAPACITY);
        check_transition(&mut model, &before, &mut Rest::default());
        for (kind, place, noise) in damage {
            harm(&mut model, kind, place, noise);
        }
        model.pass_grace_period();
        let mut rest = Rest::default();
        rest.end();
        if let Some(history) = carry_out(&mut model, &after, &mut rest) {
            check_exact(history.last().unwrap(), &after);
        }
    }
}

/// Does to the maps what no writer does.
fn harm(model: &mut Model, kind: u8, place: Index, noise: u64) {
    let number = place.index(model.heads.len());
    let small = u32::try_from(noise % 64).unwrap();
    match kind {
        0 => model.heads[number] = HeadWord::new(small, u32::try_from(noise % 3).unwrap()),
        1 => model.slots[place.index(CAPACITY.slots as usize)][..8]
            .copy_from_slice(&noise.to_ne_bytes()),
        2 => model.records[number] = record(u8::try_from(noise % 6).unwrap()),
        3 => {
            let key = key(u8::try_from(place.index(ADDRESSES as usize)).unwrap());
            let tag = if noise.is_multiple_of(2) { key.tag() } else { small };
            let (from, until) = (small % 3, small % 5);
            let frontend = Frontend { service: small % 12, tag, from, until };
            if model.frontends.len() < CAPACITY.frontends as usize {
                model.frontends.insert(key, frontend);
            }
        }
        _ => {
            let key = key(u8::try_from(place.index(ADDRESSES as usize)).unwrap());
            model.frontends.remove(&key);
        }
    }
}

fn operations(model: &Model, desired: &Desired) -> Vec<Operation> {
    let observed = observe(model).unwrap();
    let rest = Rest::default();
    plan(&observed, desired, &mut rest.space(model, &observed)).expect("fits").operations
}

#[test]
fn an_unchanged_configuration_is_no_mutation() {
    let desired = desired(&[(0, &[0, 1], &[1, 2]), (1, &[2], &[])]);
    assert_eq!(operations(&programmed(&desired), &desired), []);
}

#[test]
fn only_the_changed_service_is_touched() {
    let model = programmed(&desired(&[(0, &[0], &[1]), (1, &[1], &[2])]));
    let changed = desired(&[(0, &[0], &[1]), (1, &[1], &[3])]);
    assert_eq!(
        operations(&model, &changed),
        [
            Operation::NumberEndpoint { state: 3, number: 1, service: 1, endpoint: 0 },
            Operation::WriteTable {
                number: 1,
                generation: 2,
                slot: 4,
                service: 1,
                states: vec![3],
            },
            Operation::Publish(1, HeadWord::new(4, 2)),
        ]
    );
}

#[test]
fn a_renamed_service_hands_its_address_over_before_it_goes() {
    let mut model = programmed(&desired(&[(0, &[0], &[1])]));
    let renamed = desired(&[(1, &[0], &[1])]);
    let frontend = Frontend { service: 1, tag: key(0).tag(), from: 1, until: Frontend::FOREVER };
    assert_eq!(
        operations(&model, &renamed),
        [
            Operation::WriteRecord { number: 1, service: 0 },
            Operation::ZeroCounters(1),
            Operation::NumberEndpoint { state: 2, number: 1, service: 0, endpoint: 0 },
            Operation::WriteTable {
                number: 1,
                generation: 1,
                slot: 2,
                service: 0,
                states: vec![2],
            },
            Operation::Publish(1, HeadWord::new(2, 1)),
            Operation::SetFrontend(key(0), frontend),
            Operation::Publish(0, HeadWord::UNPUBLISHED),
        ]
    );
    check_transition(&mut model, &renamed, &mut Rest::default()).expect("fits");
}

#[test]
fn several_addresses_come_and_go_in_one_step() {
    let mut model = programmed(&desired(&[(0, &[0, 1, 2], &[1])]));
    let other = desired(&[(0, &[2, 3, 4], &[1])]);
    let history = check_transition(&mut model, &other, &mut Rest::default()).expect("fits");
    let seen = |model: &Model| keys().map(|key| model.connect(&key)).collect::<Vec<_>>();
    let mut states: Vec<_> = history.iter().map(seen).collect();
    states.dedup();
    assert_eq!(states.len(), 2, "there is nothing between the old and the new");
}

#[test]
fn the_giver_of_an_address_is_published_after_its_receiver() {
    let mut model = programmed(&desired(&[(0, &[0, 1], &[1]), (1, &[2], &[2])]));
    let moved = desired(&[(0, &[0], &[3]), (1, &[1, 2], &[4])]);
    let published: Vec<u32> = operations(&model, &moved)
        .into_iter()
        .filter_map(|operation| match operation {
            Operation::Publish(number, _) => Some(number),
            _ => None,
        })
        .collect();
    assert_eq!(published, [1, 0]);
    check_transition(&mut model, &moved, &mut Rest::default()).expect("fits");
}

#[test]
fn addresses_that_change_places_lead_somewhere_at_every_step() {
    let mut model = programmed(&desired(&[(0, &[0], &[1]), (1, &[1], &[2])]));
    let swapped = desired(&[(0, &[1], &[3]), (1, &[0], &[4])]);
    let history = check_transition(&mut model, &swapped, &mut Rest::default()).expect("fits");
    for model in &history {
        assert!(matches!(model.connect(&key(0)), Outcome::Governed(_)));
        assert!(matches!(model.connect(&key(1)), Outcome::Governed(_)));
    }
}

#[test]
fn an_address_that_becomes_another_endpoints_is_one_step() {
    let before = Desired { services: vec![direct(0, &[0, 1, 2, 3], &[], 0).into()].into() };
    let after = Desired { services: vec![direct(0, &[0, 1, 2, 3], &[], 0b10).into()].into() };
    let mut model = programmed(&before);
    let history = check_transition(&mut model, &after, &mut Rest::default()).expect("fits");
    let seen = |model: &Model| keys().map(|key| model.connect(&key)).collect::<Vec<_>>();
    let mut states: Vec<_> = history.iter().map(seen).collect();
    states.dedup();
    assert_eq!(states.len(), 2, "there is nothing between the old and the new");
    let observed = observe(&model).unwrap();
    let states = &observed.services[0].states;
    assert_eq!((states[0] == states[1], states[2] == states[3]), (false, true), "{states:?}");
}

#[test]
fn an_endpoint_that_two_services_have_leads_to_the_other_without_a_gap() {
    let before = [direct(0, &[0, 1], &[], 0).into(), direct(1, &[2], &[0, 1], 0).into()];
    let mut model = programmed(&Desired { services: before.to_vec().into() });
    let [_, other] = before;
    let number = observe(&model).unwrap().services[1].number;
    let after = Desired { services: vec![direct(1, &[0, 1, 2], &[], 0).into()].into() };
    assert_eq!(after.services[0].table, other.table);
    let history = check_transition(&mut model, &after, &mut Rest::default()).expect("fits");
    for model in &history {
        let governed = keys().take(3).map(|key| model.connect(&key));
        assert!(governed.into_iter().all(|it| matches!(it, Outcome::Governed(_))));
    }
    let others = history.iter().map(|model| model.heads[number as usize]);
    assert!(others.into_iter().all(|head| head == history[0].heads[number as usize]));
}

/// In a circle the giver is published before the move, which must not end what a dead writer had
/// meant to end.
#[test]
fn an_end_that_a_dead_writer_decided_does_not_come_true_before_a_move() {
    let mut model = programmed(&desired(&[(0, &[0], &[1]), (1, &[1], &[2])]));
    for address in [0, 1] {
        let frontend = model.frontends.get_mut(&key(address)).unwrap();
        frontend.until = HeadWord::FIRST_GENERATION + 1;
    }
    let swapped = desired(&[(0, &[1], &[3]), (1, &[0], &[4])]);
    check_transition(&mut model, &swapped, &mut Rest::default()).expect("fits");
}

#[test]
fn a_number_without_generations_left_is_given_up() {
    let mut model = programmed(&desired(&[(0, &[0], &[1])]));
    let last = HeadWord::new(model.heads[0].slot(), HeadWord::LAST_GENERATION);
    let at = last.slot() as usize;
    model.heads[0] = last;
    model.slots[at][4..8].copy_from_slice(&HeadWord::LAST_GENERATION.to_ne_bytes());
    model.warm_up();
    assert_eq!(operations(&model, &desired(&[(0, &[0], &[1])])), [], "it may stay");
    let changed = desired(&[(0, &[0], &[2])]);
    let history = carry_out(&mut model, &changed, &mut Rest::default()).expect("fits");
    check_every_step(&history, &changed);
    check_exact(history.last().unwrap(), &changed);
    assert_eq!(history.last().unwrap().heads[0], HeadWord::UNPUBLISHED);
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let refused = |desired: &Desired| {
        let model = Model::new(CAPACITY);
        let observed = observe(&model).unwrap();
        let rest = Rest::default();
        let error = plan(&observed, desired, &mut rest.space(&model, &observed)).unwrap_err();
        (error.to_string(), error)
    };
    let (text, error) = refused(&desired(&[(0, &[], &[1; 30]), (1, &[], &[1; 30])]));
    assert!(text.contains("service b, port "), "{text}");
    let label = "b, port  (0/tcp, IPv4)".to_owned();
    let slots = DoesNotFit::Slots { service: label, needed: 31, longest: 3, free: 3 };
    assert_eq!(error, slots);
    let many: Vec<(u8, &[u8], &[u16])> = (0..9).map(|name| (name, &[][..], &[][..])).collect();
    let (text, error) = refused(&desired(&many));
    assert!(matches!(error, DoesNotFit::Numbers { .. }), "{text}");
    assert!(text.contains("service i, port "), "{text}");
    let all: Vec<u8> = (0..15).collect();
    let (text, error) = refused(&desired(&[(0, &all[..7], &[]), (1, &all[7..], &[])]));
    assert!(matches!(error, DoesNotFit::Frontends { capacity: 14, .. }), "{text}");
    assert!(text.contains("service b, port "), "{text}");
    // The first of twenty endpoint numbers is nobody's.
    let ports: Vec<u16> = (1..=20).collect();
    let (text, error) = refused(&desired(&[(0, &[], &ports)]));
    assert!(matches!(error, DoesNotFit::Endpoints { capacity: 19, .. }), "{text}");
    let model = Model::new(CAPACITY);
    let (observed, rest) = (observe(&model).unwrap(), Rest::default());
    let fits = desired(&[(0, &[], &ports[1..])]);
    assert!(plan(&observed, &fits, &mut rest.space(&model, &observed)).is_ok());
}
