//! inotify on the directories a change can happen in.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, RawFd};
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::inotify::{AddWatchFlags, Inotify, WatchDescriptor};
use tokio::io::unix::AsyncFd;

use super::settling::Change;

/// How long changes are gathered before they are looked at. Other files of the directory may change
/// all the time; this bounds how often a worker wakes up for them.
const GATHERING: Duration = Duration::from_millis(20);

/// inotify, registered with the reactor.
pub struct Watcher {
    inotify: AsyncFd<Descriptor>,
    watched: HashMap<PathBuf, WatchDescriptor>,
}

/// An inotify instance that shows its descriptor.
struct Descriptor(Inotify);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Takes over the instance that was inherited as descriptor `raw`. The supervisor has it too: were
/// this process's reference the last one, the kernel would need milliseconds to end it.
///
/// # Errors
///
/// When that is something else.
///
/// # Safety
///
/// Nothing else in this process owns that descriptor: call it once, before anything that opens
/// descriptors.
pub unsafe fn inherited(raw: RawFd) -> io::Result<Inotify> {
    let found = std::fs::read_link(format!("/proc/self/fd/{raw}"))?;
    if found.as_os_str() != "anon_inode:inotify" {
        return Err(io::Error::other(format!("it is {}", found.display())));
    }
    // SAFETY: it is open, as the lines above have shown, and nobody else owns it, as the caller
    // vouches.
    let inotify = unsafe { Inotify::from_raw_fd(raw) };
    fcntl(&inotify, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(inotify)
}

impl Watcher {
    /// Watches nothing yet. The events of watches that a former owner of `inotify` has left say no
    /// more than others do: to look again.
    ///
    /// # Errors
    ///
    /// When the reactor is gone, or can watch no more descriptors.
    pub fn new(inotify: Inotify) -> io::Result<Self> {
        // SAFETY: `Descriptor` owns its one descriptor, never replaces it, and closes it when it is
        // dropped, which `AsyncFd` does after deregistering.
        let inotify = unsafe { AsyncFd::register(Descriptor(inotify))? };
        Ok(Self { inotify, watched: HashMap::new() })
    }

    /// Watches exactly `places`. One that cannot be watched is left to polling.
    pub fn watch(&mut self, places: &[PathBuf]) {
        let inotify = &self.inotify.get_ref().0;
        let before = std::mem::take(&mut self.watched);
        for place in places {
            // A directory that is watched already answers with the same watch; one that was
            // replaced by another of the same name, with a new one.
            if let Ok(watch) = inotify.add_watch(place, events()) {
                self.watched.insert(place.clone(), watch);
            }
        }
        for watch in before.into_values() {
            if !self.watched.values().any(|kept| *kept == watch) {
                // A watch on a directory that is gone is gone with it.
                let _gone = inotify.rm_watch(watch);
            }
        }
    }

    /// Waits for changes, gathers those that follow at once, and says how far they have come.
    ///
    /// # Errors
    ///
    /// When the kernel cannot be asked.
    pub async fn changed(&self) -> io::Result<Change> {
        loop {
            drop(self.inotify.readable().await?);
            tokio::time::sleep(GATHERING).await;
            if let Some(change) = self.drain()? {
                return Ok(change);
            }
        }
    }

    /// What has been reported and not read yet; `None` when there is nothing.
    fn drain(&self) -> io::Result<Option<Change>> {
        let mut last = None;
        loop {
            match self.inotify.get_ref().0.read_events() {
                // The last word counts: a file that was written and then closed is complete.
                Ok(events) => last = events.last().map(|event| event.mask).or(last),
                Err(Errno::EAGAIN) => break,
                Err(errno) => return Err(errno.into()),
            }
        }
        // The reactor is told only now that there is nothing more, so it reports whatever is new.
        let _empty = self.inotify.try_io(tokio::io::Interest::READABLE, |_| {
            Err::<(), _>(io::ErrorKind::WouldBlock.into())
        });
        let change = |mask: AddWatchFlags| match mask.intersects(unfinished()) {
            true => Change::Written,
            false => Change::Closed,
        };
        Ok(last.map(change))
    }
}

fn events() -> AddWatchFlags {
    AddWatchFlags::IN_ONLYDIR
        | AddWatchFlags::IN_MODIFY
        | AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_ATTRIB
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVE
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE_SELF
}

/// What more is expected after: a file that is made is written next, one that is written is closed,
/// and what is removed is often replaced.
fn unfinished() -> AddWatchFlags {
    AddWatchFlags::IN_MODIFY
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVED_FROM
}
