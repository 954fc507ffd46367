//! Tests of flows, over maps that a writer changes between any two reads.

use core::ops::Deref;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::vec::Vec;

use holdfast_protocol::kernel::{Frontend, HeadWord, policy};

use super::*;
use crate::decide::{EAGAIN, ECONNREFUSED, EHOSTUNREACH, Look, Looks, decide, look};
use crate::direct::tests::key as direct_key;
use crate::race::{
    KEY, Memory, OTHER, OTHER_KEY, Race, SERVICE, Step, endpoint_slot, frontend, header, peer,
};
use crate::socket::Reach;

const SOCKET: u64 = 4711;

/// What is remembered of one socket, the way the maps hold it.
#[derive(Default)]
struct Remembered {
    flows: RefCell<HashMap<(Vec<u32>, u16), Flow>>,
    replies: RefCell<HashMap<(Vec<u32>, u16), Reply>>,
}

fn name(peer: &Peer) -> (Vec<u32>, u16) {
    (peer.address.to_vec(), peer.port_be)
}

fn map_key(peer: &Peer) -> FlowKey {
    FlowKey::new(SOCKET, peer.address, peer.port_be)
}

impl Flows for Remembered {
    fn former(&self, asked: &Peer) -> Former {
        let flows = self.flows.borrow();
        flows
            .get(&name(asked))
            .map_or(Former::none(asked), |flow| Former::of(flow, &map_key(asked)))
    }
    fn asked_as(&self, endpoint: &Peer) -> Peer {
        let replies = self.replies.borrow();
        let never = Peer { port_be: NEVER, ..*endpoint };
        replies.get(&name(endpoint)).map_or(never, |reply| asked_as(reply, &map_key(endpoint)))
    }
}

impl Remembered {
    /// What the program does with a direction.
    fn remember(&self, asked: &Peer, direction: &Directed) {
        let Decision { endpoint, row, service, .. } = direction.decision;
        if direction.writes_flow {
            let (address, port_be) = (endpoint.address, endpoint.port_be);
            let tag = map_key(asked).tag();
            let flow = Flow { tag, row, address, port_be, reserved: 0, service };
            self.flows.borrow_mut().insert(name(asked), flow);
        }
        if direction.writes_reply {
            let (address, port_be, tag) = (asked.address, asked.port_be, map_key(&endpoint).tag());
            let reply = Reply { tag, port_be, reserved: 0, address };
            self.replies.borrow_mut().insert(name(&endpoint), reply);
        }
        if direction.forgets_reply {
            self.replies.borrow_mut().remove(&name(asked));
        }
    }
}

/// Looks for a datagram of the socket.
struct Sender<'a>(&'a Race<'a>, &'a Remembered);

impl Looks for Sender<'_> {
    fn look(&self, inquiry: &mut Inquiry) -> Look {
        look(self.0, &FlowPast(self.1), inquiry)
    }
}

/// What becomes of a datagram to `key`.
fn directed(race: &Race<'_>, remembered: &Remembered, key: &FrontendKey, reach: Reach) -> Directed {
    let mut inquiry = Inquiry::new(*key, reach);
    decide(&Sender(race, remembered), &mut inquiry);
    Directed { decision: inquiry.decision, direction: direct(&remembered, &inquiry) }
}

/// What becomes of a datagram, and what to remember of it.
struct Directed {
    decision: Decision,
    direction: Direction,
}

impl Deref for Directed {
    type Target = Direction;

    fn deref(&self) -> &Direction {
        &self.direction
    }
}

/// Sends a datagram to `key` and remembers what there is to.
fn send_to(race: &Race<'_>, remembered: &Remembered, key: &FrontendKey) -> Directed {
    let direction = directed(race, remembered, key, Reach::Ipv4);
    remembered.remember(&asked(key), &direction);
    direction
}

fn host(direction: &Directed) -> Option<u8> {
    let decision = &direction.decision;
    (decision.verdict == Verdict::Sent)
        .then(|| (0..=u8::MAX).find(|host| peer(*host) == decision.endpoint))
        .flatten()
}

fn what(direction: &Directed) -> (Option<u8>, bool, bool, bool) {
    (host(direction), direction.is_new, direction.writes_flow, direction.writes_reply)
}

/// A socket that has sent one datagram to `KEY`, in `race`, and got endpoint 1.
fn established(race: &Race<'_>) -> Remembered {
    let remembered = Remembered::default();
    let first = send_to(race, &remembered, &KEY);
    assert_eq!(what(&first), (Some(1), true, true, true));
    assert!(first.counts(&first.decision));
    remembered
}

fn quiet(change: impl FnOnce(&mut Memory)) -> Race<'static> {
    let race = Race::new(&[], &[]);
    change(&mut race.memory.borrow_mut());
    race
}

#[test]
fn a_flow_keeps_its_endpoint_and_counts_once() {
    let race = quiet(|_| {});
    let remembered = established(&race);
    // Any other draw would be endpoint 2.
    *race.random.borrow_mut() = [u32::MAX; 8].to_vec();
    for _ in 0..3 {
        let next = send_to(&race, &remembered, &KEY);
        assert_eq!(what(&next), (Some(1), false, false, false));
        assert!(!next.counts(&next.decision));
    }
    assert_eq!(remembered.asked_as(&peer(1)), asked(&KEY));
    // Another socket draws for itself.
    assert_eq!(host(&send_to(&race, &Remembered::default(), &KEY)), Some(2));
}

#[test]
fn a_flow_that_goes_on_costs_no_search_while_its_table_stays() {
    let race = quiet(|_| {});
    let remembered = established(&race);
    race.reads.set(0);
    send_to(&race, &remembered, &KEY);
    // As many as a connection takes: its row is read instead of a drawn one.
    assert_eq!(race.reads.get(), 13);
}

#[test]
fn a_flow_follows_its_endpoint_to_another_row_and_another_table() {
    let race = quiet(|_| {});
    let remembered = established(&race);
    {
        let mut memory = race.memory.borrow_mut();
        memory.table(4, SERVICE, 2, policy::WEIGHTED, &[3, 4, 1]);
        memory.heads[SERVICE as usize] = HeadWord::new(4, 2);
    }
    // The row is written anew, but it is the same flow.
    assert_eq!(what(&send_to(&race, &remembered, &KEY)), (Some(1), false, true, false));
    assert_eq!(what(&send_to(&race, &remembered, &KEY)), (Some(1), false, false, false));
}

#[test]
fn a_flow_whose_endpoint_was_removed_moves_and_its_late_replies_keep_their_name() {
    let race = quiet(|_| {});
    let remembered = established(&race);
    {
        let mut memory = race.memory.borrow_mut();
        memory.table(4, SERVICE, 2, policy::RANDOM, &[2]);
        memory.heads[SERVICE as usize] = HeadWord::new(4, 2);
    }
    assert_eq!(what(&send_to(&race, &remembered, &KEY)), (Some(2), true, true, true));
    for host in [1, 2] {
        assert_eq!(remembered.asked_as(&peer(host)), asked(&KEY));
    }
}

#[test]
fn a_flow_without_any_endpoint_left_is_refused() {
    let race = quiet(|_| {});
    let remembered = established(&race);
    race.memory.borrow_mut().slots[0] = header(SERVICE, 1, 0, ECONNREFUSED, policy::RANDOM);
    let refused = send_to(&race, &remembered, &KEY);
    assert_eq!((refused.decision.verdict, refused.decision.errno), (Verdict::Refused, 111));
    assert!(refused.counts(&refused.decision) && !refused.writes_flow && !refused.writes_reply);
}

#[test]
fn an_endpoint_that_has_another_services_number_and_generation_is_still_looked_for() {
    // The number and the generation are those of a service that is gone; only its table differs.
    let race = quiet(|_| {});
    let remembered = established(&race);
    race.memory.borrow_mut().table(0, SERVICE, 1, policy::RANDOM, &[2]);
    assert_eq!(host(&send_to(&race, &remembered, &KEY)), Some(2));
}

#[test]
fn a_flow_that_its_virtual_address_takes_to_another_service_counts_for_that() {
    let race = quiet(|_| {});
    let remembered = established(&race);
    {
        let mut memory = race.memory.borrow_mut();
        memory.table(4, OTHER, 1, policy::RANDOM, &[2, 1]);
        memory.heads[OTHER as usize] = HeadWord::new(4, 1);
        memory.pool[0] = frontend(&KEY, OTHER, 1, Frontend::FOREVER);
    }
    let moved = send_to(&race, &remembered, &KEY);
    assert_eq!(what(&moved), (Some(1), true, true, false));
    assert_eq!(moved.decision.service, OTHER);
}

/// Two virtual addresses of one service, and endpoints 1 to `endpoints`.
fn two_addresses(endpoints: u8) -> Race<'static> {
    quiet(|memory| {
        memory.elements.insert(OTHER_KEY, 1);
        memory.pool[1] = frontend(&OTHER_KEY, SERVICE, 1, Frontend::FOREVER);
        let hosts: Vec<u8> = (1..=endpoints).collect();
        memory.table(0, SERVICE, 1, policy::RANDOM, &hosts);
    })
}

#[test]
fn two_virtual_addresses_of_one_socket_get_two_endpoints_where_there_are_two() {
    let race = two_addresses(2);
    let remembered = established(&race);
    // Drawn from the end: endpoint 1 twice, then endpoint 2.
    *race.random.borrow_mut() = [u32::MAX, 0, 0].to_vec();
    assert_eq!(what(&send_to(&race, &remembered, &OTHER_KEY)), (Some(2), true, true, true));
    assert_eq!(remembered.asked_as(&peer(1)), asked(&KEY));
    assert_eq!(remembered.asked_as(&peer(2)), asked(&OTHER_KEY));
}

#[test]
fn two_virtual_addresses_with_one_endpoint_are_told_as_the_one_that_was_asked_last() {
    let race = two_addresses(1);
    let remembered = established(&race);
    for key in [OTHER_KEY, KEY, OTHER_KEY] {
        let direction = send_to(&race, &remembered, &key);
        assert_eq!(host(&direction), Some(1));
        assert_eq!(remembered.asked_as(&peer(1)), asked(&key));
    }
}

#[test]
fn an_endpoint_that_is_asked_for_by_its_own_name_answers_by_it() {
    let race = quiet(|_| {});
    let remembered = established(&race);
    let Peer { address, port_be } = peer(1);
    let direct_key = FrontendKey { address, port_be, ..KEY };
    let untouched = send_to(&race, &remembered, &direct_key);
    assert_eq!(untouched.decision.verdict, Verdict::Untouched);
    assert!(untouched.forgets_reply && !untouched.is_new);
    assert_eq!(remembered.asked_as(&peer(1)).port_be, NEVER);
    // The flow is where it was, and its next reply has its name again.
    assert_eq!(what(&send_to(&race, &remembered, &KEY)), (Some(1), false, false, true));
}

#[test]
fn what_was_written_for_another_key_is_not_taken_for_ones_own() {
    let race = quiet(|_| {});
    let remembered = established(&race);
    remembered.flows.borrow_mut().values_mut().for_each(|flow| flow.tag ^= 1);
    remembered.replies.borrow_mut().values_mut().for_each(|reply| reply.tag ^= 1);
    assert_eq!(remembered.asked_as(&peer(1)).port_be, NEVER);
    assert_eq!(what(&send_to(&race, &remembered, &KEY)), (Some(1), true, true, true));
}

#[test]
fn a_datagram_never_changes_its_family() {
    // The kernel refuses an IPv6 datagram that a program turns to an IPv4-mapped address.
    let race = quiet(|_| {});
    let direction = directed(&race, &Remembered::default(), &KEY, Reach::Native);
    assert_eq!(direction.decision.errno, EHOSTUNREACH);
    assert_eq!(direction.decision.verdict, Verdict::Refused);
}

#[test]
fn a_flow_is_kept_or_moved_but_never_passes_while_its_table_is_replaced() {
    let script: [Step; 5] = [
        |memory| memory.table(4, SERVICE, 2, policy::RANDOM, &[3, 1]),
        |memory| memory.heads[SERVICE as usize] = HeadWord::new(4, 2),
        // The old range is freed and given to another service, word by word.
        |memory| memory.slots[0][0] = 0,
        |memory| memory.slots[1] = endpoint_slot(9, 0, 0),
        |memory| memory.slots[0] = header(OTHER, 1, 1, 0, policy::RANDOM),
    ];
    assert_eq!(hosts_during(&script), HashSet::from([Some(1)]));
    let removed: [Step; 4] = [
        |memory| memory.table(4, SERVICE, 2, policy::RANDOM, &[3]),
        |memory| memory.heads[SERVICE as usize] = HeadWord::new(4, 2),
        |memory| memory.slots[0][0] = 0,
        |memory| memory.slots[1] = endpoint_slot(9, 0, 0),
    ];
    assert_eq!(hosts_during(&removed), HashSet::from([Some(1), Some(3)]));
}

/// Where the next datagram of a flow to endpoint 1 can go while a writer takes the steps of `script`
/// in order, each at any instant.
fn hosts_during(script: &[Step]) -> HashSet<Option<u8>> {
    // Two looks and a half.
    const INSTANTS: usize = 22;
    let mut seen = HashSet::new();
    let mut at = std::vec![0; script.len()];
    loop {
        let race = Race::new(script, &at);
        let remembered = established(&quiet(|_| {}));
        let direction = send_to(&race, &remembered, &KEY);
        assert_ne!(direction.decision.verdict, Verdict::Untouched);
        assert!(host(&direction).is_some() || direction.decision.errno != EAGAIN);
        seen.insert(host(&direction));
        let Some(last) = at.iter().rposition(|instant| *instant < INSTANTS) else { return seen };
        let next = at[last] + 1;
        at[last..].fill(next);
    }
}

#[test]
fn a_flow_to_an_endpoint_itself_counts_once_and_is_answered_as_itself() {
    let race = quiet(|memory| {
        memory.direct(4, OTHER, 1, &[(1, 1), (2, 2)]);
        memory.heads[OTHER as usize] = HeadWord::new(4, 1);
        memory.lead(2, OTHER, 1, Frontend::FOREVER);
    });
    let remembered = Remembered::default();
    let key = direct_key(2);
    assert_eq!(what(&send_to(&race, &remembered, &key)), (Some(2), true, true, true));
    assert_eq!(remembered.asked_as(&peer(2)), peer(2));
    assert_eq!(what(&send_to(&race, &remembered, &key)), (Some(2), false, false, false));
    // Another row of a new table is not another endpoint.
    {
        let mut memory = race.memory.borrow_mut();
        memory.direct(8, OTHER, 2, &[(2, 2), (3, 3)]);
        memory.heads[OTHER as usize] = HeadWord::new(8, 2);
    }
    assert_eq!(what(&send_to(&race, &remembered, &key)), (Some(2), false, true, false));
}

#[test]
fn who_asks_for_an_endpoint_gets_it_though_a_service_leads_there_too() {
    let race = quiet(|memory| {
        memory.direct(4, OTHER, 1, &[(1, 1), (2, 2)]);
        memory.heads[OTHER as usize] = HeadWord::new(4, 1);
        memory.lead(1, OTHER, 1, Frontend::FOREVER);
    });
    let remembered = established(&race);
    let direct = send_to(&race, &remembered, &direct_key(1));
    assert_eq!((what(&direct), direct.decision.retries), ((Some(1), true, true, true), 0));
    assert_eq!(remembered.asked_as(&peer(1)), peer(1), "it sent there last");
}
