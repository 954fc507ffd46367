//! Attaching a program to a cgroup, replacing it, letting go.

use std::os::fd::{BorrowedFd, OwnedFd};

use crate::command::{BpfError, Command, attr, bpf, bpf_descriptor};
use crate::object::{descriptor_name, raw};

/// `BPF_F_REPLACE`: the update names the program it expects to replace.
const REPLACE: u32 = 1 << 2;

/// `BPF_F_QUERY_EFFECTIVE`: ask for what runs, ancestors' programs included.
const QUERY_EFFECTIVE: u32 = 1 << 0;

/// Most programs asked of one hook (`BPF_CGROUP_MAX_PROGS` in the kernel).
const MAX_PROGRAMS: usize = 64;

/// Attaches `program` to `cgroup` at `attach_type`, beside whatever else is attached there. It
/// stays until the last descriptor and pin of the link are gone, or it is detached.
///
/// # Errors
///
/// What the kernel refuses: `E2BIG` when the hook is full, `EPERM` without `CAP_NET_ADMIN`, or under
/// an ancestor that allows no others.
pub fn create(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    attach_type: u32,
) -> Result<OwnedFd, BpfError> {
    let mut attribute = attr::LinkCreate {
        program_fd: raw(program),
        target_fd: raw(cgroup),
        attach_type,
        flags: 0,
    };
    // SAFETY: the attribute holds no address; the command answers with a descriptor.
    unsafe { bpf_descriptor(Command::LinkCreate, &mut attribute, || format!("hook {attach_type}")) }
}

/// Makes `link` run `new` instead of `old`, in one step: no connection sees neither or both.
///
/// # Errors
///
/// `EPERM` when the link does not run `old`; `ENOLINK` when its cgroup is gone.
pub fn update(
    link: BorrowedFd<'_>,
    new: BorrowedFd<'_>,
    old: BorrowedFd<'_>,
) -> Result<(), BpfError> {
    let mut attribute = attr::LinkUpdate {
        link_fd: raw(link),
        new_program_fd: raw(new),
        flags: REPLACE,
        old_program_fd: raw(old),
    };
    // SAFETY: the attribute holds no address.
    if unsafe { bpf(Command::LinkUpdate, &mut attribute) } < 0 {
        return Err(BpfError::last(Command::LinkUpdate, descriptor_name(link)));
    }
    Ok(())
}

/// Detaches `link` at once, whoever else holds or pins it.
///
/// # Errors
///
/// When the kernel refuses; a link that is detached already is not an error.
pub fn detach(link: BorrowedFd<'_>) -> Result<(), BpfError> {
    let mut attribute = attr::LinkDetach { link_fd: raw(link) };
    // SAFETY: the attribute holds no address.
    if unsafe { bpf(Command::LinkDetach, &mut attribute) } < 0 {
        return Err(BpfError::last(Command::LinkDetach, descriptor_name(link)));
    }
    Ok(())
}

/// Ids of the programs that run for `cgroup` at `attach_type`, in their order, those attached to
/// its ancestors included.
///
/// # Errors
///
/// When the kernel refuses: `ENOSPC` cannot happen up to the kernel's own limit of 64 a cgroup.
pub fn effective_programs(cgroup: BorrowedFd<'_>, attach_type: u32) -> Result<Vec<u32>, BpfError> {
    query(cgroup, attach_type, QUERY_EFFECTIVE)
}

/// Ids of the programs attached to `cgroup` itself at `attach_type`, in their order.
///
/// # Errors
///
/// When the kernel refuses.
pub fn attached_programs(cgroup: BorrowedFd<'_>, attach_type: u32) -> Result<Vec<u32>, BpfError> {
    query(cgroup, attach_type, 0)
}

fn query(cgroup: BorrowedFd<'_>, attach_type: u32, query_flags: u32) -> Result<Vec<u32>, BpfError> {
    let mut ids = vec![0_u32; MAX_PROGRAMS];
    let mut attribute = attr::Query {
        target_fd: raw(cgroup),
        attach_type,
        query_flags,
        program_ids: ids.as_mut_ptr() as u64,
        program_count: u32::try_from(MAX_PROGRAMS).expect("64 fits"),
        ..attr::Query::default()
    };
    // SAFETY: `ids` has room for the number of ids given, and outlives the call.
    if unsafe { bpf(Command::ProgramQuery, &mut attribute) } < 0 {
        return Err(BpfError::last(Command::ProgramQuery, format!("hook {attach_type}")));
    }
    ids.truncate(attribute.program_count as usize);
    Ok(ids)
}
