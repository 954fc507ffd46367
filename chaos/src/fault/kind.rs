//! Which faults there are, and which cannot be had at the same time.

use std::collections::BTreeSet;
use std::fmt::{self, Display, Formatter};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A family of faults, by the name the command line knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Kill,
    Stop,
    Hang,
    SighupStorm,
    SupervisorKill,
    BothKill,
    SupervisorPause,
    SupervisorReplace,
    UnlinkPins,
    DetachLink,
    RemoveCgroup,
    CorruptConfiguration,
    TruncateConfiguration,
    CorruptSnapshot,
    TruncateSnapshot,
    FullState,
    NoDescriptors,
    NoMemory,
    OutOfMemory,
    ClockJump,
}

/// What a fault takes away for a time, and what another one may count on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ground {
    Worker,
    Supervisor,
    Pins,
    Links,
    Configuration,
    State,
    Limits,
    Clock,
}

/// What a kind is like.
struct Nature {
    name: &'static str,
    about: &'static str,
    /// What it takes away.
    breaks: &'static [Ground],
    /// What has to be whole for it: what survives it only together with that.
    needs: &'static [Ground],
    /// Shortest and longest time it goes on, in milliseconds; 0 for what is over at once.
    hold_ms: (u32, u32),
    /// How long the state after it usually takes to be as before, in milliseconds. The plan leaves
    /// that much room; the run waits as long as it takes.
    settle_ms: u32,
}

impl Kind {
    /// Every kind, in the order they are listed in.
    pub const ALL: [Self; 20] = [
        Self::Kill,
        Self::Stop,
        Self::Hang,
        Self::SighupStorm,
        Self::SupervisorKill,
        Self::BothKill,
        Self::SupervisorPause,
        Self::SupervisorReplace,
        Self::UnlinkPins,
        Self::DetachLink,
        Self::RemoveCgroup,
        Self::CorruptConfiguration,
        Self::TruncateConfiguration,
        Self::CorruptSnapshot,
        Self::TruncateSnapshot,
        Self::FullState,
        Self::NoDescriptors,
        Self::NoMemory,
        Self::OutOfMemory,
        Self::ClockJump,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        self.nature().name
    }

    /// What it does, in a line.
    pub const fn about(self) -> &'static str {
        self.nature().about
    }

    /// Shortest and longest time it goes on.
    pub fn hold(self) -> (Duration, Duration) {
        let (shortest, longest) = self.nature().hold_ms;
        (Duration::from_millis(shortest.into()), Duration::from_millis(longest.into()))
    }

    /// How long the state after it usually takes to be as before.
    pub fn settle(self) -> Duration {
        Duration::from_millis(self.nature().settle_ms.into())
    }

    /// Whether it is over at once and may hit at any time, whatever else goes on.
    pub const fn is_light(self) -> bool {
        matches!(self, Self::Kill | Self::SighupStorm)
    }

    /// Whether it takes from the supervisor what no process lives without: it may end, and has to be
    /// started again.
    pub const fn starves(self) -> bool {
        matches!(self, Self::NoDescriptors | Self::NoMemory)
    }

    /// Whether the two cannot be had at the same time: they take the same away, or one takes away
    /// what the other is survived by.
    pub fn conflicts(self, other: Self) -> bool {
        let (own, other) = (self.nature(), other.nature());
        let hits = |breaks: &[Ground], whole: &[Ground]| breaks.iter().any(|b| whole.contains(b));
        hits(own.breaks, other.breaks)
            || hits(own.breaks, other.needs)
            || hits(other.breaks, own.needs)
    }

    const fn nature(self) -> Nature {
        use Ground::{Clock, Configuration, Limits, Links, Pins, State, Supervisor, Worker};
        match self {
            Self::Kill => Nature::new("kill", "SIGKILL to a worker", &[], &[], (0, 0), 100),
            Self::Stop => {
                let about = "SIGSTOP to the worker until its silence is noticed";
                Nature::new("stop", about, &[Worker], &[Supervisor], (3_500, 4_000), 500)
            }
            Self::Hang => {
                let about = "SIGSTOP to the worker, SIGCONT later";
                Nature::new("hang", about, &[Worker], &[Supervisor], (100, 3_300), 500)
            }
            Self::SighupStorm => {
                let about = "5 to 50 SIGHUP to the supervisor at once";
                Nature::new("sighup-storm", about, &[], &[], (0, 0), 300)
            }
            Self::SupervisorKill => {
                let about = "SIGKILL to the supervisor, started again later";
                let needs = &[Worker, Pins, Links, State];
                Nature::new("supervisor-kill", about, &[Supervisor], needs, (0, 800), 500)
            }
            Self::BothKill => {
                let about = "SIGKILL to worker and supervisor, started again later";
                let needs = &[Worker, Pins, Links, State];
                Nature::new("both-kill", about, &[Supervisor], needs, (0, 800), 500)
            }
            Self::SupervisorPause => {
                let about = "SIGSTOP to the supervisor, SIGCONT later: its clock jumps forward";
                let needs = &[Worker, Pins, Links];
                Nature::new("supervisor-pause", about, &[Supervisor], needs, (200, 4_000), 500)
            }
            Self::SupervisorReplace => {
                let about = "SIGUSR2: the supervisor becomes the binary on disk";
                Nature::new("supervisor-replace", about, &[Supervisor], &[Worker], (300, 300), 500)
            }
            Self::UnlinkPins => {
                let about = "removes one pin, or all of them with their directories";
                Nature::new("unlink-pins", about, &[Pins], &[Supervisor], (0, 0), 2_500)
            }
            Self::DetachLink => {
                let about = "detaches a link behind the supervisor's back (not governed for 2 s)";
                let needs = &[Supervisor, Pins, Limits];
                Nature::new("detach-link", about, &[Links], needs, (0, 0), 2_500)
            }
            Self::RemoveCgroup => {
                let about = "removes the governed cgroup, makes one anew (cannot be survived)";
                let needs = &[Supervisor, Pins, Limits];
                Nature::new("remove-cgroup", about, &[Links], needs, (500, 2_500), 2_500)
            }
            Self::CorruptConfiguration => {
                let about = "saves a configuration that is no text";
                let breaks = &[Configuration];
                Nature::new("corrupt-configuration", about, breaks, &[], (300, 1_500), 500)
            }
            Self::TruncateConfiguration => {
                let about = "cuts the configuration off in place";
                let breaks = &[Configuration];
                Nature::new("truncate-configuration", about, breaks, &[], (300, 1_500), 500)
            }
            Self::CorruptSnapshot => {
                let about = "flips a byte of the snapshot";
                Nature::new("corrupt-snapshot", about, &[State], &[], (0, 0), 100)
            }
            Self::TruncateSnapshot => {
                let about = "cuts the snapshot off";
                Nature::new("truncate-snapshot", about, &[State], &[], (0, 0), 100)
            }
            Self::FullState => {
                let about = "fills the state directory's file system";
                Nature::new("full-state", about, &[State], &[], (500, 2_000), 500)
            }
            Self::NoDescriptors => {
                let about = "no further descriptor for supervisor and worker (RLIMIT_NOFILE)";
                Nature::new("no-descriptors", about, &[Limits], &[], (500, 2_000), 1_000)
            }
            Self::NoMemory => {
                let about = "no further memory for supervisor and worker (RLIMIT_AS)";
                Nature::new("no-memory", about, &[Limits], &[], (500, 2_000), 1_000)
            }
            Self::OutOfMemory => {
                let about = "a memory cgroup too small for the worker: the kernel ends it";
                Nature::new("out-of-memory", about, &[Worker], &[], (500, 1_500), 500)
            }
            Self::ClockJump => {
                let about = "shifts the wall clock that supervisor and worker read";
                Nature::new("clock-jump", about, &[Clock], &[], (500, 2_000), 100)
            }
        }
    }
}

impl Nature {
    const fn new(
        name: &'static str,
        about: &'static str,
        breaks: &'static [Ground],
        needs: &'static [Ground],
        hold_ms: (u32, u32),
        settle_ms: u32,
    ) -> Self {
        Self { name, about, breaks, needs, hold_ms, settle_ms }
    }
}

impl Display for Kind {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Some kinds; at least one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Kinds(BTreeSet<Kind>);

impl Kinds {
    /// In their order.
    pub fn iter(&self) -> impl Iterator<Item = Kind> {
        self.0.iter().copied()
    }

    /// Whether `kind` is among them.
    #[cfg(test)]
    pub fn has(&self, kind: Kind) -> bool {
        self.0.contains(&kind)
    }
}

impl FromStr for Kinds {
    type Err = String;

    /// `kill,stop`: these; `all`; `all,-remove-cgroup`: all but that one.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut chosen = BTreeSet::new();
        for word in text.split(',').map(str::trim) {
            match (word, word.strip_prefix('-')) {
                ("all", _) => chosen.extend(Kind::ALL),
                (_, Some(name)) => drop(chosen.remove(&named(name)?)),
                (name, None) => drop(chosen.insert(named(name)?)),
            }
        }
        if chosen.is_empty() {
            return Err("no fault is left: name one, or `all`".to_owned());
        }
        Ok(Self(chosen))
    }
}

impl Display for Kinds {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0.len() == Kind::ALL.len() {
            return f.write_str("all");
        }
        let names: Vec<&str> = self.iter().map(Kind::name).collect();
        f.write_str(&names.join(","))
    }
}

fn named(name: &str) -> Result<Kind, String> {
    Kind::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| {
        let names = Kind::ALL.map(Kind::name).join(", ");
        format!("there is no fault `{name}`: possible are all, {names}; `-NAME` leaves one out")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read() {
        let read = |text: &str| text.parse::<Kinds>().map(|kinds| kinds.to_string());
        assert_eq!(read("kill"), Ok("kill".to_owned()));
        assert_eq!(read(" stop, kill,kill"), Ok("kill,stop".to_owned()));
        assert_eq!(read("all"), Ok("all".to_owned()));
        let without = read("all,-remove-cgroup").expect("valid");
        assert!(!without.contains("remove-cgroup") && without.contains("detach-link"));
        assert!(read("kil").expect_err("no such").contains("`kil`"));
        assert!(read("").is_err());
        assert!(read("kill,-kill").expect_err("nothing left").contains("no fault is left"));
    }

    #[test]
    fn every_name_is_read_and_serialized_as_listed() {
        for kind in Kind::ALL {
            assert_eq!(named(kind.name()), Ok(kind));
            let json = serde_json::to_string(&kind).expect("a name");
            assert_eq!(json, format!("\"{kind}\""));
        }
    }

    #[test]
    fn what_would_lose_the_links_cannot_be_had_together() {
        for (one, other) in [
            (Kind::UnlinkPins, Kind::SupervisorKill),
            (Kind::DetachLink, Kind::BothKill),
            (Kind::NoDescriptors, Kind::DetachLink),
            (Kind::Stop, Kind::Hang),
        ] {
            assert!(one.conflicts(other) && other.conflicts(one), "{one}, {other}");
        }
        assert!(!Kind::Kill.conflicts(Kind::UnlinkPins));
        assert!(!Kind::NoMemory.conflicts(Kind::CorruptConfiguration));
        assert!(Kind::ALL.iter().filter(|kind| !kind.is_light()).all(|kind| kind.conflicts(*kind)));
    }
}
