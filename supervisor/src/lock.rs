//! One supervisor per instance, and one per estate.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::iter;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use uds::nonblocking::UnixSeqpacketConn;

use crate::instance::Places;

/// Longest process id in the lock file, with room to spare.
const MAX_PID_BYTES: u64 = 32;

/// How often a lock is tried that somebody holds: the wait costs no more than it adds to a start,
/// which takes tens of milliseconds.
const LOOK: Duration = Duration::from_millis(1);

/// How long the workers of a supervisor that died may take to be gone. The kernel kills them right
/// after it has freed that one's locks, which takes milliseconds, and seconds on a machine that swaps.
const ORPHANS: Duration = Duration::from_secs(2);

/// What a running supervisor holds.
#[derive(Debug)]
pub struct Locks {
    /// The instance's; its workers hold it as well.
    pub instance: Lock,
    /// The estate's, which its workers hold as well; `None` while there are no pins.
    pub pins: Option<Lock>,
}

impl Locks {
    /// The descriptors through which they are held.
    #[must_use]
    pub fn descriptors(&self) -> Vec<RawFd> {
        let all = iter::once(&self.instance).chain(&self.pins);
        all.map(|lock| lock.as_fd().as_raw_fd()).collect()
    }
}

/// Held until it is dropped or this process ends, whichever way it does.
#[derive(Debug)]
pub struct Lock {
    held: Flock<File>,
}

/// Why a lock is not held.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds it.
    #[error("{} is held by process {holder}", path.display())]
    Held {
        /// What is locked.
        path: PathBuf,
        /// Who holds it, as it wrote itself.
        holder: String,
    },
    /// Whoever holds it has another run directory.
    #[error(
        "{} is held by a supervisor that has another --run-dir, such as one in another container",
        path.display()
    )]
    Elsewhere {
        /// What is locked.
        path: PathBuf,
    },
    /// It cannot be opened, locked or written.
    #[error("cannot lock {}: {source}", path.display())]
    File {
        /// What should be locked.
        path: PathBuf,
        /// Why it is not.
        source: io::Error,
    },
}

impl Lock {
    /// Locks the file `path` and writes this process's id into it.
    ///
    /// # Errors
    ///
    /// At once when somebody else holds it.
    pub fn file(path: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::File { path: path.to_owned(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)
            .map_err(failed)?;
        // Read before the attempt: afterwards it is our own.
        let mut holder = String::new();
        let _unreadable_means_unknown = (&file).take(MAX_PID_BYTES).read_to_string(&mut holder);
        file.rewind().map_err(failed)?;
        let mut held = Self::hold(file, path, holder.trim())?;
        held.set_len(0).map_err(failed)?;
        writeln!(*held, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { held })
    }

    /// Locks the instance whose places these are. Where a supervisor listens, it keeps the lock, and
    /// this is refused at once; where none does, only workers of a dead one can be holding it, and
    /// they are waited for.
    ///
    /// # Errors
    ///
    /// As [`file`](Self::file).
    pub fn of_instance(places: &Places) -> Result<Self, LockError> {
        match Self::file(&places.lock()) {
            Err(LockError::Held { .. }) if !listens(&places.socket()) => {
                within(ORPHANS, || Self::file(&places.lock()))
            }
            done => done,
        }
    }

    /// Locks the pins of the instance whose places these are; `None` when there are none. Who has
    /// them may be out of sight, in a container with a run directory of its own: a supervisor that
    /// keeps them, or workers of a dead one, which are waited for.
    ///
    /// # Errors
    ///
    /// As [`directory`](Self::directory), late.
    pub fn of_pins(places: &Places) -> Result<Option<Self>, LockError> {
        within(ORPHANS, || Self::directory(&places.pins_in_use()))
    }

    /// Locks the directory `path`; `None` when there is none.
    ///
    /// # Errors
    ///
    /// At once when somebody else holds it.
    pub fn directory(path: &Path) -> Result<Option<Self>, LockError> {
        match File::open(path) {
            Ok(file) => match Self::hold(file, path, "unknown") {
                Err(LockError::Held { path, .. }) => Err(LockError::Elsewhere { path }),
                held => Ok(Some(Self { held: held? })),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(LockError::File { path: path.to_owned(), source }),
        }
    }

    /// Takes over the lock `held`, which a predecessor in this process has.
    ///
    /// # Errors
    ///
    /// When it was somebody else's after all.
    pub fn adopt(held: File) -> Result<Self, LockError> {
        Ok(Self { held: Self::hold(held, Path::new("a predecessor's lock"), "unknown")? })
    }

    /// Whether what is locked still is what is at `path`: a directory that was removed and made
    /// again is another one, which nobody has locked.
    #[must_use]
    pub fn is_at(&self, path: &Path) -> bool {
        let (held, found) = (self.held.metadata(), std::fs::metadata(path));
        matches!((held, found), (Ok(held), Ok(found))
            if (held.dev(), held.ino()) == (found.dev(), found.ino()))
    }

    fn hold(file: File, path: &Path, holder: &str) -> Result<Flock<File>, LockError> {
        Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
            Errno::EWOULDBLOCK => {
                let holder = if holder.is_empty() { "unknown" } else { holder };
                LockError::Held { path: path.to_owned(), holder: holder.to_owned() }
            }
            errno => LockError::File { path: path.to_owned(), source: errno.into() },
        })
    }
}

impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.held.as_fd()
    }
}

/// Tries `lock` for up to `patience` while somebody else holds it. Workers hold their supervisor's
/// locks as well, through the same open files: the kernel frees them when the last of them is past
/// writing anything, and not when the supervisor is.
fn within<L>(patience: Duration, lock: impl Fn() -> Result<L, LockError>) -> Result<L, LockError> {
    let deadline = Instant::now() + patience;
    loop {
        match lock() {
            Err(LockError::Held { .. } | LockError::Elsewhere { .. })
                if Instant::now() < deadline =>
            {
                thread::sleep(LOOK);
            }
            done => return done,
        }
    }
}

/// Whether a process listens at `socket`, be it so busy that it takes no more connections.
fn listens(socket: &Path) -> bool {
    match UnixSeqpacketConn::connect(socket) {
        Ok(_) => true,
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_and_told_who_holds_it() {
        let base = tempfile::tempdir().expect("a directory");
        let path = base.path().join("lock");
        let first = Lock::file(&path).expect("free");
        let Err(LockError::Held { holder, .. }) = Lock::file(&path) else { panic!("not refused") };
        assert_eq!(holder, std::process::id().to_string());
        drop(first);
        Lock::file(&path).expect("free again");
    }

    #[test]
    fn a_lock_is_waited_for_but_not_for_ever() {
        let base = tempfile::tempdir().expect("a directory");
        let path = base.path().join("lock");
        let first = Lock::file(&path).expect("free");
        let refused = within(LOOK, || Lock::file(&path));
        assert!(matches!(refused, Err(LockError::Held { .. })));
        let waiting = thread::spawn(move || within(ORPHANS, || Lock::file(&path)));
        drop(first);
        waiting.join().expect("no panic").expect("free in the end");
    }

    #[test]
    fn a_directory_is_locked_if_it_exists() {
        let base = tempfile::tempdir().expect("a directory");
        assert!(Lock::directory(&base.path().join("none")).expect("no error").is_none());
        let _first = Lock::directory(base.path()).expect("free");
        assert!(matches!(Lock::directory(base.path()), Err(LockError::Elsewhere { .. })));
    }

    #[test]
    fn a_directory_made_anew_is_not_the_one_that_is_locked() {
        let base = tempfile::tempdir().expect("a directory");
        let path = base.path().join("links");
        std::fs::create_dir(&path).expect("made");
        let lock = Lock::directory(&path).expect("free").expect("there");
        assert!(lock.is_at(&path));
        std::fs::rename(&path, base.path().join("elsewhere")).expect("moved");
        assert!(!lock.is_at(&path));
        std::fs::create_dir(&path).expect("made anew");
        assert!(!lock.is_at(&path));
    }
}
