//! The governed cgroup is removed.
//!
//! A cgroup can only be removed when nobody is in it, so its processes (this one) move to another
//! cgroup first, which nothing governs. What must hold: what is programmed stays, the long
//! connections go on, and a cgroup that is made at the same path is governed again.

use std::fs;
use std::path::PathBuf;

use holdfast_lab::cgroup;
use holdfast_lab::wait::within;

use super::inject::{FaultError, Guard, Injection, PATIENCE, file};
use crate::run::stage::Stage;

/// The cgroup is gone. It is made again, and this process moves back, when dropped.
struct Removed<'s> {
    stage: &'s Stage<'s>,
    governed: PathBuf,
    refuge: PathBuf,
}

impl Guard for Removed<'_> {}

/// Moves away and removes the cgroup.
pub fn remove<'s>(stage: &'s Stage<'s>) -> Result<Injection<'s>, FaultError> {
    let governed = stage.lab.governed();
    let refuge = governed.with_file_name("refuge");
    fs::create_dir(&refuge).map_err(file("create", &refuge))?;
    // From here on everything is undone on every path.
    let removed = Removed { stage, governed, refuge };
    cgroup::enter(&removed.refuge)?;
    // The kernel lets go of a process that has moved a moment later.
    within(PATIENCE, "the cgroup to be empty", || fs::remove_dir(&removed.governed))?;
    Ok(Injection::held(removed, "its processes moved to another one"))
}

impl Removed<'_> {
    fn undo(&self) -> Result<(), FaultError> {
        if !self.governed.exists() {
            fs::create_dir(&self.governed).map_err(file("create", &self.governed))?;
        }
        cgroup::enter(&self.governed)?;
        within(PATIENCE, "the refuge to be empty", || fs::remove_dir(&self.refuge))?;
        Ok(())
    }
}

impl Drop for Removed<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.undo() {
            self.stage.trouble(format!("the governed cgroup is not as before: {error}"));
        }
    }
}
