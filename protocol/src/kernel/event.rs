//! What the programs tell of a connection: a record of the ring buffer `EVENTS`, and who asks for it.
//!
//! The ring buffer is the kernel's (`Documentation/bpf/ringbuf.rst`): what is told waits there until a
//! worker has read it, whether or not one lives. What finds it full is counted in
//! [`EventControl::lost`].
//!
//! Of a connection that goes to an endpoint it is settled when it is decided which kinds of event will
//! be told of it, so that a sampled connection is told of wholly or not at all.

use super::Address;

/// What has happened: [`Event::kind`].
pub mod kind {
    /// The connection goes to an endpoint.
    pub const SENT: u8 = 0;
    /// It is established; a datagram socket is connected.
    pub const ESTABLISHED: u8 = 1;
    /// It was established, and has ended.
    pub const CLOSED: u8 = 2;
    /// The endpoint was not reached.
    pub const FAILED: u8 = 3;
    /// The service has no endpoint for it.
    pub const REFUSED: u8 = 4;
    /// An access policy denies it.
    pub const DENIED: u8 = 5;
    /// A limit was reached.
    pub const LIMITED: u8 = 6;
    /// Every look found a table being replaced.
    pub const UNSETTLED: u8 = 7;
    /// A datagram of an unconnected socket begins a flow to an endpoint.
    pub const FLOW: u8 = 8;
    /// An access policy that is tried out only would deny it.
    pub const WOULD_DENY: u8 = 9;

    /// How many kinds there are.
    pub const COUNT: u8 = 10;
    /// Every kind.
    pub const ALL: u16 = (1 << COUNT) - 1;
    /// Those that end the story of a connection: an access log has one line for each.
    pub const ENDS: u16 = ALL & !(bit(SENT) | bit(ESTABLISHED));

    /// A set of this kind alone.
    #[must_use]
    pub const fn bit(kind: u8) -> u16 {
        1 << kind
    }
}

/// The element of `EVENT_CONTROL`. What is read for every connection has a cache line apart from what
/// is written.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventControl {
    /// Who asks for which kinds: a [`Wanted`].
    pub wanted: u64,
    /// Always 0.
    pub apart: [u64; 7],
    /// Events that were told. Never goes back.
    pub told: u64,
    /// Events that found the ring buffer full. Never goes back.
    pub lost: u64,
    /// Always 0.
    pub reserved: [u64; 6],
}

impl EventControl {
    /// The word that holds [`Self::wanted`], the only one a worker writes.
    pub const WANTED_WORD: usize = 0;
}

/// What is asked for beyond what services ask for themselves, in one word.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted(pub u64);

impl Wanted {
    /// The kinds in `all` of every connection, for whoever follows them live; and for the access log the
    /// kinds in `logged` of a share of the connections of which a service does not say it itself, in
    /// parts of `u32::MAX`.
    #[must_use]
    pub const fn new(all: u16, logged: u16, sample: u32) -> Self {
        Self((sample as u64) << 32 | (logged as u64) << 16 | all as u64)
    }

    /// Kinds that are told of every connection.
    #[must_use]
    pub const fn all(self) -> u16 {
        self.0 as u16
    }

    /// Kinds that the access log has unless a service says others.
    #[must_use]
    pub const fn logged(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// The share of connections it has them of.
    #[must_use]
    pub const fn sample(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// What is told of a connection. Fields that a kind has nothing to say about are 0.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// When it happened, in nanoseconds of `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// The kernel's number for the socket, which no other ever gets.
    pub socket: u64,
    /// The id of the control group of the process that connected.
    pub cgroup: u64,
    /// How long the handshake took, in nanoseconds; of an attempt that failed, how long it lasted.
    pub handshake_ns: u64,
    /// How long the connection was established, in nanoseconds.
    pub lifetime_ns: u64,
    /// Bytes that the endpoint has acknowledged.
    pub sent: u64,
    /// Bytes that have come from the endpoint.
    pub received: u64,
    /// The client's own address, as far as it is known.
    pub source: Address,
    /// The address the client asked for.
    pub original: Address,
    /// The endpoint.
    pub endpoint: Address,
    /// The client's own port, in network order.
    pub source_port_be: u16,
    /// The port the client asked for, in network order.
    pub original_port_be: u16,
    /// The endpoint's port, in network order.
    pub endpoint_port_be: u16,
    /// `PROTOCOL_TCP` or `PROTOCOL_UDP`.
    pub protocol: u8,
    /// What has happened: one of [`kind`](mod@kind).
    pub kind: u8,
    /// The service number; `u32::MAX` for what is not a service.
    pub service: u32,
    /// The number of the access policy that has decided; `u32::MAX` if none has.
    pub policy: u32,
    /// Segments that were sent again.
    pub retransmits: u32,
    /// The smoothed round-trip time (RFC 6298), in microseconds.
    pub smoothed_rtt_us: u32,
    /// What the system call fails with.
    pub errno: u16,
    /// The state a TCP connection ended in (`include/net/tcp_states.h`), [`Event::GIVEN_UP`] or
    /// [`Event::DRAINED`].
    pub last_state: u8,
    /// 1 if it is for the access log, 0 if only somebody follows every connection.
    pub is_logged: u8,
    /// Always 0.
    pub reserved: u32,
}

impl Event {
    /// [`Self::last_state`] of an attempt that the client itself gave up.
    pub const GIVEN_UP: u8 = 0;
    /// [`Self::last_state`] of a connection that was broken off when its endpoint had drained long enough;
    /// no state of the kernel has this number.
    pub const DRAINED: u8 = 255;
    /// Nothing is said about anything.
    pub const NONE: Self = Self {
        at_ns: 0,
        socket: 0,
        cgroup: 0,
        handshake_ns: 0,
        lifetime_ns: 0,
        sent: 0,
        received: 0,
        source: [0; 4],
        original: [0; 4],
        endpoint: [0; 4],
        source_port_be: 0,
        original_port_be: 0,
        endpoint_port_be: 0,
        protocol: 0,
        kind: 0,
        service: Self::NO_SERVICE,
        policy: Self::NO_POLICY,
        retransmits: 0,
        smoothed_rtt_us: 0,
        errno: 0,
        last_state: 0,
        is_logged: 0,
        reserved: 0,
    };
    /// [`Self::service`] of a connection to what is not a service.
    pub const NO_SERVICE: u32 = u32::MAX;
    /// [`Self::policy`] when no policy has decided.
    pub const NO_POLICY: u32 = u32::MAX;
}

const _: () = {
    assert!(size_of::<EventControl>() == 128);
    assert!(core::mem::offset_of!(EventControl, told) == 64);
    assert!(size_of::<Event>() == 136);
    assert!(kind::COUNT <= 16);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_what_fits_one_word() {
        let wanted = Wanted::new(kind::ALL, kind::ENDS, 7);
        assert_eq!((wanted.all(), wanted.logged()), (kind::ALL, kind::ENDS));
        assert_eq!((wanted.sample(), Wanted::new(0, 0, 0)), (7, Wanted::default()));
    }

    #[test]
    fn every_connection_has_one_end() {
        let begins = kind::bit(kind::SENT) | kind::bit(kind::ESTABLISHED);
        assert_eq!(kind::ENDS & begins, 0);
        assert_eq!(kind::ENDS | begins, kind::ALL);
    }
}
