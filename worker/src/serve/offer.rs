//! The estate as it arrives: each object is checked against what the kernel itself says about it
//! before anything is done with it.

use std::os::fd::{AsFd, OwnedFd};

use holdfast_bpf::{BpfError, object};
use holdfast_protocol::handover::Offer;
use holdfast_protocol::kernel::map;
use holdfast_protocol::manifest::{Entry, Shape};

/// Bytes the kernel keeps of a name (`BPF_OBJ_NAME_LEN` without the final zero).
const KERNEL_NAME_BYTES: usize = 15;

/// The maps of an estate that a worker needs, all of them checked.
#[derive(Debug)]
pub struct EstateMaps {
    /// `FRONTENDS`.
    pub frontends: OwnedFd,
    /// `HEADS`.
    pub heads: OwnedFd,
    /// `TABLES`.
    pub tables: OwnedFd,
    /// `SERVICES`.
    pub services: OwnedFd,
    /// `COUNTERS`.
    pub counters: OwnedFd,
    /// `ENROLMENT`.
    pub enrolment: OwnedFd,
    /// `ENROLLED`.
    pub enrolled: OwnedFd,
    /// `ENDPOINTS`.
    pub endpoints: OwnedFd,
    /// `TRAFFIC`.
    pub traffic: OwnedFd,
    /// `POLICY_HEAD`.
    pub policy_head: OwnedFd,
    /// `POLICIES`.
    pub policies: OwnedFd,
    /// `POLICY_COUNTERS`.
    pub policy_counters: OwnedFd,
    /// `EVENTS`.
    pub events: OwnedFd,
    /// `ADDRESS_CACHE`.
    pub address_cache: OwnedFd,
    /// `EVENT_CONTROL`.
    pub event_control: OwnedFd,
}

/// Why an offer is not the estate.
#[derive(Debug, thiserror::Error)]
pub enum OfferError {
    /// Descriptors and entries do not pair up.
    #[error("offer {index} lists {entries} objects but brought {descriptors} descriptors")]
    Short {
        /// Which offer.
        index: u16,
        /// How many it lists.
        entries: usize,
        /// How many came.
        descriptors: usize,
    },
    /// Offers arrive in order, and all say the same total.
    #[error("offer {index} of {of} arrived when {expected} was expected")]
    OutOfOrder {
        /// Which offer.
        index: u16,
        /// Of how many.
        of: u16,
        /// Which one it should have been.
        expected: u16,
    },
    /// Not a map, or not one this worker knows.
    #[error("the offered {0} is not a map this worker knows; is the supervisor another version?")]
    Unknown(String),
    /// The kernel says something else about it.
    #[error("the offered map {name} is not the one that was listed: {difference}")]
    Different {
        /// The map.
        name: String,
        /// What differs.
        difference: String,
    },
    /// Offered twice, or not at all.
    #[error("the map {name} was offered {times} times instead of once")]
    Count {
        /// The map.
        name: &'static str,
        /// How often.
        times: usize,
    },
    /// The kernel would not say.
    #[error(transparent)]
    Kernel(#[from] BpfError),
}

/// Gathers the offers of one handover.
#[derive(Debug, Default)]
pub struct Gathering {
    /// How many offers there are, once the first has said so.
    of: Option<u16>,
    taken: u16,
    objects: Vec<(String, OwnedFd)>,
}

impl Gathering {
    /// Takes an offer in. Returns whether it was the last.
    ///
    /// # Errors
    ///
    /// Any [`OfferError`]: nothing of the handover may be used then.
    pub fn take(&mut self, offer: Offer, descriptors: Vec<OwnedFd>) -> Result<bool, OfferError> {
        let Offer { index, of, entries } = offer;
        if index != self.taken || index >= of || self.of.is_some_and(|total| total != of) {
            return Err(OfferError::OutOfOrder { index, of, expected: self.taken });
        }
        if entries.len() != descriptors.len() {
            let (entries, descriptors) = (entries.len(), descriptors.len());
            return Err(OfferError::Short { index, entries, descriptors });
        }
        for (entry, descriptor) in entries.into_iter().zip(descriptors) {
            check(&entry, &descriptor)?;
            self.objects.push((entry.name, descriptor));
        }
        self.of = Some(of);
        self.taken += 1;
        Ok(self.taken == of)
    }

    /// The maps, all offers being in.
    ///
    /// # Errors
    ///
    /// [`OfferError::Count`] unless every map was offered exactly once.
    pub fn finish(mut self) -> Result<EstateMaps, OfferError> {
        for name in map::ALL {
            let times = self.objects.iter().filter(|(offered, _)| offered == name).count();
            if times != 1 {
                return Err(OfferError::Count { name, times });
            }
        }
        Ok(EstateMaps {
            frontends: self.pick(map::FRONTENDS)?,
            address_cache: self.pick(map::ADDRESS_CACHE)?,
            heads: self.pick(map::HEADS)?,
            tables: self.pick(map::TABLES)?,
            services: self.pick(map::SERVICES)?,
            counters: self.pick(map::COUNTERS)?,
            enrolment: self.pick(map::ENROLMENT)?,
            enrolled: self.pick(map::ENROLLED)?,
            endpoints: self.pick(map::ENDPOINTS)?,
            traffic: self.pick(map::TRAFFIC)?,
            policy_head: self.pick(map::POLICY_HEAD)?,
            policies: self.pick(map::POLICIES)?,
            policy_counters: self.pick(map::POLICY_COUNTERS)?,
            events: self.pick(map::EVENTS)?,
            event_control: self.pick(map::EVENT_CONTROL)?,
        })
    }

    fn pick(&mut self, name: &'static str) -> Result<OwnedFd, OfferError> {
        let at = self.objects.iter().position(|(offered, _)| offered == name);
        let at = at.ok_or(OfferError::Count { name, times: 0 })?;
        Ok(self.objects.swap_remove(at).1)
    }
}

/// Compares `entry` with what the kernel says about `descriptor`.
///
/// # Errors
///
/// [`OfferError::Unknown`] or [`OfferError::Different`].
pub fn check(entry: &Entry, descriptor: &OwnedFd) -> Result<(), OfferError> {
    let Shape::Map(shape) = entry.shape else {
        return Err(OfferError::Unknown(format!("{} {}", entry.shape.kind(), entry.name)));
    };
    if !map::ALL.contains(&entry.name.as_str()) {
        return Err(OfferError::Unknown(format!("map {}", entry.name)));
    }
    let info = object::map_info(descriptor.as_fd())?;
    let kernel_name = &entry.name[..entry.name.len().min(KERNEL_NAME_BYTES)];
    let difference = if info.id != entry.id {
        format!("its id is {}, not {}", info.id, entry.id)
    } else if info.name != kernel_name {
        format!("its name is {}", info.name)
    } else if info.shape != shape {
        format!("it is {:?}, not {shape:?}", info.shape)
    } else {
        return Ok(());
    };
    Err(OfferError::Different { name: entry.name.clone(), difference })
}
