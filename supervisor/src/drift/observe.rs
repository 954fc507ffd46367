//! What there is, asked of the kernel. Nothing here changes anything, and nothing is assumed: a
//! question that is not answered counts as a difference.
//!
//! What cannot have changed is not asked again: what a map or a program is, as long as this process holds
//! it, and what a file of the bpffs is a pin of, as long as it is the same file.

use std::collections::HashMap;
use std::fs::{File, Metadata};
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

/// Who looks time and again.
#[derive(Debug, Default)]
pub struct Observer {
    /// What was found to be of the kind and the id.
    known: HashMap<(Kind, u32), Known>,
}

/// What is known of an object.
#[derive(Debug, Default)]
struct Known {
    /// What the kernel said of its descriptor, unless it is a link: those are moved and detached.
    held: Option<(u32, Shape)>,
    /// The file that was found to be its pin.
    pin: Option<Stamp>,
}

/// Which file something is. A file of a bpffs is a pin of one object for good: another pin at the same path
/// has another inode, and one that is moved back there another time of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    changed: (i64, i64),
}

impl Observer {
    /// Looks at everything the manifest of `estate` names, and at the hooks of the cgroup of `plan`.
    #[must_use]
    pub fn observe(&mut self, estate: &Estate, plan: &Plan) -> Observed {
        let mut former = std::mem::take(&mut self.known);
        let look = |(entry, descriptor): (&Entry, BorrowedFd<'_>)| {
            let kind = entry.shape.kind();
            let path = pin::path(&plan.bpffs, &plan.instance, kind, &entry.name);
            let mut known = former.remove(&(kind, entry.id)).unwrap_or_default();
            let held = known.held.take().or_else(|| describe(kind, descriptor).ok());
            known.held = held.clone().filter(|_| kind != Kind::Link);
            let pin = known.look_at_pin(&path, entry);
            self.known.insert((kind, entry.id), known);
            Seen { held, pin }
        };
        let objects = estate.objects().map(look).collect();
        let (cgroup, hooks) = look_at_hooks(estate, plan);
        // What is attached is looked at whatever for.
        let arrivals_judged = !estate.arrivals_were_attached() && estate.judges_arrivals();
        Observed { cgroup, objects, hooks, arrivals_judged, arrivals_wanted: false }
    }
}

impl Known {
    /// What is at `path`, where the pin of this object is expected.
    fn look_at_pin(&mut self, path: &Path, entry: &Entry) -> PinSeen {
        // The file first: a pin that is put in its place between the two shows as another file later.
        let stamp = std::fs::symlink_metadata(path).map(|found| Stamp::of(&found)).ok();
        if stamp.is_some() && stamp == self.pin {
            return PinSeen::Object(entry.id);
        }
        let seen = look_at_pin(path, entry.shape.kind());
        self.pin = stamp.filter(|_| seen == PinSeen::Object(entry.id));
        seen
    }
}

impl Stamp {
    fn of(found: &Metadata) -> Self {
        let changed = (found.ctime(), found.ctime_nsec());
        Self { device: found.dev(), inode: found.ino(), changed }
    }
}

fn look_at_hooks(estate: &Estate, plan: &Plan) -> (Option<u64>, Vec<Hook>) {
    let cgroup = File::open(&plan.cgroup).ok();
    let id = cgroup.as_ref().and_then(|cgroup| cgroup.metadata().ok()).map(|found| found.ino());
    let hooks = cgroup.map(|cgroup| hooks(estate, cgroup.as_fd())).unwrap_or_default();
    (id, hooks)
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
