//! What differs between the manifest and what was observed. Pure.

use holdfast_protocol::manifest::{Entry, Kind, Shape};

use crate::estate::hook_name;

/// What there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Id of the cgroup at the governed path; `None` when there is none.
    pub cgroup: Option<u64>,
    /// One for each entry of the manifest, in its order.
    pub objects: Vec<Seen>,
    /// One for each link of the manifest; none without a cgroup.
    pub hooks: Vec<Hook>,
    /// Whether the policies in force judge arriving connections.
    pub arrivals_judged: bool,
    /// Whether policies that do are about to be put in force.
    pub arrivals_wanted: bool,
}

/// An object of the estate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What the kernel says about the descriptor that is held; `None` when it says nothing.
    pub held: Option<(u32, Shape)>,
    /// What is at its pin's path.
    pub pin: PinSeen,
}

/// What is at a pin's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinSeen {
    /// Nothing.
    Missing,
    /// An object of the right kind, with this id.
    Object(u32),
    /// Something else.
    Stranger,
}

/// What runs on one hook of the governed cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// `enum bpf_attach_type`.
    pub attach_type: u32,
    /// The programs in effect, those of the cgroup's ancestors included; `None` when the kernel
    /// does not say.
    pub running: Option<Vec<Running>>,
}

/// A program on a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// Its id.
    pub program: u32,
    /// Its name.
    pub name: String,
    /// Whether it is one of the estate's, or uses a map of it.
    pub is_ours: bool,
}

/// A difference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Drift {
    /// There is no cgroup at the governed path.
    CgroupMissing,
    /// The pin of this object is missing, or something else is in its place.
    Pin {
        /// The object's kind.
        kind: Kind,
        /// The object's name.
        name: String,
        /// Whether something else is in its place.
        is_taken: bool,
    },
    /// This link is attached nowhere.
    Detached(String),
    /// This link had nothing to do so far and is attached nowhere, and now it is needed.
    Unattached(String),
    /// This link is attached elsewhere, or runs another program: what the kernel says.
    Moved(String, String),
    /// The kernel does not run this link's program for the cgroup.
    NotRunning(String),
    /// Programs of ours run more than once on this link's hook.
    Copies {
        /// The link's name.
        name: String,
        /// How many are too many.
        surplus: usize,
    },
    /// A map or program is not what it was, or the kernel does not say what something is.
    Changed(Kind, String),
    /// A program that is not ours runs on the hook.
    Foreign {
        /// The hook, as the kernel calls it.
        hook: String,
        /// The program's id.
        program: u32,
        /// Its name.
        name: String,
    },
}

/// Who can mend a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// This process, from its descriptors.
    Pin,
    /// The loader.
    Load,
    /// Nobody here.
    Nobody,
    /// It need not be mended.
    LeaveAlone,
}

impl Drift {
    /// Whether anything is amiss. What is needed only now was not broken, and what others do is left alone.
    #[must_use]
    pub const fn is_fault(&self) -> bool {
        !matches!(self, Self::Unattached(_) | Self::Foreign { .. })
    }

    /// Who can mend it.
    #[must_use]
    pub const fn remedy(&self) -> Remedy {
        match self {
            Self::Pin { .. } => Remedy::Pin,
            Self::Detached(_)
            | Self::Unattached(_)
            | Self::Moved(..)
            | Self::NotRunning(_)
            | Self::Copies { .. } => Remedy::Load,
            Self::CgroupMissing | Self::Changed(..) => Remedy::Nobody,
            Self::Foreign { .. } => Remedy::LeaveAlone,
        }
    }
}

impl std::fmt::Display for Drift {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::CgroupMissing => f.write_str(
                "the governed cgroup is gone, and its links with it: nothing is governed, and \
                 nothing can be until a cgroup of that path exists again",
            ),
            Self::Pin { kind, name, is_taken: false } => {
                write!(f, "the pin of {kind} {name} is missing")
            }
            Self::Pin { kind, name, is_taken: true } => {
                write!(f, "something else is in place of the pin of {kind} {name}")
            }
            Self::Detached(name) => write!(f, "link {name} is detached"),
            Self::Unattached(name) => {
                write!(f, "link {name} is not attached yet, and is needed from now on")
            }
            Self::Moved(name, found) => write!(f, "link {name} is another one: {found}"),
            Self::NotRunning(name) => write!(f, "link {name} is attached, and not in effect"),
            Self::Copies { name, surplus: 1 } => write!(f, "{name} runs once too often"),
            Self::Copies { name, surplus } => write!(f, "{name} runs {surplus} times too often"),
            Self::Changed(kind, name) => {
                write!(f, "{kind} {name} is not what it was; restart the supervisor")
            }
            Self::Foreign { hook, program, name } => {
                write!(f, "program {program} ({name}) on {hook} is not ours: left alone")
            }
        }
    }
}

/// How `observed` differs from `manifest`.
#[must_use]
pub fn audit(observed: &Observed, manifest: &[Entry]) -> Vec<Drift> {
    let mut found = Vec::new();
    if observed.cgroup.is_none() {
        found.push(Drift::CgroupMissing);
    }
    for (entry, seen) in manifest.iter().zip(&observed.objects) {
        found.extend(audit_pin(entry, seen.pin));
        match (&entry.shape, &seen.held) {
            (Shape::Link { .. }, Some((id, shape))) => {
                found.extend(audit_link(entry, (*id, shape), observed));
            }
            (wanted, Some((id, shape))) if (entry.id, wanted) == (*id, shape) => {}
            _ => found.push(Drift::Changed(entry.shape.kind(), entry.name.clone())),
        }
    }
    for hook in &observed.hooks {
        found.extend(foreigners(hook));
    }
    found
}

fn audit_pin(entry: &Entry, pin: PinSeen) -> Option<Drift> {
    let is_taken = match pin {
        PinSeen::Object(id) if id == entry.id => return None,
        PinSeen::Missing => false,
        PinSeen::Object(_) | PinSeen::Stranger => true,
    };
    Some(Drift::Pin { kind: entry.shape.kind(), name: entry.name.clone(), is_taken })
}

/// What is amiss with a link that is attached nowhere, and was not when it was made either: it had nothing to do.
fn audit_idle(entry: &Entry, (id, found): (u32, &Shape), observed: &Observed) -> Option<Drift> {
    let name = entry.name.clone();
    if (id, found) != (entry.id, &entry.shape) {
        return Some(Drift::Moved(name, format!("id {id}, {found:?}")));
    }
    if observed.arrivals_judged {
        return Some(Drift::Detached(name));
    }
    if observed.arrivals_wanted {
        return Some(Drift::Unattached(name));
    }
    let Shape::Link { attach_type, .. } = found else { return None };
    let hook = observed.hooks.iter().find(|hook| hook.attach_type == *attach_type)?;
    let surplus = hook.running.iter().flatten().filter(|running| running.is_ours).count();
    (surplus > 0).then_some(Drift::Copies { name, surplus })
}

fn audit_link(entry: &Entry, (id, found): (u32, &Shape), observed: &Observed) -> Option<Drift> {
    let (Shape::Link { attach_type, program_id, .. }, Shape::Link { cgroup_id, .. }) =
        (&entry.shape, found)
    else {
        return Some(Drift::Changed(Kind::Link, entry.name.clone()));
    };
    // Without a cgroup nothing can be attached, and that was said already.
    let governed = observed.cgroup?;
    let name = || entry.name.clone();
    // Who made the cgroup anew made another one: the path counts, not what it was once.
    let wanted =
        Shape::Link { attach_type: *attach_type, program_id: *program_id, cgroup_id: governed };
    if entry.shape.is_detached() {
        return audit_idle(entry, (id, found), observed);
    }
    if *cgroup_id == 0 {
        return Some(Drift::Detached(name()));
    }
    if (id, found) != (entry.id, &wanted) {
        return Some(Drift::Moved(name(), format!("id {id}, {found:?}")));
    }
    let hook = observed.hooks.iter().find(|hook| hook.attach_type == *attach_type)?;
    let Some(running) = &hook.running else {
        return Some(Drift::Changed(Kind::Link, name()));
    };
    if !running.iter().any(|running| running.program == *program_id) {
        return Some(Drift::NotRunning(name()));
    }
    let surplus = running.iter().filter(|running| running.is_ours).count() - 1;
    (surplus > 0).then(|| Drift::Copies { name: name(), surplus })
}

fn foreigners(hook: &Hook) -> impl Iterator<Item = Drift> {
    let running = hook.running.iter().flatten().filter(|running| !running.is_ours);
    running.map(|running| Drift::Foreign {
        hook: hook_name(hook.attach_type),
        program: running.program,
        name: running.name.clone(),
    })
}

#[cfg(test)]
mod tests {
    use holdfast_protocol::manifest::MapShape;

    use super::*;

    const CGROUP: u64 = 77;
    const HOOK: u32 = 10;
    const MAP: usize = 0;
    const PROGRAM: usize = 1;
    const LINK: usize = 2;

    fn link_shape(program_id: u32, cgroup_id: u64) -> Shape {
        Shape::Link { attach_type: HOOK, program_id, cgroup_id }
    }

    fn manifest() -> Vec<Entry> {
        let map = MapShape { map_type: 2, key_bytes: 4, value_bytes: 8, max_entries: 1, flags: 0 };
        let entry = |name: &str, id, shape| Entry { name: name.to_owned(), id, shape };
        vec![
            entry("HEADS", 1, Shape::Map(map)),
            entry("hf_connect4", 2, Shape::Program { program_type: 18, tag: [7; 8] }),
            entry("hf_connect4", 3, link_shape(2, CGROUP)),
        ]
    }

    fn running(program: u32, is_ours: bool) -> Running {
        Running { program, name: "p".to_owned(), is_ours }
    }

    fn healthy() -> Observed {
        let seen = |entry: &Entry| Seen {
            held: Some((entry.id, entry.shape.clone())),
            pin: PinSeen::Object(entry.id),
        };
        Observed {
            cgroup: Some(CGROUP),
            objects: manifest().iter().map(seen).collect(),
            hooks: vec![Hook { attach_type: HOOK, running: Some(vec![running(2, true)]) }],
            ..Observed::default()
        }
    }

    fn found_after(change: impl FnOnce(&mut Observed)) -> Vec<Drift> {
        let mut observed = healthy();
        change(&mut observed);
        audit(&observed, &manifest())
    }

    fn link() -> String {
        "hf_connect4".to_owned()
    }

    #[test]
    fn an_estate_as_it_was_built_has_not_drifted() {
        assert_eq!(found_after(|_| {}), []);
    }

    #[test]
    fn each_object_needs_its_own_pin() {
        let names = ["HEADS", "hf_connect4", "hf_connect4"];
        for (index, (kind, name)) in
            [Kind::Map, Kind::Program, Kind::Link].into_iter().zip(names).enumerate()
        {
            for (pin, is_taken) in
                [(PinSeen::Missing, false), (PinSeen::Stranger, true), (PinSeen::Object(99), true)]
            {
                let found = found_after(|observed| observed.objects[index].pin = pin);
                let expected = Drift::Pin { kind, name: name.to_owned(), is_taken };
                assert_eq!(expected.remedy(), Remedy::Pin);
                assert_eq!(found, [expected], "{pin:?}");
            }
        }
    }

    #[test]
    fn a_link_has_to_be_where_it_was_made_and_run_what_it_ran() {
        let held =
            |shape: Shape| found_after(|observed| observed.objects[LINK].held = Some((3, shape)));
        assert_eq!(held(link_shape(2, 0)), [Drift::Detached(link())]);
        for shape in [
            link_shape(9, CGROUP),
            link_shape(2, 5),
            Shape::Link { attach_type: 11, program_id: 2, cgroup_id: CGROUP },
        ] {
            let [Drift::Moved(name, _)] = &held(shape.clone())[..] else { panic!("{shape:?}") };
            assert_eq!(*name, link());
        }
    }

    #[test]
    fn a_link_that_was_made_detached_may_stay_so_until_it_is_needed() {
        let idle = Entry { shape: link_shape(2, 0), ..manifest()[LINK].clone() };
        let found_after = |change: &dyn Fn(&mut Observed)| {
            let mut observed = healthy();
            observed.objects[LINK].held = Some((3, link_shape(2, 0)));
            observed.hooks[0].running = Some(vec![running(8, false)]);
            change(&mut observed);
            let manifest = [manifest()[..LINK].to_vec(), vec![idle.clone()]].concat();
            let mut found = audit(&observed, &manifest);
            found.retain(|drift| drift.remedy() != Remedy::LeaveAlone);
            found
        };
        assert_eq!(found_after(&|_| {}), []);
        assert_eq!(found_after(&|it| it.arrivals_wanted = true), [Drift::Unattached(link())]);
        assert_eq!(found_after(&|it| it.arrivals_judged = true), [Drift::Detached(link())]);
        let copied = |it: &mut Observed| it.hooks[0].running = Some(vec![running(2, true)]);
        assert_eq!(found_after(&copied), [Drift::Copies { name: link(), surplus: 1 }]);
        let other = |it: &mut Observed| it.objects[LINK].held = Some((3, link_shape(9, 0)));
        assert!(matches!(&found_after(&other)[..], [Drift::Moved(..)]));
    }

    #[test]
    fn a_cgroup_made_anew_is_another_one() {
        let found = found_after(|observed| observed.cgroup = Some(CGROUP + 1));
        assert!(matches!(&found[..], [Drift::Moved(..)]), "{found:?}");
        assert_eq!(found[0].remedy(), Remedy::Load);
    }

    #[test]
    fn without_a_cgroup_that_is_said_once_and_not_for_each_link() {
        let found = found_after(|observed| {
            observed.cgroup = None;
            observed.hooks.clear();
            observed.objects[LINK].held = Some((3, link_shape(2, 0)));
        });
        assert_eq!(found, [Drift::CgroupMissing]);
        assert_eq!(found[0].remedy(), Remedy::Nobody);
    }

    #[test]
    fn a_hook_runs_our_program_exactly_once() {
        let copies = |surplus| Drift::Copies { name: link(), surplus };
        let cases = [
            (vec![], vec![Drift::NotRunning(link())]),
            // The same program twice, and another one on the same maps.
            (vec![running(2, true), running(2, true)], vec![copies(1)]),
            (vec![running(8, true), running(2, true), running(2, true)], vec![copies(2)]),
            (vec![running(8, true)], vec![Drift::NotRunning(link())]),
        ];
        for (programs, expected) in cases {
            let found = found_after(|observed| observed.hooks[0].running = Some(programs.clone()));
            assert!(expected.iter().all(|drift| drift.remedy() == Remedy::Load));
            assert_eq!(found, expected, "{programs:?}");
        }
    }

    #[test]
    fn a_foreign_program_is_reported_and_left_alone() {
        let found = found_after(|observed| {
            observed.hooks[0].running = Some(vec![running(5, false), running(2, true)]);
        });
        let [foreign @ Drift::Foreign { program: 5, .. }] = &found[..] else { panic!("{found:?}") };
        assert_eq!(foreign.remedy(), Remedy::LeaveAlone);
        assert!(foreign.to_string().contains("cgroup_inet4_connect"), "{foreign}");
    }

    #[test]
    fn what_nobody_can_mend_is_said() {
        let other = Shape::Program { program_type: 18, tag: [8; 8] };
        let cases = [
            (PROGRAM, Some((2, other)), Kind::Program),
            (PROGRAM, None, Kind::Program),
            (MAP, None, Kind::Map),
            (LINK, None, Kind::Link),
        ];
        for (index, held, kind) in cases {
            let found = found_after(|observed| observed.objects[index].held = held.clone());
            let [drift @ Drift::Changed(of, _)] = &found[..] else { panic!("{found:?}") };
            assert_eq!((*of, drift.remedy()), (kind, Remedy::Nobody), "{held:?}");
        }
        let found = found_after(|observed| observed.hooks[0].running = None);
        assert_eq!(found, [Drift::Changed(Kind::Link, link())]);
    }
}
