//! The sockets the programs run for: what they name, and what is remembered of them.

use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::{bpf_get_current_cgroup_id, bpf_get_netns_cookie};
use aya_ebpf::programs::SockAddrContext;
use holdfast_ebpf::client::Clients;
use holdfast_ebpf::socket::{self, Peer, Reach};
use holdfast_protocol::kernel::{Address, SocketState, mapped};

use crate::maps::SOCKETS;

/// A socket together with the address of a system call, which the program may rewrite.
pub struct SockAddr<'a> {
    context: &'a SockAddrContext,
    reach: Reach,
}

impl Clients for SockAddr<'_> {
    #[inline(always)]
    fn cgroup(&self) -> u64 {
        // SAFETY: the helper takes nothing; programs of cgroup hooks run for the process itself.
        unsafe { bpf_get_current_cgroup_id() }
    }

    #[inline(always)]
    fn network_namespace(&self) -> u64 {
        // SAFETY: the kernel passes a valid `bpf_sock_addr`.
        unsafe { bpf_get_netns_cookie(self.raw().cast()) }
    }

    #[inline(always)]
    fn bound(&self) -> Address {
        // SAFETY: the kernel passes a valid `bpf_sock_addr` with a valid socket; volatile keeps each
        // access as wide as its field. `reach` says which of the two fields is the socket's.
        unsafe {
            let socket = (*self.raw()).__bindgen_anon_1.sk;
            match self.reach {
                Reach::Ipv4 => mapped((&raw const (*socket).src_ip4).read_volatile()),
                Reach::Any => [
                    (&raw const (*socket).src_ip6[0]).read_volatile(),
                    (&raw const (*socket).src_ip6[1]).read_volatile(),
                    (&raw const (*socket).src_ip6[2]).read_volatile(),
                    (&raw const (*socket).src_ip6[3]).read_volatile(),
                ],
            }
        }
    }
}

impl<'a> SockAddr<'a> {
    /// The context of a program for IPv4 addresses.
    #[inline(always)]
    pub const fn ipv4(context: &'a SockAddrContext) -> Self {
        Self { context, reach: Reach::Ipv4 }
    }

    /// The context of a program for IPv6 addresses.
    #[inline(always)]
    pub const fn ipv6(context: &'a SockAddrContext) -> Self {
        Self { context, reach: Reach::Any }
    }

    /// Which addresses the system call can name.
    #[inline(always)]
    pub const fn reach(&self) -> Reach {
        self.reach
    }

    /// The socket's protocol, if it is one that is governed.
    #[inline(always)]
    pub fn governed(&self) -> Option<u8> {
        let raw = self.raw();
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
        let raw = self.raw();
        // SAFETY: as above.
        let port = unsafe { (&raw const (*raw).user_port).read_volatile() };
        // The field holds a port in network order in its lower half.
        Peer { address: self.address(), port_be: port as u16 }
    }

    #[inline(always)]
    fn address(&self) -> Address {
        let raw = self.raw();
        // SAFETY: as above; `reach` says which of the two fields the kernel filled in.
        unsafe {
            match self.reach {
                Reach::Ipv4 => mapped((&raw const (*raw).user_ip4).read_volatile()),
                Reach::Any => [
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
        let raw = self.raw();
        let address = peer.address;
        // SAFETY: as above; these are fields that programs of this kind may write, 4 bytes at once.
        unsafe {
            match self.reach {
                Reach::Ipv4 => (&raw mut (*raw).user_ip4).write_volatile(address[3]),
                Reach::Any => {
                    (&raw mut (*raw).user_ip6[0]).write_volatile(address[0]);
                    (&raw mut (*raw).user_ip6[1]).write_volatile(address[1]);
                    (&raw mut (*raw).user_ip6[2]).write_volatile(address[2]);
                    (&raw mut (*raw).user_ip6[3]).write_volatile(address[3]);
                }
            }
            (&raw mut (*raw).user_port).write_volatile(u32::from(peer.port_be));
        }
    }

    /// What is remembered of the socket.
    #[inline(always)]
    pub fn remembered(&self) -> Option<SocketState> {
        // SAFETY: the socket of the context is valid while the program runs.
        let state = unsafe { SOCKETS.get_ptr_mut(self.context) };
        // SAFETY: not null, so it is this socket's storage. Every program that writes it holds the
        // socket's lock, as this one does.
        (!state.is_null()).then(|| unsafe { *state })
    }

    /// Remembers `state` for the socket, in place of what was remembered before.
    ///
    /// When the kernel has no memory for it (`net.core.optmem_max` bounds it for each socket), the
    /// connection is governed all the same: the client reaches its endpoint, and `getpeername`
    /// then shows that endpoint instead of the address the client asked for.
    #[inline(always)]
    pub fn remember(&self, mut state: SocketState) {
        // SAFETY: as in `remembered`. The helper copies `state` only if it makes new storage. Both are
        // aligned to 8 bytes and as large as the words that are copied.
        unsafe {
            let stored = SOCKETS.get_or_insert_ptr_mut(self.context, Some(&mut state));
            if !stored.is_null() {
                // Word by word: copied as a whole, it may become a call of a function that the kernel
                // does not have.
                let (from, to) = ((&raw const state).cast::<u64>(), stored.cast::<u64>());
                for word in 0..size_of::<SocketState>() / size_of::<u64>() {
                    to.add(word).write_volatile(from.add(word).read());
                }
            }
        }
    }

    /// Forgets what is remembered of the socket, if anything is.
    #[inline(always)]
    pub fn forget(&self) {
        let raw = self.raw();
        // SAFETY: the kernel passes a valid `bpf_sock_addr` with a valid socket.
        let outcome = unsafe { SOCKETS.delete((*raw).__bindgen_anon_1.sk) };
        // The only failure is that there was nothing to forget.
        let _ = outcome;
    }

    #[inline(always)]
    const fn raw(&self) -> *mut bpf_sock_addr {
        self.context.sock_addr
    }
}
