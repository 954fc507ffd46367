//! The rules that concern more than one value: of a service, of a file, of all files together.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::num::NonZeroU16;

use crate::decode::Located;
use crate::diagnostic::{Diagnostics, FileName, Position};
use crate::direct::{self, Place};
use crate::health_check;
use crate::limit::{MAX_ENDPOINTS, MAX_FRONTENDS, MAX_SERVICES};
use crate::locality::{self, Clash};
use crate::model::{Endpoint, Port, Protocol};
use crate::outlier;

/// What clients connect to.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Frontend {
    address: IpAddr,
    port: NonZeroU16,
    protocol: Protocol,
}

/// Takes down every rule that `services` break.
pub(crate) fn all(
    services: &[Located],
    is_placed: bool,
    files: &[FileName],
    diagnostics: &mut Diagnostics,
) {
    let mut check = Check { files, diagnostics };
    if !check.fits(services) {
        return;
    }
    check.names(services);
    services.iter().for_each(|located| check.alone(located, is_placed));
    let frontends = check.frontends(services);
    let addresses: HashSet<IpAddr> = frontends.keys().map(|frontend| frontend.address).collect();
    for located in services {
        // Practically no endpoint has a frontend's address, so ports need not be looked at.
        let suspects = direct::places(located).filter(|it| addresses.contains(&it.address));
        for asked in suspects {
            check.loops(located, &asked, services, &frontends);
            if !asked.is_alias {
                check.checked_frontends(located, asked.endpoint, services, &frontends);
            }
        }
    }
}

/// Takes down every rule that one of `services` breaks by itself.
pub(crate) fn alone(
    services: &[Located],
    is_placed: bool,
    files: &[FileName],
    diagnostics: &mut Diagnostics,
) {
    let mut check = Check { files, diagnostics };
    services.iter().for_each(|located| check.alone(located, is_placed));
}

struct Check<'a> {
    files: &'a [FileName],
    diagnostics: &'a mut Diagnostics,
}

impl Check<'_> {
    fn report(&mut self, located: &Located, at: Position, message: impl std::fmt::Display) {
        self.diagnostics.push(&self.files[located.file], at, message);
    }

    /// Where the service is told, for an error in another place.
    fn place(&self, located: &Located, at: Position) -> String {
        format!("`{}` ({})", located.service.name, self.files[located.file].at(at))
    }

    /// Whether all services together are within the limits. The first one over is reported.
    fn fits(&mut self, services: &[Located]) -> bool {
        let mut totals = [
            ("services", MAX_SERVICES, 0),
            ("frontends", MAX_FRONTENDS, 0),
            ("endpoints", MAX_ENDPOINTS, 0),
        ];
        for located in services {
            let service = &located.service;
            let frontends = service.addresses.len() * service.ports.len() + service.direct_count();
            for ((what, limit, total), more) in
                totals.iter_mut().zip([1, frontends, service.endpoints.len()])
            {
                *total += more;
                if *total > *limit {
                    let message = format!("with this service there are more than {limit} {what}");
                    self.report(located, located.position, message);
                    return false;
                }
            }
        }
        true
    }

    fn alone(&mut self, located: &Located, is_placed: bool) {
        self.addresses(located);
        self.ports(located);
        self.endpoints(located);
        self.aliases(located);
        self.table_size(located);
        self.locality(located, is_placed);
        self.health_check(located);
        self.outlier(located);
    }

    fn names(&mut self, services: &[Located]) {
        let mut first: HashMap<&str, &Located> = HashMap::with_capacity(services.len());
        for located in services.iter().filter(|located| !located.service.name.is_empty()) {
            if let Some(earlier) = first.get(located.service.name.as_str()) {
                let place = self.files[earlier.file].at(earlier.position);
                let name = &located.service.name;
                let message = format!("there is a service `{name}` already, at {place}");
                self.report(located, located.position, message);
            } else {
                first.insert(&located.service.name, located);
            }
        }
    }

    fn addresses(&mut self, located: &Located) {
        let mut first = HashMap::new();
        for (address, at) in located.service.addresses.iter().zip(&located.addresses) {
            if let Some(earlier) = first.get(address) {
                self.report(located, *at, format_args!("{address} is listed already at {earlier}"));
            } else {
                first.insert(address, at);
            }
        }
    }

    fn ports(&mut self, located: &Located) {
        let mut names = HashMap::new();
        let mut numbers = HashMap::new();
        for (port, at) in located.service.ports.iter().zip(&located.ports) {
            let Port { name, port, protocol, .. } = port;
            if let Some(earlier) = names.get(name) {
                let message = format_args!("the port name `{name}` is taken already at {earlier}");
                self.report(located, at.name, message);
            } else {
                names.insert(name, at.name);
            }
            if let Some(earlier) = numbers.get(&(port, protocol)) {
                let message = format_args!("port {port}/{protocol} is listed already at {earlier}");
                self.report(located, at.port, message);
            } else {
                numbers.insert((port, protocol), at.port);
            }
        }
    }

    fn endpoints(&mut self, located: &Located) {
        self.duplicate_endpoints(located);
        let endpoints = &located.service.endpoints;
        if endpoints.is_empty() || !located.endpoints_whole {
            return;
        }
        let is_headless = located.service.is_headless();
        if !is_headless && endpoints.iter().all(|endpoint| endpoint.weight == 0) {
            let message = "every endpoint has weight 0, so no connection could be made: give one a \
                           weight above 0, or write `endpoints: []` to refuse connections";
            self.report(located, located.endpoints[0], message);
            return;
        }
        let ipv4 = |endpoint: &&Endpoint| endpoint.address.is_ipv4();
        let usable = endpoints.iter().filter(ipv4).any(|endpoint| endpoint.weight > 0);
        let addresses = located.service.addresses.iter().zip(&located.addresses);
        if let Some((address, at)) = addresses.into_iter().find(|(address, _)| address.is_ipv4())
            && !usable
        {
            let lack = match endpoints.iter().find(ipv4) {
                None => "every endpoint is an IPv6 one",
                Some(_) => "every IPv4 endpoint has weight 0",
            };
            let message = format!(
                "{lack}, which a connection to the IPv4 address {address} cannot reach: list an \
                 IPv4 endpoint with a weight above 0, or remove the address"
            );
            self.report(located, *at, message);
        }
    }

    /// Every endpoint has an entry of the lookup table.
    fn table_size(&mut self, located: &Located) {
        let endpoints = located.service.endpoints.len();
        if let (Some(size), Some(at)) =
            (located.service.balancing.table_size, located.balancing.table_size)
            && endpoints > size as usize
        {
            let message = format_args!(
                "a lookup table of {size} entries is too small for {endpoints} endpoints: write a \
                 larger `table_size`, or none"
            );
            self.report(located, at, message);
        }
    }

    /// Where the endpoints are goes with what the service makes of it.
    fn locality(&mut self, located: &Located, is_placed: bool) {
        let Some(at) = located.balancing.locality else { return };
        if !located.endpoints_whole {
            return;
        }
        match locality::clash(&located.service, is_placed) {
            Some(Clash::Mode(message)) => self.report(located, at, message),
            Some(Clash::Endpoint(index, message)) => {
                self.report(located, located.endpoints[index], message);
            }
            None => {}
        }
    }

    /// Every endpoint can be checked.
    fn health_check(&mut self, located: &Located) {
        if let (Some(at), Some(message)) =
            (located.health_check, health_check::clash(&located.service))
        {
            self.report(located, at, message);
        }
    }

    /// Something tells of the endpoints.
    fn outlier(&mut self, located: &Located) {
        if let (Some(at), Some(message)) = (located.outlier, outlier::clash(&located.service)) {
            self.report(located, at, message);
        }
    }

    /// Two endpoints are the same when connections of any port go to the same place. With aliases it could
    /// not be told whose connection it is.
    fn duplicate_endpoints(&mut self, located: &Located) {
        for (place, earlier) in direct::duplicates(located) {
            let what = if place.is_alias { "alias" } else { "endpoint" };
            let message = format_args!("this {what} is listed already at {earlier}");
            self.report(located, place.at, message);
        }
    }

    /// Only who counts what clients ask endpoints for has a use for their aliases.
    fn aliases(&mut self, located: &Located) {
        let mut places = direct::places(located);
        if !located.service.is_direct
            && let Some(alias) = places.find(|place| place.is_alias)
        {
            let message = "aliases are about connections that clients make to endpoints themselves: write \
                           `direct: true` in the service, or remove them";
            self.report(located, alias.at, message);
        }
    }

    /// Every frontend and the number of the service it belongs to; one that belongs to two is
    /// reported.
    fn frontends(&mut self, services: &[Located]) -> HashMap<Frontend, usize> {
        let mut owners: HashMap<Frontend, usize> = HashMap::new();
        for (number, located) in services.iter().enumerate() {
            for (address, at) in located.service.addresses.iter().zip(&located.addresses) {
                for port in &located.service.ports {
                    let Port { port, protocol, .. } = *port;
                    let frontend = Frontend { address: *address, port, protocol };
                    let owner = *owners.entry(frontend).or_insert(number);
                    // Within one service, the addresses and ports have been compared already.
                    if owner != number {
                        let other = &services[owner];
                        let place = self.place(other, position_of(other, *address));
                        let what = name_of(frontend);
                        let message =
                            format_args!("{what} is a frontend of service {place} already");
                        self.report(located, *at, message);
                    }
                }
            }
        }
        owners
    }

    /// A check is a connection like any other: one that is sent to a frontend would say nothing about
    /// the endpoint, but something about those behind it.
    fn checked_frontends(
        &mut self,
        located: &Located,
        endpoint: &Endpoint,
        services: &[Located],
        frontends: &HashMap<Frontend, usize>,
    ) {
        let check = located.service.health_check.as_ref();
        let (Some(port), Some(at)) = (check.and_then(|check| check.port), located.health_check)
        else {
            return;
        };
        let address = endpoint.address;
        let checked = Frontend { address, port, protocol: Protocol::Tcp };
        if let Some(owner) = frontends.get(&checked).map(|number| &services[*number]) {
            let place = self.place(owner, position_of(owner, address));
            let what = name_of(checked);
            let message = format_args!(
                "{what}, which is checked, is a frontend of service {place}, so that the check could \
                 reach another endpoint: write another `port`"
            );
            self.report(located, at, message);
        }
    }

    /// Connections are forwarded once: one that is sent to a frontend would arrive nowhere, and one to an
    /// alias that is a frontend would not pass to the endpoint.
    fn loops(
        &mut self,
        located: &Located,
        asked: &Place<'_>,
        services: &[Located],
        frontends: &HashMap<Frontend, usize>,
    ) {
        let target = |port: &Port| Frontend {
            address: asked.address,
            port: asked.port.unwrap_or(port.target_port),
            protocol: port.protocol,
        };
        let hit = located.service.ports.iter().map(target).find_map(|frontend| {
            frontends.get(&frontend).map(|number| (frontend, &services[*number]))
        });
        let Some((frontend, owner)) = hit else { return };
        let place = self.place(owner, position_of(owner, asked.address));
        let what = name_of(frontend);
        let message = if asked.is_alias {
            format!(
                "the alias {what} is a frontend of service {place}, which sends connections elsewhere: \
                 remove one of them"
            )
        } else {
            format!(
                "the endpoint {what} is itself a frontend of service {place}, and a connection is \
                 forwarded only once: list the endpoints behind it"
            )
        };
        self.report(located, asked.at, message);
    }
}

/// Where the service lists `address`.
fn position_of(located: &Located, address: IpAddr) -> Position {
    let mut places = located.service.addresses.iter().zip(&located.addresses);
    places.find(|(listed, _)| **listed == address).map_or(located.position, |(_, at)| *at)
}

/// `127.96.0.10:80/tcp`, with brackets around an IPv6 address.
fn name_of(Frontend { address, port, protocol }: Frontend) -> String {
    format!("{}/{protocol}", std::net::SocketAddr::new(address, port.get()))
}
