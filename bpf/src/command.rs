//! The system call, its error and the attribute structs.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// A `bpf(2)` command that failed.
#[derive(Debug, thiserror::Error)]
#[error("{command} of {object}: {source}")]
pub struct BpfError {
    /// The command, as `bpf(2)` names it.
    pub command: &'static str,
    /// What it was about: a path, a name or an id.
    pub object: String,
    /// The kernel's answer.
    pub source: io::Error,
}

impl BpfError {
    /// The `errno`, 0 when the kernel gave none.
    #[must_use]
    pub fn errno(&self) -> i32 {
        self.source.raw_os_error().unwrap_or(0)
    }

    /// Whether the kernel said that there is no such object.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.errno() == libc::ENOENT
    }

    /// The last error of this thread, about `object`.
    pub(crate) fn last(command: Command, object: impl Into<String>) -> Self {
        Self { command: command.name(), object: object.into(), source: io::Error::last_os_error() }
    }

    /// An error of our own making, about `object`.
    pub(crate) fn invalid(command: &'static str, object: impl Into<String>, why: String) -> Self {
        let source = io::Error::new(io::ErrorKind::InvalidData, why);
        Self { command, object: object.into(), source }
    }
}

/// The commands this crate issues (`enum bpf_cmd`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum Command {
    MapLookup = 1,
    MapUpdate = 2,
    MapDelete = 3,
    ObjectPin = 6,
    ObjectGet = 7,
    ProgramNextId = 11,
    MapNextId = 12,
    ProgramById = 13,
    MapById = 14,
    ObjectInfo = 15,
    ProgramQuery = 16,
    MapLookupBatch = 24,
    LinkCreate = 28,
    LinkUpdate = 29,
    LinkById = 30,
    LinkNextId = 31,
    LinkDetach = 34,
}

impl Command {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::MapLookup => "BPF_MAP_LOOKUP_ELEM",
            Self::MapUpdate => "BPF_MAP_UPDATE_ELEM",
            Self::MapDelete => "BPF_MAP_DELETE_ELEM",
            Self::ObjectPin => "BPF_OBJ_PIN",
            Self::ObjectGet => "BPF_OBJ_GET",
            Self::ProgramNextId => "BPF_PROG_GET_NEXT_ID",
            Self::MapNextId => "BPF_MAP_GET_NEXT_ID",
            Self::ProgramById => "BPF_PROG_GET_FD_BY_ID",
            Self::MapById => "BPF_MAP_GET_FD_BY_ID",
            Self::ObjectInfo => "BPF_OBJ_GET_INFO_BY_FD",
            Self::ProgramQuery => "BPF_PROG_QUERY",
            Self::MapLookupBatch => "BPF_MAP_LOOKUP_BATCH",
            Self::LinkCreate => "BPF_LINK_CREATE",
            Self::LinkUpdate => "BPF_LINK_UPDATE",
            Self::LinkById => "BPF_LINK_GET_FD_BY_ID",
            Self::LinkNextId => "BPF_LINK_GET_NEXT_ID",
            Self::LinkDetach => "BPF_LINK_DETACH",
        }
    }
}

/// The members of the kernel's `union bpf_attr` that the commands above read. Each is padded by the
/// kernel with zeros to the size it knows, so a shorter struct is a valid one.
pub(crate) mod attr {
    /// `BPF_MAP_*_ELEM`.
    #[repr(C)]
    #[derive(Default)]
    pub(crate) struct Element {
        pub map_fd: u32,
        pub padding: u32,
        pub key: u64,
        pub value: u64,
        pub flags: u64,
    }

    /// `BPF_MAP_*_BATCH`.
    #[repr(C)]
    #[derive(Default)]
    pub(crate) struct Batch {
        pub in_batch: u64,
        pub out_batch: u64,
        pub keys: u64,
        pub values: u64,
        pub count: u32,
        pub map_fd: u32,
        pub element_flags: u64,
        pub flags: u64,
    }

    /// `BPF_OBJ_PIN` and `BPF_OBJ_GET`.
    #[repr(C)]
    #[derive(Default)]
    pub(crate) struct Pin {
        pub path: u64,
        pub fd: u32,
        pub file_flags: u32,
    }

    /// `BPF_*_GET_NEXT_ID` and `BPF_*_GET_FD_BY_ID`.
    #[repr(C)]
    #[derive(Default)]
    pub(crate) struct Id {
        pub id: u32,
        pub next_id: u32,
        pub open_flags: u32,
    }

    /// `BPF_OBJ_GET_INFO_BY_FD`.
    #[repr(C)]
    #[derive(Default)]
    pub(crate) struct Info {
        pub fd: u32,
        pub length: u32,
        pub info: u64,
    }

    /// `BPF_PROG_QUERY`.
    #[repr(C)]
    #[derive(Default)]
    pub(crate) struct Query {
        pub target_fd: u32,
        pub attach_type: u32,
        pub query_flags: u32,
        pub attach_flags: u32,
        pub program_ids: u64,
        pub program_count: u32,
        pub padding: u32,
    }

    /// `BPF_LINK_CREATE`.
    #[repr(C)]
    #[derive(Default)]
    pub(crate) struct LinkCreate {
        pub program_fd: u32,
        pub target_fd: u32,
        pub attach_type: u32,
        pub flags: u32,
    }

    /// `BPF_LINK_UPDATE`.
    #[repr(C)]
    #[derive(Default)]
    pub(crate) struct LinkUpdate {
        pub link_fd: u32,
        pub new_program_fd: u32,
        pub flags: u32,
        pub old_program_fd: u32,
    }

    /// `BPF_LINK_DETACH`.
    #[repr(C)]
    #[derive(Default)]
    pub(crate) struct LinkDetach {
        pub link_fd: u32,
    }
}

/// Issues `command`. The answer is the system call's: a descriptor or 0, or -1 with `errno` set.
///
/// # Safety
///
/// `attribute` must be the struct of [`attr`] that belongs to `command`, and every address in it
/// must point to memory that is valid for what the command reads and writes there.
pub(crate) unsafe fn bpf<A>(command: Command, attribute: &mut A) -> libc::c_long {
    // SAFETY: the kernel reads at most the given size from `attribute`, which is a live reference;
    // the caller vouches for the addresses inside it.
    unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_int,
            std::ptr::from_mut(attribute),
            size_of::<A>(),
        )
    }
}

/// Issues a `command` that answers with a new descriptor.
///
/// # Safety
///
/// As [`bpf`]; and `command` must be one that returns a descriptor.
pub(crate) unsafe fn bpf_descriptor<A>(
    command: Command,
    attribute: &mut A,
    object: impl FnOnce() -> String,
) -> Result<OwnedFd, BpfError> {
    // SAFETY: the caller keeps the contract of `bpf`.
    let answer = unsafe { bpf(command, attribute) };
    match i32::try_from(answer) {
        // SAFETY: the kernel has just made this descriptor for us, close-on-exec, and nobody else
        // knows it.
        Ok(descriptor) if descriptor >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(BpfError::last(command, object())),
    }
}
