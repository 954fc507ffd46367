//! The address of a system call, and the peer of its socket.

use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use holdfast_ebpf::socket::{self, Peer, Reach};
use holdfast_protocol::kernel::{Address, FrontendKey, mapped};

use crate::caller::{Caller, IPV4};

/// The address of a system call, which the program may rewrite.
pub struct SockAddr {
    raw: *mut bpf_sock_addr,
    reach: Reach,
}

impl SockAddr {
    /// The context of a program for IPv4 addresses.
    #[inline(always)]
    pub const fn ipv4(context: &SockAddrContext) -> Self {
        Self { raw: context.sock_addr, reach: Reach::Ipv4 }
    }

    /// The context of a program for IPv6 addresses.
    #[inline(always)]
    pub const fn ipv6(context: &SockAddrContext) -> Self {
        Self { raw: context.sock_addr, reach: Reach::Any }
    }

    /// The context of a program for datagrams to IPv6 addresses that are not IPv4-mapped.
    #[inline(always)]
    pub const fn ipv6_datagram(context: &SockAddrContext) -> Self {
        Self { raw: context.sock_addr, reach: Reach::Native }
    }

    /// Who makes the call.
    #[inline(always)]
    pub const fn caller(&self) -> Caller {
        // SAFETY: the kernel passes a valid context.
        unsafe { Caller::new(self.raw) }
    }

    /// Which addresses the system call can name.
    #[inline(always)]
    pub const fn reach(&self) -> Reach {
        self.reach
    }

    /// The socket's protocol, if it is one that is governed.
    #[inline(always)]
    pub fn governed(&self) -> Option<u8> {
        let raw = self.raw;
        // SAFETY: the kernel passes a valid `bpf_sock_addr`. Volatile keeps each access as wide as
        // its field, which is the only width the verifier takes for these.
        let (kind, protocol) = unsafe {
            (
                (&raw const (*raw).type_).read_volatile(),
                (&raw const (*raw).protocol).read_volatile(),
            )
        };
        socket::governed(kind, protocol)
    }

    /// The address and port that the system call names.
    #[inline(always)]
    pub fn peer(&self) -> Peer {
        Peer { address: self.address(), port_be: self.port_be() }
    }

    /// What is asked for, by a socket that is governed. All of it is read anew each time, which costs less than a stack
    /// that has it.
    #[inline(always)]
    pub fn key(&self) -> FrontendKey {
        let Peer { address, port_be } = self.peer();
        FrontendKey { address, port_be, protocol: self.protocol() as u8, reserved: 0 }
    }

    /// The socket's protocol.
    #[inline(always)]
    pub fn protocol(&self) -> u32 {
        // SAFETY: the kernel passes a valid `bpf_sock_addr`, whose fields are read as wide as they are.
        unsafe { (&raw const (*self.raw).protocol).read_volatile() }
    }

    /// The port that the system call names, in network order.
    #[inline(always)]
    pub fn port_be(&self) -> u16 {
        // SAFETY: as above. The field holds the port in its lower half.
        unsafe { (&raw const (*self.raw).user_port).read_volatile() as u16 }
    }

    /// The address that the system call names.
    #[inline(always)]
    pub fn address(&self) -> Address {
        let raw = self.raw;
        // SAFETY: as above; `reach` says which of the two fields the kernel filled in.
        unsafe {
            match self.reach {
                Reach::Ipv4 => mapped((&raw const (*raw).user_ip4).read_volatile()),
                Reach::Any | Reach::Native => [
                    (&raw const (*raw).user_ip6[0]).read_volatile(),
                    (&raw const (*raw).user_ip6[1]).read_volatile(),
                    (&raw const (*raw).user_ip6[2]).read_volatile(),
                    (&raw const (*raw).user_ip6[3]).read_volatile(),
                ],
            }
        }
    }

    /// Makes the system call name `peer` instead. Its address is one that [`Self::reach`] covers.
    #[inline(always)]
    pub fn rename(&self, peer: Peer) {
        let raw = self.raw;
        let address = peer.address;
        // SAFETY: as above; these are fields that programs of this kind may write, 4 bytes at once.
        unsafe {
            match self.reach {
                Reach::Ipv4 => (&raw mut (*raw).user_ip4).write_volatile(address[3]),
                Reach::Any | Reach::Native => {
                    (&raw mut (*raw).user_ip6[0]).write_volatile(address[0]);
                    (&raw mut (*raw).user_ip6[1]).write_volatile(address[1]);
                    (&raw mut (*raw).user_ip6[2]).write_volatile(address[2]);
                    (&raw mut (*raw).user_ip6[3]).write_volatile(address[3]);
                }
            }
            (&raw mut (*raw).user_port).write_volatile(u32::from(peer.port_be));
        }
    }

    /// The address the socket itself is connected to; `None` if it is not connected.
    #[inline(always)]
    pub fn connected(&self) -> Option<Peer> {
        /// `TCP_ESTABLISHED` (`include/net/tcp_states.h`): a datagram socket that is connected.
        const CONNECTED: u32 = 1;
        // SAFETY: the kernel passes a valid `bpf_sock_addr` with a valid socket, whose fields are
        // read as wide as they are.
        unsafe {
            let socket = self.caller().socket();
            if (&raw const (*socket).state).read_volatile() != CONNECTED {
                return None;
            }
            let port_be = (&raw const (*socket).dst_port).read_volatile();
            if (&raw const (*socket).family).read_volatile() == IPV4 {
                let address = mapped((&raw const (*socket).dst_ip4).read_volatile());
                return Some(Peer { address, port_be });
            }
            let address = [
                (&raw const (*socket).dst_ip6[0]).read_volatile(),
                (&raw const (*socket).dst_ip6[1]).read_volatile(),
                (&raw const (*socket).dst_ip6[2]).read_volatile(),
                (&raw const (*socket).dst_ip6[3]).read_volatile(),
            ];
            Some(Peer { address, port_be })
        }
    }
}
