//! Maps that a writer changes between any two reads, for tests of what is decided by them.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::vec;
use std::vec::Vec;

use holdfast_protocol::kernel::{
    Address, Affinity, AffinityKey, Frontend, FrontendKey, HeadWord, LOOKUP_PER_SLOT, PROTOCOL_TCP,
    SETTINGS_SLOTS, TableHeader, feature, mapped, policy,
};

use crate::affinity::Affinities;
use crate::cache::{self, Known};
use crate::client::Clients;
use crate::decide::{
    self, Addresses, Decision, ECONNREFUSED, Inquiry, Look, Looks, NO_ROW, NoPast, Slots, Tables,
    look,
};
use crate::flow;
use crate::recent::Stand;
use crate::socket::{Peer, Reach};
use crate::words::{self, AffinityWords, FrontendWords, Slot, word};

pub(crate) const SERVICE: u32 = 1;
pub(crate) const OTHER: u32 = 2;
pub(crate) const KEY: FrontendKey = key(10);
pub(crate) const OTHER_KEY: FrontendKey = key(11);

pub(crate) const fn key(host: u8) -> FrontendKey {
    let address = mapped(u32::from_le_bytes([127, 96, 0, host]));
    FrontendKey { address, port_be: 80_u16.to_be(), protocol: PROTOCOL_TCP, reserved: 0 }
}

/// The maps' contents.
pub(crate) struct Memory {
    /// What is known of the key that is asked for.
    pub(crate) known: Option<Known>,
    /// The era; `None` once it has ended, which it does before anything is changed but heads and slots.
    era: Option<()>,
    pub(crate) elements: HashMap<FrontendKey, usize>,
    pub(crate) pool: Vec<FrontendWords>,
    pub(crate) heads: Vec<HeadWord>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) affinities: HashMap<AffinityKey, usize>,
    pub(crate) remembered: Vec<AffinityWords>,
    pub(crate) recents: HashMap<AffinityKey, Stand>,
    /// What is open and pending at the endpoint with this number, which is also its host.
    pub(crate) live: Vec<u64>,
}

pub(crate) type Step = fn(&mut Memory);

/// Maps that a writer changes: step `i` of `script` happens just before read number `at[i]`.
pub(crate) struct Race<'a> {
    pub(crate) memory: RefCell<Memory>,
    script: &'a [Step],
    at: &'a [usize],
    next: Cell<usize>,
    pub(crate) reads: Cell<usize>,
    pub(crate) random: RefCell<Vec<u32>>,
    pub(crate) turns: Cell<u64>,
    /// Whether what is not known is looked up first, to be known from then on.
    pub(crate) learns: Cell<bool>,
    pub(crate) client: Cell<u64>,
    pub(crate) kept: Cell<Option<(AffinityKey, Affinity)>>,
}

impl<'a> Race<'a> {
    pub(crate) fn new(script: &'a [Step], at: &'a [usize]) -> Self {
        Self {
            memory: RefCell::new(Memory::new()),
            script,
            at,
            next: Cell::new(0),
            reads: Cell::new(0),
            random: RefCell::new(Vec::new()),
            turns: Cell::new(0),
            learns: Cell::new(false),
            client: Cell::new(0),
            kept: Cell::new(None),
        }
    }

    fn read<R>(&self, take: impl FnOnce(&Memory) -> R) -> R {
        let read = self.reads.replace(self.reads.get() + 1);
        while self.next.get() < self.script.len() && self.at[self.next.get()] <= read {
            let step = self.script[self.next.replace(self.next.get() + 1)];
            self.memory.borrow_mut().change(step);
        }
        take(&self.memory.borrow())
    }
}

impl Clients for Race<'_> {
    fn cgroup(&self) -> u64 {
        self.client.get()
    }
    fn network_namespace(&self) -> u64 {
        1000 + self.client.get()
    }
    fn bound(&self) -> Address {
        [0; 4]
    }
}

impl Slots for Race<'_> {
    type Slot = u32;

    fn slot(&self, index: u32) -> Option<u32> {
        (index < u32::try_from(self.memory.borrow().slots.len()).unwrap()).then_some(index)
    }
    fn slot_word(&self, slot: u32, word: usize) -> u64 {
        self.read(|memory| memory.slots[slot as usize][word])
    }
}

impl Affinities for Race<'_> {
    type Affinity = usize;

    fn affinity(&self, key: &AffinityKey) -> Option<usize> {
        self.read(|memory| memory.affinities.get(key).copied())
    }
    fn affinity_word(&self, affinity: usize, word: usize) -> u64 {
        self.read(|memory| memory.remembered[affinity][word])
    }
    fn extend(&self, affinity: usize, until: u64) {
        self.memory.borrow_mut().remembered[affinity][words::AFFINITY_UNTIL] = until;
    }
    fn remember(&self, key: &AffinityKey, affinity: &Affinity) {
        self.kept.set(Some((*key, *affinity)));
    }
    fn recent(&self, key: &AffinityKey) -> Option<Stand> {
        self.read(|memory| memory.recents.get(key).copied())
    }
    fn note(&self, key: &AffinityKey, stand: &Stand) {
        self.memory.borrow_mut().recents.insert(*key, *stand);
    }
    fn now(&self) -> u64 {
        NOW
    }
}

impl Addresses for Race<'_> {
    type Element = usize;

    fn element(&self, key: &FrontendKey) -> Option<usize> {
        self.read(|memory| memory.elements.get(key).copied())
    }
    fn element_word(&self, element: usize, word: usize) -> u64 {
        self.read(|memory| memory.pool[element][word])
    }
    fn head(&self, service: u32) -> Option<HeadWord> {
        self.read(|memory| memory.heads.get(service as usize).copied())
    }
}

impl Tables for Race<'_> {
    fn known(&self, key: &FrontendKey) -> Option<Known> {
        let (known, era) = self.read(|memory| (memory.known, memory.era));
        if known.is_some() || !self.learns.get() || era.is_none() {
            return known;
        }
        // As a program learns: what it looks up counts only if the era has not ended meanwhile.
        let found = cache::look_up(self, key);
        if self.memory.borrow().era == era { found } else { None }
    }
    fn live(&self, state: u32) -> u64 {
        self.read(|memory| memory.live[state as usize])
    }
    fn random(&self) -> u32 {
        self.random.borrow_mut().pop().unwrap_or(0)
    }
    fn turn(&self, service: u32) -> u64 {
        assert_eq!(service, SERVICE);
        self.turns.replace(self.turns.get() + 1)
    }
    fn search(&self, first: u32, rows: u32, endpoint: &Peer) -> u32 {
        (0..rows).find(|row| flow::holds(self, first + row, endpoint)).unwrap_or(NO_ROW)
    }
}

impl Looks for Race<'_> {
    fn look(&self, inquiry: &mut Inquiry) -> Look {
        Look::numbered(look(self, &NoPast, inquiry) as u32)
    }
}

/// What becomes of a connection to `key`.
pub(crate) fn decide(race: &Race<'_>, key: &FrontendKey, reach: Reach) -> Decision {
    let mut inquiry = Inquiry::new(*key, reach);
    decide::decide(race, &mut inquiry);
    inquiry.decision
}

impl Memory {
    /// One service at generation 1 with the endpoints 1 and 2, led to by `KEY`.
    fn new() -> Self {
        let mut memory = Self {
            known: None,
            era: Some(()),
            elements: HashMap::from([(KEY, 0)]),
            pool: vec![[0; 2]; 3],
            heads: vec![HeadWord::UNPUBLISHED; 4],
            slots: vec![[0; 4]; 12],
            affinities: HashMap::new(),
            remembered: Vec::new(),
            recents: HashMap::new(),
            live: vec![0; 16],
        };
        memory.pool[0] = frontend(&KEY, SERVICE, 1, Frontend::FOREVER);
        memory.table(0, SERVICE, 1, policy::RANDOM, &[1, 2]);
        memory.heads[SERVICE as usize] = HeadWord::new(0, 1);
        memory
    }

    /// Takes a step. If it changes where addresses lead, the era is over, and nothing is known any more.
    fn change(&mut self, step: Step) {
        let before = (self.elements.clone(), self.pool.clone());
        step(self);
        if before != (self.elements.clone(), self.pool.clone()) {
            (self.known, self.era) = (None, None);
        }
    }

    pub(crate) fn table(
        &mut self,
        slot: usize,
        service: u32,
        generation: u32,
        policy: u8,
        hosts: &[u8],
    ) {
        self.slots[slot] = header(service, generation, hosts.len(), ECONNREFUSED, policy);
        for (row, host) in hosts.iter().enumerate() {
            self.slots[slot + 1 + row] = endpoint_slot(*host, u32::MAX, row);
        }
    }
}

/// What the clock says.
pub(crate) const NOW: u64 = 1_000_000_000;
/// How long a client stays, in milliseconds.
pub(crate) const STAY_MS: u32 = 500;
/// Who connects, as `AFFINITIES` knows it.
pub(crate) const CLIENT: AffinityKey = AffinityKey { service: SERVICE, by: 0, client: [0, 0] };

impl Memory {
    /// A random table with settings and affinity, and the endpoints `hosts`.
    pub(crate) fn sticky(&mut self, slot: usize, generation: u32, hosts: &[u8]) {
        self.slots.resize(self.slots.len().max(slot + 3 + hosts.len()), [0; 4]);
        self.slots[slot] = header(SERVICE, generation, hosts.len(), 0, policy::RANDOM);
        self.slots[slot][words::HEADER_SHAPE] |= u64::from(feature::AFFINITY) << 56;
        self.slots[slot][words::HEADER_EXTENT] = word(SETTINGS_SLOTS, 0);
        self.slots[slot + 1] = [0, 0, 0, word(STAY_MS, 0)];
        for (row, host) in hosts.iter().enumerate() {
            self.slots[slot + 3 + row] = endpoint_slot(*host, 0, row);
        }
    }

    /// The client was last sent to `host` at `row`, and stays there until `until`.
    pub(crate) fn remember(&mut self, host: u8, row: u32, until: u64) {
        let [high, low, port, _] = endpoint_slot(host, row, 0);
        self.affinities.insert(CLIENT, self.remembered.len());
        self.remembered.push([high, low, port, until]);
    }
}

/// Entries of the lookup tables here: more than a slot has, and an odd number.
pub(crate) const ENTRIES: u32 = 11;

impl Memory {
    /// A table with settings, the endpoints `hosts` and a lookup table whose entries go round them.
    pub(crate) fn maglev(&mut self, slot: usize, generation: u32, hash_by: u8, hosts: &[u8]) {
        self.slots[slot] = header(SERVICE, generation, hosts.len(), 0, policy::MAGLEV);
        self.slots[slot][words::HEADER_EXTENT] = word(SETTINGS_SLOTS, ENTRIES);
        let by = u32::from(hash_by) << 16;
        self.slots[slot + 1] = [0, 0, 0, word(0, by)];
        let first = slot + 1 + SETTINGS_SLOTS as usize;
        for (row, host) in hosts.iter().enumerate() {
            self.slots[first + row] = endpoint_slot(*host, 0, row);
        }
        let rows = u32::try_from(hosts.len()).unwrap();
        for entry in 0..ENTRIES {
            let place = (entry / LOOKUP_PER_SLOT) as usize;
            let word = &mut self.slots[first + hosts.len() + place][(entry % 8 / 2) as usize];
            let row = u64::from(entry % rows + 1);
            *word = if entry % 2 == 0 { row } else { *word | row << 32 };
        }
    }
}

pub(crate) fn frontend(key: &FrontendKey, service: u32, from: u32, until: u32) -> FrontendWords {
    [word(service, key.tag()), word(from, until)]
}

pub(crate) fn header(service: u32, generation: u32, rows: usize, errno: u16, policy: u8) -> Slot {
    let rest = u32::from(errno) | (u32::from(policy) << 16);
    let rows = u32::try_from(rows).unwrap();
    [TableHeader::identity(service, generation), word(rows, rest), 0, 0]
}

pub(crate) fn peer(host: u8) -> Peer {
    Peer {
        address: mapped(u32::from_le_bytes([127, 0, 0, host])),
        port_be: (8000 + u16::from(host)).to_be(),
    }
}

pub(crate) fn endpoint_slot(host: u8, threshold: u32, alias: usize) -> Slot {
    let Peer { address, port_be } = peer(host);
    [
        word(address[0], address[1]),
        word(address[2], address[3]),
        word(u32::from(port_be) | (1 << 16), threshold),
        word(u32::try_from(alias).unwrap(), u32::from(host)),
    ]
}
