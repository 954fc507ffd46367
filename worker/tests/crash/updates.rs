//! The updates in which workers are killed, from the text a user would write.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use holdfast_config::Sources;
use holdfast_lab::backend::Backend;
use holdfast_lab::{LabError, Service, render};
use holdfast_worker::serve::compile::{Compiled, compile_sources};

/// Backends of each transport.
pub const BACKENDS: usize = 6;

/// The port of every service.
const PORT: u16 = 80;

/// A configuration, as text and compiled.
pub struct Configuration {
    pub text: String,
    pub compiled: Arc<Compiled>,
}

/// From one configuration to another; tried back as well.
pub struct Update {
    pub name: &'static str,
    pub from: Configuration,
    pub to: Configuration,
}

/// The servers that configurations lead to, on TCP and on UDP.
pub struct Backends {
    pub tcp: Vec<Backend>,
    pub udp: Vec<Backend>,
}

/// A service before it is text.
#[derive(Clone)]
struct Spec {
    name: &'static str,
    addresses: Vec<&'static str>,
    /// Numbers of backends, and their weights.
    endpoints: Vec<(usize, u16)>,
    weighted: bool,
    udp: bool,
    /// Whether its endpoints are asked for themselves, and the backend whose address is an alias of the first.
    direct: Option<usize>,
}

impl Spec {
    fn tcp(name: &'static str, addresses: &[&'static str], endpoints: &[usize]) -> Self {
        let endpoints = endpoints.iter().map(|number| (*number, 1)).collect();
        let addresses = addresses.to_vec();
        Self { name, addresses, endpoints, weighted: false, udp: false, direct: None }
    }

    fn direct(
        name: &'static str,
        addresses: &[&'static str],
        endpoints: &[usize],
        alias: usize,
    ) -> Self {
        Self { direct: Some(alias), ..Self::tcp(name, addresses, endpoints) }
    }

    fn udp(name: &'static str, addresses: &[&'static str], endpoints: &[usize]) -> Self {
        Self { udp: true, ..Self::tcp(name, addresses, endpoints) }
    }

    fn lead_to(&mut self, endpoints: &[usize]) {
        self.endpoints = endpoints.iter().map(|number| (*number, 1)).collect();
    }

    fn weigh(&mut self, endpoints: &[(usize, u16)]) {
        self.endpoints = endpoints.to_vec();
        self.weighted = true;
    }

    fn service(&self, backends: &Backends) -> Service {
        let address = |text: &str| text.parse::<IpAddr>().expect("a literal address");
        let first = SocketAddr::new(address(self.addresses[0]), PORT);
        let new = if self.udp { Service::udp } else { Service::tcp };
        let others = self.addresses[1..].iter().map(|text| address(text));
        let service = others.fold(new(self.name, first).no_endpoint("deny"), Service::at);
        let servers = if self.udp { &backends.udp } else { &backends.tcp };
        let is_dual = self.addresses.iter().any(|text| address(text).is_ipv6());
        let service = if self.direct.is_some() { service.key("direct: true") } else { service };
        let mut aliases = self.direct.map(|alias| {
            let (address, port) = (servers[alias].v4().ip(), servers[alias].v4().port());
            format!("aliases: [{{ address: {address}, port: {port} }}]")
        });
        self.endpoints.iter().fold(service, |service, (number, weight)| {
            let server = &servers[*number];
            let mut with = |service: Service, address| match (self.weighted, aliases.take()) {
                (true, _) => service.weighted(address, *weight),
                (false, Some(aliases)) => service.endpoint_with(address, &aliases),
                (false, None) => service.endpoint(address),
            };
            let service = with(service, server.v4());
            if is_dual { with(service, server.v6()) } else { service }
        })
    }
}

impl Backends {
    pub fn start() -> Self {
        let all = |prefix, start: fn(&str) -> Result<Backend, LabError>| {
            let one = |number| start(&format!("{prefix}{number}")).expect("a port of the lab");
            (0..BACKENDS).map(one).collect()
        };
        Self { tcp: all("tcp", Backend::tcp), udp: all("udp", Backend::udp) }
    }
}

impl Configuration {
    fn new(specs: &[Spec], backends: &Backends) -> Self {
        let services: Vec<Service> = specs.iter().map(|spec| spec.service(backends)).collect();
        let text = if services.is_empty() { "services: []\n".into() } else { render(&services) };
        let sources = Sources::single("holdfast.yaml", text.as_str());
        let compiled = compile_sources(&sources).expect("a valid configuration");
        Self { text, compiled: Arc::new(compiled) }
    }
}

/// What an update does to the services.
type Edit = fn(Vec<Spec>) -> Vec<Spec>;

/// What each update begins from.
fn base() -> Vec<Spec> {
    let mut db = Spec::tcp("db", &["127.96.0.4"], &[]);
    db.weigh(&[(4, 1), (5, 3)]);
    vec![
        Spec::tcp("web", &["127.96.0.1", "127.96.0.2"], &[0, 1, 2]),
        Spec::tcp("api", &["127.96.0.3"], &[1, 3]),
        db,
        Spec::udp("dns", &["127.96.0.53"], &[0, 1]),
        Spec::tcp("both", &["127.96.0.6", "fd96::6"], &[2, 4]),
        Spec::direct("pods", &["127.96.0.20"], &[0, 3], 5),
        Spec::direct("peers", &["127.96.0.21", "fd96::21"], &[3, 4], 1),
    ]
}

/// Positions in [`base`].
const WEB: usize = 0;
const API: usize = 1;
const DB: usize = 2;
const DNS: usize = 3;
const BOTH: usize = 4;
const PODS: usize = 5;
const PEERS: usize = 6;

fn added(mut specs: Vec<Spec>) -> Vec<Spec> {
    specs.push(Spec::tcp("new", &["127.96.1.1", "127.96.1.2"], &[0, 5]));
    specs.push(Spec::udp("new-dns", &["127.96.1.53"], &[2, 3]));
    specs
}

fn grown_and_shrunk(mut specs: Vec<Spec>) -> Vec<Spec> {
    specs[WEB].lead_to(&[0, 1, 2, 3, 4, 5]);
    specs[API].lead_to(&[3]);
    specs
}

fn reweighted(mut specs: Vec<Spec>) -> Vec<Spec> {
    specs[DB].weigh(&[(4, 9), (5, 2), (0, 1)]);
    specs[API].weigh(&[(1, 3), (3, 1)]);
    specs
}

fn renamed(mut specs: Vec<Spec>) -> Vec<Spec> {
    specs[WEB].name = "shop";
    specs[BOTH].name = "dual";
    specs
}

fn address_moved(mut specs: Vec<Spec>) -> Vec<Spec> {
    specs[WEB].addresses.retain(|address| *address != "127.96.0.2");
    specs[API].addresses.push("127.96.0.2");
    specs[WEB].lead_to(&[0, 4]);
    specs[API].lead_to(&[1, 5]);
    specs
}

fn addresses_changed(mut specs: Vec<Spec>) -> Vec<Spec> {
    specs[WEB].addresses = vec!["127.96.0.2", "127.96.0.7", "127.96.0.8"];
    specs[BOTH].addresses = vec!["127.96.0.6", "fd96::9", "fd96::10"];
    specs[BOTH].lead_to(&[3, 5]);
    specs
}

fn addresses_swapped(mut specs: Vec<Spec>) -> Vec<Spec> {
    specs[WEB].addresses = vec!["127.96.0.3", "127.96.0.2"];
    specs[API].addresses = vec!["127.96.0.1"];
    specs[WEB].lead_to(&[0, 2]);
    specs[API].lead_to(&[4, 5]);
    specs
}

/// The second counts an endpoint that both had, and an alias of the first; an endpoint becomes an alias.
fn given_up(mut specs: Vec<Spec>) -> Vec<Spec> {
    specs[PODS].lead_to(&[2]);
    specs[PODS].direct = Some(0);
    specs[PEERS].direct = Some(5);
    specs
}

/// Endpoints that have been asked for themselves are not any more, and others are.
fn asked_for(mut specs: Vec<Spec>) -> Vec<Spec> {
    specs[PODS].direct = None;
    specs[API].direct = Some(5);
    specs
}

fn emptied(mut specs: Vec<Spec>) -> Vec<Spec> {
    specs[DB].endpoints.clear();
    specs[DNS].endpoints.clear();
    specs
}

fn everything(specs: Vec<Spec>) -> Vec<Spec> {
    let mut specs = address_moved(specs);
    specs[API].name = "gateway";
    specs[BOTH].addresses = vec!["127.96.0.9", "fd96::6"];
    specs[DNS].lead_to(&[5, 4, 3]);
    specs.remove(DB);
    added(specs)
}

fn none_left(_: Vec<Spec>) -> Vec<Spec> {
    Vec::new()
}

/// Every kind of change, alone and all at once. Each is tried in both directions, so adding is
/// removing as well, growing is shrinking, and so on.
pub fn all(backends: &Backends) -> Vec<Update> {
    let edits: [(&'static str, Edit); 12] = [
        ("add services", added),
        ("grow and shrink", grown_and_shrunk),
        ("reweight", reweighted),
        ("rename", renamed),
        ("move an address", address_moved),
        ("change addresses", addresses_changed),
        ("swap addresses", addresses_swapped),
        ("give an endpoint up", given_up),
        ("ask for others", asked_for),
        ("empty", emptied),
        ("everything at once", everything),
        ("remove all", none_left),
    ];
    let update = |(name, edit): (_, Edit)| {
        let from = Configuration::new(&base(), backends);
        Update { name, from, to: Configuration::new(&edit(base()), backends) }
    };
    edits.into_iter().map(update).collect()
}
