//! What is remembered of sockets.
//!
//! Each socket has an element of an array: to find it takes no hash, and to take it no memory. Which one a TCP
//! socket has follows from where it lies in memory, and of any other socket from its cookie ([`Owner`]). A socket
//! whose element another one has gets storage of its own from the kernel. An element that is not given back,
//! because nobody was attached when its socket was closed, costs others just that. An element remembers
//! that this has happened ([`SocketState::crowded`]), so that storage is looked for only where there can be
//! any: nearly always a socket has none, and each call of a helper costs a connection more than all that is
//! read of its element.

use core::arch::asm;
use core::ffi::c_void;
use core::ptr;

use aya_ebpf::bindings::BPF_SK_STORAGE_GET_F_CREATE;
use aya_ebpf::btf_maps::{Array, SkStorage};
use aya_ebpf::helpers::generated::bpf_sk_storage_get;
use aya_ebpf::macros::btf_map;
use holdfast_ebpf::decide::Decision;
use holdfast_protocol::kernel::{FrontendKey, PROTOCOL_TCP, SeatWord, SocketState, limit, phase};

use crate::caller::Caller;
use crate::maps::{exchange, write_address};

const SOCKET_COUNT: usize = limit::SOCKETS as usize;

#[btf_map]
static SOCKETS: Array<SocketState, SOCKET_COUNT> = Array::new();
#[btf_map]
static OVERFLOW: SkStorage<SocketState> = SkStorage::new();

/// Bytes from one TCP socket to the next in the kernel's memory, at least, as a power of two: a `tcp_sock` has more than
/// 2048 (`include/linux/tcp.h`), so that neighbours have different elements.
const SOCKET_SHIFT: u32 = 11;

/// A socket: which element is its own, and by what it is known that what stands there is of it.
///
/// A closed TCP socket's memory is given to the next one (`SLAB_TYPESAFE_BY_RCU` in `net/ipv4/tcp_ipv4.c`), and so its
/// element, which is in a cache then. The memory of other sockets rests for a time first; their cookies count up, so that
/// sockets that were made one after the other have elements side by side.
#[derive(Clone, Copy)]
pub struct Owner {
    /// The kernel's number for it.
    pub cookie: u64,
    /// The element of `SOCKETS` that is its own; never null, but only the kernel knows that.
    element: *mut SocketState,
}

impl Owner {
    /// The socket with this cookie, which has `protocol`.
    #[inline(always)]
    pub fn of(cookie: u64, socket: *const c_void, protocol: u32) -> Self {
        let number = if protocol == PROTOCOL_TCP as u32 { place(socket) } else { cookie };
        let element = SOCKETS.get_ptr_mut(number as u32 & (limit::SOCKETS - 1));
        Self { cookie, element: element.unwrap_or(ptr::null_mut()) }
    }
}

/// Whether the element of a socket is that socket's.
#[inline(always)]
pub fn is_known(owner: Owner) -> bool {
    let own = owner.element;
    // SAFETY: what is not null was looked up in this run.
    !own.is_null() && unsafe { seat(own).is_of(owner.cookie) }
}

/// Whether anything may be remembered of a socket.
#[inline(always)]
pub fn may_be_remembered(owner: Owner) -> bool {
    let own = owner.element;
    // SAFETY: what is not null was looked up in this run.
    !own.is_null() && unsafe { seat(own).is_of(owner.cookie) || is_crowded(own) }
}

/// What is remembered of a socket; null if nothing is.
///
/// # Safety
///
/// `socket` is that socket, or the context that stands for it, of this run of the program.
#[inline(always)]
pub unsafe fn find(owner: Owner, socket: *mut c_void) -> *mut SocketState {
    let (own, cookie) = (owner.element, owner.cookie);
    // SAFETY: what is not null was looked up in this run; the socket is valid by the contract above.
    unsafe {
        if own.is_null() || seat(own).is_of(cookie) {
            return own;
        }
        if !is_crowded(own) {
            return ptr::null_mut();
        }
        let stored = storage(socket, 0);
        if !stored.is_null() && seat(stored).is_of(cookie) { stored } else { ptr::null_mut() }
    }
}

/// What is remembered of the caller's socket, if anything is.
#[inline(always)]
pub fn remembered<'a>(caller: Caller) -> Option<&'a SocketState> {
    // SAFETY: the socket is that of the cookie; what is found stays mapped while the program runs.
    unsafe { find(caller.owner(), caller.socket().cast()).as_ref() }
}

/// The element of a socket, which is the socket's from now on, if nobody has had it yet or it was given back; null
/// otherwise. It says of the socket nothing but whose it is.
#[inline(always)]
pub fn take(owner: Owner) -> *mut SocketState {
    let own = owner.element;
    // SAFETY: what is not null was looked up in this run.
    unsafe {
        if own.is_null() || is_crowded(own) {
            return ptr::null_mut();
        }
        let idle = SeatWord::new(owner.cookie, phase::IDLE);
        if exchange(&raw mut (*own).seat, SeatWord::FREE.0, idle.0) { own } else { ptr::null_mut() }
    }
}

/// Room for what is to be remembered of a socket, which is the socket's from now on; null if the kernel has
/// none. What was remembered before stays there.
///
/// # Safety
///
/// As for [`find`]. Nobody else claims room for the same socket meanwhile.
#[inline(always)]
pub unsafe fn claim(owner: Owner, socket: *mut c_void) -> *mut SocketState {
    let idle = SeatWord::new(owner.cookie, phase::IDLE);
    // SAFETY: as in `find`.
    unsafe {
        let found = find(owner, socket);
        if !found.is_null() {
            return found;
        }
        let own = owner.element;
        if own.is_null() || exchange(&raw mut (*own).seat, SeatWord::FREE.0, idle.0) {
            return own;
        }
        // First the mark: whoever has storage is found.
        (&raw mut (*own).crowded).write_volatile(1);
        let stored = storage(socket, u64::from(BPF_SK_STORAGE_GET_F_CREATE));
        if !stored.is_null() {
            (&raw mut (*stored).seat).write_volatile(idle.0);
        }
        stored
    }
}

/// Writes what a socket asked for and where it goes.
///
/// # Safety
///
/// `stored` is this socket's, looked up in this run, and its phase is idle: nobody else looks at the rest of it.
#[inline(always)]
pub unsafe fn write_route(stored: *mut SocketState, asked: &FrontendKey, decision: &Decision) {
    // SAFETY: by the contract above.
    unsafe {
        write_address(&raw mut (*stored).original_address, &asked.address);
        write_address(&raw mut (*stored).endpoint_address, &decision.endpoint.address);
        (&raw mut (*stored).original_port_be).write_volatile(asked.port_be);
        (&raw mut (*stored).endpoint_port_be).write_volatile(decision.endpoint.port_be);
        (&raw mut (*stored).service).write_volatile(decision.service);
        (&raw mut (*stored).endpoint).write_volatile(decision.state);
    }
}

/// Whose `state` is, and in which phase.
///
/// # Safety
///
/// `state` points into a map value that the program looked up in this run.
#[inline(always)]
pub unsafe fn seat(state: *const SocketState) -> SeatWord {
    // SAFETY: by the contract above. Others exchange the word meanwhile, hence one volatile load.
    SeatWord(unsafe { (&raw const (*state).seat).read_volatile() })
}

/// Whether a socket whose element this is may have storage of its own.
#[inline(always)]
unsafe fn is_crowded(element: *const SocketState) -> bool {
    // SAFETY: callers pass an element that they looked up in this run.
    unsafe { (&raw const (*element).crowded).read_volatile() != 0 }
}

/// The place of a socket in the kernel's memory, counted from a place that is always the same. The verifier lets a
/// privileged program have the difference of two pointers, and no number of either of them.
#[inline(always)]
fn place(socket: *const c_void) -> u64 {
    let mut distance = socket;
    // SAFETY: the instruction touches two registers. In assembly because the compiler may subtract in any other way, too.
    unsafe {
        asm!(
            "{distance} -= {map}",
            distance = inout(reg) distance,
            map = in(reg) &raw const SOCKETS,
            options(nostack, nomem, preserves_flags),
        );
    }
    distance as u64 >> SOCKET_SHIFT
}

#[inline(always)]
unsafe fn storage(socket: *mut c_void, flags: u64) -> *mut SocketState {
    let map = (&raw const OVERFLOW).cast_mut().cast();
    // SAFETY: the map is one of socket storage, and the socket is valid by the caller's contract.
    // Nothing is passed to begin with, so that new storage is all zeros.
    unsafe { bpf_sk_storage_get(map, socket, ptr::null_mut(), flags) }.cast()
}
