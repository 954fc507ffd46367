//! What can be said of a history only when all of it is known (pure).
//!
//! - A configuration that was damaged while no worker could write hides the save before it: nobody can put that in force
//!   until the next save, and what it has removed is still reached. Neither fault declares that by itself.
//! - An hour of everything has more incidents than anybody reads. Those that are excused are only counted beyond a
//!   number; every other one is kept.

use std::collections::BTreeMap;

use crate::fault::Kind;
use crate::fault::effect::Effect;
use crate::history::{History, Trouble, Window};

/// Most excused incidents that stay described one by one.
const MAX_EXCUSED: usize = 200_000;

impl History {
    /// Ends a history: nothing is added to it any more.
    pub fn conclude(&mut self) {
        self.declare_hidden_saves();
        self.count_excused(MAX_EXCUSED);
    }

    fn declare_hidden_saves(&mut self) {
        let hides = |kind| matches!(kind, Kind::CorruptConfiguration | Kind::TruncateConfiguration);
        let hidden = self.injected.iter().filter(|fault| fault.hit && hides(fault.fault.kind()));
        // A worker that hangs, or is short of something, is not replaced at once: that is declared and no outage.
        let declared = self.windows.iter().filter(|it| it.effect == Effect::LateRemoval);
        let declared = declared.map(|it| (it.from_us, it.to_us));
        let outages = self.outages.iter().map(|it| (it.from_us, it.to_us));
        let unwritten: Vec<(u64, u64)> = outages.chain(declared).collect();
        let windows: Vec<Window> = hidden
            .filter(|fault| unwritten.iter().any(|(from, to)| (*from..=*to).contains(&fault.at_us)))
            .map(|fault| Window {
                from_us: fault.at_us,
                to_us: fault.restored_us.unwrap_or(fault.end_us),
                because_of: fault.fault.kind(),
                effect: Effect::LateRemoval,
            })
            .collect();
        self.windows.extend(windows);
    }

    fn count_excused(&mut self, most: usize) {
        let incidents = std::mem::take(&mut self.connections.incidents);
        let (mut kept, mut counted, mut described) = (Vec::new(), BTreeMap::new(), 0);
        for incident in incidents {
            if !self.is_excused(&incident) {
                kept.push(incident);
            } else if described < most {
                described += 1;
                kept.push(incident);
            } else {
                *counted.entry(incident.trouble).or_insert(0) += 1;
            }
        }
        self.connections.incidents = kept;
        self.connections.excused = counted;
    }

    /// How many incidents of this trouble are excused, described or not.
    pub fn excused(&self, trouble: Trouble) -> u64 {
        let incidents = self.connections.incidents.iter();
        let described = incidents.filter(|it| it.trouble == trouble && self.is_excused(it));
        let counted = self.connections.excused.get(&trouble).copied().unwrap_or(0);
        described.count() as u64 + counted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Fault;
    use crate::fault::effect::Family;
    use crate::history::{Incident, Injected, Outage};

    fn incident(trouble: Trouble, at_us: u64) -> Incident {
        let family = Family::Ipv4;
        Incident { trouble, family, from_us: at_us, to_us: at_us, text: String::new() }
    }

    /// No worker could write from 100 to 200, and the configuration was cut from `at_us` to 300.
    fn cut(at_us: u64, hit: bool) -> History {
        let fault = Fault::TruncateConfiguration { draw: 0 };
        let (planned_us, end_us, restored_us) = (at_us, 290, Some(300));
        let note = String::new();
        History {
            injected: vec![Injected { fault, planned_us, at_us, end_us, restored_us, hit, note }],
            outages: vec![Outage {
                from_us: 100,
                to_us: 200,
                because_of: Kind::NoDescriptors,
                alone: false,
            }],
            ..History::default()
        }
    }

    #[test]
    fn a_save_that_was_hidden_while_nobody_could_write_comes_later() {
        let is_excused = |mut history: History, trouble, at_us| {
            history.conclude();
            history.is_excused(&incident(trouble, at_us))
        };
        assert!(is_excused(cut(150, true), Trouble::Misrouted, 250));
        assert!(!is_excused(cut(150, true), Trouble::Misrouted, 301), "it is whole again");
        assert!(!is_excused(cut(210, true), Trouble::Misrouted, 250), "it was in force before");
        assert!(!is_excused(cut(150, false), Trouble::Misrouted, 250));
        assert!(!is_excused(cut(150, true), Trouble::Ungoverned, 250));
    }

    #[test]
    fn a_worker_that_hangs_writes_nothing_either() {
        let mut history = cut(150, true);
        history.outages.clear();
        let effect = Effect::LateRemoval;
        history.windows.push(Window { from_us: 100, to_us: 200, because_of: Kind::Hang, effect });
        history.conclude();
        assert!(history.is_excused(&incident(Trouble::Misrouted, 250)));
        assert!(!history.is_excused(&incident(Trouble::Misrouted, 301)), "it is whole again");
    }

    #[test]
    fn only_what_is_excused_is_no_more_than_counted() {
        let mut history = cut(150, true);
        history.declare_hidden_saves();
        let incidents =
            [(Trouble::Misrouted, 250), (Trouble::Failed, 250), (Trouble::Misrouted, 400)];
        history.connections.incidents =
            incidents.iter().cycle().take(30).map(|(what, at)| incident(*what, *at)).collect();
        history.count_excused(4);
        assert_eq!(history.connections.incidents.len(), 4 + 10 + 10);
        assert_eq!(history.connections.excused, BTreeMap::from([(Trouble::Misrouted, 6)]));
        assert_eq!(history.excused(Trouble::Misrouted), 10);
        assert_eq!(history.inexcusable(Trouble::Misrouted).count(), 10);
        assert_eq!(history.inexcusable(Trouble::Failed).count(), 10);
    }
}
