//! Direct and governed connections of one thread, in use by turns for some milliseconds each.
//!
//! A machine that others share is faster in one second than in the next, by more than what is looked for. So what is
//! compared here lies milliseconds apart, and both sides are the same process, which talks to the same server: the
//! connections are made once, from two cgroups, and nothing but which of them are used changes from slice to slice.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use holdfast_lab::cgroup;

use super::{CLIENTS, Figures, PIPELINE, Protocol, Quantity, Scene, Way};
use crate::place::Processor;
use crate::rounds::{median, turns};

/// The ways that take turns.
pub const WAYS: [Way; 3] = [Way::Direct, Way::DirectAgain, Way::Holdfast];

/// Slices of each way in a round.
const SLICES: usize = 24;

/// Exchanges of a slice: some milliseconds, which is many times what the first ones of a slice find cold.
const EXCHANGES: usize = 400;

/// How long an answer may take before the measurement is given up.
const PATIENCE: Duration = Duration::from_secs(5);

/// Measures each protocol in turn.
pub fn measure(scene: &Scene, figures: &mut Figures) -> anyhow::Result<()> {
    Processor::Client.enter(|| {
        super::PROTOCOLS.into_iter().try_for_each(|protocol| {
            measure_one(scene, protocol, figures)
                .with_context(|| format!("{}, in slices", protocol.name()))
        })
    })?
}

fn measure_one(scene: &Scene, protocol: Protocol, figures: &mut Figures) -> anyhow::Result<()> {
    let mut lines = Vec::new();
    for way in WAYS {
        lines.push(Lines::open(scene.from(way), scene.to(protocol, way), protocol)?);
    }
    // The first round warms up.
    for round in 0..=scene.arguments.slices {
        let mut found = WAYS.map(|_| Slices::default());
        for slice in 0..SLICES {
            for turn in turns(round + slice, WAYS.len()) {
                lines[turn].exchange(&mut found[turn])?;
            }
        }
        if round == 0 {
            continue;
        }
        for (way, slices) in WAYS.into_iter().zip(found) {
            figures.add((protocol, way, Quantity::SliceRate), slices.rate());
            figures.add((protocol, way, Quantity::SliceP50), median(slices.latencies_us));
        }
    }
    Ok(())
}

/// What the slices of a round came to.
#[derive(Default)]
struct Slices {
    took: Duration,
    latencies_us: Vec<f64>,
}

impl Slices {
    fn rate(&self) -> f64 {
        self.latencies_us.len() as f64 / self.took.as_secs_f64()
    }
}

/// Connections that stay, each with one question under way at a time.
struct Lines {
    streams: Vec<TcpStream>,
    question: Vec<u8>,
    answer: Vec<u8>,
}

impl Lines {
    /// Connects to `to` from `cgroup`, and asks once to see how long an answer is.
    fn open(cgroup: &Path, to: SocketAddr, protocol: Protocol) -> anyhow::Result<Self> {
        cgroup::enter(cgroup)?;
        let question = question(protocol);
        let mut streams = Vec::new();
        for _ in 0..CLIENTS {
            let stream =
                TcpStream::connect(to).with_context(|| format!("cannot connect to {to}"))?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            streams.push(stream);
        }
        let first = streams.first_mut().context("one connection at least")?;
        let answer =
            first_answer(first, &question).with_context(|| format!("no answer of {to}"))?;
        Ok(Self { streams, question, answer: vec![0; answer] })
    }

    /// One slice: each connection asks, and asks again when it is answered.
    fn exchange(&mut self, slices: &mut Slices) -> anyhow::Result<()> {
        let begin = Instant::now();
        let mut asked = Vec::with_capacity(self.streams.len());
        for stream in &mut self.streams {
            asked.push(Instant::now());
            stream.write_all(&self.question)?;
        }
        let rest = EXCHANGES - self.streams.len();
        for exchange in 0..EXCHANGES {
            let turn = exchange % self.streams.len();
            let stream = &mut self.streams[turn];
            stream.read_exact(&mut self.answer).context("a connection was not answered")?;
            slices.latencies_us.push(asked[turn].elapsed().as_secs_f64() * 1e6);
            if exchange < rest {
                asked[turn] = Instant::now();
                stream.write_all(&self.question)?;
            }
        }
        slices.took += begin.elapsed();
        Ok(())
    }
}

/// A request, or a pipeline of commands.
fn question(protocol: Protocol) -> Vec<u8> {
    match protocol {
        Protocol::Http => b"GET / HTTP/1.1\r\nHost: service\r\n\r\n".to_vec(),
        Protocol::Redis => b"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n".repeat(PIPELINE as usize),
    }
}

/// Asks once, and how many bytes come until nothing follows for a moment.
fn first_answer(stream: &mut TcpStream, question: &[u8]) -> anyhow::Result<usize> {
    const MOMENT: Duration = Duration::from_millis(200);
    stream.write_all(question)?;
    let mut answer = [0; 4096];
    let mut length = stream.read(&mut answer)?;
    stream.set_read_timeout(Some(MOMENT))?;
    while let Ok(more @ 1..) = stream.read(&mut answer) {
        length += more;
    }
    stream.set_read_timeout(Some(PATIENCE))?;
    ensure!(length > 0, "the connection was closed");
    Ok(length)
}
