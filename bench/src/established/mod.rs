//! Connections that stay: requests over HTTP and Redis, through Holdfast and through what people use
//! instead.
//!
//! wrk keeps its connections to nginx, redis-benchmark sends a pipeline to Redis; each run is one
//! round of one way, and each round begins with another way. Direct and governed runs take turns in
//! every round, the proxies in every third one. Direct runs a second time: how far it is from itself is
//! what the measurement cannot tell apart. The same again in slices of milliseconds, which can tell more.
//!
//! Where there are two processors, the servers have one and the clients another: what the scheduler
//! moves about is otherwise ten times what is looked for. Proxies run where they like.
//!
//! - [`servers`]: the servers that answer.
//! - [`clients`]: what the clients print.
//! - [`slices`]: connections of our own, direct and governed by turns of milliseconds.
//! - [`tables`]: what was measured, as tables and targets (pure).

mod clients;
mod servers;
mod slices;
mod tables;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use holdfast_lab::{Lab, Service, cgroup, render};

use self::clients::{SCRIPT, output, redis_figures, wrk_figures};
use self::servers::{http_server, redis_server};
use crate::peers::Missing;
use crate::peers::proxy::{Kind, Proxy, Route};
use crate::place::{Processor, beside, command_in};
use crate::results::Section;
use crate::rounds::{Rounds, turns};

/// Where the servers listen, and the first proxies of each.
const HTTP: &str = "127.0.0.1:18080";
const REDIS: &str = "127.0.0.1:16379";
const PROXY_PORTS: [u16; 2] = [18_201, 18_301];

/// What leads to them through Holdfast: nobody listens there.
const GOVERNED: [&str; 2] = ["127.97.0.1:80", "127.97.0.2:6379"];

/// Connections of wrk, on one thread.
const CONNECTIONS: u32 = 8;

/// Clients of redis-benchmark, and commands in a row of each.
const CLIENTS: u32 = 8;
const PIPELINE: u32 = 16;

/// The ways that are gone in every round, the first of [`WAYS`].
const ALWAYS: usize = 3;

/// Rounds in which the proxies have their turn: every so-manieth.
const PROXIES_EVERY: usize = 3;

/// Measure connections that stay.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Rounds
    #[arg(long, default_value_t = 40, value_name = "N")]
    rounds: usize,
    /// Rounds of slices
    #[arg(long, default_value_t = 60, value_name = "N")]
    slices: usize,
    /// Seconds of each run of wrk
    #[arg(long, default_value_t = 1, value_name = "N")]
    seconds: u32,
    /// Commands of each run of redis-benchmark
    #[arg(long, default_value_t = 300_000, value_name = "N")]
    commands: u32,
}

/// A way to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Direct,
    DirectAgain,
    Holdfast,
    Proxy(Kind),
}

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Http,
    Redis,
}

/// What a figure is of: a rate a second, or microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quantity {
    Rate,
    P50,
    P99,
    P999,
    SliceRate,
    SliceP50,
}

type Figures = Rounds<(Protocol, Way, Quantity)>;

const WAYS: [Way; 6] = [
    Way::Direct,
    Way::DirectAgain,
    Way::Holdfast,
    Way::Proxy(Kind::Haproxy),
    Way::Proxy(Kind::Nginx),
    Way::Proxy(Kind::Envoy),
];
const PROTOCOLS: [Protocol; 2] = [Protocol::Http, Protocol::Redis];

/// Measures.
pub fn measure(lab: &Lab, arguments: &Arguments) -> anyhow::Result<Section> {
    let services = [("http", HTTP), ("redis", REDIS)].into_iter().zip(GOVERNED);
    let services = services.map(|((name, endpoint), address)| {
        Ok(Service::tcp(name, address.parse()?).endpoint(endpoint.parse()?))
    });
    let services: Vec<Service> = services.collect::<anyhow::Result<_>>()?;
    let _supervisor = lab.supervisor(&lab.write("holdfast.yaml", render(&services))?).start()?;
    let _servers = [http_server(lab)?, redis_server(lab)?];
    let (proxies, absent) = proxies(lab)?;
    let scene = Scene {
        nothing: beside(lab, "nothing")?,
        governed: lab.governed(),
        script: lab.write("wrk.lua", SCRIPT)?,
        arguments,
    };
    let mut figures = Figures::default();
    // The first round warms up. Of no rounds, it would be all.
    for round in (0..=arguments.rounds).skip(usize::from(arguments.rounds == 0)) {
        let mut measured = Figures::default();
        let figures = if round == 0 { &mut measured } else { &mut figures };
        for protocol in PROTOCOLS {
            for turn in turns(round, ALWAYS) {
                scene.run(protocol, WAYS[turn], figures)?;
            }
            if round % PROXIES_EVERY == 1 % PROXIES_EVERY {
                for (kind, _) in &proxies {
                    scene.run(protocol, Way::Proxy(*kind), figures)?;
                }
            }
        }
    }
    slices::measure(&scene, &mut figures)?;
    cgroup::enter(&lab.governed())?;
    Ok(tables::section(&figures, &absent))
}

/// The proxies that are here, two of each; and why others are not.
#[expect(clippy::type_complexity, reason = "two lists that are made in one go")]
fn proxies(lab: &Lab) -> anyhow::Result<(Vec<(Kind, [Proxy; 2])>, Vec<(Kind, String)>)> {
    let (mut here, mut absent) = (Vec::new(), Vec::new());
    for kind in Kind::ALL {
        match kind.find() {
            Err(Missing(why)) => absent.push((kind, why)),
            Ok(_) => {
                let start = |protocol| {
                    let route = Route {
                        listen: listen(kind, protocol),
                        backend: protocol.server(),
                        udp: None,
                    };
                    kind.start_silent(lab, route, protocol.name())
                };
                here.push((kind, [start(Protocol::Http)?, start(Protocol::Redis)?]));
            }
        }
    }
    Ok((here, absent))
}

struct Scene<'a> {
    nothing: PathBuf,
    governed: PathBuf,
    script: PathBuf,
    arguments: &'a Arguments,
}

impl Scene<'_> {
    /// The cgroup that this way is gone from.
    fn from(&self, way: Way) -> &Path {
        if way == Way::Holdfast { &self.governed } else { &self.nothing }
    }

    fn to(&self, protocol: Protocol, way: Way) -> SocketAddr {
        match way {
            Way::Direct | Way::DirectAgain => protocol.server(),
            Way::Holdfast => protocol.governed(),
            Way::Proxy(kind) => listen(kind, protocol),
        }
    }

    fn run(&self, protocol: Protocol, way: Way, figures: &mut Figures) -> anyhow::Result<()> {
        let (from, to) = (self.from(way), self.to(protocol, way));
        let found = match protocol {
            Protocol::Http => self.wrk(from, to),
            Protocol::Redis => self.redis_benchmark(from, to),
        };
        let found = found.with_context(|| format!("{}, {}", protocol.name(), way.name()))?;
        for (quantity, figure) in found {
            figures.add((protocol, way, quantity), figure);
        }
        Ok(())
    }

    fn wrk(&self, from: &Path, to: SocketAddr) -> anyhow::Result<Vec<(Quantity, f64)>> {
        let mut command = Processor::Client.of(command_in("wrk", from)?)?;
        command
            .args(["--threads=1", &format!("--connections={CONNECTIONS}")])
            .arg(format!("--duration={}s", self.arguments.seconds))
            .arg("--script")
            .arg(&self.script)
            .arg(format!("http://{to}/"));
        wrk_figures(&output(command)?)
    }

    fn redis_benchmark(&self, from: &Path, to: SocketAddr) -> anyhow::Result<Vec<(Quantity, f64)>> {
        let mut command = Processor::Client.of(command_in("redis-benchmark", from)?)?;
        command
            .args(["-h", &to.ip().to_string(), "-p", &to.port().to_string(), "--csv", "-t", "get"])
            .args(["-n", &self.arguments.commands.to_string()])
            .args(["-c", &CLIENTS.to_string(), "-P", &PIPELINE.to_string()]);
        redis_figures(&output(command)?)
    }
}

impl Way {
    const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::DirectAgain => "direct, once more",
            Self::Holdfast => "Holdfast",
            Self::Proxy(kind) => kind.name(),
        }
    }
}

impl Protocol {
    const fn name(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Redis => "Redis",
        }
    }

    fn server(self) -> SocketAddr {
        literal(if self == Self::Http { HTTP } else { REDIS })
    }

    fn governed(self) -> SocketAddr {
        literal(GOVERNED[usize::from(self == Self::Redis)])
    }

    /// What the client says.
    const fn quantities(self) -> &'static [Quantity] {
        match self {
            Self::Http => &[Quantity::Rate, Quantity::P50, Quantity::P99, Quantity::P999],
            Self::Redis => &[Quantity::Rate, Quantity::P50, Quantity::P99],
        }
    }
}

impl Quantity {
    const fn name(self) -> &'static str {
        match self {
            Self::Rate => "requests a second",
            Self::P50 => "latency, p50",
            Self::P99 => "latency, p99",
            Self::P999 => "latency, p99.9",
            Self::SliceRate => "requests a second, in slices",
            Self::SliceP50 => "latency in slices, p50",
        }
    }
}

fn listen(kind: Kind, protocol: Protocol) -> SocketAddr {
    let number = Kind::ALL.iter().position(|it| *it == kind).unwrap_or_default();
    let port = PROXY_PORTS[usize::from(protocol == Protocol::Redis)];
    SocketAddr::from(([127, 0, 0, 1], port + u16::try_from(number).unwrap_or_default()))
}

fn literal(address: &str) -> SocketAddr {
    address.parse().expect("a literal address")
}
