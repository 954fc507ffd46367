//! What the keeper tells the worker for whoever scrapes it: where to answer, and what only a supervisor
//! knows. It says nothing when nobody can scrape.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::SystemTime;

use holdfast_protocol::handover::{ToChild, Vitals};

use super::keeper::Keeper;
use crate::succession::Carried;
use crate::takeover::{Event, WorkerId};

/// The listener, and what was said last.
#[derive(Debug)]
pub(super) struct Scrapes {
    listener: Option<OwnedFd>,
    /// When this supervisor started, in milliseconds since the Unix epoch. Not worked out anew each
    /// time: the clock may be set meanwhile.
    started_ms: u64,
    /// The configuration in force, and since when.
    config: (String, u64),
    told: Vitals,
}

impl Scrapes {
    pub(super) fn new(listener: Option<OwnedFd>) -> Self {
        let (started_ms, config, told) = (now_ms(), Default::default(), Vitals::default());
        Self { listener, started_ms, config, told }
    }

    /// Goes on where a predecessor ended.
    pub(super) fn resume(&mut self, carried: &Carried) {
        self.started_ms = carried.started_ms;
        self.config = (carried.config.digest.clone(), carried.config_since_ms);
    }

    /// When this supervisor started, in milliseconds since the Unix epoch.
    pub(super) const fn started_ms(&self) -> u64 {
        self.started_ms
    }

    pub(super) fn listener(&self) -> Option<RawFd> {
        self.listener.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Since when the configuration in force is, in milliseconds since the Unix epoch.
    pub(super) const fn config_since_ms(&self) -> u64 {
        self.config.1
    }
}

impl Keeper {
    /// Gives `worker`, which is about to be granted, the listener.
    pub(super) fn hand_listener(&mut self, worker: WorkerId) -> Option<Event> {
        self.scrapes.listener.as_ref()?;
        let vitals = self.vitals();
        self.scrapes.told = vitals.clone();
        let listener = self.scrapes.listener.as_ref()?.as_fd();
        self.tell_with(worker, &ToChild::Vitals(Vitals { listens: true, ..vitals }), &[listener])
    }

    /// Tells the worker that writes what has changed.
    pub(super) fn tell_vitals(&mut self) {
        if self.scrapes.listener.is_none() {
            return;
        }
        let vitals = self.vitals();
        if let Some(writer) = self.state.writer()
            && vitals != self.scrapes.told
        {
            // One whose socket is full is judged by its heartbeats, not by this.
            let _later = self.tell(writer, &ToChild::Vitals(vitals.clone()));
            self.scrapes.told = vitals;
        }
    }

    fn vitals(&mut self) -> Vitals {
        if self.scrapes.config.0 != self.config.digest {
            self.scrapes.config = (self.config.digest.clone(), now_ms());
        }
        let takeovers = self.ledger.shown();
        let drift = self.drift.shown();
        Vitals {
            listens: false,
            started_ms: self.scrapes.started_ms,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            takeovers: takeovers.count,
            takeovers_failed: takeovers.failed,
            last_takeover: takeovers.last.clone(),
            replacements: self.replacements.count,
            drift_audits: drift.audits,
            drift_repairs: drift.repairs,
            drift_open: drift.open.len().try_into().unwrap_or(u64::MAX),
            config_since_ms: self.scrapes.config.1,
        }
    }
}

/// In milliseconds since the Unix epoch.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_millis().try_into().unwrap_or(u64::MAX)
}
