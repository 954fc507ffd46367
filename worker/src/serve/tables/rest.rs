//! Which free slots and numbers no program can still be reading.
//!
//! A program that runs while a table is replaced, or a number given up, may go on reading the old
//! one until it ends. What was freed has to rest until every program that was running then is done:
//! a grace period of the kernel's read-copy-update, under which programs on the cgroup hooks run.
//!
//! A number, of a service or of an endpoint, that connections still count on rests until they have
//! ended, however long that takes: the kernel's own count says so.
//!
//! After a takeover nobody knows when the former worker freed what. Until a grace period has passed,
//! a worker then uses only what has never been in use, which the maps themselves say: a number
//! without a record, a slot of zeros.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::ops::Range as Numbers;

use holdfast_protocol::kernel::EndpointSlot;
use holdfast_protocol::kernel::endpoint::Live;

use super::estate::Reader;
use super::observe::Observed;
use super::plan::{Freed, Space};
use super::ranges::{FreeRanges, Range};
use super::slot;

/// What rests.
#[derive(Debug, Default)]
pub struct Rest {
    /// `None`: everything that was ever in use and is not now, as far as this worker knows.
    resting: Option<Freed>,
}

impl Rest {
    /// A plan that freed `freed` has been carried out.
    pub fn begin(&mut self, freed: Freed) {
        if let Some(resting) = &mut self.resting {
            resting.slots.extend(freed.slots);
            resting.numbers.extend(freed.numbers);
            resting.endpoints.extend(freed.endpoints);
        }
    }

    /// A grace period has passed since the last mutation of this worker and of all before it.
    pub fn end(&mut self) {
        self.resting = Some(Freed::default());
    }

    /// Whether waiting for a grace period would make room.
    #[must_use]
    pub fn is_resting(&self) -> bool {
        self.resting.as_ref().is_none_or(|freed| *freed != Freed::default())
    }

    /// What rests; `None` when that is everything that was ever in use and is not now.
    #[must_use]
    pub const fn resting(&self) -> Option<&Freed> {
        self.resting.as_ref()
    }

    /// What may be used now.
    #[must_use]
    pub fn space<'a, R: Reader>(&'a self, estate: &'a R, observed: &'a Observed) -> Free<'a, R> {
        let whole = Range { start: 0, length: observed.capacity.slots };
        let mut taken = observed.used_slots();
        let mut barred: HashSet<u32> =
            observed.frontends.values().map(|frontend| frontend.service).collect();
        let mut resting_endpoints: &[u32] = &[];
        if let Some(resting) = &self.resting {
            resting_endpoints = &resting.endpoints;
            taken.extend(&resting.slots);
            taken.sort_unstable_by_key(|range| range.start);
            barred.extend(&resting.numbers);
        }
        Free {
            estate,
            observed,
            slots: FreeRanges::complement(whole, taken),
            numbers: 0..observed.capacity.services,
            barred,
            endpoints: EndpointSlot::NO_STATE + 1..observed.capacity.endpoints,
            resting_endpoints,
            barred_endpoints: OnceCell::new(),
            only_untouched: self.resting.is_none(),
        }
    }
}

/// Free slots and numbers, found as they are asked for.
#[derive(Debug)]
pub struct Free<'a, R> {
    estate: &'a R,
    observed: &'a Observed,
    slots: FreeRanges,
    /// Those that have not been looked at yet.
    numbers: Numbers<u32>,
    /// Numbers that rest, or that some frontend names.
    barred: HashSet<u32>,
    /// Endpoint numbers that have not been looked at yet.
    endpoints: Numbers<u32>,
    /// Those that rest.
    resting_endpoints: &'a [u32],
    /// Those that rest, or that a published table names; gathered when the first is asked for.
    barred_endpoints: OnceCell<HashSet<u32>>,
    /// Whether only what was never in use will do.
    only_untouched: bool,
}

impl<R: Reader> Space for Free<'_, R> {
    fn take_number(&mut self) -> Option<u32> {
        let Self { estate, observed, barred, only_untouched, .. } = self;
        self.numbers.find(|number| {
            observed.published(*number).is_none()
                && !barred.contains(number)
                && (!*only_untouched || estate.record(*number).service[0] == 0)
                && estate.live(*number) == Live(0)
        })
    }

    fn take_endpoint(&mut self) -> Option<u32> {
        let Self { estate, observed, resting_endpoints, only_untouched, .. } = self;
        let barred = self.barred_endpoints.get_or_init(|| {
            let named = observed.services.iter().flat_map(|service| &service.states);
            named.chain(*resting_endpoints).copied().collect()
        });
        self.endpoints.find(|number| {
            let state = || estate.endpoint(*number);
            !barred.contains(number)
                && (!*only_untouched || state().is_untouched())
                && state().live == 0
        })
    }

    fn take_slots(&mut self, length: u32) -> Option<Range> {
        loop {
            let range = self.slots.take(length)?;
            let touched = |index: &u32| self.estate.slot(*index) != slot::UNTOUCHED;
            if !self.only_untouched || !(range.start..range.end()).any(|index| touched(&index)) {
                return Some(range);
            }
            // What was skipped comes back after the grace period.
        }
    }

    fn free_slots(&self) -> (u32, u32) {
        (self.slots.longest(), self.slots.total())
    }
}
