//! Tests of the decision, over maps that a writer changes between any two reads.

use std::collections::HashSet;
use std::vec;
use std::vec::Vec;

use holdfast_protocol::kernel::endpoint::Live;
use holdfast_protocol::kernel::{Affinity, Frontend, SETTINGS_SLOTS, feature, policy};

use super::*;
use crate::cache;
use crate::limit::{Bound, Places, bounds, has_bounds, settle};
use crate::plain::{self, Way};
use crate::race::{
    KEY, Memory, OTHER, OTHER_KEY, Race, SERVICE, Step, decide, endpoint_slot, frontend, header,
    peer,
};
use crate::words::word;

#[path = "decide_client_tests.rs"]
mod of_clients;

/// What a decision comes to, without the fields that its verdict leaves without meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Outcome {
    Untouched,
    Sent { host: Option<u8>, service: u32, generation: u32 },
    Refused(u16),
    Limited,
    Unsettled,
}

fn outcome(decision: &Decision) -> Outcome {
    match decision.verdict {
        Verdict::Untouched => Outcome::Untouched,
        Verdict::Sent => Outcome::Sent {
            host: (0..=u8::MAX).find(|host| peer(*host) == decision.endpoint),
            service: decision.service,
            generation: decision.generation,
        },
        Verdict::Refused => Outcome::Refused(decision.errno),
        // Nothing here judges.
        Verdict::Denied => unreachable!(),
        Verdict::Limited => {
            assert_eq!(decision.errno, ECONNREFUSED);
            Outcome::Limited
        }
        Verdict::Unsettled => {
            assert_eq!(decision.errno, EAGAIN);
            Outcome::Unsettled
        }
    }
}

fn sent(host: u8, generation: u32) -> Outcome {
    Outcome::Sent { host: Some(host), service: SERVICE, generation }
}

/// What `KEY` gets in maps that `change` has prepared and nobody changes meanwhile.
fn decided(change: impl FnOnce(&mut Memory)) -> Decision {
    let race = Race::new(&[], &[]);
    change(&mut race.memory.borrow_mut());
    decide(&race, &KEY, Reach::Ipv4)
}

/// Every outcome that `KEY` can get while a writer takes the steps of `script` in order, each at
/// any instant.
fn outcomes(script: &[Step]) -> HashSet<Outcome> {
    outcomes_after(|_| {}, script)
}

/// The same in maps that `prepare` has prepared.
fn outcomes_after(prepare: Step, script: &[Step]) -> HashSet<Outcome> {
    // Two looks and a half: later steps have no effect that earlier ones do not have.
    const INSTANTS: usize = 20;
    outcomes_within(INSTANTS, prepare, script)
}

/// The same when the last step comes before that many reads. What is found on the plain way is one of them.
fn outcomes_within(instants: usize, prepare: Step, script: &[Step]) -> HashSet<Outcome> {
    let (mut seen, mut knowing, mut plain) = (HashSet::new(), HashSet::new(), HashSet::new());
    let mut at = vec![0; script.len()];
    loop {
        let race = || prepared(prepare, script, &at);
        seen.insert(outcome(&decide(&race(), &KEY, Reach::Ipv4)));
        for race in [informed(race()), learning(race())] {
            knowing.insert(outcome(&decide(&race, &KEY, Reach::Ipv4)));
        }
        plain.extend([informed(race()), learning(race())].iter().filter_map(found_plainly));
        // The next non-decreasing sequence.
        let Some(last) = at.iter().rposition(|instant| *instant < instants) else { break };
        let next = at[last] + 1;
        at[last..].fill(next);
    }
    let places: HashSet<_> = seen.iter().filter_map(place).collect();
    assert!(plain.is_subset(&places), "{plain:?} is not in {places:?}");
    assert!(knowing.is_subset(&seen), "{knowing:?} is not in {seen:?}");
    seen
}

fn prepared<'a>(prepare: Step, script: &'a [Step], at: &'a [usize]) -> Race<'a> {
    let race = Race::new(script, at);
    prepare(&mut race.memory.borrow_mut());
    race
}

/// The same, and where `KEY` leads was known before the writer took its first step.
fn informed<'a>(race: Race<'a>) -> Race<'a> {
    let still = Race::new(&[], &[]);
    still.memory.swap(&race.memory);
    let known = cache::look_up(&still, &KEY);
    still.memory.swap(&race.memory);
    race.memory.borrow_mut().known = known;
    race
}

/// The same, and it is learnt meanwhile.
fn learning<'a>(race: Race<'a>) -> Race<'a> {
    race.learns.set(true);
    race
}

/// Where a connection goes: the host, and the service that it is counted for.
type Place = (Option<u8>, u32);

/// The place that an outcome is, if it is one.
fn place(outcome: &Outcome) -> Option<Place> {
    match *outcome {
        Outcome::Untouched => Some((None, NO_SERVICE)),
        Outcome::Sent { host, service, .. } => Some((host, service)),
        Outcome::Refused(_) | Outcome::Limited | Outcome::Unsettled => None,
    }
}

/// Where the plain way leads.
pub(crate) fn found_plainly(race: &Race<'_>) -> Option<Place> {
    let found = plain::look(race, race.known(&KEY)?, Reach::Ipv4);
    let host = (0..=u8::MAX).find(|host| peer(*host) == found.endpoint);
    match found.way {
        Way::Winding => None,
        Way::Untouched => Some((None, found.service)),
        Way::Sent => Some((host, found.service)),
    }
}

#[test]
fn a_connection_is_sent_to_the_endpoint_the_random_word_selects() {
    for (random, host) in [(0, 1), (0x7fff_ffff, 1), (0x8000_0000, 2), (u32::MAX, 2)] {
        let race = Race::new(&[], &[]);
        race.random.borrow_mut().push(random);
        let decision = decide(&race, &KEY, Reach::Ipv4);
        assert_eq!((outcome(&decision), decision.retries), (sent(host, 1), 0));
        assert_eq!(decision.state, u32::from(host), "its number comes with it");
        // The cost of the plain case: that nothing is known, the element and three words of it, the head, and eight
        // words of the table: the identity twice, shape and extent, and an endpoint's address, port and number.
        assert_eq!(race.reads.get(), 14);
        // What is known spares it the element.
        let race = informed(Race::new(&[], &[]));
        race.random.borrow_mut().push(random);
        assert_eq!(outcome(&decide(&race, &KEY, Reach::Ipv4)), sent(host, 1));
        assert_eq!(race.reads.get(), 10);
    }
}

/// Makes the service have `hosts`, four bounds, and what is live at some of them.
fn bounded(memory: &mut Memory, bounds: [u32; 4], hosts: &[u8], live: &[(u8, u64)]) {
    let mut header = header(SERVICE, 1, hosts.len(), ECONNREFUSED, policy::RANDOM);
    header[words::HEADER_SHAPE] |= u64::from(feature::LIMITS) << 56;
    header[words::HEADER_EXTENT] = word(SETTINGS_SLOTS, 0);
    memory.slots[0] = header;
    memory.slots[1] = [word(bounds[0], bounds[1]), word(bounds[2], bounds[3]), 0, 0];
    memory.slots[2] = [0; 4];
    for (row, host) in hosts.iter().enumerate() {
        memory.slots[3 + row] = endpoint_slot(*host, u32::MAX, row);
    }
    for (host, count) in live {
        memory.live[usize::from(*host)] = *count;
    }
}

impl Places for Race<'_> {
    fn take(&self, state: u32, bound: Bound) -> bool {
        let live = &mut self.memory.borrow_mut().live[state as usize];
        let has_room = bound.has_room(*live);
        *live += if has_room { Live::PENDING } else { 0 };
        has_room
    }
}

/// Where a connection is settled in maps that `change` has prepared, and how often in a row.
fn settled(change: impl FnOnce(&mut Memory), times: usize) -> Vec<Option<Peer>> {
    let race = Race::new(&[], &[]);
    change(&mut race.memory.borrow_mut());
    let one = |_| {
        let mut decision = decide(&race, &KEY, Reach::Ipv4);
        assert!(has_bounds(&decision));
        let bound = bounds(&race, &decision).unwrap().places[1];
        settle(&race, &mut decision, bound, Reach::Ipv4).then_some(decision.endpoint)
    };
    (0..times).map(one).collect()
}

#[test]
fn a_full_endpoint_gives_its_place_to_one_with_room() {
    let full = 2 * Live::OPEN;
    let with = |bounds, live: &[(u8, u64)], times| {
        settled(|memory| bounded(memory, bounds, &[1, 2], live), times)
    };
    assert_eq!(with([0, 0, 2, 0], &[], 1), [Some(peer(1))]);
    assert_eq!(with([0, 0, 2, 0], &[(1, full)], 1), [Some(peer(2))]);
    assert_eq!(with([0, 0, 2, 0], &[(1, full), (2, full)], 1), [None]);
    assert_eq!(with([0, 0, 0, 1], &[(1, Live::PENDING)], 1), [Some(peer(2))]);
    assert_eq!(with([7, 0, 0, 0], &[(1, full)], 1), [Some(peer(1))], "that is the service's");
    let places = [1, 1, 2, 2].map(|host| Some(peer(host)));
    assert_eq!(with([0, 0, 2, 0], &[], 6), [&places[..], &[None, None]].concat());
}

#[test]
fn an_endpoint_of_weight_0_is_no_way_out() {
    let prepare = |memory: &mut Memory| {
        bounded(memory, [0, 0, 1, 0], &[1, 2], &[(1, Live::OPEN)]);
        memory.slots[4][words::ENDPOINT_PORT] &= !0xffff_0000;
    };
    assert_eq!(settled(prepare, 1), [None]);
}

#[test]
fn a_table_that_is_being_replaced_is_no_way_out() {
    let race = Race::new(&[], &[]);
    bounded(&mut race.memory.borrow_mut(), [0, 0, 1, 0], &[1, 2], &[(1, Live::OPEN)]);
    let mut decision = decide(&race, &KEY, Reach::Ipv4);
    let bound = bounds(&race, &decision).unwrap().places[1];
    race.memory.borrow_mut().slots[0][words::HEADER_IDENTITY] = word(OTHER, 1);
    assert_eq!(bounds(&race, &decision), None);
    assert!(!settle(&race, &mut decision, bound, Reach::Ipv4));
}

#[test]
fn of_two_endpoints_the_one_with_fewer_connections_is_taken() {
    let with = |hosts: &[u8], live: &[(usize, u64)]| {
        let race = Race::new(&[], &[]);
        {
            let mut memory = race.memory.borrow_mut();
            memory.table(0, SERVICE, 1, policy::LEAST_CONNECTIONS, hosts);
            live.iter().for_each(|(host, count)| memory.live[*host] = *count);
        }
        let decision = decide(&race, &KEY, Reach::Ipv4);
        assert!(!has_bounds(&decision));
        (outcome(&decision), decision.state)
    };
    assert_eq!(with(&[1, 2], &[]), (sent(1, 1), 1));
    assert_eq!(with(&[1, 2], &[(1, Live::OPEN)]), (sent(2, 1), 2));
    assert_eq!(with(&[1, 2], &[(1, Live::OPEN), (2, 2 * Live::OPEN)]), (sent(1, 1), 1));
    assert_eq!(with(&[1, 2], &[(1, Live::PENDING)]), (sent(2, 1), 2));
    assert_eq!(with(&[1], &[(1, 1_000_000)]), (sent(1, 1), 1));
}

#[test]
fn an_address_that_is_not_a_frontend_is_untouched() {
    let race = Race::new(&[], &[]);
    let decision = decide(&race, &OTHER_KEY, Reach::Ipv4);
    assert_eq!((outcome(&decision), decision.service), (Outcome::Untouched, NO_SERVICE));
    assert_eq!(race.reads.get(), 2);
}

#[test]
fn a_frontend_leads_nowhere_outside_its_generations() {
    for (from, until, expected) in
        [(1, 2, sent(1, 1)), (2, Frontend::FOREVER, Outcome::Untouched), (0, 1, Outcome::Untouched)]
    {
        let got = decided(|memory| memory.pool[0] = frontend(&KEY, SERVICE, from, until));
        assert_eq!(outcome(&got), expected, "in force from {from} until {until}");
    }
    let got = decided(|memory| {
        // Even one that would be in force at generation 0.
        memory.pool[0] = frontend(&KEY, SERVICE, 0, Frontend::FOREVER);
        memory.heads[SERVICE as usize] = HeadWord::UNPUBLISHED;
    });
    assert_eq!(outcome(&got), Outcome::Untouched);
}

#[test]
fn a_service_without_endpoint_refuses_with_its_errno() {
    for (configured, errno) in
        [(111, 111), (113, 113), (4095, 4095), (0, ECONNREFUSED), (4096, ECONNREFUSED)]
    {
        let got = decided(|memory| memory.slots[0] = header(SERVICE, 1, 0, configured, 0));
        assert_eq!(outcome(&got), Outcome::Refused(errno));
        assert_eq!(got.service, SERVICE);
    }
}

#[test]
fn what_the_programs_do_not_know_is_refused() {
    let got = decided(|memory| memory.slots[0] = header(SERVICE, 1, 2, 0, 200));
    assert_eq!(outcome(&got), Outcome::Refused(EINVAL));
}

#[test]
fn an_ipv4_socket_is_refused_an_ipv6_endpoint() {
    let native: Step = |memory| memory.slots[1][words::ENDPOINT_ADDRESS_HIGH] = 0x96fd;
    assert_eq!(outcome(&decided(native)), Outcome::Refused(EHOSTUNREACH));
    let race = Race::new(&[], &[]);
    native(&mut race.memory.borrow_mut());
    assert_eq!(decide(&race, &KEY, Reach::Any).verdict, Verdict::Sent);
}

#[test]
fn tables_that_contradict_themselves_are_refused_with_eagain() {
    let contradictions: [Step; 6] = [
        |memory| memory.pool[0][words::FRONTEND_LEAD] ^= 1 << 32,
        |memory| memory.pool[0] = frontend(&KEY, 99, 1, Frontend::FOREVER),
        |memory| memory.slots[0][words::HEADER_IDENTITY] ^= 1,
        |memory| memory.heads[SERVICE as usize] = HeadWord::new(u32::MAX, 1),
        |memory| {
            // The second row lies beyond the last slot.
            memory.slots.truncate(2);
            memory.slots[0] = header(SERVICE, 1, 2, 0, policy::RANDOM);
        },
        |memory| {
            memory.slots[0] = header(SERVICE, 1, 2, 0, policy::WEIGHTED);
            memory.slots[1] = endpoint_slot(1, 0, 2);
            memory.slots[2] = endpoint_slot(2, 0, 2);
        },
    ];
    for (index, contradiction) in contradictions.into_iter().enumerate() {
        let race = Race::new(&[], &[]);
        contradiction(&mut race.memory.borrow_mut());
        *race.random.borrow_mut() = vec![u32::MAX; 2 * limit::LOOKS as usize];
        let decision = decide(&race, &KEY, Reach::Ipv4);
        assert_eq!(outcome(&decision), Outcome::Unsettled, "contradiction {index}");
        assert_eq!(decision.retries, limit::LOOKS, "contradiction {index}");
    }
}

#[test]
fn weights_are_kept_by_the_alias_table() {
    // Weights 1 and 3: the light endpoint has half of its row, the other takes the rest.
    const HALF: u32 = 1 << 31;
    let race = Race::new(&[], &[]);
    {
        let mut memory = race.memory.borrow_mut();
        memory.slots[0] = header(SERVICE, 1, 2, 0, policy::WEIGHTED);
        memory.slots[1] = endpoint_slot(1, HALF, 1);
        memory.slots[2] = endpoint_slot(2, 0, 1);
    }
    const STEP: usize = 1 << 26;
    let mut light = 0;
    let words: Vec<u32> = (0..=u32::MAX).step_by(STEP).collect();
    for row in &words {
        for split in &words {
            *race.random.borrow_mut() = vec![*split, *row];
            match outcome(&decide(&race, &KEY, Reach::Ipv4)) {
                outcome if outcome == sent(1, 1) => light += 1,
                outcome => assert_eq!(outcome, sent(2, 1)),
            }
        }
    }
    assert_eq!(light * 4, words.len() * words.len());
}

/// Reads that a decision takes when `hosts` endpoints are chosen from by `policy`.
fn reads_among(hosts: u8, policy: u8) -> usize {
    let race = Race::new(&[], &[]);
    {
        let mut memory = race.memory.borrow_mut();
        memory.slots = vec![[0; 4]; 300];
        memory.table(0, SERVICE, 1, policy, &(1..=hosts).collect::<Vec<u8>>());
    }
    *race.random.borrow_mut() = vec![u32::MAX, u32::MAX];
    assert_eq!(decide(&race, &KEY, Reach::Ipv4).verdict, Verdict::Sent);
    race.reads.get()
}

#[test]
fn a_choice_costs_the_same_however_many_endpoints_there_are() {
    for (policy, reads) in [(policy::RANDOM, 14), (policy::WEIGHTED, 16), (policy::ROUND_ROBIN, 14)]
    {
        assert_eq!((reads_among(2, policy), reads_among(250, policy)), (reads, reads));
        assert_eq!(reads_among(1, policy), 14, "there is nothing to choose");
    }
}

#[test]
fn turns_go_round_the_endpoints_whatever_their_rows_say() {
    let race = Race::new(&[], &[]);
    race.memory.borrow_mut().table(0, SERVICE, 1, policy::ROUND_ROBIN, &[1, 2, 3]);
    race.turns.set(7);
    let hosts = [2, 3, 1, 2, 3, 1, 2].map(|host| sent(host, 1));
    assert_eq!(hosts.map(|_| outcome(&decide(&race, &KEY, Reach::Ipv4))), hosts);
}

#[test]
fn a_turn_in_a_table_that_is_replaced_is_taken_again_in_the_new_one() {
    let script: [Step; 4] = [
        |memory| memory.table(4, SERVICE, 2, policy::ROUND_ROBIN, &[3, 4]),
        |memory| memory.heads[SERVICE as usize] = HeadWord::new(4, 2),
        |memory| memory.slots[0][words::HEADER_IDENTITY] = 0,
        |memory| memory.slots[1] = [0; 4],
    ];
    let expected = HashSet::from([sent(1, 1), sent(3, 2), sent(4, 2)]);
    let prepare: Step = |memory| memory.table(0, SERVICE, 1, policy::ROUND_ROBIN, &[1, 2]);
    assert_eq!(outcomes_after(prepare, &script), expected);
}

#[test]
fn a_replaced_table_is_seen_wholly_old_or_wholly_new() {
    let script: [Step; 6] = [
        |memory| memory.table(4, SERVICE, 2, policy::RANDOM, &[3]),
        |memory| memory.heads[SERVICE as usize] = HeadWord::new(4, 2),
        // The old range is freed and given to another service, word by word.
        |memory| memory.slots[0][words::HEADER_IDENTITY] = 0,
        |memory| memory.slots[1] = endpoint_slot(9, 0, 0),
        |memory| memory.slots[0] = header(OTHER, 1, 1, 0, policy::RANDOM),
        |memory| memory.heads[OTHER as usize] = HeadWord::new(0, 1),
    ];
    assert_eq!(outcomes(&script), HashSet::from([sent(1, 1), sent(3, 2)]));
}

#[test]
fn a_service_that_loses_its_endpoints_refuses_and_never_passes() {
    let script: [Step; 4] = [
        |memory| memory.table(4, SERVICE, 2, policy::RANDOM, &[]),
        |memory| memory.heads[SERVICE as usize] = HeadWord::new(4, 2),
        |memory| memory.slots[0][words::HEADER_IDENTITY] = 0,
        |memory| memory.slots[1] = [0; 4],
    ];
    assert_eq!(outcomes(&script), HashSet::from([sent(1, 1), Outcome::Refused(ECONNREFUSED)]));
}

#[test]
fn an_element_given_to_another_key_is_never_taken_for_ones_own() {
    let script: [Step; 4] = [
        // The kernel updates a hash by inserting a new element and freeing the old one...
        |memory| {
            memory.pool[1] = frontend(&KEY, SERVICE, 1, 5);
            memory.elements.insert(KEY, 1);
        },
        // ...which the next update takes, word by word: here for a key that is not in force yet.
        |memory| memory.pool[0][words::FRONTEND_LEAD] = word(OTHER, OTHER_KEY.tag()),
        |memory| memory.pool[0][words::FRONTEND_SPAN] = word(7, Frontend::FOREVER),
        |memory| {
            memory.elements.insert(OTHER_KEY, 0);
        },
    ];
    assert_eq!(outcomes(&script), HashSet::from([sent(1, 1)]));
}

#[test]
fn a_frontend_that_moves_to_another_service_never_passes_untouched() {
    let script: [Step; 5] = [
        |memory| memory.table(4, OTHER, 1, policy::RANDOM, &[3]),
        |memory| memory.heads[OTHER as usize] = HeadWord::new(4, 1),
        |memory| {
            memory.pool[1] = frontend(&KEY, OTHER, 1, Frontend::FOREVER);
            memory.elements.insert(KEY, 1);
        },
        |memory| memory.heads[SERVICE as usize] = HeadWord::UNPUBLISHED,
        |memory| memory.slots[0][words::HEADER_IDENTITY] = 0,
    ];
    let moved = Outcome::Sent { host: Some(3), service: OTHER, generation: 1 };
    assert_eq!(outcomes(&script), HashSet::from([sent(1, 1), moved]));
}

#[test]
fn a_new_frontend_waits_for_its_generation() {
    let script: [Step; 3] = [
        |memory| {
            memory.pool[1] = frontend(&KEY, SERVICE, 2, Frontend::FOREVER);
            memory.elements.insert(KEY, 1);
        },
        |memory| memory.table(4, SERVICE, 2, policy::RANDOM, &[3]),
        |memory| memory.heads[SERVICE as usize] = HeadWord::new(4, 2),
    ];
    let expected = HashSet::from([sent(1, 1), Outcome::Untouched, sent(3, 2)]);
    assert_eq!(outcomes(&script), expected);
}

#[test]
fn a_table_that_never_stands_still_is_refused_and_counted() {
    // Each look reads the head once; the header it finds is always of another generation.
    let churn: Step = |memory| {
        let generation = memory.heads[SERVICE as usize].generation() + 1;
        memory.slots[0][words::HEADER_IDENTITY] = TableHeader::identity(SERVICE, generation);
        memory.heads[SERVICE as usize] = HeadWord::new(0, generation);
    };
    let script = [churn; 40];
    let at: Vec<usize> = (0..script.len()).map(|step| step + 1).collect();
    let decision = decide(&Race::new(&script, &at), &KEY, Reach::Ipv4);
    assert_eq!((outcome(&decision), decision.service), (Outcome::Unsettled, SERVICE));
    assert_eq!(decision.retries, limit::LOOKS);
}

#[test]
fn what_was_read_from_a_replaced_table_is_not_kept() {
    // A look at a table without endpoints takes ten reads, the last of them that of the identity.
    const READS: usize = 10;
    let leave: Step = |memory| memory.slots[0][words::HEADER_IDENTITY] = 0;
    let come_back: Step = |memory| memory.slots[0] = header(SERVICE, 1, 0, ECONNREFUSED, 0);
    let script: Vec<Step> = [come_back, leave].repeat(limit::LOOKS as usize);
    let at: Vec<usize> =
        (0..limit::LOOKS as usize).flat_map(|l| [l * READS, (l + 1) * READS - 1]).collect();
    let decision = decide(&Race::new(&script, &at), &KEY, Reach::Ipv4);
    assert_eq!((outcome(&decision), decision.retries), (Outcome::Unsettled, limit::LOOKS));
}

#[test]
fn what_was_known_before_leads_nowhere_once_the_service_has_another_head() {
    let known = Known { service: SERVICE, head: HeadWord::new(0, 1) };
    let with = |change: Step| {
        let race = Race::new(&[], &[]);
        change(&mut race.memory.borrow_mut());
        race.memory.borrow_mut().known = Some(known);
        (outcome(&decide(&race, &KEY, Reach::Ipv4)), found_plainly(&race))
    };
    assert_eq!(with(|_| {}), (sent(1, 1), Some((Some(1), SERVICE))));
    let gone: Step = |memory| {
        memory.elements.clear();
        memory.heads[SERVICE as usize] = HeadWord::UNPUBLISHED;
    };
    assert_eq!(with(gone), (Outcome::Untouched, None));
    let replaced: Step = |memory| {
        memory.table(4, SERVICE, 2, policy::RANDOM, &[3]);
        memory.heads[SERVICE as usize] = HeadWord::new(4, 2);
    };
    assert_eq!(with(replaced), (sent(3, 2), None));
}
