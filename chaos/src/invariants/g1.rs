//! G1: after any restart, the state before it is restored by itself.

use crate::fault::Effect;
use crate::history::History;

/// Each fault was made good within the deadline; no supervisor ended that was not ended by a fault;
/// and links that nothing has detached are still the same.
pub fn restored(history: &History) -> Vec<String> {
    let mut complaints = Vec::new();
    for fault in history.injected.iter().filter(|fault| fault.hit && fault.restored_us.is_none()) {
        let (kind, at) = (fault.fault.kind(), super::ms(fault.at_us));
        complaints.push(format!("{kind} at {at} was not made good: {}", fault.note));
    }
    complaints.extend(history.processes.unasked_ends.iter().cloned());
    complaints.extend(history.ending.unsettled.clone());
    for pair in history.kernel.links.windows(2) {
        let (before, after) = (&pair[0], &pair[1]);
        let is_excused = history.windows.iter().any(|window| {
            window.effect == Effect::OtherLinks && window.touches(before.at_us, after.at_us)
        });
        if !is_excused {
            let (before, at, after) = (&before.ids, super::ms(after.at_us), &after.ids);
            complaints.push(format!("at {at} the links {before:?} had become {after:?}"));
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::super::tests::{breaks, good};
    use super::*;
    use crate::fault::Kind;
    use crate::history::{Links, Window};

    #[test]
    fn a_fault_that_stays_is_complained_of() {
        breaks("G1", |history| history.injected[0].restored_us = None);
        breaks("G1", |history| history.ending.unsettled = Some("no worker".to_owned()));
        breaks("G1", |history| history.processes.unasked_ends.push("it ended".to_owned()));
    }

    #[test]
    fn other_links_are_complained_of_unless_one_was_detached() {
        let other = Links { at_us: 5_000, ids: vec![7, 9] };
        breaks("G1", |history| history.kernel.links.push(other.clone()));
        let mut history = good();
        history.kernel.links.push(other);
        history.windows.push(Window {
            from_us: 4_000,
            to_us: 6_000,
            because_of: Kind::DetachLink,
            effect: Effect::OtherLinks,
        });
        assert_eq!(restored(&history), Vec::<String>::new());
    }
}
