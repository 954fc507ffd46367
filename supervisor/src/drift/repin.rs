//! Puts pins back, from the descriptors this process holds.
//!
//! A bpffs renames atomically and does not pin over a pin, so what is in the way is replaced by a
//! rename, and there is no moment without either. Only what is in the instance's own directories is
//! ever replaced.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use holdfast_bpf::{BpfError, object};
use holdfast_protocol::manifest::{Entry, Kind};
use holdfast_protocol::pin::{self, DIRECTORY_MODE, ROOT, UNFINISHED, directory_name};

use super::audit::PinSeen;
use super::observe::look_at_pin;
use crate::estate::Estate;
use crate::loader::Plan;
use crate::mounts;

/// Why a pin could not be put back.
#[derive(Debug, thiserror::Error)]
pub enum RepinError {
    /// The file system is not there.
    #[error("{} is no bpffs any more; mount one: mount -t bpf bpf {}", .0.display(), .0.display())]
    NoBpffs(PathBuf),
    /// A directory or a name.
    #[error("cannot {verb} {}: {source}", path.display())]
    File {
        /// What was tried.
        verb: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The pin itself.
    #[error("cannot pin again: {0}")]
    Object(#[from] BpfError),
}

fn failed(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RepinError {
    let path = path.to_owned();
    move |source| RepinError::File { verb, path, source }
}

/// Pins again whatever of `estate` is not at its path.
///
/// # Errors
///
/// The first one that could not be put back; the others were tried all the same.
pub fn repin(estate: &Estate, plan: &Plan) -> Result<(), RepinError> {
    if !mounts::is_bpffs(&plan.bpffs) {
        return Err(RepinError::NoBpffs(plan.bpffs.clone()));
    }
    let instance = pin::instance_directory(&plan.bpffs, &plan.instance);
    for directory in [plan.bpffs.join(ROOT), instance.clone()] {
        ensure_directory(&directory)?;
    }
    for kind in [Kind::Map, Kind::Program, Kind::Link] {
        ensure_directory(&instance.join(directory_name(kind)))?;
    }
    let mut outcome = Ok(());
    for (entry, descriptor) in estate.objects() {
        let path = pin::path(&plan.bpffs, &plan.instance, entry.shape.kind(), &entry.name);
        if look_at_pin(&path, entry.shape.kind()) != PinSeen::Object(entry.id) {
            outcome = outcome.and(put(entry, descriptor, &path));
        }
    }
    outcome
}

fn put(entry: &Entry, descriptor: BorrowedFd<'_>, path: &Path) -> Result<(), RepinError> {
    match object::pin(descriptor, path) {
        Err(error) if error.errno() == libc::EEXIST => {}
        pinned => return Ok(pinned?),
    }
    if fs::symlink_metadata(path).is_ok_and(|found| found.is_dir()) {
        fs::remove_dir_all(path).map_err(failed("remove", path))?;
    }
    let name = format!("{UNFINISHED}{}-{}", std::process::id(), entry.name);
    let unfinished = path.with_file_name(name);
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("remove", &unfinished)(error));
        }
        _ => {}
    }
    object::pin(descriptor, &unfinished)?;
    fs::rename(&unfinished, path).map_err(|source| {
        let _left_for_the_next_loader = fs::remove_file(&unfinished);
        failed("rename a pin to", path)(source)
    })
}

fn ensure_directory(path: &Path) -> Result<(), RepinError> {
    if fs::symlink_metadata(path).is_ok_and(|found| !found.is_dir()) {
        fs::remove_file(path).map_err(failed("remove", path))?;
    }
    match DirBuilder::new().mode(DIRECTORY_MODE).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(failed("create directory", path)(error))
        }
        _ => Ok(()),
    }
}
