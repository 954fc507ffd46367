//! What a packet that arrives is part of. Pure.
//!
//! The kernel runs the program when it has found the socket, before the socket sees the packet; fragments
//! have been put together by then (`net/ipv4/ip_input.c`, `ip_local_deliver`).

use holdfast_protocol::kernel::{Address, PROTOCOL_TCP, PROTOCOL_UDP, mapped};

use crate::socket::Peer;

/// A packet from its network header on, as a program reads it.
pub trait Packet {
    /// The byte at `offset`; `None` behind the end.
    fn byte(&self, offset: u32) -> Option<u8>;
    /// The two bytes at `offset`, as they lie there.
    fn half(&self, offset: u32) -> Option<u16>;
    /// The four bytes at `offset`, as they lie there.
    fn word(&self, offset: u32) -> Option<u32>;
}

/// What a packet is part of.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Where it comes from.
    pub remote: Peer,
    /// Where it goes.
    pub local: Peer,
    /// Whether it asks for a new TCP connection.
    pub is_first: bool,
    /// Whether it is TCP, and not UDP.
    pub is_tcp: bool,
}

/// What is to be done with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// It is judged as this.
    Judged(Arrival),
    /// It is neither TCP nor UDP.
    Other,
    /// It cannot be told what it is.
    Unknown,
}

/// Extension headers that are looked behind. A packet with more is none that anybody sends in good faith
/// (RFC 8200, section 4.1, has each once at most).
const EXTENSIONS: u32 = 8;

/// `SYN` and `ACK` among the flags of a TCP header (RFC 9293, section 3.1).
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// IPv6 headers that others follow (IANA, "IPv6 Extension Header Types").
mod next {
    pub const HOP_BY_HOP: u8 = 0;
    pub const ROUTING: u8 = 43;
    pub const FRAGMENT: u8 = 44;
    pub const AUTHENTICATION: u8 = 51;
    pub const DESTINATION: u8 = 60;
}

/// What the IPv4 `packet` is part of.
#[inline(always)]
pub fn ipv4<P: Packet>(packet: &P) -> Parsed {
    match ipv4_parts(packet) {
        Some(parsed) => parsed,
        None => Parsed::Unknown,
    }
}

#[inline(always)]
fn ipv4_parts<P: Packet>(packet: &P) -> Option<Parsed> {
    const WORDS_MASK: u8 = 0x0f;
    let header = u32::from(packet.byte(0)? & WORDS_MASK) * 4;
    let protocol = packet.byte(9)?;
    let (remote, local) = (mapped(packet.word(12)?), mapped(packet.word(16)?));
    transport(packet, header, protocol, remote, local)
}

/// What the IPv6 `packet` is part of.
#[inline(always)]
pub fn ipv6<P: Packet>(packet: &P) -> Parsed {
    match ipv6_parts(packet) {
        Some(parsed) => parsed,
        None => Parsed::Unknown,
    }
}

#[inline(always)]
fn ipv6_parts<P: Packet>(packet: &P) -> Option<Parsed> {
    let address = |at: u32| -> Option<Address> {
        Some([packet.word(at)?, packet.word(at + 4)?, packet.word(at + 8)?, packet.word(at + 12)?])
    };
    let (remote, local) = (address(8)?, address(24)?);
    let (mut protocol, mut header) = (packet.byte(6)?, 40);
    for _ in 0..EXTENSIONS {
        let length = match protocol {
            next::HOP_BY_HOP | next::ROUTING | next::DESTINATION => {
                (u32::from(packet.byte(header + 1)?) + 1) * 8
            }
            next::FRAGMENT => 8,
            next::AUTHENTICATION => (u32::from(packet.byte(header + 1)?) + 2) * 4,
            _ => return transport(packet, header, protocol, remote, local),
        };
        protocol = packet.byte(header)?;
        header += length;
    }
    None
}

#[inline(always)]
fn transport<P: Packet>(
    packet: &P,
    header: u32,
    protocol: u8,
    remote: Address,
    local: Address,
) -> Option<Parsed> {
    let is_tcp = match protocol {
        PROTOCOL_TCP => true,
        PROTOCOL_UDP => false,
        _ => return Some(Parsed::Other),
    };
    let remote = Peer { address: remote, port_be: packet.half(header)? };
    let local = Peer { address: local, port_be: packet.half(header + 2)? };
    let is_first = is_tcp && packet.byte(header + 13)? & (SYN | ACK) == SYN;
    Some(Parsed::Judged(Arrival { remote, local, is_first, is_tcp }))
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use super::*;

    struct Bytes(Vec<u8>);

    impl Packet for Bytes {
        fn byte(&self, offset: u32) -> Option<u8> {
            self.0.get(offset as usize).copied()
        }
        fn half(&self, offset: u32) -> Option<u16> {
            let bytes = self.0.get(offset as usize..offset as usize + 2)?;
            Some(u16::from_ne_bytes(bytes.try_into().unwrap()))
        }
        fn word(&self, offset: u32) -> Option<u32> {
            let bytes = self.0.get(offset as usize..offset as usize + 4)?;
            Some(u32::from_ne_bytes(bytes.try_into().unwrap()))
        }
    }

    fn tcp(flags: u8) -> Vec<u8> {
        let mut header = vec![0; 20];
        header[..4].copy_from_slice(&[0x9c, 0x40, 0, 80]);
        header[13] = flags;
        header
    }

    fn over_ipv4(options: usize, protocol: u8, payload: &[u8]) -> Bytes {
        let mut header = vec![0; 20 + options];
        header[0] = 0x40 | ((20 + options) / 4) as u8;
        header[9] = protocol;
        header[12..16].copy_from_slice(&[127, 0, 0, 1]);
        header[16..20].copy_from_slice(&[127, 0, 0, 2]);
        Bytes([&header[..], payload].concat())
    }

    fn over_ipv6(first: u8, extensions: &[u8], payload: &[u8]) -> Bytes {
        let mut header = [0; 40];
        (header[6], header[23], header[39]) = (first, 1, 2);
        Bytes([&header[..], extensions, payload].concat())
    }

    fn judged(parsed: Parsed) -> Arrival {
        match parsed {
            Parsed::Judged(arrival) => arrival,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_first_segment_is_told_from_the_others() {
        for options in [0, 4, 40] {
            let arrival = judged(ipv4(&over_ipv4(options, PROTOCOL_TCP, &tcp(SYN))));
            assert_eq!(arrival.remote.port_be, 40_000_u16.to_be());
            assert_eq!(arrival.remote.address, mapped(u32::from_ne_bytes([127, 0, 0, 1])));
            assert_eq!(arrival.local.port_be, 80_u16.to_be());
            assert_eq!(arrival.local.address, mapped(u32::from_ne_bytes([127, 0, 0, 2])));
            assert!(arrival.is_first && arrival.is_tcp);
        }
        for flags in [ACK, SYN | ACK, 0, 0x18, 0x04] {
            assert!(!judged(ipv4(&over_ipv4(0, PROTOCOL_TCP, &tcp(flags)))).is_first);
        }
        // Congestion control says something with its first segment as well (RFC 3168).
        assert!(judged(ipv4(&over_ipv4(0, PROTOCOL_TCP, &tcp(SYN | 0xc0)))).is_first);
        let datagram = judged(ipv4(&over_ipv4(0, PROTOCOL_UDP, &tcp(0)[..8])));
        assert!(!datagram.is_tcp && !datagram.is_first);
    }

    #[test]
    fn extension_headers_hide_nothing() {
        let arrival = judged(ipv6(&over_ipv6(PROTOCOL_TCP, &[], &tcp(SYN))));
        assert!(arrival.is_first && arrival.local.address[3] == 2_u32.to_be());
        let options = |following: u8| [&[following, 0][..], &[0; 6]].concat();
        let chain = [options(next::ROUTING), options(next::FRAGMENT), options(next::DESTINATION)];
        let chain = [&chain.concat()[..], &options(PROTOCOL_TCP)].concat();
        assert_eq!(ipv6(&over_ipv6(next::HOP_BY_HOP, &chain, &tcp(SYN))), Parsed::Judged(arrival));
        let mut authenticated = vec![0; 24];
        (authenticated[0], authenticated[1]) = (PROTOCOL_TCP, 4);
        let packet = over_ipv6(next::AUTHENTICATION, &authenticated, &tcp(SYN));
        assert_eq!(ipv6(&packet), Parsed::Judged(arrival));
    }

    #[test]
    fn what_cannot_be_told_is_not_taken_for_something_harmless() {
        let endless = [next::DESTINATION, 0, 0, 0, 0, 0, 0, 0].repeat(20);
        assert_eq!(ipv6(&over_ipv6(next::DESTINATION, &endless, &tcp(SYN))), Parsed::Unknown);
        assert_eq!(ipv4(&over_ipv4(0, PROTOCOL_TCP, &tcp(SYN)[..12])), Parsed::Unknown);
        assert_eq!(ipv4(&Bytes(Vec::new())), Parsed::Unknown);
        assert_eq!(ipv4(&over_ipv4(0, 1, &[0; 8])), Parsed::Other);
    }
}
