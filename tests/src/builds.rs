//! Other builds of the worker, and how they get on the disk.

use std::error::Error;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use holdfast_lab::{Lab, TestResult, binaries};

/// `w0 = 1; exit` or `w0 = 0; exit`: how each kernel program ends, with the connection allowed or not.
const ENDS: [[u8; 16]; 2] = [
    [MOVE_32, 0, 0, 0, 1, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0],
    [MOVE_32, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0],
];
/// The code of `w0 = …`.
const MOVE_32: u8 = 0xb4;
/// The code of `r0 = …`, which comes to the same.
const MOVE_64: u8 = 0xb7;

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

/// Puts a copy of `program` in the place of `path`, as a package manager does.
///
/// # Errors
///
/// When there is no such program, or no room.
pub fn replace(path: &Path, program: &Path) -> TestResult {
    let aside = path.with_extension("new");
    fs::copy(program, &aside)?;
    fs::set_permissions(&aside, fs::Permissions::from_mode(0o755))?;
    fs::rename(aside, path)?;
    Ok(())
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
        .windows(ENDS[0].len())
        .enumerate()
        .filter(|(_, window)| ENDS.iter().any(|end| window == end))
        .map(|(place, _)| place)
        .collect();
    if places.len() < holdfast_protocol::kernel::program::ALL.len() {
        return Err(format!("{} programs end as expected: look again", places.len()).into());
    }
    for place in places {
        bytes[place] = MOVE_64;
    }
    let aside = path.with_extension("other");
    fs::write(&aside, bytes)?;
    fs::set_permissions(&aside, fs::Permissions::from_mode(0o755))?;
    fs::rename(aside, path)?;
    Ok(())
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
