//! The worker's binary: which one is started.
//!
//! The one that proved itself last is held open, so that it can be started even when its file has
//! been replaced or removed: an open file outlives its name.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use super::PROBATION;

/// Tells one binary from another: another file, or one that was written over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

/// A binary, held open.
#[derive(Clone, Debug)]
pub struct Binary {
    file: Rc<File>,
    identity: Identity,
}

/// A binary to start.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// It.
    pub binary: Binary,
    /// Where to start it from.
    pub program: PathBuf,
    /// Whether it is not the one on disk.
    pub is_former: bool,
}

/// Which binary is started.
#[derive(Debug)]
pub struct Binaries {
    path: PathBuf,
    proved: Option<Binary>,
    /// On trial, and since when it serves.
    trial: Option<(Binary, Duration)>,
    /// The one on disk, if it failed and another one has proved itself.
    failed: Option<Identity>,
}

impl Binary {
    fn open(path: &Path) -> io::Result<Self> {
        // Neither read nor written through this, so it may be replaced at any time.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path)?;
        Self::held(file)
    }

    fn held(file: File) -> io::Result<Self> {
        let found = file.metadata()?;
        let identity = Identity {
            device: found.dev(),
            inode: found.ino(),
            bytes: found.size(),
            changed: (found.mtime(), found.mtime_nsec()),
        };
        Ok(Self { file: Rc::new(file), identity })
    }

    /// Which one it is.
    #[must_use]
    pub const fn identity(&self) -> Identity {
        self.identity
    }

    /// Whether it is still what it was when it was opened.
    fn is_unchanged(&self) -> bool {
        let again = self.file.try_clone().and_then(Self::held);
        again.is_ok_and(|again| again.identity == self.identity)
    }
}

impl Binaries {
    /// Nothing has proved itself yet. The binary on disk is at `path`.
    #[must_use]
    pub const fn new(path: PathBuf) -> Self {
        Self { path, proved: None, trial: None, failed: None }
    }

    /// A predecessor held `proved`. One that cannot be looked at is let go.
    pub fn resume(&mut self, proved: OwnedFd) {
        self.proved = Binary::held(proved.into()).ok();
    }

    /// The binary to start: the one on disk, unless that is missing or has failed and there is one
    /// that has proved itself.
    ///
    /// # Errors
    ///
    /// When there is none on disk and none has proved itself.
    pub fn choose(&self) -> io::Result<Chosen> {
        let on_disk = Binary::open(&self.path).map(|found| self.known(found));
        let former = self.proved.as_ref().filter(|proved| match &on_disk {
            Ok(found) => self.failed == Some(found.identity) && proved.is_unchanged(),
            Err(_) => proved.is_unchanged(),
        });
        match former {
            Some(proved) => Ok(Chosen {
                binary: proved.clone(),
                program: format!("/proc/self/fd/{}", proved.file.as_raw_fd()).into(),
                is_former: true,
            }),
            None => on_disk.map(|binary| Chosen {
                binary,
                program: self.path.clone(),
                is_former: false,
            }),
        }
    }

    /// `found`, or the same one if it is held already: a descriptor less.
    fn known(&self, found: Binary) -> Binary {
        let trial = self.trial.as_ref().map(|(binary, _)| binary);
        let mut held = self.proved.iter().chain(trial);
        held.find(|held| held.identity == found.identity).cloned().unwrap_or(found)
    }

    /// A worker of `binary` was granted at `now`.
    pub fn granted(&mut self, binary: &Binary, now: Duration) {
        let known = self.has_proved(binary.identity)
            || self.trial.as_ref().is_some_and(|(trial, _)| trial.identity == binary.identity);
        if !known {
            self.trial = Some((binary.clone(), now));
        }
    }

    /// A worker of the binary `identity` failed; whether the former one is put back for that.
    pub fn failed(&mut self, identity: Identity) -> bool {
        if self.has_proved(identity) {
            return false;
        }
        self.trial.take_if(|(trial, _)| trial.identity == identity);
        let news = self.proved.is_some() && self.failed != Some(identity);
        if self.proved.is_some() {
            self.failed = Some(identity);
        }
        news
    }

    /// Somebody wants what is on disk, whatever became of it before.
    pub const fn forgive(&mut self) {
        self.failed = None;
    }

    /// When the binary on trial will have proved itself.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        self.trial.as_ref().map(|(_, since)| *since + PROBATION)
    }

    /// Ends a trial that is over at `now`.
    pub fn pass(&mut self, now: Duration) {
        let over = self.due().is_some_and(|due| due <= now);
        if let Some((binary, _)) = self.trial.take_if(|_| over) {
            self.proved = Some(binary);
        }
    }

    /// The descriptor of the one that has proved itself, for a successor.
    #[must_use]
    pub fn held(&self) -> Option<RawFd> {
        self.proved.as_ref().map(|proved| proved.file.as_raw_fd())
    }

    /// Whether the binary `identity` is new, and there is a former one to put back.
    #[must_use]
    pub fn replaces(&self, identity: Identity) -> bool {
        self.proved.is_some() && !self.has_proved(identity)
    }

    fn has_proved(&self, identity: Identity) -> bool {
        self.proved.as_ref().is_some_and(|proved| proved.identity == identity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn install(path: &Path, contents: &str) {
        let fresh = path.with_extension("new");
        std::fs::write(&fresh, contents).expect("written");
        std::fs::rename(fresh, path).expect("renamed");
    }

    /// Binaries at a path of its own, of which the one with the contents `old` has proved itself.
    fn proved() -> (tempfile::TempDir, PathBuf, Binaries) {
        let base = tempfile::tempdir().expect("a directory");
        let path = base.path().join("worker");
        install(&path, "old");
        let mut binaries = Binaries::new(path.clone());
        let old = binaries.choose().expect("it is there");
        assert!(!old.is_former && old.program == path);
        binaries.granted(&old.binary, S(1));
        assert_eq!(binaries.due(), Some(S(1) + PROBATION));
        binaries.pass(S(1) + PROBATION);
        assert_eq!(binaries.due(), None);
        (base, path, binaries)
    }

    fn contents(chosen: &Chosen) -> String {
        std::fs::read_to_string(&chosen.program).expect("readable")
    }

    #[test]
    fn one_that_fails_is_not_used_again_and_the_former_is() {
        let (_base, path, mut binaries) = proved();
        install(&path, "new");
        let new = binaries.choose().expect("there");
        assert_eq!((contents(&new).as_str(), new.is_former), ("new", false));
        binaries.granted(&new.binary, S(10));
        assert!(binaries.failed(new.binary.identity()));
        assert!(!binaries.failed(new.binary.identity()), "said once");
        let put_back = binaries.choose().expect("held");
        assert_eq!((contents(&put_back).as_str(), put_back.is_former), ("old", true));
        binaries.granted(&put_back.binary, S(11));
        assert_eq!(binaries.due(), None, "it has proved itself long ago");
        install(&path, "mended");
        assert_eq!(contents(&binaries.choose().expect("there")), "mended");
    }

    #[test]
    fn one_that_failed_is_tried_again_when_somebody_asks() {
        let (_base, path, mut binaries) = proved();
        install(&path, "new");
        let new = binaries.choose().expect("there");
        binaries.failed(new.binary.identity());
        binaries.forgive();
        assert_eq!(contents(&binaries.choose().expect("there")), "new");
    }

    #[test]
    fn one_that_is_gone_from_disk_is_still_held() {
        let (_base, path, binaries) = proved();
        std::fs::remove_file(&path).expect("removed");
        let held = binaries.choose().expect("held");
        assert!(held.is_former);
        assert_eq!(contents(&held), "old");
    }

    #[test]
    fn one_that_was_written_over_is_not_what_has_proved_itself() {
        let (_base, path, mut binaries) = proved();
        std::fs::write(&path, "longer than before").expect("written");
        let found = binaries.choose().expect("there");
        assert!(binaries.failed(found.binary.identity()));
        let chosen = binaries.choose().expect("there");
        assert!(!chosen.is_former, "nothing is left to put back");
    }

    #[test]
    fn without_a_former_one_what_is_on_disk_is_used_whatever_becomes_of_it() {
        let base = tempfile::tempdir().expect("a directory");
        let path = base.path().join("worker");
        let mut binaries = Binaries::new(path.clone());
        assert!(binaries.choose().is_err());
        install(&path, "first");
        let first = binaries.choose().expect("there");
        assert!(!binaries.failed(first.binary.identity()));
        assert!(!binaries.choose().expect("there").is_former);
    }
}
