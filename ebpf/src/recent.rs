//! Which endpoint a client was last found to stay with. Pure.
//!
//! `AFFINITIES` says where clients stay, and to look there takes longer than nearly all else that a connection needs. So what was
//! found is noted, where it is found without a search, and counts for a short part of the time that the client stays: until
//! then nobody needs to extend it. What is noted may be out of date as anything there may be, and is checked likewise.

use core::mem::offset_of;

use holdfast_protocol::kernel::{AffinityKey, RECENTS, Recent};

use crate::socket::Peer;
use crate::versioned::{self, Versioned};
use crate::words;

/// How many words an element has.
#[cfg(test)]
const WORDS: usize = size_of::<Recent>() / size_of::<u64>();
const OWNER: usize = at(offset_of!(Recent, service));
const CLIENT: usize = at(offset_of!(Recent, client));
const ADDRESS: usize = at(offset_of!(Recent, address));
const PLACE: usize = at(offset_of!(Recent, port_be));
const UNTIL: usize = at(offset_of!(Recent, until));

const _: () = assert!(offset_of!(Recent, version) == 8 * versioned::VERSION);
const _: () = assert!(offset_of!(Recent, by) == 8 * OWNER + 4);
const _: () = assert!(offset_of!(Recent, row) == 8 * PLACE + 4);

const fn at(offset: usize) -> usize {
    offset / size_of::<u64>()
}

/// Where a client stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stand {
    /// Its endpoint.
    pub endpoint: Peer,
    /// The row of its endpoint.
    pub row: u32,
    /// Until when it stays, as `AFFINITIES` has it.
    pub until: u64,
}

impl Stand {
    /// Whether it counts at `now`, of a client that is to stay for `duration` from then on: it has hardly been longer since
    /// this was noted. What counts is not over, for it is not near its end.
    #[inline(always)]
    #[must_use]
    pub const fn is_recent(&self, now: u64, duration: u64) -> bool {
        now.wrapping_add(duration).wrapping_sub(self.until) <= duration / 64
    }
}

/// What was noted of the client with this key.
#[inline(always)]
pub fn find<V: Versioned>(recents: &V, key: &AffinityKey) -> Option<Stand> {
    let element = recents.element(index(key))?;
    let word = |word| recents.word(element, word);
    let (differs, place, high, low, until) = versioned::read(recents, element, || {
        let differs = (word(OWNER) ^ owner(key))
            | (word(CLIENT) ^ key.client[0])
            | (word(CLIENT + 1) ^ key.client[1]);
        (differs, word(PLACE), word(ADDRESS), word(ADDRESS + 1), word(UNTIL))
    })?;
    let endpoint = Peer { address: words::address(high, low), port_be: words::port_be(place) };
    (differs == 0).then_some(Stand { endpoint, row: words::high(place), until })
}

/// Notes where the client with this key stays, in place of what is at its element.
#[inline(always)]
pub fn note<V: Versioned>(recents: &V, key: &AffinityKey, stand: &Stand) {
    let Some(element) = recents.element(index(key)) else { return };
    let set = |word, value| recents.set(element, word, value);
    let Stand { endpoint: Peer { address, port_be }, row, until } = *stand;
    versioned::write(recents, element, || {
        set(OWNER, owner(key));
        set(CLIENT, key.client[0]);
        set(CLIENT + 1, key.client[1]);
        set(ADDRESS, words::word(address[0], address[1]));
        set(ADDRESS + 1, words::word(address[2], address[3]));
        set(PLACE, words::word(port_be as u32, row));
        set(UNTIL, until);
    });
}

#[inline(always)]
const fn owner(key: &AffinityKey) -> u64 {
    words::word(key.service, key.by)
}

/// The highest bits of a product, which all lower bits of what is multiplied have changed.
#[inline(always)]
const fn index(key: &AffinityKey) -> u32 {
    const ODD: [u64; 2] = [0xc2b2_ae3d_27d4_eb4f, 0xff51_afd7_ed55_8ccd];
    let client = key.client[0] ^ key.client[1].rotate_left(32);
    let mixed = client.wrapping_mul(ODD[0]) ^ owner(key);
    (mixed.wrapping_mul(ODD[1]) >> (u64::BITS - RECENTS.trailing_zeros())) as u32
}

#[cfg(test)]
#[path = "recent_tests.rs"]
mod tests;
