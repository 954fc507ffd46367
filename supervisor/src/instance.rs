//! One instance's name and the places that belong to it.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use holdfast_protocol::control::SOCKET_NAME;
use holdfast_protocol::manifest::Kind;
use holdfast_protocol::pin;

use crate::access::{self, ControlGroup};

/// Only root may enter an instance's directories.
const PRIVATE: u32 = 0o700;
/// What the control group may do with the run directory: go through it to the socket, whose name is
/// known, and neither list nor change it.
const PASSABLE: u32 = 0o010;

/// An instance's name, which [`pin::check_instance`] allows: it becomes a directory's name in three
/// places, one of them a bpffs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(String);

impl Name {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = pin::InvalidInstance;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        pin::check_instance(text).map(|()| Self(text.to_owned()))
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where an instance keeps what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// What lives as long as the supervisor.
    pub run: PathBuf,
    /// What outlives it.
    pub state: PathBuf,
    /// Its pins; made by the loader.
    pub pins: PathBuf,
}

impl Places {
    /// The places of instance `name`.
    #[must_use]
    pub fn new(name: &Name, run_dir: &Path, state_dir: &Path, bpffs: &Path) -> Self {
        Self {
            run: run_dir.join(name.as_str()),
            state: state_dir.join(name.as_str()),
            pins: pin::instance_directory(bpffs, name.as_str()),
        }
    }

    /// The same places, whatever the working directory becomes.
    ///
    /// # Errors
    ///
    /// When the working directory is gone.
    pub fn absolute(&self) -> io::Result<Self> {
        let absolute = std::path::absolute::<&Path>;
        Ok(Self {
            run: absolute(&self.run)?,
            state: absolute(&self.state)?,
            pins: absolute(&self.pins)?,
        })
    }

    /// Held by the running supervisor.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.run.join("lock")
    }

    /// The directory a supervisor locks, so that no other one uses the same pins from another run
    /// directory. Not [`pins`](Self::pins) itself: that is what loaders lock against each other, and
    /// a supervisor's own loader must not find it taken.
    #[must_use]
    pub fn pins_in_use(&self) -> PathBuf {
        self.pins.join(pin::directory_name(Kind::Link))
    }

    /// Where `holdfastctl` connects.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.run.join(SOCKET_NAME)
    }

    /// The newest epoch.
    #[must_use]
    pub fn epoch(&self) -> PathBuf {
        self.state.join("epoch")
    }

    /// The last configuration that proved itself.
    #[must_use]
    pub fn snapshot(&self) -> PathBuf {
        self.state.join("snapshot")
    }

    /// Exists from the moment a removal was asked for until it is complete.
    #[must_use]
    pub fn uninstall_intent(&self) -> PathBuf {
        self.state.join("uninstall")
    }

    /// Whether something is pinned: an estate that governs, whatever becomes of this process.
    #[must_use]
    pub fn has_pins(&self) -> bool {
        std::fs::read_dir(&self.pins).is_ok_and(|mut entries| entries.next().is_some())
    }
}

/// Makes `directory` and its parents, for root alone. One that exists keeps what its supervisor has
/// opened for a group: that one may be running. [`settle`] is for whoever has the lock.
///
/// # Errors
///
/// When it cannot be made, or belongs to somebody else.
pub fn make_private(directory: &Path) -> io::Result<()> {
    if let Some(parent) = directory.parent() {
        std::fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(PRIVATE).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // Not followed if it is a link: whoever may put one here could lead us anywhere.
    let found = std::fs::symlink_metadata(directory)?;
    if !found.is_dir() || found.uid() != nix::unistd::geteuid().as_raw() {
        return Err(io::Error::other("it exists and is not a directory of this user"));
    }
    if found.mode() & 0o777 & !(PRIVATE | PASSABLE) != 0 {
        std::fs::set_permissions(directory, Permissions::from_mode(PRIVATE))?;
    }
    Ok(())
}

/// Lets only root and `group` into `directory`, whatever a former supervisor allowed.
///
/// # Errors
///
/// When the kernel refuses.
pub fn settle(directory: &Path, group: Option<&ControlGroup>) -> io::Result<()> {
    access::share(directory, PRIVATE, group, PASSABLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_name_leaves_its_socket_room() {
        // `sun_path` in unix(7), with its terminating zero.
        const PATH_BYTES: usize = 108;
        let name = "x".repeat(pin::MAX_INSTANCE_BYTES).parse().expect("allowed");
        let default = Path::new("/run/holdfast");
        let socket = Places::new(&name, default, default, default).run.join(SOCKET_NAME);
        assert!(socket.as_os_str().len() < PATH_BYTES);
    }

    #[test]
    fn private_directories_are_made_private_and_foreign_things_refused() {
        let base = tempfile::tempdir().expect("a directory");
        let wanted = base.path().join("holdfast/default");
        make_private(&wanted).expect("made");
        std::fs::set_permissions(&wanted, Permissions::from_mode(0o777)).expect("changed");
        make_private(&wanted).expect("mended");
        let mode = || std::fs::metadata(&wanted).expect("there").mode() & 0o777;
        assert_eq!(mode(), PRIVATE);
        let group = ControlGroup { name: "x".to_owned(), id: 4242 };
        settle(&wanted, Some(&group)).expect("opened for the group");
        make_private(&wanted).expect("left as it is");
        let found = std::fs::metadata(&wanted).expect("there");
        assert_eq!((found.mode() & 0o777, found.gid()), (0o710, 4242));
        settle(&wanted, None).expect("closed again");
        assert_eq!(mode(), PRIVATE);

        let link = base.path().join("link");
        std::os::unix::fs::symlink("/tmp", &link).expect("linked");
        assert!(make_private(&link).is_err());
        let theirs = base.path().join("theirs");
        std::fs::create_dir(&theirs).expect("made");
        std::os::unix::fs::chown(&theirs, Some(65_534), None).expect("given away, as root");
        assert!(make_private(&theirs).is_err());
    }

    #[test]
    fn pins_are_seen() {
        let base = tempfile::tempdir().expect("a directory");
        let name = "a".parse().expect("a name");
        let places = Places::new(&name, base.path(), base.path(), base.path());
        assert!(!places.has_pins());
        std::fs::create_dir_all(places.pins.join("maps")).expect("made");
        assert!(places.has_pins());
    }
}
