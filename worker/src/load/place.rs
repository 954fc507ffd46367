//! Where the estate goes: the cgroup it governs and the bpffs that keeps its pins.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::statfs::{BPF_FS_MAGIC, CGROUP2_SUPER_MAGIC, FsType, fstatfs};

/// A place that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// It cannot be opened.
    #[error("cannot open {what} {}: {source}; {remedy}", path.display())]
    Open {
        /// What it should be.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// It is another kind of file system.
    #[error("{} is not on a {what}; {remedy}", path.display())]
    OtherKind {
        /// What it should be.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What to do.
        remedy: &'static str,
    },
}

const CGROUP_REMEDY: &str = "give --cgroup a directory below the mount of type cgroup2 (findmnt -t \
                             cgroup2), or mount one: mount -t cgroup2 none /sys/fs/cgroup";
const BPFFS_REMEDY: &str =
    "give --bpffs the mount point of a bpffs, or mount one: mount -t bpf bpf /sys/fs/bpf";

/// The cgroup whose processes are governed.
#[derive(Debug)]
pub struct Cgroup {
    directory: File,
    /// The kernel's id of it, as links report it. On cgroup2 that is the inode number
    /// (`cgroup_id()` in the kernel: the id of the kernfs node).
    pub id: u64,
    /// Where it was found.
    pub path: PathBuf,
}

impl Cgroup {
    /// Opens the cgroup at `path`.
    ///
    /// # Errors
    ///
    /// [`PlaceError`], when there is no cgroup2 directory.
    pub fn open(path: &Path) -> Result<Self, PlaceError> {
        let directory = open("cgroup2", path, CGROUP2_SUPER_MAGIC, CGROUP_REMEDY)?;
        let id = directory
            .metadata()
            .map_err(|source| opening("cgroup2", path, source, CGROUP_REMEDY))?
            .ino();
        Ok(Self { directory, id, path: path.to_owned() })
    }
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// Checks that `path` is on a bpffs.
///
/// # Errors
///
/// [`PlaceError`], when it is not.
pub fn check_bpffs(path: &Path) -> Result<(), PlaceError> {
    open("bpffs", path, BPF_FS_MAGIC, BPFFS_REMEDY).map(drop)
}

fn open(
    what: &'static str,
    path: &Path,
    kind: FsType,
    remedy: &'static str,
) -> Result<File, PlaceError> {
    let directory = File::open(path).map_err(|source| opening(what, path, source, remedy))?;
    let status =
        fstatfs(&directory).map_err(|errno: Errno| opening(what, path, errno.into(), remedy))?;
    if status.filesystem_type() != kind {
        return Err(PlaceError::OtherKind { what, path: path.to_owned(), remedy });
    }
    Ok(directory)
}

fn opening(what: &'static str, path: &Path, source: io::Error, remedy: &'static str) -> PlaceError {
    PlaceError::Open { what, path: path.to_owned(), source, remedy }
}
