//! G3: connections made after a restart are governed by the newest configuration.

use super::g2::undescribed;
use crate::history::{History, Trouble};

/// Longest time from a save until it, or a later one, is in force where no fault is in the way, in
/// microseconds: the slowest step of a takeover may take half of it.
const LONGEST_US: u64 = 60_000_000;

/// No connection reached an endpoint that had been removed, and each save came into force.
pub fn newest(history: &History) -> Vec<String> {
    let misrouted = history.inexcusable(Trouble::Misrouted);
    let mut complaints: Vec<String> =
        super::complain("connections were misrouted", misrouted).into_iter().collect();
    complaints.extend(undescribed(history, &[Trouble::Misrouted]));
    let mut next_in_force = None;
    for save in history.saves.iter().rev() {
        next_in_force = save.in_force_us.or(next_in_force);
        match next_in_force {
            None => {
                complaints
                    .push(format!("the save at {} was never in force", super::ms(save.at_us)));
            }
            Some(in_force) if in_force.saturating_sub(save.at_us) > LONGEST_US => {
                let (at, after) = (super::ms(save.at_us), super::ms(in_force - save.at_us));
                complaints.push(format!("the save at {at} was in force only after {after}"));
            }
            Some(_) => {}
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::super::tests::{breaks, good, suffer};
    use super::*;
    use crate::history::Save;

    #[test]
    fn whoever_reaches_what_was_removed_is_complained_of() {
        breaks("G3", |history| suffer(history, Trouble::Misrouted));
    }

    #[test]
    fn a_save_that_is_not_in_force_is_complained_of_unless_a_later_one_is() {
        let never = Save { at_us: 700, in_force_us: None };
        breaks("G3", |history| history.saves.push(never.clone()));
        breaks("G3", |history| history.saves[0].in_force_us = Some(LONGEST_US + 501));
        let mut history = good();
        history.saves.insert(0, never);
        assert_eq!(newest(&history), Vec::<String>::new());
    }
}
