//! Objects that stand for somebody else's, or for those of another version.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// `BPF_PROG_LOAD`.
const PROGRAM_LOAD: libc::c_int = 5;
/// `BPF_PROG_TYPE_CGROUP_SOCK_ADDR`.
pub const SOCKET_ADDRESS: u32 = 18;
/// `BPF_PROG_TYPE_SOCK_OPS` and `BPF_CGROUP_SOCK_OPS`.
const SOCKET_OPERATIONS: u32 = 13;
const SOCK_OPS: u32 = 3;
/// `BPF_PROG_TYPE_CGROUP_SOCK` and `BPF_CGROUP_INET_SOCK_RELEASE`.
const CGROUP_SOCKET: u32 = 9;
const SOCK_RELEASE: u32 = 34;
/// `BPF_CGROUP_INET_INGRESS`.
const INGRESS: u32 = 0;
/// `BPF_PROG_TYPE_CGROUP_SKB`.
const CGROUP_PACKET: u32 = 8;
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

/// `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

#[repr(C)]
#[derive(Default)]
struct ProgramAttribute {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log: [u64; 2],
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    expected_attach_type: u32,
}

/// What programs of a hook are (`enum bpf_prog_type`).
const fn program_type(attach_type: u32) -> u32 {
    match attach_type {
        SOCK_OPS => SOCKET_OPERATIONS,
        SOCK_RELEASE => CGROUP_SOCKET,
        INGRESS => CGROUP_PACKET,
        _ => SOCKET_ADDRESS,
    }
}

/// A program that lets everything pass. With a map it is one that uses that map.
pub fn program(name: &str, attach_type: u32, map: Option<BorrowedFd<'_>>) -> OwnedFd {
    let plain = |code, registers, immediate| Instruction { code, registers, offset: 0, immediate };
    let mut instructions = Vec::new();
    if let Some(map) = map {
        // r1 = the map (BPF_LD | BPF_IMM | BPF_DW, BPF_PSEUDO_MAP_FD), in two parts.
        instructions.push(plain(0x18, 0x11, map.as_raw_fd()));
        instructions.push(plain(0, 0, 0));
    }
    // r0 = 1; exit
    instructions.push(plain(0xb7, 0, 1));
    instructions.push(plain(0x95, 0, 0));
    let mut attribute = ProgramAttribute {
        program_type: program_type(attach_type),
        instruction_count: u32::try_from(instructions.len()).expect("four"),
        instructions: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        expected_attach_type: attach_type,
        ..ProgramAttribute::default()
    };
    attribute.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: the addresses in the attribute outlive the call.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            PROGRAM_LOAD,
            &raw mut attribute,
            size_of::<ProgramAttribute>(),
        )
    };
    let answer = i32::try_from(answer).expect("a descriptor");
    assert!(answer >= 0, "{}", io::Error::last_os_error());
    // SAFETY: the kernel has just made this descriptor for us.
    unsafe { OwnedFd::from_raw_fd(answer) }
}
