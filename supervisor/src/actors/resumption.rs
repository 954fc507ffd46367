//! How a keeper goes on where its predecessor in this process ended.

use std::rc::Rc;
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext, Context};
use tokio::io::unix::AsyncFd;

use super::keeper::{Keeper, Live, Predecessor, jitter_seed};
use super::lifeline::Lifeline;
use super::trials::Exposure;
use crate::channel::Channel;
use crate::drift::Book;
use crate::probation::configuration::Trials;
use crate::status::Ledger;
use crate::succession::{CarriedWorker, LeftWorker};
use crate::takeover::State;

/// A predecessor's worker.
pub(super) struct Resumed {
    carried: CarriedWorker,
    left: LeftWorker<AsyncFd<Channel>>,
}

impl Keeper {
    /// Knows what the predecessor knew. Its worker is welcomed when the actor starts.
    pub(super) fn resume(&mut self, predecessor: Predecessor) {
        let Predecessor { carried, worker, binary } = predecessor;
        self.scrapes.resume(&carried);
        self.proof.trials = Trials::resumed(carried.proved, carried.set_aside);
        if let Some(binary) = binary {
            self.proof.binaries.resume(binary);
        }
        self.started = before(carried.age_us);
        self.config = carried.config;
        self.trouble = carried.trouble;
        self.ledger = Ledger::resumed(carried.takeovers);
        self.drift = Book::resumed(&carried.drift, jitter_seed());
        self.replacements = carried.replacements;
        let (pid, version) =
            (carried.worker.as_ref().map_or(0, |worker| worker.pid), carried.build);
        self.resumed = carried.worker.zip(worker).map(|(carried, left)| Resumed { carried, left });
        if self.resumed.is_some() {
            let offers = u16::try_from(self.estate.offers().len()).expect("a few packets");
            let now = self.time(Instant::now());
            self.state = State::resumed(offers, carried.epoch, jitter_seed(), now);
        }
        let objects = self.estate.len();
        tracing::info!(
            from = version,
            to = env!("CARGO_PKG_VERSION"),
            worker = pid,
            epoch = carried.epoch,
            objects,
            "this process goes on as another binary; the worker stays"
        );
    }

    /// Hears the predecessor's worker from here on.
    pub(super) fn welcome(&mut self, resumed: Resumed, ctx: &mut Context<Self>) {
        let Resumed { carried: CarriedWorker { age_us, version, report, .. }, left } = resumed;
        let LeftWorker { child, channel, watch } = left;
        let worker = self.state.writer().expect("a resumed machine begins with a writer");
        let (since, channel) = (before(age_us), Rc::new(channel));
        let gate = Rc::clone(&self.gate);
        let lifeline = Lifeline::new(worker, Rc::clone(&channel), gate, ctx.address()).start();
        // What it serves proves itself anew: for how long it has, nobody knows.
        self.proof.trials.tried(&report.digest);
        let exposure = Exposure { tried: report.digest.clone(), ..Exposure::default() };
        let told = None;
        let live = Live { child, since, version, report, exposure, told, channel, watch, lifeline };
        self.workers.insert(worker, live);
        self.prove(ctx);
        self.arm(ctx);
    }
}

/// The moment `age_us` microseconds ago.
fn before(age_us: u64) -> Instant {
    let now = Instant::now();
    now.checked_sub(Duration::from_micros(age_us)).unwrap_or(now)
}
