//! What a measurement needs of `bpf(2)` and the product does not: the statistics of programs, and a
//! program that does nothing.

use std::ffi::c_long;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::path::Path;

use anyhow::Context;
use holdfast_bpf::{link, object};

use super::case::Family;

/// `BPF_PROG_LOAD` and `BPF_ENABLE_STATS` of `enum bpf_cmd` (`include/uapi/linux/bpf.h`).
const PROGRAM_LOAD: i32 = 5;
const ENABLE_STATISTICS: i32 = 32;

/// `BPF_STATS_RUN_TIME` of `enum bpf_stats_type`.
const RUN_TIME: u32 = 0;

/// `BPF_PROG_TYPE_CGROUP_SOCK_ADDR` of `enum bpf_prog_type`.
const CGROUP_SOCK_ADDR: u32 = 18;

/// `BPF_CGROUP_INET4_CONNECT` and `BPF_CGROUP_INET6_CONNECT` of `enum bpf_attach_type`.
const CONNECT4: u32 = 10;
const CONNECT6: u32 = 11;

/// `r0 = 1; exit`: the system call goes on as it is.
const NOTHING: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 1, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];

/// The beginning of the kernel's `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
#[derive(Default)]
struct Load {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log: [u32; 2],
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    expected_attach_type: u32,
}

const _: () = assert!(std::mem::offset_of!(Load, expected_attach_type) == 68);

/// The same for `BPF_ENABLE_STATS`.
#[repr(C)]
struct Enable {
    what: u32,
}

/// Lets the kernel measure every program of the machine until the descriptor is closed.
pub fn enable_statistics() -> anyhow::Result<OwnedFd> {
    let mut attribute = Enable { what: RUN_TIME };
    // SAFETY: the struct is the one of the command, and holds no address.
    unsafe { descriptor(ENABLE_STATISTICS, &mut attribute) }
        .context("cannot enable the statistics of BPF programs")
}

/// A program that does nothing, attached to a cgroup's `connect`.
#[derive(Debug)]
pub struct Empty {
    /// The program.
    pub program: OwnedFd,
    _link: OwnedFd,
}

impl Empty {
    /// Loads one and attaches it to `cgroup` for `family`, as the product's are attached.
    pub fn attach(cgroup: &Path, family: Family) -> anyhow::Result<Self> {
        let hook = if family == Family::V4 { CONNECT4 } else { CONNECT6 };
        let mut attribute = Load {
            program_type: CGROUP_SOCK_ADDR,
            instruction_count: 2,
            instructions: NOTHING.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            name: *b"hf_bench_empty\0\0",
            expected_attach_type: hook,
            ..Load::default()
        };
        // SAFETY: the struct is the one of the command; both addresses are of constants: as many
        // instructions as it says, and a text that ends with a zero.
        let program = unsafe { descriptor(PROGRAM_LOAD, &mut attribute) }
            .context("cannot load an empty program")?;
        let cgroup = File::open(cgroup).context("cannot open the cgroup")?;
        let link = link::create(program.as_fd(), cgroup.as_fd(), hook)?;
        Ok(Self { program, _link: link })
    }
}

/// How often a program has run while statistics were enabled, and for how long altogether.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    /// Runs.
    pub count: u64,
    /// Nanoseconds.
    pub time_ns: u64,
}

impl Runs {
    /// Those of `program` until now.
    pub fn of(program: &OwnedFd) -> anyhow::Result<Self> {
        let info = object::program_info(program.as_fd())?;
        Ok(Self { count: info.run_count, time_ns: info.run_time_ns })
    }

    /// These and `others`.
    pub const fn and(self, others: Self) -> Self {
        Self { count: self.count + others.count, time_ns: self.time_ns + others.time_ns }
    }

    /// Those since `before`.
    pub const fn since(self, before: Self) -> Self {
        Self { count: self.count - before.count, time_ns: self.time_ns - before.time_ns }
    }
}

/// Issues a command that answers with a descriptor.
///
/// # Safety
///
/// `attribute` is the struct of the command, and every address in it is valid for what the command
/// reads there.
unsafe fn descriptor<A>(command: i32, attribute: &mut A) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads at most the given size from a live reference; the caller vouches for
    // the addresses in it.
    let answer: c_long = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attribute), size_of::<A>())
    };
    match i32::try_from(answer) {
        // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
        Ok(raw) if raw >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(raw) }),
        _ => Err(io::Error::last_os_error()),
    }
}
