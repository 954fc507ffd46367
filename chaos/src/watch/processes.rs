//! How many workers there are, and how many can write.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use holdfast_lab::process;

use super::Watch;
use crate::history::Rights;
use crate::run::stage::all_workers;

/// Time between two looks: shorter than a takeover, so that each is seen, and a look costs a tenth of
/// it.
const LOOK: Duration = Duration::from_millis(5);

/// How many maps a worker has in its memory: heads, tables and services.
const MAPS: usize = 3;

/// Most complaints that are kept.
const MOST_COMPLAINTS: usize = 100;

impl Watch<'_> {
    /// Looks until `stop`.
    pub fn watch_processes(&self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            self.look_at_processes();
            std::thread::sleep(LOOK);
        }
    }

    fn look_at_processes(&self) {
        let Ok(workers) = all_workers(self.lab) else { return };
        let two = two_writers(&workers);
        let mut state = self.lock();
        let seen = &mut state.seen.processes;
        seen.looks += 1;
        seen.most_workers = seen.most_workers.max(workers.len());
        if let Some((one, other)) = two
            && seen.two_writers.len() < MOST_COMPLAINTS
        {
            let at = self.stopwatch.now_us() / 1000;
            seen.two_writers.push(format!("at {at} ms both {one} and {other} could write"));
        }
    }
}

/// Two processes that could both write at one instant: the first can still write after the second
/// was seen to.
fn two_writers(workers: &[u32]) -> Option<(u32, u32)> {
    let writers: Vec<u32> = workers.iter().copied().filter(|pid| can_write(*pid)).collect();
    match writers[..] {
        [one, other, ..] if can_write(one) => Some((one, other)),
        _ => None,
    }
}

/// Whether a process may write to the maps: each is mapped into its memory, and writable.
///
/// A worker that was not granted, or has let go, has them read-only. Each is writable for the moment
/// between its being mapped and its being made read-only, because the kernel asks for that; so one
/// alone says nothing.
fn can_write(pid: u32) -> bool {
    can_write_by(&process::read(pid, "maps").unwrap_or_default())
}

/// The same, by the text of a process's `/proc/PID/maps`.
fn can_write_by(maps: &str) -> bool {
    let mapped = maps.lines().filter(|line| line.ends_with("bpf-map"));
    let writable = mapped.clone().filter(|line| line.contains(" rw-s ")).count();
    writable >= MAPS && writable == mapped.count()
}

/// What `/proc` says about the rights of the process `pid`.
pub fn rights(pid: u32) -> Option<Rights> {
    let value = |label| process::status(pid, label).ok();
    let sets = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];
    let capabilities = sets.into_iter().map(value).collect::<Option<Vec<String>>>()?.join(" ");
    let users = value("Uid")?.split_whitespace().collect::<Vec<_>>().join(" ");
    Some(Rights { users, capabilities, no_new_privs: value("NoNewPrivs")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_worker_whose_maps_are_all_writable_can_write() {
        let line = |mode: &str| format!("7f00-7f01 {mode} 00000000 00:0e 15 anon_inode:bpf-map\n");
        let maps =
            |modes: [&str; 3]| modes.map(&line).concat() + "7f02-7f03 rw-p 0 00:00 0 [heap]\n";
        assert!(can_write_by(&maps(["rw-s"; 3])));
        assert!(!can_write_by(&maps(["r--s"; 3])));
        assert!(!can_write_by(&maps(["r--s", "r--s", "rw-s"])), "it is being mapped");
        assert!(!can_write_by(&line("rw-s")), "the first one is being mapped");
        assert!(!can_write_by(""));
    }
}
