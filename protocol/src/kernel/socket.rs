//! What the programs remember of a socket.

use super::Address;

/// What the programs remember about a socket they sent to an endpoint: the value of `SOCKETS`, and of
/// `OVERFLOW` for a socket whose element of `SOCKETS` another one has.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketState {
    /// The address the client asked for.
    pub original_address: Address,
    /// The endpoint it was sent to.
    pub endpoint_address: Address,
    /// The port the client asked for, in network order.
    pub original_port_be: u16,
    /// The endpoint's port, in network order.
    pub endpoint_port_be: u16,
    /// The service number.
    pub service: u32,
    /// Which kinds of event are told of the connection, a set of [`event::kind`](super::event::kind)s, in the lower half; which
    /// of them are for the access log in the upper one. None: what follows [`Self::since_ns`] says nothing.
    pub told: u16,
    /// Of an element of `SOCKETS`, whoever's it is: not 0 once a socket that should have had it was given storage
    /// of its own, because another one had it. Until then nobody needs to look for storage. It stays.
    pub crowded: u16,
    /// The endpoint's number in `ENDPOINTS`, or [`EndpointSlot::NO_STATE`](super::EndpointSlot::NO_STATE).
    pub endpoint: u32,
    /// Whose it is and how far the connection is, a [`SeatWord`]; 0 if nobody's.
    pub seat: u64,
    /// When that began, in nanoseconds of `CLOCK_MONOTONIC`; 0 before an attempt.
    pub since_ns: u64,
    /// The id of the control group of the process that connected.
    pub cgroup: u64,
    /// How long the handshake took, in nanoseconds.
    pub handshake_ns: u64,
    /// [`PROTOCOL_TCP`](super::PROTOCOL_TCP) or [`PROTOCOL_UDP`](super::PROTOCOL_UDP).
    pub protocol: u64,
    /// The id of its network namespace, if its service closes what drains too long
    /// ([`feature::DRAIN`](super::feature::DRAIN)); otherwise it says nothing, and may be another socket's.
    pub namespace: u64,
    /// Always 0: each element is two cache lines long, of which the second one's worth is touched only
    /// for connections that are told of, or may be closed.
    pub reserved: [u64; 4],
}

/// The socket that a [`SocketState`] belongs to and how far its connection is, as one word: who exchanges
/// the phase knows that it is still that socket's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeatWord(pub u64);

impl SeatWord {
    /// Nobody's.
    pub const FREE: Self = Self(0);

    /// Of the socket with this cookie, in this phase. The kernel counts cookies up from 1, a few million
    /// a second at most, so that the bits which are lost here stay unused for centuries.
    #[must_use]
    pub const fn new(cookie: u64, phase: u64) -> Self {
        Self(cookie << phase::BITS | phase)
    }

    /// Whether it is that of the socket with this cookie.
    #[must_use]
    pub const fn is_of(self, cookie: u64) -> bool {
        self.cookie() == cookie
    }

    /// The cookie of that socket.
    #[must_use]
    pub const fn cookie(self) -> u64 {
        self.0 >> phase::BITS
    }

    /// How far the connection is: one of [`phase`].
    #[must_use]
    pub const fn phase(self) -> u64 {
        self.0 & ((1 << phase::BITS) - 1)
    }

    /// The same socket in another phase.
    #[must_use]
    pub const fn in_phase(self, phase: u64) -> Self {
        Self::new(self.cookie(), phase)
    }
}

/// How far a connection is, and so what it is counted as: [`SeatWord::phase`].
pub mod phase {
    /// Bits of a phase in a [`SeatWord`](super::SeatWord).
    pub const BITS: u32 = 4;
    /// Added to a phase: nobody has a descriptor of the socket any more.
    pub const ABANDONED: u64 = 4;

    /// It is not counted: not begun, or over.
    pub const IDLE: u64 = 0;
    /// An attempt is under way, and counted as pending.
    pub const PENDING: u64 = 1;
    /// It has taken its place among the pending ones, and nothing has been sent yet.
    pub const RESERVED: u64 = 3;
    /// It is established, and counted as open.
    pub const OPEN: u64 = 2;
}

const _: () = {
    assert!(size_of::<SocketState>() == 128);
    assert!(core::mem::offset_of!(SocketState, cgroup) == 64);
};
