//! What the file system says about a configuration without reading it.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use holdfast_config::limit::MAX_FILES;

/// Changes whenever a file is written, replaced, added, removed, or made readable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signature {
    /// A file, or whatever else is there.
    File(Stamp),
    /// The entries of a directory, sorted, at most [`MAX_FILES`] of them; more are refused anyway.
    Directory(Vec<(OsString, Option<Stamp>)>),
    /// It cannot be looked at.
    Missing(io::ErrorKind),
}

/// What identifies one state of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds of the last change of contents, then of anything.
    changed: [i64; 4],
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            changed: [
                metadata.mtime(),
                metadata.mtime_nsec(),
                metadata.ctime(),
                metadata.ctime_nsec(),
            ],
        }
    }
}

/// The signature of what is at `path` now; symbolic links are followed.
#[must_use]
pub fn signature(path: &Path) -> Signature {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            directory(path).unwrap_or_else(|error| Signature::Missing(error.kind()))
        }
        Ok(metadata) => Signature::File(Stamp::of(&metadata)),
        Err(error) => Signature::Missing(error.kind()),
    }
}

fn directory(path: &Path) -> io::Result<Signature> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(path)?.take(MAX_FILES) {
        let entry = entry?;
        let stamp = fs::metadata(entry.path()).ok().map(|metadata| Stamp::of(&metadata));
        entries.push((entry.file_name(), stamp));
    }
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(Signature::Directory(entries))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_change_shows() {
        let top = tempfile::tempdir().expect("a directory");
        let file = top.path().join("a.yaml");
        let mut seen = vec![signature(&file)];
        let mut look = || {
            let now = signature(&file);
            assert!(!seen.contains(&now), "{now:?}");
            seen.push(now);
        };
        fs::write(&file, "a").expect("written");
        look();
        fs::write(&file, "ab").expect("written");
        look();
        let other = top.path().join("b.yaml");
        fs::write(&other, "cd").expect("written");
        fs::rename(&other, &file).expect("renamed");
        look();
        fs::remove_file(&file).expect("removed");
        assert_eq!(signature(&file), Signature::Missing(io::ErrorKind::NotFound));
    }

    #[test]
    fn a_directory_changes_with_its_files() {
        let top = tempfile::tempdir().expect("a directory");
        let empty = signature(top.path());
        fs::write(top.path().join("a.yaml"), "a").expect("written");
        let one = signature(top.path());
        assert_ne!(one, empty);
        assert_eq!(one, signature(top.path()));
        fs::write(top.path().join("a.yaml"), "ab").expect("written");
        assert_ne!(one, signature(top.path()));
    }
}
