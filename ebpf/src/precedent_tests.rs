//! Tests of what is found, over an element that others write between any two accesses.

use std::vec;
use std::vec::Vec;

use holdfast_protocol::kernel::mapped;

use super::*;
use crate::versioned::tests::{Shared, Store, each_way};

const ALLOWED: Ruling = Ruling::ALLOWED;
const DENIED: Ruling = Ruling(2 << 32 | 7);

fn head(generation: u32) -> HeadWord {
    HeadWord::new(1, generation)
}

/// What is judged of a connection from `cgroup` to `host`.
fn matter(head: HeadWord, cgroup: u64, host: u8) -> Matter {
    let asked = mapped(u32::from_le_bytes([10, 0, 0, host]));
    let request = Request {
        asked: &asked,
        endpoint: &asked,
        local: [0; 4],
        cgroup,
        asked_port_be: 80_u16.to_be(),
        endpoint_port_be: 80_u16.to_be(),
    };
    Matter::new(head, &request)
}

/// The words, and the stores that lead there, once `ruling` is kept of `matter` in `words`.
fn kept(
    words: [u64; word::COUNT],
    matter: &Matter,
    ruling: Ruling,
) -> ([u64; word::COUNT], Vec<Store>) {
    let shared = Shared::new(words, &[], &[]);
    keep(&shared, matter, ruling);
    (shared.words.into_inner(), shared.stores.into_inner())
}

#[test]
fn what_was_said_is_found_for_the_same_and_nothing_else() {
    let said = matter(head(1), 7, 1);
    let (words, _) = kept([0; word::COUNT], &said, DENIED);
    let found = |matter: &Matter| find(&Shared::new(words, &[], &[]), matter);
    assert_eq!(found(&said), Some(DENIED));
    let edited = Matter { ports: said.ports ^ 1 << 32, ..said };
    let others = [
        matter(head(2), 7, 1),
        matter(head(1), 8, 1),
        matter(head(1), 7, 2),
        Matter { asked: [said.asked[0] ^ 1, said.asked[1]], ..said },
        Matter { asked: [said.asked[0], said.asked[1] ^ 1], ..said },
        Matter { endpoint: [said.endpoint[0] ^ 1, said.endpoint[1]], ..said },
        Matter { endpoint: [said.endpoint[0], said.endpoint[1] ^ 1], ..said },
        Matter { local: [1, 0], ..said },
        Matter { local: [0, 1], ..said },
        Matter { ports: said.ports ^ 1, ..said },
        Matter { ports: said.ports ^ 1 << 16, ..said },
        edited,
    ];
    for other in others {
        assert_eq!(found(&other), None, "{other:?}");
    }
    assert_eq!(find(&Shared::new([0; word::COUNT], &[], &[]), &said), None, "nothing is said yet");
}

/// Everything that is judged is in what is compared: a request that differs in one thing makes another matter.
#[test]
fn no_part_of_a_request_is_left_out() {
    let (asked, other) = ([1, 2, 3, 4], [5, 6, 7, 8]);
    let request = Request {
        asked: &asked,
        endpoint: &other,
        local: [9, 10, 11, 12],
        cgroup: 13,
        asked_port_be: 14,
        endpoint_port_be: 15,
    };
    let Request { local, cgroup, asked_port_be, endpoint_port_be, .. } = request;
    let mut matters = vec![Matter::new(head(1), &request), Matter::new(head(2), &request)];
    for word in 0..4 {
        let changed = |address: [u32; 4]| {
            let mut changed = address;
            changed[word] += 100;
            changed
        };
        let (one, two) = (changed(asked), changed(other));
        matters.push(Matter::new(head(1), &Request { asked: &one, ..request }));
        matters.push(Matter::new(head(1), &Request { endpoint: &two, ..request }));
        matters.push(Matter::new(head(1), &Request { local: changed(local), ..request }));
    }
    matters.push(Matter::new(head(1), &Request { cgroup: cgroup + 1, ..request }));
    matters.push(Matter::new(head(1), &Request { asked_port_be: asked_port_be + 1, ..request }));
    matters
        .push(Matter::new(head(1), &Request { endpoint_port_be: endpoint_port_be + 9, ..request }));
    for (at, one) in matters.iter().enumerate() {
        assert!(!matters[..at].contains(one), "{at}");
    }
}

#[test]
fn what_is_rewritten_while_it_is_read_is_never_found_as_something_else() {
    let (said, other) = (matter(head(1), 7, 1), matter(head(1), 7, 2));
    let again = matter(head(2), 7, 1);
    let (words, _) = kept([0; word::COUNT], &said, ALLOWED);
    // Others write there: something else, then what is looked for, of which the contrary is said now.
    for (first, second) in [(other, said), (again, said), (said, other), (said, again)] {
        let (between, mut stores) = kept(words, &first, DENIED);
        stores.extend(kept(between, &second, DENIED).1);
        // All stores of one writer are due at few instants: where it is cut, and where it goes on.
        let writes = stores.len() / 2;
        for cut in 0..=stores.len() {
            each_way(2, word::COUNT + 1, |when| {
                let at: Vec<usize> =
                    (0..stores.len()).map(|store| when[usize::from(store >= cut)]).collect();
                let shared = Shared::new(words, &stores, &at);
                let found = find(&shared, &said);
                // The first was allowed, the others denied: what is found was said while it was looked for.
                let is_early = at[0] > 0;
                match found {
                    None => {}
                    Some(ALLOWED) => assert!(is_early, "{at:?}"),
                    Some(DENIED) => {
                        let place = if first == said { writes - 1 } else { stores.len() - 1 };
                        assert!(second == said || first == said, "{at:?}");
                        assert!(at[place] <= word::COUNT, "{at:?}");
                    }
                    Some(ruling) => panic!("{ruling:?} was never said"),
                }
            });
        }
    }
}

#[test]
fn of_two_that_write_at_once_one_is_kept_whole() {
    let (one, other) = (matter(head(1), 7, 1), matter(head(1), 8, 2));
    let (_, stores) = kept([0; word::COUNT], &other, DENIED);
    for cut in 0..=stores.len() {
        // The other one begins before the first access, is cut short, and goes on at any later one.
        for rest in 0..=word::COUNT + 2 {
            let at: Vec<usize> =
                (0..stores.len()).map(|store| if store < cut { 0 } else { rest }).collect();
            let shared = Shared::new([0; word::COUNT], &stores, &at);
            // What is due at an instant of its own is not begun when this one has: it would have seen that.
            if cut == 0 && rest > 0 {
                continue;
            }
            keep(&shared, &one, ALLOWED);
            while shared.accesses.get() <= word::COUNT + 2 {
                shared.access();
            }
            let words = shared.words.into_inner();
            let found = |matter: &Matter| find(&Shared::new(words, &[], &[]), matter);
            let is_first = cut < stores.len() && rest > 0;
            let expected =
                if is_first { (None, Some(DENIED)) } else { (found(&one), found(&other)) };
            assert_eq!((found(&one), found(&other)), expected, "{cut} {rest}");
            assert!(found(&one).is_some() != found(&other).is_some(), "{cut} {rest}");
        }
    }
}

#[test]
fn neighbours_have_elements_of_their_own() {
    let mut indices: Vec<u32> = (0..=u8::MAX)
        .flat_map(|host| [7, 8, 9, 4711].map(|cgroup| matter(head(1), cgroup, host).index()))
        .collect();
    indices.sort_unstable();
    indices.dedup();
    // Dealt at random, 1,024 of them would have 993 of 16,384 elements.
    assert!(indices.len() > 960, "{}", indices.len());
}
