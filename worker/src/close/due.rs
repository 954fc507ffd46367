//! Which connections are to be closed. Pure.
//!
//! What is asked is only the maps, and the kernel's list of sockets: an endpoint says that its time has come
//! ([`EndpointState::closes_ns`]), a socket is remembered as one that was sent there, and the kernel says
//! that it is connected there. All three have to agree. Who asked for all this, and why, changes nothing.

use std::collections::{BTreeSet, HashMap};

use holdfast_protocol::kernel::endpoint::EndpointState;
use holdfast_protocol::kernel::{Address, EndpointSlot, SeatWord, SocketState, phase};

/// Endpoints whose connections are to be closed, by number.
#[derive(Clone, Debug, Default)]
pub struct Due(HashMap<u32, EndpointState>);

/// A socket as the kernel lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The kernel's number for it.
    pub cookie: u64,
    /// Where it is connected to; an IPv4 address in its mapped form.
    pub peer: (Address, u16),
}

/// Sockets that are to be closed, as far as the maps say.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    due: Due,
    /// By cookie: the service to count for, and the network namespace.
    remembered: HashMap<u64, (u32, u64)>,
}

impl Due {
    /// Those of `endpoints` whose time has come at `now_ns`.
    #[must_use]
    pub fn of(endpoints: impl Iterator<Item = (u32, EndpointState)>, now_ns: u64) -> Self {
        let is_due = |(number, state): &(u32, EndpointState)| {
            *number != EndpointSlot::NO_STATE && !state.is_untouched() && state.is_overdue(now_ns)
        };
        Self(endpoints.filter(is_due).collect())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The service whose connection it is, if the socket remembered so is to be closed. The number may have
    /// been another endpoint's, or be one by now: the address says whose it was when the socket was sent.
    fn service(&self, socket: &SocketState) -> Option<u32> {
        let endpoint = self.0.get(&socket.endpoint)?;
        let is_counted = SeatWord(socket.seat).phase() & !phase::ABANDONED != phase::IDLE;
        let is_its =
            endpoint.is_of(socket.service, &socket.endpoint_address, socket.endpoint_port_be);
        (is_counted && is_its).then_some(socket.service)
    }
}

impl Targets {
    /// None yet, of these endpoints.
    #[must_use]
    pub fn of(due: Due) -> Self {
        Self { due, remembered: HashMap::new() }
    }

    /// Whether there is no endpoint that they could be of.
    #[must_use]
    pub fn is_of_nobody(&self) -> bool {
        self.due.is_empty()
    }

    /// Adds the socket that is remembered so, if it is one.
    pub fn add(&mut self, socket: &SocketState) {
        if let Some(service) = self.due.service(socket) {
            let cookie = SeatWord(socket.seat).cookie();
            self.remembered.insert(cookie, (service, socket.namespace));
        }
    }

    /// The network namespaces they are in, as far as that is known.
    #[must_use]
    pub fn namespaces(&self) -> BTreeSet<u64> {
        self.remembered.values().map(|(_, namespace)| *namespace).filter(|it| *it != 0).collect()
    }

    /// How many there are in the network namespace `namespace`.
    #[must_use]
    pub fn within(&self, namespace: u64) -> u64 {
        let found = self.remembered.values().filter(|(_, within)| *within == namespace);
        found.count().try_into().expect("a count of sockets")
    }

    /// The service to count for, if the socket that the kernel lists so is to be closed. `stored` is what the
    /// kernel keeps with the socket itself, for one that is remembered nowhere else.
    #[must_use]
    pub fn verdict(&self, listed: &Listed, stored: Option<&SocketState>) -> Option<u32> {
        let service = match self.remembered.get(&listed.cookie) {
            Some((service, _)) => *service,
            None => {
                let stored = stored.filter(|it| SeatWord(it.seat).is_of(listed.cookie))?;
                self.due.service(stored)?
            }
        };
        let (address, port_be) = &listed.peer;
        let is_there = |it: &EndpointState| it.is_of(service, address, *port_be);
        self.due.0.values().any(is_there).then_some(service)
    }
}

#[cfg(test)]
mod tests {
    use holdfast_protocol::kernel::mapped;

    use super::*;

    const NOW: u64 = 1000;
    const SERVICE: u32 = 3;
    const NUMBER: u32 = 7;
    const COOKIE: u64 = 41;

    fn there() -> (Address, u16) {
        (mapped(9), 80)
    }

    fn endpoint(closes_ns: u64) -> EndpointState {
        let (address, port_be) = there();
        EndpointState { drains_ns: 1, closes_ns, ..EndpointState::of(SERVICE, address, port_be) }
    }

    fn socket() -> SocketState {
        let (endpoint_address, endpoint_port_be) = there();
        SocketState {
            original_address: mapped(1),
            endpoint_address,
            original_port_be: 1,
            endpoint_port_be,
            service: SERVICE,
            told: 0,
            crowded: 0,
            endpoint: NUMBER,
            seat: SeatWord::new(COOKIE, phase::OPEN).0,
            since_ns: 0,
            cgroup: 0,
            handshake_ns: 0,
            protocol: 0,
            namespace: 5,
            reserved: [0; 4],
        }
    }

    const LISTED: fn() -> Listed = || Listed { cookie: COOKIE, peer: there() };

    /// What becomes of `listed` while the endpoint and the socket are so.
    fn verdict(endpoint: EndpointState, socket: &SocketState, listed: &Listed) -> Option<u32> {
        let mut targets = Targets::of(Due::of([(NUMBER, endpoint)].into_iter(), NOW));
        targets.add(socket);
        targets.verdict(listed, None)
    }

    #[test]
    fn a_connection_is_closed_when_endpoint_socket_and_kernel_agree() {
        assert_eq!(verdict(endpoint(NOW), &socket(), &LISTED()), Some(SERVICE));
        for phase in [phase::PENDING, phase::RESERVED, phase::OPEN | phase::ABANDONED] {
            let socket = SocketState { seat: SeatWord::new(COOKIE, phase).0, ..socket() };
            assert_eq!(verdict(endpoint(NOW), &socket, &LISTED()), Some(SERVICE), "{phase}");
        }
    }

    #[test]
    fn whoever_asks_nothing_is_closed_whose_endpoint_does_not_say_so() {
        for closes_ns in [0, NOW + 1, u64::MAX] {
            assert_eq!(verdict(endpoint(closes_ns), &socket(), &LISTED()), None, "{closes_ns}");
        }
        // That it drains is not enough.
        let drains = EndpointState { drains_ns: 1, closes_ns: 0, ..endpoint(0) };
        assert_eq!(verdict(drains, &socket(), &LISTED()), None);
    }

    #[test]
    fn connections_of_a_predecessor_or_a_successor_with_the_same_number_stay() {
        let due = endpoint(NOW);
        let elsewhere = SocketState { endpoint_address: mapped(8), ..socket() };
        assert_eq!(verdict(due, &elsewhere, &LISTED()), None);
        let port = SocketState { endpoint_port_be: 81, ..socket() };
        assert_eq!(verdict(due, &port, &LISTED()), None);
        let service = SocketState { service: SERVICE + 1, ..socket() };
        assert_eq!(verdict(due, &service, &LISTED()), None);
        let number = SocketState { endpoint: NUMBER + 1, ..socket() };
        assert_eq!(verdict(due, &number, &LISTED()), None);
    }

    #[test]
    fn what_the_kernel_lists_otherwise_stays() {
        let due = endpoint(NOW);
        // Connected elsewhere by now, or never there, whatever a map says.
        let peer = (mapped(8), 80);
        assert_eq!(verdict(due, &socket(), &Listed { peer, ..LISTED() }), None);
        let peer = (mapped(9), 81);
        assert_eq!(verdict(due, &socket(), &Listed { peer, ..LISTED() }), None);
        // Another socket that is connected there, which nobody has sent.
        assert_eq!(verdict(due, &socket(), &Listed { cookie: COOKIE + 1, ..LISTED() }), None);
        // One that is counted no more.
        let idle = SocketState { seat: SeatWord::new(COOKIE, phase::IDLE).0, ..socket() };
        assert_eq!(verdict(due, &idle, &LISTED()), None);
    }

    #[test]
    fn the_number_that_is_no_endpoints_closes_nothing() {
        let due = Due::of([(EndpointSlot::NO_STATE, endpoint(NOW))].into_iter(), NOW);
        assert!(due.is_empty());
        let untouched = EndpointState { closes_ns: NOW, ..EndpointState::default() };
        assert!(Due::of([(NUMBER, untouched)].into_iter(), NOW).is_empty());
    }

    #[test]
    fn what_is_remembered_with_the_socket_itself_counts_for_that_socket() {
        let targets = Targets::of(Due::of([(NUMBER, endpoint(NOW))].into_iter(), NOW));
        assert_eq!(targets.verdict(&LISTED(), Some(&socket())), Some(SERVICE));
        let of_another = SocketState { seat: SeatWord::new(COOKIE + 1, phase::OPEN).0, ..socket() };
        assert_eq!(targets.verdict(&LISTED(), Some(&of_another)), None);
        assert_eq!(targets.verdict(&LISTED(), None), None);
    }

    #[test]
    fn namespaces_are_known_once_and_their_sockets_counted() {
        let mut targets = Targets::of(Due::of([(NUMBER, endpoint(NOW))].into_iter(), NOW));
        let at = |cookie, namespace| SocketState {
            seat: SeatWord::new(cookie, phase::OPEN).0,
            namespace,
            ..socket()
        };
        for (cookie, namespace) in [(1, 5), (2, 5), (3, 9), (4, 0)] {
            targets.add(&at(cookie, namespace));
        }
        assert_eq!(targets.namespaces(), BTreeSet::from([5, 9]));
        assert_eq!((targets.within(5), targets.within(9), targets.within(0)), (2, 1, 1));
    }
}
