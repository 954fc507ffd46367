//! What is said at most once, in all files together.

use crate::diagnostic::{Diagnostics, FileName, Position};

/// Something one file says, and where.
pub(crate) struct Said<T> {
    /// The number of the file.
    pub file: usize,
    /// Where in it.
    pub position: Position,
    /// What it says.
    pub value: T,
}

/// What `said` says of `key`; each file that says it again is told.
pub(crate) fn only<T>(
    key: &str,
    said: Vec<Said<T>>,
    files: &[FileName],
    diagnostics: &mut Diagnostics,
) -> Option<T> {
    let mut said = said.into_iter();
    let first = said.next()?;
    let place = files[first.file].at(first.position);
    for other in said {
        let message = format_args!("`{key}` is said already, at {place}: say it once");
        diagnostics.push(&files[other.file], other.position, message);
    }
    Some(first.value)
}
