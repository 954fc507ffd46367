//! Real maps, made for one test and gone with it.

use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use holdfast_bpf::map::{HashMap, PerCpuArray};
use holdfast_bpf::mapped::MappedArray;
use holdfast_bpf::object::map_info;
use holdfast_protocol::kernel::cache::CacheLine;
use holdfast_protocol::kernel::rules::PolicyCounters;
use holdfast_protocol::kernel::{
    Affinity, AffinityKey, EndpointSlot, EnrolledKey, EnrolmentWord, Flow, FlowKey, Frontend,
    FrontendKey, HeadWord, RECENTS, Recent, Reply, SLOT_BYTES, ServiceCounters, ServiceRecord,
    SocketState, endpoint::EndpointState, event::EventControl, limit, map, rules, traffic::Traffic,
};
use holdfast_protocol::manifest::{Entry, MapShape, Shape};
use holdfast_worker::serve::tables::slot::{self, Slot};

const HASH: u32 = 1;
const ARRAY: u32 = 2;
const PER_CPU_ARRAY: u32 = 6;
const LRU_HASH: u32 = 9;
const RING_BUFFER: u32 = 27;
const MMAPABLE: u32 = 1 << 10;

/// `BPF_MAP_CREATE` and the beginning of its member of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct Create {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    name: [u8; 16],
}

fn create(name: &str, shape: MapShape) -> OwnedFd {
    let mut attribute = Create {
        map_type: shape.map_type,
        key_size: shape.key_bytes,
        value_size: shape.value_bytes,
        max_entries: shape.max_entries,
        map_flags: shape.flags,
        ..Create::default()
    };
    attribute.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: the attribute is the one of BPF_MAP_CREATE (0), and holds no address.
    let answer =
        unsafe { libc::syscall(libc::SYS_bpf, 0, &raw mut attribute, size_of::<Create>()) };
    let descriptor = i32::try_from(answer).expect("descriptors are small");
    assert!(
        descriptor >= 0,
        "cannot create {name}: {}; tests need root",
        io::Error::last_os_error()
    );
    // SAFETY: the kernel has just made it for us.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

/// The maps of an estate, as a loader would hand them over.
pub struct Estate {
    pub entries: Vec<Entry>,
    pub descriptors: Vec<OwnedFd>,
    heads: MappedArray<HeadWord>,
    tables: MappedArray<Slot>,
    pub counters: PerCpuArray<ServiceCounters>,
    pub frontends: HashMap<FrontendKey, Frontend>,
}

impl Estate {
    pub fn new(services: u32, slots: u32) -> Self {
        let bytes = |size: usize| u32::try_from(size).expect("small");
        let shape = |map_type, value, max_entries, flags| {
            let (key_bytes, value_bytes) = (4, bytes(value));
            MapShape { map_type, key_bytes, value_bytes, max_entries, flags }
        };
        let frontends = MapShape {
            key_bytes: bytes(size_of::<FrontendKey>()),
            ..shape(HASH, size_of::<Frontend>(), services * 2, 0)
        };
        let flows = |value: usize| MapShape {
            key_bytes: bytes(size_of::<FlowKey>()),
            ..shape(LRU_HASH, value, 512, 0)
        };
        let affinities = MapShape {
            key_bytes: bytes(size_of::<AffinityKey>()),
            ..shape(LRU_HASH, size_of::<Affinity>(), limit::AFFINITIES, 0)
        };
        let client_rates = MapShape {
            key_bytes: bytes(size_of::<AffinityKey>()),
            ..shape(LRU_HASH, size_of::<u64>(), limit::CLIENT_RATES, 0)
        };
        let enrolled = MapShape {
            key_bytes: bytes(size_of::<EnrolledKey>()),
            ..shape(HASH, size_of::<u32>(), limit::ENROLLED, 0)
        };
        let shapes = [
            (map::FRONTENDS, frontends),
            (map::HEADS, shape(ARRAY, size_of::<HeadWord>(), services, MMAPABLE)),
            (map::TABLES, shape(ARRAY, SLOT_BYTES, slots, MMAPABLE)),
            (map::SERVICES, shape(ARRAY, size_of::<ServiceRecord>(), services, MMAPABLE)),
            (map::COUNTERS, shape(PER_CPU_ARRAY, size_of::<ServiceCounters>(), services, 0)),
            (map::SOCKETS, shape(ARRAY, size_of::<SocketState>(), limit::SOCKETS, 0)),
            (map::RATES, shape(ARRAY, size_of::<u64>(), services, 0)),
            (map::CLIENT_RATES, client_rates),
            (map::POLICY_HEAD, shape(ARRAY, size_of::<HeadWord>(), rules::HEADS, MMAPABLE)),
            (map::POLICIES, shape(ARRAY, size_of::<rules::Cell>(), rules::CELLS, MMAPABLE)),
            (
                map::POLICY_COUNTERS,
                shape(PER_CPU_ARRAY, size_of::<PolicyCounters>(), rules::POLICY_NUMBERS, 0),
            ),
            (map::PRECEDENTS, shape(ARRAY, size_of::<rules::Precedent>(), rules::PRECEDENTS, 0)),
            (map::EVENTS, MapShape { key_bytes: 0, ..shape(RING_BUFFER, 0, 4096, 0) }),
            (map::EVENT_CONTROL, shape(ARRAY, size_of::<EventControl>(), 1, MMAPABLE)),
            (map::ARRIVALS, shape(ARRAY, size_of::<rules::Judged>(), 1, 0)),
            // Socket storage needs type information, which the worker has no use for.
            (map::OVERFLOW, shape(ARRAY, size_of::<SocketState>(), 1, 0)),
            (map::CURSORS, shape(ARRAY, size_of::<u64>(), services, 0)),
            (map::FLOWS, flows(size_of::<Flow>())),
            (map::REPLIES, flows(size_of::<Reply>())),
            (map::ENROLMENT, shape(ARRAY, size_of::<EnrolmentWord>(), 1, MMAPABLE)),
            (map::ENROLLED, enrolled),
            (map::AFFINITIES, affinities),
            (map::RECENTS, shape(ARRAY, size_of::<Recent>(), RECENTS, 0)),
            (
                map::ENDPOINTS,
                shape(ARRAY, size_of::<EndpointState>(), limit::endpoints(slots), MMAPABLE),
            ),
            (map::TRAFFIC, shape(ARRAY, size_of::<Traffic>(), services, MMAPABLE)),
            (
                map::ADDRESS_CACHE,
                shape(ARRAY, size_of::<CacheLine>(), limit::CACHE_ELEMENTS, MMAPABLE),
            ),
        ];
        let descriptors: Vec<OwnedFd> =
            shapes.iter().map(|(name, shape)| create(name, *shape)).collect();
        let info = |fd: &OwnedFd| map_info(fd.as_fd()).expect("its info");
        let entries = descriptors.iter().map(|fd| {
            let info = info(fd);
            Entry { name: info.name, id: info.id, shape: Shape::Map(info.shape) }
        });
        let again = |at: usize| descriptors[at].try_clone().expect("another descriptor");
        Self {
            entries: entries.collect(),
            frontends: HashMap::new(again(0)).expect("frontends"),
            heads: MappedArray::map(again(1)).expect("heads"),
            tables: MappedArray::map(again(2)).expect("tables"),
            counters: PerCpuArray::new(again(4)).expect("counters"),
            descriptors,
        }
    }

    /// The ports of the endpoints that a connection to `key` can get, sorted; `None` when it passes
    /// untouched. The way of `ebpf/src/decide.rs`.
    pub fn connect(&self, key: &FrontendKey) -> Option<Vec<u16>> {
        // A table may be replaced between two reads: the programs look again, and so does this.
        for _ in 0..1000 {
            let frontend = self.frontends.lookup(key).expect("looked up")?;
            assert_eq!(frontend.tag, key.tag());
            let head = self.heads.read(frontend.service);
            if !head.is_published() || !frontend.in_force(head.generation()) {
                return None;
            }
            if let Some(endpoints) = self.table(frontend.service, head) {
                let mut ports: Vec<u16> =
                    endpoints.iter().map(|slot| u16::from_be(slot.port_be)).collect();
                ports.sort_unstable();
                return Some(ports);
            }
        }
        panic!("no look was settled");
    }

    fn table(&self, service: u32, head: HeadWord) -> Option<Vec<EndpointSlot>> {
        let header = || slot::to_header(&self.tables.read(head.slot()));
        let before = header();
        if (before.service, before.generation) != (service, head.generation()) {
            return None;
        }
        let first = head.slot() + 1;
        let endpoints = first..first + before.endpoints;
        let endpoints = endpoints.map(|at| slot::to_endpoint(&self.tables.read(at))).collect();
        (header() == before).then_some(endpoints)
    }

    /// Everything a writer could have changed.
    pub fn content(&self) -> (Vec<(FrontendKey, Frontend)>, Vec<HeadWord>, Vec<Slot>) {
        let mut frontends = self.frontends.entries().expect("read");
        frontends.sort_by_key(|(key, _)| (key.address, key.port_be));
        let heads = (0..self.heads.length()).map(|number| self.heads.read(number));
        let slots = (0..self.tables.length()).map(|number| self.tables.read(number));
        (frontends, heads.collect(), slots.collect())
    }

    pub fn published(&self) -> Vec<(u32, HeadWord)> {
        (0..self.heads.length())
            .map(|number| (number, self.heads.read(number)))
            .filter(|(_, head)| head.is_published())
            .collect()
    }
}
