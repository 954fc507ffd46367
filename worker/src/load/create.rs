//! The `bpf(2)` commands that make objects: a map, a program, and the type information of both.
//!
//! They stand here and not in `holdfast-bpf` because only the loader may use them.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use aya_obj::Function;
use aya_obj::generated::bpf_insn;
use holdfast_protocol::manifest::MapShape;
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};

use super::attribute::{BindAttribute, BtfAttribute, MapAttribute, NAME_BYTES, ProgramAttribute};

/// `BPF_MAP_CREATE`.
const MAP_CREATE: libc::c_int = 0;
/// `BPF_PROG_LOAD`.
const PROGRAM_LOAD: libc::c_int = 5;
/// `BPF_BTF_LOAD`.
const BTF_LOAD: libc::c_int = 18;
/// `BPF_PROG_BIND_MAP`, since Linux 5.10.
const PROGRAM_BIND_MAP: libc::c_int = 35;

/// Room for the verifier's log, in bytes. It is written only when a program was refused, and only
/// its end is shown.
const VERIFIER_LOG_BYTES: usize = 1 << 20;

/// How much of the end of the verifier's log a person gets to see, in bytes: the reason is in its
/// last lines, and the message must leave room for the rest.
const VERIFIER_LOG_SHOWN_BYTES: usize = 2048;

/// `log_level` 1: what the verifier did until it refused.
const LOG_LEVEL: u32 = 1;

/// An object the kernel would not make.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// A map.
    #[error("cannot create map {name} ({max_entries} entries): {source}{}", advice(source))]
    Map {
        /// Its name.
        name: String,
        /// The size that was asked for.
        max_entries: u32,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Type information.
    #[error("the kernel refuses the type information (BTF) of the programs: {0}")]
    Btf(io::Error),
    /// A program.
    #[error("the kernel refuses program {name}: {source}{}{}", advice(source), log_tail(log))]
    Program {
        /// Its name.
        name: String,
        /// The kernel's answer.
        source: io::Error,
        /// What the verifier said.
        log: String,
    },
    /// A tie between a program and a map.
    #[error("the kernel refuses to bind a map to program {name}: {source}")]
    Bind {
        /// The program's name.
        name: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

fn advice(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => "; the loader needs CAP_SYS_ADMIN and CAP_NET_ADMIN",
        Some(libc::ENOMEM | libc::E2BIG) => {
            "; choose a smaller --max-services, --max-slots or --max-flows, or give it more memory"
        }
        _ => "",
    }
}

fn log_tail(log: &str) -> String {
    if log.is_empty() {
        return String::new();
    }
    let start = log.ceil_char_boundary(log.len().saturating_sub(VERIFIER_LOG_SHOWN_BYTES));
    format!("\nthe verifier's last words:\n{}", &log[start..])
}

/// The types of a map's keys and values, in loaded BTF.
#[derive(Clone, Copy, Debug)]
pub struct MapTypes<'a> {
    /// The loaded BTF.
    pub btf: BorrowedFd<'a>,
    /// Type of a key.
    pub key: u32,
    /// Type of a value.
    pub value: u32,
}

/// Issues `command`, which answers with a new descriptor.
///
/// # Safety
///
/// `attribute` must be the struct of [`attribute`](super::attribute) that belongs to `command`, and
/// every address in it must point to memory that is valid for what the command reads and writes
/// there.
unsafe fn make<A>(command: libc::c_int, attribute: &mut A) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads at most the given size from `attribute`, which is a live reference;
    // the caller vouches for the addresses inside it.
    let answer = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attribute), size_of::<A>())
    };
    match i32::try_from(answer) {
        // SAFETY: the kernel has just made this descriptor for us, close-on-exec, and nobody else
        // knows it.
        Ok(descriptor) if descriptor >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Creates an empty map.
///
/// # Errors
///
/// [`CreateError::Map`].
pub fn map(
    name: &str,
    shape: MapShape,
    types: Option<MapTypes<'_>>,
) -> Result<OwnedFd, CreateError> {
    let create = || {
        let mut attribute = MapAttribute {
            map_type: shape.map_type,
            key_size: shape.key_bytes,
            value_size: shape.value_bytes,
            max_entries: shape.max_entries,
            map_flags: shape.flags,
            name: kernel_name(name),
            btf_fd: types.map_or(0, |types| raw(types.btf)),
            btf_key_type_id: types.map_or(0, |types| types.key),
            btf_value_type_id: types.map_or(0, |types| types.value),
            ..MapAttribute::default()
        };
        // SAFETY: the attribute is that of the command and holds no address.
        unsafe { make(MAP_CREATE, &mut attribute) }
    };
    create()
        .or_else(|error| {
            // Kernels before 5.11 count the memory of maps against RLIMIT_MEMLOCK and say EPERM.
            let counted = error.raw_os_error() == Some(libc::EPERM)
                && setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY).is_ok();
            if counted { create() } else { Err(error) }
        })
        .map_err(|source| CreateError::Map {
            name: name.to_owned(),
            max_entries: shape.max_entries,
            source,
        })
}

/// Loads type information.
///
/// # Errors
///
/// [`CreateError::Btf`].
pub fn btf(bytes: &[u8]) -> Result<OwnedFd, CreateError> {
    let mut attribute =
        BtfAttribute { btf: address(bytes), size: count(bytes.len()), ..BtfAttribute::default() };
    // SAFETY: the attribute is that of the command; its one address is that of `bytes`, which
    // outlives the call.
    unsafe { make(BTF_LOAD, &mut attribute) }.map_err(CreateError::Btf)
}

/// What a program is, beside its instructions.
#[derive(Clone, Copy, Debug)]
pub struct ProgramKind<'a> {
    /// Its name.
    pub name: &'a str,
    /// `enum bpf_prog_type`.
    pub program_type: u32,
    /// `enum bpf_attach_type`: the only hook it may be attached to.
    pub attach_type: u32,
    /// The licence it declares.
    pub license: &'a CStr,
}

/// Loads a program.
///
/// # Errors
///
/// [`CreateError::Program`], with the end of the verifier's log.
pub fn program(
    kind: ProgramKind<'_>,
    function: &Function,
    types: BorrowedFd<'_>,
) -> Result<OwnedFd, CreateError> {
    let func_info = function.func_info.func_info_bytes();
    let line_info = function.line_info.line_info_bytes();
    let load = |log: &mut [u8]| {
        let instructions: &[bpf_insn] = &function.instructions;
        let mut attribute = ProgramAttribute {
            program_type: kind.program_type,
            instruction_count: count(instructions.len()),
            instructions: address(instructions),
            license: kind.license.as_ptr() as u64,
            log_level: if log.is_empty() { 0 } else { LOG_LEVEL },
            log_size: count(log.len()),
            log: if log.is_empty() { 0 } else { log.as_mut_ptr() as u64 },
            name: kernel_name(kind.name),
            expected_attach_type: kind.attach_type,
            btf_fd: raw(types),
            func_info_rec_size: count(function.func_info_rec_size),
            func_info: address(&func_info),
            func_info_count: count(function.func_info.len()),
            line_info_rec_size: count(function.line_info_rec_size),
            line_info: address(&line_info),
            line_info_count: count(function.line_info.len()),
            ..ProgramAttribute::default()
        };
        // SAFETY: the attribute is that of the command. Its addresses are those of slices and of a
        // string that outlive the call, each beside its own length; only `log` is written to, and
        // it is borrowed exclusively.
        unsafe { make(PROGRAM_LOAD, &mut attribute) }
    };
    load(&mut []).map_err(|source| {
        // A second time, for the verifier's reasons.
        let mut log = vec![0; VERIFIER_LOG_BYTES];
        let _refused_again = load(&mut log);
        let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
        let log = String::from_utf8_lossy(&log[..end]).trim_end().to_owned();
        CreateError::Program { name: kind.name.to_owned(), source, log }
    })
}

/// Makes `program` keep `map`, as if its instructions named it. Does nothing before Linux 5.10.
///
/// # Errors
///
/// [`CreateError::Bind`].
pub fn bind(name: &str, program: BorrowedFd<'_>, map: BorrowedFd<'_>) -> Result<(), CreateError> {
    let mut attribute = BindAttribute { program_fd: raw(program), map_fd: raw(map), flags: 0 };
    // SAFETY: the attribute is that of the command and holds no address.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            PROGRAM_BIND_MAP,
            &raw mut attribute,
            size_of::<BindAttribute>(),
        )
    };
    if answer == 0 {
        return Ok(());
    }
    let source = io::Error::last_os_error();
    // What an older kernel says to a command it does not know.
    if source.raw_os_error() == Some(libc::EINVAL) {
        return Ok(());
    }
    Err(CreateError::Bind { name: name.to_owned(), source })
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    u32::try_from(fd.as_raw_fd()).expect("an open descriptor is not negative")
}

fn count(number: usize) -> u32 {
    u32::try_from(number).expect("the embedded object is far smaller than 4 GiB")
}

/// The address of `slice`, or 0 when it is empty: the kernel takes 0 for "none".
fn address<T>(slice: &[T]) -> u64 {
    if slice.is_empty() { 0 } else { slice.as_ptr() as u64 }
}

/// `name` as the kernel keeps it: at most 15 bytes and a zero.
fn kernel_name(name: &str) -> [u8; NAME_BYTES] {
    let mut bytes = [0; NAME_BYTES];
    for (to, from) in bytes[..NAME_BYTES - 1].iter_mut().zip(name.bytes()) {
        *to = from;
    }
    bytes
}
