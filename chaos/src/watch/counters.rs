//! What the kernel has counted, as the worker reads it.
//!
//! A question to a worker that dies over it stays unanswered for a while, which is why this is a
//! thread of its own.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use holdfast_lab::control::{ask_worker, socket_path};
use holdfast_protocol::control::{WorkerAnswer, WorkerQuery};

use super::{State, Watch};
use crate::load::site::Site;

/// Time between two questions: counters are read from the kernel and not from the worker, so seldom
/// is enough to see them go back, and often enough that most workers are asked.
const LOOK: Duration = Duration::from_millis(200);

/// Most complaints that are kept.
const MOST_COMPLAINTS: usize = 100;

impl Watch<'_> {
    /// Asks until `stop`, and once more.
    pub fn watch_counters(&self, stop: &AtomicBool) {
        let (socket, mut counted) = (socket_path(self.lab), BTreeMap::new());
        while !stop.load(Ordering::Relaxed) {
            self.look_at_counters(&socket, &mut counted);
            std::thread::sleep(LOOK);
        }
        // The last word is that of a worker at rest.
        self.look_at_counters(&socket, &mut counted);
    }

    fn look_at_counters(&self, socket: &Path, counted: &mut BTreeMap<String, u64>) {
        // The services that clients connect to come first, on the first page.
        let query = WorkerQuery::Services { offset: 0 };
        let Ok(WorkerAnswer::Services { rows, .. }) = ask_worker(socket, &query) else {
            return;
        };
        let State { seen, .. } = &mut *self.lock();
        seen.counters.looks += 1;
        for row in rows.into_iter().filter(|row| Site::is_served(&row.service)) {
            let before = counted.insert(row.service.clone(), row.connections).unwrap_or(0);
            if row.connections < before && seen.counters.went_back.len() < MOST_COMPLAINTS {
                let (service, now) = (row.service, row.connections);
                seen.counters.went_back.push(format!("{service}: {before}, then {now}"));
            }
        }
        seen.counters.connections = counted.values().sum();
    }
}
