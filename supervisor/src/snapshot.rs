//! The snapshot on disk: the last configuration that proved itself. The worker writes and reads what
//! is in it, through descriptors it is given; here are only its names.
//!
//! A new one is written beside the one in use, forced to the disk by the worker, and renamed. The
//! rename reaches the disk when the file system next commits: until then a power failure leaves the
//! former snapshot, and never half of one.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use holdfast_protocol::handover::snapshot::{self, HEADER_BYTES};

/// Only root may read it: configurations can say what not everybody is to know.
const PRIVATE: u32 = 0o600;

/// Why a snapshot was not found or changed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}: {source}", path.display())]
pub struct SnapshotError {
    operation: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Where the snapshot is.
#[derive(Clone, Debug)]
pub struct Snapshot {
    path: PathBuf,
}

impl Snapshot {
    /// The snapshot at `path`, if there is one.
    #[must_use]
    pub const fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// It, open for reading, and the digest it says; `None` when there is none. One that is not a
    /// snapshot has an empty digest: whoever reads it says what is wrong.
    ///
    /// # Errors
    ///
    /// When it is there and cannot be opened or read.
    pub fn open(&self) -> Result<Option<(File, String)>, SnapshotError> {
        let mut file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(|source| self.failed("open the snapshot", source))?,
        };
        let mut header = [0; HEADER_BYTES];
        let digest = match file.read_exact(&mut header) {
            Ok(()) => snapshot::digest(&header).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => String::new(),
            Err(source) => return Err(self.failed("read the snapshot", source)),
        };
        Ok(Some((file, digest)))
    }

    /// An empty file for the next one.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn begin(&self) -> Result<File, SnapshotError> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(PRIVATE);
        options.open(self.next()).map_err(|source| self.failed("begin the next snapshot", source))
    }

    /// The next one takes the place of the one before.
    ///
    /// # Errors
    ///
    /// When it is not there; the former one is then.
    pub fn commit(&self) -> Result<(), SnapshotError> {
        std::fs::rename(self.next(), &self.path)
            .map_err(|source| self.failed("put the next snapshot in place of", source))
    }

    /// There will be no next one.
    pub fn abandon(&self) {
        // Whoever begins the next one truncates what is left.
        let _gone = std::fs::remove_file(self.next());
    }

    /// Puts it out of the way, for people to look at; where it is then.
    ///
    /// # Errors
    ///
    /// When it cannot be renamed.
    pub fn set_aside(&self) -> Result<PathBuf, SnapshotError> {
        let aside = self.path.with_extension("damaged");
        std::fs::rename(&self.path, &aside)
            .map_err(|source| self.failed("set aside the snapshot", source))?;
        Ok(aside)
    }

    fn next(&self) -> PathBuf {
        self.path.with_extension("new")
    }

    fn failed(&self, operation: &'static str, source: io::Error) -> SnapshotError {
        SnapshotError { operation, path: self.path.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn header() -> Vec<u8> {
        [&snapshot::MAGIC[..], &[1, 0], &[0xab; 32]].concat()
    }

    #[test]
    fn the_next_one_takes_its_place_wholly_or_not_at_all() {
        let base = tempfile::tempdir().expect("a directory");
        let kept = Snapshot::at(base.path().join("snapshot"));
        assert!(kept.open().expect("none is no error").is_none());
        kept.begin().expect("made").write_all(&header()).expect("written");
        assert!(kept.open().expect("none yet").is_none());
        kept.commit().expect("renamed");
        kept.begin().expect("made").write_all(b"half").expect("written");
        kept.abandon();
        let (_, digest) = kept.open().expect("read").expect("there");
        assert_eq!(digest, "ab".repeat(32));
        assert_eq!(std::fs::read_dir(base.path()).expect("readable").count(), 1);
    }

    #[test]
    fn something_else_has_no_digest_and_can_be_set_aside() {
        let base = tempfile::tempdir().expect("a directory");
        let kept = Snapshot::at(base.path().join("snapshot"));
        for other in [&b""[..], b"short", &[0; 100]] {
            std::fs::write(base.path().join("snapshot"), other).expect("written");
            let (_, digest) = kept.open().expect("read").expect("there");
            assert_eq!(digest, "");
        }
        let aside = kept.set_aside().expect("renamed");
        assert!(aside.ends_with("snapshot.damaged") && aside.exists());
        assert!(kept.open().expect("none").is_none());
        assert!(kept.set_aside().is_err());
    }
}
