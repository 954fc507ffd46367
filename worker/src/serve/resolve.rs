//! From the paths of an enrolment to what the kernel knows them by.
//!
//! It takes no privilege: a cgroup's id is the inode number of its directory (`kernel/cgroup`, on
//! machines with 64-bit inode numbers, the only ones Holdfast runs on), and a network namespace says
//! its cookie itself (`NS_GET_ID`, Linux 6.18).

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use holdfast_config::Enrolment;
use holdfast_protocol::kernel::enrolled;

use super::tables::enrolment::Member;

/// `NS_GET_NSTYPE` (`include/uapi/linux/nsfs.h`): what kind of namespace a descriptor is of.
pub const NS_GET_NSTYPE: u32 = 0xb703;
/// `NS_GET_ID`, likewise: the namespace's id, which for a network namespace is its cookie.
pub const NS_GET_ID: u32 = 0x8008_b70d;

/// A file that every cgroup of version 2 has, and nothing else.
const CONTROLLERS: &str = "cgroup.controllers";

/// What came of the paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// Those that exist.
    pub members: BTreeSet<Member>,
    /// Those that do not, and why.
    pub missing: Vec<(PathBuf, String)>,
}

/// Looks up every path of `enrolment`.
#[must_use]
pub fn resolve(enrolment: &Enrolment) -> Resolved {
    let mut resolved = Resolved::default();
    for path in &enrolment.cgroups {
        resolved.take(path, enrolled::CGROUP, cgroup(path));
    }
    for path in &enrolment.network_namespaces {
        resolved.take(path, enrolled::NETWORK_NAMESPACE, network_namespace(path));
    }
    resolved
}

impl Resolved {
    fn take(&mut self, path: &Path, kind: u32, id: io::Result<u64>) {
        match id {
            Ok(id) => {
                self.members.insert((kind, id));
            }
            Err(error) => self.missing.push((path.to_owned(), error.to_string())),
        }
    }
}

fn cgroup(path: &Path) -> io::Result<u64> {
    let id = fs::metadata(path)?.ino();
    match fs::metadata(path.join(CONTROLLERS)) {
        Ok(_) => Ok(id),
        Err(_) => Err(io::Error::other("it is not a cgroup of version 2")),
    }
}

fn network_namespace(path: &Path) -> io::Result<u64> {
    // Not to be held up by a FIFO.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    // SAFETY: the request takes no argument.
    let kind = unsafe { libc::ioctl(file.as_raw_fd(), libc::Ioctl::from(NS_GET_NSTYPE)) };
    if kind != libc::CLONE_NEWNET {
        return Err(io::Error::other("it is not a network namespace"));
    }
    cookie(&file)
}

fn cookie(file: &File) -> io::Result<u64> {
    let mut id = 0_u64;
    // SAFETY: the request writes 8 bytes to the address, which is that of a live `u64`.
    let answer =
        unsafe { libc::ioctl(file.as_raw_fd(), libc::Ioctl::from(NS_GET_ID), &raw mut id) };
    if answer == 0 {
        return Ok(id);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ENOTTY) => {
            Err(io::Error::other("this kernel does not tell its cookie: that takes Linux 6.18"))
        }
        _ => Err(error),
    }
}
