//! What is remembered of datagrams, for one socket.

use aya_ebpf::btf_maps::LruHashMap;
use aya_ebpf::macros::btf_map;
use holdfast_ebpf::decide::Inquiry;
use holdfast_ebpf::flow::{self, Direction, Flows, Former, NEVER};
use holdfast_ebpf::socket::Peer;
use holdfast_protocol::kernel::{Flow, FlowKey, Reply, limit};

const FLOW_COUNT: usize = limit::DEFAULT_FLOWS as usize;

/// The kernel's flag for an update that makes or replaces an element.
const ANY: u64 = aya_ebpf::bindings::BPF_ANY as u64;

#[btf_map]
static FLOWS: LruHashMap<FlowKey, Flow, FLOW_COUNT> = LruHashMap::new();
#[btf_map]
static REPLIES: LruHashMap<FlowKey, Reply, FLOW_COUNT> = LruHashMap::new();

/// The flows of the socket with this cookie.
pub struct SocketFlows(pub u64);

impl Flows for SocketFlows {
    #[inline(always)]
    fn former(&self, asked: &Peer) -> Former {
        let key = self.key(asked);
        match FLOWS.get_ptr(&key) {
            // SAFETY: the lookup is of this run, so the value stays mapped until it ends.
            Some(flow) => Former::of(&unsafe { read_flow(flow) }, &key),
            None => Former::none(asked),
        }
    }

    #[inline(always)]
    fn asked_as(&self, endpoint: &Peer) -> Peer {
        let key = self.key(endpoint);
        match REPLIES.get_ptr(&key) {
            // SAFETY: as above.
            Some(reply) => flow::asked_as(&unsafe { read_reply(reply) }, &key),
            None => Peer { port_be: NEVER, ..*endpoint },
        }
    }
}

impl SocketFlows {
    /// Remembers what `direction` says of the datagram that `inquiry` was decided for.
    ///
    /// When the kernel has no element for it, which takes every CPU to be inserting at once, the
    /// datagram is governed all the same: the next one begins the flow again.
    #[inline(always)]
    pub fn remember(&self, inquiry: &Inquiry, direction: &Direction) {
        let decision = &inquiry.decision;
        let asked = &flow::asked(&inquiry.key);
        if direction.writes_flow {
            let key = self.key(asked);
            let flow = Flow {
                tag: key.tag(),
                row: decision.row,
                address: decision.endpoint.address,
                port_be: decision.endpoint.port_be,
                reserved: 0,
                service: decision.service,
            };
            let _ = FLOWS.insert(&key, &flow, ANY);
        }
        if direction.writes_reply {
            let key = self.key(&decision.endpoint);
            let (address, port_be) = (asked.address, asked.port_be);
            let reply = Reply { tag: key.tag(), port_be, reserved: 0, address };
            let _ = REPLIES.insert(&key, &reply, ANY);
        }
        if direction.forgets_reply {
            // Fails only if the kernel has given it up already.
            let _ = REPLIES.remove(&self.key(asked));
        }
    }

    /// Remembers that the socket has sent to `peer`, which may answer.
    #[inline(always)]
    pub fn expect(&self, peer: &Peer) {
        let key = self.key(peer);
        let reply =
            Reply { tag: key.tag(), port_be: peer.port_be, reserved: 0, address: peer.address };
        let _ = REPLIES.insert(&key, &reply, ANY);
    }

    #[inline(always)]
    const fn key(&self, peer: &Peer) -> FlowKey {
        FlowKey::new(self.0, peer.address, peer.port_be)
    }
}

/// Reads a value that the kernel may give to another key meanwhile. It then stores the tag first, so
/// it is read last.
///
/// # Safety
///
/// `flow` comes from a lookup in this run of the program.
#[inline(always)]
unsafe fn read_flow(flow: *const Flow) -> Flow {
    // SAFETY: by the contract above; each load is as wide as its field.
    unsafe {
        let address = read_address(&raw const (*flow).address);
        let port_be = (&raw const (*flow).port_be).read_volatile();
        let service = (&raw const (*flow).service).read_volatile();
        let row = (&raw const (*flow).row).read_volatile();
        let tag = (&raw const (*flow).tag).read_volatile();
        Flow { tag, row, address, port_be, reserved: 0, service }
    }
}

/// Likewise.
///
/// # Safety
///
/// `reply` comes from a lookup in this run of the program.
#[inline(always)]
unsafe fn read_reply(reply: *const Reply) -> Reply {
    // SAFETY: by the contract above; each load is as wide as its field.
    unsafe {
        let address = read_address(&raw const (*reply).address);
        let port_be = (&raw const (*reply).port_be).read_volatile();
        let tag = (&raw const (*reply).tag).read_volatile();
        Reply { tag, port_be, reserved: 0, address }
    }
}

/// # Safety
///
/// `address` is that of a field of a value that was looked up in this run of the program.
#[inline(always)]
unsafe fn read_address(address: *const [u32; 4]) -> [u32; 4] {
    // SAFETY: by the contract above.
    unsafe {
        [
            (&raw const (*address)[0]).read_volatile(),
            (&raw const (*address)[1]).read_volatile(),
            (&raw const (*address)[2]).read_volatile(),
            (&raw const (*address)[3]).read_volatile(),
        ]
    }
}
