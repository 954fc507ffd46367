//! What the supervisor says, compared with what the kernel says.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use holdfast_bpf::link::attached_programs;
use holdfast_lab::control::{socket_path, status};
use holdfast_lab::process::is_alive;
use holdfast_lab::supervisor::GRANTED;
use holdfast_protocol::control::Status;
use holdfast_protocol::handover::ConfigState;

use super::{Watch, processes};
use crate::history::{Grant, Hooks, Links};
use crate::run::stage::pins;

/// Time between two looks while a takeover is measured: what the measure is exact to.
const CLOSE_LOOK: Duration = Duration::from_millis(1);

/// Time between two looks at everything, in microseconds: often enough to know the worker that
/// writes, seldom enough to leave the supervisor alone.
const IDLE_LOOK_US: u64 = 10_000;

/// `enum bpf_attach_type` of the hooks: what becomes of a TCP socket, connect, sendmsg, recvmsg and
/// getpeername of IPv4 and IPv6, and the release of a socket.
const HOOKS: [u32; 10] = [3, 10, 11, 14, 15, 19, 20, 29, 30, 34];

/// Most complaints that are kept.
const MOST_COMPLAINTS: usize = 100;

/// What stays the same from look to look.
struct Looks {
    socket: PathBuf,
    /// How many pins there are when all are there.
    pins: usize,
}

impl Watch<'_> {
    /// Looks until `stop`. To be called when everything is as it should be.
    pub fn watch_status(&self, stop: &AtomicBool) {
        let looks = Looks { socket: socket_path(self.lab), pins: self.pins() };
        let mut next_us = 0;
        while !stop.load(Ordering::Relaxed) {
            if self.stopwatch.now_us() >= next_us {
                self.look(&looks);
                next_us = self.stopwatch.now_us() + IDLE_LOOK_US;
            } else if self.lock().outages.is_open() {
                self.look_for_grant(&looks);
            }
            std::thread::sleep(CLOSE_LOOK);
        }
    }

    /// Asks for the worker only, so that the answer is there at once.
    fn look_for_grant(&self, looks: &Looks) {
        if let Ok(status) = status(&looks.socket)
            && status.worker.state == GRANTED
        {
            self.note_grant(&status, self.stopwatch.now_us());
        }
    }

    fn look(&self, looks: &Looks) {
        let begin_us = self.stopwatch.now_us();
        self.look_at_hooks();
        let status = match status(&looks.socket) {
            Ok(status) => status,
            Err(error) => {
                self.lock().ailment = error.to_string();
                return;
            }
        };
        let now_us = self.stopwatch.now_us();
        if status.worker.state == GRANTED {
            self.note_grant(&status, now_us);
        }
        self.note_links(&status, now_us);
        if status.config.state == ConfigState::InForce {
            self.configuration.seen_in_force(&status.config.digest);
        }
        let ailment = self.ailment_of(&status, looks.pins);
        {
            let mut state = self.lock();
            if ailment.is_none() {
                state.healthy_us = state.healthy_us.max(begin_us);
            }
            state.ailment = ailment.unwrap_or_default();
        }
    }

    /// What is not as it should be.
    fn ailment_of(&self, status: &Status, pins: usize) -> Option<String> {
        let (config, drift) = (&status.config, &status.drift.open);
        if status.worker.state != GRANTED {
            return Some(format!(
                "the worker is {}: {}",
                status.worker.state, status.worker.reason
            ));
        }
        if !is_alive(status.worker.pid) {
            return Some(format!("worker {} has ended", status.worker.pid));
        }
        if config.state != ConfigState::InForce || !self.configuration.is_newest(&config.digest) {
            // A spoilt file is not in force, and must not be.
            if !self.configuration.is_spoilt() {
                return Some(format!("the configuration is {:?} {}", config.state, config.error));
            }
        }
        if let Some(link) = status.links.iter().find(|link| !link.ok || !link.pinned) {
            return Some(format!("{link:?}"));
        }
        if let Some(drift) = drift.first() {
            return Some(drift.clone());
        }
        let state = self.lock();
        let hooks = state.seen.kernel.hooks.last().and_then(|hooks| hooks.programs.as_ref());
        if !hooks.is_some_and(|hooks| hooks.iter().all(|programs| programs.len() == 1)) {
            return Some(format!("the hooks carry {hooks:?}"));
        }
        drop(state);
        let there = self.pins();
        (there != pins).then(|| format!("{there} pins of {pins}"))
    }

    fn note_grant(&self, status: &Status, now_us: u64) {
        let (pid, epoch) = (status.worker.pid, status.epoch);
        let mut state = self.lock();
        state.outages.granted(pid, epoch, now_us);
        let (oddities, last) = {
            let seen = &mut state.seen.processes;
            (&mut seen.oddities, seen.grants.last())
        };
        let odd = match last {
            Some(last) if last.epoch == epoch && last.pid == pid => return,
            Some(last) if last.epoch == epoch => {
                Some(format!("epoch {epoch} was granted to {} and to {pid}", last.pid))
            }
            Some(last) if last.epoch > epoch => {
                Some(format!("epoch {epoch} came after epoch {}", last.epoch))
            }
            _ => None,
        };
        if oddities.len() < MOST_COMPLAINTS {
            oddities.extend(odd);
        }
        let rights = processes::rights(pid);
        state.seen.processes.grants.push(Grant { at_us: now_us, epoch, pid, rights });
    }

    fn note_links(&self, status: &Status, now_us: u64) {
        let ids: Vec<u32> = status.links.iter().map(|link| link.link_id).collect();
        let links = &mut self.lock().seen.kernel.links;
        if links.last().is_none_or(|last| last.ids != ids) {
            links.push(Links { at_us: now_us, ids });
        }
    }

    fn look_at_hooks(&self) {
        let programs = File::open(self.lab.governed()).ok().and_then(|cgroup| {
            let attached = HOOKS.map(|hook| attached_programs(cgroup.as_fd(), hook).ok());
            attached.into_iter().collect::<Option<Vec<_>>>()
        });
        let at_us = self.stopwatch.now_us();
        let kernel = &mut self.lock().seen.kernel;
        kernel.looks += 1;
        if kernel.hooks.last().is_none_or(|last| last.programs != programs) {
            kernel.hooks.push(Hooks { at_us, programs });
        }
    }

    fn pins(&self) -> usize {
        crate::fault::estate::files_below(&pins(self.lab)).map_or(0, |pins| pins.len())
    }
}
