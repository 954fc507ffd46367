//! Reading and writing the snapshot through descriptors that the supervisor gave: this process can
//! open neither.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};

use holdfast_config::Sources;
use holdfast_config::snapshot::{self, MAX_BYTES, SnapshotError};

/// Why there is nothing in a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
    /// It is not what was written, or not by this version.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

/// The configuration in `file`.
///
/// # Errors
///
/// When it cannot be read or is not a snapshot; nothing of it may be used then.
pub fn read(mut file: File) -> Result<Sources, ReadError> {
    // Whoever opened it has looked at its beginning.
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(snapshot::decode(&bytes)?)
}

/// Writes `sources` to `file`, which is empty, and waits until they are on the disk.
///
/// # Errors
///
/// When there is no room, or no disk.
pub fn write(mut file: File, sources: &Sources) -> io::Result<()> {
    file.write_all(&snapshot::encode(sources))?;
    file.sync_all()
}
