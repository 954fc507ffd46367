//! What the file system says about a configuration without reading it.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use holdfast_config::limit::MAX_FILES;
use holdfast_config::{Source, Sources};

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

/// How long ago a file has to have changed for its stamp to be relied on. Two changes that follow each other may have
/// the same time: file systems note it in steps of up to ten milliseconds, and the coarsest of two seconds.
pub const CERTAIN_AFTER: Duration = Duration::from_secs(2);

impl Signature {
    /// What somebody else recognises this state by, if there is something to read; at most
    /// [`MARK_BYTES`](holdfast_protocol::handover::MARK_BYTES).
    #[must_use]
    pub fn mark(&self) -> Option<String> {
        match self {
            Self::File(stamp) => Some(stamp.mark()),
            Self::Directory(entries) => {
                let text = |(name, stamp): &(OsString, Option<Stamp>)| {
                    let stamp = stamp.as_ref()?.mark();
                    let contents = [name.as_bytes(), b"/", stamp.as_bytes()].concat();
                    Some(Source { label: String::new(), name: String::new(), contents })
                };
                let texts: Option<Vec<Source>> = entries.iter().map(text).collect();
                Some(Sources::new(texts?).digest())
            }
            Self::Missing(_) => None,
        }
    }

    /// How long at `now` nothing of it has changed, as the file system says; `None` when that is not said, or has
    /// yet to come.
    #[must_use]
    pub fn age(&self, now: SystemTime) -> Option<Duration> {
        match self {
            Self::File(stamp) => stamp.age(now),
            Self::Directory(entries) => {
                let ages = entries.iter().map(|(_, stamp)| stamp.as_ref()?.age(now));
                ages.collect::<Option<Vec<Duration>>>()?.into_iter().min()
            }
            Self::Missing(_) => None,
        }
    }
}

impl Stamp {
    fn mark(&self) -> String {
        let Self { device, inode, size, changed: [m, m_ns, c, c_ns] } = self;
        format!("{device:x}.{inode:x}.{size:x}.{m:x}.{m_ns:x}.{c:x}.{c_ns:x}")
    }

    fn age(&self, now: SystemTime) -> Option<Duration> {
        let [_, _, seconds, nanoseconds] = self.changed;
        let seconds = Duration::from_secs(u64::try_from(seconds).ok()?);
        let changed = seconds + Duration::from_nanos(u64::try_from(nanoseconds).ok()?);
        now.duration_since(UNIX_EPOCH).ok()?.checked_sub(changed)
    }

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
    use holdfast_protocol::handover::MARK_BYTES;

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
        // And in what others recognise it by.
        let mut marks: Vec<String> = seen.iter().filter_map(Signature::mark).collect();
        assert!(marks.iter().all(|mark| mark.len() <= MARK_BYTES));
        marks.sort_unstable();
        marks.dedup();
        assert_eq!(marks.len(), seen.len() - 1, "one is of nothing: {seen:?}");
    }

    #[test]
    fn the_longest_mark_is_within_its_bound() {
        let (device, inode, size, changed) = (u64::MAX, u64::MAX, u64::MAX, [-1; 4]);
        let longest = Signature::File(Stamp { device, inode, size, changed }).mark();
        assert!(longest.expect("of a file").len() <= MARK_BYTES);
    }

    #[test]
    fn what_is_yet_to_come_has_no_age() {
        let of = |changed| Signature::File(Stamp { device: 1, inode: 2, size: 3, changed });
        let now = UNIX_EPOCH + Duration::from_secs(100);
        assert_eq!(of([0, 0, 97, 500_000_000]).age(now), Some(Duration::from_millis(2500)));
        assert_eq!(of([0, 0, 100, 1]).age(now), None);
        assert_eq!(of([0, 0, -1, 0]).age(now), None);
        let stamp =
            |seconds| Some(Stamp { device: 1, inode: 2, size: 3, changed: [0, 0, seconds, 0] });
        let both = |one, other| Signature::Directory(vec![("a".into(), one), ("b".into(), other)]);
        assert_eq!(both(stamp(95), stamp(98)).age(now), Some(Duration::from_secs(2)));
        assert_eq!(both(stamp(95), stamp(101)).age(now), None);
        assert_eq!(both(stamp(95), None).age(now), None);
        assert_eq!(Signature::Directory(Vec::new()).age(now), None);
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
        let two = signature(top.path());
        assert_ne!(one, two);
        fs::rename(top.path().join("a.yaml"), top.path().join("b.yaml")).expect("renamed");
        let mut marks = [empty, one, two, signature(top.path())].map(|it| it.mark());
        assert!(marks.iter().flatten().all(|mark| mark.len() <= MARK_BYTES));
        marks.sort_unstable();
        assert!(marks.windows(2).all(|two| two[0] != two[1]), "{marks:?}");
        std::os::unix::fs::symlink("nowhere", top.path().join("c.yaml")).expect("linked");
        assert_eq!(signature(top.path()).mark(), None, "what is behind it may come");
    }
}
