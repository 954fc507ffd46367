//! What can go wrong in a lab, said to the person who runs it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_bpf::BpfError;
use holdfast_protocol::wire::WireError;

/// Why the lab could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Namespaces, cgroups and bpf need root.
    #[error("root is needed to make namespaces, cgroups and bpf objects: run this with sudo")]
    NotRoot,
    /// Nowhere to make a cgroup.
    #[error(
        "no cgroup2 filesystem is mounted: mount one with \
         `mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified`"
    )]
    NoCgroup2,
    /// A file operation.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried, as a verb: `create`, `read`, …
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Anything else asked of the kernel.
    #[error("cannot {action}: {source}")]
    System {
        /// What was tried.
        action: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A command of `bpf(2)`.
    #[error(transparent)]
    Bpf(#[from] BpfError),
    /// A product binary is missing.
    #[error(
        "there is no {name} in {}: build it with `make build`, or name the directory it is in \
         with the environment variable {}", looked_in.display(), crate::binaries::DIRECTORY_VARIABLE
    )]
    NoBinary {
        /// Its file name.
        name: &'static str,
        /// Where it was looked for last.
        looked_in: PathBuf,
    },
    /// A condition did not come true in time.
    #[error("{what} did not happen within {} s; last seen: {last}", deadline.as_secs())]
    Overdue {
        /// The condition.
        what: String,
        /// How long it was waited for.
        deadline: Duration,
        /// What was there instead.
        last: String,
    },
    /// The supervisor sent something unreadable.
    #[error("the supervisor's answer cannot be read: {0}")]
    Answer(#[from] WireError),
    /// The supervisor or its command line said no, or something unexpected.
    #[error("{0}")]
    Unexpected(String),
}

impl LabError {
    /// A failed `action` on `path`, for `map_err`.
    pub fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }

    /// A failed `action` on something that is not a file, for `map_err`.
    pub fn system<E: Into<io::Error>>(action: impl Into<String>) -> impl FnOnce(E) -> Self {
        move |source| Self::System { action: action.into(), source: source.into() }
    }
}
