//! Which sockets are governed, and which peer a client is told.

use holdfast_protocol::kernel::{Address, PROTOCOL_TCP, PROTOCOL_UDP, SocketState, is_mapped};

/// `SOCK_STREAM` (`include/linux/net.h`, the architectures Holdfast runs on).
const SOCK_STREAM: u32 = 1;
/// `SOCK_DGRAM`, likewise.
const SOCK_DGRAM: u32 = 2;

/// An address and a port: one side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The address; IPv4 as IPv4-mapped IPv6.
    pub address: Address,
    /// The port, in network order.
    pub port_be: u16,
}

/// Which addresses a socket can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// An IPv4 socket: those that are IPv4-mapped.
    Ipv4,
    /// An IPv6 socket: all of them. One with `IPV6_V6ONLY` cannot go to an IPv4-mapped address; the
    /// kernel itself refuses that with `ENETUNREACH`.
    Any,
    /// A datagram to an IPv6 address that is not IPv4-mapped: those that are not either. The kernel
    /// has decided by then that it travels as IPv6 (`net/ipv6/udp.c`, `udpv6_sendmsg`).
    Native,
}

impl Reach {
    /// Whether such a socket can name `address`.
    #[inline(always)]
    #[must_use]
    pub const fn covers(self, address: &Address) -> bool {
        match self {
            Self::Ipv4 => is_mapped(address),
            Self::Any => true,
            Self::Native => !is_mapped(address),
        }
    }
}

/// The protocol of a socket of this type and protocol if it is governed: TCP or UDP, and nothing
/// else that happens to be a stream (SCTP) or to carry datagrams (ping sockets, UDP-Lite).
#[inline(always)]
#[must_use]
pub const fn governed(kind: u32, protocol: u32) -> Option<u8> {
    const TCP: u32 = PROTOCOL_TCP as u32;
    const UDP: u32 = PROTOCOL_UDP as u32;
    match (kind, protocol) {
        (SOCK_STREAM, TCP) => Some(PROTOCOL_TCP),
        (SOCK_DGRAM, UDP) => Some(PROTOCOL_UDP),
        _ => None,
    }
}

/// What `getpeername` says of a socket whose peer is `current`: the address the client asked for if
/// `current` is where it was sent, and `None` (the truth as it stands) otherwise.
///
/// The comparison keeps a recorded state from speaking for a connection it was not recorded for,
/// such as that of a UDP socket whose later `connect` failed after the program had run.
#[inline(always)]
#[must_use]
pub fn asked_for(state: &SocketState, current: Peer, reach: Reach) -> Option<Peer> {
    let endpoint = Peer { address: state.endpoint_address, port_be: state.endpoint_port_be };
    // `IPV6_ADDRFORM` turns an IPv6 socket into an IPv4 one, which cannot name what it asked for.
    if current != endpoint || !reach.covers(&state.original_address) {
        return None;
    }
    Some(Peer { address: state.original_address, port_be: state.original_port_be })
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_protocol::kernel::mapped;

    const FRONTEND: Peer = Peer { address: mapped(0x0a00_607f), port_be: 80_u16.to_be() };
    const ENDPOINT: Peer = Peer { address: mapped(0x0100_007f), port_be: 18080_u16.to_be() };
    const NATIVE: Address = [0x96fd, 0, 0, 0x1000_0000];

    fn state(original: Peer) -> SocketState {
        SocketState {
            original_address: original.address,
            endpoint_address: ENDPOINT.address,
            original_port_be: original.port_be,
            endpoint_port_be: ENDPOINT.port_be,
            service: 7,
            told: 0,
            crowded: 0,
            endpoint: 9,
            seat: 0,
            since_ns: 0,
            cgroup: 0,
            handshake_ns: 0,
            protocol: 0,
            namespace: 0,
            reserved: [0; 4],
        }
    }

    #[test]
    fn only_tcp_and_udp_sockets_are_governed() {
        assert_eq!(governed(1, 6), Some(PROTOCOL_TCP));
        assert_eq!(governed(2, 17), Some(PROTOCOL_UDP));
        let (sctp, ping, udp_lite, mptcp) = ((1, 132), (2, 1), (2, 136), (1, 262));
        for (kind, protocol) in [sctp, ping, udp_lite, mptcp, (1, 17), (2, 6), (3, 6), (5, 6)] {
            assert_eq!(governed(kind, protocol), None, "type {kind}, protocol {protocol}");
        }
    }

    #[test]
    fn a_client_is_told_the_address_it_asked_for() {
        for reach in [Reach::Ipv4, Reach::Any] {
            assert_eq!(asked_for(&state(FRONTEND), ENDPOINT, reach), Some(FRONTEND));
        }
    }

    #[test]
    fn a_peer_it_was_not_sent_to_is_told_as_it_is() {
        let elsewhere = Peer { address: mapped(0x0200_007f), ..ENDPOINT };
        let other_port = Peer { port_be: ENDPOINT.port_be ^ 1, ..ENDPOINT };
        for current in [elsewhere, other_port, FRONTEND] {
            assert_eq!(asked_for(&state(FRONTEND), current, Reach::Any), None);
        }
    }

    #[test]
    fn an_ipv4_socket_is_never_told_an_ipv6_address() {
        let original = Peer { address: NATIVE, ..FRONTEND };
        assert_eq!(asked_for(&state(original), ENDPOINT, Reach::Any), Some(original));
        assert_eq!(asked_for(&state(original), ENDPOINT, Reach::Ipv4), None);
        assert!(!Reach::Ipv4.covers(&NATIVE) && Reach::Any.covers(&NATIVE));
        assert!(Reach::Native.covers(&NATIVE) && !Reach::Native.covers(&FRONTEND.address));
    }
}
