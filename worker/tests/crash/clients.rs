//! Connections through the attached programs, every one judged.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use holdfast_lab::load::Transport;
use holdfast_lab::random::Random;
use holdfast_lab::{Attempt, Target, attempt};
use holdfast_protocol::kernel::{Address, EndpointSlot, FrontendKey, PROTOCOL_UDP, policy};
use holdfast_worker::serve::tables::desired::{Desired, Table};

use crate::updates::Backends;
use crate::verdict::{Outcome, keys, owner};

/// How many connect at once: as many as there are processors on a small machine, so that they meet
/// writers at work.
const CLIENTS: u64 = 2;

/// How long each rests after a connection, so that the writers get a turn.
const REST: Duration = Duration::from_micros(200);

/// What a connection came to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reply {
    /// This backend answered.
    From(String),
    /// Refused as the configuration says for a service without endpoints.
    Denied,
    /// It went to the virtual address itself, where nobody is.
    Untouched,
    /// Anything else.
    Trouble(String),
}

/// Opens a connection to `key`.
pub fn connect(names: &Names, key: &FrontendKey) -> Reply {
    let transport = if key.protocol == PROTOCOL_UDP { Transport::Udp } else { Transport::Tcp };
    let address = SocketAddr::new(ip(&key.address), u16::from_be(key.port_be));
    let backends = names.all.clone();
    match attempt(&Target { address, transport, backends }) {
        Attempt::Reached(name) => Reply::From(name),
        Attempt::Ungoverned(_) => Reply::Untouched,
        Attempt::Failed(text) if text.contains("(os error 1)") => Reply::Denied,
        Attempt::Reset(text) | Attempt::Failed(text) => Reply::Trouble(text),
    }
}

/// Who listens where.
pub struct Names {
    all: Vec<String>,
    of: BTreeMap<SocketAddr, String>,
}

impl Names {
    pub fn new(backends: &Backends) -> Self {
        let mut names = Self { all: Vec::new(), of: BTreeMap::new() };
        for backend in backends.tcp.iter().chain(&backends.udp) {
            names.all.push(backend.name().to_owned());
            for address in [backend.v4(), backend.v6()] {
                // A UDP port may have the number of a TCP port; their names say which is meant.
                let name = names.of.entry(address).or_default();
                *name = format!("{name} {}", backend.name());
            }
        }
        names
    }

    /// What connections to `key` come to that nobody sends anywhere: who is there answers.
    fn untouched(&self, key: &FrontendKey) -> Reply {
        self.at(&key.address, key.port_be, transport(key)).unwrap_or(Reply::Untouched)
    }

    fn at(&self, address: &Address, port_be: u16, transport: &str) -> Option<Reply> {
        let mut names =
            self.of.get(&SocketAddr::new(ip(address), u16::from_be(port_be)))?.split(' ');
        let name = names.find(|name| name.starts_with(transport))?;
        Some(Reply::From(name.to_owned()))
    }

    /// What connections to `key` by `table` come to.
    pub fn replies(&self, table: &Table, key: &FrontendKey) -> BTreeSet<Reply> {
        if table.policy == policy::DIRECT {
            return BTreeSet::from([self.untouched(key)]);
        }
        if table.endpoints.is_empty() {
            return BTreeSet::from([Reply::Denied]);
        }
        let reply = |slot: &EndpointSlot| self.at(&slot.address, slot.port_be, transport(key));
        // Nobody answers for an address that is no backend's: whatever happens there is wrong.
        table.endpoints.iter().filter_map(reply).collect()
    }

    /// What connections to `key` come to that get `outcome`; nothing good, when it is not settled.
    pub fn expected(&self, key: &FrontendKey, outcome: &Outcome) -> BTreeSet<Reply> {
        match outcome {
            Outcome::Untouched => BTreeSet::from([self.untouched(key)]),
            Outcome::Governed(table) => self.replies(table, key),
            Outcome::Unsettled => BTreeSet::new(),
        }
    }

    /// What connections may come to while an update between `from` and `to` is tried.
    fn allowed(&self, from: &Desired, to: &Desired) -> Allowed {
        let reply = |desired: &Desired, key: &FrontendKey| match owner(desired, key) {
            Some(service) => self.replies(&service.table, key),
            None => BTreeSet::from([self.untouched(key)]),
        };
        let both = |key: FrontendKey| {
            let mut replies = reply(from, &key);
            replies.extend(reply(to, &key));
            // Where services swap addresses, an address leads to what its giver becomes for a
            // moment: see `order` in the planner.
            if is_moved(from, to, &key) {
                replies.extend(self.becomes(from, to, &key));
                replies.extend(self.becomes(to, from, &key));
            }
            (key, replies)
        };
        keys(from, to).into_iter().map(both).collect()
    }

    fn becomes(&self, from: &Desired, to: &Desired, key: &FrontendKey) -> BTreeSet<Reply> {
        let giver = owner(from, key).map(|service| service.record);
        let becomes = to.services.iter().find(|service| Some(service.record) == giver);
        becomes.map_or_else(BTreeSet::new, |it| self.replies(&it.table, key))
    }
}

fn is_moved(from: &Desired, to: &Desired, key: &FrontendKey) -> bool {
    match (owner(from, key), owner(to, key)) {
        (Some(before), Some(after)) => before.record != after.record,
        _ => false,
    }
}

type Allowed = BTreeMap<FrontendKey, BTreeSet<Reply>>;

/// What the clients counted.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub connections: u64,
    pub wrong: Vec<String>,
}

/// Clients that connect all the while.
pub struct Clients {
    names: Arc<Names>,
    phases: Arc<Mutex<Vec<Arc<Allowed>>>>,
    tally: Arc<Mutex<Tally>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    pub fn start(names: &Arc<Names>, from: &Desired, to: &Desired) -> Self {
        let phases = Arc::new(Mutex::new(vec![Arc::new(names.allowed(from, to))]));
        let mut clients = Self {
            names: Arc::clone(names),
            phases,
            tally: Arc::default(),
            stop: Arc::default(),
            threads: Vec::new(),
        };
        clients.threads = (0..CLIENTS).map(|seed| clients.client(seed)).collect();
        clients
    }

    /// From here on an update between `from`, which is in force, and `to` is tried.
    pub fn expect(&self, from: &Desired, to: &Desired) {
        let allowed = Arc::new(self.names.allowed(from, to));
        self.phases.lock().expect("no client panics").push(allowed);
    }

    pub fn finish(mut self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().expect("no client panics"));
        self.tally.lock().expect("no client panics").clone()
    }

    fn client(&self, seed: u64) -> JoinHandle<()> {
        let (names, phases) = (Arc::clone(&self.names), Arc::clone(&self.phases));
        let (tally, stop) = (Arc::clone(&self.tally), Arc::clone(&self.stop));
        let mut random = Random::new(seed);
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let (begin, allowed) = newest(&phases);
                let at = random.below(allowed.len() as u64);
                let at = usize::try_from(at).expect("few addresses");
                let key = *allowed.keys().nth(at).expect("below the count");
                let reply = connect(&names, &key);
                // A phase may have ended meanwhile: what any of them allows is right.
                let since = phases.lock().expect("no client panics")[begin..].to_vec();
                let is_right = since.iter().any(|allowed| {
                    let untouched = || reply == names.untouched(&key);
                    allowed.get(&key).map_or_else(untouched, |it| it.contains(&reply))
                });
                let mut tally = tally.lock().expect("no client panics");
                tally.connections += 1;
                if !is_right {
                    tally.wrong.push(format!("{key:?}: {reply:?}"));
                }
                drop(tally);
                std::thread::sleep(REST);
            }
        })
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn newest(phases: &Mutex<Vec<Arc<Allowed>>>) -> (usize, Arc<Allowed>) {
    let phases = phases.lock().expect("no client panics");
    let last = phases.len() - 1;
    (last, Arc::clone(&phases[last]))
}

fn transport(key: &FrontendKey) -> &'static str {
    if key.protocol == PROTOCOL_UDP { "udp" } else { "tcp" }
}

fn ip(address: &Address) -> IpAddr {
    let mut octets = [0; 16];
    for (bytes, word) in octets.chunks_exact_mut(size_of::<u32>()).zip(address) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    Ipv6Addr::from(octets).to_canonical()
}
