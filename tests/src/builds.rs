//! Other builds of the worker, and how they get on the disk.

use std::error::Error;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use holdfast_lab::{Lab, TestResult, binaries};

/// `w0 = VERDICT; exit`: how each kernel program ends, in one place at least.
/// Those that only tell an address allow (1), and the others refuse (0) somewhere.
const fn ending(verdict: u8) -> [u8; 16] {
    [0xb4, 0, 0, 0, verdict, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0]
}
/// The first byte of the same in 64 bits: `r0 = VERDICT`.
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
        .windows(ending(0).len())
        .enumerate()
        .filter(|(_, window)| *window == ending(0) || *window == ending(1))
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
