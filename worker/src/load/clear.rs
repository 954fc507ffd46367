//! Removes the estate: of this version or another, whole or in pieces, with its cgroup or without.
//!
//! Links first, because a link that is detached governs nothing however long its last descriptor
//! lives, whereas unlinking a pin takes effect at a time of the kernel's choosing. `connect` goes
//! before `getpeername`, so that no connection is left translated one way only.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use holdfast_bpf::object::{self, LinkInfo};
use holdfast_bpf::{BpfError, link};
use holdfast_protocol::kernel;
use holdfast_protocol::manifest::Kind;
use holdfast_protocol::pin::directory_name;

use super::pins::{self, Found, KINDS, PinError, Pins};
use super::survey::{Held, hold, links_using};

/// How the names of our programs begin, in this version and any other.
const PROGRAM_PREFIX: &str = "hf_";

/// Why something is left.
#[derive(Debug, thiserror::Error)]
pub enum ClearError {
    /// The pins.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// The kernel refused.
    #[error(transparent)]
    Bpf(#[from] BpfError),
    /// It would not go away.
    #[error("{} could not be removed; something holds it or keeps putting it back", list(.0))]
    Left(Vec<String>),
}

fn list(items: &[String]) -> String {
    items.join(", ")
}

/// Removes everything of the instance, and says what, one line each.
///
/// # Errors
///
/// [`ClearError`] when something is left.
pub fn clear(bpffs: &Path, instance: &str, cgroup: &Path) -> Result<Vec<String>, ClearError> {
    let mut removed = Vec::new();
    let Some(pins) = Pins::open_existing(bpffs, instance)? else { return Ok(removed) };
    detach_links(&pins, cgroup, &mut removed)?;
    for kind in [Kind::Link, Kind::Program, Kind::Map] {
        for name in pins.names(kind)? {
            let path = pins.path(kind, &name);
            if pins::remove(&path)? {
                removed.push(format!("pin {}", path.display()));
            }
        }
    }
    let directory = pins.directory();
    for name in pins::names(&directory)? {
        if KINDS.iter().all(|kind| directory_name(*kind) != name) {
            let path = directory.join(name);
            if pins::remove(&path)? {
                removed.push(format!("pin {}", path.display()));
            }
        }
    }
    let gone = pins.remove_empty_directories();
    removed.extend(gone.iter().map(|path| format!("directory {}", path.display())));
    if gone.contains(&directory) {
        return Ok(removed);
    }
    Err(ClearError::Left(vec![format!("directory {}", directory.display())]))
}

fn detach_links(pins: &Pins, cgroup: &Path, removed: &mut Vec<String>) -> Result<(), ClearError> {
    let mut left = Vec::new();
    let mut links: Vec<(String, Held<LinkInfo>)> = own_links(pins)?.into_values().collect();
    links.sort_by_key(|(name, link)| (detach_order(name), link.info.id));
    for (name, held) in links {
        let at = held.info.cgroup.map_or(0, |at| at.cgroup_id);
        let what = format!("link {name} (id {})", held.info.id);
        if at == 0 {
            continue;
        }
        link::detach(held.descriptor.as_fd())?;
        let still = object::link_info(held.descriptor.as_fd())?.cgroup;
        if still.is_some_and(|at| at.cgroup_id != 0) {
            left.push(what);
        } else {
            removed.push(format!("{what} detached from {}", place(cgroup, at)));
        }
    }
    if left.is_empty() { Ok(()) } else { Err(ClearError::Left(left)) }
}

/// Every link of the instance by id, with its program's name: those pinned in its directory whose
/// program is of our name or uses our maps, and those anywhere whose program uses our maps.
fn own_links(pins: &Pins) -> Result<BTreeMap<u32, (String, Held<LinkInfo>)>, ClearError> {
    let mut map_ids = BTreeSet::new();
    for path in paths(pins, Kind::Map)? {
        if let Found::Object(map) = pins::find(&path, Kind::Map)? {
            map_ids.insert(object::map_info(map.as_fd())?.id);
        }
    }
    for path in paths(pins, Kind::Program)? {
        if let Found::Object(program) = pins::find(&path, Kind::Program)? {
            let info = object::program_info(program.as_fd())?;
            if info.name.starts_with(PROGRAM_PREFIX) {
                map_ids.extend(info.map_ids);
            }
        }
    }
    let mut own = BTreeMap::new();
    for path in paths(pins, Kind::Link)? {
        let Found::Object(descriptor) = pins::find(&path, Kind::Link)? else { continue };
        let info = object::link_info(descriptor.as_fd())?;
        let program = hold(Kind::Program, info.program_id, object::program_info)?;
        if let Some(program) = program.map(|held| held.info)
            && program.name.starts_with(PROGRAM_PREFIX)
        {
            map_ids.extend(program.map_ids);
            own.insert(info.id, (program.name, Held { descriptor, info }));
        }
    }
    let map_ids: Vec<u32> = map_ids.into_iter().collect();
    for found in links_using(&map_ids)? {
        own.entry(found.link.info.id).or_insert((found.program.info.name, found.link));
    }
    Ok(own)
}

fn paths(pins: &Pins, kind: Kind) -> Result<Vec<PathBuf>, PinError> {
    Ok(pins.names(kind)?.iter().map(|name| pins.path(kind, name)).collect())
}

/// The reverse of the order of attachment; hooks of other versions come first.
fn detach_order(name: &str) -> usize {
    let attached = kernel::program::ALL.iter().position(|known| *known == name);
    attached.map_or(0, |position| kernel::program::ALL.len() - position)
}

/// The cgroup with this id, by its path if it is the one given.
fn place(cgroup: &Path, id: u64) -> String {
    use std::os::unix::fs::MetadataExt;
    match std::fs::metadata(cgroup) {
        Ok(found) if found.ino() == id => cgroup.display().to_string(),
        _ => format!("the cgroup with id {id}"),
    }
}
