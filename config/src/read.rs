//! Reading a configuration from disk: a file, or a directory of files. Bounded, and never waiting
//! for a writer: what is not a regular file is refused before anything is read from it.

use std::ffi::OsString;
use std::fs::{self, FileType, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::limit::{MAX_FILE_BYTES, MAX_FILES, MAX_TOTAL_BYTES};
use crate::source::{Source, Sources};

/// The symlink a Kubernetes volume replaces to put all its files in force at once.
const KUBERNETES_GENERATION: &str = "..data";

/// How often a directory is read again because its generation was replaced meanwhile. The kubelet
/// replaces it about once a minute at most, so the second reading practically always settles it.
const MAX_READINGS: u32 = 4;

/// Texts from this size on are given multiples of it: one that is somewhat longer than the one before takes
/// the place of another that is gone, and not fresh memory, which takes the kernel longer than the reading.
const LARGE: usize = 64 * 1024;

/// Why a configuration could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The path leads nowhere, or may not be followed.
    #[error("cannot find the configuration {path}: {source}")]
    Find {
        /// What was looked at.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The directory cannot be listed.
    #[error("cannot list the configuration directory {path}: {source}")]
    List {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file cannot be opened.
    #[error("cannot open the configuration {path}: {source}")]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Neither a regular file nor, at the top, a directory.
    #[error("the configuration {path} is {kind}; it has to be a regular file")]
    NotRegular {
        /// What was found.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// A directory without a file of the language.
    #[error(
        "the configuration directory {path} holds no *.yaml or *.yml file; for no services at all, \
         put one there that says `services: []`"
    )]
    NoFiles {
        /// The directory.
        path: PathBuf,
    },
    /// A file that is larger than the limit.
    #[error("the configuration {path} is larger than the limit of {MAX_FILE_BYTES} bytes")]
    FileTooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Files that are together larger than the limit.
    #[error(
        "the files of the configuration directory {path} are together larger than the limit of \
         {MAX_TOTAL_BYTES} bytes"
    )]
    TotalTooLarge {
        /// The directory.
        path: PathBuf,
    },
    /// More files than the limit.
    #[error("the configuration directory {path} holds more files than the limit of {MAX_FILES}")]
    TooManyFiles {
        /// The directory.
        path: PathBuf,
    },
    /// The directory was replaced over and over while it was read.
    #[error(
        "the configuration directory {path} was replaced {MAX_READINGS} times while it was read"
    )]
    Unsettled {
        /// The directory.
        path: PathBuf,
    },
}

impl ReadError {
    /// Whether everything could be read and is too much of it: then the configuration is at fault,
    /// not the way to it.
    #[must_use]
    pub const fn is_over_limit(&self) -> bool {
        matches!(
            self,
            Self::FileTooLarge { .. } | Self::TotalTooLarge { .. } | Self::TooManyFiles { .. }
        )
    }
}

/// The configuration at `path`: a file, or a directory whose files are all those named `*.yaml` or
/// `*.yml` and not hidden. Symbolic links are followed.
///
/// # Errors
///
/// Any [`ReadError`]. At most one byte more than each limit has been read then.
pub fn read(path: &Path) -> Result<Sources, ReadError> {
    let metadata = find(path)?;
    if metadata.is_dir() {
        return read_directory(path);
    }
    let contents = read_file(path, MAX_FILE_BYTES)?;
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    Ok(Sources::new(vec![Source { label: path.display().to_string(), name, contents }]))
}

/// Reads the directory's files, all of one generation where it has generations.
fn read_directory(path: &Path) -> Result<Sources, ReadError> {
    let generation = || fs::read_link(path.join(KUBERNETES_GENERATION)).ok();
    for _ in 0..MAX_READINGS {
        let before = generation();
        let reading = read_entries(path);
        // A file that has vanished is no error either when its whole generation has.
        if generation() == before {
            return reading;
        }
    }
    Err(ReadError::Unsettled { path: path.to_owned() })
}

fn read_entries(directory: &Path) -> Result<Sources, ReadError> {
    let mut files = Vec::new();
    let mut total = 0;
    for name in list(directory)? {
        let path = directory.join(&name);
        let room = MAX_TOTAL_BYTES - total;
        let contents = read_file(&path, room.min(MAX_FILE_BYTES)).map_err(|error| match error {
            ReadError::FileTooLarge { .. } if room < MAX_FILE_BYTES => {
                ReadError::TotalTooLarge { path: directory.to_owned() }
            }
            error => error,
        })?;
        total += contents.len();
        let label = path.display().to_string();
        files.push(Source { label, name: name.to_string_lossy().into_owned(), contents });
    }
    Ok(Sources::new(files))
}

/// The names of the directory's configuration files, sorted.
fn list(directory: &Path) -> Result<Vec<OsString>, ReadError> {
    let failed = |source| ReadError::List { path: directory.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if !is_configuration(Path::new(&name)) {
            continue;
        }
        if names.len() == MAX_FILES {
            return Err(ReadError::TooManyFiles { path: directory.to_owned() });
        }
        names.push(name);
    }
    if names.is_empty() {
        return Err(ReadError::NoFiles { path: directory.to_owned() });
    }
    names.sort();
    Ok(names)
}

fn is_configuration(name: &Path) -> bool {
    let hidden = name.as_os_str().as_encoded_bytes().starts_with(b".");
    let extension = name.extension().and_then(|extension| extension.to_str());
    !hidden && matches!(extension, Some("yaml" | "yml"))
}

/// At most `limit` bytes of the regular file at `path`.
fn read_file(path: &Path, limit: usize) -> Result<Vec<u8>, ReadError> {
    // Opening a device can do something to it, so what the path leads to is looked at before, and
    // again after, when nothing can be put in its place any more.
    require_regular(path, &find(path)?)?;
    let file = OpenOptions::new()
        .read(true)
        // A FIFO without a writer must not hold the reader up.
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(|source| ReadError::Open { path: path.to_owned(), source })?;
    let failed = |source| ReadError::Read { path: path.to_owned(), source };
    let metadata = file.metadata().map_err(failed)?;
    require_regular(path, &metadata)?;
    if metadata.len() > limit as u64 {
        return Err(ReadError::FileTooLarge { path: path.to_owned() });
    }
    // Room for all of it and for one byte more, so that it is read in one go.
    let size = usize::try_from(metadata.len()).unwrap_or(limit).min(limit);
    let mut contents = Vec::with_capacity(room(size + 1));
    // The size can have grown since, and says 0 on some file systems.
    file.take(limit as u64 + 1).read_to_end(&mut contents).map_err(failed)?;
    if contents.len() > limit {
        return Err(ReadError::FileTooLarge { path: path.to_owned() });
    }
    Ok(contents)
}

/// How much memory a text of `size` bytes is given.
const fn room(size: usize) -> usize {
    if size < LARGE { size } else { size.next_multiple_of(LARGE) }
}

fn find(path: &Path) -> Result<Metadata, ReadError> {
    fs::metadata(path).map_err(|source| ReadError::Find { path: path.to_owned(), source })
}

fn require_regular(path: &Path, metadata: &Metadata) -> Result<(), ReadError> {
    if metadata.is_file() {
        return Ok(());
    }
    Err(ReadError::NotRegular { path: path.to_owned(), kind: kind(metadata.file_type()) })
}

fn kind(file: FileType) -> &'static str {
    if file.is_dir() {
        "a directory"
    } else if file.is_fifo() {
        "a FIFO"
    } else if file.is_socket() {
        "a socket"
    } else if file.is_char_device() || file.is_block_device() {
        "a device"
    } else {
        "something else"
    }
}
