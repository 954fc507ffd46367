//! What runs on the governed cgroup's hooks, by the kernel's own word.

use std::error::Error;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use holdfast_bpf::{BpfError, link, object, policies};
use holdfast_lab::inside::INSTANCE;
use holdfast_lab::{Lab, cgroup};
use holdfast_protocol::kernel::{map, program};
use holdfast_protocol::manifest::Kind;
use holdfast_protocol::pin;

/// The programs' hooks: `enum bpf_attach_type` of the kernel's `linux/bpf.h`.
pub const HOOKS: [(&str, u32); 11] = [
    (program::SOCK_OPS, 3),
    (program::CONNECT4, 10),
    (program::CONNECT6, 11),
    (program::GETPEERNAME4, 29),
    (program::GETPEERNAME6, 30),
    (program::SENDMSG4, 14),
    (program::SENDMSG6, 15),
    (program::RECVMSG4, 19),
    (program::RECVMSG6, 20),
    (program::SOCK_RELEASE, 34),
    (program::INGRESS, INGRESS),
];

/// `BPF_CGROUP_INET_INGRESS`: the hook of what judges arriving connections.
pub const INGRESS: u32 = 0;

/// The pin of an object of the lab's instance.
#[must_use]
pub fn pin(lab: &Lab, kind: Kind, name: &str) -> PathBuf {
    pin::path(&lab.bpffs(), INSTANCE, kind, name)
}

/// Every link is attached to the governed cgroup at its own hook and runs the program of its own
/// name, which runs there once, beside nothing else of ours. What judges arriving connections may be
/// detached, and then runs nowhere, as long as no policies in force are about them.
///
/// # Errors
///
/// What is otherwise, or what the kernel refuses to say.
pub fn check(lab: &Lab) -> Result<(), Box<dyn Error>> {
    let governed = lab.governed();
    let cgroup_id = cgroup::id(&governed)?;
    for (name, attach_type) in HOOKS {
        let link = object::get(&pin(lab, Kind::Link, name))?;
        let info = object::link_info(link.as_fd())?;
        let at = info.cgroup.ok_or_else(|| format!("{name} is no link of a cgroup"))?;
        let is_idle = name == program::INGRESS && at.cgroup_id == 0 && !judges_arrivals(lab)?;
        let found = (at.attach_type, at.cgroup_id);
        if found != (attach_type, cgroup_id) && !is_idle {
            return Err(format!("{name} is at {found:?}, not {attach_type} of {cgroup_id}").into());
        }
        let program = object::by_id(Kind::Program, info.program_id)?;
        let runs = object::program_info(program.as_fd())?.name;
        if runs != name {
            return Err(format!("{name} runs {runs}").into());
        }
        let ours = programs_of_ours(&governed, attach_type, &map_ids(lab)?)?;
        let wanted = [info.program_id];
        if ours != wanted[usize::from(is_idle)..] {
            return Err(
                format!("{name} is program {}; on its hook {ours:?}", info.program_id).into()
            );
        }
    }
    Ok(())
}

/// Whether the policies in force are about arriving connections.
fn judges_arrivals(lab: &Lab) -> Result<bool, BpfError> {
    let [head, cells] = [map::POLICY_HEAD, map::POLICIES].map(|map| pin(lab, Kind::Map, map));
    policies::judge_arrivals(object::get(&head)?.as_fd(), object::get(&cells)?.as_fd())
}

/// Ids of the instance's maps, by its pins.
///
/// # Errors
///
/// When one is not pinned.
pub fn map_ids(lab: &Lab) -> Result<Vec<u32>, BpfError> {
    let id = |name: &&str| {
        let map = object::get(&pin(lab, Kind::Map, name))?;
        object::map_info(map.as_fd()).map(|info| info.id)
    };
    map::ALL.iter().map(id).collect()
}

/// Ids of the programs that run for `cgroup` at `attach_type` and use one of `maps`.
///
/// # Errors
///
/// When the kernel refuses.
pub fn programs_of_ours(
    cgroup: &Path,
    attach_type: u32,
    maps: &[u32],
) -> Result<Vec<u32>, Box<dyn Error>> {
    let cgroup = File::open(cgroup)?;
    let mut ours = Vec::new();
    for id in link::effective_programs(cgroup.as_fd(), attach_type)? {
        let program = match object::by_id(Kind::Program, id) {
            // Replaced between the two questions.
            Err(error) if error.is_not_found() => continue,
            program => program?,
        };
        let used = object::program_info(program.as_fd())?.map_ids;
        if used.iter().any(|map| maps.contains(map)) {
            ours.push(id);
        }
    }
    Ok(ours)
}
