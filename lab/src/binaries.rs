//! Where the product's binaries are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::LabError;
use crate::wait::holds;

/// Environment variable that names the directory of the binaries to try.
pub const DIRECTORY_VARIABLE: &str = "HOLDFAST_BIN_DIR";

/// The supervisor.
pub const SUPERVISOR: &str = "holdfast";
/// The loader and worker.
pub const WORKER: &str = "holdfast-worker";
/// The command line.
pub const CTL: &str = "holdfastctl";

/// The directory cargo puts release builds in.
const RELEASE: &str = "release";

/// The path of the binary `name`: in `HOLDFAST_BIN_DIR`, else in the `release` directory that this
/// program is in or that lies beside one it is in. Nothing is built here.
///
/// # Errors
///
/// [`LabError::NoBinary`], which says how to build it.
pub fn find(name: &'static str) -> Result<PathBuf, LabError> {
    if let Some(directory) = std::env::var_os(DIRECTORY_VARIABLE) {
        let looked_in = PathBuf::from(directory);
        let path = looked_in.join(name);
        return if path.is_file() { Ok(path) } else { Err(LabError::NoBinary { name, looked_in }) };
    }
    let own = std::env::current_exe().map_err(LabError::system("find this program's own path"))?;
    let beside_target = PathBuf::from("target").join(RELEASE);
    release_directories(&own)
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
        .ok_or(LabError::NoBinary { name, looked_in: beside_target })
}

/// The path of the example `name` of the package whose test this program is, which
/// `cargo test --package` has built with it.
///
/// # Errors
///
/// [`LabError::Unexpected`], which says how to build it.
pub fn example(name: &str) -> Result<PathBuf, LabError> {
    let own = std::env::current_exe().map_err(LabError::system("find this program's own path"))?;
    // target/debug/deps/test
    let path = own.ancestors().nth(2).unwrap_or(&own).join("examples").join(name);
    let missing = || format!("{} is missing: cargo build --examples", path.display());
    holds(path.is_file(), missing).map_err(LabError::Unexpected)?;
    Ok(path)
}

/// Puts a copy of `program`, executable for all, in the place of `path`, as a package manager does.
///
/// Another process writes it. A child that another thread starts meanwhile has all of this process's
/// descriptors until it executes, and what anyone has open for writing cannot be executed (`ETXTBSY`).
///
/// # Errors
///
/// When there is no such program, or no room.
pub fn replace(path: &Path, program: &Path) -> Result<(), LabError> {
    let aside = path.with_extension("new");
    let copied = Command::new("install").args(["-m", "755"]).args([program, &aside]).output();
    let copied = copied.map_err(LabError::file("copy", program))?;
    let refused = || format!("no copy of a program: {}", String::from_utf8_lossy(&copied.stderr));
    holds(copied.status.success(), refused).map_err(LabError::Unexpected)?;
    fs::rename(&aside, path).map_err(LabError::file("replace", path))
}

/// From the inside out: each directory above `program`, if it is a release directory, or the
/// release directory in it.
fn release_directories(program: &Path) -> impl Iterator<Item = PathBuf> {
    program.ancestors().skip(1).map(|directory| {
        if directory.ends_with(RELEASE) { directory.to_owned() } else { directory.join(RELEASE) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_binary_looks_in_the_release_directory_of_its_target_directory() {
        let found: Vec<PathBuf> =
            release_directories(Path::new("/src/target/debug/deps/e2e-1")).collect();
        assert!(found.contains(&PathBuf::from("/src/target/release")), "{found:?}");
    }

    #[test]
    fn a_copy_can_be_executed_at_once_whatever_other_threads_start() {
        const COPIES: u32 = 200;

        let done = std::sync::atomic::AtomicBool::new(false);
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("true");
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(std::sync::atomic::Ordering::Relaxed) {
                        Command::new("/bin/true").status().expect("it starts");
                    }
                });
            }
            let ended = (0..COPIES).try_for_each(|_| {
                replace(&path, Path::new("/bin/true")).map_err(|error| error.to_string())?;
                Command::new(&path).status().map_err(|error| error.to_string()).map(drop)
            });
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            ended.expect("each copy was executed");
        });
    }

    #[test]
    fn a_release_binary_looks_beside_itself_first() {
        let first = release_directories(Path::new("/src/target/release/holdfast-chaos")).next();
        assert_eq!(first, Some(PathBuf::from("/src/target/release")));
    }
}
