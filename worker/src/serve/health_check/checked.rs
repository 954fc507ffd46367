//! The services of a configuration whose endpoints may be kept out, by checks or by ejection.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use holdfast_config::{Endpoint, HealthCheck, Locality, Port, Service, WhenAllUnhealthy};

use super::target::Target;
use crate::serve::locality;

/// A service whose endpoints are checked, or ejected when they fail, kept as it was configured: its tables
/// change with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The service.
    pub service: Arc<Service>,
    /// Its name, as its targets have it.
    pub name: Arc<str>,
    /// How its endpoints are checked, if they are.
    pub check: Option<Arc<HealthCheck>>,
    /// Its part of the tables' services.
    pub at: Range<usize>,
}

impl Checked {
    /// `service`, if its endpoints are checked or may be ejected.
    #[must_use]
    pub fn new(service: Arc<Service>, at: Range<usize>) -> Option<Self> {
        let check = service.health_check.clone().map(Arc::new);
        let is_concerned = check.is_some() || service.outlier_ejection.is_some();
        let name = Arc::from(service.name.as_str());
        is_concerned.then_some(Self { service, name, check, at })
    }

    /// The same, with its part of the tables' services where `to` leads.
    #[must_use]
    pub fn moved(&self, to: impl Fn(usize) -> usize) -> Self {
        Self { at: to(self.at.start)..to(self.at.end), ..self.clone() }
    }

    /// The target that is checked at `address`.
    #[must_use]
    pub fn target(&self, address: SocketAddr) -> Target {
        Target { service: Arc::clone(&self.name), address }
    }

    /// Each port with each endpoint that may get connections to it once it is healthy, and where that is
    /// checked: one that has no weight, drains or is where nobody is sent is not asked.
    pub fn asked<'a>(
        &'a self,
        node: Option<&'a Locality>,
    ) -> impl Iterator<Item = (&'a Port, &'a Endpoint, SocketAddr)> {
        let service = &self.service;
        let each = |port: &'a Port| service.endpoints.iter().map(move |it| (port, it));
        let asked = service.ports.iter().flat_map(each);
        let asked = asked.filter(move |(_, endpoint)| is_asked(service, node, endpoint));
        asked.map(move |(port, endpoint)| (port, endpoint, checked_at(service, port, endpoint)))
    }
}

/// Whether `endpoint` gets connections once it is healthy, in some state of the others.
#[must_use]
pub fn is_asked(service: &Service, node: Option<&Locality>, endpoint: &Endpoint) -> bool {
    endpoint.is_usable() && level(service, node, endpoint).is_some()
}

/// Whether connections go to all usable endpoints of `service` when all of them are kept out: without a word
/// on it they do, because failures everywhere often say more about who connects.
#[must_use]
pub fn uses_all(service: &Service) -> bool {
    match &service.health_check {
        Some(check) => check.when_all_unhealthy == WhenAllUnhealthy::UseAll,
        None => service.outlier_ejection.is_some(),
    }
}

/// When `endpoint` is used: those of the lowest number first; `None`: never.
#[must_use]
pub fn level(service: &Service, node: Option<&Locality>, endpoint: &Endpoint) -> Option<u32> {
    match service.balancing.locality {
        None => Some(0),
        Some(mode) => locality::priority(mode, node, endpoint.place.as_deref()),
    }
}

/// Where connections of `port` to `endpoint` go.
#[must_use]
pub fn sent_to(port: &Port, endpoint: &Endpoint) -> SocketAddr {
    SocketAddr::new(endpoint.address, endpoint.port.unwrap_or(port.target_port).get())
}

/// Where it is checked whether connections of `port` may go to `endpoint`.
#[must_use]
pub fn checked_at(service: &Service, port: &Port, endpoint: &Endpoint) -> SocketAddr {
    let mut address = sent_to(port, endpoint);
    if let Some(other) = service.health_check.as_ref().and_then(|check| check.port) {
        address.set_port(other.get());
    }
    address
}
