//! The ids of cgroups.
//!
//! On cgroup2 the id is the inode number of the directory, and looking at it takes no privilege: neither
//! the file system's rights nor Landlock restrict `stat(2)`. A cgroup that is made anew has another
//! id, so a worker asks again every now and then.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use holdfast_config::Access;

/// The cgroups that identities name and that are there, with their ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolution(pub BTreeMap<PathBuf, u64>);

/// Asks the file system for the cgroups of `access`. One that is not there, or is not of cgroup2, has
/// no process in it.
#[must_use]
pub fn resolve(access: &Access) -> Resolution {
    let paths = access.identities.iter().flat_map(|identity| &identity.cgroups);
    let id = |path: &PathBuf| {
        // Every directory of cgroup2 has this file, and those of other file systems have not: their
        // inode numbers may be those of cgroups that have nothing to do with them.
        let is_cgroup = fs::metadata(path.join("cgroup.procs")).is_ok();
        let found = fs::metadata(path).ok().filter(|_| is_cgroup)?;
        Some((path.clone(), found.ino()))
    };
    Resolution(paths.filter_map(id).collect())
}
