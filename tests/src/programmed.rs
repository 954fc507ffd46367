//! What the kernel's maps say, decoded without any of Holdfast's own code but the shapes: as the
//! programs follow them from an address to an endpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use holdfast_bpf::BpfError;
use holdfast_bpf::map::HashMap;
use holdfast_bpf::mapped::MappedArray;
use holdfast_bpf::object;
use holdfast_lab::{Lab, Supervisor};
use holdfast_protocol::kernel::{
    Address, EndpointSlot, Frontend, FrontendKey, HeadWord, ServiceRecord, TableHeader, map,
};
use holdfast_protocol::manifest::Kind;
use holdfast_protocol::pin;

/// How often a table is read that is replaced while it is.
const LOOKS: usize = 1000;

/// Room in the maps of a fresh instance: for what tests configure, which is little.
const FRESH_SERVICES: &str = "4096";
const FRESH_SLOTS: &str = "16384";

/// Everything the maps say, without the numbers, slots and generations that say it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Programmed {
    /// By name, port and family.
    pub services: BTreeMap<String, Service>,
    /// What belongs to no service: addresses that lead nowhere, and second copies.
    pub left_over: BTreeSet<String>,
}

/// A service number's worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The addresses that lead to it.
    pub frontends: BTreeSet<SocketAddr>,
    /// How an endpoint is chosen.
    pub policy: u8,
    /// What a connection fails with when there is none.
    pub errno: u16,
    /// Address, weight, threshold and alias of each, in the table's order.
    pub endpoints: Vec<(SocketAddr, u16, u32, u32)>,
}

/// The maps of one instance.
pub struct Maps {
    frontends: HashMap<FrontendKey, Frontend>,
    heads: MappedArray<HeadWord>,
    headers: MappedArray<TableHeader>,
    endpoints: MappedArray<EndpointSlot>,
    records: MappedArray<ServiceRecord>,
}

impl fmt::Debug for Maps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "maps of {} numbers", self.heads.length())
    }
}

impl Maps {
    /// The maps that `instance` has pinned below `bpffs`.
    ///
    /// # Errors
    ///
    /// When there are none, or others than expected.
    pub fn open(bpffs: &Path, instance: &str) -> Result<Self, BpfError> {
        let get = |name| -> Result<OwnedFd, BpfError> {
            object::get(&pin::path(bpffs, instance, Kind::Map, name))
        };
        Ok(Self {
            frontends: HashMap::new(get(map::FRONTENDS)?)?,
            heads: MappedArray::map(get(map::HEADS)?)?,
            headers: MappedArray::map(get(map::TABLES)?)?,
            endpoints: MappedArray::map(get(map::TABLES)?)?,
            records: MappedArray::map(get(map::SERVICES)?)?,
        })
    }

    /// What they say now. A table that is being replaced is read again.
    ///
    /// # Errors
    ///
    /// When the kernel refuses, or a table is not the one that its head names.
    pub fn read(&self) -> Result<Programmed, Box<dyn Error>> {
        let mut programmed = Programmed::default();
        let mut frontends: BTreeMap<u32, BTreeSet<SocketAddr>> = BTreeMap::new();
        for (key, frontend) in self.frontends.entries()? {
            let generation = self.heads.read(frontend.service).generation();
            if generation != 0 && frontend.in_force(generation) && frontend.tag == key.tag() {
                let address = socket_address(key.address, key.port_be);
                frontends.entry(frontend.service).or_default().insert(address);
            } else {
                programmed.left_over.insert(format!("{key:?} leads nowhere: {frontend:?}"));
            }
        }
        for number in 0..self.heads.length() {
            let Some(mut service) = self.table(number)? else { continue };
            service.frontends = frontends.remove(&number).unwrap_or_default();
            let label = label(&self.records.read(number));
            if programmed.services.insert(label.clone(), service).is_some() {
                programmed.left_over.insert(format!("{label} has two numbers"));
            }
        }
        Ok(programmed)
    }

    /// The published table of `number`, whole; `None` when it is not published.
    ///
    /// # Errors
    ///
    /// When the table is another one than its head names, or does not come to rest.
    pub fn table(&self, number: u32) -> Result<Option<Service>, String> {
        for _ in 0..LOOKS {
            let head = self.heads.read(number);
            if !head.is_published() {
                return Ok(None);
            }
            let header = self.headers.read(head.slot());
            let slots = 0..header.endpoints.min(self.endpoints.length() - head.slot() - 1);
            let endpoints = slots.map(|slot| {
                let slot = self.endpoints.read(head.slot() + 1 + slot);
                let address = socket_address(slot.address, slot.port_be);
                (address, slot.weight, slot.threshold, slot.alias)
            });
            let service = Service {
                frontends: BTreeSet::new(),
                policy: header.policy,
                errno: header.no_endpoint_errno,
                endpoints: endpoints.collect(),
            };
            if self.heads.read(number) != head {
                continue;
            }
            if (header.service, header.generation) != (number, head.generation()) {
                return Err(format!("the head of {number} names {head:?}, which is {header:?}"));
            }
            return Ok(Some(service));
        }
        Err(format!("the table of {number} is replaced all the time"))
    }
}

/// What a supervisor that has never known another configuration makes of `file`: in an instance and
/// a cgroup of its own, which nobody's connections are in.
///
/// # Errors
///
/// When it does not get as far as a granted worker.
pub fn fresh(lab: &Lab, file: &Path) -> Result<Programmed, Box<dyn Error>> {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let instance = format!("fresh-{}", MADE.fetch_add(1, Ordering::Relaxed));
    let cgroup = lab.governed().join(&instance);
    fs::create_dir(&cgroup)?;
    let place = |kind: &str| -> PathBuf { lab.directory().join(format!("{instance}-{kind}")) };
    for kind in ["run", "state"] {
        fs::create_dir(place(kind))?;
    }
    let supervisor: Supervisor = lab
        .supervisor(file)
        .with("--instance", &instance)
        .with("--max-services", FRESH_SERVICES)
        .with("--max-slots", FRESH_SLOTS)
        .with("--cgroup", &cgroup)
        .with("--run-dir", place("run"))
        .with("--state-dir", place("state"))
        .start()?;
    let programmed = Maps::open(&lab.bpffs(), &instance)?.read()?;
    drop(supervisor);
    fs::remove_dir(cgroup)?;
    Ok(programmed)
}

fn label(record: &ServiceRecord) -> String {
    let text = |bytes: &[u8]| {
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    };
    let (service, port) = (text(&record.service), text(&record.port_name));
    let number = u16::from_be(record.port_be);
    format!("{service}/{port} {number} protocol {} IPv{}", record.protocol, record.family)
}

fn socket_address(address: Address, port_be: u16) -> SocketAddr {
    let mut bytes = [0; 16];
    for (to, word) in bytes.chunks_mut(4).zip(address) {
        to.copy_from_slice(&word.to_ne_bytes());
    }
    let ip = IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical();
    SocketAddr::new(ip, u16::from_be(port_be))
}
