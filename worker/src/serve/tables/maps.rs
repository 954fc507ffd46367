//! The real maps of the estate.
//!
//! A worker starts with [`ShadowMaps`], which can only be read: the arrays are mapped read-only, and
//! there is no method that writes. [`ShadowMaps::grant`] turns them into [`GrantedMaps`], the only
//! [`Writer`] there is; releasing turns them back.

use holdfast_bpf::BpfError;
use holdfast_bpf::map::{HashMap, PerCpuArray};
use holdfast_bpf::mapped::MappedArray;
use holdfast_protocol::kernel::rules::{Cell, PolicyCounters};
use holdfast_protocol::kernel::{Frontend, FrontendKey, HeadWord, ServiceCounters, ServiceRecord};

use super::estate::{Capacity, Reader, Writer};
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
    counters: PerCpuArray<ServiceCounters>,
    policy_head: MappedArray<HeadWord>,
    policies: MappedArray<Cell>,
    policy_counters: PerCpuArray<PolicyCounters>,
}

impl ShadowMaps {
    /// Maps the estate, read-only.
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
            counters: PerCpuArray::new(estate.counters)?,
            policy_head: MappedArray::map(estate.policy_head)?,
            policies: MappedArray::map(estate.policies)?,
            policy_counters: PerCpuArray::new(estate.policy_counters)?,
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
}

impl GrantedMaps {
    /// Makes them read-only again.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to change the protection; this process should end then.
    pub fn release(mut self) -> Result<ShadowMaps, BpfError> {
        self.0.protect(false)?;
        Ok(ShadowMaps(self.0))
    }
}

/// What was counted for a service number, over all CPUs.
pub trait Counters {
    /// The sum over all CPUs.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    fn counters(&self, number: u32) -> Result<ServiceCounters, BpfError>;
}

impl Maps {
    fn protect(&mut self, writable: bool) -> Result<(), BpfError> {
        self.heads.protect(writable)?;
        self.tables.protect(writable)?;
        self.services.protect(writable)?;
        self.policy_head.protect(writable)?;
        self.policies.protect(writable)
    }
}

impl Counters for Maps {
    fn counters(&self, number: u32) -> Result<ServiceCounters, BpfError> {
        let add = |sum: ServiceCounters, cpu: ServiceCounters| ServiceCounters {
            connections: sum.connections.wrapping_add(cpu.connections),
            refused: sum.refused.wrapping_add(cpu.refused),
            retries: sum.retries.wrapping_add(cpu.retries),
            unsettled: sum.unsettled.wrapping_add(cpu.unsettled),
            denied: sum.denied.wrapping_add(cpu.denied),
        };
        let cpus = self.counters.lookup(number)?;
        Ok(cpus.into_iter().fold(ServiceCounters::default(), add))
    }
}

impl Reader for Maps {
    fn capacity(&self) -> Capacity {
        Capacity {
            services: self.heads.length().min(self.services.length()),
            slots: self.tables.length(),
            frontends: self.frontends.capacity(),
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

    fn frontends(&self) -> Result<Vec<(FrontendKey, Frontend)>, BpfError> {
        self.frontends.entries()
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

            fn frontends(&self) -> Result<Vec<(FrontendKey, Frontend)>, BpfError> {
                self.0.frontends()
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
        }
    )*};
}

read_through!(ShadowMaps, GrantedMaps);

impl Writer for GrantedMaps {
    fn write_slot(&mut self, index: u32, slot: Slot) {
        self.0.tables.write(index, slot);
    }

    fn write_record(&mut self, number: u32, record: ServiceRecord) {
        self.0.services.write(number, record);
    }

    fn publish(&mut self, number: u32, head: HeadWord) {
        self.0.heads.publish(number, head);
    }

    fn zero_counters(&mut self, number: u32) -> Result<(), BpfError> {
        self.0.counters.fill(number, ServiceCounters::default())
    }

    fn set_frontend(&mut self, key: &FrontendKey, frontend: Frontend) -> Result<(), BpfError> {
        self.0.frontends.update(key, &frontend)
    }

    fn delete_frontend(&mut self, key: &FrontendKey) -> Result<(), BpfError> {
        self.0.frontends.delete(key)
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
