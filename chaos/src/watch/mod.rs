//! What is seen of a run from outside: by asking the supervisor, the kernel and `/proc`.
//!
//! - [`status`]: what the supervisor says, compared with what the kernel says.
//! - [`counters`]: what the kernel has counted.
//! - [`processes`]: how many workers there are, and how many can write.
//! - [`resources`]: what the processes take.
//! - [`outages`]: from the end of a worker to the grant of the next (pure).

pub mod counters;
pub mod outages;
pub mod processes;
pub mod resources;
pub mod status;

use std::sync::{Mutex, MutexGuard, PoisonError};

use holdfast_lab::Lab;

use self::outages::Outages;
use crate::fault::Kind;
use crate::fault::inject::Stricken;
use crate::history::{Counters, Kernel, Outage, Processes, Sample};
use crate::load::configuration::Configuration;
use crate::run::stopwatch::Stopwatch;

/// What the watching threads share.
pub struct Watch<'l> {
    lab: &'l Lab,
    configuration: &'l Configuration<'l>,
    stopwatch: Stopwatch,
    state: Mutex<State>,
}

/// What has been seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Of processes.
    pub processes: Processes,
    /// Of the kernel.
    pub kernel: Kernel,
    /// Of the counters.
    pub counters: Counters,
    /// What the processes took.
    pub resources: Vec<Sample>,
    /// Times without a worker that writes.
    pub outages: Vec<Outage>,
}

#[derive(Debug, Default)]
struct State {
    seen: Seen,
    outages: Outages,
    /// Begin of the newest look at which everything was as it should be.
    healthy_us: u64,
    /// What was not, at the newest look.
    ailment: String,
}

/// Where things stand, for people.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// The newest epoch.
    pub epoch: u64,
    /// The newest outage's length in microseconds.
    pub last_outage_us: Option<u64>,
}

impl<'l> Watch<'l> {
    /// Of a lab that serves `configuration`.
    pub fn new(lab: &'l Lab, configuration: &'l Configuration<'l>, stopwatch: Stopwatch) -> Self {
        Self { lab, configuration, stopwatch, state: Mutex::default() }
    }

    /// Microseconds since the run began.
    pub fn now_us(&self) -> u64 {
        self.stopwatch.now_us()
    }

    /// The worker that was granted last, as far as was seen.
    pub fn granted(&self) -> Option<u32> {
        self.lock().outages.worker()
    }

    /// A fault has ended somebody's grant; `at_us` is just before.
    pub fn stricken(&self, kind: Kind, who: Stricken, at_us: u64) {
        self.lock().outages.stricken(kind, who, at_us);
    }

    /// A fault was made good; with a hang that means that the worker may have gone on.
    pub fn restored(&self, kind: Kind) {
        if kind == Kind::Hang {
            self.lock().outages.recovered();
        }
    }

    /// Begin of the newest look at which everything was as it should be.
    pub fn healthy_us(&self) -> u64 {
        self.lock().healthy_us
    }

    /// What was not as it should be at the newest look.
    pub fn ailment(&self) -> String {
        self.lock().ailment.clone()
    }

    /// Where things stand.
    pub fn standing(&self) -> Standing {
        let state = self.lock();
        Standing { epoch: state.outages.epoch(), last_outage_us: state.outages.last_us() }
    }

    /// Everything that was seen.
    pub fn finish(&self) -> Seen {
        let mut state = self.lock();
        let mut seen = std::mem::take(&mut state.seen);
        seen.outages = state.outages.take();
        seen
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
