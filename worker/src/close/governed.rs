//! Which cgroups are governed: the one the supervisor governs, and those below it.
//!
//! A worker writes the maps, and may have been taken over. Which cgroup a socket is in, it does not write: the
//! kernel says that itself (`INET_DIAG_CGROUP_ID`), and which are governed is read from the cgroup file
//! system, where a cgroup's id is its directory's inode number and no cgroup can be moved (`kernfs` of version 2
//! has no rename).

use std::collections::{HashSet, VecDeque};
use std::fs;
use std::os::unix::fs::{DirEntryExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

/// The id of the root of the hierarchy, which every socket is in or below. That of a container's cgroup namespace
/// has another one.
const ROOT: u64 = 1;

/// Cgroups that are looked at in one run at most: several times those of the largest nodes, and work for a second
/// or two. It bounds what whoever may make cgroups can keep this busy with.
const MAX_CGROUPS: usize = 65_536;

/// Why it is not known what is governed.
#[derive(Debug, thiserror::Error)]
pub enum GovernedError {
    /// It cannot be looked at.
    #[error("cannot look at the governed cgroup {}: {source}", path.display())]
    Unreadable {
        /// Its directory.
        path: PathBuf,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// It is something else.
    #[error("{} is not a cgroup of version 2", .0.display())]
    NoCgroup(PathBuf),
}

/// The governed cgroups.
#[derive(Debug)]
pub struct Governed {
    directory: PathBuf,
    own: u64,
    /// Those below, once they have been asked for.
    below: Option<HashSet<u64>>,
}

impl Governed {
    /// The cgroup `directory` and those below it.
    ///
    /// # Errors
    ///
    /// When there is no such cgroup.
    pub fn of(directory: &Path) -> Result<Self, GovernedError> {
        let path = || directory.to_owned();
        let unreadable = |source| GovernedError::Unreadable { path: path(), source };
        let kind = statfs(directory).map_err(Errno::into).map_err(unreadable)?;
        if kind.filesystem_type() != CGROUP2_SUPER_MAGIC {
            return Err(GovernedError::NoCgroup(path()));
        }
        let own = fs::metadata(directory).map_err(unreadable)?.ino();
        Ok(Self { directory: path(), own, below: None })
    }

    /// Whether the sockets of the cgroup with the id `cgroup` are governed, 0 being none. One that has been
    /// removed, or that was made after this was asked for the first time, is not known to be.
    pub fn has(&mut self, cgroup: u64) -> bool {
        if cgroup == 0 || cgroup == self.own || self.own == ROOT {
            return cgroup != 0;
        }
        self.below.get_or_insert_with(|| below(&self.directory)).contains(&cgroup)
    }
}

/// The ids of the cgroups below `directory`, those nearest to it first if there are too many. What cannot be
/// read, or is gone by now, is left out: what is not known to be governed is not closed.
fn below(directory: &Path) -> HashSet<u64> {
    let mut found = HashSet::new();
    let mut unread = VecDeque::from([directory.to_owned()]);
    while let Some(next) = unread.pop_front() {
        let Ok(entries) = fs::read_dir(&next) else { continue };
        for entry in entries.flatten() {
            // Its type comes with its name (`kernfs_fop_readdir`).
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if found.len() == MAX_CGROUPS {
                return found;
            }
            found.insert(entry.ino());
            unread.push_back(entry.path());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use holdfast_lab::cgroup::{Cgroup, id, mount_point};

    use super::*;

    #[test]
    fn a_cgroup_and_those_below_it_are_governed_and_no_others() {
        let mount = mount_point().expect("it is mounted");
        let name = format!("holdfast-governed-{}", std::process::id());
        let outer = Cgroup::create(&mount.join(name)).expect("tests need root");
        let path = |name: &str| outer.path().join(name);
        for name in ["governed", "governed/a", "governed/a/b", "beside", "beside/a"] {
            fs::create_dir(path(name)).expect("it can be made");
        }
        let mut governed = Governed::of(&path("governed")).expect("it is there");
        let expected = [
            ("governed", true),
            ("governed/a", true),
            ("governed/a/b", true),
            ("beside", false),
            ("beside/a", false),
            (".", false),
            ("..", false),
        ];
        let mut has = |name: &str| governed.has(id(&path(name)).expect("it is there"));
        let found = expected.map(|(name, _)| (name, has(name)));
        outer.remove().expect("nobody is in it");
        assert_eq!(found, expected);
        assert!(!governed.has(0) && !governed.has(u64::MAX));
        let mut all = Governed { own: ROOT, ..governed };
        assert!(all.has(u64::MAX) && !all.has(0));
    }

    #[test]
    fn what_is_no_cgroup_is_refused() {
        let refused = Governed::of(Path::new("/proc"));
        assert!(matches!(refused, Err(GovernedError::NoCgroup(_))), "{refused:?}");
        let refused = Governed::of(Path::new("/nonexistent"));
        assert!(matches!(refused, Err(GovernedError::Unreadable { .. })), "{refused:?}");
    }
}
