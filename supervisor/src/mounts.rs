//! Where the kernel's file systems are mounted.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{FsType, statfs};

/// `CGROUP2_SUPER_MAGIC` of `linux/magic.h`.
const CGROUP2_MAGIC: FsType = FsType(0x6367_7270);
/// `BPF_FS_MAGIC` of `linux/magic.h`.
const BPFFS_MAGIC: FsType = FsType(0xcafe_4a11);

/// The mount point of the first cgroup2 in `mountinfo`, the text of `/proc/self/mountinfo`.
#[must_use]
pub fn cgroup2(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        // 36 35 98:0 /root /mount/point options [optional fields] - type source options
        let (before, after) = line.split_once(" - ")?;
        (after.split(' ').next()? == "cgroup2").then_some(())?;
        Some(unescaped(before.split(' ').nth(4)?))
    })
}

/// Where the cgroup `path`, as `/proc/self/cgroup` names it, is in the cgroup2 mount.
#[must_use]
pub fn cgroup2_path(mountinfo: &str, path: &Path) -> Option<PathBuf> {
    directory(mountinfo, path, |kind, _| kind == "cgroup2")
}

/// The same in the mount of the memory controller of cgroup version 1.
#[must_use]
pub fn memory_cgroup(mountinfo: &str, path: &Path) -> Option<PathBuf> {
    directory(mountinfo, path, |kind, options| {
        kind == "cgroup" && options.split(',').any(|option| option == "memory")
    })
}

/// Where the cgroup `path` is, in the first mount whose type and options are `wanted`: a container
/// has a part of the tree mounted, the root of which the line names.
fn directory(mountinfo: &str, path: &Path, wanted: impl Fn(&str, &str) -> bool) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut kind = after.split(' ');
        wanted(kind.next()?, kind.nth(1)?).then_some(())?;
        let mut fields = before.split(' ').skip(3).map(unescaped);
        let (root, mount) = (fields.next()?, fields.next()?);
        Some(mount.join(path.strip_prefix(root).ok()?))
    })
}

/// Whether `path` is in a cgroup2 file system.
#[must_use]
pub fn is_cgroup2(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == CGROUP2_MAGIC)
}

/// Whether `path` is in a bpffs.
#[must_use]
pub fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == BPFFS_MAGIC)
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescaped(field: &str) -> PathBuf {
    let bytes = field.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = (bytes[at] == b'\\').then(|| field.get(at + 1..at + 4)).flatten();
        if let Some(byte) = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            plain.push(byte);
            at += 4;
        } else {
            plain.push(bytes[at]);
            at += 1;
        }
    }
    PathBuf::from(OsString::from_vec(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup2_mount_is_found_wherever_it_is() {
        let hybrid = "\
24 1 0:22 / /sys rw,nosuid - sysfs sysfs rw
30 24 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu
41 30 0:37 / /sys/fs/cgroup/unified rw,relatime shared:10 master:3 - cgroup2 cgroup2 rw
";
        assert_eq!(cgroup2(hybrid), Some("/sys/fs/cgroup/unified".into()));
        let unified = "30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(cgroup2(unified), Some("/sys/fs/cgroup".into()));
        let odd = "30 24 0:26 / /mnt/a\\040b\\134c rw - cgroup2 none rw\n";
        assert_eq!(cgroup2(odd), Some("/mnt/a b\\c".into()));
        for none in ["", "nonsense", "30 24 0:26 / /x rw - cgroup cgroup2 rw"] {
            assert_eq!(cgroup2(none), None, "{none:?}");
        }
    }

    #[test]
    fn other_file_systems_are_told_apart() {
        let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").expect("readable");
        let mount = cgroup2(&mountinfo).expect("this test needs a cgroup2 mount");
        assert!(is_cgroup2(&mount));
        assert!(!is_bpffs(&mount));
        assert!(!is_cgroup2(Path::new("/proc")));
    }
}
