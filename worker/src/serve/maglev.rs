//! The lookup table of consistent hashing (D. E. Eisenbud et al., "Maglev: A Fast and Reliable
//! Software Network Load Balancer", NSDI 2016, section 3.4).
//!
//! Every endpoint prefers the entries of the table in an order of its own, a permutation that its
//! identity alone decides. The endpoints take turns, and each takes the first entry in its order that
//! is still free, until none is. So they get equally many entries, and an endpoint that comes or goes
//! changes hardly any entry but its own.
//!
//! Two things are not the paper's. Weights: an endpoint's turns come in proportion to its weight, and
//! each endpoint has one before anybody has the second. And the order in which endpoints take turns is
//! that of their hashes, so the order in which they are listed does not matter.
//!
//! **Everything that is hashed is hashed with the fixed keys below, in this version and in all that
//! come after it**: a worker of another version that made another table would send most clients of
//! the node elsewhere. A test holds a table to its bytes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::IpAddr;

/// What an endpoint is to the table: where it is and how much it is to get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its address.
    pub address: IpAddr,
    /// The port it names; 0 if it names none. The target port is no part of it, so that a client has
    /// the same endpoint on every port of a service.
    pub port: u16,
    /// Its weight, above 0.
    pub weight: u64,
}

/// Keys the order in which an endpoint prefers entries: where it starts.
const OFFSET_KEY: u64 = 0x686f_6c64_6661_7374;
/// Keys the same order: how far apart its steps are.
const SKIP_KEY: u64 = 0x6d61_676c_6576_3031;
/// Time between two turns of an endpoint of weight 1. Weights are at most 2^40, so the rounding of the
/// quotient is at most 2^-24 of it; and there are at most 2^32 turns, so the time has 96 bits.
const TURN: u128 = 1 << 64;

/// The table of `size` entries, each the index of one of `members`. Empty without members.
///
/// `size` is a prime, so that every step leads through all entries, and at least the number of members.
#[must_use]
pub fn table(members: &[Member], size: u32) -> Vec<u32> {
    const FREE: u32 = u32::MAX;
    if members.is_empty() {
        return Vec::new();
    }
    let size = size as usize;
    let mut orders: Vec<Order> = members.iter().map(|member| Order::of(member, size)).collect();
    let mut entries = vec![FREE; size];
    let mut turns: BinaryHeap<Reverse<(u128, u64, usize)>> =
        members.iter().enumerate().map(|(at, it)| Reverse((0, hash(OFFSET_KEY, it), at))).collect();
    for _ in 0..size {
        let Some(Reverse((due, tie, at))) = turns.pop() else { break };
        let order = &mut orders[at];
        // An order leads through all entries, and in each turn one is still free.
        while entries[order.next] != FREE {
            order.step(size);
        }
        entries[order.next] = u32::try_from(at).expect("a service has far fewer endpoints");
        turns.push(Reverse((due + TURN / u128::from(members[at].weight), tie, at)));
    }
    entries
}

/// The order in which an endpoint prefers entries.
struct Order {
    next: usize,
    skip: usize,
}

impl Order {
    fn of(member: &Member, size: usize) -> Self {
        Self {
            next: remainder(hash(OFFSET_KEY, member), size),
            skip: 1 + remainder(hash(SKIP_KEY, member), size - 1),
        }
    }

    const fn step(&mut self, size: usize) {
        self.next += self.skip;
        if self.next >= size {
            self.next -= size;
        }
    }
}

fn remainder(hash: u64, size: usize) -> usize {
    usize::try_from(hash % size as u64).expect("it is below a table's size")
}

/// A hash of the identity of `member` under `key`.
fn hash(key: u64, member: &Member) -> u64 {
    let address = match member.address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    let bits = u128::from(address);
    let (high, low) = ((bits >> 64) as u64, bits as u64);
    [high, low, u64::from(member.port)].into_iter().fold(key, |state, word| mix(state ^ word))
}

/// Spreads every bit of `word` over all of them: the 64-bit finaliser of MurmurHash3 (A. Appleby), a
/// permutation. The golden ratio keeps 0 from being mapped to itself.
const fn mix(word: u64) -> u64 {
    let mut mixed = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^ (mixed >> 33)
}

#[cfg(test)]
#[path = "maglev_tests.rs"]
mod tests;
