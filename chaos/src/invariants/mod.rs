//! The promises, each as a function over a history. Pure.
//!
//! Each gives what it complains of; nothing means that it was kept. What a window of the history
//! declares impossible is excused, and nothing else is.

mod flat;
mod g1;
mod g2;
mod g3;
mod g4;
mod g5;
mod g6;
mod g7;
mod g8;
mod g9;

use serde::{Deserialize, Serialize};

use crate::history::{History, Incident};

/// Most incidents that a complaint quotes.
const QUOTED: usize = 5;

/// What an invariant says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Its name.
    pub promise: String,
    /// What is promised.
    pub about: String,
    /// Why it was not kept; empty is the promise.
    pub complaints: Vec<String>,
}

/// An invariant: what it complains of in a history.
type Invariant = fn(&History) -> Vec<String>;

/// Every invariant.
const ALL: [(&str, &str, Invariant); 10] = [
    ("G1", "after each fault the state before it comes back by itself", g1::restored),
    ("G2", "connections made meanwhile are governed: none failed, refused or reset", g2::governed),
    ("G3", "each save comes into force, and nobody reaches what it removed", g3::newest),
    ("G4", "long connections never notice, and counters go on", g4::unnoticed),
    ("G5", "uninstall leaves nothing", g5::nothing_left),
    ("G6", "nothing but an uninstall removes governance", g6::attached),
    ("G7", "what is programmed is wholly what the configuration says", g7::whole),
    ("G8", "there are never two writers", g8::one_writer),
    ("G9", "whoever writes has no privilege", g9::no_privilege),
    ("flat", "in runs of ten minutes and more, memory and descriptors stay flat", flat::flat),
];

/// What every invariant says about `history`.
pub fn judge(history: &History) -> Vec<Verdict> {
    let verdict = |(promise, about, invariant): (&str, &str, Invariant)| Verdict {
        promise: promise.to_owned(),
        about: about.to_owned(),
        complaints: invariant(history),
    };
    ALL.into_iter().map(verdict).collect()
}

/// A complaint about these incidents, if there are any.
fn complain<'h>(what: &str, incidents: impl Iterator<Item = &'h Incident>) -> Option<String> {
    let all: Vec<&Incident> = incidents.collect();
    let quoted = all
        .iter()
        .take(QUOTED)
        .map(|incident| format!("at {} ms {}", incident.from_us / 1000, incident.text));
    let quoted: Vec<String> = quoted.collect();
    (!all.is_empty()).then(|| format!("{} {what}: {}", all.len(), quoted.join("; ")))
}

/// Microseconds as text.
fn ms(us: u64) -> String {
    format!("{}.{} ms", us / 1000, us % 1000 / 100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::effect::Family;
    use crate::fault::{Effect, Fault, Kind};
    use crate::history::*;

    /// A history in which every promise was kept.
    pub fn good() -> History {
        let rights = Rights {
            users: "65534 65534 65534 65534".to_owned(),
            capabilities: "0000000000000000 ".repeat(5).trim().to_owned(),
            no_new_privs: "1".to_owned(),
        };
        let grant = |at_us, epoch, pid| Grant { at_us, epoch, pid, rights: Some(rights.clone()) };
        History {
            end_us: 10_000_000,
            injected: vec![Injected {
                fault: Fault::Kill { draw: 0 },
                planned_us: 1_000,
                at_us: 1_000,
                end_us: 1_000,
                restored_us: Some(12_000),
                hit: true,
                note: String::new(),
            }],
            connections: Connections {
                tcp: Outcomes { reached: 100, ..Outcomes::default() },
                ..Connections::default()
            },
            streams: vec![StreamHistory { address: "web".to_owned(), bytes: 1, broken: None }],
            saves: vec![Save { at_us: 500, in_force_us: Some(30_000) }],
            processes: Processes {
                looks: 10,
                most_workers: 2,
                grants: vec![grant(0, 1, 10), grant(9_000, 2, 11)],
                ..Processes::default()
            },
            kernel: Kernel {
                looks: 10,
                hooks: vec![Hooks { at_us: 0, programs: Some(vec![vec![1], vec![2]]) }],
                links: vec![Links { at_us: 0, ids: vec![7, 8] }],
            },
            counters: Counters { looks: 3, went_back: Vec::new(), connections: 110 },
            ..History::default()
        }
    }

    /// Exactly this promise is complained of when `break_it` has been at a good history.
    #[track_caller]
    pub fn breaks(promise: &str, break_it: impl FnOnce(&mut History)) {
        let mut history = good();
        break_it(&mut history);
        let verdicts = judge(&history).into_iter();
        let complained: Vec<String> =
            verdicts.filter(|verdict| !verdict.complaints.is_empty()).map(|v| v.promise).collect();
        assert_eq!(complained, [promise]);
    }

    fn incident(trouble: Trouble) -> Incident {
        let family = Family::Ipv4;
        Incident { trouble, family, from_us: 5_000, to_us: 6_000, text: "it".to_owned() }
    }

    /// A history with this incident, and a count that includes it.
    pub fn suffer(history: &mut History, trouble: Trouble) {
        history.connections.tcp.add(Some(trouble));
        history.connections.incidents.push(incident(trouble));
    }

    fn window(effect: Effect) -> Window {
        Window { from_us: 4_000, to_us: 7_000, because_of: Kind::DetachLink, effect }
    }

    #[test]
    fn a_history_without_fault_is_not_complained_of() {
        let complaints: Vec<String> =
            judge(&good()).into_iter().flat_map(|verdict| verdict.complaints).collect();
        assert_eq!(complaints, Vec::<String>::new());
    }

    #[test]
    fn what_a_window_declares_is_excused() {
        for (trouble, effect) in [
            (Trouble::Ungoverned, Effect::Ungoverned(Family::Ipv4)),
            (Trouble::Misrouted, Effect::LateRemoval),
        ] {
            let mut history = good();
            suffer(&mut history, trouble);
            history.windows.push(window(effect));
            let complaints = judge(&history).into_iter().flat_map(|verdict| verdict.complaints);
            assert_eq!(complaints.count(), 0, "{trouble:?}");
        }
        breaks("G2", |history| {
            suffer(history, Trouble::Ungoverned);
            history.windows.push(window(Effect::Ungoverned(Family::Ipv6)));
        });
        for trouble in [Trouble::Failed, Trouble::Reset] {
            breaks("G2", |history| {
                suffer(history, trouble);
                history.windows.push(window(Effect::Ungoverned(Family::Ipv4)));
            });
        }
    }

    #[test]
    fn trouble_that_is_only_counted_is_complained_of() {
        breaks("G2", |history| history.connections.udp.failed = 1);
        breaks("G3", |history| history.connections.udp.misrouted = 1);
    }
}
