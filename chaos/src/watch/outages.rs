//! From the end of a worker that wrote to the grant of the next. Pure.
//!
//! Measured from outside: from just before the fault until the supervisor says that another worker
//! is granted. Should further faults hit before that, the first one counts: the time is how long
//! nobody could write.

use crate::fault::Kind;
use crate::fault::inject::Stricken;
use crate::history::Outage;

/// Those that have ended, and the one that goes on.
#[derive(Debug, Default)]
pub struct Outages {
    granted: Option<(u32, u64)>,
    open: Option<Open>,
    ended: Vec<Outage>,
}

#[derive(Debug)]
struct Open {
    kind: Kind,
    epoch: u64,
    from_us: u64,
}

impl Outages {
    /// A worker was seen granted.
    pub fn granted(&mut self, pid: u32, epoch: u64, now_us: u64) {
        if let Some(open) = self.open.take_if(|open| epoch > open.epoch) {
            let (from_us, because_of) = (open.from_us, open.kind);
            self.ended.push(Outage { from_us, to_us: now_us, because_of, alone: false });
        }
        self.granted = Some((pid, epoch));
    }

    /// A fault has ended somebody's grant.
    pub fn stricken(&mut self, kind: Kind, who: Stricken, at_us: u64) {
        let Some((pid, epoch)) = self.granted else { return };
        let hits = match who {
            Stricken::Worker(victim) => victim == pid,
            Stricken::Anybody => true,
        };
        if hits && self.open.is_none() {
            self.open = Some(Open { kind, epoch, from_us: at_us });
        }
    }

    /// Everything is as it should be, with the worker that was there before: it was not ended.
    pub fn recovered(&mut self) {
        self.open = None;
    }

    /// Whether one goes on.
    pub const fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// The worker that was granted last.
    pub fn worker(&self) -> Option<u32> {
        self.granted.map(|(pid, _)| pid)
    }

    /// The newest epoch.
    pub fn epoch(&self) -> u64 {
        self.granted.map_or(0, |(_, epoch)| epoch)
    }

    /// How long the newest one was.
    pub fn last_us(&self) -> Option<u64> {
        self.ended.last().map(|outage| outage.to_us - outage.from_us)
    }

    /// Those that have ended.
    pub fn take(&mut self) -> Vec<Outage> {
        std::mem::take(&mut self.ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_lasts_from_the_first_fault_to_the_next_grant() {
        let mut outages = Outages::default();
        outages.granted(10, 1, 0);
        outages.stricken(Kind::Kill, Stricken::Worker(11), 3);
        assert!(!outages.is_open(), "another worker's end interrupts nothing");
        outages.stricken(Kind::Kill, Stricken::Worker(10), 5);
        outages.stricken(Kind::SupervisorKill, Stricken::Anybody, 6);
        // The supervisor has not noticed yet.
        outages.granted(10, 1, 8);
        outages.granted(12, 2, 9);
        outages.granted(12, 2, 10);
        let expected = Outage { from_us: 5, to_us: 9, because_of: Kind::Kill, alone: false };
        assert_eq!(outages.take(), [expected]);
    }

    #[test]
    fn a_worker_that_goes_on_was_not_ended() {
        let mut outages = Outages::default();
        outages.granted(10, 1, 0);
        outages.stricken(Kind::Hang, Stricken::Worker(10), 5);
        outages.recovered();
        outages.granted(12, 2, 1_000);
        assert_eq!(outages.take(), []);
    }
}
