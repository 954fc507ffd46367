//! The real maps of the estate.
//!
//! A worker starts with [`ShadowMaps`], which can only be read: the arrays are mapped read-only, and
//! there is no method that writes. [`ShadowMaps::grant`] turns them into [`GrantedMaps`], the only
//! [`Writer`] there is; releasing turns them back.

use holdfast_bpf::BpfError;
use holdfast_bpf::map::{HashMap, PerCpuArray};
use holdfast_bpf::mapped::MappedArray;
use holdfast_bpf::ring::RingBuffer;
use holdfast_protocol::kernel::cache::{CacheLine, Era};
use holdfast_protocol::kernel::endpoint::{EndpointState, Live};
use holdfast_protocol::kernel::event::{EventControl, Wanted};
use holdfast_protocol::kernel::rules::{Cell, PolicyCounters};
use holdfast_protocol::kernel::traffic::Traffic;
use holdfast_protocol::kernel::{
    EnrolledKey, EnrolmentWord, Frontend, FrontendKey, HeadWord, ServiceCounters, ServiceRecord,
    limit,
};

use super::estate::{Capacity, Reader, Stamp, Writer};
use super::slot::Slot;
use crate::serve::offer::EstateMaps;
use crate::serve::policy::estate::{PolicyReader, PolicyWriter};

/// The maps of a worker that may not write.
#[derive(Debug)]
pub struct ShadowMaps(Maps);

/// The maps of a worker that may.
#[derive(Debug)]
pub struct GrantedMaps(Maps);

#[derive(Debug)]
struct Maps {
    heads: MappedArray<HeadWord>,
    tables: MappedArray<Slot>,
    services: MappedArray<ServiceRecord>,
    frontends: HashMap<FrontendKey, Frontend>,
    address_cache: MappedArray<CacheLine>,
    counters: PerCpuArray<ServiceCounters>,
    enrolment: MappedArray<EnrolmentWord>,
    enrolled: HashMap<EnrolledKey, u32>,
    endpoints: MappedArray<EndpointState>,
    traffic: MappedArray<Traffic>,
    policy_head: MappedArray<HeadWord>,
    policies: MappedArray<Cell>,
    policy_counters: PerCpuArray<PolicyCounters>,
    events: RingBuffer,
    event_control: MappedArray<EventControl>,
}

impl ShadowMaps {
    /// The estate, read-only.
    ///
    /// # Errors
    ///
    /// When a map does not hold what it should, or the kernel refuses.
    pub fn map(estate: EstateMaps) -> Result<Self, BpfError> {
        Ok(Self(Maps {
            heads: MappedArray::map(estate.heads)?,
            tables: MappedArray::map(estate.tables)?,
            services: MappedArray::map(estate.services)?,
            frontends: HashMap::new(estate.frontends)?,
            address_cache: MappedArray::map(estate.address_cache)?,
            counters: PerCpuArray::new(estate.counters)?,
            enrolment: MappedArray::map(estate.enrolment)?,
            enrolled: HashMap::new(estate.enrolled)?,
            endpoints: MappedArray::map(estate.endpoints)?,
            traffic: MappedArray::map(estate.traffic)?,
            policy_head: MappedArray::map(estate.policy_head)?,
            policies: MappedArray::map(estate.policies)?,
            policy_counters: PerCpuArray::new(estate.policy_counters)?,
            events: RingBuffer::new(estate.events)?,
            event_control: MappedArray::map(estate.event_control)?,
        }))
    }

    /// Makes them writable. Only a worker that has been granted may call this.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to change the protection; this process should end then.
    pub fn grant(mut self) -> Result<GrantedMaps, BpfError> {
        self.0.protect(true)?;
        Ok(GrantedMaps(self.0))
    }

    /// Keeps nothing of them in this process's memory until it is looked at again: a process is dead,
    /// and the next one may be granted, only when the kernel has taken out every page.
    pub fn let_go(&mut self) {
        self.0.let_go();
    }
}

impl GrantedMaps {
    /// Makes them read-only again.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to change the protection; this process should end then.
    pub fn release(mut self) -> Result<ShadowMaps, BpfError> {
        self.0.events.unmap();
        self.0.protect(false)?;
        Ok(ShadowMaps(self.0))
    }

    /// The events that wait. Whoever writes the maps reads them, and nobody else.
    pub const fn events(&mut self) -> &mut RingBuffer {
        &mut self.0.events
    }

    /// Says which events are asked for, unless that is said already.
    pub fn want_events(&mut self, wanted: Wanted) {
        if self.events_wanted() != wanted {
            self.0.event_control.write_word(0, EventControl::WANTED_WORD, wanted.0);
        }
    }

    /// Which events are asked for.
    #[must_use]
    pub fn events_wanted(&self) -> Wanted {
        Wanted(self.0.event_control.read(0).wanted)
    }

    /// What is remembered of lookups does not count from now on.
    fn end_era(&mut self) {
        let era = self.0.era();
        if era.is_open() {
            self.0.write_era(era.ended());
        }
    }

    /// As [`ShadowMaps::let_go`].
    pub fn let_go(&mut self) {
        self.0.let_go();
    }
}

/// What was counted.
pub trait Counters {
    /// The sum over all CPUs.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    fn counters(&self, number: u32) -> Result<ServiceCounters, BpfError>;

    /// The sums of `count` service numbers from `first` on, at least 1.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    fn counters_from(&self, first: u32, count: u32) -> Result<Vec<ServiceCounters>, BpfError>;
    /// What became of the connections of a service number.
    fn traffic(&self, number: u32) -> Traffic;
    /// What became of those of the endpoint with this number.
    fn endpoint_state(&self, state: u32) -> EndpointState;
    /// How many events were told, and how many found no room.
    fn event_control(&self) -> EventControl;
}

impl Maps {
    fn let_go(&mut self) {
        self.heads.let_go();
        self.tables.let_go();
        self.enrolment.let_go();
        self.services.let_go();
        self.endpoints.let_go();
        self.traffic.let_go();
        self.policy_head.let_go();
        self.policies.let_go();
        self.address_cache.let_go();
        // A page, which is looked at with each heartbeat, stays.
    }

    fn era(&self) -> Era {
        Era(self.address_cache.read(limit::CACHE_LINES).era)
    }

    fn write_era(&mut self, era: Era) {
        self.address_cache.write_word(limit::CACHE_LINES, CacheLine::ERA_WORD, era.0);
    }

    fn protect(&mut self, writable: bool) -> Result<(), BpfError> {
        self.heads.protect(writable)?;
        self.tables.protect(writable)?;
        self.enrolment.protect(writable)?;
        self.services.protect(writable)?;
        self.endpoints.protect(writable)?;
        self.traffic.protect(writable)?;
        self.policy_head.protect(writable)?;
        self.policies.protect(writable)?;
        self.address_cache.protect(writable)?;
        self.event_control.protect(writable)
    }
}

impl Counters for Maps {
    fn counters(&self, number: u32) -> Result<ServiceCounters, BpfError> {
        Ok(sum(&self.counters.lookup(number)?))
    }

    fn counters_from(&self, first: u32, count: u32) -> Result<Vec<ServiceCounters>, BpfError> {
        Ok(self.counters.lookup_from(first, count)?.chunks(self.counters.cpus()).map(sum).collect())
    }

    fn traffic(&self, number: u32) -> Traffic {
        self.traffic.read(number)
    }

    fn endpoint_state(&self, state: u32) -> EndpointState {
        self.endpoints.read(state)
    }

    fn event_control(&self) -> EventControl {
        self.event_control.read(0)
    }
}

/// Over all CPUs.
fn sum(cpus: &[ServiceCounters]) -> ServiceCounters {
    cpus.iter().fold(ServiceCounters::default(), plus)
}

/// What both counted.
#[must_use]
pub const fn plus(one: ServiceCounters, other: &ServiceCounters) -> ServiceCounters {
    ServiceCounters {
        connections: one.connections.wrapping_add(other.connections),
        refused: one.refused.wrapping_add(other.refused),
        retries: one.retries.wrapping_add(other.retries),
        unsettled: one.unsettled.wrapping_add(other.unsettled),
        limited: one.limited.wrapping_add(other.limited),
        denied: one.denied.wrapping_add(other.denied),
    }
}

impl Reader for Maps {
    fn capacity(&self) -> Capacity {
        Capacity {
            services: self.heads.length().min(self.services.length()).min(self.traffic.length()),
            slots: self.tables.length(),
            frontends: self.frontends.capacity(),
            endpoints: self.endpoints.length(),
        }
    }

    fn head(&self, number: u32) -> HeadWord {
        self.heads.read(number)
    }

    fn record(&self, number: u32) -> ServiceRecord {
        self.services.read(number)
    }

    fn slot(&self, index: u32) -> Slot {
        self.tables.read(index)
    }

    fn endpoint(&self, state: u32) -> EndpointState {
        self.endpoints.read(state)
    }

    fn live(&self, number: u32) -> Live {
        Live(self.traffic.read(number).live)
    }

    fn frontend(&self, key: &FrontendKey) -> Result<Option<Frontend>, BpfError> {
        self.frontends.lookup(key)
    }

    fn frontends(&self) -> Result<Vec<(FrontendKey, Frontend)>, BpfError> {
        self.frontends.entries()
    }

    fn enrolment(&self) -> Result<(EnrolmentWord, Vec<EnrolledKey>), BpfError> {
        let keys = self.enrolled.entries()?.into_iter().map(|(key, _)| key);
        Ok((self.enrolment.read(0), keys.collect()))
    }
}

impl PolicyReader for Maps {
    fn policy_head(&self) -> HeadWord {
        self.policy_head.read(0)
    }

    fn policy_cell(&self, index: u32) -> Cell {
        self.policies.read(index)
    }

    fn policy_counters(&self, number: u32) -> Result<PolicyCounters, BpfError> {
        let add = |sum: PolicyCounters, cpu: PolicyCounters| PolicyCounters {
            denied: sum.denied.wrapping_add(cpu.denied),
            dry_run: sum.dry_run.wrapping_add(cpu.dry_run),
        };
        let cpus = self.policy_counters.lookup(number)?;
        Ok(cpus.into_iter().fold(PolicyCounters::default(), add))
    }
}

/// Both kinds of maps are read alike.
macro_rules! read_through {
    ($($maps:ty),*) => {$(
        impl Reader for $maps {
            fn capacity(&self) -> Capacity {
                self.0.capacity()
            }

            fn head(&self, number: u32) -> HeadWord {
                self.0.head(number)
            }

            fn record(&self, number: u32) -> ServiceRecord {
                self.0.record(number)
            }

            fn slot(&self, index: u32) -> Slot {
                self.0.slot(index)
            }

            fn endpoint(&self, state: u32) -> EndpointState {
                self.0.endpoint(state)
            }

            fn live(&self, number: u32) -> Live {
                self.0.live(number)
            }

            fn frontend(&self, key: &FrontendKey) -> Result<Option<Frontend>, BpfError> {
                self.0.frontend(key)
            }

            fn frontends(&self) -> Result<Vec<(FrontendKey, Frontend)>, BpfError> {
                self.0.frontends()
            }

            fn enrolment(&self) -> Result<(EnrolmentWord, Vec<EnrolledKey>), BpfError> {
                self.0.enrolment()
            }
        }

        impl PolicyReader for $maps {
            fn policy_head(&self) -> HeadWord {
                self.0.policy_head()
            }

            fn policy_cell(&self, index: u32) -> Cell {
                self.0.policy_cell(index)
            }

            fn policy_counters(&self, number: u32) -> Result<PolicyCounters, BpfError> {
                self.0.policy_counters(number)
            }
        }

        impl Counters for $maps {
            fn counters(&self, number: u32) -> Result<ServiceCounters, BpfError> {
                self.0.counters(number)
            }

            fn counters_from(
                &self,
                first: u32,
                count: u32,
            ) -> Result<Vec<ServiceCounters>, BpfError> {
                self.0.counters_from(first, count)
            }

            fn traffic(&self, number: u32) -> Traffic {
                self.0.traffic(number)
            }

            fn endpoint_state(&self, state: u32) -> EndpointState {
                self.0.endpoint_state(state)
            }

            fn event_control(&self) -> EventControl {
                self.0.event_control()
            }
        }
    )*};
}

read_through!(ShadowMaps, GrantedMaps);

impl Writer for GrantedMaps {
    fn write_slot(&mut self, index: u32, slot: Slot) {
        self.0.tables.write(index, slot);
    }

    fn write_record(&mut self, number: u32, record: ServiceRecord) {
        self.end_era();
        self.0.services.write(number, record);
    }

    fn publish(&mut self, number: u32, head: HeadWord) {
        self.0.heads.publish(number, head);
    }

    fn zero_counters(&mut self, number: u32) -> Result<(), BpfError> {
        let words = 0..size_of::<Traffic>() / size_of::<u64>();
        for word in words.filter(|word| *word != Traffic::LIVE_WORD) {
            self.0.traffic.write_word(number, word, 0);
        }
        self.0.counters.fill(number, ServiceCounters::default())
    }

    fn write_endpoint(&mut self, state: u32, endpoint: EndpointState) {
        // Before anything else of it is the new endpoint's, whose connections nobody may close.
        self.stamp(state, Stamp::Closes(0));
        for (word, value) in endpoint.words().into_iter().enumerate() {
            if word != EndpointState::LIVE_WORD {
                self.0.endpoints.write_word(state, word, value);
            }
        }
    }

    fn stamp(&mut self, state: u32, stamp: Stamp) {
        let (word, value) = match stamp {
            Stamp::Drains(value) => (EndpointState::DRAINS_WORD, value),
            Stamp::Closes(value) => (EndpointState::CLOSES_WORD, value),
        };
        self.0.endpoints.write_word(state, word, value);
    }

    fn set_frontend(&mut self, key: &FrontendKey, frontend: Frontend) -> Result<(), BpfError> {
        self.end_era();
        self.0.frontends.update(key, &frontend)
    }

    fn delete_frontend(&mut self, key: &FrontendKey) -> Result<(), BpfError> {
        self.end_era();
        self.0.frontends.delete(key)
    }

    fn begin_era(&mut self) {
        let era = self.0.era();
        if !era.is_open() {
            self.0.write_era(era.next());
        }
    }

    fn list(&mut self, key: &EnrolledKey) -> Result<(), BpfError> {
        self.0.enrolled.update(key, &0)
    }

    fn strike(&mut self, key: &EnrolledKey) -> Result<(), BpfError> {
        self.0.enrolled.delete(key)
    }

    fn publish_enrolment(&mut self, word: EnrolmentWord) {
        self.0.enrolment.publish(word);
    }
}

impl PolicyWriter for GrantedMaps {
    fn write_policy_cell(&mut self, index: u32, cell: Cell) {
        self.0.policies.write(index, cell);
    }

    fn zero_policy_counters(&mut self, number: u32) -> Result<(), BpfError> {
        self.0.policy_counters.fill(number, PolicyCounters::default())
    }

    fn publish_policies(&mut self, head: HeadWord) {
        self.0.policy_head.publish(0, head);
    }
}
