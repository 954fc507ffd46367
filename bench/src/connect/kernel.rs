//! What a measurement needs of `bpf(2)` and the product does not: the statistics of programs, and a
//! program that does nothing.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::path::Path;

use anyhow::Context;
use holdfast_bpf::{link, object};
use holdfast_lab::pass;

use super::case::Family;

/// `BPF_ENABLE_STATS` of `enum bpf_cmd` (`include/uapi/linux/bpf.h`).
const ENABLE_STATISTICS: i32 = 32;

/// `BPF_STATS_RUN_TIME` of `enum bpf_stats_type`.
const RUN_TIME: u32 = 0;

/// `BPF_CGROUP_INET4_CONNECT` and `BPF_CGROUP_INET6_CONNECT` of `enum bpf_attach_type`.
const CONNECT4: u32 = 10;
const CONNECT6: u32 = 11;

/// The beginning of the kernel's `union bpf_attr` for `BPF_ENABLE_STATS`.
#[repr(C)]
struct Enable {
    what: u32,
}

/// Lets the kernel measure every program of the machine until the descriptor is closed.
pub fn enable_statistics() -> anyhow::Result<OwnedFd> {
    let attribute = Enable { what: RUN_TIME };
    let (attribute, size) = (&raw const attribute, size_of::<Enable>());
    // SAFETY: the struct is the one of the command, live, and holds no address.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, ENABLE_STATISTICS, attribute, size) };
    match i32::try_from(answer) {
        // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
        Ok(raw) if raw >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(raw) }),
        _ => {
            Err(io::Error::last_os_error()).context("cannot enable the statistics of BPF programs")
        }
    }
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
        let program =
            pass::program("hf_bench_empty", hook, None).context("cannot load an empty program")?;
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
