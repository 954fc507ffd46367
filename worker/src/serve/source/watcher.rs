//! inotify on the directories a change can happen in.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, RawFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::inotify::{AddWatchFlags, Inotify, InotifyEvent, WatchDescriptor};
use tokio::io::unix::AsyncFd;

use super::settling::Change;

/// How long changes are gathered before they are looked at, if there are many. Other files of the
/// directory may change all the time; this bounds how often a worker wakes up for them.
const GATHERING: Duration = Duration::from_millis(20);

/// Changes that are looked at as soon as they come: a save is a handful of them, or some dozens if it is
/// written in small pieces. One more for each [`GATHERING`] that passes.
const AT_ONCE: u32 = 64;

/// inotify, registered with the reactor.
pub struct Watcher {
    inotify: AsyncFd<Descriptor>,
    watched: HashMap<PathBuf, WatchDescriptor>,
    /// What is the configuration, or leads to it.
    steps: Vec<(WatchDescriptor, OsString)>,
    pace: Pace,
}

/// How often a worker has woken up lately.
#[derive(Debug, Default)]
struct Pace {
    woken: u32,
    since: Option<Instant>,
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
        let pace = Pace::default();
        Ok(Self { inotify, watched: HashMap::new(), steps: Vec::new(), pace })
    }

    /// Watches exactly `places`, and knows `steps` in them for the way to the configuration. One that
    /// cannot be watched is left to polling.
    pub fn watch(&mut self, places: &[PathBuf], steps: Vec<(PathBuf, OsString)>) {
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
        let step = |(place, name)| Some((*self.watched.get(&place)?, name));
        self.steps = steps.into_iter().filter_map(step).collect();
    }

    /// Waits for changes, gathers those that follow at once, and says how far they have come.
    ///
    /// # Errors
    ///
    /// When the kernel cannot be asked.
    pub async fn changed(&mut self) -> io::Result<Change> {
        loop {
            drop(self.inotify.readable().await?);
            if self.pace.is_too_fast(Instant::now()) {
                tokio::time::sleep(GATHERING).await;
            }
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
                Ok(events) => {
                    last = events.iter().fold(last, |last, event| Some(self.word(last, event)));
                }
                Err(Errno::EAGAIN) => break,
                Err(errno) => return Err(errno.into()),
            }
        }
        // The reactor is told only now that there is nothing more, so it reports whatever is new.
        let _empty = self.inotify.try_io(tokio::io::Interest::READABLE, |_| {
            Err::<(), _>(io::ErrorKind::WouldBlock.into())
        });
        Ok(last)
    }

    /// How far changes have come with `event`, which were as far as `last`. The last word counts: a file
    /// that was written and then closed is complete. But what was replaced stays complete whatever is
    /// done to other files.
    fn word(&self, last: Option<Change>, event: &InotifyEvent) -> Change {
        let is_step = |(watch, name): &(WatchDescriptor, OsString)| {
            *watch == event.wd && Some(name) == event.name.as_ref()
        };
        let is_own = self.steps.iter().any(is_step);
        match last {
            _ if is_own && event.mask.contains(AddWatchFlags::IN_MOVED_TO) => Change::Replaced,
            Some(Change::Replaced) if !is_own => Change::Replaced,
            _ if event.mask.intersects(unfinished()) => Change::Written,
            _ => Change::Closed,
        }
    }
}

impl Pace {
    /// Whether it has woken up too often for another time, which comes at `now`.
    fn is_too_fast(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        let passed = now.saturating_duration_since(since).as_millis() / GATHERING.as_millis();
        if passed > 0 {
            self.woken = self.woken.saturating_sub(u32::try_from(passed).unwrap_or(u32::MAX));
            self.since = Some(now);
        }
        let is_too_fast = self.woken >= AT_ONCE;
        self.woken += u32::from(!is_too_fast);
        is_too_fast
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_looked_at_as_they_come_until_they_are_many() {
        let mut pace = Pace::default();
        let mut now = Instant::now();
        for _ in 0..AT_ONCE {
            assert!(!pace.is_too_fast(now));
        }
        assert!(pace.is_too_fast(now));
        now += GATHERING;
        assert!(!pace.is_too_fast(now));
        assert!(pace.is_too_fast(now));
        now += GATHERING * 3 * AT_ONCE;
        assert_eq!((0..1000).take_while(|_| !pace.is_too_fast(now)).count(), AT_ONCE as usize);
    }
}
