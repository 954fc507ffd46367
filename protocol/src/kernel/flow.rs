//! What the programs remember of datagrams that sockets send without being connected.
//!
//! A **flow** is a socket and a virtual address: `FLOWS` says which endpoint it goes to, and
//! `REPLIES` says, for a socket and an endpoint, which virtual address it was asked for as. Both are
//! hashes that give up what was used least recently, so their memory is bounded and nothing has to
//! be swept. They are held and pinned like every map, so a flow outlives workers and supervisors.

use super::{Address, mix};

/// Key of `FLOWS` and of `REPLIES`: a socket and the other side of its datagrams.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// The kernel's cookie of the socket (`bpf_get_socket_cookie`), which is never given twice.
    pub socket: u64,
    /// In `FLOWS` the virtual address, in `REPLIES` that of an endpoint.
    pub address: Address,
    /// Its port, in network order, in a whole word: the kernel hashes every byte of a key.
    pub port_be: u64,
}

impl FlowKey {
    /// The key of `socket` and an address with its port.
    #[must_use]
    pub const fn new(socket: u64, address: Address, port_be: u16) -> Self {
        Self { socket, address, port_be: port_be as u64 }
    }

    /// A digest of the key that is kept in the value, for the reason that
    /// [`FrontendKey::tag`](super::FrontendKey::tag) gives.
    #[must_use]
    pub const fn tag(&self) -> u32 {
        let high = ((self.address[0] as u64) << 32) | self.address[1] as u64;
        let low = ((self.address[2] as u64) << 32) | self.address[3] as u64;
        mix(high ^ self.socket.rotate_left(32), low, self.socket ^ self.port_be)
    }
}

/// Where a flow goes: the value of `FLOWS`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// [`FlowKey::tag`] of the key this value was written for. First, so that a value that is given
    /// to another key shows it before anything else changes.
    pub tag: u32,
    /// The row of the service's table where the endpoint stood when it was last looked for.
    pub row: u32,
    /// The endpoint.
    pub address: Address,
    /// Its port, in network order.
    pub port_be: u16,
    /// Always 0.
    pub reserved: u16,
    /// The service number it was counted for.
    pub service: u32,
}

/// What an endpoint was asked for as: the value of `REPLIES`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// [`FlowKey::tag`], as in [`Flow`].
    pub tag: u32,
    /// The port of the virtual address, in network order.
    pub port_be: u16,
    /// Always 0.
    pub reserved: u16,
    /// The virtual address.
    pub address: Address,
}

const _: () = {
    assert!(size_of::<FlowKey>() == 32);
    assert!(size_of::<Flow>() == 32);
    assert!(size_of::<Reply>() == 24);
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::mapped;

    #[test]
    fn neighbouring_flows_have_different_tags() {
        let mut tags = std::collections::HashSet::new();
        for socket in 1..64 {
            for host in 0x7f60_0000_u32..0x7f60_0040 {
                for port in [53_u16, 123, 443, 8080] {
                    let key = FlowKey::new(socket, mapped(host.to_be()), port.to_be());
                    assert!(tags.insert(key.tag()), "{key:?}");
                }
            }
        }
    }
}
