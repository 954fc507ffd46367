//! The maps in memory, read the way the kernel programs read them, for tests.
//!
//! It also keeps what a real map cannot: which slots and numbers a program may still be reading. A
//! mutation that would change one of them under a reader panics.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_bpf::BpfError;
use holdfast_protocol::kernel::cache::Era;
use holdfast_protocol::kernel::endpoint::{EndpointState, Live};
use holdfast_protocol::kernel::{
    EndpointSlot, EnrolledKey, EnrolmentWord, Frontend, FrontendKey, HeadWord, ServiceRecord,
    policy,
};

use super::desired::Table;
use super::estate::{Capacity, Reader, Stamp, Writer};
use super::observe::{observe, states, table};
use super::slot::{self, Slot};

/// What a connection gets. A table stands for the whole distribution over its endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It passes untouched.
    Untouched,
    /// It gets what this table says.
    Governed(Table),
    /// It is refused because no look is settled.
    Unsettled,
}

/// What a lookup found: the number of a service and its head, or that the address is no service's.
pub type Found = Option<(u32, u64)>;

/// The maps.
#[derive(Clone, Debug)]
pub struct Model {
    pub capacity: Capacity,
    pub heads: Vec<HeadWord>,
    pub records: Vec<ServiceRecord>,
    pub slots: Vec<Slot>,
    pub frontends: BTreeMap<FrontendKey, Frontend>,
    pub era: Era,
    /// Connections counted per number, instead of per CPU.
    pub counters: Vec<u64>,
    pub enrolment: EnrolmentWord,
    pub enrolled: BTreeSet<EnrolledKey>,
    pub endpoints: Vec<EndpointState>,
    /// How many words of endpoints that drain the writer stores before it dies.
    pub stamps: usize,
    /// What is open and pending per number.
    pub lives: Vec<Live>,
    /// Slots that were in a published table since the last grace period.
    warm_slots: BTreeSet<u32>,
    /// Numbers that were published, or named by a frontend, since the last grace period.
    warm_numbers: BTreeSet<u32>,
    /// Endpoint numbers that a published table named since the last grace period.
    warm_endpoints: BTreeSet<u32>,
}

pub const NO_RECORD: ServiceRecord = ServiceRecord {
    service: [0; 64],
    port_name: [0; 16],
    port_be: 0,
    protocol: 0,
    family: 0,
    reserved: 0,
};

impl Model {
    pub fn new(capacity: Capacity) -> Self {
        let services = capacity.services as usize;
        Self {
            capacity,
            heads: vec![HeadWord::UNPUBLISHED; services],
            records: vec![NO_RECORD; services],
            slots: vec![slot::UNTOUCHED; capacity.slots as usize],
            frontends: BTreeMap::new(),
            era: Era::default(),
            counters: vec![0; services],
            enrolment: EnrolmentWord::default(),
            enrolled: BTreeSet::new(),
            endpoints: vec![EndpointState::default(); capacity.endpoints as usize],
            stamps: usize::MAX,
            lives: vec![Live::default(); services],
            warm_slots: BTreeSet::new(),
            warm_numbers: BTreeSet::new(),
            warm_endpoints: BTreeSet::new(),
        }
    }

    /// What the kernel program makes of a connection to `key`: `look` of `ebpf/src/decide.rs`.
    pub fn connect(&self, key: &FrontendKey) -> Outcome {
        let Some(frontend) = self.frontends.get(key) else {
            return Outcome::Untouched;
        };
        if frontend.tag != key.tag() || frontend.service >= self.capacity.services {
            return Outcome::Unsettled;
        }
        let head = self.heads[frontend.service as usize];
        if !head.is_published() || !frontend.in_force(head.generation()) {
            return Outcome::Untouched;
        }
        match table(self, frontend.service, head) {
            Some(mut table) => {
                states(self, frontend.service, &mut table);
                let is_row =
                    |it: &EndpointSlot| (it.address, it.port_be) == (key.address, key.port_be);
                if table.policy == policy::DIRECT && !table.endpoints.iter().any(is_row) {
                    return Outcome::Unsettled;
                }
                Outcome::Governed(table)
            }
            None => Outcome::Unsettled,
        }
    }

    /// What a program may remember of a lookup: `look_up` of `ebpf/src/cache.rs`. The service and its head, or that there
    /// is none; nothing, if there is one that is not in force.
    pub fn find(&self, key: &FrontendKey) -> Option<Found> {
        let Some(frontend) = self.frontends.get(key) else { return Some(None) };
        let head = self.heads[frontend.service as usize];
        let is_in_force = head.is_published() && frontend.in_force(head.generation());
        is_in_force.then_some(Some((frontend.service, head.0)))
    }

    /// A grace period passes: programs that run now have seen nothing from before it.
    pub fn pass_grace_period(&mut self) {
        self.warm_slots.clear();
        self.warm_numbers.clear();
        self.warm_endpoints.clear();
        self.warm_up();
    }

    /// Notes what a program that starts now can come to read.
    pub fn warm_up(&mut self) {
        let observed = observe(self).expect("a model is always readable");
        for service in &observed.services {
            let slots = service.range().map_or(0..0, |range| range.start..range.end());
            self.warm_slots.extend(slots);
            self.warm_numbers.insert(service.number);
            self.warm_endpoints.extend(&service.states);
        }
        self.warm_numbers.extend(self.frontends.values().map(|frontend| frontend.service));
    }

    fn warm_up_number(&mut self, number: u32) {
        self.warm_numbers.insert(number);
        let head = self.heads[number as usize];
        if head.is_published() {
            let header = slot::to_header(&self.slots[head.slot() as usize]);
            self.warm_slots.extend(head.slot()..=head.slot() + header.endpoints);
            if let Some(mut table) = table(self, number, head) {
                self.warm_endpoints.extend(states(self, number, &mut table));
            }
        }
    }
}

impl Reader for Model {
    fn capacity(&self) -> Capacity {
        self.capacity
    }

    fn head(&self, number: u32) -> HeadWord {
        self.heads[number as usize]
    }

    fn record(&self, number: u32) -> ServiceRecord {
        self.records[number as usize]
    }

    fn slot(&self, index: u32) -> Slot {
        self.slots[index as usize]
    }

    fn endpoint(&self, state: u32) -> EndpointState {
        self.endpoints[state as usize]
    }

    fn live(&self, number: u32) -> Live {
        self.lives[number as usize]
    }

    fn frontend(&self, key: &FrontendKey) -> Result<Option<Frontend>, BpfError> {
        Ok(self.frontends.get(key).copied())
    }

    fn frontends(&self) -> Result<Vec<(FrontendKey, Frontend)>, BpfError> {
        Ok(self.frontends.iter().map(|(key, frontend)| (*key, *frontend)).collect())
    }

    fn enrolment(&self) -> Result<(EnrolmentWord, Vec<EnrolledKey>), BpfError> {
        Ok((self.enrolment, self.enrolled.iter().copied().collect()))
    }
}

impl Writer for Model {
    fn write_slot(&mut self, index: u32, slot: Slot) {
        assert!(!self.warm_slots.contains(&index), "slot {index} was rewritten under a reader");
        self.slots[index as usize] = slot;
    }

    fn write_record(&mut self, number: u32, record: ServiceRecord) {
        assert!(!self.warm_numbers.contains(&number), "number {number} was reused under a reader");
        assert_eq!(self.live(number), Live(0), "number {number} was reused under a connection");
        self.era = self.era.ended();
        self.records[number as usize] = record;
    }

    fn publish(&mut self, number: u32, head: HeadWord) {
        self.heads[number as usize] = head;
        self.warm_up_number(number);
    }

    fn zero_counters(&mut self, number: u32) -> Result<(), BpfError> {
        assert!(!self.warm_numbers.contains(&number), "number {number} was reused under a reader");
        self.counters[number as usize] = 0;
        Ok(())
    }

    fn write_endpoint(&mut self, state: u32, endpoint: EndpointState) {
        assert!(state != 0, "number 0 is no endpoint's");
        assert!(
            !self.warm_endpoints.contains(&state),
            "endpoint {state} was reused under a reader"
        );
        let live = self.endpoints[state as usize].live;
        assert_eq!(live, 0, "endpoint {state} was reused under a connection");
        self.endpoints[state as usize] = EndpointState { live, ..endpoint };
    }

    fn stamp(&mut self, state: u32, stamp: Stamp) {
        let Some(left) = self.stamps.checked_sub(1) else { return };
        self.stamps = left;
        let endpoint = &mut self.endpoints[state as usize];
        match stamp {
            Stamp::Drains(value) => endpoint.drains_ns = value,
            Stamp::Closes(value) => endpoint.closes_ns = value,
        }
    }

    fn set_frontend(&mut self, key: &FrontendKey, frontend: Frontend) -> Result<(), BpfError> {
        self.era = self.era.ended();
        self.frontends.insert(*key, frontend);
        assert!(self.frontends.len() <= self.capacity.frontends as usize, "FRONTENDS is full");
        self.warm_numbers.insert(frontend.service);
        Ok(())
    }

    fn delete_frontend(&mut self, key: &FrontendKey) -> Result<(), BpfError> {
        self.era = self.era.ended();
        self.frontends.remove(key);
        Ok(())
    }

    fn begin_era(&mut self) {
        if !self.era.is_open() {
            self.era = self.era.next();
        }
    }

    fn list(&mut self, key: &EnrolledKey) -> Result<(), BpfError> {
        self.enrolled.insert(*key);
        Ok(())
    }

    fn strike(&mut self, key: &EnrolledKey) -> Result<(), BpfError> {
        self.enrolled.remove(key);
        Ok(())
    }

    fn publish_enrolment(&mut self, word: EnrolmentWord) {
        self.enrolment = word;
    }
}
