//! Where workers write the access log.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// What everybody may do with a new file: its owner writes, its group reads.
const MODE: u32 = 0o640;

/// Where workers write the access log: a file, or this process's own standard output.
#[derive(Clone, Debug)]
pub struct AccessLog(Option<PathBuf>);

impl AccessLog {
    /// The file at `path`; standard output without one.
    ///
    /// # Errors
    ///
    /// When the working directory is gone.
    pub fn new(path: Option<&Path>) -> io::Result<Self> {
        Ok(Self(path.map(std::path::absolute).transpose()?))
    }

    /// The standard output of a new worker. The file is opened anew for each, at its end, so that a log
    /// that was moved away goes on in a new file after a SIGHUP. If that fails, the worker serves
    /// without a log.
    #[must_use]
    pub fn open(&self) -> Stdio {
        let Some(path) = &self.0 else { return Stdio::inherit() };
        match OpenOptions::new().append(true).create(true).mode(MODE).open(path) {
            Ok(file) => file.into(),
            Err(error) => {
                tracing::error!(
                    path = %path.display(),
                    %error,
                    "the access log cannot be opened, and is not written until the next worker"
                );
                Stdio::null()
            }
        }
    }
}
