//! The backends, the clients and the long streams of the demonstration.

use std::net::SocketAddr;
use std::time::Duration;

use holdfast_lab::load::{Shape, Tally};
use holdfast_lab::stream::StreamEnd;
use holdfast_lab::{Backend, LabError, Load, Stream, Target};

/// Where the backends listen: the endpoints of `demo.yaml`.
const RED: [&str; 2] = ["127.0.0.1:18080", "[::1]:18080"];
const BLUE: [&str; 2] = ["127.0.0.1:18081", "[::1]:18081"];
const GREEN: [&str; 1] = ["127.0.0.1:18053"];

/// The virtual addresses of `demo.yaml`; the third is the first as an IPv6 socket says it.
const WEB: [&str; 3] = ["127.96.0.10:80", "[fd96::10]:80", "[::ffff:127.96.0.10]:80"];
const DNS: &str = "127.96.0.53:53";

/// Several clients at once, few enough for two processors.
const CLIENTS: usize = 4;
/// A client's rest after each connection: some 2,000 connections a second in all, three times what
/// the verdict needs, which leaves the processors to the takeovers most of the time.
const REST: Duration = Duration::from_micros(1_500);

/// Long connections to each of the web service's addresses.
const STREAMS_PER_ADDRESS: u64 = 2;

/// Everything that goes on while faults are injected.
#[derive(Debug)]
pub struct Traffic {
    streams: Vec<Stream>,
    load: Load,
    _backends: [Backend; 3],
}

/// What it came to.
#[derive(Debug)]
pub struct Counted {
    /// The short connections.
    pub load: Tally,
    /// The long ones.
    pub streams: Vec<StreamEnd>,
}

impl Traffic {
    /// Starts all of it; needs a worker that has been granted.
    pub fn start(seed: u64) -> Result<Self, LabError> {
        let backends = [
            Backend::tcp_at("red", &RED.map(address))?,
            Backend::tcp_at("blue", &BLUE.map(address))?,
            Backend::udp_at("green", &GREEN.map(address))?,
        ];
        let mut streams = Vec::new();
        for (web, number) in
            WEB.iter().flat_map(|web| (0..STREAMS_PER_ADDRESS).map(move |n| (web, n)))
        {
            streams.push(Stream::open(address(web), seed.wrapping_add(number))?);
        }
        let mut targets: Vec<Target> =
            WEB.iter().map(|web| Target::tcp(address(web), &["red", "blue"])).collect();
        targets.push(Target::udp(address(DNS), &["green"]));
        let load = Load::start(&targets, Shape { clients: CLIENTS, rest: REST, seed });
        Ok(Self { streams, load, _backends: backends })
    }

    /// The short connections until now.
    pub fn so_far(&self) -> Tally {
        self.load.so_far()
    }

    /// Lets everything under way come to its end.
    pub fn finish(self) -> Counted {
        let load = self.load.finish();
        Counted { load, streams: self.streams.into_iter().map(Stream::finish).collect() }
    }
}

impl Counted {
    /// What exactly went wrong, if anything did.
    pub fn details(&self) -> Vec<String> {
        let streams = self.streams.iter().filter_map(|end| end.broken.clone());
        let streams = streams.map(|broken| format!("a long connection broke: {broken}"));
        let load = self.load.first_trouble.iter();
        load.map(|trouble| format!("the first bad connection: {trouble}")).chain(streams).collect()
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("a literal address")
}
