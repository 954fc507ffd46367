//! What an instance has in the kernel and on disk: taken before and after, the two must be equal.
//!
//! Other tests make kernel objects at the same time, so a plain count of everything on the machine
//! says nothing. What belongs to a lab is found from its own ends: its pins, the links attached to
//! its cgroup, their programs, the programs' maps. An object that is no longer reachable from there
//! might still exist, so each id that was ever seen is asked for again by number; the kernel hands
//! out ids cyclically and does not reuse them within a test.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use holdfast_bpf::{BpfError, object};
use holdfast_protocol::manifest::Kind;
use holdfast_protocol::pin;

use crate::cgroup;
use crate::error::LabError;
use crate::inside::Lab;
use crate::wait::{eventually, holds};

/// Everything of one lab's instance that exists at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Kernel objects, by kind and id.
    pub objects: BTreeSet<(Kind, u32)>,
    /// Files, directories, sockets and pins below the instance's directories.
    pub files: BTreeSet<PathBuf>,
    /// Processes beside the governed cgroup: the supervisor and its children.
    pub processes: BTreeSet<u32>,
}

impl Census {
    /// Counts what `lab` has now; objects of `earlier` count as long as they exist.
    ///
    /// # Errors
    ///
    /// When the kernel or the file system refuses.
    pub fn take(lab: &Lab, earlier: &Self) -> Result<Self, LabError> {
        let mut objects = BTreeSet::new();
        for (kind, id) in &earlier.objects {
            if exists(*kind, *id)? {
                objects.insert((*kind, *id));
            }
        }
        let mut files = BTreeSet::new();
        for directory in [lab.bpffs(), lab.state_directory(), lab.run_directory()] {
            list(&directory, &mut files)?;
        }
        for path in files.iter().filter(|path| path.starts_with(lab.bpffs()) && path.is_file()) {
            objects.extend(pinned(path)?);
        }
        objects.extend(attached(cgroup::id(&lab.governed())?)?);
        let processes = cgroup::processes(&lab.control())?.into_iter().collect();
        Ok(Self { objects, files, processes })
    }

    /// Ids of the objects of one kind.
    #[must_use]
    pub fn ids(&self, kind: Kind) -> BTreeSet<u32> {
        self.objects.iter().filter(|(found, _)| *found == kind).map(|(_, id)| *id).collect()
    }

    /// Waits until `lab` has what it had at this census and nothing else. The kernel frees objects
    /// some time after their last user has gone, hence the wait.
    ///
    /// # Errors
    ///
    /// When something stays that `later`, taken in between, or a new census shows.
    pub fn wait_for_return(&self, lab: &Lab, later: &Self) -> Result<(), LabError> {
        eventually("the census to be what it was before", || {
            let now = Self::take(lab, later).map_err(|error| error.to_string())?;
            holds(now == *self, || format!("{now:?} instead of {self:?}"))
        })
    }
}

/// Every pin of `instance` in `lab`, with the id of what it holds.
///
/// # Errors
///
/// When one of them is no pin.
pub fn pins(lab: &Lab, instance: &str) -> Result<BTreeMap<PathBuf, u32>, LabError> {
    let mut found = BTreeMap::new();
    for kind in [Kind::Map, Kind::Program, Kind::Link] {
        let directory =
            pin::instance_directory(&lab.bpffs(), instance).join(pin::directory_name(kind));
        // Where nothing of a kind is pinned there is no directory either.
        for entry in fs::read_dir(directory).into_iter().flatten() {
            let path = entry.map_err(LabError::system("list the pins"))?.path();
            let held = object::get(&path)?;
            let id = match kind {
                Kind::Map => object::map_info(held.as_fd())?.id,
                Kind::Program => object::program_info(held.as_fd())?.id,
                Kind::Link => object::link_info(held.as_fd())?.id,
            };
            found.insert(path, id);
        }
    }
    Ok(found)
}

/// The links attached to the cgroup with this id, their programs, and those programs' maps.
fn attached(cgroup_id: u64) -> Result<BTreeSet<(Kind, u32)>, LabError> {
    let mut found = BTreeSet::new();
    for id in object::ids(Kind::Link)? {
        let Some(link) = unless_gone(object::by_id(Kind::Link, id))? else { continue };
        let info = object::link_info(link.as_fd())?;
        if info.cgroup.is_some_and(|attachment| attachment.cgroup_id == cgroup_id) {
            found.insert((Kind::Link, info.id));
            found.extend(program_and_maps(info.program_id)?);
        }
    }
    Ok(found)
}

fn program_and_maps(id: u32) -> Result<BTreeSet<(Kind, u32)>, LabError> {
    let Some(program) = unless_gone(object::by_id(Kind::Program, id))? else {
        return Ok(BTreeSet::new());
    };
    let maps = object::program_info(program.as_fd())?.map_ids;
    let maps = maps.into_iter().map(|map| (Kind::Map, map));
    Ok(maps.chain([(Kind::Program, id)]).collect())
}

/// What is pinned at `path`, with what it keeps alive.
fn pinned(path: &Path) -> Result<BTreeSet<(Kind, u32)>, LabError> {
    let Some(pin) = unless_gone(object::get(path))? else { return Ok(BTreeSet::new()) };
    match object::kind_of(pin.as_fd()) {
        Some(Kind::Map) => Ok([(Kind::Map, object::map_info(pin.as_fd())?.id)].into()),
        Some(Kind::Program) => program_and_maps(object::program_info(pin.as_fd())?.id),
        Some(Kind::Link) => {
            let info = object::link_info(pin.as_fd())?;
            let mut found = program_and_maps(info.program_id)?;
            found.insert((Kind::Link, info.id));
            Ok(found)
        }
        None => Err(LabError::Unexpected(format!("{} is no bpf object", path.display()))),
    }
}

fn exists(kind: Kind, id: u32) -> Result<bool, LabError> {
    Ok(unless_gone(object::by_id(kind, id))?.is_some())
}

fn unless_gone<T>(answer: Result<T, BpfError>) -> Result<Option<T>, LabError> {
    match answer {
        // EAGAIN: somebody else is only just attaching a link of that id.
        Err(error) if error.is_not_found() || error.errno() == libc::EAGAIN => Ok(None),
        answer => Ok(Some(answer?)),
    }
}

/// Adds everything below `directory`. What vanishes meanwhile is not there.
fn list(directory: &Path, found: &mut BTreeSet<PathBuf>) -> Result<(), LabError> {
    let Ok(entries) = fs::read_dir(directory) else { return Ok(()) };
    for entry in entries {
        let entry = entry.map_err(LabError::file("list", directory))?;
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_directory {
            list(&entry.path(), found)?;
        }
        found.insert(entry.path());
    }
    Ok(())
}
