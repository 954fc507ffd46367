//! The `bpf(2)` commands Holdfast uses, typed and without a library.
//!
//! The supervisor asks the kernel about the objects it holds, the loader pins and links them, the
//! worker reads and writes the maps. All of that is a handful of commands on descriptors; a library
//! that loads objects would bring its whole parser into each of those processes.
//!
//! - [`command`]: the system call, its error and the attribute structs.
//! - [`object`]: what maps, programs and links have in common: info, pins, ids.
//! - [`link`]: attaching a program to a cgroup, replacing it, letting go.
//! - [`array`]: elements of array maps, many at once.
//! - [`map`]: elements of hash and per-CPU maps, one by one and in batches.
//! - [`mapped`]: array maps in this process's memory.
//! - [`policies`]: what the maps of access policies say of those in force.
//! - [`ring`]: a ring buffer in this process's memory.
//!
//! **Architecture Invariant:** this crate creates no map and loads no program. Everything here works
//! on descriptors somebody else was entitled to make.
//!
//! Struct layouts and command numbers are those of the kernel's `include/uapi/linux/bpf.h`; fields
//! are never reordered there, only appended.

pub mod array;
pub mod command;
pub mod link;
pub mod map;
pub mod mapped;
pub mod object;
pub mod policies;
pub mod ring;

pub use command::BpfError;
