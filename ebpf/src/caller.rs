//! Who makes a system call: the process, and its socket apart from any address.

use core::cell::Cell;

use aya_ebpf::bindings::{bpf_sock, bpf_sock_addr};
use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use aya_ebpf::helpers::{
    bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id, bpf_get_netns_cookie,
    bpf_get_socket_cookie,
};
use holdfast_ebpf::client::Clients;
use holdfast_ebpf::socket::Peer;
use holdfast_protocol::kernel::{Address, mapped};

use crate::seats::Owner;

/// `AF_INET` (`include/linux/socket.h`).
pub const IPV4: u32 = 2;

/// Who makes the call that a program runs for.
#[derive(Clone, Copy)]
pub struct Caller(*mut bpf_sock_addr);

impl Caller {
    /// The caller that the kernel has passed as `context`.
    ///
    /// # Safety
    ///
    /// `context` is the context of this run of the program, valid until it ends.
    #[inline(always)]
    pub const unsafe fn new(context: *mut bpf_sock_addr) -> Self {
        Self(context)
    }

    /// What the program was passed.
    #[inline(always)]
    pub const fn context(self) -> *mut bpf_sock_addr {
        self.0
    }

    /// Its socket.
    #[inline(always)]
    pub fn socket(self) -> *mut bpf_sock {
        // SAFETY: the context is valid by the contract of `new`, and names a valid socket.
        unsafe { (&raw const (*self.0).__bindgen_anon_1.sk).read_volatile() }
    }

    /// The kernel's number for the socket, which no other ever gets.
    #[inline(always)]
    pub fn cookie(self) -> u64 {
        // SAFETY: the helper takes the program's context and may be called by any of these programs.
        unsafe { bpf_get_socket_cookie(self.0.cast()) }
    }

    /// Its socket, by what is remembered of sockets.
    #[inline(always)]
    pub fn owner(self) -> Owner {
        self.owner_with(self.cookie())
    }

    /// The same, once the cookie is known.
    #[inline(always)]
    pub fn owner_with(self, cookie: u64) -> Owner {
        // SAFETY: the context is valid by the contract of `new`.
        let protocol = unsafe { (&raw const (*self.0).protocol).read_volatile() };
        Owner::of(cookie, self.socket().cast(), protocol)
    }

    /// The id of the process's control group `level` levels below the root; 0 if it is not as deep.
    #[inline(always)]
    pub fn ancestor(level: u32) -> u64 {
        // SAFETY: the helper takes any level, and answers 0 for one that the cgroup does not have.
        unsafe { bpf_get_current_ancestor_cgroup_id(level as i32) }
    }
}

impl Clients for Caller {
    #[inline(always)]
    fn cgroup(&self) -> u64 {
        // SAFETY: the helper takes nothing; programs of cgroup hooks run for the process itself.
        unsafe { bpf_get_current_cgroup_id() }
    }

    #[inline(always)]
    fn network_namespace(&self) -> u64 {
        // SAFETY: as in `cookie`.
        unsafe { bpf_get_netns_cookie(self.0.cast()) }
    }

    #[inline(always)]
    fn bound(&self) -> Address {
        // SAFETY: it is the socket of this run.
        unsafe { own_address(self.socket()) }.address
    }
}

/// A caller whose control group, and the time, is asked for once.
pub struct KnownCaller {
    caller: Caller,
    cgroup: Cell<u64>,
    now_ns: Cell<u64>,
}

impl KnownCaller {
    /// A caller of whom nothing is known yet.
    #[inline(always)]
    pub const fn new(caller: Caller) -> Self {
        Self { caller, cgroup: Cell::new(0), now_ns: Cell::new(0) }
    }
}

/// Whose clock it is.
pub trait Clock {
    /// Nanoseconds since boot, by the coarse clock, which a tick of the kernel moves on.
    fn now_ns(&self) -> u64;
}

impl Clock for Caller {
    #[inline(always)]
    fn now_ns(&self) -> u64 {
        // SAFETY: the helper takes nothing and may be called by any program.
        unsafe { bpf_ktime_get_coarse_ns() }
    }
}

impl Clock for &KnownCaller {
    #[inline(always)]
    fn now_ns(&self) -> u64 {
        // It is never 0 once a process runs.
        if self.now_ns.get() == 0 {
            self.now_ns.set(self.caller.now_ns());
        }
        self.now_ns.get()
    }
}

impl Clients for &KnownCaller {
    #[inline(always)]
    fn cgroup(&self) -> u64 {
        // No control group has the id 0.
        if self.cgroup.get() == 0 {
            self.cgroup.set(self.caller.cgroup());
        }
        self.cgroup.get()
    }

    #[inline(always)]
    fn network_namespace(&self) -> u64 {
        self.caller.network_namespace()
    }

    #[inline(always)]
    fn bound(&self) -> Address {
        self.caller.bound()
    }
}

/// The address and port that a socket is bound to; zeros as far as it is bound to none.
///
/// # Safety
///
/// `socket` is one that the kernel has passed to this run of the program.
#[inline(always)]
pub unsafe fn own_address(socket: *const bpf_sock) -> Peer {
    // SAFETY: a valid socket, whose fields are read as wide as they are. All of them whatever the
    // family is: of two reads on two ways the compiler would make one at a variable place, which
    // the verifier does not take.
    let (family, port, ipv4, ipv6) = unsafe {
        (
            (&raw const (*socket).family).read_volatile(),
            (&raw const (*socket).src_port).read_volatile() as u16,
            (&raw const (*socket).src_ip4).read_volatile(),
            [
                (&raw const (*socket).src_ip6[0]).read_volatile(),
                (&raw const (*socket).src_ip6[1]).read_volatile(),
                (&raw const (*socket).src_ip6[2]).read_volatile(),
                (&raw const (*socket).src_ip6[3]).read_volatile(),
            ],
        )
    };
    let address = if family == IPV4 { mapped(ipv4) } else { ipv6 };
    Peer { address, port_be: port.to_be() }
}
