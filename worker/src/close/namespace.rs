//! Entering a network namespace of which nothing is known but its id.
//!
//! Since Linux 6.18 namespaces have file handles (`fs/nsfs.c`), which whoever administers them may open: no
//! process in the namespace has to be found, and none traced. A handle is the id, the kind, and the number of
//! the namespace's inode. The id is what the programs remember of a socket. The number of the inode nobody
//! tells; but the kernel gives the lowest that is free, counted up from one number
//! (`proc_alloc_inum`), so it is looked for: a wrong one costs a microsecond.

use std::fs::File;
use std::ops::Range;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::time::Instant;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};

/// Where this process's own network namespace is.
const OWN: &str = "/proc/self/ns/net";

/// `FILEID_NSFS` (`include/linux/exportfs.h`).
const HANDLE_TYPE: libc::c_int = 0xf1;

/// The number of the first network namespace's inode (`PROC_NET_INIT_INO`, `include/linux/proc_ns.h`).
const FIRST_INODE: u32 = 0xefff_fff9;

/// The numbers that others have: from `PROC_DYNAMIC_FIRST` (`fs/proc/generic.c`) on. A network namespace takes
/// some seventy with its files in `/proc`, so these are enough for those of more than a thousand pods.
const INODES: Range<u32> = 0xf000_0000..0xf002_0000;

/// `SO_NETNS_COOKIE` (`include/uapi/asm-generic/socket.h`).
const SO_NETNS_COOKIE: libc::c_int = 71;

/// Between two looks at the time.
const LOOK: u32 = 1024;

/// `struct file_handle` with a `struct nsfs_file_handle` in it.
#[repr(C)]
struct Handle {
    bytes: u32,
    kind: libc::c_int,
    id: [u32; 2],
    namespace: u32,
    inode: u32,
}

/// Why a network namespace is not entered.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// The kernel cannot.
    #[error(
        "this kernel does not open a network namespace by its id, which Linux 6.18 and later do ({0})"
    )]
    Unsupported(Errno),
    /// No such number.
    #[error("the network namespace with the id {0} was not found")]
    NotFound(u64),
    /// It takes too long.
    #[error("there was no time left to look for the network namespace with the id {0}")]
    NoTime(u64),
    /// The kernel refused.
    #[error("{step} the network namespace: {source}")]
    Refused {
        /// What was tried.
        step: &'static str,
        /// The kernel's answer.
        source: Errno,
    },
}

/// Opens network namespaces.
#[derive(Debug)]
pub struct Namespaces {
    /// The one this process began in: any file of the file system will do.
    own: File,
    /// Its id, if the kernel tells.
    id: Option<u64>,
}

impl Namespaces {
    /// Beginning with this process's own.
    ///
    /// # Errors
    ///
    /// When `/proc` is not mounted.
    pub fn open() -> std::io::Result<Self> {
        Ok(Self { own: File::open(OWN)?, id: cookie()? })
    }

    /// Whether `id` is that of the network namespace this process began in.
    #[must_use]
    pub fn is_own(&self, id: u64) -> bool {
        self.id == Some(id)
    }

    /// The descriptor of a file on the file system on which they are opened.
    #[must_use]
    pub fn file_system(&self) -> RawFd {
        self.own.as_raw_fd()
    }

    /// Makes this process's network namespace the one with this id, if it is found before `until`.
    ///
    /// # Errors
    ///
    /// Any [`NamespaceError`]; this process is where it was.
    pub fn enter(&self, id: u64, until: Instant) -> Result<(), NamespaceError> {
        let found = self.find(id, until)?;
        setns(found, CloneFlags::CLONE_NEWNET)
            .map_err(|source| NamespaceError::Refused { step: "enter", source })
    }

    fn find(&self, id: u64, until: Instant) -> Result<OwnedFd, NamespaceError> {
        for inode in std::iter::once(FIRST_INODE).chain(INODES) {
            if inode % LOOK == 0 && Instant::now() >= until {
                return Err(NamespaceError::NoTime(id));
            }
            match open(self.own.as_raw_fd(), id, inode) {
                Ok(found) => return Ok(found),
                // There is none with this id and this inode.
                Err(Errno::ESTALE) => {}
                Err(errno @ (Errno::EPERM | Errno::EACCES)) => {
                    return Err(NamespaceError::Refused { step: "open", source: errno });
                }
                Err(errno) => return Err(NamespaceError::Unsupported(errno)),
            }
        }
        Err(NamespaceError::NotFound(id))
    }
}

/// The id of this process's network namespace. Sockets have told it since before namespaces themselves did.
fn cookie() -> std::io::Result<Option<u64>> {
    let socket = UnixDatagram::unbound()?;
    let mut id = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).expect("a small number");
    // SAFETY: the two addresses are those of a live `u64` and of its length.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut id).cast(),
            &raw mut length,
        )
    };
    Ok((answer == 0).then_some(id))
}

fn open(mount: RawFd, id: u64, inode: u32) -> Result<OwnedFd, Errno> {
    let [low, high] = [id & u64::from(u32::MAX), id >> 32];
    let half = |half: u64| u32::try_from(half).expect("half of a word");
    let mut handle = Handle {
        bytes: 16,
        kind: HANDLE_TYPE,
        id: [half(low), half(high)],
        namespace: libc::CLONE_NEWNET.cast_unsigned(),
        inode,
    };
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    // SAFETY: the handle is a live struct that says how long it is; the rest are plain integers.
    let answer =
        unsafe { libc::syscall(libc::SYS_open_by_handle_at, mount, &raw mut handle, flags) };
    let raw = Errno::result(answer)?;
    let raw = RawFd::try_from(raw).expect("descriptors are small numbers");
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

const _: () = assert!(size_of::<Handle>() == 24);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nix::sched::unshare;

    use super::*;

    /// In a thread of its own, which leaves with its namespaces.
    #[test]
    fn a_network_namespace_is_entered_by_its_id() {
        let before = cookie().expect("a socket").expect("a kernel that tells");
        std::thread::spawn(move || {
            let namespaces = Namespaces::open().expect("`/proc` is mounted");
            assert!(namespaces.is_own(before));
            unshare(CloneFlags::CLONE_NEWNET).expect("root may");
            let made = cookie().expect("a socket").expect("a kernel that tells");
            let until = Instant::now() + Duration::from_secs(10);
            let kept = File::open("/proc/thread-self/ns/net").expect("it is there");
            namespaces.enter(before, until).expect("it is there");
            assert_eq!(cookie().expect("a socket"), Some(before));
            namespaces.enter(made, until).expect("it is there as long as it is kept");
            assert_eq!(cookie().expect("a socket"), Some(made));
            let refused = namespaces.enter(u64::MAX, until);
            assert!(matches!(refused, Err(NamespaceError::NotFound(_))), "{refused:?}");
            assert_eq!(cookie().expect("a socket"), Some(made));
            drop(kept);
        })
        .join()
        .expect("it ends well");
    }
}
