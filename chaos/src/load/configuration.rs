//! The configuration file of a run: who may save it, and what is known of each save.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use holdfast_config::Sources;
use holdfast_lab::{Lab, LabError};

use super::ledger::Ledger;
use super::site::Site;
use crate::history::Save;
use crate::run::stopwatch::Stopwatch;

/// Its name, which goes into its digest.
const FILE: &str = "chaos.yaml";

/// Its place in the lab's directory: in a directory of its own, as the documentation advises.
const PLACE: &str = "configuration/chaos.yaml";

/// The file, and everything known about it. All saves go through here, so that removals are known
/// to the microsecond and a spoilt file stays spoilt until the fault is over.
pub struct Configuration<'l> {
    lab: &'l Lab,
    site: Site,
    stopwatch: Stopwatch,
    path: PathBuf,
    /// Held by whoever writes the file. A disk may take seconds; nobody who asks for the state may
    /// have to wait for it.
    file: Mutex<()>,
    state: Mutex<State>,
}

struct State {
    /// Of each endpoint; `None` while it is not in the configuration.
    weights: Vec<Option<u16>>,
    ledger: Ledger,
    saves: Vec<Save>,
    /// Of the newest save.
    digest: String,
    is_spoilt: bool,
}

impl<'l> Configuration<'l> {
    /// Writes the first one, in which every endpoint is there. One that is removed later may be reached
    /// for another `grace_us`.
    pub fn write(
        lab: &'l Lab,
        site: Site,
        stopwatch: Stopwatch,
        grace_us: u64,
    ) -> Result<Self, LabError> {
        let count = site.endpoints().len();
        let state = State {
            weights: vec![Some(1); count],
            ledger: Ledger::new(count, grace_us),
            saves: Vec::new(),
            digest: String::new(),
            is_spoilt: false,
        };
        let path = lab.directory().join(PLACE);
        let configuration =
            Self { lab, site, stopwatch, path, file: Mutex::default(), state: Mutex::new(state) };
        configuration.save(|_| true)?;
        Ok(configuration)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it is about.
    pub const fn site(&self) -> &Site {
        &self.site
    }

    /// Lets `change` decide about the weights, and saves. Nothing happens when it says no, or while
    /// the file is spoilt.
    pub fn save(&self, change: impl FnOnce(&mut Weights<'_>) -> bool) -> Result<bool, LabError> {
        let _file = self.lock_file();
        let mut state = self.lock();
        let before = state.weights.clone();
        let State { weights, ledger, is_spoilt, .. } = &mut *state;
        let mut wanted = Weights { weights, ledger, site: &self.site };
        if *is_spoilt || !change(&mut wanted) {
            state.weights = before;
            return Ok(false);
        }
        drop(state);
        self.put(&before)?;
        Ok(true)
    }

    /// Replaces the file by what `damage` makes of its bytes, as an editor does or in place, until
    /// [`Configuration::mend`].
    pub fn spoil(&self, in_place: bool, damage: impl FnOnce(&mut Vec<u8>)) -> Result<(), LabError> {
        let _file = self.lock_file();
        self.lock().is_spoilt = true;
        let mut bytes = fs::read(&self.path).map_err(LabError::file("read", &self.path))?;
        damage(&mut bytes);
        if in_place {
            let write = |path: &Path| -> io::Result<()> {
                let file = fs::OpenOptions::new().write(true).open(path)?;
                file.set_len(0)?;
                (&file).write_all(&bytes)
            };
            write(&self.path).map_err(LabError::file("damage", &self.path))
        } else {
            self.lab.write(PLACE, bytes).map(drop)
        }
    }

    /// Saves what was in the file before it was spoilt.
    pub fn mend(&self) -> Result<(), LabError> {
        let _file = self.lock_file();
        self.lock().is_spoilt = false;
        let weights = self.lock().weights.clone();
        self.put(&weights)
    }

    /// A configuration with this digest was seen in force.
    pub fn seen_in_force(&self, digest: &str) {
        let now = self.stopwatch.now_us();
        let mut state = self.lock();
        if state.digest == digest
            && let Some(last) = state.saves.last_mut()
        {
            last.in_force_us.get_or_insert(now);
        }
    }

    /// Whether this is the digest of the newest save.
    pub fn is_newest(&self, digest: &str) -> bool {
        self.lock().digest == digest
    }

    /// Whether the file is spoilt now.
    pub fn is_spoilt(&self) -> bool {
        self.lock().is_spoilt
    }

    /// Whether a connection may have reached the endpoint.
    pub fn allows(&self, endpoint: usize, begin_us: u64, end_us: u64) -> bool {
        self.lock().ledger.allows(endpoint, begin_us, end_us)
    }

    /// How long ago the endpoint was removed, in microseconds.
    pub fn removed_since_us(&self, endpoint: usize, now_us: u64) -> Option<u64> {
        Some(now_us.saturating_sub(self.lock().ledger.removed_us(endpoint)?))
    }

    /// Every save.
    pub fn saves(&self) -> Vec<Save> {
        self.lock().saves.clone()
    }

    /// The endpoints in the newest save, as the worker's rows name them.
    pub fn programmed(&self) -> Vec<(String, String, u16)> {
        self.site.programmed(&self.lock().weights)
    }

    /// Renames a new text into its place. What is added is in the ledger before, what is removed
    /// after: both in favour of a connection made at that very instant.
    fn put(&self, before: &[Option<u16>]) -> Result<(), LabError> {
        let weights = self.lock().weights.clone();
        let text = self.site.render(&weights);
        let digest = Sources::single(FILE, text.as_str()).digest();
        let changes = || before.iter().zip(&weights).enumerate();
        let now = self.stopwatch.now_us();
        for (endpoint, _) in changes().filter(|(_, (old, new))| old.is_none() && new.is_some()) {
            self.lock().ledger.add(endpoint, now);
        }
        self.lab.write(PLACE, text)?;
        let mut state = self.lock();
        let now = self.stopwatch.now_us();
        for (endpoint, _) in changes().filter(|(_, (old, new))| old.is_some() && new.is_none()) {
            state.ledger.remove(endpoint, now);
        }
        state.saves.push(Save { at_us: now, in_force_us: None });
        state.digest = digest;
        Ok(())
    }

    fn lock_file(&self) -> MutexGuard<'_, ()> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a thread left that panicked is still right: each change is made whole under the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The weights of all endpoints, to be changed.
pub struct Weights<'s> {
    weights: &'s mut Vec<Option<u16>>,
    ledger: &'s Ledger,
    site: &'s Site,
}

impl Weights<'_> {
    /// How many endpoints there are, those that are not in the configuration included.
    pub const fn count(&self) -> usize {
        self.weights.len()
    }

    /// Gives an endpoint that is there another weight.
    pub fn reweight(&mut self, endpoint: usize, weight: u16) -> bool {
        let is_there = self.weights[endpoint].is_some();
        if is_there {
            self.weights[endpoint] = Some(weight);
        }
        is_there
    }

    /// Removes an endpoint, unless it is the last one of its service or not there.
    pub fn remove(&mut self, endpoint: usize) -> bool {
        let service = self.site.endpoints()[endpoint].service;
        let is_of_service = |n: &usize| self.site.endpoints()[*n].service == service;
        let there = (0..self.count()).filter(is_of_service);
        let there = there.filter(|n| self.weights[*n].is_some()).count();
        self.weights[endpoint].is_some() && there > 1 && self.weights[endpoint].take().is_some()
    }

    /// Brings an endpoint back that has been away for at least `least_us`.
    pub fn add(&mut self, endpoint: usize, now_us: u64, least_us: u64) -> bool {
        let removed = self.ledger.removed_us(endpoint);
        let is_long = removed.is_some_and(|removed| removed + least_us <= now_us);
        if is_long {
            self.weights[endpoint] = Some(1);
        }
        is_long
    }
}
