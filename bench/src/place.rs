//! Where a client connects from.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use holdfast_lab::Lab;
use holdfast_lab::patch::in_cgroup;

/// Makes a cgroup beside the governed one: whoever enters it is not governed.
pub fn beside(lab: &Lab, name: &str) -> anyhow::Result<PathBuf> {
    let governed = lab.governed();
    let cgroup = governed.parent().context("the governed cgroup has a parent")?.join(name);
    fs::create_dir(&cgroup).with_context(|| format!("cannot make {}", cgroup.display()))?;
    Ok(cgroup)
}

/// A command that runs in `cgroup`, and is killed when this thread ends.
pub fn command_in(program: &str, cgroup: &Path) -> anyhow::Result<Command> {
    in_cgroup(program, cgroup).with_context(|| format!("cannot run {program} in a cgroup"))
}
