//! The cgroup of a patch: where it is made, and how it is removed whatever runs in it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::error::LabError;
use crate::wait::{eventually, holds};

/// File in a cgroup that lists its processes, and takes new ones.
pub const PROCESSES: &str = "cgroup.procs";

/// The mount point of the cgroup2 filesystem, wherever it is.
///
/// # Errors
///
/// [`LabError::NoCgroup2`] when there is none.
pub fn mount_point() -> Result<PathBuf, LabError> {
    let path = Path::new("/proc/self/mountinfo");
    let text = fs::read_to_string(path).map_err(LabError::file("read", path))?;
    cgroup2_mount(&text).ok_or(LabError::NoCgroup2)
}

/// The first cgroup2 mount point in the text of a `mountinfo` file (`proc_pid_mountinfo(5)`).
fn cgroup2_mount(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let path = left.split(' ').nth(4)?;
        // The kernel writes a space in a path as \040; other escapes do not occur in mount points
        // anybody uses for cgroups.
        right.starts_with("cgroup2 ").then(|| PathBuf::from(path.replace("\\040", " ")))
    })
}

/// A cgroup of our own. Its directory is locked as long as this process lives, which tells others
/// that it is not a leftover.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    _lock: Flock<File>,
}

impl Cgroup {
    /// Makes the cgroup `path`, which must not exist.
    ///
    /// # Errors
    ///
    /// When it exists, or this process may not make it.
    pub fn create(path: &Path) -> Result<Self, LabError> {
        loop {
            fs::create_dir(path).map_err(LabError::file("create the cgroup", path))?;
            // Until it is locked, another process that clears leftovers away may take it for one.
            // Each time round, that process has removed a cgroup: it runs out of them.
            match lock(path, FlockArg::LockExclusive) {
                Ok(lock) if still_there(path, &lock) => {
                    return Ok(Self { path: path.to_owned(), _lock: lock });
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(LabError::file("lock the cgroup", path)(error)),
            }
        }
    }

    /// A cgroup that a process made which has died since; `None` while that process lives.
    #[must_use]
    pub fn abandoned(path: &Path) -> Option<Self> {
        let lock = lock(path, FlockArg::LockExclusiveNonblock).ok()?;
        Some(Self { path: path.to_owned(), _lock: lock })
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Kills every process in it and in the cgroups below, waits until they are gone, removes it.
    ///
    /// # Errors
    ///
    /// When the kernel refuses, or the processes do not end.
    pub fn remove(&self) -> Result<(), LabError> {
        self.end_processes()?;
        remove_tree(&self.path).map_err(LabError::file("remove the cgroup", &self.path))
    }

    /// Kills every process in it and in the cgroups below, and waits until they are gone.
    ///
    /// # Errors
    ///
    /// When the kernel refuses, or the processes do not end.
    pub fn end_processes(&self) -> Result<(), LabError> {
        let kill = self.path.join("cgroup.kill");
        fs::write(&kill, "1").map_err(LabError::file("write", &kill))?;
        eventually("the last process of the cgroup to end", || self.is_empty())
    }

    fn is_empty(&self) -> Result<(), String> {
        let path = self.path.join("cgroup.events");
        let events = fs::read_to_string(path).map_err(|error| error.to_string())?;
        holds(events.lines().any(|line| line == "populated 0"), || events.clone())
    }
}

/// Ids of the processes in the cgroup `path`, not in those below.
///
/// # Errors
///
/// When there is no such cgroup.
pub fn processes(path: &Path) -> Result<Vec<u32>, LabError> {
    let list = path.join(PROCESSES);
    let text = fs::read_to_string(&list).map_err(LabError::file("read", &list))?;
    Ok(text.lines().filter_map(|pid| pid.parse().ok()).collect())
}

/// Moves the calling process, with all its threads, to the cgroup `path`.
///
/// # Errors
///
/// When there is no such cgroup, or the kernel refuses.
pub fn enter(path: &Path) -> Result<(), LabError> {
    let list = path.join(PROCESSES);
    fs::write(&list, "0").map_err(LabError::file("enter the cgroup by writing", &list))
}

/// The kernel's id of the cgroup `path`: on cgroup2 it is the directory's inode number.
///
/// # Errors
///
/// When there is no such cgroup.
pub fn id(path: &Path) -> Result<u64, LabError> {
    Ok(fs::metadata(path).map_err(LabError::file("look at", path))?.ino())
}

fn lock(path: &Path, how: FlockArg) -> io::Result<Flock<File>> {
    Flock::lock(File::open(path)?, how).map_err(|(_, errno)| errno.into())
}

/// Whether `path` is the directory that is locked, and not removed.
fn still_there(path: &Path, lock: &Flock<File>) -> bool {
    match (fs::metadata(path), lock.metadata()) {
        (Ok(there), Ok(locked)) => there.ino() == locked.ino(),
        _ => false,
    }
}

fn remove_tree(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_is_found_where_it_is() {
        let text = "\
            31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw\n\
            32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime shared:3 - cgroup cgroup rw,cpu\n\
            41 31 0:38 / /sys/fs/cgroup/the\\040one rw shared:4 master:1 - cgroup2 none rw\n";
        assert_eq!(cgroup2_mount(text), Some(PathBuf::from("/sys/fs/cgroup/the one")));
    }

    #[test]
    fn no_mount_is_found_where_there_is_none() {
        assert_eq!(cgroup2_mount("32 31 0:29 / /cgroup2 rw - cgroup cgroup rw,cpu\n"), None);
    }
}
