//! Kernel programs that let everything pass: in place of somebody else's, of another version's, or to measure
//! what a program costs that does nothing.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// `BPF_PROG_LOAD` of `enum bpf_cmd` (`include/uapi/linux/bpf.h`).
const PROGRAM_LOAD: libc::c_int = 5;

/// `BPF_PROG_TYPE_CGROUP_SKB`, `_CGROUP_SOCK`, `_SOCK_OPS` and `_CGROUP_SOCK_ADDR` of `enum bpf_prog_type`.
const CGROUP_PACKET: u32 = 8;
const CGROUP_SOCKET: u32 = 9;
const SOCKET_OPERATIONS: u32 = 13;
const SOCKET_ADDRESS: u32 = 18;

/// `BPF_CGROUP_INET_INGRESS`, `BPF_CGROUP_SOCK_OPS` and `BPF_CGROUP_INET_SOCK_RELEASE` of
/// `enum bpf_attach_type`.
const INGRESS: u32 = 0;
const SOCK_OPS: u32 = 3;
const SOCK_RELEASE: u32 = 34;

/// Longest name of a program, in bytes (`BPF_OBJ_NAME_LEN` without its final zero).
const LONGEST_NAME: usize = 15;

/// `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// The beginning of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
#[derive(Default)]
struct Load {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log: [u64; 2],
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    expected_attach_type: u32,
}

const _: () = assert!(std::mem::offset_of!(Load, expected_attach_type) == 68);

/// Loads one called `name` for the cgroup hook `attach_type` (`enum bpf_attach_type`). With a map it is one
/// that uses that map.
///
/// # Errors
///
/// What the kernel says, above all without `CAP_BPF` and `CAP_NET_ADMIN`.
///
/// # Panics
///
/// When `name` has more than 15 bytes.
pub fn program(name: &str, attach_type: u32, map: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
    assert!(name.len() <= LONGEST_NAME, "`{name}` is too long a name");
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
    let mut attribute = Load {
        program_type: match attach_type {
            INGRESS => CGROUP_PACKET,
            SOCK_OPS => SOCKET_OPERATIONS,
            SOCK_RELEASE => CGROUP_SOCKET,
            _ => SOCKET_ADDRESS,
        },
        instruction_count: u32::try_from(instructions.len()).expect("four"),
        instructions: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        expected_attach_type: attach_type,
        ..Load::default()
    };
    attribute.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: the struct is the one of the command; the addresses in it are of as many instructions as it
    // says, and of a text that ends with a zero, and outlive the call.
    let answer = unsafe {
        libc::syscall(libc::SYS_bpf, PROGRAM_LOAD, &raw mut attribute, size_of::<Load>())
    };
    match i32::try_from(answer) {
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(raw) if raw >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(raw) }),
        _ => Err(io::Error::last_os_error()),
    }
}
