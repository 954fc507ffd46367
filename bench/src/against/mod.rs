//! From `connect(2)` to the first byte of the answer, through Holdfast and through what people use
//! instead.
//!
//! One client, one backend that greets, all in one network namespace. The ways there take turns, a
//! block of connections each, and each round begins with another one; a way is compared with the
//! direct one of the same round. Proxies run all the while and wait; the rule of nftables is there
//! only in its turn, because every connection of the namespace is tracked while it is.
//!
//! - [`proxy`]: what people use instead.

mod proxy;

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use holdfast_lab::{Backend, Lab, Service, cgroup, render};
use nix::sys::socket::{setsockopt, sockopt};
use serde::Serialize;

use self::proxy::{Proxy, Translation};
use crate::place::beside;
use crate::spread::Spread;

/// Where HAProxy and nginx listen.
const HAPROXY: &str = "127.0.0.1:18101";
const NGINX: &str = "127.0.0.1:18102";

/// What is translated to the backend, by Holdfast and by nftables: nobody listens there.
const GOVERNED: &str = "127.97.0.1:80";
const TRANSLATED: &str = "127.98.0.1:80";

/// The kernel's account of IPVS, where it has it.
const IPVS: &str = "/proc/net/ip_vs";

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

/// A way to the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Way {
    Direct,
    Holdfast,
    Nftables,
    Haproxy,
    Nginx,
}

const WAYS: [Way; 5] = [Way::Direct, Way::Holdfast, Way::Nftables, Way::Haproxy, Way::Nginx];

#[derive(Serialize)]
struct Row {
    way: Way,
    /// From `connect(2)` to the first byte, in microseconds.
    first_byte_us: Spread,
    /// How many times as much as directly in the same round.
    ratio: Spread,
}

/// What each way needs.
struct Scene {
    backend: Backend,
    nothing: PathBuf,
    governed: PathBuf,
}

/// Measures, and prints what was found.
pub fn run(lab: &Lab, arguments: &Arguments) -> anyhow::Result<()> {
    let scene = Scene {
        backend: Backend::tcp("backend")?,
        nothing: beside(lab, "nothing")?,
        governed: lab.governed(),
    };
    let backend = scene.backend.v4();
    let service = Service::tcp("bench", GOVERNED.parse()?).endpoint(backend);
    let _supervisor = lab.supervisor(&lab.write("holdfast.yaml", render(&[service]))?).start()?;
    let _haproxy = Proxy::haproxy(lab, HAPROXY.parse()?, backend)?;
    let _nginx = Proxy::nginx(lab, NGINX.parse()?, backend)?;

    let mut figures = WAYS.map(|_| Vec::with_capacity(arguments.rounds));
    for round in 0..=arguments.rounds {
        for turn in 0..WAYS.len() {
            let index = (round + turn) % WAYS.len();
            let median = scene.block(WAYS[index], arguments.connections)?;
            // The first round warms up.
            if round > 0 {
                figures[index].push(median);
            }
        }
    }
    let rows: Vec<Row> = WAYS
        .into_iter()
        .zip(&figures)
        .map(|(way, own)| Row {
            way,
            first_byte_us: Spread::of(own.iter().copied()),
            ratio: Spread::of_ratios(own, &figures[0]),
        })
        .collect();
    show(&rows)
}

fn show(rows: &[Row]) -> anyhow::Result<()> {
    println!("{:<10} {:>26} {:>26}", "way", "us to the first byte", "times direct");
    for Row { way, first_byte_us, ratio } in rows {
        let way = format!("{way:?}").to_lowercase();
        println!("{way:<10} {:>26} {:>26}", first_byte_us.cell(1), ratio.cell(2));
    }
    if !std::path::Path::new(IPVS).exists() {
        println!("IPVS is not in this kernel ({IPVS} does not exist)");
    }
    println!("{}", serde_json::to_string(rows).context("cannot write the report")?);
    Ok(())
}

impl Scene {
    /// The median of a block of connections, in microseconds.
    fn block(&self, way: Way, connections: u32) -> anyhow::Result<f64> {
        let from = if way == Way::Holdfast { &self.governed } else { &self.nothing };
        cgroup::enter(from)?;
        let address: SocketAddr = match way {
            Way::Direct => self.backend.v4(),
            Way::Holdfast => GOVERNED.parse()?,
            Way::Nftables => TRANSLATED.parse()?,
            Way::Haproxy => HAPROXY.parse()?,
            Way::Nginx => NGINX.parse()?,
        };
        let translation = match way {
            Way::Nftables => Some(Translation::insert(address, self.backend.v4())?),
            _ => None,
        };
        let mut times = Vec::new();
        for _ in 0..connections {
            let time = first_byte(address).with_context(|| format!("{way:?}"))?;
            times.push(time.as_secs_f64() * 1e6);
        }
        translation.map_or(Ok(()), Translation::remove)?;
        Ok(Spread::of(times).p50)
    }
}

/// From the beginning of `connect(2)` to the first byte.
fn first_byte(address: SocketAddr) -> std::io::Result<Duration> {
    let begin = Instant::now();
    let mut connection = TcpStream::connect(address)?;
    connection.read_exact(&mut [0])?;
    let duration = begin.elapsed();
    // Closing with a reset leaves no port in TIME_WAIT.
    let reset = libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(&connection, sockopt::Linger, &reset)?;
    Ok(duration)
}
