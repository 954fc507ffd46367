//! What a loader needs to know of the lab it builds an estate in.

use std::path::{Path, PathBuf};

use holdfast_lab::Lab;

/// The governed cgroup.
pub struct Cgroup {
    pub path: PathBuf,
}

/// A cgroup, a bpffs and the name of an instance.
pub struct World {
    pub cgroup: Cgroup,
    pub instance: String,
    bpffs: PathBuf,
}

impl World {
    pub fn new(lab: &Lab) -> Self {
        let cgroup = Cgroup { path: lab.governed() };
        Self { cgroup, instance: "crash".to_owned(), bpffs: lab.bpffs() }
    }

    pub fn bpffs(&self) -> &Path {
        &self.bpffs
    }
}
