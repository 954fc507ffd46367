//! The services of a run: what clients connect to, and who may answer.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use holdfast_lab::{Backend, LabError, Service, Target, render};

use crate::fault::effect::Family;
use crate::history::Trouble;
use crate::run::size::Size;

/// A service that clients connect to. Its virtual addresses exist nowhere, and it denies where it
/// has no endpoint: a connection that is *refused* was not governed.
struct Served {
    name: &'static str,
    is_udp: bool,
    addresses: &'static [&'static str],
}

/// Both transports, both families, and IPv4 as an IPv6 socket says it.
const SERVED: [Served; 4] = [
    Served { name: "web", is_udp: false, addresses: &["127.96.0.10:80", "[fd96::10]:80"] },
    Served { name: "api", is_udp: false, addresses: &["127.96.0.11:443"] },
    Served { name: "feed", is_udp: false, addresses: &["[fd96::12]:8080"] },
    Served { name: "dns", is_udp: true, addresses: &["127.96.0.53:53", "[fd96::53]:53"] },
];

/// How many services clients connect to.
pub const SERVED_SERVICES: u32 = SERVED.len() as u32;

/// Ports of the endpoints that only fill the tables begin here. Nobody connects to them.
const FILLER_PORT: u16 = 20_000;

/// An endpoint of a served service, and who answers there.
pub struct Endpoint {
    /// Index of its service.
    pub service: usize,
    backend: Backend,
}

/// Everything that is served, and everything that only fills the tables.
pub struct Site {
    endpoints: Vec<Endpoint>,
    /// The filling, rendered once.
    filler: String,
}

/// A place to connect to.
#[derive(Clone, Debug)]
pub struct Door {
    /// What to try, with the names of every endpoint that was ever there.
    pub target: Target,
    /// The client's address family.
    pub family: Family,
}

impl Site {
    /// Starts the backends.
    pub fn start(size: Size) -> Result<Self, LabError> {
        let mut endpoints = Vec::new();
        for (service, served) in SERVED.iter().enumerate() {
            for number in 0..size.served_endpoints {
                let name = format!("{}-{number}", served.name);
                let start = if served.is_udp { Backend::udp } else { Backend::tcp };
                endpoints.push(Endpoint { service, backend: start(&name)? });
            }
        }
        Ok(Self { endpoints, filler: filler(size) })
    }

    /// The endpoints of the served services.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// The number of the endpoint that calls itself `name`.
    pub fn number(&self, name: &str) -> Option<usize> {
        self.endpoints.iter().position(|endpoint| endpoint.backend.name() == name)
    }

    /// The configuration in which endpoint `n` has the weight `weights[n]`, or is not there.
    pub fn render(&self, weights: &[Option<u16>]) -> String {
        let services: Vec<Service> = (0..SERVED.len())
            .map(|number| {
                let (served, addresses) = (&SERVED[number], addresses(number));
                let first = addresses[0];
                let service = match served.is_udp {
                    true => Service::udp(served.name, first),
                    false => Service::tcp(served.name, first),
                };
                let service = addresses[1..]
                    .iter()
                    .fold(service.no_endpoint("deny"), |service, other| service.at(other.ip()));
                self.endpoints.iter().zip(weights).fold(service, |service, (endpoint, weight)| {
                    match weight {
                        Some(weight) if endpoint.service == number => service
                            .weighted(endpoint.backend.v4(), *weight)
                            .weighted(endpoint.backend.v6(), *weight),
                        _ => service,
                    }
                })
            })
            .collect();
        render(&services) + &self.filler
    }

    /// Every address that clients connect to.
    pub fn doors(&self) -> Vec<Door> {
        let mut doors = Vec::new();
        for (number, served) in SERVED.iter().enumerate() {
            let own = self.endpoints.iter().filter(|endpoint| endpoint.service == number);
            let names: Vec<&str> = own.map(|endpoint| endpoint.backend.name()).collect();
            for address in addresses(number) {
                let ways = [Some((address, family(address))), mapped(address)];
                doors.extend(ways.into_iter().flatten().map(|(address, family)| Door {
                    target: match served.is_udp {
                        true => Target::udp(address, &names),
                        false => Target::tcp(address, &names),
                    },
                    family,
                }));
            }
        }
        doors
    }

    /// The endpoints in the configuration of `weights`, as the worker's rows name them: those of a
    /// family that the service has an address of.
    pub fn programmed(&self, weights: &[Option<u16>]) -> Vec<(String, String, u16)> {
        let mut rows = Vec::new();
        for (endpoint, weight) in self.endpoints.iter().zip(weights) {
            if let Some(weight) = *weight {
                let (service, own) = (SERVED[endpoint.service].name, addresses(endpoint.service));
                let is_of_use = |it: &SocketAddr| own.iter().any(|a| a.is_ipv4() == it.is_ipv4());
                let both = [endpoint.backend.v4(), endpoint.backend.v6()];
                for address in both.into_iter().filter(is_of_use) {
                    rows.push((service.to_owned(), address.to_string(), weight));
                }
            }
        }
        rows.sort();
        rows
    }

    /// Whether `service` is one that clients connect to.
    pub fn is_served(service: &str) -> bool {
        SERVED.iter().any(|served| served.name == service)
    }
}

impl Door {
    /// What went wrong with a connection that reached nobody it should.
    pub const fn trouble(attempt: &holdfast_lab::Attempt) -> Option<Trouble> {
        match attempt {
            holdfast_lab::Attempt::Reached(_) => None,
            holdfast_lab::Attempt::Ungoverned(_) => Some(Trouble::Ungoverned),
            holdfast_lab::Attempt::Reset(_) => Some(Trouble::Reset),
            holdfast_lab::Attempt::Failed(_) => Some(Trouble::Failed),
        }
    }
}

fn addresses(service: usize) -> Vec<SocketAddr> {
    let literal = |text: &&str| text.parse().expect("a literal address");
    SERVED[service].addresses.iter().map(literal).collect()
}

const fn family(address: SocketAddr) -> Family {
    if address.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 }
}

/// An IPv4 address as an IPv6 socket says it.
fn mapped(address: SocketAddr) -> Option<(SocketAddr, Family)> {
    match address {
        SocketAddr::V4(v4) => Some(((v4.ip().to_ipv6_mapped(), v4.port()).into(), Family::Ipv6)),
        SocketAddr::V6(_) => None,
    }
}

/// Services nobody connects to: they make the tables as large as wanted.
fn filler(size: Size) -> String {
    let services = size.services - SERVED_SERVICES;
    (0..services).fold(String::new(), |text, number| {
        let [_, high, middle, low] = number.to_be_bytes();
        let address = IpAddr::V4(Ipv4Addr::new(127, 100 + high, middle, low));
        let service = Service::tcp(&format!("filler-{number}"), (address, 80).into());
        let service = (0..size.filler_endpoints).fold(service, |service, endpoint| {
            service.endpoint((Ipv4Addr::LOCALHOST, FILLER_PORT + endpoint).into())
        });
        text + &service.to_string()
    })
}
