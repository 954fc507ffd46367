//! A memory cgroup of a patch, where the controller is one of cgroup v1.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cgroup::PROCESSES;
use crate::error::LabError;
use crate::inside::Lab;
use crate::process::Process;
use crate::wait::eventually;

/// A memory cgroup with a limit. [`MemoryCgroup::remove`] removes it; what a killed process has left
/// goes with its patch.
#[derive(Debug)]
pub struct MemoryCgroup {
    path: PathBuf,
    parent: PathBuf,
}

/// Where the memory controller of cgroup v1 is mounted, if it is.
///
/// # Errors
///
/// When the mounts cannot be read.
pub fn mount_point() -> Result<Option<PathBuf>, LabError> {
    let path = Path::new("/proc/self/mountinfo");
    let text = fs::read_to_string(path).map_err(LabError::file("read", path))?;
    Ok(memory_mount(&text))
}

/// The mount point of the memory controller in the text of a `mountinfo` file.
fn memory_mount(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let options = right.strip_prefix("cgroup ")?.split(' ').next_back()?;
        let is_memory = options.split(',').any(|option| option == "memory");
        is_memory.then(|| PathBuf::from(left.split(' ').nth(4).unwrap_or_default()))
    })
}

/// Where the memory cgroup of the patch whose directory is `directory` is.
pub(crate) fn place(mount: &Path, directory: &Path) -> Option<PathBuf> {
    Some(mount.join(directory.file_name()?))
}

/// Removes what a patch may have left at `mount`. There may be no process in it any more.
pub(crate) fn remove_left(directory: &Path) {
    if let Ok(Some(mount)) = mount_point()
        && let Some(path) = place(&mount, directory)
    {
        // Most patches never had one.
        let _ = fs::remove_dir(path);
    }
}

impl MemoryCgroup {
    /// Makes the lab's memory cgroup, with room for `bytes`.
    ///
    /// # Errors
    ///
    /// When it exists, or the kernel refuses.
    pub fn create(mount: &Path, lab: &Lab, bytes: u64) -> Result<Self, LabError> {
        let path = place(mount, lab.directory()).unwrap_or_else(|| mount.join("holdfast-lab"));
        fs::create_dir(&path).map_err(LabError::file("create the memory cgroup", &path))?;
        let made = Self { path, parent: mount.to_owned() };
        let limit = made.path.join("memory.limit_in_bytes");
        let limited = fs::write(&limit, bytes.to_string()).map_err(LabError::file("write", &limit));
        if let Err(error) = limited {
            // Nobody is in it.
            let _ = fs::remove_dir(&made.path);
            return Err(error);
        }
        Ok(made)
    }

    /// Moves the process `pid` into it.
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub fn enter(&self, pid: u32) -> Result<(), LabError> {
        let list = self.path.join(PROCESSES);
        fs::write(&list, pid.to_string()).map_err(LabError::file("move a process to", &list))
    }

    /// Moves `process` out of it, if it still lives, and removes it.
    ///
    /// # Errors
    ///
    /// When it stays.
    pub fn remove(&self, process: &Process) -> Result<(), LabError> {
        let parent = self.parent.join(PROCESSES);
        eventually("the memory cgroup to be removed", || {
            if !process.wait(std::time::Duration::ZERO).unwrap_or(true) {
                // It may end at this very moment.
                let _ = fs::write(&parent, process.pid().to_string());
            }
            fs::remove_dir(&self.path)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_controller_is_found_where_it_is() {
        let text = "\
            32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime shared:3 - cgroup cgroup rw,cpu\n\
            33 31 0:30 / /sys/fs/cgroup/memory rw shared:4 - cgroup cgroup rw,memory\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 none rw\n";
        assert_eq!(memory_mount(text), Some(PathBuf::from("/sys/fs/cgroup/memory")));
        assert_eq!(memory_mount("41 31 0:38 / /sys/fs/cgroup rw - cgroup2 none rw\n"), None);
    }
}
