//! Numbers and slots for what is new, and the refusal when there are none.

use holdfast_protocol::kernel::{Frontend, FrontendKey, HeadWord};

use super::matching::Matching;
use crate::serve::policy::image::TooLarge;
use crate::serve::tables::desired::{Desired, Label};
use crate::serve::tables::ranges::Range;

/// Numbers and slots that no program can be reading.
pub trait Space {
    /// A number that nothing refers to, or `None`.
    fn take_number(&mut self) -> Option<u32>;
    /// A number for an endpoint that no table names and no connection counts on, or `None`.
    fn take_endpoint(&mut self) -> Option<u32>;
    /// A run of `length` slots that no table uses, or `None`.
    fn take_slots(&mut self, length: u32) -> Option<Range>;
    /// The longest run that is free and how many slots are free in all, for people.
    fn free_slots(&self) -> (u32, u32);
}

/// Why a configuration cannot be programmed: the new has to be written beside the old.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DoesNotFit {
    /// No number is free.
    #[error(
        "the configuration does not fit: no service number is free for service {service}; a number \
         stands for one port of a service in one address family. Remove services, or make an \
         estate with a larger --max-services"
    )]
    Numbers {
        /// The first that got none.
        service: String,
    },
    /// No run of slots is long enough.
    #[error(
        "the configuration does not fit: service {service} needs {needed} endpoint slots in one \
         run, but the longest free run has {longest} ({free} are free in all). A changed service \
         needs room beside its present table. Remove endpoints, or make an estate with a larger \
         --max-slots"
    )]
    Slots {
        /// The first that got none.
        service: String,
        /// One per endpoint and one for the header.
        needed: u32,
        /// The longest run that is free.
        longest: u32,
        /// How many are free in all.
        free: u32,
    },
    /// No endpoint number is free.
    #[error(
        "the configuration does not fit: no endpoint number is free for service {service}; the \
         estate has {capacity}, one for every fourth slot, and those of former endpoints are in use \
         until their connections have ended. Remove endpoints, or make an estate with a larger \
         --max-slots"
    )]
    Endpoints {
        /// The first with an endpoint that got none.
        service: String,
        /// How many the estate has for endpoints.
        capacity: u32,
    },
    /// More addresses than the estate holds.
    #[error(
        "the configuration does not fit: with service {service} there would be more than the \
         {capacity} frontends (address, port and protocol) the estate holds; those that are \
         replaced count until they are gone. Remove addresses or ports, or make an estate with a \
         larger --max-services"
    )]
    Frontends {
        /// The first with an address too many.
        service: String,
        /// How many the estate holds.
        capacity: u32,
    },
    /// More policies than the estate holds.
    #[error(transparent)]
    Policies(#[from] TooLarge),
    /// What judges arriving connections is not attached.
    #[error(
        "the configuration has policies for arriving connections, and the program that judges them is \
         not attached to the governed cgroup: {reason}. It is tried again every ten seconds and with \
         every save; put that right, or remove the policies with `direction: inbound`"
    )]
    NotAttached {
        /// Why.
        reason: String,
    },
}

impl DoesNotFit {
    /// Whether there may be room once what was freed has rested.
    #[must_use]
    pub const fn is_space(&self) -> bool {
        matches!(self, Self::Numbers { .. } | Self::Slots { .. } | Self::Endpoints { .. })
    }
}

/// Where a wanted service is once the plan is done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub number: u32,
    /// Its generation then.
    pub generation: u32,
    /// Its new table, if it gets one.
    pub table: Option<Range>,
    /// Whether the number has not stood for it so far.
    pub fresh: bool,
}

impl Target {
    /// The frontend that leads to it once the plan is done.
    pub(super) const fn frontend(&self, key: &FrontendKey) -> Frontend {
        Frontend {
            service: self.number,
            tag: key.tag(),
            from: self.generation,
            until: Frontend::FOREVER,
        }
    }
}

pub(super) fn targets(
    desired: &Desired,
    matching: &Matching<'_>,
    space: &mut impl Space,
) -> Result<Vec<Target>, DoesNotFit> {
    let mut targets = Vec::with_capacity(desired.services.len());
    for (index, service) in desired.services.iter().enumerate() {
        let label = || Label(&service.record).to_string();
        let changes = matching.changes[index];
        let (number, now, fresh) = match matching.current[index] {
            Some(current) => (current.number, current.head.generation(), false),
            None => {
                let number =
                    space.take_number().ok_or_else(|| DoesNotFit::Numbers { service: label() })?;
                (number, HeadWord::FIRST_GENERATION - 1, true)
            }
        };
        let table = match changes {
            true => Some(table(space, service.table.slots(), label)?),
            false => None,
        };
        targets.push(Target { number, generation: now + u32::from(changes), table, fresh });
    }
    Ok(targets)
}

fn table(
    space: &mut impl Space,
    needed: u32,
    label: impl Fn() -> String,
) -> Result<Range, DoesNotFit> {
    space.take_slots(needed).ok_or_else(|| {
        let (longest, free) = space.free_slots();
        DoesNotFit::Slots { service: label(), needed, longest, free }
    })
}
