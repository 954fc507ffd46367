//! Tests of endpoints that are asked for by their own addresses, over maps that a writer changes between
//! any two reads.

use std::collections::HashSet;
use std::vec::Vec;

use holdfast_protocol::kernel::endpoint::Live;
use holdfast_protocol::kernel::{
    Frontend, FrontendKey, HeadWord, PROTOCOL_TCP, SETTINGS_SLOTS, feature, policy,
};

use super::*;
use crate::decide::{Decision, EAGAIN, Inquiry, Verdict, decide};
use crate::limit::{bounds, settle};
use crate::race::{KEY, Memory, OTHER, Race, SERVICE, Step, endpoint_slot, frontend, header, peer};
use crate::socket::Reach;
use crate::words;

/// What asks for the endpoint `host`.
pub(crate) fn key(host: u8) -> FrontendKey {
    let Peer { address, port_be } = peer(host);
    FrontendKey { address, port_be, protocol: PROTOCOL_TCP, reserved: 0 }
}

impl Memory {
    /// A table that leads to `hosts` by their own addresses, from slot `at` on; each is counted as the host
    /// beside it.
    pub(crate) fn direct(&mut self, at: usize, service: u32, generation: u32, hosts: &[(u8, u8)]) {
        let mut hosts = hosts.to_vec();
        hosts.sort_by_key(|(host, _)| rank(&peer(*host)));
        self.slots.resize(self.slots.len().max(at + 1 + hosts.len()), [0; 4]);
        self.slots[at] = header(service, generation, hosts.len(), 0, policy::DIRECT);
        for (row, (host, counted)) in hosts.iter().enumerate() {
            let mut slot = endpoint_slot(*host, 0, row);
            slot[words::ENDPOINT_ALIAS] = u64::from(*counted) << 32 | row as u64;
            self.slots[at + 1 + row] = slot;
        }
    }

    /// An element that leads `host` to `service`.
    pub(crate) fn lead(&mut self, host: u8, service: u32, from: u32, until: u32) {
        self.elements.insert(key(host), self.pool.len());
        self.pool.push(frontend(&key(host), service, from, until));
    }
}

/// One service at generation 1 that the hosts 1, 2 and 3 are of, 3 being another address of 2.
fn prepare(memory: &mut Memory) {
    memory.direct(0, SERVICE, 1, &[(1, 1), (2, 2), (3, 2)]);
    memory.heads[SERVICE as usize] = HeadWord::new(0, 1);
    [1, 2, 3].into_iter().for_each(|host| memory.lead(host, SERVICE, 1, Frontend::FOREVER));
}

fn decided(race: &Race<'_>, host: u8) -> Decision {
    let mut inquiry = Inquiry::new(key(host), Reach::Ipv4);
    decide(race, &mut inquiry);
    inquiry.decision
}

#[test]
fn who_asks_for_an_endpoint_gets_it_and_it_is_counted() {
    let race = Race::new(&[], &[]);
    prepare(&mut race.memory.borrow_mut());
    for (host, counted) in [(1, 1), (2, 2), (3, 2)] {
        let decision = decided(&race, host);
        assert_eq!((decision.verdict, decision.endpoint), (Verdict::Sent, peer(host)));
        assert_eq!((decision.service, decision.state), (SERVICE, counted));
        assert_eq!((decision.retries, decision.is_kept), (0, false));
    }
    assert_eq!(decided(&race, 4).verdict, Verdict::Untouched);
}

#[test]
fn every_row_of_any_table_is_found_and_nothing_else() {
    for count in 1..=70_u8 {
        let race = Race::new(&[], &[]);
        let hosts: Vec<(u8, u8)> = (0..count).map(|host| (2 * host + 1, 1)).collect();
        race.memory.borrow_mut().direct(0, SERVICE, 1, &hosts);
        let shape = words::Shape {
            endpoints: u32::from(count),
            no_endpoint_errno: 0,
            policy: policy::DIRECT,
            features: 0,
        };
        let table = Table { service: SERVICE, header: 0, settings: 0, shape, lookup: 0 };
        for host in 0..=2 * count + 1 {
            let found = find(&race, &table, &peer(host)).map(|(row, slot)| (row + 1, slot));
            let is_listed = hosts.iter().any(|(listed, _)| *listed == host);
            assert_eq!(found.is_some(), is_listed, "host {host} of {count}");
            assert!(found.is_none_or(|(row, slot)| row == slot));
        }
    }
}

#[test]
fn the_longest_table_takes_as_many_steps_as_there_are() {
    let mut left = 1_u32 << 20;
    for _ in 0..STEPS {
        left -= left / 2;
    }
    assert_eq!(left, 1);
}

/// What connections to the host 2 are counted as, and `None` if they can pass untouched, while a writer
/// takes the steps of `script` in order, each at any instant. None of them is refused.
fn counted(script: &[Step]) -> HashSet<Option<u32>> {
    const INSTANTS: usize = 24;
    let mut seen = HashSet::new();
    let mut at = std::vec![0; script.len()];
    loop {
        let race = Race::new(script, &at);
        prepare(&mut race.memory.borrow_mut());
        let decision = decided(&race, 2);
        seen.insert(match decision.verdict {
            Verdict::Untouched => None,
            Verdict::Sent if decision.endpoint == peer(2) => Some(decision.state),
            _ => panic!("{decision:?}"),
        });
        // The next non-decreasing sequence.
        let Some(last) = at.iter().rposition(|instant| *instant < INSTANTS) else { return seen };
        let next = at[last] + 1;
        at[last..].fill(next);
    }
}

#[test]
fn an_endpoint_that_moves_to_another_row_is_itself_in_both_tables() {
    let seen = counted(&[
        |memory| memory.direct(4, SERVICE, 2, &[(0, 0), (1, 1), (2, 2)]),
        |memory| memory.heads[SERVICE as usize] = HeadWord::new(4, 2),
        // The old one is given to another service.
        |memory| memory.direct(0, OTHER, 1, &[(7, 7), (8, 8), (9, 9)]),
    ]);
    assert_eq!(seen, HashSet::from([Some(2)]));
}

#[test]
fn an_address_becomes_that_of_another_endpoint_in_one_step() {
    let seen = counted(&[
        |memory| memory.direct(4, SERVICE, 2, &[(1, 1), (2, 1), (3, 1)]),
        |memory| memory.heads[SERVICE as usize] = HeadWord::new(4, 2),
    ]);
    assert_eq!(seen, HashSet::from([Some(2), Some(1)]));
}

#[test]
fn an_endpoint_that_is_removed_is_counted_or_nobodys() {
    let seen = counted(&[
        |memory| memory.direct(4, SERVICE, 2, &[(1, 1)]),
        |memory| memory.lead(2, SERVICE, 1, 2),
        |memory| memory.heads[SERVICE as usize] = HeadWord::new(4, 2),
        |memory| {
            memory.elements.remove(&key(2));
        },
    ]);
    assert_eq!(seen, HashSet::from([Some(2), None]));
}

#[test]
fn an_address_that_its_table_does_not_have_is_refused_and_never_passes() {
    let race = Race::new(&[], &[]);
    prepare(&mut race.memory.borrow_mut());
    race.memory.borrow_mut().direct(0, SERVICE, 1, &[(1, 1), (3, 3)]);
    let decision = decided(&race, 2);
    assert_eq!((decision.verdict, decision.errno), (Verdict::Unsettled, EAGAIN));
}

#[test]
fn a_full_endpoint_gives_its_place_to_nobody() {
    let race = Race::new(&[], &[]);
    {
        let mut memory = race.memory.borrow_mut();
        prepare(&mut memory);
        memory.direct(2, SERVICE, 1, &[(1, 1), (2, 2)]);
        memory.slots[0] = header(SERVICE, 1, 2, 0, policy::DIRECT);
        memory.slots[0][words::HEADER_SHAPE] |= u64::from(feature::LIMITS) << 56;
        memory.slots[0][words::HEADER_EXTENT] = u64::from(SETTINGS_SLOTS);
        // One connection of each endpoint.
        memory.slots[1] = [0, 1, 0, 0];
        memory.slots[2] = [0, 0, 0, 0];
        memory.live[1] = Live::OPEN;
    }
    for (host, expected) in [(1, false), (2, true), (2, false)] {
        let mut decision = decided(&race, host);
        let bound = bounds(&race, &decision).unwrap().places[1];
        assert_eq!(settle(&race, &mut decision, bound, Reach::Ipv4), expected, "host {host}");
        assert_eq!(decision.endpoint, peer(host));
    }
}

#[test]
fn a_frontend_beside_it_is_decided_as_ever() {
    let race = Race::new(&[], &[]);
    {
        let mut memory = race.memory.borrow_mut();
        memory.direct(4, OTHER, 1, &[(1, 1), (2, 2)]);
        memory.heads[OTHER as usize] = HeadWord::new(4, 1);
        memory.lead(1, OTHER, 1, Frontend::FOREVER);
    }
    let mut inquiry = Inquiry::new(KEY, Reach::Ipv4);
    decide(&race, &mut inquiry);
    assert_eq!((inquiry.decision.service, inquiry.decision.endpoint), (SERVICE, peer(1)));
    assert_eq!((decided(&race, 1).service, decided(&race, 2).verdict), (OTHER, Verdict::Untouched));
}
