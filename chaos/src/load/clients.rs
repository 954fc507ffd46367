//! Clients that keep opening connections, and count each with how it went.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use holdfast_lab::load::Transport;
use holdfast_lab::random::Random;
use holdfast_lab::{Attempt, attempt};

use super::configuration::Configuration;
use super::site::Door;
use crate::history::{BIN_US, Connections, Incident, MAX_INCIDENTS, Percentiles, Trouble};
use crate::run::size::Size;
use crate::run::stopwatch::Stopwatch;

/// What all clients have counted together.
#[derive(Debug, Default)]
pub struct Count {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    connections: Connections,
    times_us: Vec<u32>,
}

/// What one connection came to.
struct Ended {
    trouble: Option<Trouble>,
    text: String,
    from_us: u64,
    to_us: u64,
}

/// Connects until `stop`, to one door after the other, drawn from `seed`.
pub fn client(
    configuration: &Configuration<'_>,
    stopwatch: Stopwatch,
    stop: &AtomicBool,
    count: &Count,
    (seed, size): (u64, Size),
) {
    let doors = configuration.site().doors();
    let mut random = Random::new(seed);
    while !stop.load(Ordering::Relaxed) {
        let drawn = usize::try_from(random.below(doors.len() as u64)).expect("below a usize");
        let door = &doors[drawn];
        let from_us = stopwatch.now_us();
        let attempt = attempt(&door.target);
        let ended = judge(configuration, attempt, from_us, stopwatch.now_us());
        count.add(door, ended);
        std::thread::sleep(size.rest());
    }
}

fn judge(configuration: &Configuration<'_>, attempt: Attempt, from_us: u64, to_us: u64) -> Ended {
    let trouble = Door::trouble(&attempt);
    let (trouble, text) = match attempt {
        Attempt::Reached(name) => {
            let endpoint = configuration.site().number(&name).expect("it is one of the door's");
            match configuration.allows(endpoint, from_us, to_us) {
                true => (None, String::new()),
                false => {
                    let since = configuration.removed_since_us(endpoint, from_us);
                    let since = since.map_or(0, |us| us / 1000);
                    let text = format!("reached `{name}`, removed {since} ms before");
                    (Some(Trouble::Misrouted), text)
                }
            }
        }
        Attempt::Ungoverned(text) | Attempt::Reset(text) | Attempt::Failed(text) => (trouble, text),
    };
    Ended { trouble, text, from_us, to_us }
}

impl Count {
    /// How many connections there have been, and how many of them in trouble.
    pub fn so_far(&self) -> (u64, u64) {
        let state = self.lock();
        let (tcp, udp) = (&state.connections.tcp, &state.connections.udp);
        (tcp.all() + udp.all(), tcp.all() - tcp.reached + udp.all() - udp.reached)
    }

    /// The final count.
    pub fn finish(&self) -> Connections {
        let mut state = self.lock();
        let times = std::mem::take(&mut state.times_us);
        let mut connections = std::mem::take(&mut state.connections);
        connections.time = Percentiles::of(times.into_iter().map(u64::from).collect());
        connections
    }

    fn add(&self, door: &Door, ended: Ended) {
        let Ended { trouble, text, from_us, to_us } = ended;
        let mut state = self.lock();
        let connections = &mut state.connections;
        match door.target.transport {
            Transport::Tcp => connections.tcp.add(trouble),
            Transport::Udp => connections.udp.add(trouble),
        }
        let bin = usize::try_from(from_us / BIN_US).expect("a run's bins fit");
        if connections.per_bin.len() <= bin {
            connections.per_bin.resize(bin + 1, 0);
        }
        connections.per_bin[bin] += 1;
        match trouble {
            Some(trouble) if connections.incidents.len() < MAX_INCIDENTS => {
                let family = door.family;
                connections.incidents.push(Incident { trouble, family, from_us, to_us, text });
            }
            _ => {}
        }
        // More than an hour does not happen: a connection gives up after seconds.
        state.times_us.push(u32::try_from(to_us - from_us).unwrap_or(u32::MAX));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
