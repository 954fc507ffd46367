//! A run inside its patch: load, faults, and what came of it.
//!
//! - [`size`]: how large the configuration is, and how hard clients press.
//! - [`stage`]: what faults are injected into.
//! - [`conductor`]: injects a plan and follows each fault until it was made good.
//! - [`ending`]: what is programmed at last, and what an uninstall leaves.
//! - [`stopwatch`]: the one clock.

pub mod conductor;
mod ending;
pub mod size;
pub mod stage;
pub mod stopwatch;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use holdfast_lab::load::Transport;
use holdfast_lab::stream::Stream;
use holdfast_lab::{Census, Lab};

use serde::{Deserialize, Serialize};

use self::conductor::Conductor;
use self::size::Size;
use self::stage::Stage;
use self::stopwatch::Stopwatch;
use crate::history::{History, Injected, Outage, StreamHistory};
use crate::load::churn::churn;
use crate::load::clients::{Count, client};
use crate::load::configuration::Configuration;
use crate::load::site::Site;
use crate::plan::Plan;
use crate::watch::Watch;

/// Room on the state directory's file system, in bytes: some times what an instance writes there,
/// little enough to be filled in a moment.
const STATE_BYTES: u64 = 8 << 20;

/// How long clients go on after everything is as before.
const AFTERGLOW: Duration = Duration::from_millis(500);

/// Seeds of the parts differ by these, so that none repeats another.
const CLIENT_SEED: u64 = 0xc11e;
const STREAM_SEED: u64 = 0x57ea;
const CHURN_SEED: u64 = 0xc442;

/// What ends the threads of a run.
#[derive(Default)]
struct Stops {
    saving: AtomicBool,
    connecting: AtomicBool,
    watching: AtomicBool,
}

impl Stops {
    fn stop(flag: &AtomicBool) {
        flag.store(true, Ordering::Relaxed);
    }
}

/// However the conductor ends, the threads beside it end too, and the scope with them.
impl Drop for StopAll<'_> {
    fn drop(&mut self) {
        let Stops { saving, connecting, watching } = self.0;
        [saving, connecting, watching].into_iter().for_each(Stops::stop);
    }
}

struct StopAll<'s>(&'s Stops);

/// Everything that decides about a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// The faults.
    pub plan: Plan,
    /// The configuration and the load.
    pub size: Size,
}

/// Runs a script, and gives what happened.
pub fn run(lab: &Lab, Script { plan, size }: &Script) -> anyhow::Result<History> {
    let size = *size;
    lab.limit_state(STATE_BYTES)?;
    let before = Census::take(lab, &Census::default())?;
    let stopwatch = Stopwatch::start();
    let configuration = Configuration::write(lab, Site::start(size)?, stopwatch, size.grace_us)?;
    let supervisor = lab.supervisor(configuration.path()).start()?;
    let watch = Watch::new(lab, &configuration, stopwatch);
    let stage = Stage::new(lab, &configuration, &watch, supervisor);
    let (count, stops) = (Count::default(), Stops::default());
    let mut history = History::default();

    thread::scope(|scope| -> anyhow::Result<()> {
        let stop_all = StopAll(&stops);
        let seed = plan.order.seed;
        scope.spawn(|| watch.watch_processes(&stops.watching));
        scope.spawn(|| watch.watch_status(&stops.watching));
        scope.spawn(|| watch.watch_counters(&stops.watching));
        scope.spawn(|| watch.watch_resources(&stops.watching));
        ending::settle(&watch, stopwatch)
            .map_err(anyhow::Error::msg)
            .context("before any fault")?;
        let streams = open_streams(&configuration, size, seed)?;
        let clients: Vec<_> = (0..u64::from(size.clients))
            .map(|n| {
                let (count, stops, configuration) = (&count, &stops, &configuration);
                let seed = seed.wrapping_add(CLIENT_SEED + n);
                let connecting = &stops.connecting;
                scope.spawn(move || {
                    client(configuration, stopwatch, connecting, count, (seed, size));
                })
            })
            .collect();
        let saves = (seed ^ CHURN_SEED, size.churn_us);
        let churning = scope.spawn({
            let (configuration, saving) = (&configuration, &stops.saving);
            move || churn(configuration, stopwatch, saving, saves)
        });

        let conductor = Conductor::new(&stage, (&watch, &count), stopwatch);
        let conducted = conductor.conduct(plan, stopwatch.now_us())?;
        Stops::stop(&stops.saving);
        churning.join().expect("the churn does not panic").context("a save failed")?;
        history.ending.unsettled = ending::settle(&watch, stopwatch).err();
        thread::sleep(AFTERGLOW);
        Stops::stop(&stops.connecting);
        for client in clients {
            client.join().expect("a client does not panic");
        }
        history.streams = close_streams(streams);
        history.end_us = stopwatch.now_us();
        history.ending.differences = ending::differences(lab, &configuration);
        history.injected = conducted.injected;
        history.windows = conducted.windows;
        history.processes.unasked_ends = conducted.unasked_ends;
        drop(stop_all);
        Ok(())
    })?;

    let seen = watch.finish();
    let unasked_ends = std::mem::take(&mut history.processes.unasked_ends);
    history.processes = crate::history::Processes { unasked_ends, ..seen.processes };
    (history.kernel, history.counters) = (seen.kernel, seen.counters);
    history.resources = seen.resources;
    history.outages = alone(seen.outages, &history.injected);
    history.connections = count.finish();
    history.saves = configuration.saves();
    history.ending.leftovers = ending::uninstall(lab, stage.into_supervisor(), &before);
    Ok(history)
}

/// Opens the long connections, to one TCP address after the other.
fn open_streams(
    configuration: &Configuration<'_>,
    size: Size,
    seed: u64,
) -> anyhow::Result<Vec<(String, Stream)>> {
    let doors = configuration.site().doors();
    let tcp = doors.iter().filter(|door| door.target.transport == Transport::Tcp);
    let chosen = tcp.cycle().zip(0..u64::from(size.streams));
    let opened = chosen.map(|(door, n)| {
        let address = door.target.address;
        Ok((address.to_string(), Stream::open(address, seed.wrapping_add(STREAM_SEED + n))?))
    });
    opened.collect()
}

fn close_streams(streams: Vec<(String, Stream)>) -> Vec<StreamHistory> {
    let close = |(address, stream): (String, Stream)| {
        let end = stream.finish();
        StreamHistory { address, bytes: end.bytes, broken: end.broken }
    };
    streams.into_iter().map(close).collect()
}

/// Marks the outages in which nothing but their own fault went on.
fn alone(mut outages: Vec<Outage>, injected: &[Injected]) -> Vec<Outage> {
    for outage in &mut outages {
        let overlapping = injected.iter().filter(|fault| {
            let until = fault.restored_us.unwrap_or(u64::MAX);
            fault.hit && fault.at_us <= outage.to_us && outage.from_us < until
        });
        outage.alone = overlapping.count() <= 1;
    }
    outages
}
