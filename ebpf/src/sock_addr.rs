//! The sockets the programs run for: what they name, and what is remembered of them.

use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::{bpf_get_current_cgroup_id, bpf_get_netns_cookie, bpf_get_socket_cookie};
use aya_ebpf::programs::SockAddrContext;
use holdfast_ebpf::client::Clients;
use holdfast_ebpf::socket::{self, Peer, Reach};
use holdfast_protocol::kernel::{Address, SocketState, mapped};

use crate::counting;
use crate::maps::{self, SOCKETS};

/// A [`SocketState`] in the widest accesses that there are.
const STATE_WORDS: usize = size_of::<SocketState>() / size_of::<u64>();
type StateWords = [u64; STATE_WORDS];

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
                Reach::Any | Reach::Native => [
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

    /// The context of a program for datagrams to IPv6 addresses that are not IPv4-mapped.
    #[inline(always)]
    pub const fn ipv6_datagram(context: &'a SockAddrContext) -> Self {
        Self { context, reach: Reach::Native }
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
        let raw = self.raw();
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
        /// `AF_INET` (`include/linux/socket.h`).
        const IPV4: u32 = 2;
        // SAFETY: the kernel passes a valid `bpf_sock_addr` with a valid socket, whose fields are
        // read as wide as they are.
        unsafe {
            let socket = (*self.raw()).__bindgen_anon_1.sk;
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

    /// The kernel's number for the socket, which no other ever gets.
    #[inline(always)]
    pub fn cookie(&self) -> u64 {
        // SAFETY: the helper takes the program's context and may be called by any of these programs.
        unsafe { bpf_get_socket_cookie(self.raw().cast()) }
    }

    /// The cookie of the socket's network namespace.
    #[inline(always)]
    pub fn namespace(&self) -> u64 {
        // SAFETY: as in `cookie`.
        unsafe { bpf_get_netns_cookie(self.raw().cast()) }
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

    /// Remembers `state` for the socket, in place of what was remembered before, and returns where;
    /// null if nowhere. What was counted for its former peer ends: a socket that may connect again is
    /// not connected to it any more, or not for long.
    ///
    /// When the kernel has no memory for it (`net.core.optmem_max` bounds it for each socket), the
    /// connection is governed all the same: the client reaches its endpoint, and `getpeername`
    /// then shows that endpoint instead of the address the client asked for, and nothing is counted
    /// of what becomes of it.
    #[inline(always)]
    pub fn remember(&self, mut state: SocketState) -> *mut SocketState {
        // SAFETY: as in `remembered`. The helper copies `state` only if it makes new storage.
        let stored = unsafe { SOCKETS.get_or_insert_ptr_mut(self.context, Some(&mut state)) };
        if stored.is_null() {
            return stored;
        }
        // SAFETY: not null, so it is this socket's storage.
        unsafe { counting::leave(stored) };
        let (to, from) = (stored.cast::<StateWords>(), (&raw const state).cast::<StateWords>());
        for word in 0..STATE_WORDS {
            // SAFETY: both are of a `SocketState`, which is aligned words without padding, and the
            // stored one is written as in `remembered`. Volatile keeps the words: of a plain copy
            // the compiler makes a call of its own that goes byte by byte.
            unsafe { (&raw mut (*to)[word]).write_volatile((*from)[word]) };
        }
        stored
    }

    /// Forgets what is remembered of the socket, if anything is, and ends what is counted for it.
    #[inline(always)]
    pub fn forget(&self) {
        let raw = self.raw();
        // SAFETY: the kernel passes a valid `bpf_sock_addr` with a valid socket.
        unsafe {
            let stored = maps::stored((*raw).__bindgen_anon_1.sk.cast());
            if stored.is_null() {
                return;
            }
            counting::leave(stored);
        }
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
