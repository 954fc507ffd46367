//! The loader, as the supervisor runs it, on the real kernel: each test in a cgroup of its own and
//! with a bpffs that nobody else sees. They need root, and fail without it.

mod adopt;
mod build;
mod clear;
mod faults;
mod idle;
mod kernel;
mod killed;
mod refuse;
mod repair;
mod supervisor;
mod upgrade;
mod world;

use holdfast_protocol::manifest::{Entry, Kind, Shape};

/// The entries of this kind.
fn of_kind(entries: &[Entry], kind: Kind) -> Vec<Entry> {
    entries.iter().filter(|entry| entry.shape.kind() == kind).cloned().collect()
}

/// The hook and the program of every link among `entries`.
fn hooks(entries: &[Entry]) -> Vec<(String, u32, u32)> {
    entries
        .iter()
        .filter_map(|entry| match entry.shape {
            Shape::Link { attach_type, program_id, .. } => {
                Some((entry.name.clone(), attach_type, program_id))
            }
            _ => None,
        })
        .collect()
}

/// Fails unless each hook of `cgroup` carries the program the entries say, and no other.
#[track_caller]
fn assert_governed(cgroup: &world::Cgroup, entries: &[Entry]) {
    let hooks = hooks(entries);
    assert_eq!(hooks.len(), holdfast_protocol::kernel::program::ALL.len());
    for (name, attach_type, program_id) in hooks {
        assert_eq!(cgroup.attached(attach_type), [program_id], "{name}");
    }
}
