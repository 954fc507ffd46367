//! The structs that the kernel programs and the worker share through maps.
//!
//! Three rules hold for each of them: `#[repr(C)]` without hidden padding, a size asserted below,
//! and no type for which some bit pattern is invalid, because the other side may be a different
//! build, or may be half-way through a write.
//!
//! How a connection finds its endpoint:
//!
//! ```text
//! FRONTENDS  (address, port, protocol) ──► Frontend { service number, generations it is in force }
//! HEADS      service number            ──► HeadWord { slot in TABLES, generation }     one word
//! TABLES     slot                      ──► TableHeader, Settings if any, EndpointSlots, lookup table if any
//! ```
//!
//! A table is written while nothing names it and never changes while something does. Storing one
//! [`HeadWord`] publishes it, together with every [`Frontend`] that begins or ends to be in force at
//! its generation: a writer that dies at any instruction leaves the service wholly old or wholly new.

pub mod cache;
pub mod endpoint;
mod enrolment;
pub mod event;
mod flow;
pub mod limit;
pub mod map;
pub mod program;
pub mod rules;
mod socket;
pub mod traffic;

pub use enrolment::{EnrolledKey, EnrolmentWord, enrolled};
pub use flow::{Flow, FlowKey, Reply};
pub use socket::{SeatWord, SocketState, phase};

/// IP protocol number of TCP (RFC 9293).
pub const PROTOCOL_TCP: u8 = 6;
/// IP protocol number of UDP (RFC 768).
pub const PROTOCOL_UDP: u8 = 17;

/// An address in the form all maps use: 16 bytes in network order, IPv4 as IPv4-mapped IPv6
/// (RFC 4291, section 2.5.5.2), read as four native words because that is how the kernel's
/// `bpf_sock_addr` presents it.
pub type Address = [u32; 4];

/// The third word of an IPv4-mapped address: `::ffff:0:0/96`, in network order.
pub const MAPPED_PREFIX: u32 = u32::from_be(0x0000_ffff);

/// The IPv4-mapped form of `address`, which is in network order.
#[must_use]
pub const fn mapped(address: u32) -> Address {
    [0, 0, MAPPED_PREFIX, address]
}

/// Whether `address` is IPv4-mapped: an IPv4 socket can reach it.
#[must_use]
pub const fn is_mapped(address: &Address) -> bool {
    address[0] == 0 && address[1] == 0 && address[2] == MAPPED_PREFIX
}

/// What a client asks for: the key of `FRONTENDS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrontendKey {
    /// The virtual address.
    pub address: Address,
    /// The port, in network order.
    pub port_be: u16,
    /// [`PROTOCOL_TCP`] or [`PROTOCOL_UDP`].
    pub protocol: u8,
    /// Always 0: the kernel hashes every byte of a key.
    pub reserved: u8,
}

impl FrontendKey {
    /// A digest of the key that is kept in its [`Frontend`].
    ///
    /// The kernel may give a freed hash element to another key while a program still reads it
    /// (`kernel/bpf/hashtab.c`: elements go back to a per-CPU free list at once). The program
    /// compares this digest to tell that the value it reads belongs to the key it looked up.
    #[must_use]
    pub const fn tag(&self) -> u32 {
        let high = ((self.address[0] as u64) << 32) | self.address[1] as u64;
        let low = ((self.address[2] as u64) << 32) | self.address[3] as u64;
        let rest = ((self.port_be as u64) << 8) | self.protocol as u64;
        mix(high, low, rest)
    }
}

/// Multiplicative mixing (Knuth's golden ratio): cheap in the kernel, and two keys that are in use
/// in one node at one time almost never share the result.
const fn mix(first: u64, second: u64, third: u64) -> u32 {
    const RATIO: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut mixed = first.wrapping_mul(RATIO) ^ second;
    mixed = (mixed ^ (mixed >> 32)).wrapping_mul(RATIO) ^ third;
    mixed = (mixed ^ (mixed >> 32)).wrapping_mul(RATIO);
    (mixed >> 32) as u32
}

/// Where a [`FrontendKey`] leads: the value of `FRONTENDS`.
///
/// It is in force while the service's generation `g` has `from <= g < until`. That is what makes a
/// change of several addresses one step: they all wait for the same generation to be published.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frontend {
    /// The service number: an index into `HEADS`, `SERVICES`, `COUNTERS` and `TRAFFIC`.
    pub service: u32,
    /// [`FrontendKey::tag`] of the key this value was written for.
    pub tag: u32,
    /// The first generation of the service in which this address leads to it.
    pub from: u32,
    /// The first generation in which it no longer does, or [`Frontend::FOREVER`].
    pub until: u32,
}

impl Frontend {
    /// `until` of a frontend whose end has not been decided.
    pub const FOREVER: u32 = u32::MAX;

    /// Whether this frontend leads to the service at `generation`.
    #[must_use]
    pub const fn in_force(&self, generation: u32) -> bool {
        self.from <= generation && generation < self.until
    }
}

/// The element of `HEADS`: which table a service uses now. 0 means that the service is not
/// published, and its frontends pass untouched.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadWord(pub u64);

impl HeadWord {
    /// The word of a service that is not published.
    pub const UNPUBLISHED: Self = Self(0);
    /// Generations count publications of one service number from here.
    pub const FIRST_GENERATION: u32 = 1;
    /// The last generation a service number can have; below [`Frontend::FOREVER`]. At ten
    /// publications a second it lasts 13 years; then the service moves to a fresh number.
    pub const LAST_GENERATION: u32 = u32::MAX - 2;

    /// The word that names the table at `slot`, published as `generation` (at least 1).
    #[must_use]
    pub const fn new(slot: u32, generation: u32) -> Self {
        Self(((generation as u64) << 32) | slot as u64)
    }

    /// The slot of the table's header in `TABLES`.
    #[must_use]
    pub const fn slot(self) -> u32 {
        self.0 as u32
    }

    /// How often the service number has been published.
    #[must_use]
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Whether this word names a table.
    #[must_use]
    pub const fn is_published(self) -> bool {
        self.generation() != 0
    }
}

/// How an endpoint is chosen: [`TableHeader::policy`].
pub mod policy {
    /// Each endpoint with the same probability.
    pub const RANDOM: u8 = 0;
    /// Each endpoint with a probability proportional to its weight, by the alias method (M. D.
    /// Vose, "A linear algorithm for generating random numbers with a given distribution", 1991).
    pub const WEIGHTED: u8 = 1;
    /// One endpoint after the other, by the service's element of `CURSORS`.
    pub const ROUND_ROBIN: u8 = 2;
    /// The one that the table's lookup table has for the client, whom
    /// [`Settings::hash_by`](super::Settings::hash_by) tells apart.
    pub const MAGLEV: u8 = 3;
    /// Of two that are drawn, the one with fewer connections for its weight (M. Mitzenmacher, "The
    /// power of two choices in randomized load balancing", 2001).
    pub const LEAST_CONNECTIONS: u8 = 8;
    /// None: who asks for an endpoint's own address gets that endpoint. See
    /// [`EndpointSlot::rank`](super::EndpointSlot::rank).
    pub const DIRECT: u8 = 16;
}

/// The first slot of a table.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableHeader {
    /// The service number this table was written for.
    pub service: u32,
    /// The generation it was written for. Together with `service` it says that the reader still
    /// reads the table it was sent to: it is read before and after the endpoint.
    pub generation: u32,
    /// How many [`EndpointSlot`]s follow.
    pub endpoints: u32,
    /// What `connect` fails with when `endpoints` is 0: a positive `errno`.
    pub no_endpoint_errno: u16,
    /// One of [`policy`].
    pub policy: u8,
    /// Which of [`feature`] the service uses. None of them: nothing but the endpoints is looked at.
    pub features: u8,
    /// How many slots between the header and the first endpoint hold its [`Settings`]: 0 or
    /// [`SETTINGS_SLOTS`].
    pub settings: u32,
    /// How many entries the lookup table behind the endpoints has; 0 without one. Each is 1 more than
    /// the index of an endpoint, 32 bits wide, [`LOOKUP_PER_SLOT`] to a slot.
    pub lookup: u32,
    /// Always 0.
    pub reserved: u64,
}

impl TableHeader {
    /// `service` and `generation` as one word, for a single aligned read.
    #[must_use]
    pub const fn identity(service: u32, generation: u32) -> u64 {
        // In memory `service` comes first; all of Holdfast's targets are little-endian.
        ((generation as u64) << 32) | service as u64
    }
}

/// What a service asks for beyond an endpoint: [`TableHeader::features`].
pub mod feature {
    /// Bounds on open connections and on attempts, in its [`Settings`](super::Settings).
    pub const LIMITS: u8 = 1 << 0;
    /// Bounds on connections a second, in its [`Settings`](super::Settings).
    pub const RATE: u8 = 1 << 1;
    /// A client stays with its endpoint for a time, in its [`Settings`](super::Settings).
    pub const AFFINITY: u8 = 1 << 2;
    /// Which of its connections the access log has, in its [`Settings`](super::Settings); without it, as
    /// for all services that do not say.
    pub const EVENTS: u8 = 1 << 3;
    /// Connections to an endpoint that drains too long are closed: where their sockets are is remembered.
    pub const DRAIN: u8 = 1 << 6;
}

/// How a service's clients are told apart.
pub mod client {
    /// By the control group of the process that connects.
    pub const CGROUP: u8 = 0;
    /// By the network namespace of the socket.
    pub const NETWORK_NAMESPACE: u8 = 1;
    /// By the address the socket is bound to; by its network namespace if it is bound to none.
    pub const SOURCE: u8 = 2;
}

/// What a service asks for beyond an endpoint, in the slots that follow its table's header. It is
/// published with the table, so a change of any of it is in force together with the rest.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Open connections of the service at most; 0 for no bound.
    pub open: u32,
    /// Attempts of the service that have not come to anything yet, at most; 0 for no bound.
    pub pending: u32,
    /// Open connections of one endpoint at most; 0 for no bound.
    pub endpoint_open: u32,
    /// Attempts at one endpoint at most; 0 for no bound.
    pub endpoint_pending: u32,
    /// Connections of the service a second; 0 for no bound.
    pub rate: u32,
    /// How many of them may come at once.
    pub burst: u32,
    /// How long a client stays with its endpoint after its last connection, in milliseconds.
    pub affinity_ms: u32,
    /// Who has [`Self::client_rate`] for itself: one of [`client`].
    pub rate_by: u8,
    /// Who stays with an endpoint: one of [`client`].
    pub affinity_by: u8,
    /// Whom a consistent hash is taken of: one of [`client`].
    pub hash_by: u8,
    /// [`Settings::MARK`] of the first slot.
    pub first_mark: u8,
    /// Connections of one client a second; 0 for no bound.
    pub client_rate: u32,
    /// How many of them may come at once.
    pub client_burst: u32,
    /// The share of connections that the access log has, in parts of `u32::MAX`.
    pub sample: u32,
    /// What it has of them: a set of [`event::kind`]s.
    pub logged: u32,
    /// Always 0.
    pub more: u64,
    /// [`Settings::MARK`] of the second slot.
    pub mark: u64,
}

impl Settings {
    /// Keeps each slot from being all zeros, which would look as if it had never been used.
    pub const MARK: u8 = 1;

    /// Nothing is asked for.
    pub const NONE: Self = Self {
        open: 0,
        pending: 0,
        endpoint_open: 0,
        endpoint_pending: 0,
        rate: 0,
        burst: 0,
        affinity_ms: 0,
        rate_by: client::CGROUP,
        affinity_by: client::CGROUP,
        hash_by: client::CGROUP,
        first_mark: Self::MARK,
        client_rate: 0,
        client_burst: 0,
        sample: 0,
        logged: 0,
        more: 0,
        mark: Self::MARK as u64,
    };
}

/// Slots that [`Settings`] take.
pub const SETTINGS_SLOTS: u32 = 2;

/// Entries of a lookup table in one slot.
pub const LOOKUP_PER_SLOT: u32 = 8;

/// One endpoint of a table, and its row of the alias table.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointSlot {
    /// Where the connection goes.
    pub address: Address,
    /// The port it goes to, in network order.
    pub port_be: u16,
    /// The configured weight, 1 to 10,000, so that what is programmed can be shown.
    pub weight: u16,
    /// Weighted: this endpoint is taken when a random word is below it, `alias` otherwise.
    pub threshold: u32,
    /// Index of the other endpoint of this row. An endpoint that fills its row alone names itself.
    /// [`policy::DIRECT`]: index of the endpoint that answers at this address; it names itself at its own.
    pub alias: u32,
    /// Where its live state is kept, or [`EndpointSlot::NO_STATE`].
    pub state: u32,
}

impl EndpointSlot {
    /// `state` of an endpoint of which nothing is kept.
    pub const NO_STATE: u32 = 0;

    /// Where an address and port (in network order) stand among the rows of a [`policy::DIRECT`] table,
    /// which are ascending by this and all different. Its words are those of the map.
    #[must_use]
    pub const fn rank(address: &Address, port_be: u16) -> [u64; 3] {
        // In a little-endian word the field with the lower offset is the lower half.
        let [first, second, third, fourth] = *address;
        let upper = ((second as u64) << 32) | first as u64;
        let lower = ((fourth as u64) << 32) | third as u64;
        [upper, lower, port_be as u64]
    }
}

/// Bytes of a slot of `TABLES`.
pub const SLOT_BYTES: usize = 32;

/// Bytes for a service's name: a DNS label (RFC 1123, at most 63 bytes), padded with zeros.
pub const SERVICE_NAME_BYTES: usize = 64;
/// Bytes for a port's name: an IANA service name (RFC 6335, at most 15 bytes), padded with zeros.
pub const PORT_NAME_BYTES: usize = 16;

/// Which service a number stands for. The programs do not read it: it lets a worker that takes over
/// know what is programmed from the kernel alone. Written only while the number is unpublished.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServiceRecord {
    /// The service's name.
    pub service: [u8; SERVICE_NAME_BYTES],
    /// The name of one of its ports.
    pub port_name: [u8; PORT_NAME_BYTES],
    /// That port, in network order.
    pub port_be: u16,
    /// [`PROTOCOL_TCP`] or [`PROTOCOL_UDP`].
    pub protocol: u8,
    /// The family of its frontends: 4 or 6; [`ServiceRecord::DIRECT`] if they are its endpoints' own
    /// addresses, of either family.
    pub family: u8,
    /// Always 0.
    pub reserved: u32,
}

impl ServiceRecord {
    /// The [`Self::family`] of what leads to endpoints by their own addresses.
    pub const DIRECT: u8 = 0;
}

/// What was counted for one service number on one CPU. No counter ever goes back while the number
/// belongs to the service.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceCounters {
    /// Connections sent to an endpoint.
    pub connections: u64,
    /// Connections refused because the service has no endpoint, or chose one that the socket cannot
    /// reach, or chooses by a policy that the programs do not know.
    pub refused: u64,
    /// Times a program had to look again because the table it read was replaced meanwhile.
    pub retries: u64,
    /// Connections refused with `EAGAIN` because every look found a table being replaced.
    pub unsettled: u64,
    /// Connections refused because a bound on open connections or attempts was reached.
    pub limited: u64,
    /// Connections that an access policy denied.
    pub denied: u64,
}

/// A client of a service: the key of `AFFINITIES`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AffinityKey {
    /// The service number.
    pub service: u32,
    /// How the client was told apart: one of [`client`].
    pub by: u32,
    /// What it was told apart by: an id, or an address.
    pub client: [u64; 2],
}

/// The endpoint a client stays with: the value of `AFFINITIES`.
///
/// It counts only if the service's table still has that endpoint, which the programs look up each time:
/// whatever stands here, no connection leaves the table.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affinity {
    /// Its address.
    pub address: Address,
    /// Its port, in network order.
    pub port_be: u16,
    /// Always 0.
    pub reserved: u16,
    /// The row it was found at last.
    pub row: u32,
    /// Until when the client stays with it, in nanoseconds since boot without the time that the machine was suspended
    /// (`CLOCK_MONOTONIC_COARSE`).
    pub until: u64,
}

/// Elements of `RECENTS`, a power of two: 1 MiB. Who has none is looked for in `AFFINITIES` each time.
pub const RECENTS: u32 = 16_384;

/// Where a client was last found to stay: the value of `RECENTS`. Only programs read and write it, as they do
/// [`Precedent`](rules::Precedent).
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recent {
    /// Counts up by two with each change.
    pub version: u64,
    /// The service number.
    pub service: u32,
    /// How the client was told apart: one of [`client`].
    pub by: u32,
    /// What it was told apart by: an id, or an address.
    pub client: [u64; 2],
    /// The endpoint's address.
    pub address: Address,
    /// Its port, in network order.
    pub port_be: u16,
    /// Always 0.
    pub reserved: u16,
    /// The row it was found at.
    pub row: u32,
    /// Until when the client stays with it, as in [`Affinity`].
    pub until: u64,
}

// The sizes both sides rely on.
const _: () = {
    assert!(size_of::<Recent>() == 64 && RECENTS.is_power_of_two());
    assert!(size_of::<FrontendKey>() == 20);
    assert!(size_of::<Frontend>() == 16);
    assert!(size_of::<HeadWord>() == 8);
    assert!(size_of::<TableHeader>() == SLOT_BYTES);
    assert!(size_of::<EndpointSlot>() == SLOT_BYTES);
    assert!(size_of::<Settings>() == SETTINGS_SLOTS as usize * SLOT_BYTES);
    assert!(LOOKUP_PER_SLOT as usize * size_of::<u32>() == SLOT_BYTES);
    assert!(size_of::<AffinityKey>() == 24);
    assert!(size_of::<Affinity>() == 32);
    assert!(size_of::<ServiceRecord>() == 88);
    assert!(size_of::<ServiceCounters>() == 48);
    assert!(limit::SOCKETS.is_power_of_two());
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_word_gives_back_what_it_was_made_of() {
        let word = HeadWord::new(0xdead_beef, HeadWord::LAST_GENERATION);
        assert_eq!((word.slot(), word.generation()), (0xdead_beef, HeadWord::LAST_GENERATION));
        assert!(word.is_published());
        assert!(!HeadWord::UNPUBLISHED.is_published());
        assert!(HeadWord::new(0, HeadWord::FIRST_GENERATION).is_published());
    }

    #[test]
    fn a_frontend_is_in_force_from_its_first_generation_up_to_its_last() {
        let frontend = Frontend { service: 1, tag: 0, from: 3, until: 5 };
        let in_force: Vec<u32> = (0..8).filter(|g| frontend.in_force(*g)).collect();
        assert_eq!(in_force, [3, 4]);
        let lasting = Frontend { until: Frontend::FOREVER, ..frontend };
        assert!(lasting.in_force(HeadWord::LAST_GENERATION));
    }

    #[test]
    fn neighbouring_keys_have_different_tags() {
        let key = |host: u32, port: u16, protocol| FrontendKey {
            address: mapped(host.to_be()),
            port_be: port.to_be(),
            protocol,
            reserved: 0,
        };
        let mut tags = std::collections::HashSet::new();
        for host in 0x7f60_0000..0x7f60_0100 {
            for port in [53, 80, 443, 8080] {
                assert!(tags.insert(key(host, port, PROTOCOL_TCP).tag()));
                assert!(tags.insert(key(host, port, PROTOCOL_UDP).tag()));
            }
        }
    }
}
