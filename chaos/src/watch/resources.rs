//! What the processes take, again and again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use holdfast_lab::control::{socket_path, status};
use holdfast_lab::process;
use holdfast_lab::supervisor::GRANTED;

use super::Watch;
use crate::history::{Sample, Taken};

/// Time between two samples: some thousand in an hour, each of which costs half a millisecond.
const DISTANCE: Duration = Duration::from_secs(1);

/// Time between two looks at whether to stop.
const NAP: Duration = Duration::from_millis(50);

/// Most samples that are kept: a day's.
const MOST_SAMPLES: usize = 24 * 60 * 60;

/// Bytes of a kibibyte.
const KIB: u64 = 1024;

impl Watch<'_> {
    /// Looks until `stop`.
    pub fn watch_resources(&self, stop: &AtomicBool) {
        let naps = DISTANCE.as_millis() / NAP.as_millis();
        for turn in 0.. {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            if turn % naps == 0 {
                self.sample();
            }
            std::thread::sleep(NAP);
        }
    }

    /// A fault may have taken the supervisor or its worker away: then there is no sample.
    fn sample(&self) {
        let Ok(status) = status(&socket_path(self.lab)) else { return };
        if status.worker.state != GRANTED {
            return;
        }
        let (Some(supervisor), Some(worker)) =
            (taken(status.supervisor.pid), taken(status.worker.pid))
        else {
            return;
        };
        let at_us = self.stopwatch.now_us();
        let samples = &mut self.lock().seen.resources;
        if samples.len() < MOST_SAMPLES {
            samples.push(Sample { at_us, supervisor, worker });
        }
    }
}

fn taken(pid: u32) -> Option<Taken> {
    Some(Taken {
        memory_kib: process::proportional_bytes(pid).ok()? / KIB,
        descriptors: process::descriptors(pid).ok()?,
    })
}
