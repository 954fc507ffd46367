//! What became of a service's connections: an element of `TRAFFIC`.
//!
//! Counted when a connection is established or ends, not on the way of `connect(2)`, so one array for
//! all CPUs with atomic additions does.

/// Buckets of [`Traffic::handshakes`].
pub const HANDSHAKE_BUCKETS: usize = 20;
/// Nanoseconds that the first bucket of [`Traffic::handshakes`] goes up to: 16 µs, less than the fastest
/// handshake over loopback takes. Each of the next goes up to twice as much, the last but one to 4.2 s,
/// after the second repetition of a lost SYN (1 s and 3 s); the last holds the rest.
pub const HANDSHAKE_FIRST_NS: u64 = 16_000;
/// Buckets of [`Traffic::lifetimes`].
pub const LIFETIME_BUCKETS: usize = 16;
/// Nanoseconds that the first bucket of [`Traffic::lifetimes`] goes up to: 1 ms, a short request. Each
/// of the next goes up to four times as much, the last but one to 3.1 days; the last holds the rest.
pub const LIFETIME_FIRST_NS: u64 = 1_000_000;

/// An element of `TRAFFIC`. No counter ever goes back while the number belongs to the service.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// What is open and what is pending: a [`Live`](super::endpoint::Live). No worker writes it.
    pub live: u64,
    /// Connections that were established, or, of datagram sockets, sent to an endpoint.
    pub established: u64,
    /// Connections that were established and have ended.
    pub closed: u64,
    /// Attempts that never were: refused, timed out or given up.
    pub failed: u64,
    /// Bytes of closed connections that the endpoint has acknowledged.
    pub sent: u64,
    /// Bytes of closed connections that have come from the endpoint.
    pub received: u64,
    /// Segments that were sent again, by connections that have ended.
    pub retransmits: u64,
    /// Nanoseconds that all handshakes took together.
    pub handshake_ns: u64,
    /// Nanoseconds that all closed connections were open together.
    pub lifetime_ns: u64,
    /// How many handshakes took how long.
    pub handshakes: [u64; HANDSHAKE_BUCKETS],
    /// How many closed connections were open how long.
    pub lifetimes: [u64; LIFETIME_BUCKETS],
    /// Connections that were closed because their endpoint had drained long enough. Counted by whoever
    /// closes them, not by a program.
    pub drained: u64,
    /// Always 0: room for what else is counted of a connection.
    pub reserved: [u64; 2],
}

impl Traffic {
    /// The word that holds [`Self::live`].
    pub const LIVE_WORD: usize = 0;
    /// The word that holds [`Self::drained`].
    pub const DRAINED_WORD: usize = core::mem::offset_of!(Self, drained) / size_of::<u64>();
}

/// The bucket of [`Traffic::handshakes`] for a handshake of `ns` nanoseconds.
#[inline(always)]
#[must_use]
pub const fn handshake_bucket(ns: u64) -> u32 {
    bucket(ns, HANDSHAKE_FIRST_NS, 1, HANDSHAKE_BUCKETS as u32)
}

/// The bucket of [`Traffic::lifetimes`] for a connection that was open for `ns` nanoseconds.
#[inline(always)]
#[must_use]
pub const fn lifetime_bucket(ns: u64) -> u32 {
    bucket(ns, LIFETIME_FIRST_NS, 2, LIFETIME_BUCKETS as u32)
}

/// The first of `buckets` whose bound is at least `ns`, bounds starting at `bound` and growing by
/// `shift` powers of two. A loop, because the target has no instruction that counts leading zeros.
#[inline(always)]
const fn bucket(ns: u64, mut bound: u64, shift: u32, buckets: u32) -> u32 {
    let mut index = 0;
    while index < buckets - 1 && ns > bound {
        bound <<= shift;
        index += 1;
    }
    index
}

const _: () = {
    assert!(size_of::<Traffic>() == 384);
    assert!(core::mem::offset_of!(Traffic, live) == 0);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_what_is_above_the_one_before_and_up_to_its_bound() {
        assert_eq!([0, 16_000, 16_001, 32_000, 32_001].map(handshake_bucket), [0, 0, 1, 1, 2]);
        assert_eq!(handshake_bucket(HANDSHAKE_FIRST_NS << 18), 18);
        assert_eq!(handshake_bucket((HANDSHAKE_FIRST_NS << 18) + 1), 19);
        assert_eq!(handshake_bucket(u64::MAX), 19);
        assert_eq!([0, 1_000_000, 1_000_001, 4_000_001].map(lifetime_bucket), [0, 0, 1, 2]);
        assert_eq!(lifetime_bucket(LIFETIME_FIRST_NS << 28), 14);
        assert_eq!(lifetime_bucket(u64::MAX), 15);
    }
}
