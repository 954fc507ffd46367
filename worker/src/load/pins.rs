//! The pins of one instance: reading them, putting objects in their place, taking them away.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use holdfast_bpf::{BpfError, object};
use holdfast_protocol::manifest::Kind;
use holdfast_protocol::pin::{
    self, DIRECTORY_MODE, InvalidInstance, ROOT, UNFINISHED, check_instance, directory_name,
};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// The kinds of object, in the order they are pinned.
pub const KINDS: [Kind; 3] = [Kind::Map, Kind::Program, Kind::Link];

/// The bits of a mode that say who may do what.
const PERMISSION_BITS: u32 = 0o7777;

/// Something about the pins that could not be done.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// The instance cannot have a directory.
    #[error(transparent)]
    Instance(#[from] InvalidInstance),
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
    /// A pin.
    #[error(transparent)]
    Object(#[from] BpfError),
    /// Another loader has the instance.
    #[error(
        "another loader is at work on {}; wait for it to end, or end it, and try again",
        path.display()
    )]
    Busy {
        /// The instance's directory.
        path: PathBuf,
    },
}

fn failed(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PinError {
    let path = path.to_owned();
    move |source| PinError::File { verb, path, source }
}

/// What is found under the name of a pin.
#[derive(Debug)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// An object of the right kind.
    Object(OwnedFd),
    /// Something else, described for people.
    Stranger(String),
}

/// The pins of one instance. Only one loader at a time has them.
#[derive(Debug)]
pub struct Pins {
    bpffs: PathBuf,
    instance: String,
    lock: Flock<File>,
}

impl Pins {
    /// Makes sure of the directories, and takes the instance for this loader alone.
    ///
    /// What stands in a directory's place is removed and added to `repairs`.
    ///
    /// # Errors
    ///
    /// [`PinError::Busy`] when another loader has it; otherwise as the variants say.
    pub fn open(bpffs: &Path, instance: &str, repairs: &mut Vec<String>) -> Result<Self, PinError> {
        check_instance(instance)?;
        let root = bpffs.join(ROOT);
        let directory = pin::instance_directory(bpffs, instance);
        ensure_directory(&root, repairs)?;
        clear_the_way(&directory, repairs)?;
        ensure_directory(&directory, repairs)?;
        let lock = take_lock(&directory)?;
        for kind in KINDS {
            let directory = directory.join(directory_name(kind));
            clear_the_way(&directory, repairs)?;
            ensure_directory(&directory, repairs)?;
        }
        Ok(Self { bpffs: bpffs.to_owned(), instance: instance.to_owned(), lock })
    }

    /// Takes the instance for this loader alone if it has a directory, and makes nothing.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_existing(bpffs: &Path, instance: &str) -> Result<Option<Self>, PinError> {
        check_instance(instance)?;
        let directory = pin::instance_directory(bpffs, instance);
        match fs::symlink_metadata(&directory) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(failed("look at", &directory)(source)),
        }
        let lock = take_lock(&directory)?;
        Ok(Some(Self { bpffs: bpffs.to_owned(), instance: instance.to_owned(), lock }))
    }

    /// The instance's directory.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        pin::instance_directory(&self.bpffs, &self.instance)
    }

    /// Where the object of `kind` called `name` is pinned.
    #[must_use]
    pub fn path(&self, kind: Kind, name: &str) -> PathBuf {
        pin::path(&self.bpffs, &self.instance, kind, name)
    }

    /// What is pinned under this name.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to say.
    pub fn get(&self, kind: Kind, name: &str) -> Result<Found, PinError> {
        find(&self.path(kind, name), kind)
    }

    /// Pins the object under this name, in place of whatever is there, in one step. Afterwards
    /// whatever was there has no pin under this name any more.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; what was there is still there then.
    pub fn put(&self, kind: Kind, name: &str, fd: BorrowedFd<'_>) -> Result<(), PinError> {
        let path = self.path(kind, name);
        match object::pin(fd, &path) {
            Ok(()) => return Ok(()),
            Err(error) if error.errno() == libc::EEXIST => {}
            Err(error) => return Err(error.into()),
        }
        // A directory gives way to no file.
        if fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir()) {
            fs::remove_dir_all(&path).map_err(failed("remove", &path))?;
            return Ok(object::pin(fd, &path)?);
        }
        // What a killed loader left behind may still be the only thing that keeps a link alive, so
        // its name is not reused but for the case that this process has its number.
        let unfinished = format!("{UNFINISHED}{}-{name}", std::process::id());
        let unfinished = self.path(kind, &unfinished);
        remove(&unfinished)?;
        object::pin(fd, &unfinished)?;
        fs::rename(&unfinished, &path).map_err(|source| {
            let _left_for_the_next_loader = fs::remove_file(&unfinished);
            failed("rename a pin to", &path)(source)
        })
    }

    /// Takes the name away; nothing there is fine.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn remove(&self, kind: Kind, name: &str) -> Result<(), PinError> {
        remove(&self.path(kind, name)).map(drop)
    }

    /// Everything in the directory of `kind`, by name and in order.
    ///
    /// # Errors
    ///
    /// When it cannot be read; a directory that is not there is empty.
    pub fn names(&self, kind: Kind) -> Result<Vec<String>, PinError> {
        names(&self.directory().join(directory_name(kind)))
    }

    /// Removes the instance's directories as far as they are empty, and the common one with the last
    /// instance.
    pub fn remove_empty_directories(self) -> Vec<PathBuf> {
        let directory = self.directory();
        let mut candidates: Vec<PathBuf> =
            KINDS.iter().rev().map(|kind| directory.join(directory_name(*kind))).collect();
        candidates.push(directory);
        candidates.push(self.bpffs.join(ROOT));
        candidates.retain(|path| fs::remove_dir(path).is_ok());
        drop(self.lock);
        candidates
    }
}

/// What is at `path`, where an object of `kind` is expected.
///
/// # Errors
///
/// When the kernel refuses to say.
pub fn find(path: &Path, kind: Kind) -> Result<Found, PinError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(source) => return Err(failed("look at", path)(source)),
        Ok(found) if found.is_dir() => return Ok(Found::Stranger("a directory".to_owned())),
        Ok(found) if found.is_symlink() => {
            return Ok(Found::Stranger("a symbolic link".to_owned()));
        }
        Ok(_) => {}
    }
    match object::get(path) {
        Ok(descriptor) => Ok(match object::kind_of(descriptor.as_fd()) {
            Some(found) if found == kind => Found::Object(descriptor),
            Some(other) => Found::Stranger(format!("a {other}")),
            None => Found::Stranger("an unknown object".to_owned()),
        }),
        Err(error) if error.is_not_found() => Ok(Found::Nothing),
        // A file of the bpffs itself (`maps.debug`, an iterator): no object, and no obstacle.
        Err(error) => Ok(Found::Stranger(format!("unreadable ({})", error.source))),
    }
}

/// The names in `directory`, in order.
///
/// # Errors
///
/// When it cannot be read; a directory that is not there is empty.
pub fn names(directory: &Path) -> Result<Vec<String>, PinError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(failed("list", directory)(source)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed("list", directory))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort_unstable();
    Ok(names)
}

/// Removes whatever is at `path`, and says whether anything was.
///
/// # Errors
///
/// When the kernel refuses.
pub fn remove(path: &Path) -> Result<bool, PinError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(failed("remove", path)(source)),
    }
}

/// Removes what is at `path`, inside our own directories, unless it is a directory.
fn clear_the_way(path: &Path, repairs: &mut Vec<String>) -> Result<(), PinError> {
    if fs::symlink_metadata(path).is_ok_and(|found| !found.is_dir()) {
        fs::remove_file(path).map_err(failed("remove", path))?;
        repairs.push(format!("removed what stood in place of directory {}", path.display()));
    }
    Ok(())
}

fn ensure_directory(path: &Path, repairs: &mut Vec<String>) -> Result<(), PinError> {
    match DirBuilder::new().mode(DIRECTORY_MODE).create(path) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(source) => return Err(failed("create directory", path)(source)),
    }
    let found = fs::symlink_metadata(path).map_err(failed("look at", path))?;
    if !found.is_dir() {
        return Err(failed("use as a directory", path)(io::ErrorKind::NotADirectory.into()));
    }
    if found.mode() & PERMISSION_BITS != DIRECTORY_MODE {
        let mode = Permissions::from_mode(DIRECTORY_MODE);
        fs::set_permissions(path, mode).map_err(failed("change the mode of", path))?;
        repairs.push(format!("closed directory {} to other users", path.display()));
    }
    Ok(())
}

fn take_lock(directory: &Path) -> Result<Flock<File>, PinError> {
    let file = File::open(directory).map_err(failed("open", directory))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        Errno::EWOULDBLOCK => PinError::Busy { path: directory.to_owned() },
        errno => failed("lock", directory)(errno.into()),
    })
}
