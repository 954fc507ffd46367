//! Tests of what is noted, over an element that others write between any two accesses.

use std::vec::Vec;

use super::*;
use crate::race::peer;
use crate::versioned::tests::{Shared, Store, each_way};

const DURATION: u64 = 64_000;

fn key(service: u32, client: u64) -> AffinityKey {
    AffinityKey { service, by: 0, client: [client, 0] }
}

fn stand(host: u8, row: u32) -> Stand {
    Stand { endpoint: peer(host), row, until: u64::from(host) * 1000 }
}

/// The words, and the stores that lead there, once `stand` is noted of `key` in `words`.
fn noted(words: [u64; WORDS], key: &AffinityKey, stand: &Stand) -> ([u64; WORDS], Vec<Store>) {
    let shared = Shared::new(words, &[], &[]);
    note(&shared, key, stand);
    (shared.words.into_inner(), shared.stores.into_inner())
}

#[test]
fn what_was_noted_is_found_for_the_same_client_of_the_same_service() {
    let (words, _) = noted([0; WORDS], &key(1, 7), &stand(3, 2));
    let found = |key: &AffinityKey| find(&Shared::new(words, &[], &[]), key);
    assert_eq!(found(&key(1, 7)), Some(stand(3, 2)));
    let others = [
        key(2, 7),
        key(1, 8),
        AffinityKey { by: 1, ..key(1, 7) },
        AffinityKey { client: [7, 1], ..key(1, 7) },
    ];
    for other in others {
        assert_eq!(found(&other), None, "{other:?}");
    }
}

#[test]
fn a_note_counts_for_a_short_part_of_the_time_and_never_longer_than_the_client_stays() {
    let noted = Stand { until: 1_000_000 + DURATION, ..stand(1, 0) };
    assert!(noted.is_recent(1_000_000, DURATION) && noted.is_recent(1_001_000, DURATION));
    assert!(!noted.is_recent(1_001_001, DURATION), "somebody has to extend it");
    // The time was made longer, or shorter.
    assert!(!noted.is_recent(1_000_000, 2 * DURATION) && !noted.is_recent(1_000_000, DURATION / 2));
    let over = Stand { until: 1_000_000, ..noted };
    assert!(!over.is_recent(1_000_000, 1) && over.is_recent(999_999, 1));
    assert!(!Stand { until: 0, ..noted }.is_recent(0, DURATION), "nothing was noted");
}

#[test]
fn what_is_rewritten_while_it_is_read_is_one_note_or_none() {
    let own = key(1, 7);
    let (words, _) = noted([0; WORDS], &own, &stand(1, 1));
    for (first, second) in [(key(1, 8), own), (own, key(1, 8)), (own, own)] {
        let (between, mut stores) = noted(words, &first, &stand(2, 2));
        stores.extend(noted(between, &second, &stand(3, 3)).1);
        for cut in 0..=stores.len() {
            each_way(2, WORDS + 1, |when| {
                let at: Vec<usize> =
                    (0..stores.len()).map(|store| when[usize::from(store >= cut)]).collect();
                let found = find(&Shared::new(words, &stores, &at), &own);
                let known = [Some(stand(1, 1)), Some(stand(2, 2)), Some(stand(3, 3)), None];
                assert!(known.contains(&found), "{found:?} {at:?}");
                assert!(found != Some(stand(2, 2)) || first == own, "{at:?}");
            });
        }
    }
}

#[test]
fn neighbours_have_elements_of_their_own() {
    let keys = (1..=32).flat_map(|service| (0..32).map(move |client| key(service, 4000 + client)));
    let mut indices: Vec<u32> = keys.map(|key| index(&key)).collect();
    indices.sort_unstable();
    indices.dedup();
    // Dealt at random, 1,024 of them would have 993 of 16,384 elements.
    assert!(indices.len() > 960, "{}", indices.len());
}
