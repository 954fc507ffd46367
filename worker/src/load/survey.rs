//! What there is: the pins of the instance, what they hold, and every link in the kernel that runs
//! a program on our maps. Nothing here changes anything.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use holdfast_bpf::BpfError;
use holdfast_bpf::object::{self, LinkInfo, MapInfo, ProgramInfo};
use holdfast_protocol::kernel;
use holdfast_protocol::manifest::Kind;

use super::adopt::{MapSeen, ProgramSeen};
use super::object::PROGRAM_TYPES;
use super::pins::{Found, PinError, Pins};

/// An object of the kernel, held by a descriptor.
#[derive(Debug)]
pub struct Held<I> {
    /// Keeps it.
    pub descriptor: OwnedFd,
    /// What the kernel says about it.
    pub info: I,
}

/// What is under the name of a pin.
#[derive(Debug)]
pub enum Pinned<I> {
    /// Nothing.
    Nothing,
    /// An object of the right kind.
    Object(Held<I>),
    /// Something else, described for people.
    Stranger(String),
}

impl<I> Pinned<I> {
    /// The object, if there is one.
    pub const fn object(&self) -> Option<&Held<I>> {
        match self {
            Self::Object(held) => Some(held),
            Self::Nothing | Self::Stranger(_) => None,
        }
    }
}

/// What is pinned under the names of the estate.
#[derive(Debug)]
pub struct Survey {
    /// By name.
    pub maps: BTreeMap<&'static str, Pinned<MapInfo>>,
    /// By name.
    pub programs: BTreeMap<&'static str, Pinned<ProgramInfo>>,
    /// By name.
    pub links: BTreeMap<&'static str, Pinned<LinkInfo>>,
    /// Our programs that run for the cgroup, by name.
    pub running: BTreeMap<&'static str, Held<ProgramInfo>>,
    /// The maps that running programs use, before those that pinned programs use, by name; the first
    /// of a name counts.
    pub used: BTreeMap<&'static str, Held<MapInfo>>,
}

impl Survey {
    /// Looks at the pins. `cgroup_id` is the cgroup whose links count as running.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to say what something is.
    pub fn take(pins: &Pins, cgroup_id: u64) -> Result<Self, PinError> {
        let maps = read(pins, Kind::Map, &kernel::map::ALL, object::map_info, |map, name| {
            (map.name != name).then(|| format!("map {} called `{}`", map.id, map.name))
        })?;
        let programs = read(
            pins,
            Kind::Program,
            &kernel::program::ALL,
            object::program_info,
            |found, name| {
                (our_name(found) != Some(name))
                    .then(|| format!("program {} called `{}`", found.id, found.name))
            },
        )?;
        let links = read(pins, Kind::Link, &kernel::program::ALL, object::link_info, |link, _| {
            link.cgroup.is_none().then(|| format!("link {}, which is no cgroup's", link.id))
        })?;
        let mut running = BTreeMap::new();
        let mut note = |program: Held<ProgramInfo>| {
            if let Some(name) = our_name(&program.info) {
                running.entry(name).or_insert(program);
            }
        };
        let is_here = |link: &LinkInfo| link.cgroup.is_some_and(|at| at.cgroup_id == cgroup_id);
        for link in links.values().filter_map(Pinned::object).filter(|link| is_here(&link.info)) {
            if let Some(program) = hold(Kind::Program, link.info.program_id, object::program_info)?
            {
                note(program);
            }
        }
        // Links that have lost their pins are known by the maps that have not.
        let pinned: Vec<u32> =
            maps.values().filter_map(Pinned::object).map(|map| map.info.id).collect();
        for own in links_using(&pinned)?.into_iter().filter(|own| is_here(&own.link.info)) {
            note(own.program);
        }
        let mut used = BTreeMap::new();
        let pinned = programs.values().filter_map(Pinned::object).map(|program| &program.info);
        for program in running.values().map(|program| &program.info).chain(pinned) {
            for id in &program.map_ids {
                if let Some(map) = hold(Kind::Map, *id, object::map_info)?
                    && let Some(name) = name_among(&kernel::map::ALL, &map.info.name)
                {
                    used.entry(name).or_insert(map);
                }
            }
        }
        Ok(Self { maps, programs, links, running, used })
    }

    /// Whether there is nothing of a former life.
    pub fn is_empty(&self) -> bool {
        self.maps.values().all(|pinned| matches!(pinned, Pinned::Nothing))
            && self.programs.values().all(|pinned| matches!(pinned, Pinned::Nothing))
            && self.links.values().all(|pinned| matches!(pinned, Pinned::Nothing))
    }
}

/// A link in the kernel whose program uses one of our maps.
#[derive(Debug)]
pub struct OwnLink {
    /// The link.
    pub link: Held<LinkInfo>,
    /// Its program.
    pub program: Held<ProgramInfo>,
}

/// Every cgroup link in the kernel whose program uses one of `map_ids`, by ascending id.
///
/// # Errors
///
/// When the kernel refuses; a link that goes away meanwhile is not an error.
pub fn links_using(map_ids: &[u32]) -> Result<Vec<OwnLink>, BpfError> {
    let mut found = Vec::new();
    for id in object::ids(Kind::Link)? {
        let Some(link) = hold(Kind::Link, id, object::link_info)? else { continue };
        if link.info.cgroup.is_none() {
            continue;
        }
        let program = hold(Kind::Program, link.info.program_id, object::program_info)?;
        let Some(program) = program else { continue };
        if program.info.map_ids.iter().any(|id| map_ids.contains(id)) {
            found.push(OwnLink { link, program });
        }
    }
    Ok(found)
}

/// The object with this id, or nothing when it is gone or not there yet.
///
/// # Errors
///
/// When the kernel refuses.
pub fn hold<I>(
    kind: Kind,
    id: u32,
    info: impl Fn(BorrowedFd<'_>) -> Result<I, BpfError>,
) -> Result<Option<Held<I>>, BpfError> {
    match object::by_id(kind, id) {
        Ok(descriptor) => {
            let info = info(descriptor.as_fd())?;
            Ok(Some(Held { descriptor, info }))
        }
        // EAGAIN: a link that somebody else is just making (`bpf_link_by_id` in the kernel).
        Err(error) if error.is_not_found() || error.errno() == libc::EAGAIN => Ok(None),
        Err(error) => Err(error),
    }
}

/// What of a map the decisions need.
pub fn map_seen(info: &MapInfo) -> MapSeen {
    MapSeen { id: info.id, shape: info.shape }
}

/// What of a program the decisions need.
pub fn program_seen(info: &ProgramInfo) -> ProgramSeen {
    ProgramSeen {
        id: info.id,
        program_type: info.program_type,
        tag: info.tag,
        map_ids: info.map_ids.clone(),
    }
}

/// Reads the pins called `names`. `objection` says what an object is if it is not what its pin's
/// name says.
fn read<I>(
    pins: &Pins,
    kind: Kind,
    names: &[&'static str],
    info: impl Fn(BorrowedFd<'_>) -> Result<I, BpfError>,
    objection: impl Fn(&I, &str) -> Option<String>,
) -> Result<BTreeMap<&'static str, Pinned<I>>, PinError> {
    let mut found = BTreeMap::new();
    for name in names {
        let pinned = match pins.get(kind, name)? {
            Found::Nothing => Pinned::Nothing,
            Found::Stranger(what) => Pinned::Stranger(what),
            Found::Object(descriptor) => {
                let info = info(descriptor.as_fd())?;
                match objection(&info, name) {
                    Some(what) => Pinned::Stranger(what),
                    None => Pinned::Object(Held { descriptor, info }),
                }
            }
        };
        found.insert(*name, pinned);
    }
    Ok(found)
}

/// Which of our programs this one is, by its name and type.
fn our_name(program: &ProgramInfo) -> Option<&'static str> {
    PROGRAM_TYPES
        .contains(&program.program_type)
        .then(|| name_among(&kernel::program::ALL, &program.name))
        .flatten()
}

fn name_among(names: &[&'static str], name: &str) -> Option<&'static str> {
    names.iter().copied().find(|known| *known == name)
}
