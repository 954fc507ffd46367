//! The text of the configuration, or an error that says what to do about it.

use std::io::ErrorKind;
use std::path::Path;

use holdfast_config::{ReadError, Sources, read};

use crate::serve::privilege::Identity;

/// Reads the configuration at `path`.
///
/// # Errors
///
/// Why it cannot be read, and by whom: the worker's user is not the one who wrote the file.
pub fn text(path: &Path, reader: &Identity) -> Result<Sources, String> {
    read(path).map_err(|error| {
        let denied = match &error {
            ReadError::Find { source, .. }
            | ReadError::List { source, .. }
            | ReadError::Open { source, .. }
            | ReadError::Read { source, .. } => source.kind() == ErrorKind::PermissionDenied,
            _ => false,
        };
        if !denied {
            return error.to_string();
        }
        format!(
            "{error}. The worker runs as user {reader}; let it read the configuration, with \
             `chmod o+r` on the file and `chmod o+x` on each directory above it, or give it to that \
             user with `chown`"
        )
    })
}
