//! What there is, asked of the kernel. Nothing here changes anything, and nothing is assumed: a
//! question that is not answered counts as a difference.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use holdfast_bpf::{link, object};
use holdfast_protocol::manifest::{Entry, Kind, Shape};
use holdfast_protocol::pin;

use super::audit::{Hook, Observed, PinSeen, Running, Seen};
use crate::estate::{Estate, describe};
use crate::loader::Plan;

/// Looks at everything the manifest of `estate` names, and at the hooks of the cgroup of `plan`.
#[must_use]
pub fn observe(estate: &Estate, plan: &Plan) -> Observed {
    let objects = estate
        .objects()
        .map(|(entry, descriptor)| {
            let path = pin::path(&plan.bpffs, &plan.instance, entry.shape.kind(), &entry.name);
            let held = describe(entry.shape.kind(), descriptor).ok();
            Seen { held, pin: look_at_pin(&path, entry.shape.kind()) }
        })
        .collect();
    let cgroup = File::open(&plan.cgroup).ok();
    let id = cgroup.as_ref().and_then(|cgroup| cgroup.metadata().ok()).map(|found| found.ino());
    let hooks = cgroup.map(|cgroup| hooks(estate, cgroup.as_fd())).unwrap_or_default();
    Observed { cgroup: id, objects, hooks }
}

/// What is at `path`, where an object of `kind` is expected.
#[must_use]
pub fn look_at_pin(path: &Path, kind: Kind) -> PinSeen {
    match object::get(path) {
        Ok(descriptor) => match describe(kind, descriptor.as_fd()) {
            Ok((id, _)) => PinSeen::Object(id),
            Err(_) => PinSeen::Stranger,
        },
        Err(_) => match std::fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => PinSeen::Missing,
            // Also when a directory above is no directory: there is no pin, and it is in the way.
            _ => PinSeen::Stranger,
        },
    }
}

fn hooks(estate: &Estate, cgroup: BorrowedFd<'_>) -> Vec<Hook> {
    let (mut maps, mut programs) = (Vec::new(), Vec::new());
    for (Entry { id, shape, .. }, _) in estate.objects() {
        match shape {
            Shape::Map(_) => maps.push(*id),
            Shape::Program { .. } => programs.push(*id),
            Shape::Link { program_id, .. } => programs.push(*program_id),
        }
    }
    let attach_types = estate.objects().filter_map(|(entry, _)| match entry.shape {
        Shape::Link { attach_type, .. } => Some(attach_type),
        _ => None,
    });
    attach_types
        .map(|attach_type| {
            let running = link::effective_programs(cgroup, attach_type).ok();
            let running = running.map(|ids| {
                ids.into_iter().filter_map(|id| identify(id, &programs, &maps)).collect()
            });
            Hook { attach_type, running }
        })
        .collect()
}

/// Whose the program `id` is; `None` when it is gone by now.
fn identify(id: u32, programs: &[u32], maps: &[u32]) -> Option<Running> {
    if programs.contains(&id) {
        return Some(Running { program: id, name: String::new(), is_ours: true });
    }
    let descriptor = object::by_id(Kind::Program, id).ok()?;
    let info = object::program_info(descriptor.as_fd()).ok()?;
    let is_ours = info.map_ids.iter().any(|map| maps.contains(map));
    Some(Running { program: id, name: info.name, is_ours })
}
