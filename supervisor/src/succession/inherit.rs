//! Taking over what a predecessor left: by number, and only after the kernel has said of each
//! descriptor what it is.
#![expect(unsafe_code, reason = "descriptors arrive as numbers, through execve(2)")]

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use holdfast_protocol::manifest::Kind;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{SockType, getsockopt, sockopt};
use uds::nonblocking::{UnixSeqpacketConn, UnixSeqpacketListener};

use super::carried::{self, Carried, CarriedError};
use crate::channel::Channel;
use crate::estate::{Estate, EstateError, describe};
use crate::lock::{Lock, LockError, Locks};
use crate::process::Child;

/// Why a state is not taken over.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    /// It cannot be read or written.
    #[error("the state cannot be passed on: {0}")]
    File(#[from] io::Error),
    /// It is not one.
    #[error("the state cannot be taken over: {0}")]
    Carried(#[from] CarriedError),
    /// It is another process's.
    #[error("the state is for process {0}, and this is another one")]
    Process(u32),
    /// A descriptor is something else.
    #[error("descriptor {descriptor} should be {wanted}: {found}")]
    Descriptor {
        /// Its number.
        descriptor: RawFd,
        /// What it should be.
        wanted: String,
        /// What it is.
        found: String,
    },
    /// A lock is another's.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// An object is another one.
    #[error(transparent)]
    Estate(#[from] EstateError),
}

/// What a predecessor left, in this process's possession.
#[derive(Debug)]
pub struct Inheritance {
    /// What it knew.
    pub carried: Carried,
    /// What it held.
    pub estate: Estate,
    /// Its locks.
    pub locks: Locks,
    /// Its control socket.
    pub listener: UnixSeqpacketListener,
    /// Connections to that.
    pub sessions: Vec<Channel>,
    /// Where scrapes arrive.
    pub scrapes: Option<OwnedFd>,
    /// Its worker.
    pub worker: Option<LeftWorker<Channel>>,
    /// The worker's binary that has proved itself.
    pub binary: Option<OwnedFd>,
}

/// A predecessor's worker.
#[derive(Debug)]
pub struct LeftWorker<C> {
    /// Its process.
    pub child: Child,
    /// The way to it.
    pub channel: C,
    /// What it watches its configuration with.
    pub watch: Option<OwnedFd>,
}

/// A file that nobody can change any more, with `bytes` in it.
///
/// # Errors
///
/// When this process may open no more descriptors.
pub fn sealed(bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let file = File::from(memfd_create(c"holdfast-state", flags)?);
    io::Write::write_all(&mut &file, bytes)?;
    let seals = SealFlag::F_SEAL_WRITE
        | SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file.into())
}

/// Checks that the state in descriptor `state`, and everything it names, could be taken over by
/// this binary in the process `pid`, and takes nothing. Says what the predecessor waits for.
///
/// # Errors
///
/// The first thing that is not as it should be.
pub fn rehearse(state: RawFd, pid: u32) -> Result<String, InheritError> {
    let bytes = read(state)?;
    let carried = Carried::decode(&bytes)?;
    check(&carried, pid)?;
    Ok(carried::acknowledgement(&bytes))
}

/// Takes over the state in descriptor `state`, and everything it names.
///
/// # Errors
///
/// The first thing that is not as it should be. This process has no use for itself then.
pub fn inherit(state: RawFd) -> Result<Inheritance, InheritError> {
    let bytes = read(state)?;
    let carried = Carried::decode(&bytes)?;
    check(&carried, std::process::id())?;
    for descriptor in carried.descriptors() {
        set_close_on_exec(descriptor, true)?;
    }
    // SAFETY: the predecessor opened `state` for this and nobody else in this program knows it.
    drop(unsafe { OwnedFd::from_raw_fd(state) });
    // SAFETY: each of these was open when it was checked above, is named once (`decode` saw to
    // that), and belongs to nobody else: this program has opened nothing but descriptor 3 yet.
    let own = |descriptor| unsafe { OwnedFd::from_raw_fd(descriptor) };
    let estate = Estate::restore(
        carried.entries.iter().cloned().zip(carried.objects.iter().map(|fd| own(*fd))),
    )?;
    let locks = Locks {
        instance: Lock::adopt(own(carried.lock).into())?,
        pins: carried.pins_lock.map(|fd| Lock::adopt(own(fd).into())).transpose()?,
    };
    // SAFETY: as above; `check` found the sockets to be what these types stand for.
    let channel = |descriptor| unsafe { Channel::new(UnixSeqpacketConn::from_raw_fd(descriptor)) };
    // SAFETY: as above.
    let listener = unsafe { UnixSeqpacketListener::from_raw_fd(carried.listener) };
    let sessions = carried.sessions.iter().map(|fd| channel(*fd)).collect();
    let worker = carried.worker.as_ref().map(|worker| LeftWorker {
        child: Child::adopt(worker.pid, own(worker.pidfd)),
        channel: channel(worker.socket),
        watch: worker.watch.map(own),
    });
    let binary = carried.binary.map(own);
    let scrapes = carried.scrapes.map(own);
    Ok(Inheritance { carried, estate, locks, listener, sessions, scrapes, worker, binary })
}

/// Sets or clears the close-on-exec flag.
///
/// # Errors
///
/// When the descriptor is not open.
pub fn set_close_on_exec(descriptor: RawFd, on: bool) -> io::Result<()> {
    let flags = if on { FdFlag::FD_CLOEXEC } else { FdFlag::empty() };
    Errno::result(
        // SAFETY: plain integers; a number that is not open is an error and nothing else.
        unsafe { libc::fcntl(descriptor, libc::F_SETFD, flags.bits()) },
    )?;
    Ok(())
}

fn read(state: RawFd) -> Result<Vec<u8>, InheritError> {
    let mut file = File::from(borrow(state)?.try_clone_to_owned()?);
    file.rewind()?;
    let mut bytes = Vec::new();
    let limit = u64::try_from(carried::MAX_BYTES).expect("256 KiB fit") + 1;
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn borrow(descriptor: RawFd) -> io::Result<BorrowedFd<'static>> {
    // SAFETY: a plain integer; a number that is not open is an error and nothing else.
    Errno::result(unsafe { libc::fcntl(descriptor, libc::F_GETFD) })?;
    // SAFETY: it is open, as the line above found; nothing closes it before the check is over,
    // because nothing in this program owns it yet.
    Ok(unsafe { BorrowedFd::borrow_raw(descriptor) })
}

/// Asks the kernel whether every descriptor is what `carried` says.
fn check(carried: &Carried, pid: u32) -> Result<(), InheritError> {
    if carried.pid != pid {
        return Err(InheritError::Process(carried.pid));
    }
    for (entry, descriptor) in carried.entries.iter().zip(&carried.objects) {
        let kind = entry.shape.kind();
        let wanted = || format!("{kind} {} (id {})", entry.name, entry.id);
        check_one(*descriptor, wanted, |fd| object_text(kind, entry.id, fd))?;
    }
    for descriptor in [Some(carried.lock), carried.pins_lock].into_iter().flatten() {
        check_one(
            descriptor,
            || "a lock".to_owned(),
            |fd| {
                let found = nix::sys::stat::fstat(fd)?.st_mode & libc::S_IFMT;
                Ok(wrong(found == libc::S_IFREG || found == libc::S_IFDIR, "another kind of file"))
            },
        )?;
    }
    if let Some(binary) = carried.binary {
        check_one(
            binary,
            || "a worker's binary".to_owned(),
            |fd| {
                let found = nix::sys::stat::fstat(fd)?.st_mode & libc::S_IFMT;
                Ok(wrong(found == libc::S_IFREG, "another kind of file"))
            },
        )?;
    }
    check_one(
        carried.listener,
        || "the control socket".to_owned(),
        |fd| {
            Ok(wrong(is_seqpacket(fd)? && getsockopt(&fd, sockopt::AcceptConn)?, "another socket"))
        },
    )?;
    if let Some(scrapes) = carried.scrapes {
        check_one(
            scrapes,
            || "the listener for scrapes".to_owned(),
            |fd| {
                let is_stream = getsockopt(&fd, sockopt::SockType)? == SockType::Stream;
                Ok(wrong(is_stream && getsockopt(&fd, sockopt::AcceptConn)?, "another socket"))
            },
        )?;
    }
    let worker = carried.worker.as_ref();
    for descriptor in carried.sessions.iter().copied().chain(worker.map(|worker| worker.socket)) {
        check_one(
            descriptor,
            || "a connection".to_owned(),
            |fd| Ok(wrong(is_seqpacket(fd)?, "another socket")),
        )?;
    }
    if let Some(worker) = worker {
        let wanted = || format!("process {}", worker.pid);
        check_one(worker.pidfd, wanted, |fd| {
            let path = format!("/proc/self/fdinfo/{}", fd.as_raw_fd());
            let line = format!("Pid:\t{}", worker.pid);
            let found = std::fs::read_to_string(path)?;
            Ok(wrong(found.lines().any(|found| found == line), "another one, or none"))
        })?;
        if let Some(watch) = worker.watch {
            check_one(
                watch,
                || "an instance of inotify".to_owned(),
                |fd| {
                    let found = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
                    let found = found.to_string_lossy();
                    Ok(wrong(found == "anon_inode:inotify", &found))
                },
            )?;
        }
    }
    Ok(())
}

/// `None` when all is well.
fn wrong(is_right: bool, found: &str) -> Option<String> {
    (!is_right).then(|| found.to_owned())
}

fn check_one(
    descriptor: RawFd,
    wanted: impl FnOnce() -> String,
    look: impl FnOnce(BorrowedFd<'static>) -> io::Result<Option<String>>,
) -> Result<(), InheritError> {
    let found = borrow(descriptor).and_then(look).unwrap_or_else(|error| Some(error.to_string()));
    match found {
        None => Ok(()),
        Some(found) => Err(InheritError::Descriptor { descriptor, wanted: wanted(), found }),
    }
}

/// Id and kind count; what became of a link is for the drift audit to find.
fn object_text(kind: Kind, id: u32, fd: BorrowedFd<'_>) -> io::Result<Option<String>> {
    Ok(match describe(kind, fd.as_fd()) {
        Ok((found, _)) if found == id => None,
        Ok((found, _)) => Some(format!("id {found}")),
        Err(error) => Some(error.to_string()),
    })
}

fn is_seqpacket(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(getsockopt(&fd, sockopt::SockType)? == SockType::SeqPacket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process;

    #[test]
    fn a_sealed_file_is_read_back_and_cannot_be_changed() {
        let file = sealed(b"state").expect("made");
        assert_eq!(read(file.as_raw_fd()).expect("read"), b"state");
        assert_eq!(read(file.as_raw_fd()).expect("read again"), b"state");
        let changed = io::Write::write_all(&mut File::from(file), b"x");
        assert_eq!(changed.map_err(|error| error.raw_os_error()), Err(Some(libc::EPERM)));
    }

    fn carried(listener: RawFd, lock: RawFd) -> Carried {
        Carried { pid: std::process::id(), listener, lock, ..Carried::default() }
    }

    fn own_pidfd() -> OwnedFd {
        // SAFETY: plain integers.
        let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, std::process::id(), 0) };
        let raw = RawFd::try_from(raw).expect("descriptors are small numbers");
        assert!(raw >= 0, "{}", io::Error::last_os_error());
        // SAFETY: the kernel has just made this descriptor for us.
        unsafe { OwnedFd::from_raw_fd(raw) }
    }

    #[test]
    fn every_descriptor_is_looked_at() {
        process::reserve_child_descriptor().expect("reserved");
        let base = tempfile::tempdir().expect("a directory");
        let socket = UnixSeqpacketListener::bind(base.path().join("socket")).expect("binds");
        let file = File::create(base.path().join("lock")).expect("made");
        let (socket, lock) = (socket.as_raw_fd(), file.as_raw_fd());
        let (good, own) = (carried(socket, lock), own_pidfd());
        check(&good, std::process::id()).expect("all is well");
        let one = check(&good, 1).expect_err("another process");
        assert!(matches!(one, InheritError::Process(_)), "{one}");
        for (bad, wanted) in [
            (carried(lock, socket), "a lock"),
            (carried(lock, lock), "the control socket"),
            (carried(socket, 9999), "a lock"),
            (Carried { sessions: vec![lock], ..good.clone() }, "a connection"),
            (Carried { scrapes: Some(socket), ..good.clone() }, "the listener for scrapes"),
            (
                Carried {
                    worker: Some(super::super::CarriedWorker {
                        pid: std::process::id(),
                        pidfd: own.as_raw_fd(),
                        socket,
                        watch: Some(lock),
                        ..Default::default()
                    }),
                    ..good.clone()
                },
                "an instance of inotify",
            ),
            (
                Carried {
                    worker: Some(super::super::CarriedWorker {
                        pid: 1,
                        pidfd: lock,
                        socket,
                        ..Default::default()
                    }),
                    ..good.clone()
                },
                "process 1",
            ),
        ] {
            let error = check(&bad, std::process::id()).expect_err("something is wrong");
            let text = error.to_string();
            assert!(matches!(error, InheritError::Descriptor { .. }), "{text}");
            assert!(text.contains(wanted), "{text}");
        }
    }

    #[test]
    fn a_rehearsal_acknowledges_the_state_it_read() {
        process::reserve_child_descriptor().expect("reserved");
        let base = tempfile::tempdir().expect("a directory");
        let socket = UnixSeqpacketListener::bind(base.path().join("socket")).expect("binds");
        let file = File::create(base.path().join("lock")).expect("made");
        let bytes = carried(socket.as_raw_fd(), file.as_raw_fd()).encode().expect("small");
        let state = sealed(&bytes).expect("made");
        let said = rehearse(state.as_raw_fd(), std::process::id()).expect("all is well");
        assert_eq!(said, carried::acknowledgement(&bytes));
        let empty = sealed(b"").expect("made");
        let refused = rehearse(empty.as_raw_fd(), std::process::id());
        assert!(matches!(refused, Err(InheritError::Carried(CarriedError::Foreign))));
        assert!(rehearse(9999, 1).is_err(), "no such descriptor");
    }
}
