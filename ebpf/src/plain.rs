//! The plain way: an address that is no service's, and a service that asks for nothing but an endpoint. Pure.
//!
//! Nearly every connection goes it. It is what [`decide`](crate::decide) does when everything stands still and
//! nothing has to be asked, in one straight line: no call, nothing kept in memory. Whatever else it meets (a value that is
//! being replaced, a refusal, an errno, anything a service asks for) is [`Way::Winding`], and decided from the start as all
//! connections are. So it makes no decision that is not one of `decide`, which its tests hold it to.

use holdfast_protocol::kernel::{EndpointSlot, TableHeader, policy};

use crate::cache::Known;
use crate::choose;
use crate::decide::{NO_SERVICE, Tables, endpoint};
use crate::socket::{Peer, Reach};
use crate::words::{self, Shape};

/// Which way a connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It is not governed.
    Untouched,
    /// To [`Plain::endpoint`].
    Sent,
    /// Another one.
    Winding,
}

/// What was found on the plain way. Every field always has a value, as in
/// [`Decision`](crate::decide::Decision).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plain {
    /// Which way it goes.
    pub way: Way,
    /// Of a connection that is sent: where it goes.
    pub endpoint: Peer,
    /// Of a connection that is sent: that endpoint's number in `ENDPOINTS`.
    pub state: u32,
    /// Of a connection that is sent: the service it is counted for.
    pub service: u32,
}

/// Looks once at what decides a connection to the address of which this is `known`, made by a socket that can name the
/// addresses in `reach`.
#[inline(always)]
pub fn look<T: Tables>(tables: &T, known: Known, reach: Reach) -> Plain {
    let endpoint = Peer { address: [0; 4], port_be: 0 };
    let not_sent =
        |way| Plain { way, endpoint, state: EndpointSlot::NO_STATE, service: NO_SERVICE };
    if known.is_nobodys() {
        return not_sent(Way::Untouched);
    }
    match sent(tables, known, reach) {
        Some(plain) => plain,
        None => not_sent(Way::Winding),
    }
}

#[inline(always)]
fn sent<T: Tables>(tables: &T, known: Known, reach: Reach) -> Option<Plain> {
    let Known { service, head } = known;
    if !known.still_leads(tables) {
        return None;
    }
    let header = tables.slot(head.slot())?;
    let identity = TableHeader::identity(service, head.generation());
    let shape = words::shape(tables.slot_word(header, words::HEADER_SHAPE));
    if tables.slot_word(header, words::HEADER_IDENTITY) != identity || !is_plain(shape) {
        return None;
    }
    let settings = words::low(tables.slot_word(header, words::HEADER_EXTENT));
    let first = head.slot().checked_add(1)?.checked_add(settings)?;
    let row = if shape.endpoints == 1 { 0 } else { choose::row(tables.random(), shape.endpoints) };
    let slot = tables.slot(first.checked_add(row)?)?;
    let endpoint = endpoint(tables, slot);
    let state = words::high(tables.slot_word(slot, words::ENDPOINT_ALIAS));
    let is_current = tables.slot_word(header, words::HEADER_IDENTITY) == identity;
    (is_current && reach.covers(&endpoint.address)).then_some(Plain {
        way: Way::Sent,
        endpoint,
        state,
        service,
    })
}

/// Whether a table of this shape has endpoints, and says nothing but that they are equal.
#[inline(always)]
const fn is_plain(shape: Shape) -> bool {
    let is_alone = shape.endpoints == 1 && choose::is_known(shape.policy);
    shape.features == 0 && shape.endpoints > 0 && (is_alone || shape.policy == policy::RANDOM)
}

#[cfg(test)]
mod tests {
    use std::vec;

    use holdfast_protocol::kernel::{HeadWord, feature};

    use super::*;
    use crate::decide::tests::found_plainly;
    use crate::race::{OTHER, Race, SERVICE, Step, endpoint_slot, header};

    /// Where the plain way leads in maps that `change` has prepared.
    fn found(change: Step) -> Option<(Option<u8>, u32)> {
        let race = Race::new(&[], &[]);
        race.learns.set(true);
        change(&mut race.memory.borrow_mut());
        found_plainly(&race)
    }

    #[test]
    fn a_random_word_selects_among_equal_endpoints_and_one_alone_needs_none() {
        for (random, host) in [(0, 1), (u32::MAX, 2)] {
            let race = Race::new(&[], &[]);
            race.learns.set(true);
            race.random.borrow_mut().push(random);
            assert_eq!(found_plainly(&race), Some((Some(host), SERVICE)));
            // What `decide` reads, and the head twice.
            assert_eq!(race.reads.get(), 15);
        }
        for policy in [policy::RANDOM, policy::WEIGHTED, policy::ROUND_ROBIN, policy::MAGLEV] {
            let race = Race::new(&[], &[]);
            race.memory.borrow_mut().table(0, SERVICE, 1, policy, &[2]);
            race.learns.set(true);
            race.random.borrow_mut().push(u32::MAX);
            assert_eq!(found_plainly(&race), Some((Some(2), SERVICE)));
            assert_eq!(*race.random.borrow(), vec![u32::MAX], "nothing was drawn");
        }
        assert_eq!(found(|memory| memory.elements.clear()), Some((None, NO_SERVICE)));
    }

    #[test]
    fn settings_lie_between_the_header_and_the_endpoints() {
        let with_settings: Step = |memory| {
            memory.slots[0][words::HEADER_EXTENT] = 2;
            memory.slots[3] = endpoint_slot(7, 0, 0);
        };
        assert_eq!(found(with_settings), Some((Some(7), SERVICE)));
    }

    #[test]
    fn whatever_has_to_be_asked_or_refused_is_another_way() {
        let changes: [Step; 12] = [
            |memory| memory.slots[0][words::HEADER_SHAPE] |= u64::from(feature::LIMITS) << 56,
            |memory| memory.slots[0][words::HEADER_SHAPE] |= u64::from(feature::EVENTS) << 56,
            |memory| memory.slots[0][words::HEADER_SHAPE] |= u64::from(feature::DRAIN) << 56,
            |memory| memory.table(0, SERVICE, 1, policy::RANDOM, &[]),
            |memory| memory.table(0, SERVICE, 1, policy::WEIGHTED, &[1, 2]),
            |memory| memory.table(0, SERVICE, 1, policy::DIRECT, &[1]),
            |memory| memory.slots[0] = header(SERVICE, 1, 1, 0, 200),
            |memory| memory.slots[0] = header(OTHER, 1, 1, 0, policy::RANDOM),
            |memory| memory.slots[1][words::ENDPOINT_ADDRESS_HIGH] = 0x96fd,
            |memory| memory.heads[SERVICE as usize] = HeadWord::UNPUBLISHED,
            |memory| memory.heads[SERVICE as usize] = HeadWord::new(u32::MAX, 1),
            |memory| memory.pool[0][words::FRONTEND_LEAD] ^= 1 << 32,
        ];
        for (index, change) in changes.into_iter().enumerate() {
            assert_eq!(found(change), None, "change {index}");
        }
    }
}
