//! G6: nothing but an explicit uninstall removes governance.

use crate::fault::Effect;
use crate::history::History;

/// Each hook carried exactly one program at every look, except where somebody else took it away.
pub fn attached(history: &History) -> Vec<String> {
    let mut complaints = Vec::new();
    let hooks = &history.kernel.hooks;
    for (n, seen) in hooks.iter().enumerate() {
        let (to_us, programs) =
            (hooks.get(n + 1).map_or(history.end_us, |next| next.at_us), &seen.programs);
        let whole = programs.as_ref().is_some_and(|hooks| hooks.iter().all(|on| on.len() == 1));
        let is_excused = history.windows.iter().any(|window| {
            window.effect == Effect::OtherLinks && window.touches(seen.at_us, seen.at_us)
        });
        if !whole && !is_excused {
            let (at, until) = (super::ms(seen.at_us), super::ms(to_us));
            complaints.push(format!("from {at} to {until} the hooks carried {programs:?}"));
        }
    }
    if history.kernel.looks == 0 {
        complaints.push("the hooks were never seen".to_owned());
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::super::tests::{breaks, good};
    use super::*;
    use crate::fault::Kind;
    use crate::history::{Hooks, Window};

    #[test]
    fn an_empty_hook_and_one_with_two_programs_are_complained_of() {
        for programs in [None, Some(vec![vec![1], vec![]]), Some(vec![vec![1, 3], vec![2]])] {
            let seen = Hooks { at_us: 5_000, programs };
            breaks("G6", |history| history.kernel.hooks.push(seen.clone()));
            let mut history = good();
            history.kernel.hooks.push(seen);
            history.windows.push(Window {
                from_us: 4_000,
                to_us: 6_000,
                because_of: Kind::RemoveCgroup,
                effect: Effect::OtherLinks,
            });
            assert_eq!(attached(&history), Vec::<String>::new());
        }
        breaks("G6", |history| history.kernel.looks = 0);
    }
}
