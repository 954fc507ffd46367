//! Who is ejected of the endpoints of a configuration, and where the programs count what becomes of them.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Instant;

use holdfast_config::{Locality, Port, Protocol};
use holdfast_protocol::kernel::endpoint::EndpointState;
use holdfast_protocol::kernel::{Address, EndpointSlot, ServiceRecord};

use super::detector::{Cause, Detector, Reading, Turn};
use crate::serve::compile::{Compiled, records};
use crate::serve::health_check::checked::{Checked, sent_to};
use crate::serve::rows::ip;
use crate::serve::tables::observe::{Observed, Programmed};

/// The detectors, one for each TCP port of each service that asks for it.
#[derive(Debug, Default)]
pub struct Ejections {
    ports: HashMap<Arc<str>, BTreeMap<NonZeroU16, Detector>>,
    /// Where to look; `None` when the tables have changed since it was found out.
    places: Option<Vec<Place>>,
    counts: Counts,
}

/// Ejections so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// For failures in a row.
    pub in_a_row: u64,
    /// For a failure rate.
    pub rate: u64,
}

/// A number of an endpoint, and whose it is.
#[derive(Clone, Debug)]
struct Place {
    service: Arc<str>,
    port: NonZeroU16,
    endpoint: SocketAddr,
    /// The service's number, and the endpoint as the maps have it.
    owner: (u32, Address, u16),
    number: u32,
}

/// An endpoint that has turned, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// The service's name.
    pub service: Arc<str>,
    /// The port of the service.
    pub port: NonZeroU16,
    /// What has become of which endpoint.
    pub turn: Turn,
}

/// The endpoints of `checked` that are judged, with their ports: those that may get connections over TCP.
fn judged<'a>(
    checked: &'a Checked,
    node: Option<&'a Locality>,
) -> impl Iterator<Item = (NonZeroU16, SocketAddr)> {
    let asks = checked.service.outlier_ejection.is_some();
    let asked =
        checked.asked(node).filter(move |(port, ..)| asks && port.protocol == Protocol::Tcp);
    asked.map(|(port, endpoint, _)| (port.port, sent_to(port, endpoint)))
}

impl Ejections {
    /// Gets to know the endpoints of `checked` that are not known; those are out of which `was_out`
    /// says so.
    pub fn meet(
        &mut self,
        checked: &Checked,
        node: Option<&Locality>,
        was_out: impl Fn(NonZeroU16, SocketAddr) -> bool,
    ) {
        for (port, address) in judged(checked, node) {
            let ports = self.ports.entry(Arc::clone(&checked.name)).or_default();
            ports.entry(port).or_default().meet(address, was_out(port, address));
        }
    }

    /// `compiled` is in force: what else was known is forgotten.
    pub fn keep(&mut self, compiled: &Compiled) {
        let mut former = std::mem::take(&mut self.ports);
        for checked in &compiled.checked {
            let mut endpoints: BTreeMap<NonZeroU16, Vec<SocketAddr>> = BTreeMap::new();
            for (port, address) in judged(checked, compiled.node.as_ref()) {
                endpoints.entry(port).or_default().push(address);
            }
            let mut known = former.remove(&checked.name).unwrap_or_default();
            let ports = endpoints.into_iter().map(|(port, endpoints)| {
                let mut detector = known.remove(&port).unwrap_or_default();
                detector.keep(endpoints);
                (port, detector)
            });
            let ports: BTreeMap<_, _> = ports.collect();
            if !ports.is_empty() {
                self.ports.insert(Arc::clone(&checked.name), ports);
            }
        }
        self.places = None;
    }

    /// The tables have changed, and with them the numbers of endpoints perhaps.
    pub fn displace(&mut self) {
        self.places = None;
    }

    /// Whether it is not known where to look; then [`place`](Self::place) has to be called.
    #[must_use]
    pub const fn is_displaced(&self) -> bool {
        self.places.is_none()
    }

    /// Finds out where to look.
    pub fn place(&mut self, compiled: &Compiled, observed: &Observed) {
        let programmed: HashMap<&ServiceRecord, &Programmed> =
            observed.services.iter().rev().map(|it| (&it.record, it)).collect();
        let mut places = Vec::new();
        let is_judged = |checked: &&Checked| self.ports.contains_key(&checked.name);
        for checked in compiled.checked.iter().filter(is_judged) {
            for (port, record) in records(&checked.service) {
                let Some(programmed) = programmed.get(&record) else { continue };
                if port.protocol == Protocol::Tcp {
                    places.extend(numbers(checked, port, programmed));
                }
            }
        }
        self.places = Some(places);
    }

    /// What has turned by `now`, `state` being what is counted under a number.
    pub fn look(
        &mut self,
        compiled: &Compiled,
        state: impl Fn(u32) -> EndpointState,
        now: Instant,
    ) -> Vec<Ejection> {
        let mut readings: HashMap<(&str, NonZeroU16), BTreeMap<SocketAddr, Vec<Reading>>> =
            HashMap::new();
        let mut has_moved = false;
        for place in self.places.iter().flatten() {
            let number = place.number;
            let state = state(number);
            let (service, address, port_be) = &place.owner;
            if !state.is_of(*service, address, *port_be) {
                has_moved = true;
                continue;
            }
            let EndpointState { established, failed, failing, .. } = state;
            let of_port = readings.entry((&place.service, place.port)).or_default();
            let of_endpoint = of_port.entry(place.endpoint).or_default();
            of_endpoint.push(Reading { number, established, failed, failing });
        }
        let (none, mut ejections) = (BTreeMap::new(), Vec::new());
        for checked in &compiled.checked {
            let Some(settings) = &checked.service.outlier_ejection else { continue };
            for (port, detector) in self.ports.get_mut(&checked.name).into_iter().flatten() {
                let readings = readings.get(&(&*checked.name, *port)).unwrap_or(&none);
                let turns = detector.step(settings, readings, now);
                let of = |turn| Ejection { service: Arc::clone(&checked.name), port: *port, turn };
                ejections.extend(turns.into_iter().map(of));
            }
        }
        for Ejection { turn, .. } in &ejections {
            match turn.out {
                Some((Cause::InARow(_), _)) => self.counts.in_a_row += 1,
                Some((Cause::Rate { .. }, _)) => self.counts.rate += 1,
                Some((Cause::Former, _)) | None => {}
            }
        }
        if has_moved {
            self.places = None;
        }
        ejections
    }

    /// Whether the endpoint at `address` is out of `port` of the service of that name.
    #[must_use]
    pub fn is_out(&self, service: &str, port: &Port, address: &SocketAddr) -> bool {
        port.protocol == Protocol::Tcp
            && self.detector(service, port.port).is_some_and(|it| it.is_out(address))
    }

    /// Why it is, if it is.
    #[must_use]
    pub fn reason(
        &self,
        service: &str,
        port: &Port,
        address: &SocketAddr,
        now: Instant,
    ) -> Option<String> {
        let is_tcp = port.protocol == Protocol::Tcp;
        self.detector(service, port.port).filter(|_| is_tcp)?.reason(address, now)
    }

    /// How many endpoints are out of a TCP port.
    #[must_use]
    pub fn out(&self, service: &str, port: NonZeroU16) -> usize {
        self.detector(service, port).map_or(0, Detector::out)
    }

    /// Whether no service asks for it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty()
    }

    /// Ejections so far.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    fn detector(&self, service: &str, port: NonZeroU16) -> Option<&Detector> {
        self.ports.get(service)?.get(&port)
    }
}

/// The numbers of the endpoints in one table.
fn numbers(checked: &Checked, port: &Port, programmed: &Programmed) -> Vec<Place> {
    let slots = programmed.table.iter().flat_map(|table| &table.endpoints);
    let numbered = slots.zip(&programmed.states);
    let own = numbered.filter(|(_, number)| **number != EndpointSlot::NO_STATE);
    let place = |(slot, number): (&EndpointSlot, &u32)| {
        let endpoint = SocketAddr::new(ip(slot.address), u16::from_be(slot.port_be));
        Place {
            service: Arc::clone(&checked.name),
            port: port.port,
            endpoint,
            owner: (programmed.number, slot.address, slot.port_be),
            number: *number,
        }
    };
    own.map(place).collect()
}
