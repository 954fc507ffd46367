//! What is free beside what a ledger has.

use std::ops::Range as Span;

use holdfast_protocol::kernel::EndpointSlot;
use holdfast_protocol::kernel::endpoint::Live;

use super::{Ledger, Numbers};
use crate::serve::tables::estate::Reader;
use crate::serve::tables::plan::Space;
use crate::serve::tables::ranges::{FreeRanges, Range};
use crate::serve::tables::rest::Rest;
use crate::serve::tables::slot;

/// Free slots and numbers, found as they are asked for. What may be used is what
/// [`Rest::space`](Rest::space) offers to a plan of everything.
pub(super) struct Remainder<'a, R> {
    estate: &'a R,
    ledger: &'a Ledger,
    /// Numbers of services and of endpoints that rest; `None`: only what was never in use will do.
    resting: Option<[Numbers; 2]>,
    slots: FreeRanges,
    /// Those that have not been looked at yet.
    numbers: Span<u32>,
    endpoints: Span<u32>,
}

impl<'a, R: Reader> Remainder<'a, R> {
    pub(super) fn of(ledger: &'a Ledger, estate: &'a R, rest: &'a Rest) -> Self {
        let (capacity, resting) = (estate.capacity(), rest.resting());
        let mut taken = ledger.slots.clone();
        taken.extend(resting.iter().flat_map(|freed| &freed.slots));
        // Most tables stand in the order of their services, which this kind of sort makes use of.
        taken.sort_by_key(|range| range.start);
        Self {
            estate,
            ledger,
            resting: resting
                .map(|freed| [&freed.numbers, &freed.endpoints].map(|it| Numbers::of(it))),
            slots: FreeRanges::complement(Range { start: 0, length: capacity.slots }, taken),
            numbers: 0..capacity.services,
            endpoints: EndpointSlot::NO_STATE + 1..capacity.endpoints,
        }
    }
}

impl<R: Reader> Space for Remainder<'_, R> {
    fn take_number(&mut self) -> Option<u32> {
        let Self { estate, resting, .. } = self;
        // Every frontend there is leads to a published number.
        self.numbers.find(|number| {
            !estate.head(*number).is_published()
                && match resting {
                    Some([numbers, _]) => !numbers.has(*number),
                    None => estate.record(*number).service[0] == 0,
                }
                && estate.live(*number) == Live(0)
        })
    }

    fn take_endpoint(&mut self) -> Option<u32> {
        let Self { estate, ledger, resting, endpoints, .. } = self;
        let mut free = std::iter::from_fn(|| {
            let number = ledger.endpoints.next_absent(endpoints.start);
            endpoints.start = number.saturating_add(1);
            (number < endpoints.end).then_some(number)
        });
        free.find(|number| {
            let state = || estate.endpoint(*number);
            let has_rested = match resting {
                Some([_, endpoints]) => !endpoints.has(*number),
                None => state().is_untouched(),
            };
            has_rested && state().live == 0
        })
    }

    fn take_slots(&mut self, length: u32) -> Option<Range> {
        loop {
            let range = self.slots.take(length)?;
            let touched = |index: &u32| self.estate.slot(*index) != slot::UNTOUCHED;
            if self.resting.is_some() || !(range.start..range.end()).any(|index| touched(&index)) {
                return Some(range);
            }
            // What was skipped comes back after the grace period.
        }
    }

    fn free_slots(&self) -> (u32, u32) {
        (self.slots.longest(), self.slots.total())
    }
}
