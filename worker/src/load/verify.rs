//! Reads back what was built, from the kernel and not from the pins: a pin outlives its link's
//! attachment and its cgroup.

use std::os::fd::AsFd;

use holdfast_bpf::object::{link_info, map_info, program_info};
use holdfast_bpf::{BpfError, link};
use holdfast_protocol::manifest::{Entry, Shape};

use super::build::Member;
use super::place::Cgroup;

/// The estate is not what it was made to be.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// An object is another one.
    #[error(
        "{what} does not read back as it was made: {found} instead of {wanted}; is something else \
         at work on it?"
    )]
    Differs {
        /// Which object.
        what: String,
        /// What the kernel says.
        found: String,
        /// What it should say.
        wanted: String,
    },
    /// A hook does not run our program.
    #[error(
        "program {name} (id {id}) is attached to cgroup {cgroup}, but the kernel does not run it \
         there; look at `bpftool cgroup show {cgroup} effective`"
    )]
    NotEffective {
        /// Its name.
        name: String,
        /// Its id.
        id: u32,
        /// The cgroup.
        cgroup: String,
    },
    /// The kernel refused to say.
    #[error(transparent)]
    Bpf(#[from] BpfError),
}

/// Checks every member of the estate against the kernel's own word.
///
/// # Errors
///
/// [`VerifyError`].
pub fn verify(
    cgroup: &Cgroup,
    members: &[Member],
    reports: &mut Vec<String>,
) -> Result<(), VerifyError> {
    for Member { entry, descriptor, is_idle } in members {
        let (id, shape) = match entry.shape {
            Shape::Map(_) => {
                let info = map_info(descriptor.as_fd())?;
                (info.id, Shape::Map(info.shape))
            }
            Shape::Program { .. } => {
                let info = program_info(descriptor.as_fd())?;
                let (program_type, tag) = (info.program_type, info.tag);
                (info.id, Shape::Program { program_type, tag })
            }
            Shape::Link { attach_type, .. } => {
                let info = link_info(descriptor.as_fd())?;
                if !is_idle {
                    check_effective(cgroup, entry, attach_type, info.program_id, reports)?;
                }
                let program_id = wanted_program(entry, members);
                let cgroup_id = if *is_idle { 0 } else { cgroup.id };
                let shape = Shape::Link { attach_type, program_id, cgroup_id };
                compare(entry, entry.id, &shape)?;
                let at = info.cgroup;
                let attach_type = at.map_or(0, |at| at.attach_type);
                let cgroup_id = at.map_or(0, |at| at.cgroup_id);
                let program_id = info.program_id;
                (info.id, Shape::Link { attach_type, program_id, cgroup_id })
            }
        };
        compare(entry, id, &shape)?;
    }
    Ok(())
}

fn compare(entry: &Entry, id: u32, shape: &Shape) -> Result<(), VerifyError> {
    if entry.id == id && entry.shape == *shape {
        return Ok(());
    }
    Err(VerifyError::Differs {
        what: format!("{} {}", entry.shape.kind(), entry.name),
        found: format!("{id} {shape:?}"),
        wanted: format!("{} {:?}", entry.id, entry.shape),
    })
}

/// Id of the program the link is named after.
fn wanted_program(link: &Entry, members: &[Member]) -> u32 {
    members
        .iter()
        .map(|member| &member.entry)
        .find(|entry| matches!(entry.shape, Shape::Program { .. }) && entry.name == link.name)
        .map_or(0, |entry| entry.id)
}

fn check_effective(
    cgroup: &Cgroup,
    entry: &Entry,
    attach_type: u32,
    program_id: u32,
    reports: &mut Vec<String>,
) -> Result<(), VerifyError> {
    let running = link::effective_programs(cgroup.as_fd(), attach_type)?;
    let (name, path) = (&entry.name, cgroup.path.display());
    match running.iter().filter(|id| **id == program_id).count() {
        0 => {
            let (name, cgroup) = (name.clone(), path.to_string());
            Err(VerifyError::NotEffective { name, id: program_id, cgroup })
        }
        1 => Ok(()),
        // No link of ours is left but this one, so somebody attached our program by other means.
        // It governs all the same: that is no reason to leave the node without an estate.
        times => {
            reports.push(format!(
                "program {name} (id {program_id}) runs {times} times for {path}: somebody attached \
                 it without a link; `bpftool cgroup detach` removes that"
            ));
            Ok(())
        }
    }
}
