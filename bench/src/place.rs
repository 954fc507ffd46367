//! Where a client connects from.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use holdfast_lab::Lab;

/// Makes a cgroup beside the governed one: whoever enters it is not governed.
pub fn beside(lab: &Lab, name: &str) -> anyhow::Result<PathBuf> {
    let governed = lab.governed();
    let cgroup = governed.parent().context("the governed cgroup has a parent")?.join(name);
    fs::create_dir(&cgroup).with_context(|| format!("cannot make {}", cgroup.display()))?;
    Ok(cgroup)
}
