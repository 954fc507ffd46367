//! The two things that outlive the supervisor: the newest epoch, and the intent to uninstall.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Why a record was not read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}: {source}", path.display())]
pub struct RecordError {
    operation: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// The epoch recorded at `path`; 0 when there is none.
///
/// # Errors
///
/// When it cannot be read, or is not a number.
pub fn read_epoch(path: &Path) -> Result<u64, RecordError> {
    let failed = |source| RecordError { operation: "read the epoch in", path: path.into(), source };
    match std::fs::read_to_string(path) {
        Ok(text) => text.trim().parse().map_err(|_| failed(io::Error::other("it is not a number"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(failed(error)),
    }
}

/// Bytes of the record: every epoch has as many digits as the largest, so that one replaces the other
/// in a single write within a page, which the end of this process does not cut in two. To put another
/// file in the former one's place would take as long as all the rest of a grant.
const EPOCH_BYTES: u64 = 21;

/// Records `epoch` at `path`, wholly or not at all.
///
/// It is not forced to the disk: epochs order the writers of one estate, which is in the kernel's
/// memory and ends with it, so the record only has to outlive this process.
///
/// # Errors
///
/// When the file cannot be written.
pub fn write_epoch(path: &Path, epoch: u64) -> Result<(), RecordError> {
    let write = || {
        let mut file = File::options().write(true).create(true).truncate(false).open(path)?;
        file.write_all(format!("{epoch:020}\n").as_bytes())?;
        // Only what somebody else wrote there can be longer.
        if file.metadata()?.len() > EPOCH_BYTES { file.set_len(EPOCH_BYTES) } else { Ok(()) }
    };
    write().map_err(|source| RecordError {
        operation: "record the epoch in",
        path: path.into(),
        source,
    })
}

/// Records durably that everything is to be removed: from here on a crash, even of the machine,
/// does not leave a half removed instance that serves on.
///
/// # Errors
///
/// When it is not known to be on the disk.
pub fn write_intent(path: &Path) -> Result<(), RecordError> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(b"remove everything of this instance\n")?;
        file.sync_all()?;
        path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
    };
    write().map_err(|source| RecordError {
        operation: "record the intent to uninstall in",
        path: path.into(),
        source,
    })
}

/// Takes the intent back, once nothing is left to remove.
///
/// # Errors
///
/// When it is still there.
pub fn clear_intent(path: &Path) -> Result<(), RecordError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(RecordError { operation: "remove", path: path.into(), source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_epoch_is_read_back_and_begins_at_0() {
        let base = tempfile::tempdir().expect("a directory");
        let path = base.path().join("epoch");
        assert_eq!(read_epoch(&path).expect("absent is 0"), 0);
        write_epoch(&path, 41).expect("written");
        for epoch in [42, u64::MAX, 43] {
            write_epoch(&path, epoch).expect("replaced");
            assert_eq!(read_epoch(&path).expect("there"), epoch);
        }
        std::fs::write(&path, "7 and something longer than an epoch\n").expect("written");
        write_epoch(&path, 44).expect("replaced");
        assert_eq!(read_epoch(&path).expect("there"), 44);
        assert_eq!(std::fs::read_dir(base.path()).expect("readable").count(), 1);
    }

    #[test]
    fn a_damaged_epoch_is_not_taken_for_0() {
        let base = tempfile::tempdir().expect("a directory");
        let path = base.path().join("epoch");
        for damaged in ["", "x", "-1", "18446744073709551616"] {
            std::fs::write(&path, damaged).expect("written");
            assert!(read_epoch(&path).is_err(), "{damaged:?}");
        }
    }

    #[test]
    fn an_intent_is_there_until_it_is_taken_back() {
        let base = tempfile::tempdir().expect("a directory");
        let path = base.path().join("uninstall");
        write_intent(&path).expect("written");
        assert!(path.exists());
        clear_intent(&path).expect("removed");
        clear_intent(&path).expect("nothing to remove is no error");
        assert!(!path.exists());
        assert!(write_intent(&base.path().join("none/uninstall")).is_err());
    }
}
