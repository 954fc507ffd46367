//! What the rules between services need to know of those that stay.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hash};
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::ops::Range;
use std::sync::Arc;

use crate::limit::{MAX_ENDPOINTS, MAX_FRONTENDS, MAX_SERVICES};
use crate::list::List;
use crate::model::{Protocol, Service};

/// Most new addresses that all endpoints are compared with: looking at each endpoint costs the more,
/// the more there are, and a change of so many is not small any more.
const MOST_NEW_ADDRESSES: usize = 64;

/// The names and frontends of a valid configuration, as hashes. Two different ones of the same hash are
/// taken for the same: that looks like an error, and errors are looked at by parsing everything.
pub(super) struct Index {
    hasher: RandomState,
    names: HashSet<u64>,
    frontends: HashSet<u64>,
    /// How many endpoints there are.
    endpoints: usize,
    /// How many addresses and ports endpoints are asked for at.
    direct: usize,
}

/// What of some services has to be told apart.
#[derive(Default)]
struct Keys {
    names: HashSet<u64>,
    frontends: HashSet<u64>,
    endpoints: usize,
    direct: usize,
}

impl Index {
    /// That of `services`; `None` when two different keys have the same hash.
    pub(super) fn of(services: &List<Arc<Service>>) -> Option<Self> {
        let hasher = RandomState::new();
        let Keys { names, frontends, endpoints, direct } = keys(&hasher, services.iter())?;
        Some(Self { hasher, names, frontends, endpoints, direct })
    }

    /// Whether the configuration stays valid when `fresh` take the places `replaced` of `services`, each
    /// of which keeps the rules of a single service. Those are known from then on; otherwise nothing
    /// changes.
    pub(super) fn admit(
        &mut self,
        services: &List<Arc<Service>>,
        replaced: &[Range<usize>],
        fresh: &[Vec<Arc<Service>>],
    ) -> bool {
        let old = replaced.iter().flat_map(|range| services.range(range.clone()));
        let Some(old) = keys(&self.hasher, old) else { return false };
        let Some(new) = keys(&self.hasher, fresh.iter().flatten()) else { return false };
        let is_taken = |all: &HashSet<u64>, old: &HashSet<u64>, key: &u64| {
            all.contains(key) && !old.contains(key)
        };
        let frontends = self.frontends.len() - old.frontends.len() + new.frontends.len();
        let endpoints = self.endpoints - old.endpoints + new.endpoints;
        let direct = self.direct - old.direct + new.direct;
        if self.names.len() - old.names.len() + new.names.len() > MAX_SERVICES
            || frontends + direct > MAX_FRONTENDS
            || endpoints > MAX_ENDPOINTS
            || new.names.iter().any(|key| is_taken(&self.names, &old.names, key))
            || new.frontends.iter().any(|key| is_taken(&self.frontends, &old.frontends, key))
        {
            return false;
        }
        let is_frontend = |key: u64| {
            new.frontends.contains(&key) || is_taken(&self.frontends, &old.frontends, &key)
        };
        if fresh.iter().flatten().any(|service| self.leads_to(service, is_frontend)) {
            return false;
        }
        let Some(addresses) = self.new_addresses(fresh, &old.frontends) else { return false };
        if !addresses.is_empty() && staying(services, replaced).any(|it| is_among(it, &addresses)) {
            return false;
        }
        self.names.retain_apart(&old.names, new.names);
        self.frontends.retain_apart(&old.frontends, new.frontends);
        self.endpoints = endpoints;
        self.direct = direct;
        true
    }

    /// Whether a connection that `service` makes or checks with, or that it is asked for by, would meet a
    /// frontend.
    fn leads_to(&self, service: &Service, is_frontend: impl Fn(u64) -> bool) -> bool {
        let checked = service.health_check.as_ref().and_then(|check| check.port);
        service.endpoints.iter().any(|endpoint| {
            let asked = service.ports.iter().flat_map(|port| {
                let answers = endpoint.answers_at(port);
                answers.map(move |(address, number)| (address, number, port.protocol))
            });
            let checked = checked.map(|port| (endpoint.address, port, Protocol::Tcp));
            asked.chain(checked).any(|(address, port, protocol)| {
                is_frontend(frontend(&self.hasher, address, port, protocol))
            })
        })
    }

    /// The addresses of frontends of `fresh` that are not among `old`, sorted; `None` when there are too
    /// many.
    fn new_addresses(
        &self,
        fresh: &[Vec<Arc<Service>>],
        old: &HashSet<u64>,
    ) -> Option<Vec<IpAddr>> {
        let mut addresses = Vec::new();
        for service in fresh.iter().flatten() {
            let is_new = |address: IpAddr| {
                service.ports.iter().any(|port| {
                    !old.contains(&frontend(&self.hasher, address, port.port, port.protocol))
                })
            };
            addresses.extend(service.addresses.iter().copied().filter(|address| is_new(*address)));
        }
        addresses.sort_unstable();
        addresses.dedup();
        (addresses.len() <= MOST_NEW_ADDRESSES).then_some(addresses)
    }
}

/// Sets of keys of which some go and others come.
trait Apart {
    fn retain_apart(&mut self, old: &HashSet<u64>, new: HashSet<u64>);
}

impl Apart for HashSet<u64> {
    fn retain_apart(&mut self, old: &HashSet<u64>, new: HashSet<u64>) {
        for key in old {
            self.remove(key);
        }
        self.extend(new);
    }
}

/// The keys of `services`; `None` when two have the same.
fn keys<'s>(
    hasher: &RandomState,
    services: impl Iterator<Item = &'s Arc<Service>>,
) -> Option<Keys> {
    let mut keys = Keys::default();
    for service in services {
        let mut is_single = keys.names.insert(hash(hasher, &service.name));
        for address in &service.addresses {
            for port in &service.ports {
                let key = frontend(hasher, *address, port.port, port.protocol);
                is_single &= keys.frontends.insert(key);
            }
        }
        if !is_single {
            return None;
        }
        keys.endpoints += service.endpoints.len();
        keys.direct += service.direct_count();
    }
    Some(keys)
}

fn frontend(hasher: &RandomState, address: IpAddr, port: NonZeroU16, protocol: Protocol) -> u64 {
    hash(hasher, &(address, port, protocol))
}

fn hash(hasher: &RandomState, key: &(impl Hash + ?Sized)) -> u64 {
    hasher.hash_one(key)
}

/// The services of which none takes the place.
fn staying<'s>(
    services: &'s List<Arc<Service>>,
    replaced: &'s [Range<usize>],
) -> impl Iterator<Item = &'s Arc<Service>> {
    let begins = std::iter::once(0).chain(replaced.iter().map(|range| range.end));
    let ends = replaced.iter().map(|range| range.start).chain([services.len()]);
    begins.zip(ends).flat_map(|(begin, end)| services.range(begin..end))
}

/// Whether an endpoint of `service` answers at one of `addresses`, which are sorted.
fn is_among(service: &Service, addresses: &[IpAddr]) -> bool {
    let is_there = |(address, _): (IpAddr, _)| addresses.binary_search(&address).is_ok();
    service.endpoints.iter().any(|endpoint| endpoint.answers().any(is_there))
}
