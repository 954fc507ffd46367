//! Other builds of the worker, and how they get on the disk.

use std::error::Error;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use holdfast_lab::{Lab, TestResult, binaries};

pub use holdfast_lab::binaries::replace;

/// The instruction `exit`.
const EXIT: [u8; 8] = [0x95, 0, 0, 0, 0, 0, 0, 0];
/// The codes of `w0 = VERDICT` and of `w0 = wN`.
const MOVES_32: [u8; 2] = [0xb4, 0xbc];
/// From a move of 32 bits to the same of 64: the upper half is 0 in either case.
const TO_64: u8 = 3;

/// Whether these two instructions are how a kernel program ends, in one place at least: a verdict, or
/// a register that holds one, and `exit`.
fn is_ending(window: &[u8]) -> bool {
    let (verdict, exit) = window.split_at(EXIT.len());
    let into_register_0 = verdict[1] & 0x0f == 0 && verdict[2..4] == [0, 0];
    let is_verdict = verdict[4] <= 1 && verdict[5..] == [0, 0, 0];
    exit == EXIT && MOVES_32.contains(&verdict[0]) && into_register_0 && is_verdict
}

/// A copy of the worker's binary that a test may replace.
///
/// # Errors
///
/// When there is no binary, or no room.
pub fn own_worker(lab: &Lab) -> Result<PathBuf, Box<dyn Error>> {
    let path = lab.directory().join("worker");
    replace(&path, &binaries::find(binaries::WORKER)?)?;
    Ok(path)
}

/// Writes a shell script that can be run in place of the worker.
///
/// # Errors
///
/// When it cannot be written.
pub fn script(lab: &Lab, name: &str, commands: &str) -> Result<PathBuf, Box<dyn Error>> {
    let path = lab.write(name, format!("#!/bin/sh\n{commands}\n"))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// Another build of the worker at `path`: its kernel programs do the same in other instructions, so
/// that the kernel gives them other tags.
///
/// # Errors
///
/// When there is no binary, no room, or the programs are not found in it.
pub fn another_build(path: &Path) -> TestResult {
    replace(path, &binaries::find(binaries::WORKER)?)?;
    let mut bytes = fs::read(path)?;
    let places: Vec<usize> = bytes
        .windows(2 * EXIT.len())
        .enumerate()
        .filter(|(_, window)| is_ending(window))
        .map(|(place, _)| place)
        .collect();
    if places.len() < holdfast_protocol::kernel::program::ALL.len() {
        return Err(format!("{} programs end as expected: look again", places.len()).into());
    }
    for place in places {
        bytes[place] += TO_64;
    }
    let other = path.with_extension("other");
    fs::write(&other, bytes)?;
    Ok(replace(path, &other)?)
}

/// A worker that serves, or ends at once when it is started, as long as a test wants it to: the same
/// file all the while, so that there is no former build to go back to.
#[derive(Debug)]
pub struct Switched {
    /// What is started.
    pub worker: PathBuf,
    broken: PathBuf,
}

impl Switched {
    /// One that serves.
    ///
    /// # Errors
    ///
    /// When there is no binary, or no room.
    pub fn new(lab: &Lab) -> Result<Self, Box<dyn Error>> {
        let (real, broken) = (binaries::find(binaries::WORKER)?, lab.directory().join("broken"));
        let is_broken = format!("[ $1 = serve ] && [ -e {} ]", broken.display());
        let commands = format!("if {is_broken}; then exit 1; fi\nexec {} \"$@\"", real.display());
        Ok(Self { worker: script(lab, "switched", &commands)?, broken })
    }

    /// From now on it ends at once.
    ///
    /// # Errors
    ///
    /// When there is no room.
    pub fn break_off(&self) -> TestResult {
        Ok(fs::write(&self.broken, "")?)
    }

    /// From now on it serves again.
    ///
    /// # Errors
    ///
    /// When it did anyway.
    pub fn mend(&self) -> TestResult {
        Ok(fs::remove_file(&self.broken)?)
    }
}
