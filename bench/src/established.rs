//! Connections that stay: requests over HTTP and Redis, through Holdfast and through what people use
//! instead.
//!
//! wrk keeps its connections to nginx, redis-benchmark sends a pipeline to Redis; each run is one
//! round of one way, and each round begins with another way. Direct and governed runs take turns in
//! every round, the proxies in every third one.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use holdfast_lab::{Lab, Service, eventually, render};

use crate::peers::Missing;
use crate::peers::proxy::{Kind, Proxy, Route};
use crate::place::{beside, command_in};
use crate::results::{Scale, Section, Table, Unit};
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

/// What wrk is asked to print, because by itself it knows no 99.9th percentile.
const SCRIPT: &str = "done = function(summary, latency, requests)\n  \
    local e = summary.errors\n  \
    io.write(string.format(\"measured %d %d %d %d %d %d\\n\", summary.requests, summary.duration,\n    \
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9),\n    \
    e.connect + e.read + e.write + e.status + e.timeout))\nend\n";

/// How far apart direct and governed may be, in the median of paired rounds, in per cent.
const APART_PERCENT: f64 = 1.0;

/// Rounds in which the proxies have their turn: every so-manieth.
const PROXIES_EVERY: usize = 3;

/// Measure connections that stay.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Rounds
    #[arg(long, default_value_t = 40, value_name = "N")]
    rounds: usize,
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
}

type Figures = Rounds<(Protocol, Way, Quantity)>;

const WAYS: [Way; 5] = [
    Way::Direct,
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
    // The first round warms up.
    for round in 0..=arguments.rounds {
        let mut measured = Figures::default();
        let figures = if round == 0 { &mut measured } else { &mut figures };
        for protocol in PROTOCOLS {
            for turn in turns(round, 2) {
                scene.run(protocol, WAYS[turn], figures)?;
            }
            if round % PROXIES_EVERY == 1 % PROXIES_EVERY {
                for (kind, _) in &proxies {
                    scene.run(protocol, Way::Proxy(*kind), figures)?;
                }
            }
        }
    }
    Ok(section(&figures, &absent))
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
    fn run(&self, protocol: Protocol, way: Way, figures: &mut Figures) -> anyhow::Result<()> {
        let to = match way {
            Way::Direct => protocol.server(),
            Way::Holdfast => protocol.governed(),
            Way::Proxy(kind) => listen(kind, protocol),
        };
        let from = if way == Way::Holdfast { &self.governed } else { &self.nothing };
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
        let mut command = command_in("wrk", from)?;
        command
            .args(["--threads=1", &format!("--connections={CONNECTIONS}")])
            .arg(format!("--duration={}s", self.arguments.seconds))
            .arg("--script")
            .arg(&self.script)
            .arg(format!("http://{to}/"));
        wrk_figures(&output(command)?)
    }

    fn redis_benchmark(&self, from: &Path, to: SocketAddr) -> anyhow::Result<Vec<(Quantity, f64)>> {
        let mut command = command_in("redis-benchmark", from)?;
        command
            .args(["-h", &to.ip().to_string(), "-p", &to.port().to_string(), "--csv", "-t", "get"])
            .args(["-n", &self.arguments.commands.to_string()])
            .args(["-c", &CLIENTS.to_string(), "-P", &PIPELINE.to_string()]);
        redis_figures(&output(command)?)
    }
}

fn section(figures: &Figures, absent: &[(Kind, String)]) -> Section {
    let mut section = Section::new(
        "established",
        "Connections that stay",
        "wrk with 8 keep-alive connections to nginx, and redis-benchmark with 8 clients and a pipeline of \
         16; a run is a round of a way. Direct and governed take turns in every round and are compared \
         within it; the proxies, of one thread each, in every third one.",
    );
    for protocol in PROTOCOLS {
        let name = protocol.name();
        let kind = |way, quantity| (protocol, way, quantity);
        let mut apart = Table::new(
            &format!("{name}: Holdfast, times direct in the same round"),
            Unit::Times,
            Scale::AroundOne,
        );
        for quantity in protocol.quantities() {
            let ratio =
                figures.ratio(&kind(Way::Holdfast, *quantity), &kind(Way::Direct, *quantity));
            if matches!(quantity, Quantity::Rate | Quantity::P50) {
                let found = (ratio.count > 0).then_some((1.0 - ratio.p50).abs() * 100.0);
                let what = format!("{name}, {}: Holdfast and direct apart", quantity.name());
                section.target(&what, Unit::Percent, APART_PERCENT, found);
            }
            apart.measured(quantity.name(), ratio);
        }
        section.tables.push(apart);
        for quantity in protocol.quantities() {
            let (unit, scale) = match quantity {
                Quantity::Rate => (Unit::PerSecond, Scale::Linear),
                _ => (Unit::Microseconds, Scale::Linear),
            };
            let title = format!("{name}: {}", quantity.name());
            let mut table = Table::new(&title, unit, scale);
            for way in WAYS {
                match absent.iter().find(|(kind, _)| way == Way::Proxy(*kind)) {
                    Some((_, why)) => table.not_measured(way.name(), why.as_str()),
                    None => table.measured(way.name(), figures.summary(&kind(way, *quantity))),
                }
            }
            section.tables.push(table);
        }
    }
    section.note(
        "Client, server and proxies share the machine's processors: a proxy's rate is also what it takes \
         from them.",
    );
    section
}

impl Way {
    const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
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

fn http_server(lab: &Lab) -> anyhow::Result<Proxy> {
    let places = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let places = places.map(|name| format!("  {name}_temp_path http/{name};\n")).concat();
    let text = format!(
        "daemon off;\nmaster_process off;\npid http/pid;\nerror_log stderr crit;\n\
         events {{ worker_connections 1024; }}\nhttp {{\n  access_log off;\n{places}  \
         keepalive_requests 1000000000;\n  server {{ listen {HTTP}; return 200 holdfast; }}\n}}\n"
    );
    let file = lab.write("http/nginx.conf", text)?;
    let mut command = lab.beside("/usr/sbin/nginx")?;
    command.args(["-e", "stderr", "-p"]).arg(lab.directory()).arg("-c").arg(file);
    let server = Proxy::spawn(command, "nginx: run tools/setup")?;
    eventually("nginx to listen", || TcpStream::connect(HTTP))?;
    Ok(server)
}

fn redis_server(lab: &Lab) -> anyhow::Result<Proxy> {
    let mut command = lab.beside("redis-server")?;
    let port = literal(REDIS).port().to_string();
    command.args(["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "no"]);
    command.arg("--dir").arg(lab.directory());
    let server = Proxy::spawn(command, "redis-server: run tools/setup")?;
    eventually("Redis to listen", || TcpStream::connect(REDIS))?;
    Ok(server)
}

/// What a client prints that ends well.
fn output(mut command: Command) -> anyhow::Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot run {program}: run tools/setup"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} failed: {text}{complaint}");
    Ok(text)
}

/// The line of [`SCRIPT`].
fn wrk_figures(text: &str) -> anyhow::Result<Vec<(Quantity, f64)>> {
    let line = text.lines().find_map(|line| line.strip_prefix("measured "));
    let numbers = line.unwrap_or_default().split(' ').map(str::parse::<f64>);
    let numbers = numbers.collect::<Result<Vec<f64>, _>>();
    let Ok([requests, duration_us, p50, p99, p999, errors]) = numbers.as_deref() else {
        bail!("wrk printed no figures: {text}");
    };
    ensure!(*errors == 0.0 && *requests > 0.0, "wrk met {errors} errors: {text}");
    Ok(vec![
        (Quantity::Rate, requests * 1e6 / duration_us),
        (Quantity::P50, *p50),
        (Quantity::P99, *p99),
        (Quantity::P999, *p999),
    ])
}

/// `"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95…","p99…","max…"`.
fn redis_figures(text: &str) -> anyhow::Result<Vec<(Quantity, f64)>> {
    let line = text.lines().find(|line| line.starts_with("\"GET\"")).unwrap_or_default();
    let cells = line.split(',').skip(1).map(|cell| cell.trim_matches('"').parse::<f64>());
    let cells = cells.collect::<Result<Vec<f64>, _>>();
    let Ok([rate, _mean, _least, p50_ms, _p95, p99_ms, _most]) = cells.as_deref() else {
        bail!("redis-benchmark printed no figures: {text}");
    };
    Ok(vec![(Quantity::Rate, *rate), (Quantity::P50, p50_ms * 1e3), (Quantity::P99, p99_ms * 1e3)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_clients_print_is_understood() -> anyhow::Result<()> {
        let found = wrk_figures("Running…\nmeasured 1000 500000 20 30 400 0\n")?;
        assert_eq!(found[0], (Quantity::Rate, 2_000.0));
        assert_eq!(found[3], (Quantity::P999, 400.0));
        let csv = "\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\",\
            \"p95_latency_ms\",\"p99_latency_ms\",\"max_latency_ms\"\n\
            \"GET\",\"746268.62\",\"0.145\",\"0.048\",\"0.143\",\"0.191\",\"0.239\",\"0.511\"\n";
        assert_eq!(redis_figures(csv)?[2], (Quantity::P99, 239.0));
        Ok(())
    }

    #[test]
    fn a_client_that_met_an_error_measured_nothing() {
        wrk_figures("measured 1000 500000 20 30 400 3\n").expect_err("three requests failed");
        wrk_figures("nothing").expect_err("no figures");
        redis_figures("Could not connect\n").expect_err("no figures");
    }
}
