//! A place for one estate: a cgroup of its own, and a bpffs that nobody else sees.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use holdfast_bpf::{link, object};
use holdfast_protocol::manifest::Kind;
use holdfast_protocol::pin;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

/// How long the kernel may take for what it does in its own time.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long to rest between two looks at a condition.
const REST: Duration = Duration::from_millis(2);

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A cgroup directory, removed when dropped.
pub struct Cgroup {
    pub path: PathBuf,
}

impl Cgroup {
    pub fn new() -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("holdfast-loader-test-{}-{number}", std::process::id());
        let path = cgroup2_mount().join(name);
        fs::create_dir(&path).expect("root may make a cgroup");
        Self { path }
    }

    pub fn id(&self) -> u64 {
        fs::metadata(&self.path).expect("the cgroup exists").ino()
    }

    pub fn open(&self) -> OwnedFd {
        fs::File::open(&self.path).expect("the cgroup can be opened").into()
    }

    /// Ids of the programs that run in this cgroup at the hook, its ancestors' not counted.
    pub fn attached(&self, attach_type: u32) -> Vec<u32> {
        link::attached_programs(self.open().as_fd(), attach_type).expect("the hook can be queried")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Gone already where that is the point of a test.
        let _ = fs::remove_dir(&self.path);
    }
}

fn cgroup2_mount() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("proc is mounted");
    let line =
        mounts.lines().find(|line| line.contains(" - cgroup2 ")).expect("cgroup2 is mounted");
    PathBuf::from(line.split(' ').nth(4).expect("a mount point"))
}

/// A cgroup, a bpffs and the name of an instance. The bpffs is in a mount namespace of this thread
/// alone, so that it goes with the thread, pins and all, however the test ends.
pub struct World {
    pub cgroup: Cgroup,
    pub instance: String,
    directory: TempDir,
}

impl World {
    pub fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNS).expect("root may unshare its mounts");
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
            .expect("root may make its mounts private");
        let directory = TempDir::new().expect("a temporary directory");
        mount(Some("bpf"), directory.path(), Some("bpf"), MsFlags::empty(), none)
            .expect("root may mount a bpffs");
        Self { cgroup: Cgroup::new(), instance: "test".to_owned(), directory }
    }

    pub fn bpffs(&self) -> &Path {
        self.directory.path()
    }

    pub fn pins(&self) -> PathBuf {
        pin::instance_directory(self.bpffs(), &self.instance)
    }

    pub fn pin(&self, kind: Kind, name: &str) -> PathBuf {
        pin::path(self.bpffs(), &self.instance, kind, name)
    }

    /// Everything of ours on the bpffs, with the kind and id of the object where it is a pin.
    pub fn census(&self) -> Vec<String> {
        let root = self.bpffs().join(pin::ROOT);
        let mut lines = Vec::new();
        if root.exists() {
            lines.push(format!("{} directory", root.display()));
            list(&root, &mut lines);
        }
        lines.sort_unstable();
        lines
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Links outlive their pins while a test holds descriptors; whatever is still attached to
        // the cgroup goes with it.
        let _ = nix::mount::umount2(self.directory.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}

fn list(directory: &Path, lines: &mut Vec<String>) {
    for entry in fs::read_dir(directory).expect("the directory can be read") {
        let path = entry.expect("an entry").path();
        let metadata = fs::symlink_metadata(&path).expect("an entry exists");
        let what = if metadata.is_dir() {
            list(&path, lines);
            "directory".to_owned()
        } else if metadata.is_symlink() {
            "symbolic link".to_owned()
        } else {
            describe(&path)
        };
        lines.push(format!("{} {what}", path.display()));
    }
}

fn describe(path: &Path) -> String {
    let fd = object::get(path).expect("a pin can be opened");
    match object::kind_of(fd.as_fd()) {
        Some(Kind::Map) => format!("map {}", object::map_info(fd.as_fd()).expect("info").id),
        Some(Kind::Program) => {
            format!("program {}", object::program_info(fd.as_fd()).expect("info").id)
        }
        Some(Kind::Link) => {
            let info = object::link_info(fd.as_fd()).expect("info");
            format!("link {} of program {}", info.id, info.program_id)
        }
        None => panic!("{} is no bpf object", path.display()),
    }
}

/// Whether the kernel still has this object.
pub fn exists(kind: Kind, id: u32) -> bool {
    match object::by_id(kind, id) {
        Ok(_) => true,
        Err(error) if error.is_not_found() => false,
        Err(error) => panic!("{error}"),
    }
}

/// Waits until `condition` holds.
pub fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(REST);
    }
}
