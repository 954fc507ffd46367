//! Faults of the state directory: a damaged snapshot, no room left.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use super::inject::{FaultError, Guard, Injection, file};
use super::pick;
use crate::run::stage::Stage;

/// What is written to fill the file system, in bytes at a time.
const BLOCK: [u8; 4096] = [0x5a; 4096];

/// Most blocks that are written: more than any state directory of a run has room for.
const MOST_BLOCKS: u64 = 1 << 20;

/// A file that takes all the room. It is removed when dropped.
struct Filled<'s> {
    stage: &'s Stage<'s>,
    path: PathBuf,
}

impl Guard for Filled<'_> {}

impl Drop for Filled<'_> {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            self.stage.trouble(format!("{} stays: {error}", self.path.display()));
        }
    }
}

/// Flips the lowest bit of a byte of the snapshot.
pub fn corrupt<'s>(stage: &Stage<'_>, draw: u32) -> Result<Injection<'s>, FaultError> {
    damage(stage, |bytes| {
        let place = pick(draw, bytes.len());
        if let Some(byte) = bytes.get_mut(place) {
            *byte ^= 1;
        }
        format!("byte {place} of {}", bytes.len())
    })
}

/// Cuts the snapshot off.
pub fn truncate<'s>(stage: &Stage<'_>, draw: u32) -> Result<Injection<'s>, FaultError> {
    damage(stage, |bytes| {
        let (whole, left) = (bytes.len(), pick(draw, bytes.len()));
        bytes.truncate(left);
        format!("to {left} of {whole} bytes")
    })
}

/// The snapshot is damaged in place, as a failing disk does. Nothing undoes that: the supervisor
/// writes a new one.
fn damage<'s>(
    stage: &Stage<'_>,
    change: impl FnOnce(&mut Vec<u8>) -> String,
) -> Result<Injection<'s>, FaultError> {
    let path = stage.snapshot();
    let mut bytes = match fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(FaultError::NoTarget("there is no snapshot"));
        }
        answer => answer.map_err(file("read", &path))?,
    };
    let note = change(&mut bytes);
    fs::write(&path, bytes).map_err(file("damage", &path))?;
    Ok(Injection::over(note))
}

/// Takes all the room there is on the state directory's file system, which is the run's own.
pub fn fill<'s>(stage: &'s Stage<'s>) -> Result<Injection<'s>, FaultError> {
    let path = stage.lab.state_directory().join("filler");
    let mut filler = File::create(&path).map_err(file("create", &path))?;
    let guard = Filled { stage, path };
    let mut written = 0;
    for _ in 0..MOST_BLOCKS {
        match filler.write(&BLOCK) {
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::StorageFull => {
                return Ok(Injection::held(guard, format!("{written} bytes")));
            }
            Err(error) => return Err(file("fill", &guard.path)(error)),
        }
    }
    Err(FaultError::Unsupported("the state directory does not fill up".to_owned()))
}
