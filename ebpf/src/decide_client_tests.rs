//! Tests of the decision where it depends on who the client is: consistent hashing and affinity.

use std::vec::Vec;

use super::*;
use crate::race::{CLIENT, ENTRIES, NOW, STAY_MS};
use crate::recent::Stand;

/// The entry of the client `id`.
fn entry_of(id: u64) -> u32 {
    choose::row(client::hash(&client::Client { by: 0, id: [id, 0] }), ENTRIES)
}

#[test]
fn a_client_is_sent_where_the_lookup_table_has_it() {
    let race = Race::new(&[], &[]);
    let hosts = [1, 2, 3];
    let host_of = |id| hosts[(entry_of(id) % 3) as usize];
    for (by, shift) in [(0, 0), (1, 1000), (2, 1000)] {
        race.memory.borrow_mut().maglev(0, 1, by, &hosts);
        let mut seen = HashSet::new();
        for id in 0..100 {
            race.client.set(id);
            race.reads.set(0);
            let expected = sent(host_of(id + shift), 1);
            assert_eq!(outcome(&decide(&race, &KEY, Reach::Ipv4)), expected, "{id} by {by}");
            // The plain case, and one word each of settings and lookup table.
            assert_eq!(race.reads.get(), 16);
            seen.insert(entry_of(id + shift));
        }
        assert_eq!(seen.len(), ENTRIES as usize);
    }
}

#[test]
fn a_lookup_table_that_leads_nowhere_is_not_followed() {
    let contradictions: [Step; 4] = [
        |memory| memory.slots[0][words::HEADER_EXTENT] = word(SETTINGS_SLOTS, 0),
        |memory| memory.slots[0][words::HEADER_EXTENT] = word(0, ENTRIES),
        |memory| memory.slots[6..8].fill([0; 4]),
        |memory| memory.slots[6..8].fill([u64::MAX; 4]),
    ];
    for (index, contradiction) in contradictions.into_iter().enumerate() {
        let got = decided(|memory| {
            memory.maglev(0, 1, 0, &[1, 2, 3]);
            contradiction(memory);
        });
        assert_eq!(outcome(&got), Outcome::Unsettled, "contradiction {index}");
    }
}

#[test]
fn a_lookup_table_is_seen_wholly_old_or_wholly_new() {
    let script: [Step; 5] = [
        |memory| {
            memory.slots.resize(30, [0; 4]);
            memory.maglev(12, 2, 1, &[3]);
        },
        |memory| memory.heads[SERVICE as usize] = HeadWord::new(12, 2),
        // The old range is freed and taken by a table that lies differently in it.
        |memory| memory.slots[0][words::HEADER_IDENTITY] = 0,
        |memory| memory.slots[3..7].fill([u64::MAX; 4]),
        |memory| memory.slots[1] = endpoint_slot(9, 0, 0),
    ];
    let seen = outcomes_after(|memory| memory.maglev(0, 1, 0, &[1]), &script);
    assert_eq!(seen, HashSet::from([sent(1, 1), sent(3, 2)]));
}

/// What became of a client that may stay.
struct Stayed {
    outcome: Outcome,
    reads: usize,
    /// What is to be remembered anew: row and end.
    kept: Option<(u32, u64)>,
    /// Until when it stays by what was remembered.
    until: u64,
}

/// What a client gets that stays with `host`, last seen at `row`, until `until`.
fn stayed(hosts: &[u8], host: u8, row: u32, until: u64) -> Stayed {
    let race = Race::new(&[], &[]);
    race.memory.borrow_mut().sticky(0, 1, hosts);
    race.memory.borrow_mut().remember(host, row, until);
    let decision = decide(&race, &KEY, Reach::Ipv4);
    let kept = race.kept.get().map(|(key, affinity)| {
        assert_eq!(key, CLIENT);
        assert_eq!(affinity.address, decision.endpoint.address);
        assert_eq!(affinity.port_be, decision.endpoint.port_be);
        (affinity.row, affinity.until)
    });
    let until = race.memory.borrow().remembered[0][words::AFFINITY_UNTIL];
    Stayed { outcome: outcome(&decision), reads: race.reads.get(), kept, until }
}

const UNTIL: u64 = NOW + STAY_MS as u64 * 1_000_000;

#[test]
fn a_new_client_is_remembered_where_it_was_sent() {
    let race = Race::new(&[], &[]);
    race.memory.borrow_mut().sticky(0, 1, &[1, 2, 3]);
    race.random.borrow_mut().push(u32::MAX);
    assert_eq!(outcome(&decide(&race, &KEY, Reach::Ipv4)), sent(3, 1));
    let Peer { address, port_be } = peer(3);
    let affinity = Affinity { address, port_be, reserved: 0, row: 2, until: UNTIL };
    assert_eq!(race.kept.get(), Some((CLIENT, affinity)));
}

#[test]
fn a_client_that_is_refused_is_not_remembered() {
    let race = Race::new(&[], &[]);
    race.memory.borrow_mut().sticky(0, 1, &[1]);
    race.memory.borrow_mut().slots[3][words::ENDPOINT_ADDRESS_HIGH] = 0x96fd;
    let decision = decide(&race, &KEY, Reach::Ipv4);
    assert_eq!((outcome(&decision), race.kept.get()), (Outcome::Refused(EHOSTUNREACH), None));
}

#[test]
fn a_client_stays_with_its_endpoint_and_for_another_while() {
    let stayed = stayed(&[1, 2, 3], 3, 2, NOW + 1);
    assert_eq!((stayed.outcome, stayed.kept, stayed.until), (sent(3, 1), None, UNTIL));
    // The plain case, a word of settings, what was noted, the element and four words of it, three words compared.
    assert_eq!(stayed.reads, 14 + 1 + 1 + 5 + 3);
}

#[test]
fn a_client_whose_time_is_over_is_a_new_one() {
    let stayed = stayed(&[1, 2, 3], 3, 2, NOW);
    assert_eq!((stayed.outcome, stayed.kept), (sent(1, 1), Some((0, UNTIL))));
}

#[test]
fn an_endpoint_that_is_at_another_row_is_found_and_remembered_there() {
    let many: Vec<u8> = (1..=200).collect();
    for (host, row) in
        [(1, 16), (100, 110), (100, 84), (200, 199), (200, 4000), (170, 184), (1, 100), (200, 0)]
    {
        let stayed = stayed(&many, host, row, NOW + 1);
        assert_eq!(stayed.outcome, sent(host, 1), "{host}, last at row {row}");
        let now_at = u32::from(host) - 1;
        assert_eq!(stayed.kept, (now_at != row).then_some((now_at, UNTIL)));
    }
}

#[test]
fn an_endpoint_that_is_gone_is_given_up_after_a_search() {
    let many: Vec<u8> = (1..=200).collect();
    let stayed = stayed(&many, 201, 100, NOW + 1);
    assert_eq!((stayed.outcome, stayed.kept), (sent(1, 1), Some((0, UNTIL))));
    // Three words compared where it was, and at each row.
    assert_eq!(stayed.reads, 14 + 1 + 1 + 5 + 3 + 3 * 200);
}

/// What a client gets that stays with 2 by what is remembered, and by what was noted with 3 at `row` until `until`.
fn noted(row: u32, until: u64) -> (Outcome, u64, Option<Stand>) {
    let race = Race::new(&[], &[]);
    race.memory.borrow_mut().sticky(0, 1, &[1, 2, 3]);
    race.memory.borrow_mut().remember(2, 1, NOW + 1);
    race.memory.borrow_mut().recents.insert(CLIENT, Stand { endpoint: peer(3), row, until });
    // What follows the table is not in it.
    race.memory.borrow_mut().slots[6] = endpoint_slot(3, 0, 0);
    let decision = decide(&race, &KEY, Reach::Ipv4);
    assert_eq!(race.kept.get(), None);
    let memory = race.memory.borrow();
    (
        outcome(&decision),
        memory.remembered[0][words::AFFINITY_UNTIL],
        memory.recents.get(&CLIENT).copied(),
    )
}

#[test]
fn what_was_noted_of_a_client_counts_first_and_is_extended_by_what_is_remembered() {
    let step = u64::from(STAY_MS) * 1_000_000 / 64;
    let as_noted = |until| (sent(3, 1), NOW + 1, Some(Stand { endpoint: peer(3), row: 2, until }));
    for until in [UNTIL, UNTIL - step] {
        assert_eq!(noted(2, until), as_noted(until));
    }
    let found_again = Some(Stand { endpoint: peer(2), row: 1, until: UNTIL });
    // Too long ago, over, later than it could be, at another row, and at no row.
    for (row, until) in [(2, UNTIL - step - 1), (2, NOW), (2, UNTIL + 1), (1, UNTIL), (3, UNTIL)] {
        assert_eq!(noted(row, until), (sent(2, 1), UNTIL, found_again), "{row} {until}");
    }
}

#[test]
fn a_client_is_noted_where_it_was_sent_and_found_there() {
    let race = Race::new(&[], &[]);
    race.memory.borrow_mut().sticky(0, 1, &[1, 2, 3]);
    race.random.borrow_mut().push(u32::MAX);
    for _ in 0..2 {
        assert_eq!(outcome(&decide(&race, &KEY, Reach::Ipv4)), sent(3, 1));
    }
    // Of the second time: the plain case, a word of settings, what was noted and three words compared.
    let first = race.reads.replace(0);
    assert_eq!(outcome(&decide(&race, &KEY, Reach::Ipv4)), sent(3, 1));
    assert_eq!((race.reads.get(), first), (14 + 1 + 1 + 3, 17 + 19));
}

#[test]
fn what_is_remembered_never_leads_out_of_the_table() {
    let script: [Step; 5] = [
        |memory| memory.sticky(12, 2, &[3]),
        |memory| memory.heads[SERVICE as usize] = HeadWord::new(12, 2),
        // The kernel gives the element to another client, word by word.
        |memory| memory.remembered[0][words::AFFINITY_PORT] = endpoint_slot(9, 0, 0)[2],
        |memory| memory.remembered[0][words::AFFINITY_ADDRESS_LOW] = endpoint_slot(9, 0, 0)[1],
        |memory| memory.slots[0][words::HEADER_IDENTITY] = 0,
    ];
    let prepare: Step = |memory| {
        memory.sticky(0, 1, &[1, 2]);
        memory.remember(2, 1, NOW + 1);
    };
    // A look that finds an affinity takes 23 reads.
    let seen = outcomes_within(30, prepare, &script);
    assert_eq!(seen, HashSet::from([sent(1, 1), sent(2, 1), sent(3, 2)]));
}

#[test]
fn what_is_noted_never_leads_out_of_the_table() {
    let script: [Step; 5] = [
        |memory| memory.sticky(12, 2, &[3]),
        |memory| memory.heads[SERVICE as usize] = HeadWord::new(12, 2),
        |memory| {
            memory.recents.insert(CLIENT, Stand { endpoint: peer(9), row: 1, until: UNTIL });
        },
        |memory| memory.slots[0][words::HEADER_IDENTITY] = 0,
        |memory| memory.slots[4] = endpoint_slot(9, 0, 0),
    ];
    let prepare: Step = |memory| {
        memory.sticky(0, 1, &[1, 2]);
        memory.recents.insert(CLIENT, Stand { endpoint: peer(2), row: 1, until: UNTIL });
    };
    let seen = outcomes_within(25, prepare, &script);
    assert_eq!(seen, HashSet::from([sent(1, 1), sent(2, 1), sent(3, 2)]));
}
