//! From the client's first call to the first byte of the answer, through Holdfast and through what
//! people use instead.
//!
//! One client, one backend that greets, all in one network namespace. The ways there take turns, a
//! block of connections each, and each round begins with another one; a way is compared with the
//! direct one of the same round. Proxies run all the while and wait; a rule of the kernel is there
//! only in its turn, because every connection of the namespace is tracked while it is.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use holdfast_lab::{Backend, Lab, Service, cgroup, render};
use nix::sys::socket::{setsockopt, sockopt};

use crate::peers::Missing;
use crate::peers::proxy::{Kind, Proxy, Route};
use crate::peers::translation::Translator;
use crate::place::beside;
use crate::results::{Scale, Section, Summary, Table, Unit};
use crate::rounds::{Rounds, median, turns};

/// Where the first proxy listens; the others at the next ports.
const PROXIES: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 18_101);

/// What is translated to the backend, by Holdfast and by rules of the kernel: nobody listens there.
const GOVERNED: &str = "127.97.0.1:80";
const TRANSLATED: &str = "127.98.0.1:80";

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Measure connections through Holdfast and through what people use instead.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Rounds
    #[arg(long, default_value_t = 100, value_name = "N")]
    rounds: usize,
    /// Connections of each kind in a round
    #[arg(long, default_value_t = 50, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
}

/// TCP, or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Tcp,
    Udp,
}

/// A way to the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Direct,
    Holdfast,
    Kernel(Translator),
    Proxy(Kind),
}

const WAYS: [Way; 7] = [
    Way::Direct,
    Way::Holdfast,
    Way::Kernel(Translator::Nftables),
    Way::Kernel(Translator::Ipvs),
    Way::Proxy(Kind::Haproxy),
    Way::Proxy(Kind::Nginx),
    Way::Proxy(Kind::Envoy),
];

/// What a figure is of, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quantity {
    Connect,
    FirstByte,
}

type Figures = Rounds<(Transport, Way, Quantity)>;

/// What each way needs.
struct Scene {
    backend: Backend,
    datagrams: Backend,
    nothing: PathBuf,
    governed: PathBuf,
    connections: u32,
}

/// Measures.
pub fn measure(lab: &Lab, arguments: &Arguments) -> anyhow::Result<Section> {
    let scene = Scene {
        backend: Backend::tcp("backend")?,
        datagrams: Backend::udp("backend")?,
        nothing: beside(lab, "nothing")?,
        governed: lab.governed(),
        connections: arguments.connections,
    };
    let services = [
        Service::tcp("tcp", GOVERNED.parse()?).endpoint(scene.backend.v4()),
        Service::udp("udp", GOVERNED.parse()?).endpoint(scene.datagrams.v4()),
    ];
    let _supervisor = lab.supervisor(&lab.write("holdfast.yaml", render(&services))?).start()?;
    let mut _proxies = Vec::new();
    let mut lanes = Vec::new();
    let mut absent = Vec::new();
    for way in WAYS {
        for transport in [Transport::Tcp, Transport::Udp] {
            match scene.find(way, transport) {
                Ok(()) => lanes.push((transport, way)),
                Err(Missing(why)) => absent.push((transport, way, why)),
            }
        }
        if let (Way::Proxy(kind), true) = (way, lanes.contains(&(Transport::Tcp, way))) {
            _proxies.push(scene.start(lab, kind)?);
        }
    }
    let mut figures = Figures::default();
    for round in 0..=arguments.rounds {
        for turn in turns(round, lanes.len()) {
            let (transport, way) = lanes[turn];
            let [connect, first_byte] = scene.block(transport, way)?;
            // The first round warms up.
            if round > 0 {
                figures.add((transport, way, Quantity::Connect), connect);
                figures.add((transport, way, Quantity::FirstByte), first_byte);
            }
        }
    }
    Ok(section(&figures, &absent))
}

fn section(figures: &Figures, absent: &[(Transport, Way, String)]) -> Section {
    let mut section = Section::new(
        "against",
        "A connection through Holdfast, and through what people use instead",
        "From the client's first call to the first byte of a backend that greets (TCP) or answers \
         (UDP); blocks of fifty connections by turns, a figure is a block's median. Proxies have one \
         thread each.",
    );
    for transport in [Transport::Tcp, Transport::Udp] {
        let protocol = if transport == Transport::Tcp { "TCP" } else { "UDP" };
        let table = |title: &str, unit, scale, of: &dyn Fn(Way) -> Summary| {
            let mut table = Table::new(&format!("{protocol}: {title}"), unit, scale);
            for way in WAYS {
                let is_it = |(its, other, _): &&(Transport, Way, String)| {
                    (*its, *other) == (transport, way)
                };
                match absent.iter().find(is_it) {
                    Some((_, _, why)) => table.not_measured(way.name(), why.as_str()),
                    None => table.measured(way.name(), of(way)),
                }
            }
            table
        };
        let kind = |way, quantity| (transport, way, quantity);
        let (first, connect) = (Quantity::FirstByte, Quantity::Connect);
        section.tables.push(table(
            "to the first byte, times direct",
            Unit::Times,
            Scale::AroundOne,
            &|way| figures.ratio(&kind(way, first), &kind(Way::Direct, first)),
        ));
        section.tables.push(table(
            "to the first byte",
            Unit::Microseconds,
            Scale::Linear,
            &|way| figures.summary(&kind(way, first)),
        ));
        section.tables.push(table("connect(2) alone", Unit::Microseconds, Scale::Linear, &|way| {
            figures.summary(&kind(way, connect))
        }));
    }
    section.note(
        "A proxy answers connect(2) itself, at once: what it costs shows only in the first byte. It \
         also costs every byte after that, and a rule of the kernel every packet.",
    );
    section
}

impl Way {
    const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Holdfast => "Holdfast",
            Self::Kernel(Translator::Nftables) => "nftables, DNAT",
            Self::Kernel(Translator::Ipvs) => "IPVS, masquerading",
            Self::Proxy(kind) => kind.name(),
        }
    }
}

impl Scene {
    /// Whether a way can be gone here.
    fn find(&self, way: Way, transport: Transport) -> Result<(), Missing> {
        match way {
            Way::Direct | Way::Holdfast => Ok(()),
            Way::Kernel(translator) => translator.find(),
            Way::Proxy(kind) => {
                kind.find()?;
                match (transport, kind) {
                    (Transport::Tcp, _) | (_, Kind::Nginx) => Ok(()),
                    (_, Kind::Haproxy) => Err(Missing("HAProxy proxies no UDP".to_owned())),
                    (_, Kind::Envoy) => {
                        Err(Missing("only its TCP proxy is configured here".to_owned()))
                    }
                }
            }
        }
    }

    fn start(&self, lab: &Lab, kind: Kind) -> anyhow::Result<Proxy> {
        let (backend, udp) = (self.backend.v4(), Some(self.datagrams.v4()));
        kind.start(lab, Route { listen: listen(kind), backend, udp })
    }

    /// The medians of a block of connections, in microseconds: of `connect(2)`, and to the first byte.
    fn block(&self, transport: Transport, way: Way) -> anyhow::Result<[f64; 2]> {
        let from = if way == Way::Holdfast { &self.governed } else { &self.nothing };
        cgroup::enter(from)?;
        let backend = match transport {
            Transport::Tcp => self.backend.v4(),
            Transport::Udp => self.datagrams.v4(),
        };
        let address: SocketAddr = match way {
            Way::Direct => backend,
            Way::Holdfast => GOVERNED.parse()?,
            Way::Kernel(_) => TRANSLATED.parse()?,
            Way::Proxy(kind) => listen(kind),
        };
        let translation = match way {
            Way::Kernel(translator) => {
                Some(translator.insert(transport == Transport::Udp, address, backend)?)
            }
            _ => None,
        };
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..self.connections {
            let exchange = if transport == Transport::Tcp { greeted } else { answered };
            let both = exchange(address).with_context(|| way.name())?;
            for (times, time) in times.iter_mut().zip(both) {
                times.push(time.as_secs_f64() * 1e6);
            }
        }
        translation.map_or(Ok(()), |it| it.remove())?;
        Ok(times.map(median))
    }
}

fn listen(kind: Kind) -> SocketAddr {
    let number = Kind::ALL.iter().position(|it| *it == kind).unwrap_or_default();
    SocketAddr::new(PROXIES.ip(), PROXIES.port() + u16::try_from(number).unwrap_or_default())
}

/// How long `connect(2)` takes, and how long it is until the first byte.
fn greeted(address: SocketAddr) -> std::io::Result<[Duration; 2]> {
    let begin = Instant::now();
    let mut connection = TcpStream::connect(address)?;
    let connected = begin.elapsed();
    connection.read_exact(&mut [0])?;
    let duration = begin.elapsed();
    // Closing with a reset leaves no port in TIME_WAIT.
    let reset = libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(&connection, sockopt::Linger, &reset)?;
    Ok([connected, duration])
}

/// The same with a datagram and its answer.
fn answered(address: SocketAddr) -> std::io::Result<[Duration; 2]> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let begin = Instant::now();
    socket.connect(address)?;
    let connected = begin.elapsed();
    socket.send(b"?")?;
    socket.recv(&mut [0; 64])?;
    Ok([connected, begin.elapsed()])
}
