//! Where the estate is pinned: `<bpffs>/holdfast/<instance>/{maps,programs,links}/<name>`.
//!
//! The loader makes the pins, and the supervisor looks at them, so both need the same paths.
//! Every directory is closed to other users. Names that begin with [`UNFINISHED`] are pins on their
//! way to their place: a bpffs renames atomically, but does not pin over a pin.

use std::path::{Path, PathBuf};

use crate::manifest::Kind;

/// The directory of all instances, below the bpffs.
pub const ROOT: &str = "holdfast";

/// How the name of a pin begins that has not been moved to its place yet. No object's name begins
/// with it, and a bpffs refuses the dot other file systems would hide such a name with.
pub const UNFINISHED: &str = "new-";

/// Mode of the directories: the pins are as good as the descriptors.
pub const DIRECTORY_MODE: u32 = 0o700;

/// Longest name of an instance, in bytes: it becomes part of a socket's path, which the kernel limits
/// to 107 bytes (`unix(7)`).
pub const MAX_INSTANCE_BYTES: usize = 32;

/// A name that cannot be an instance's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "instance name `{0}`: use 1 to {MAX_INSTANCE_BYTES} characters from a-z, 0-9 and `-`, \
     beginning with a letter or digit (a bpffs refuses dots)"
)]
pub struct InvalidInstance(String);

/// Checks the name of an instance.
///
/// # Errors
///
/// [`InvalidInstance`], which says what is allowed.
pub fn check_instance(name: &str) -> Result<(), InvalidInstance> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let fits = (1..=MAX_INSTANCE_BYTES).contains(&name.len());
    if fits && name.bytes().all(plain) && !name.starts_with('-') {
        return Ok(());
    }
    Err(InvalidInstance(crate::wire::bounded(name, MAX_INSTANCE_BYTES)))
}

/// The directory of one instance.
#[must_use]
pub fn instance_directory(bpffs: &Path, instance: &str) -> PathBuf {
    bpffs.join(ROOT).join(instance)
}

/// The name of the directory for objects of `kind`.
#[must_use]
pub const fn directory_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Map => "maps",
        Kind::Program => "programs",
        Kind::Link => "links",
    }
}

/// Where the object of `kind` called `name` is pinned.
#[must_use]
pub fn path(bpffs: &Path, instance: &str, kind: Kind, name: &str) -> PathBuf {
    instance_directory(bpffs, instance).join(directory_name(kind)).join(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel;

    #[test]
    fn a_pin_lies_in_the_directory_of_its_kind() {
        let path = path(Path::new("/sys/fs/bpf"), "default", Kind::Link, "hf_connect4");
        assert_eq!(path, Path::new("/sys/fs/bpf/holdfast/default/links/hf_connect4"));
    }

    #[test]
    fn names_that_could_lead_elsewhere_are_refused() {
        let longest = "a".repeat(MAX_INSTANCE_BYTES);
        for name in ["default", "a", "web-1", "0", &longest] {
            assert_eq!(check_instance(name), Ok(()), "{name}");
        }
        let long = "a".repeat(MAX_INSTANCE_BYTES + 1);
        for name in
            ["", ".", "..", "a/b", "/etc", "a.b", "-a", "A", "a_b", "a b", "a\0", "ä", &long]
        {
            assert!(check_instance(name).is_err(), "{name}");
        }
    }

    #[test]
    fn no_object_is_named_like_an_unfinished_pin() {
        for name in kernel::map::ALL.into_iter().chain(kernel::program::ALL) {
            assert!(!name.starts_with(UNFINISHED), "{name}");
        }
    }
}
