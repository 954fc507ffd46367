//! Which endpoint a client stays with.
//!
//! What is remembered of a client never leads anywhere by itself. It names an endpoint, and that endpoint
//! has to be found in the table of the service as it is now, first at the row where it was found last,
//! then by a search, as [flows](crate::flow) do; else the client is a new one. So an entry that is
//! out of date, or that the kernel has given to another client meanwhile (it reuses the elements of this
//! kind of map at once), can cost a client its endpoint but never send it out of the table.

use holdfast_protocol::kernel::{Affinity, AffinityKey};

use crate::client::Client;
use crate::recent::Stand;
use crate::socket::Peer;
use crate::words;

/// Where clients are remembered.
pub trait Affinities {
    /// An element of `AFFINITIES`. The kernel may give it to another key while it is held.
    type Affinity: Copy;

    /// The element that belongs to `key` now.
    fn affinity(&self, key: &AffinityKey) -> Option<Self::Affinity>;
    /// A word of an element: one of the `AFFINITY` constants of [`words`].
    fn affinity_word(&self, affinity: Self::Affinity, word: usize) -> u64;
    /// Lets the client stay until then.
    fn extend(&self, affinity: Self::Affinity, until: u64);
    /// Remembers `affinity` under `key`, in place of what is there. If the kernel has no room for it, the
    /// client is a new one next time.
    fn remember(&self, key: &AffinityKey, affinity: &Affinity);
    /// Where the client with this key was last found to stay, if that was noted.
    fn recent(&self, key: &AffinityKey) -> Option<Stand>;
    /// Notes where it stays.
    fn note(&self, key: &AffinityKey, stand: &Stand);
    /// Nanoseconds since boot, without the time that the machine was suspended: seconds are asked of it, and a clock that is a
    /// tick of the kernel behind and stands still meanwhile costs less than half of one that is not.
    fn now(&self) -> u64;
}

/// What becomes of a client that may stay. Small, because the compiler would otherwise call a function to
/// set or copy it, and there is none in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stay {
    /// Whether it is to be remembered, or remembered otherwise.
    pub is_new: bool,
    /// How it was told apart: one of [`client`](holdfast_protocol::kernel::client).
    pub by: u8,
    /// The row of its endpoint.
    pub row: u32,
    /// Until when it stays.
    pub until: u64,
}

impl Stay {
    /// Nothing is remembered.
    pub const NONE: Self = Self { is_new: false, by: 0, row: 0, until: 0 };

    /// Where a client at `endpoint` stays.
    #[inline(always)]
    #[must_use]
    pub const fn stand(&self, endpoint: Peer) -> Stand {
        Stand { endpoint, row: self.row, until: self.until }
    }

    /// What is to be remembered of a client at `endpoint`.
    #[inline(always)]
    #[must_use]
    pub const fn affinity(&self, endpoint: Peer) -> Affinity {
        Affinity {
            address: endpoint.address,
            port_be: endpoint.port_be,
            reserved: 0,
            row: self.row,
            until: self.until,
        }
    }
}

/// Under what `client` of `service` is remembered.
#[inline(always)]
#[must_use]
pub const fn key(service: u32, client: &Client) -> AffinityKey {
    AffinityKey { service, by: client.by, client: client.id }
}

/// What the element `affinity` names, its row, and until when it counts.
#[inline(always)]
pub fn remembered<A: Affinities>(from: &A, affinity: A::Affinity) -> (Peer, u32, u64) {
    let place = from.affinity_word(affinity, words::AFFINITY_PORT);
    let address = words::address(
        from.affinity_word(affinity, words::AFFINITY_ADDRESS_HIGH),
        from.affinity_word(affinity, words::AFFINITY_ADDRESS_LOW),
    );
    let until = from.affinity_word(affinity, words::AFFINITY_UNTIL);
    (Peer { address, port_be: words::port_be(place) }, words::high(place), until)
}
