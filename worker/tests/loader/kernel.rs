//! Objects that stand for somebody else's, or for those of another version.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use holdfast_lab::pass;

/// `BPF_CGROUP_INET6_CONNECT`.
pub const CONNECT6: u32 = 11;
/// `BPF_MAP_TYPE_ARRAY`.
pub const ARRAY: u32 = 2;
/// `BPF_F_MMAPABLE`.
pub const MEMORY_MAPPED: u32 = 1 << 10;
/// `BPF_CGROUP_MAX_PROGS` in the kernel.
pub const MAX_PROGRAMS: usize = 64;

/// `BPF_PROG_ATTACH`.
const PROGRAM_ATTACH: libc::c_int = 8;
/// `BPF_F_ALLOW_MULTI`.
const ALLOW_MULTI: u32 = 1 << 1;

/// Attaches a program the old way, without a link.
pub fn attach_without_link(program: BorrowedFd<'_>, cgroup: BorrowedFd<'_>, attach_type: u32) {
    let raw = |fd: BorrowedFd<'_>| u32::try_from(fd.as_raw_fd()).expect("a descriptor");
    let mut attribute = [raw(cgroup), raw(program), attach_type, ALLOW_MULTI];
    // SAFETY: the attribute is that of the command and holds no address.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            PROGRAM_ATTACH,
            attribute.as_mut_ptr(),
            size_of_val(&attribute),
        )
    };
    assert!(answer == 0, "{}", io::Error::last_os_error());
}

/// A program that lets everything pass. With a map it is one that uses that map.
pub fn program(name: &str, attach_type: u32, map: Option<BorrowedFd<'_>>) -> OwnedFd {
    pass::program(name, attach_type, map).expect("the kernel takes it")
}
