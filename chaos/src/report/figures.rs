//! The figures that all forms of a report show. Each is counted from the history; none is assumed.

use std::collections::BTreeMap;

use crate::fault::Kind;
use crate::history::{History, Percentiles, Trouble};

/// Takeover times of one cause.
pub struct Takeovers {
    /// What ended the former worker.
    pub because_of: Kind,
    /// Whether nothing else went on in that time.
    pub alone: bool,
    /// From just before the fault until the next one was seen granted.
    pub time: Percentiles,
}

/// What became of one kind of faults.
#[derive(Default)]
pub struct Tally {
    /// How many were injected.
    pub hit: usize,
    /// How many found nothing to hit.
    pub missed: usize,
    /// Time from the end of each until the state was as before.
    pub restoring: Percentiles,
}

/// A trouble: how many connections had it, and how many of them a window excuses.
pub struct Troubled {
    /// What it is called.
    pub name: &'static str,
    /// All of them.
    pub all: u64,
    /// Those that could not be helped, as a window declares.
    pub excused: u64,
}

/// Takeover times by cause: those alone first.
pub fn takeovers(history: &History) -> Vec<Takeovers> {
    let mut times: BTreeMap<(bool, Kind), Vec<u64>> = BTreeMap::new();
    for outage in &history.outages {
        let key = (!outage.alone, outage.because_of);
        times.entry(key).or_default().push(outage.to_us.saturating_sub(outage.from_us));
    }
    let each = times.into_iter().map(|((not_alone, because_of), times)| Takeovers {
        because_of,
        alone: !not_alone,
        time: Percentiles::of(times),
    });
    each.collect()
}

/// What became of each kind.
pub fn faults(history: &History) -> BTreeMap<Kind, Tally> {
    let mut times: BTreeMap<Kind, Vec<u64>> = BTreeMap::new();
    let mut tallies: BTreeMap<Kind, Tally> = BTreeMap::new();
    for fault in &history.injected {
        let kind = fault.fault.kind();
        let tally = tallies.entry(kind).or_default();
        *(if fault.hit { &mut tally.hit } else { &mut tally.missed }) += 1;
        if let Some(restored) = fault.restored_us {
            times.entry(kind).or_default().push(restored.saturating_sub(fault.end_us));
        }
    }
    for (kind, times) in times {
        tallies.entry(kind).or_default().restoring = Percentiles::of(times);
    }
    tallies
}

/// How many connections had which trouble.
pub fn troubles(history: &History) -> [Troubled; 4] {
    let (tcp, udp) = (&history.connections.tcp, &history.connections.udp);
    [
        (Trouble::Failed, "failed"),
        (Trouble::Ungoverned, "ungoverned"),
        (Trouble::Misrouted, "misrouted"),
        (Trouble::Reset, "reset"),
    ]
    .map(|(trouble, name)| {
        let all = tcp.of(trouble) + udp.of(trouble);
        Troubled { name, all, excused: history.excused(trouble) }
    })
}

/// Times in which one thing was impossible because of one kind of faults.
pub struct Declared {
    /// The faults.
    pub because_of: Kind,
    /// What was impossible, and why.
    pub reason: &'static str,
    /// How many such times.
    pub count: usize,
    /// Their sum.
    pub total_us: u64,
}

/// The windows, by fault and reason.
pub fn windows(history: &History) -> Vec<Declared> {
    let mut sums: BTreeMap<(Kind, &str), (usize, u64)> = BTreeMap::new();
    for window in &history.windows {
        let sum = sums.entry((window.because_of, window.effect.reason())).or_default();
        *sum = (sum.0 + 1, sum.1 + window.to_us.saturating_sub(window.from_us));
    }
    let declared = |((because_of, reason), (count, total_us))| Declared {
        because_of,
        reason,
        count,
        total_us,
    };
    sums.into_iter().map(declared).collect()
}

/// Saves, and the time each took to be in force.
pub fn saves(history: &History) -> Percentiles {
    let times = history.saves.iter();
    let times = times.filter_map(|save| Some(save.in_force_us?.saturating_sub(save.at_us)));
    Percentiles::of(times.collect())
}

/// Bytes that came back right on the long connections.
pub fn bytes(history: &History) -> u64 {
    history.streams.iter().map(|stream| stream.bytes).sum()
}

/// Microseconds as milliseconds, with as many decimals as say something.
pub fn ms(us: u64) -> String {
    match us {
        ..1_000 => format!("0.{us:03}"),
        _ => format!("{}.{}", us / 1000, us % 1000 / 100),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_decimals_that_say_something() {
        assert_eq!(ms(12_345), "12.3");
        assert_eq!(ms(45), "0.045");
    }
}
