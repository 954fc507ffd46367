//! The shared structs as the 64-bit words the programs read them by.
//!
//! A writer may replace a value while a program reads it. One aligned 64-bit load is never torn, so
//! fields that belong together are taken from one word; the assertions tie each word to the struct.

use core::mem::offset_of;

use holdfast_protocol::kernel::{
    Address, Affinity, EndpointSlot, Frontend, SLOT_BYTES, Settings, TableHeader,
};

/// A slot of `TABLES`, word by word.
pub type Slot = [u64; SLOT_BYTES / size_of::<u64>()];
/// A value of `AFFINITIES`, word by word.
pub type AffinityWords = [u64; size_of::<Affinity>() / size_of::<u64>()];
/// A value of `FRONTENDS`, word by word.
pub type FrontendWords = [u64; size_of::<Frontend>() / size_of::<u64>()];

/// Word of a [`Frontend`]: its service number and its tag.
pub const FRONTEND_LEAD: usize = 0;
/// Word of a [`Frontend`]: the generations it is in force.
pub const FRONTEND_SPAN: usize = 1;
/// Word of a [`TableHeader`]: its identity.
pub const HEADER_IDENTITY: usize = 0;
/// Word of a [`TableHeader`]: what [`Shape`] holds.
pub const HEADER_SHAPE: usize = 1;
/// Word of a [`TableHeader`]: how many slots of settings and how many lookup entries there are.
pub const HEADER_EXTENT: usize = 2;
/// Word of a [`Settings`]: the service's bounds.
pub const SETTINGS_SERVICE: usize = 0;
/// Word of a [`Settings`]: each endpoint's bounds.
pub const SETTINGS_ENDPOINT: usize = 1;
/// Word of a [`Settings`]: the service's rate.
pub const SETTINGS_RATE: usize = 2;
/// Word of the second slot of [`Settings`]: each client's rate.
pub const SETTINGS_CLIENT_RATE: usize = 0;
/// Word of the second slot of [`Settings`]: what the access log has.
pub const SETTINGS_EVENTS: usize = 1;
/// Word of the first slot of [`Settings`]: how long a client stays, and how clients are told apart.
pub const SETTINGS_CLIENTS: usize = 3;
/// Word of an [`EndpointSlot`]: the first half of its address.
pub const ENDPOINT_ADDRESS_HIGH: usize = 0;
/// Word of an [`EndpointSlot`]: the second half of its address.
pub const ENDPOINT_ADDRESS_LOW: usize = 1;
/// Word of an [`EndpointSlot`]: its port, its weight and its threshold.
pub const ENDPOINT_PORT: usize = 2;
/// Word of an [`EndpointSlot`]: its alias and its number in `ENDPOINTS`.
pub const ENDPOINT_ALIAS: usize = 3;

/// Word of an [`Affinity`]: the first half of its address.
pub const AFFINITY_ADDRESS_HIGH: usize = 0;
/// Word of an [`Affinity`]: the second half of its address.
pub const AFFINITY_ADDRESS_LOW: usize = 1;
/// Word of an [`Affinity`]: its port and its row.
pub const AFFINITY_PORT: usize = 2;
/// Word of an [`Affinity`]: until when it counts.
pub const AFFINITY_UNTIL: usize = 3;

// In a little-endian word the field with the lower offset is the lower half.
const _: () = {
    assert!(cfg!(target_endian = "little"));
    assert!(offset_of!(Frontend, service) == 0 && offset_of!(Frontend, tag) == 4);
    assert!(offset_of!(Frontend, from) == 8 && offset_of!(Frontend, until) == 12);
    assert!(offset_of!(TableHeader, service) == 0 && offset_of!(TableHeader, generation) == 4);
    assert!(offset_of!(TableHeader, endpoints) == 8);
    assert!(offset_of!(TableHeader, no_endpoint_errno) == 12);
    assert!(offset_of!(TableHeader, policy) == 14 && offset_of!(TableHeader, features) == 15);
    assert!(offset_of!(TableHeader, settings) == 16 && offset_of!(TableHeader, lookup) == 20);
    assert!(offset_of!(Settings, affinity_ms) == 24 && offset_of!(Settings, rate_by) == 28);
    assert!(offset_of!(Settings, affinity_by) == 29 && offset_of!(Settings, hash_by) == 30);
    assert!(offset_of!(Affinity, address) == 0 && offset_of!(Affinity, port_be) == 16);
    assert!(offset_of!(Affinity, row) == 20 && offset_of!(Affinity, until) == 24);
    assert!(offset_of!(EndpointSlot, address) == 0 && offset_of!(EndpointSlot, port_be) == 16);
    assert!(offset_of!(EndpointSlot, threshold) == 20 && offset_of!(EndpointSlot, alias) == 24);
    assert!(offset_of!(EndpointSlot, state) == 28 && offset_of!(EndpointSlot, weight) == 18);
    assert!(offset_of!(Settings, open) == 0 && offset_of!(Settings, pending) == 4);
    assert!(offset_of!(Settings, endpoint_open) == 8);
    assert!(offset_of!(Settings, endpoint_pending) == 12);
    assert!(offset_of!(Settings, rate) == 16 && offset_of!(Settings, burst) == 20);
    assert!(offset_of!(Settings, client_rate) == SLOT_BYTES);
    assert!(offset_of!(Settings, client_burst) == SLOT_BYTES + 4);
    assert!(offset_of!(Settings, sample) == SLOT_BYTES + 8);
    assert!(offset_of!(Settings, logged) == SLOT_BYTES + 12);
};

/// The field at the lower offset of a word of two 32-bit fields.
#[inline(always)]
#[must_use]
pub const fn low(word: u64) -> u32 {
    word as u32
}

/// The field at the higher offset of a word of two 32-bit fields.
#[inline(always)]
#[must_use]
pub const fn high(word: u64) -> u32 {
    (word >> 32) as u32
}

/// The word of two 32-bit fields, `low` at the lower offset.
#[inline(always)]
#[must_use]
pub const fn word(low: u32, high: u32) -> u64 {
    ((high as u64) << 32) | low as u64
}

/// The [`Frontend`] that these two words hold.
#[inline(always)]
#[must_use]
pub const fn frontend(lead: u64, span: u64) -> Frontend {
    Frontend { service: low(lead), tag: high(lead), from: low(span), until: high(span) }
}

/// What a [`TableHeader`] says about the slots that follow it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// How many endpoints follow.
    pub endpoints: u32,
    /// The `errno` of a connection when none follows.
    pub no_endpoint_errno: u16,
    /// How one is chosen: one of [`policy`](holdfast_protocol::kernel::policy).
    pub policy: u8,
    /// What else is asked for: some of [`feature`](holdfast_protocol::kernel::feature).
    pub features: u8,
}

/// The [`Shape`] in the word [`HEADER_SHAPE`].
#[inline(always)]
#[must_use]
pub const fn shape(word: u64) -> Shape {
    Shape {
        endpoints: low(word),
        no_endpoint_errno: high(word) as u16,
        policy: (high(word) >> 16) as u8,
        features: (high(word) >> 24) as u8,
    }
}

/// Who stays with an endpoint, in the word [`SETTINGS_CLIENTS`].
#[inline(always)]
#[must_use]
pub const fn affinity_by(word: u64) -> u8 {
    (high(word) >> 8) as u8
}

/// How long a client stays with its endpoint, in nanoseconds, in the word [`SETTINGS_CLIENTS`].
#[inline(always)]
#[must_use]
pub const fn affinity_ns(word: u64) -> u64 {
    const NANOSECONDS: u64 = 1_000_000;
    low(word) as u64 * NANOSECONDS
}

/// Who has a rate for itself, in the word [`SETTINGS_CLIENTS`].
#[inline(always)]
#[must_use]
pub const fn rate_by(word: u64) -> u8 {
    high(word) as u8
}

/// Whom a consistent hash is taken of, in the word [`SETTINGS_CLIENTS`].
#[inline(always)]
#[must_use]
pub const fn hash_by(word: u64) -> u8 {
    (high(word) >> 16) as u8
}

/// The weight in the word [`ENDPOINT_PORT`].
#[inline(always)]
#[must_use]
pub const fn weight(word: u64) -> u16 {
    (word >> 16) as u16
}

/// The address in the words [`ENDPOINT_ADDRESS_HIGH`] and [`ENDPOINT_ADDRESS_LOW`].
#[inline(always)]
#[must_use]
pub const fn address(high_half: u64, low_half: u64) -> Address {
    [low(high_half), high(high_half), low(low_half), high(low_half)]
}

/// The port, in network order, in the word [`ENDPOINT_PORT`].
#[inline(always)]
#[must_use]
pub const fn port_be(word: u64) -> u16 {
    word as u16
}
