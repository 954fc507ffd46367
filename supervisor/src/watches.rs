//! Instances of inotify, with which workers watch their configuration.
//!
//! The kernel takes 7 to 20 ms to end a process that holds the last reference to an instance with
//! watches: it waits for readers of the file system's lists (`fsnotify_destroy_group`) before the
//! process becomes a zombie, and nobody is granted earlier. So this process makes the instances and
//! keeps a reference to each. What a dead worker had goes, without its watches, to a later one.
//!
//! The kernel counts instances and watches for the user who made the instance, which is root.
//!
//! **Architecture Invariant:** no two processes that live have the same instance: they would take each
//! other's events. One is taken for a process, and given back when that is reaped.
#![expect(unsafe_code, reason = "nix takes no number of a watch that it did not make itself")]

use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::sys::inotify::{InitFlags, Inotify};

/// Most instances that wait for a worker: as many as there can be workers, and one more.
const MAX_IDLE: usize = 4;

/// Most watches that are removed from an instance: a worker has one for each directory on the way to
/// its configuration.
const MAX_WATCHES: usize = 256;

/// Longest account of an instance that is read: so many watches, each in a line of some 120 bytes.
const MAX_ACCOUNT_BYTES: u64 = 64 * 1024;

/// Instances that no process has.
#[derive(Debug, Default)]
pub struct Watches {
    idle: Vec<OwnedFd>,
    /// Those that still have the watches of a dead process.
    used: Vec<OwnedFd>,
}

impl Watches {
    /// An instance without watches that no process has.
    ///
    /// # Errors
    ///
    /// When the kernel makes no more (`fs.inotify.max_user_instances`).
    pub fn take(&mut self) -> io::Result<OwnedFd> {
        match self.idle.pop() {
            Some(instance) => Ok(instance),
            None => Ok(Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?.into()),
        }
    }

    /// The process that had `instance` is reaped. What is left of it is removed by
    /// [`tidy`](Self::tidy), when nobody waits for anything.
    pub fn give_back(&mut self, instance: OwnedFd) {
        self.used.push(instance);
        if self.used.len() > MAX_IDLE {
            self.tidy();
        }
    }

    /// Makes what was given back ready to be taken again.
    pub fn tidy(&mut self) {
        for instance in self.used.drain(..) {
            match clear(&instance) {
                Ok(()) if self.idle.len() < MAX_IDLE => self.idle.push(instance),
                Ok(()) => {}
                // Closed, which takes this process the time that it would have taken the worker.
                Err(error) => tracing::warn!(%error, "an instance of inotify is not used again"),
            }
        }
    }
}

/// Removes every watch.
fn clear(instance: &OwnedFd) -> io::Result<()> {
    for watch in watches(instance.as_raw_fd())? {
        // SAFETY: plain integers. A watch that is gone meanwhile is an error and nothing else.
        unsafe { libc::inotify_rm_watch(instance.as_raw_fd(), watch) };
    }
    Ok(())
}

/// The numbers of its watches, as the kernel lists them.
fn watches(instance: RawFd) -> io::Result<Vec<libc::c_int>> {
    let file = std::fs::File::open(format!("/proc/self/fdinfo/{instance}"))?;
    let mut account = String::new();
    file.take(MAX_ACCOUNT_BYTES).read_to_string(&mut account)?;
    let numbers = account.lines().filter_map(|line| {
        let number = line.strip_prefix("inotify wd:")?.split(' ').next()?;
        libc::c_int::from_str_radix(number, 16).ok()
    });
    let numbers: Vec<_> = numbers.take(MAX_WATCHES + 1).collect();
    if numbers.len() > MAX_WATCHES {
        return Err(io::Error::other(format!("it has more than {MAX_WATCHES} watches")));
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use nix::sys::inotify::AddWatchFlags;

    use super::*;

    /// Watches `path` with a copy of `instance`, as a worker would.
    fn watch(instance: &OwnedFd, path: &std::path::Path) {
        use std::os::fd::{FromRawFd, IntoRawFd};
        let copy = instance.as_fd().try_clone_to_owned().expect("a copy").into_raw_fd();
        // SAFETY: the copy was given up a line above.
        let copy = unsafe { Inotify::from_raw_fd(copy) };
        copy.add_watch(path, AddWatchFlags::IN_CREATE).expect("watched");
    }

    #[test]
    fn an_instance_that_was_given_back_is_used_again_without_its_watches() {
        let base = tempfile::tempdir().expect("a directory");
        let mut pool = Watches::default();
        let one = pool.take().expect("made");
        let other = pool.take().expect("made");
        let number = one.as_raw_fd();
        assert_ne!(number, other.as_raw_fd(), "never one for two");
        watch(&one, base.path());
        watch(&one, std::path::Path::new("/"));
        assert_eq!(watches(number).expect("listed").len(), 2);
        pool.give_back(one);
        pool.tidy();
        let again = pool.take().expect("taken");
        assert_eq!(again.as_raw_fd(), number);
        assert!(watches(number).expect("listed").is_empty());
    }

    #[test]
    fn what_has_too_many_watches_is_not_used_again() {
        let base = tempfile::tempdir().expect("a directory");
        let mut pool = Watches::default();
        let instance = pool.take().expect("made");
        for name in 0..=MAX_WATCHES {
            let path = base.path().join(name.to_string());
            std::fs::create_dir(&path).expect("made");
            watch(&instance, &path);
        }
        pool.give_back(instance);
        pool.tidy();
        assert_eq!((pool.idle.len(), pool.used.len()), (0, 0));
    }

    #[test]
    fn no_more_are_kept_than_there_can_be_workers_for() {
        let mut pool = Watches::default();
        let taken: Vec<_> = (0..MAX_IDLE + 3).map(|_| pool.take().expect("made")).collect();
        taken.into_iter().for_each(|instance| pool.give_back(instance));
        assert!(pool.used.len() <= MAX_IDLE, "also when nobody tidies up");
        pool.tidy();
        assert_eq!(pool.idle.len(), MAX_IDLE);
    }
}
