//! What is known of an endpoint at this moment: an element of `ENDPOINTS`.
//!
//! An endpoint of a service has a number, [`EndpointSlot::state`](super::EndpointSlot::state), for as
//! long as it exists: over generations of its table and over restarts. The worker writes whose number
//! it is; everything else is counted by the programs. The worker never writes [`Live`]: each
//! connection adds to it and takes away again what it added, so it stays exact whoever restarts when,
//! and a number is given to another endpoint only when nothing is open or pending.

use super::Address;

/// How many connections there are, in one word: those that are open in its lower half, attempts that
/// have not come to anything yet in its upper half. One atomic addition changes both, so a connection
/// that opens is never counted twice or not at all.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Live(pub u64);

impl Live {
    /// What an open connection adds.
    pub const OPEN: u64 = 1;
    /// What an attempt adds.
    pub const PENDING: u64 = 1 << 32;

    /// Connections that are open.
    #[must_use]
    pub const fn open(self) -> u32 {
        self.0 as u32
    }

    /// Attempts that have not come to anything yet.
    #[must_use]
    pub const fn pending(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// An element of `ENDPOINTS`. No counter ever goes back while the number belongs to the endpoint.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointState {
    /// The endpoint's address.
    pub address: Address,
    /// The number of the service whose endpoint it is.
    pub service: u32,
    /// The endpoint's port, in network order; 0 for a number that was never in use.
    pub port_be: u16,
    /// Always 0.
    pub reserved: u16,
    /// What is open and what is pending: a [`Live`].
    pub live: u64,
    /// Connections that were established, or, of datagram sockets, sent here.
    pub established: u64,
    /// Attempts that were not: refused, timed out or given up.
    pub failed: u64,
    /// Bytes of closed connections that the endpoint has acknowledged.
    pub sent: u64,
    /// Bytes of closed connections that have come from the endpoint.
    pub received: u64,
    /// Attempts that failed since one was established.
    pub failing: u64,
    /// When the last attempt failed, in nanoseconds of `CLOCK_MONOTONIC`; 0 if none has.
    pub last_failure_ns: u64,
    /// Since when it drains in a service that closes what drains too long, in nanoseconds of
    /// `CLOCK_MONOTONIC`; 0 if it does not. Of the element that is no endpoint's: not 0 while another
    /// element may have it.
    pub drains_ns: u64,
    /// When its connections are to be closed, likewise; 0 for never. Whoever closes them goes by this word
    /// alone. It is written after [`Self::drains_ns`] and taken back before it.
    pub closes_ns: u64,
}

impl EndpointState {
    /// The word that holds [`Self::live`], which no worker writes.
    pub const LIVE_WORD: usize = core::mem::offset_of!(Self, live) / size_of::<u64>();
    /// The word that holds [`Self::drains_ns`].
    pub const DRAINS_WORD: usize = core::mem::offset_of!(Self, drains_ns) / size_of::<u64>();
    /// The word that holds [`Self::closes_ns`].
    pub const CLOSES_WORD: usize = core::mem::offset_of!(Self, closes_ns) / size_of::<u64>();

    /// The state of an endpoint that nothing has been counted of.
    #[must_use]
    pub const fn of(service: u32, address: Address, port_be: u16) -> Self {
        Self {
            address,
            service,
            port_be,
            reserved: 0,
            live: 0,
            established: 0,
            failed: 0,
            sent: 0,
            received: 0,
            failing: 0,
            last_failure_ns: 0,
            drains_ns: 0,
            closes_ns: 0,
        }
    }

    /// The state word by word, as it lies in the map.
    #[must_use]
    pub const fn words(&self) -> [u64; size_of::<Self>() / size_of::<u64>()] {
        // In a little-endian word the field with the lower offset is the lower half.
        const fn word(low: u32, high: u32) -> u64 {
            ((high as u64) << 32) | low as u64
        }
        let [first, second, third, fourth] = self.address;
        let port = (self.reserved as u32) << 16 | self.port_be as u32;
        [
            word(first, second),
            word(third, fourth),
            word(self.service, port),
            self.live,
            self.established,
            self.failed,
            self.sent,
            self.received,
            self.failing,
            self.last_failure_ns,
            self.drains_ns,
            self.closes_ns,
        ]
    }

    /// Whether this is the number of that endpoint of that service.
    #[must_use]
    pub fn is_of(&self, service: u32, address: &Address, port_be: u16) -> bool {
        self.service == service && self.address == *address && self.port_be == port_be
    }

    /// Whether the number was ever given to an endpoint.
    #[must_use]
    pub const fn is_untouched(&self) -> bool {
        self.port_be == 0
    }

    /// Whether its connections are to be closed at `now_ns`.
    #[must_use]
    pub const fn is_overdue(&self, now_ns: u64) -> bool {
        self.closes_ns != 0 && self.closes_ns <= now_ns
    }
}

const _: () = {
    assert!(size_of::<Live>() == 8);
    assert!(size_of::<EndpointState>() == 96);
    assert!(core::mem::offset_of!(EndpointState, live) == 24);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_addition_moves_an_attempt_to_the_open_connections() {
        let attempt = Live(0).0.wrapping_add(Live::PENDING);
        let opened = attempt.wrapping_add(Live::OPEN.wrapping_sub(Live::PENDING));
        assert_eq!((Live(attempt).open(), Live(attempt).pending()), (0, 1));
        assert_eq!((Live(opened).open(), Live(opened).pending()), (1, 0));
        assert_eq!(Live(opened.wrapping_sub(Live::OPEN)), Live(0));
    }

    #[test]
    fn a_number_belongs_to_one_endpoint_of_one_service() {
        let address = super::super::mapped(1);
        let state = EndpointState::of(3, address, 80);
        assert!(state.is_of(3, &address, 80) && !state.is_untouched());
        assert!(!state.is_of(4, &address, 80) && !state.is_of(3, &address, 81));
        assert!(EndpointState::default().is_untouched());
    }
}
