//! What maps, programs and links have in common: info, pins and ids.

use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use holdfast_protocol::manifest::{Kind, MapShape};

use crate::command::{BpfError, Command, attr, bpf, bpf_descriptor};

/// Bytes of a name in the kernel, its final zero included (`BPF_OBJ_NAME_LEN`).
const NAME_BYTES: usize = 16;

/// Most map ids asked of one program (`MAX_USED_MAPS` in the kernel's verifier).
const MAX_MAPS_PER_PROGRAM: usize = 64;

/// `BPF_LINK_TYPE_CGROUP`.
const LINK_TYPE_CGROUP: u32 = 3;

/// What the kernel says about a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapInfo {
    /// Its id.
    pub id: u32,
    /// Its name, at most 15 bytes.
    pub name: String,
    /// Its shape.
    pub shape: MapShape,
}

/// What the kernel says about a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramInfo {
    /// Its id.
    pub id: u32,
    /// Its name, at most 15 bytes.
    pub name: String,
    /// `enum bpf_prog_type`.
    pub program_type: u32,
    /// The kernel's digest of its instructions.
    pub tag: [u8; 8],
    /// Ids of the maps it uses.
    pub map_ids: Vec<u32>,
    /// Nanoseconds spent in it while statistics were enabled.
    pub run_time_ns: u64,
    /// Runs while statistics were enabled.
    pub run_count: u64,
    /// Instructions that the kernel's verifier looked at when the program was loaded.
    pub verified_instructions: u32,
}

/// What the kernel says about a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkInfo {
    /// Its id.
    pub id: u32,
    /// Id of the attached program.
    pub program_id: u32,
    /// Where it is attached, if it is a cgroup link.
    pub cgroup: Option<CgroupAttachment>,
}

/// Where a cgroup link is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CgroupAttachment {
    /// Id of the cgroup; 0 when the link is detached, or its cgroup gone.
    pub cgroup_id: u64,
    /// `enum bpf_attach_type`.
    pub attach_type: u32,
}

/// `struct bpf_map_info`, its beginning.
#[repr(C)]
#[derive(Default)]
struct RawMapInfo {
    map_type: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    name: [u8; NAME_BYTES],
}

/// `struct bpf_prog_info`, up to `run_cnt`.
#[repr(C)]
#[derive(Default)]
struct RawProgramInfo {
    program_type: u32,
    id: u32,
    tag: [u8; 8],
    code_lengths: [u32; 2],
    code: [u64; 2],
    load_time: u64,
    created_by_uid: u32,
    nr_map_ids: u32,
    map_ids: u64,
    name: [u8; NAME_BYTES],
    device_and_flags: [u32; 2],
    netns: [u64; 2],
    nr_jited: [u32; 2],
    jited: [u64; 2],
    btf: [u32; 2],
    func_info: u64,
    nr_info: [u32; 2],
    line_info: [u64; 2],
    nr_line_info: [u32; 4],
    prog_tags: u64,
    run_time_ns: u64,
    run_count: u64,
    recursion_misses: u64,
    verified_instructions: u32,
    attach_btf_object: u32,
}

/// `struct bpf_link_info`, its beginning and the cgroup member of its union.
#[repr(C)]
#[derive(Default)]
struct RawLinkInfo {
    link_type: u32,
    id: u32,
    program_id: u32,
    padding: u32,
    cgroup_id: u64,
    attach_type: u32,
    more: u32,
}

// Offsets of `include/uapi/linux/bpf.h`.
const _: () = {
    assert!(std::mem::offset_of!(RawProgramInfo, map_ids) == 56);
    assert!(std::mem::offset_of!(RawProgramInfo, name) == 64);
    assert!(std::mem::offset_of!(RawProgramInfo, run_time_ns) == 192);
    assert!(std::mem::offset_of!(RawProgramInfo, verified_instructions) == 0xd8);
    assert!(std::mem::offset_of!(RawLinkInfo, cgroup_id) == 16);
};

/// Reads the info of `fd` into `info`, which must be the raw struct of the kind of object `fd` is:
/// the kernel fills what fits, and for another kind the fields mean other things.
fn read_info<I>(fd: BorrowedFd<'_>, info: &mut I) -> Result<(), BpfError> {
    let length = u32::try_from(size_of::<I>()).expect("info structs are a few hundred bytes");
    let mut attribute = attr::Info { fd: raw(fd), length, info: std::ptr::from_mut(info) as u64 };
    // SAFETY: `info` is a live exclusive reference to `length` bytes of plain integers, and the
    // kernel writes no more than that. An address inside it (`map_ids`) is vouched for below.
    if unsafe { bpf(Command::ObjectInfo, &mut attribute) } < 0 {
        return Err(BpfError::last(Command::ObjectInfo, descriptor_name(fd)));
    }
    Ok(())
}

/// What kind of object a descriptor refers to, or `None` when it is no such object.
///
/// Asked of `/proc` because the kernel's info command fills any struct it is given.
#[must_use]
pub fn kind_of(fd: BorrowedFd<'_>) -> Option<Kind> {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok()?;
    match link.to_str()? {
        "anon_inode:bpf-map" => Some(Kind::Map),
        "anon_inode:bpf-prog" => Some(Kind::Program),
        "anon_inode:bpf_link" | "anon_inode:bpf-link" => Some(Kind::Link),
        _ => None,
    }
}

/// Whether `fd` is a map, without the detour by `/proc`, which takes many times as long: a lookup
/// without a key gets as far as reading that key only in a map.
fn is_map(fd: BorrowedFd<'_>) -> bool {
    let mut attribute = attr::Element { map_fd: raw(fd), ..attr::Element::default() };
    // SAFETY: neither address leads anywhere, so the kernel reads and writes nothing of this process.
    let answer = unsafe { bpf(Command::MapLookup, &mut attribute) };
    answer < 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT)
}

fn expect_kind(fd: BorrowedFd<'_>, kind: Kind) -> Result<(), BpfError> {
    if kind == Kind::Map && is_map(fd) {
        return Ok(());
    }
    match kind_of(fd) {
        Some(found) if found == kind => Ok(()),
        found => {
            let found = found.map_or_else(|| "no bpf object".to_owned(), |kind| kind.to_string());
            let why = format!("expected a {kind}, found {found}");
            Err(BpfError::invalid(Command::ObjectInfo.name(), descriptor_name(fd), why))
        }
    }
}

/// What the kernel says about the map `fd`.
///
/// # Errors
///
/// When `fd` is not a map, or the kernel refuses.
pub fn map_info(fd: BorrowedFd<'_>) -> Result<MapInfo, BpfError> {
    expect_kind(fd, Kind::Map)?;
    let mut info = RawMapInfo::default();
    read_info(fd, &mut info)?;
    Ok(MapInfo {
        id: info.id,
        name: name_of(&info.name),
        shape: MapShape {
            map_type: info.map_type,
            key_bytes: info.key_size,
            value_bytes: info.value_size,
            max_entries: info.max_entries,
            flags: info.map_flags,
        },
    })
}

/// What the kernel says about the program `fd`.
///
/// # Errors
///
/// When `fd` is not a program, or the kernel refuses.
pub fn program_info(fd: BorrowedFd<'_>) -> Result<ProgramInfo, BpfError> {
    expect_kind(fd, Kind::Program)?;
    let mut map_ids = [0_u32; MAX_MAPS_PER_PROGRAM];
    let mut info = RawProgramInfo {
        nr_map_ids: u32::try_from(MAX_MAPS_PER_PROGRAM).expect("64 fits"),
        map_ids: map_ids.as_mut_ptr() as u64,
        ..RawProgramInfo::default()
    };
    read_info(fd, &mut info)?;
    let count = (info.nr_map_ids as usize).min(MAX_MAPS_PER_PROGRAM);
    Ok(ProgramInfo {
        id: info.id,
        name: name_of(&info.name),
        program_type: info.program_type,
        tag: info.tag,
        map_ids: map_ids[..count].to_vec(),
        run_time_ns: info.run_time_ns,
        run_count: info.run_count,
        verified_instructions: info.verified_instructions,
    })
}

/// What the kernel says about the link `fd`.
///
/// # Errors
///
/// When `fd` is not a link, or the kernel refuses.
pub fn link_info(fd: BorrowedFd<'_>) -> Result<LinkInfo, BpfError> {
    expect_kind(fd, Kind::Link)?;
    let mut info = RawLinkInfo::default();
    read_info(fd, &mut info)?;
    let cgroup = (info.link_type == LINK_TYPE_CGROUP)
        .then_some(CgroupAttachment { cgroup_id: info.cgroup_id, attach_type: info.attach_type });
    Ok(LinkInfo { id: info.id, program_id: info.program_id, cgroup })
}

/// Pins the object at `path`, which must be on a bpffs and not exist.
///
/// # Errors
///
/// `EEXIST` when something is pinned there; `EPERM` for a name with a dot.
pub fn pin(fd: BorrowedFd<'_>, path: &Path) -> Result<(), BpfError> {
    let name = c_path(path)?;
    let mut attribute = attr::Pin { path: name.as_ptr() as u64, fd: raw(fd), file_flags: 0 };
    // SAFETY: `name` is a zero-terminated string that outlives the call.
    if unsafe { bpf(Command::ObjectPin, &mut attribute) } < 0 {
        return Err(BpfError::last(Command::ObjectPin, path.display().to_string()));
    }
    Ok(())
}

/// A descriptor of the object pinned at `path`.
///
/// # Errors
///
/// `ENOENT` when nothing is pinned there.
pub fn get(path: &Path) -> Result<OwnedFd, BpfError> {
    let name = c_path(path)?;
    let mut attribute = attr::Pin { path: name.as_ptr() as u64, ..attr::Pin::default() };
    // SAFETY: `name` is a zero-terminated string that outlives the call; the command answers with a
    // descriptor.
    unsafe { bpf_descriptor(Command::ObjectGet, &mut attribute, || path.display().to_string()) }
}

/// A descriptor of the object of `kind` with this id.
///
/// # Errors
///
/// `ENOENT` when there is none any more.
pub fn by_id(kind: Kind, id: u32) -> Result<OwnedFd, BpfError> {
    let command = match kind {
        Kind::Map => Command::MapById,
        Kind::Program => Command::ProgramById,
        Kind::Link => Command::LinkById,
    };
    let mut attribute = attr::Id { id, ..attr::Id::default() };
    // SAFETY: the attribute holds no address; the command answers with a descriptor.
    unsafe { bpf_descriptor(command, &mut attribute, || format!("{kind} {id}")) }
}

/// The ids of all objects of `kind` on this machine, ascending.
///
/// # Errors
///
/// `EPERM` without `CAP_SYS_ADMIN`.
pub fn ids(kind: Kind) -> Result<Vec<u32>, BpfError> {
    let command = match kind {
        Kind::Map => Command::MapNextId,
        Kind::Program => Command::ProgramNextId,
        Kind::Link => Command::LinkNextId,
    };
    let mut found = Vec::new();
    loop {
        let last = found.last().copied().unwrap_or(0);
        let mut attribute = attr::Id { id: last, ..attr::Id::default() };
        // SAFETY: the attribute holds no address.
        if unsafe { bpf(command, &mut attribute) } < 0 {
            let error = BpfError::last(command, format!("{kind} after {last}"));
            return if error.is_not_found() { Ok(found) } else { Err(error) };
        }
        found.push(attribute.next_id);
    }
}

pub(crate) fn raw(fd: BorrowedFd<'_>) -> u32 {
    u32::try_from(fd.as_raw_fd()).expect("an open descriptor is not negative")
}

pub(crate) fn descriptor_name(fd: BorrowedFd<'_>) -> String {
    format!("descriptor {}", fd.as_raw_fd())
}

fn c_path(path: &Path) -> Result<CString, BpfError> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| {
        let why = "a path cannot contain a zero byte".to_owned();
        BpfError::invalid("pin path", path.display().to_string(), why)
    })
}

fn name_of(bytes: &[u8; NAME_BYTES]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(NAME_BYTES);
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
