//! Resource limits of processes that run, lowered to what they use (`prlimit(2)`).
//!
//! A worker inherits the limits of its supervisor when it starts, so none can start either.

use std::io;

use holdfast_lab::process;

use super::inject::{FaultError, Guard, Injection};
use crate::run::stage::Stage;

/// Bytes of a kibibyte, the unit of `VmSize`.
const KIB: u64 = 1024;

/// A resource, and how much of it a process uses.
#[derive(Clone, Copy)]
struct Resource {
    name: &'static str,
    number: libc::__rlimit_resource_t,
    used: fn(u32) -> Option<u64>,
}

const DESCRIPTORS: Resource =
    Resource { name: "descriptors", number: libc::RLIMIT_NOFILE, used: first_free_descriptor };

const MEMORY: Resource =
    Resource { name: "bytes of address space", number: libc::RLIMIT_AS, used: address_space };

/// Lowered limits. They are raised to what they were when dropped, of whoever has inherited them
/// too.
struct Lowered<'s> {
    stage: &'s Stage<'s>,
    resource: Resource,
    before: libc::rlimit,
}

impl Guard for Lowered<'_> {}

impl Drop for Lowered<'_> {
    fn drop(&mut self) {
        for pid in self.stage.processes() {
            // A process that has ended needs no limit.
            if let Err(error) = set(pid, self.resource, self.before)
                && error.raw_os_error() != Some(libc::ESRCH)
            {
                self.stage.trouble(format!("process {pid} keeps its lowered limit: {error}"));
            }
        }
    }
}

/// No descriptor beyond those that are open.
pub fn descriptors<'s>(stage: &'s Stage<'s>) -> Result<Injection<'s>, FaultError> {
    lower(stage, DESCRIPTORS)
}

/// No memory beyond what is mapped.
pub fn memory<'s>(stage: &'s Stage<'s>) -> Result<Injection<'s>, FaultError> {
    lower(stage, MEMORY)
}

fn lower<'s>(stage: &'s Stage<'s>, resource: Resource) -> Result<Injection<'s>, FaultError> {
    let supervisor = stage.supervisor_pid().ok_or(FaultError::NoTarget("no supervisor runs"))?;
    let before = get(supervisor, resource)
        .map_err(|_| FaultError::NoTarget("the supervisor has just ended"))?;
    let guard = Lowered { stage, resource, before };
    let mut limits = Vec::new();
    for pid in stage.processes() {
        let Some(used) = (resource.used)(pid) else { continue };
        // One that has ended meanwhile has nothing to be limited.
        if set(pid, resource, libc::rlimit { rlim_cur: used, ..before }).is_ok() {
            limits.push(used.to_string());
        }
    }
    Ok(Injection::held(guard, format!("{} {}", limits.join(" and "), resource.name)))
}

fn get(pid: u32, resource: Resource) -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a null new limit changes nothing, and `limit` is live and exclusive here.
    let answer = unsafe {
        libc::prlimit(pid.cast_signed(), resource.number, std::ptr::null(), &raw mut limit)
    };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(limit) }
}

fn set(pid: u32, resource: Resource, limit: libc::rlimit) -> io::Result<()> {
    // SAFETY: `limit` is live, and a null old limit asks for nothing.
    let answer = unsafe {
        libc::prlimit(pid.cast_signed(), resource.number, &raw const limit, std::ptr::null_mut())
    };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The limit is one of numbers: below the first free one, none is left.
fn first_free_descriptor(pid: u32) -> Option<u64> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let mut open: Vec<u64> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    open.sort_unstable();
    let gap = open.iter().zip(0..).find(|(open, number)| *open != number);
    Some(gap.map_or(open.len() as u64, |(_, number)| number))
}

fn address_space(pid: u32) -> Option<u64> {
    let size = process::status(pid, "VmSize").ok()?;
    size.strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(KIB)
}
