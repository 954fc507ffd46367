//! What to keep of a former life, and what to make: decisions without a system call.
//!
//! Three questions, in this order, because each answer is needed for the next:
//!
//! 1. [`choose_map`]: which map, for each name. What a running program uses comes before what a pin
//!    says: governance is where the connections are.
//! 2. [`choose_link`]: which link, for each hook. A link is ours when its program uses one of our
//!    maps; whatever else is attached to the hook is none of our business. A hook that has nothing to
//!    do keeps a link that is detached, unless one is attached: what governs is not taken away.
//! 3. [`choose_program`]: which program, for each hook. The former one stays when it is the same,
//!    so that an adoption changes no id.

use holdfast_protocol::kernel::map;
use holdfast_protocol::manifest::MapShape;

use super::object::Sizes;

/// A map that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapSeen {
    /// Its id.
    pub id: u32,
    /// Its shape.
    pub shape: MapShape,
}

/// Where a map comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapChoice {
    /// The pinned one.
    Pinned,
    /// The one with this id, which our programs use; it has to be pinned again.
    Used(u32),
    /// A new one.
    Create,
}

/// A map of a former life that this one cannot use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MapConflict {
    /// It is as this build makes them, but for its size.
    #[error(
        "map {name} (id {id}) of the running estate has {found} entries, and {wanted} were asked \
         for; a map that is in use cannot be resized: {remedy}"
    )]
    Size {
        /// Its name.
        name: &'static str,
        /// Its id.
        id: u32,
        /// Its entries.
        found: u32,
        /// The entries that were asked for.
        wanted: u32,
        /// What to do about it.
        remedy: String,
    },
    /// Another build made it.
    #[error(
        "map {name} (id {id}) of the running estate has another layout than this version's: it is \
         {}, this version needs {}; go back to the version that made it, or remove the estate with \
         `holdfast uninstall` first",
        shape_text(found),
        shape_text(wanted)
    )]
    Layout {
        /// Its name.
        name: &'static str,
        /// Its id.
        id: u32,
        /// Its shape.
        found: MapShape,
        /// The shape this build makes.
        wanted: MapShape,
    },
}

fn shape_text(shape: &MapShape) -> String {
    let MapShape { map_type, key_bytes, value_bytes, max_entries, flags } = shape;
    format!(
        "type {map_type}, keys of {key_bytes} bytes, values of {value_bytes} bytes, {max_entries} \
         entries, flags {flags:#x}"
    )
}

/// Chooses the map called `name`, which is to have the shape `wanted`.
///
/// `used` is the map of that name a running program of ours uses, `pinned` the one that is pinned.
///
/// # Errors
///
/// [`MapConflict`] when the one to keep has another shape.
pub fn choose_map(
    name: &'static str,
    wanted: MapShape,
    used: Option<MapSeen>,
    pinned: Option<MapSeen>,
) -> Result<MapChoice, MapConflict> {
    let Some(seen) = used.or(pinned) else { return Ok(MapChoice::Create) };
    check_shape(name, seen, wanted)?;
    if pinned.is_some_and(|pinned| pinned.id == seen.id) {
        Ok(MapChoice::Pinned)
    } else {
        Ok(MapChoice::Used(seen.id))
    }
}

/// Has what access policies have said forgotten with their head: the generations of a new one begin anew, and would find
/// what was said by others.
pub fn forget_precedents(choices: &mut [(&'static str, MapChoice)]) {
    let is_new =
        |(name, choice): &(_, _)| *name == map::POLICY_HEAD && *choice == MapChoice::Create;
    if choices.iter().any(is_new) {
        for (_, choice) in choices.iter_mut().filter(|(name, _)| *name == map::PRECEDENTS) {
            *choice = MapChoice::Create;
        }
    }
}

/// Checks that the map `seen` has the shape `wanted`.
///
/// # Errors
///
/// [`MapConflict`].
pub fn check_shape(name: &'static str, seen: MapSeen, wanted: MapShape) -> Result<(), MapConflict> {
    let MapSeen { id, shape: found } = seen;
    if found == wanted {
        return Ok(());
    }
    if (MapShape { max_entries: wanted.max_entries, ..found }) == wanted {
        let (found, wanted) = (found.max_entries, wanted.max_entries);
        let remedy = size_remedy(name, found);
        return Err(MapConflict::Size { name, id, found, wanted, remedy });
    }
    Err(MapConflict::Layout { name, id, found, wanted })
}

/// Which setting gives the map `name` this many entries.
fn size_remedy(name: &str, entries: u32) -> String {
    // What one of each comes to in this map.
    let one_of = |services, slots, flows| {
        Sizes { services, slots, flows }.entries(name).filter(|entries| *entries > 0)
    };
    let setting = if let Some(per_service) = one_of(1, 0, 0) {
        format!("keep --max-services {}", entries / per_service)
    } else if one_of(0, 1, 0).is_some() {
        format!("keep --max-slots {entries}")
    } else {
        format!("keep --max-flows {entries}")
    };
    format!("{setting}, or remove the estate with `holdfast uninstall` first")
}

/// A program that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramSeen {
    /// Its id.
    pub id: u32,
    /// `enum bpf_prog_type`.
    pub program_type: u32,
    /// The kernel's digest of its instructions, in which maps do not count.
    pub tag: [u8; 8],
    /// Ids of the maps it uses.
    pub map_ids: Vec<u32>,
}

impl ProgramSeen {
    /// Whether `other` does the same on the same maps.
    #[must_use]
    pub fn does_the_same_as(&self, other: &Self) -> bool {
        let sorted = |ids: &[u32]| {
            let mut ids = ids.to_vec();
            ids.sort_unstable();
            ids
        };
        self.program_type == other.program_type
            && self.tag == other.tag
            && sorted(&self.map_ids) == sorted(&other.map_ids)
    }
}

/// A link whose program uses one of our maps, wherever it is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkSeen {
    /// Its id.
    pub id: u32,
    /// `enum bpf_attach_type`.
    pub attach_type: u32,
    /// Where it is attached; 0 when it is detached, or its cgroup gone.
    pub cgroup_id: u64,
    /// Whether it is the one pinned under the hook's name.
    pub is_pinned: bool,
}

/// Which link governs a hook.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkChoice {
    /// The link to keep; a new one has to be attached when there is none.
    pub keep: Option<u32>,
    /// Links of ours that have to go, once the one to keep is in place.
    pub detach: Vec<u32>,
    /// Whether the link, be it kept or new, has nothing to do and is detached.
    pub is_idle: bool,
}

/// Chooses the link for the hook `attach_type` of the cgroup `cgroup_id`. `is_needed` says whether
/// there is something for it to do; a link that is attached, be it elsewhere, says so as well.
#[must_use]
pub fn choose_link(
    cgroup_id: u64,
    attach_type: u32,
    is_needed: bool,
    seen: &[LinkSeen],
) -> LinkChoice {
    let here = || seen.iter().filter(|link| link.attach_type == attach_type);
    if !is_needed && here().all(|link| link.cgroup_id == 0) {
        let keep = here().min_by_key(|link| (!link.is_pinned, link.id)).map(|link| link.id);
        return LinkChoice { keep, detach: Vec::new(), is_idle: true };
    }
    let keep = here()
        .filter(|link| link.cgroup_id == cgroup_id)
        .min_by_key(|link| (!link.is_pinned, link.id))
        .map(|link| link.id);
    let detach = here()
        .filter(|link| link.cgroup_id != 0 && Some(link.id) != keep)
        .map(|link| link.id)
        .collect();
    LinkChoice { keep, detach, is_idle: false }
}

/// Which program a hook is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgramChoice {
    /// The one its link runs.
    Attached,
    /// The pinned one.
    Pinned,
    /// The one that was loaded just now.
    Fresh,
}

/// Chooses the program of a hook. `attached` is what the link that is kept runs now.
#[must_use]
pub fn choose_program(
    fresh: &ProgramSeen,
    attached: Option<&ProgramSeen>,
    pinned: Option<&ProgramSeen>,
) -> ProgramChoice {
    let same =
        |former: Option<&ProgramSeen>| former.is_some_and(|former| former.does_the_same_as(fresh));
    if same(attached) {
        ProgramChoice::Attached
    } else if same(pinned) {
        ProgramChoice::Pinned
    } else {
        ProgramChoice::Fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: MapShape =
        MapShape { map_type: 2, key_bytes: 4, value_bytes: 8, max_entries: 100, flags: 1024 };
    const OURS: u64 = 77;
    const HOOK: u32 = 10;

    fn seen(id: u32) -> Option<MapSeen> {
        Some(MapSeen { id, shape: WANTED })
    }

    #[test]
    fn a_running_map_comes_before_a_pinned_one_and_that_before_a_new_one() {
        let cases = [
            (None, None, MapChoice::Create),
            (None, seen(1), MapChoice::Pinned),
            (seen(1), seen(1), MapChoice::Pinned),
            (seen(2), None, MapChoice::Used(2)),
            (seen(2), seen(1), MapChoice::Used(2)),
        ];
        for (used, pinned, expected) in cases {
            assert_eq!(choose_map(map::HEADS, WANTED, used, pinned), Ok(expected));
        }
    }

    #[test]
    fn what_policies_have_said_is_forgotten_with_their_head() {
        for (head, expected) in [
            (MapChoice::Create, MapChoice::Create),
            (MapChoice::Pinned, MapChoice::Pinned),
            (MapChoice::Used(7), MapChoice::Pinned),
        ] {
            let mut choices = [
                (map::HEADS, MapChoice::Pinned),
                (map::POLICY_HEAD, head),
                (map::PRECEDENTS, MapChoice::Pinned),
            ];
            forget_precedents(&mut choices);
            assert_eq!(choices.map(|(_, choice)| choice), [MapChoice::Pinned, head, expected]);
        }
    }

    #[test]
    fn a_map_of_another_size_names_the_setting_that_fits_it() {
        let cases = [
            (map::HEADS, "keep --max-services 50,"),
            (map::FRONTENDS, "keep --max-services 25,"),
            (map::TABLES, "keep --max-slots 50,"),
            (map::FLOWS, "keep --max-flows 50,"),
            (map::REPLIES, "keep --max-flows 50,"),
        ];
        for (name, expected) in cases {
            let shape = MapShape { max_entries: 50, ..WANTED };
            let pinned = Some(MapSeen { id: 9, shape });
            let conflict = choose_map(name, WANTED, None, pinned).expect_err("another size");
            let text = conflict.to_string();
            assert!(matches!(conflict, MapConflict::Size { .. }), "{text}");
            for part in [name, "id 9", "50 entries", "100 were asked", expected, "uninstall"] {
                assert!(text.contains(part), "`{part}` in: {text}");
            }
        }
    }

    #[test]
    fn a_map_of_another_layout_is_named_with_both_shapes() {
        let others = [
            MapShape { map_type: 1, ..WANTED },
            MapShape { key_bytes: 8, ..WANTED },
            MapShape { value_bytes: 16, ..WANTED },
            MapShape { flags: 0, ..WANTED },
            MapShape { value_bytes: 16, max_entries: 7, ..WANTED },
        ];
        for shape in others {
            let used = Some(MapSeen { id: 9, shape });
            let conflict = choose_map(map::HEADS, WANTED, used, None).expect_err("another layout");
            let text = conflict.to_string();
            assert!(matches!(conflict, MapConflict::Layout { .. }), "{text}");
            for part in ["HEADS", &shape_text(&shape), &shape_text(&WANTED), "uninstall"] {
                assert!(text.contains(part), "`{part}` in: {text}");
            }
        }
    }

    fn link(id: u32) -> LinkSeen {
        LinkSeen { id, attach_type: HOOK, cgroup_id: OURS, is_pinned: false }
    }

    fn pinned(id: u32) -> LinkSeen {
        LinkSeen { is_pinned: true, ..link(id) }
    }

    #[test]
    fn one_link_of_ours_is_kept_and_every_other_goes() {
        let elsewhere = |id| LinkSeen { cgroup_id: 5, ..link(id) };
        let detached = |link| LinkSeen { cgroup_id: 0, ..link };
        let other_hook = |link| LinkSeen { attach_type: HOOK + 1, ..link };
        let cases = [
            ("nothing", vec![], None, vec![]),
            ("as it should be", vec![pinned(3)], Some(3), vec![]),
            ("the pin is gone", vec![link(3)], Some(3), vec![]),
            ("a second copy", vec![link(2), pinned(3), link(4)], Some(3), vec![2, 4]),
            ("two copies, no pin", vec![link(4), link(2)], Some(2), vec![4]),
            ("detached behind its back", vec![detached(pinned(3))], None, vec![]),
            ("detached, but there is a copy", vec![detached(pinned(3)), link(4)], Some(4), vec![]),
            ("another cgroup before", vec![LinkSeen { cgroup_id: 5, ..pinned(3) }], None, vec![3]),
            ("another hook's pin", vec![other_hook(pinned(3)), elsewhere(8)], None, vec![8]),
        ];
        for (name, seen, keep, detach) in cases {
            let choice = LinkChoice { keep, detach, is_idle: false };
            assert_eq!(choose_link(OURS, HOOK, true, &seen), choice, "{name}");
        }
    }

    #[test]
    fn a_link_with_nothing_to_do_stays_detached_and_one_that_is_attached_stays_so() {
        let detached = |link| LinkSeen { cgroup_id: 0, ..link };
        let elsewhere = LinkSeen { cgroup_id: 5, ..pinned(3) };
        let idle = |keep| LinkChoice { keep, detach: vec![], is_idle: true };
        let busy = |keep, detach| LinkChoice { keep, detach, is_idle: false };
        let cases = [
            ("nothing", vec![], idle(None)),
            ("as it was made", vec![detached(pinned(3))], idle(Some(3))),
            ("its pin is gone", vec![detached(link(3))], idle(Some(3))),
            ("attached by a former build", vec![pinned(3)], busy(Some(3), vec![])),
            (
                "attached, and its pin is not",
                vec![detached(pinned(3)), link(4)],
                busy(Some(4), vec![]),
            ),
            ("attached to another cgroup", vec![elsewhere], busy(None, vec![3])),
        ];
        for (name, seen, expected) in cases {
            assert_eq!(choose_link(OURS, HOOK, false, &seen), expected, "{name}");
        }
    }

    fn program(id: u32, tag: u8, map_ids: &[u32]) -> ProgramSeen {
        ProgramSeen { id, program_type: 18, tag: [tag; 8], map_ids: map_ids.to_vec() }
    }

    #[test]
    fn the_former_program_stays_when_it_does_the_same_on_the_same_maps() {
        let fresh = program(9, 1, &[1, 2, 3]);
        let same = program(4, 1, &[3, 1, 2]);
        let other_code = program(5, 2, &[1, 2, 3]);
        let other_maps = program(6, 1, &[1, 2, 4]);
        let other_type = ProgramSeen { program_type: 8, ..same.clone() };
        let cases = [
            (None, None, ProgramChoice::Fresh),
            (Some(&same), None, ProgramChoice::Attached),
            (Some(&same), Some(&other_code), ProgramChoice::Attached),
            (None, Some(&same), ProgramChoice::Pinned),
            (Some(&other_code), Some(&same), ProgramChoice::Pinned),
            (Some(&other_code), Some(&other_code), ProgramChoice::Fresh),
            (Some(&other_maps), Some(&other_maps), ProgramChoice::Fresh),
            (Some(&other_type), None, ProgramChoice::Fresh),
        ];
        for (attached, pinned, expected) in cases {
            assert_eq!(choose_program(&fresh, attached, pinned), expected);
        }
    }
}
