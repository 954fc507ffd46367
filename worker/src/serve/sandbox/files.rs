//! Landlock: the worker reads its configuration and two facts about the processors, and nothing
//! else of the file system, writes nothing, and listens nowhere. Connecting is left to the filter of
//! system calls: which ports are to be checked is not known before the configuration is read, and no
//! rule can be added then.
//!
//! What may be read is a set of directories, found when the worker starts: a save usually replaces
//! files, so a rule for a file would hold for the one that was replaced. A save that moves the
//! configuration out of these directories (the directory itself is replaced, or a link leads
//! elsewhere) cannot be read any more, and no rule can be added; [`Readable::lacks`] notices, the
//! worker ends, and the next one starts with rules for the new place.
//!
//! Landlock does not restrict what only looks: `stat`, `readlink` and inotify work everywhere the
//! user may go.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use holdfast_config::limit::MAX_FILES;
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, PathBeneath,
    PathFd, RestrictionStatus, Ruleset, RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _,
    RulesetError, RulesetStatus, Scope,
};

use crate::serve::source::places::link_places;

/// The newest interface whose rights are denied: files, TCP, ioctl on devices, signals to others
/// and abstract Unix sockets (Linux 6.12). A kernel that knows less denies less.
const NEWEST_ABI: ABI = ABI::V6;

/// Read while serving: by this program to know how large a per-CPU value is, and by the C library to
/// know whether a grace period can be asked for.
const PROCESSORS: [&str; 2] =
    ["/sys/devices/system/cpu/possible", "/sys/devices/system/cpu/online"];

/// What this process may read of the configuration from now on.
#[derive(Debug)]
pub struct Readable {
    /// The directories, and a file in the root directory; `None` when the kernel does not enforce
    /// it, so that everything is readable.
    within: Option<Vec<Identity>>,
}

/// Which file or directory, whatever it is called.
type Identity = (u64, u64);

/// How much of it the kernel enforces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enforced {
    /// All of it.
    Fully,
    /// What this kernel knows.
    Partly,
    /// Nothing: no Landlock in this kernel.
    Nothing,
}

impl std::fmt::Display for Enforced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Fully => "fully",
            Self::Partly => "partly",
            Self::Nothing => "not at all",
        })
    }
}

impl Enforced {
    const fn of(status: &RestrictionStatus) -> Self {
        match status.ruleset {
            RulesetStatus::FullyEnforced => Self::Fully,
            RulesetStatus::PartiallyEnforced => Self::Partly,
            RulesetStatus::NotEnforced => Self::Nothing,
        }
    }
}

/// Confines this thread, and what it starts later, to reading the configuration at `path`.
///
/// A kernel without Landlock confines nothing, which the answer says: it is the second of two
/// fences, and an older kernel is no reason to leave the node without a worker.
///
/// # Errors
///
/// When a kernel that offers Landlock refuses it all the same.
pub fn confine(path: &Path) -> Result<(Readable, Enforced), RulesetError> {
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST_ABI))?
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::from_all(NEWEST_ABI))?
        .create()?;
    let mut within = Vec::new();
    for place in needed(path) {
        // Noted also when there can be no rule for it: the next worker would fare no better.
        within.push(identity(&place.metadata));
        rules = allow(rules, &place.path, &place.metadata)?;
    }
    for file in PROCESSORS.map(Path::new) {
        if let Ok(metadata) = fs::metadata(file) {
            rules = allow(rules, file, &metadata)?;
        }
    }
    let enforced = Enforced::of(&rules.restrict_self()?);
    let within = (enforced != Enforced::Nothing).then_some(within);
    Ok((Readable { within }, enforced))
}

impl Readable {
    /// Whether the configuration at `path` is, at least in part, where this process may not read.
    #[must_use]
    pub fn lacks(&self, path: &Path) -> bool {
        let Some(within) = &self.within else { return false };
        let is_within = |place: &Place| {
            let mut above = place.path.ancestors().filter_map(|above| fs::metadata(above).ok());
            above.any(|metadata| within.contains(&identity(&metadata)))
        };
        !needed(path).iter().all(is_within)
    }
}

/// Something that has to be readable.
struct Place {
    /// Without symbolic links.
    path: PathBuf,
    metadata: Metadata,
}

impl Place {
    fn at(path: &Path) -> Option<Self> {
        let path = fs::canonicalize(path).ok()?;
        let metadata = fs::metadata(&path).ok()?;
        Some(Self { path, metadata })
    }

    /// A directory itself; for a file the directory it is in, where it will be replaced. That is
    /// not said of the root directory, which would be everything.
    fn or_directory(self) -> Option<Self> {
        match self.path.parent() {
            Some(directory) if !self.metadata.is_dir() && !is_root(directory) => {
                Self::at(directory)
            }
            _ => Some(self),
        }
    }
}

/// What has to be readable for the configuration at `path`: the directory it is or is in, those that
/// links in it lead to, and those in which a link decides between it and its next generation.
fn needed(path: &Path) -> Vec<Place> {
    let Some(found) = Place::at(path) else {
        // A file is awaited in its directory. A directory is not awaited in the one above it.
        let directory = path.parent().and_then(Place::at);
        return directory.into_iter().filter(|place| !is_root(&place.path)).collect();
    };
    let holds_generations = |place: &Place| {
        !is_root(&place.path) && place.path != found.path && found.path.starts_with(&place.path)
    };
    let links = link_places(path).into_iter().filter_map(|place| Place::at(&place));
    let mut needed: Vec<Place> = links.filter(holds_generations).collect();
    if found.metadata.is_dir() {
        needed.extend(led_to_from(&found.path));
    }
    needed.extend(found.or_directory());
    needed
}

/// What the symbolic links in `directory` lead to outside of it.
fn led_to_from(directory: &Path) -> impl Iterator<Item = Place> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().take(MAX_FILES);
    let links = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_symlink()));
    links
        .filter_map(|entry| Place::at(&entry.path()))
        .filter(move |place| !place.path.starts_with(directory))
        .filter_map(Place::or_directory)
}

fn allow(
    rules: RulesetCreated,
    path: &Path,
    metadata: &Metadata,
) -> Result<RulesetCreated, RulesetError> {
    let mut access = BitFlags::from(AccessFs::ReadFile);
    if metadata.is_dir() {
        access |= AccessFs::ReadDir;
    }
    match PathFd::new(path) {
        Ok(place) => rules.add_rule(PathBeneath::new(place, access)),
        // It is gone again, or may not be reached: reading it will say so.
        Err(_) => Ok(rules),
    }
}

fn identity(metadata: &Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

fn is_root(path: &Path) -> bool {
    path.parent().is_none()
}
