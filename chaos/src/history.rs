//! What happened in a run, as data: what the invariants judge and the report shows.
//!
//! Instants are microseconds since the run began, on the monotonic clock.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::fault::effect::{Effect, Family};
use crate::fault::{Fault, Kind};

/// Width of the bins that connections are counted in, in microseconds.
pub const BIN_US: u64 = 250_000;

/// Everything that was recorded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// From the begin to the end of the load.
    pub end_us: u64,
    /// What was injected, in order.
    pub injected: Vec<Injected>,
    /// What nobody could keep, and when.
    pub windows: Vec<Window>,
    /// New connections.
    pub connections: Connections,
    /// Long connections.
    pub streams: Vec<StreamHistory>,
    /// Saves of the configuration.
    pub saves: Vec<Save>,
    /// Times in which no worker could write, because of a fault.
    pub outages: Vec<Outage>,
    /// What was seen of workers and supervisors.
    pub processes: Processes,
    /// What was seen in the kernel.
    pub kernel: Kernel,
    /// What the kernel counted.
    pub counters: Counters,
    /// What the processes took, again and again.
    pub resources: Vec<Sample>,
    /// How it ended.
    pub ending: Ending,
}

/// A fault that was injected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Injected {
    /// What.
    #[serde(flatten)]
    pub fault: Fault,
    /// When the plan wanted it.
    pub planned_us: u64,
    /// When it began.
    pub at_us: u64,
    /// When it ended.
    pub end_us: u64,
    /// When the state was first seen to be as before.
    pub restored_us: Option<u64>,
    /// Whether there was something it could hit.
    pub hit: bool,
    /// What exactly it did.
    pub note: String,
}

/// A time in which something was impossible by nature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// From just before the fault.
    pub from_us: u64,
    /// Until the state was seen to be as before.
    pub to_us: u64,
    /// The fault.
    pub because_of: Kind,
    /// What could happen.
    #[serde(flatten)]
    pub effect: Effect,
}

/// New connections, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    /// TCP.
    pub tcp: Outcomes,
    /// UDP.
    pub udp: Outcomes,
    /// All of them, by the time they began at: [`BIN_US`] each.
    pub per_bin: Vec<u32>,
    /// Those that did not go as promised; at most [`MAX_INCIDENTS`].
    pub incidents: Vec<Incident>,
    /// How many more there are that a window excuses.
    pub excused: BTreeMap<Trouble, u64>,
    /// Time from the call to the backend's greeting.
    pub time: Percentiles,
}

/// Most incidents that are described one by one, in 150 bytes each. All are counted. An hour of every fault has less than a million.
pub const MAX_INCIDENTS: usize = 4_000_000;

/// How many connections went how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcomes {
    /// Reached an endpoint of the service.
    pub reached: u64,
    /// Failed in another way than those below.
    pub failed: u64,
    /// Were not governed: refused at the virtual address, or answered by a stranger.
    pub ungoverned: u64,
    /// Reached an endpoint removed too long before.
    pub misrouted: u64,
    /// Were opened and then reset.
    pub reset: u64,
}

/// A connection that did not go as promised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// What happened.
    pub trouble: Trouble,
    /// The client's address family.
    pub family: Family,
    /// When it began.
    pub from_us: u64,
    /// When it ended.
    pub to_us: u64,
    /// What exactly happened.
    pub text: String,
}

/// How a connection can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trouble {
    Failed,
    Ungoverned,
    Misrouted,
    Reset,
}

/// A long connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamHistory {
    /// The virtual address.
    pub address: String,
    /// Bytes that came back right.
    pub bytes: u64,
    /// Why it broke, if it did.
    pub broken: Option<String>,
}

/// A save of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Save {
    /// When it was renamed into its place.
    pub at_us: u64,
    /// When it was seen in force; `None` when it was not, because a later one was or the run ended.
    pub in_force_us: Option<u64>,
}

/// A time in which no worker could write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outage {
    /// From just before the fault that ended the worker.
    pub from_us: u64,
    /// Until the next one was seen granted.
    pub to_us: u64,
    /// The fault.
    pub because_of: Kind,
    /// Whether nothing else went on in that time.
    pub alone: bool,
}

/// What was seen of workers and supervisors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Processes {
    /// How often `/proc` was looked through.
    pub looks: u64,
    /// Most workers that existed at one look.
    pub most_workers: usize,
    /// Two processes that could both write at one instant, described.
    pub two_writers: Vec<String>,
    /// Each worker that was seen granted.
    pub grants: Vec<Grant>,
    /// Epochs that went back, or were granted twice.
    pub oddities: Vec<String>,
    /// Supervisors that ended without a fault that ends or starves them.
    pub unasked_ends: Vec<String>,
}

/// A worker that was seen granted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// When it was seen first.
    pub at_us: u64,
    /// Its epoch.
    pub epoch: u64,
    /// Its process.
    pub pid: u32,
    /// What `/proc` says about its rights; `None` when it had ended before it could be asked.
    pub rights: Option<Rights>,
}

/// What `/proc/PID/status` says about a process's rights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rights {
    /// Real, effective, saved and file system user.
    pub users: String,
    /// The five capability sets, one after the other.
    pub capabilities: String,
    /// `NoNewPrivs`.
    pub no_new_privs: String,
}

/// What was seen in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// How often the hooks were looked at.
    pub looks: u64,
    /// The programs on the hooks, each time they were others than before.
    pub hooks: Vec<Hooks>,
    /// The links' ids as the supervisor names them, each time they were others than before.
    pub links: Vec<Links>,
}

/// The programs on the hooks of the governed cgroup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hooks {
    /// When they were seen.
    pub at_us: u64,
    /// Ids of the programs attached to each hook; `None` without a cgroup.
    pub programs: Option<Vec<Vec<u32>>>,
}

/// The ids of the links.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Links {
    /// When the supervisor named them.
    pub at_us: u64,
    /// In its order.
    pub ids: Vec<u32>,
}

/// What the kernel counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// How often the worker was asked.
    pub looks: u64,
    /// Each counter that was seen lower than before, described.
    pub went_back: Vec<String>,
    /// Connections sent to an endpoint, at the end, of all services together.
    pub connections: u64,
}

/// What supervisor and worker took at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// When.
    pub at_us: u64,
    /// The supervisor.
    pub supervisor: Taken,
    /// The worker that writes.
    pub worker: Taken,
}

/// What a process took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// Its proportional set size.
    pub memory_kib: u64,
    /// Its open descriptors.
    pub descriptors: usize,
}

/// How it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// What was still not as it should be, long after the last fault.
    pub unsettled: Option<String>,
    /// Where what is programmed differs from the configuration.
    pub differences: Vec<String>,
    /// What was wrong with the uninstall or left by it.
    pub leftovers: Vec<String>,
}

/// Of times that were measured, in microseconds, of the nearest rank.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Percentiles {
    pub count: usize,
    pub p50_us: u64,
    pub p90_us: u64,
    pub p99_us: u64,
    pub longest_us: u64,
}

impl Percentiles {
    /// Of these times.
    pub fn of(mut times_us: Vec<u64>) -> Self {
        times_us.sort_unstable();
        let rank = |percent: usize| {
            let rank = (times_us.len() * percent).div_ceil(100);
            times_us.get(rank.saturating_sub(1)).copied().unwrap_or_default()
        };
        let (p50_us, p90_us, p99_us, longest_us) = (rank(50), rank(90), rank(99), rank(100));
        Self { count: times_us.len(), p50_us, p90_us, p99_us, longest_us }
    }
}

impl Outcomes {
    /// All connections.
    pub const fn all(&self) -> u64 {
        self.reached + self.failed + self.ungoverned + self.misrouted + self.reset
    }

    /// Those of one trouble.
    pub const fn of(&self, trouble: Trouble) -> u64 {
        match trouble {
            Trouble::Failed => self.failed,
            Trouble::Ungoverned => self.ungoverned,
            Trouble::Misrouted => self.misrouted,
            Trouble::Reset => self.reset,
        }
    }

    /// Counts one.
    pub const fn add(&mut self, trouble: Option<Trouble>) {
        match trouble {
            None => self.reached += 1,
            Some(Trouble::Failed) => self.failed += 1,
            Some(Trouble::Ungoverned) => self.ungoverned += 1,
            Some(Trouble::Misrouted) => self.misrouted += 1,
            Some(Trouble::Reset) => self.reset += 1,
        }
    }
}

impl Connections {
    /// All connections.
    pub const fn all(&self) -> u64 {
        self.tcp.all() + self.udp.all()
    }
}

impl Window {
    /// Whether a connection may have suffered from it.
    pub const fn touches(&self, from_us: u64, to_us: u64) -> bool {
        self.from_us <= to_us && from_us <= self.to_us
    }
}

impl History {
    /// Whether a window declares that this incident could not be helped.
    pub fn is_excused(&self, incident: &Incident) -> bool {
        let may = match incident.trouble {
            Trouble::Ungoverned => Effect::Ungoverned(incident.family),
            Trouble::Misrouted => Effect::LateRemoval,
            Trouble::Failed | Trouble::Reset => return false,
        };
        let (from, to) = (incident.from_us, incident.to_us);
        self.windows.iter().any(|window| window.effect == may && window.touches(from, to))
    }

    /// Incidents that nothing excuses.
    pub fn inexcusable(&self, trouble: Trouble) -> impl Iterator<Item = &Incident> {
        let incidents = self.connections.incidents.iter();
        incidents.filter(move |incident| incident.trouble == trouble && !self.is_excused(incident))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let of = |times: std::ops::RangeInclusive<u64>| Percentiles::of(times.rev().collect());
        let hundred = of(1..=100);
        assert_eq!((hundred.p50_us, hundred.p99_us, hundred.longest_us), (50, 99, 100));
        assert_eq!(of(7..=7).p50_us, 7);
        assert_eq!(Percentiles::of(Vec::new()), Percentiles::default());
    }

    #[test]
    fn a_window_excuses_its_own_trouble_family_and_time_only() {
        let window = Window {
            from_us: 100,
            to_us: 200,
            because_of: Kind::DetachLink,
            effect: Effect::Ungoverned(Family::Ipv4),
        };
        let history = History { windows: vec![window], ..History::default() };
        let incident = |trouble, family, from_us, to_us| Incident {
            trouble,
            family,
            from_us,
            to_us,
            text: String::new(),
        };
        let (v4, v6) = (Family::Ipv4, Family::Ipv6);
        let excused = |incident| history.is_excused(&incident);
        assert!(excused(incident(Trouble::Ungoverned, v4, 50, 100)));
        assert!(excused(incident(Trouble::Ungoverned, v4, 200, 300)));
        assert!(!excused(incident(Trouble::Ungoverned, v4, 201, 300)));
        assert!(!excused(incident(Trouble::Ungoverned, v4, 10, 99)));
        assert!(!excused(incident(Trouble::Ungoverned, v6, 150, 160)));
        for trouble in [Trouble::Failed, Trouble::Misrouted, Trouble::Reset] {
            assert!(!excused(incident(trouble, v4, 150, 160)));
        }
    }
}
