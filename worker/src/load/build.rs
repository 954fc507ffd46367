//! Makes the estate what was settled, so that each hook carries exactly one program of ours before,
//! during and after.
//!
//! The order is the argument:
//!
//! 1. Maps are pinned, then the programs of hooks that have no link yet: what is killed here
//!    governs nothing, and the next loader goes on from it.
//! 2. Links that are missing are attached and pinned. Where one of ours is alive, however it was
//!    found, it is kept instead, so there are never two. One that has nothing to do yet is made, detached
//!    and pinned, so that it is part of the estate.
//! 3. Links that run another program are updated, each in one step, and the programs' pins follow.
//! 4. Only then do links that are too many go.
//! 5. The result is read back. A failure up to here undoes it all.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};

use holdfast_bpf::BpfError;
use holdfast_bpf::link;
use holdfast_bpf::object::{self, LinkInfo};
use holdfast_protocol::kernel;
use holdfast_protocol::manifest::{Entry, Kind, Shape};
use holdfast_protocol::pin::UNFINISHED;

use super::journal::{ChangeError, Journal};
use super::object::{KernelObject, ObjectError, Sizes};
use super::pins::{KINDS, PinError, Pins};
use super::place::Cgroup;
use super::settle::{Hook, PinWork, SettleError, Settled, SettledMap, settle};
use super::survey::{Held, Survey};
use super::verify::{self, VerifyError};

/// Why there is no estate.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// It could not be settled what it should be.
    #[error(transparent)]
    Settle(#[from] SettleError),
    /// The embedded object.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// The pins.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// A change failed, and those before it were undone.
    #[error("{what}: {source}{}", advice(source))]
    Change {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: ChangeError,
    },
    /// The kernel refused to say something.
    #[error(transparent)]
    Bpf(#[from] BpfError),
    /// It did not turn out as intended, and was undone.
    #[error(transparent)]
    Verify(#[from] VerifyError),
}

fn advice(error: &ChangeError) -> &'static str {
    let ChangeError::Bpf(error) = error else { return "" };
    match error.errno() {
        libc::EPERM => {
            "; the loader needs CAP_NET_ADMIN, and no ancestor of the cgroup may carry a program \
             that was attached exclusively (bpftool cgroup tree shows them)"
        }
        libc::E2BIG => "; the hook carries 64 programs already (bpftool cgroup tree shows them)",
        _ => "",
    }
}

/// An object of the estate, ready to be handed over.
#[derive(Debug)]
pub struct Member {
    /// What it is.
    pub entry: Entry,
    /// Its descriptor.
    pub descriptor: OwnedFd,
    /// Whether it is a link that has nothing to do, and is detached.
    pub is_idle: bool,
}

/// Builds, adopts or repairs the estate, and adds a sentence to `repairs` for what was amiss. `arrivals`
/// says that what judges arriving connections has to be attached, whatever the policies in force say.
///
/// # Errors
///
/// [`BuildError`]; what governed before governs still, as it did.
pub fn build(
    cgroup: &Cgroup,
    pins: &Pins,
    sizes: Sizes,
    arrivals: bool,
    repairs: &mut Vec<String>,
) -> Result<Vec<Member>, BuildError> {
    let object = KernelObject::prepare(sizes)?;
    let survey = Survey::take(pins, cgroup.id)?;
    let settled = settle(object, survey, cgroup.id, arrivals)?;
    let is_cold = settled.is_cold;
    let mut journal = Journal::new(pins);
    let mut done = Vec::new();
    let members = carry_out(settled, cgroup, &mut journal, &mut done)?;
    verify::verify(cgroup, &members, repairs)?;
    journal.complete();
    if !is_cold {
        repairs.append(&mut done);
    }
    report_strangers(pins, repairs)?;
    Ok(members)
}

fn carry_out(
    settled: Settled,
    cgroup: &Cgroup,
    journal: &mut Journal<'_>,
    done: &mut Vec<String>,
) -> Result<Vec<Member>, BuildError> {
    let Settled { maps, mut hooks, .. } = settled;
    for SettledMap { name, map, pin } in &maps {
        put(journal, Kind::Map, name, &map.descriptor, pin, done)?;
    }
    for hook in hooks.iter_mut().filter(|hook| hook.link.is_none()) {
        pin_program(journal, hook, done)?;
    }
    for hook in &mut hooks {
        attach(journal, hook, cgroup, done)?;
    }
    for hook in &mut hooks {
        update(journal, hook, done)?;
    }
    for hook in &mut hooks {
        pin_program(journal, hook, done)?;
    }
    for surplus in hooks.iter_mut().flat_map(|hook| hook.surplus.drain(..)) {
        let what = format!("link {} was one too many and is detached", surplus.info.id);
        link::detach(surplus.descriptor.as_fd()).map_err(|source| failed(&what, source.into()))?;
        done.push(what);
    }
    members(maps, hooks)
}

fn pin_program(
    journal: &mut Journal<'_>,
    hook: &mut Hook,
    done: &mut Vec<String>,
) -> Result<(), BuildError> {
    let work = std::mem::replace(&mut hook.program_pin, PinWork::None);
    put(journal, Kind::Program, hook.name, &hook.program.descriptor, &work, done)
}

/// Makes sure that the hook has a link, and that it is pinned. One with nothing to do is detached.
fn attach(
    journal: &mut Journal<'_>,
    hook: &mut Hook,
    cgroup: &Cgroup,
    done: &mut Vec<String>,
) -> Result<(), BuildError> {
    let link = match hook.link.take() {
        Some(link) => link,
        None => {
            let what = format!("attach {} to cgroup {}", hook.name, cgroup.path.display());
            let program = hook.program.descriptor.as_fd();
            let descriptor = journal
                .attach(program, cgroup.as_fd(), hook.attach_type)
                .map_err(|source| failed(&what, source))?;
            if hook.is_idle {
                // The kernel makes no link that is detached. This one has no pin yet: who dies here
                // leaves nothing attached.
                link::detach(descriptor.as_fd()).map_err(|source| failed(&what, source.into()))?;
            }
            let info = object::link_info(descriptor.as_fd())?;
            done.push(match hook.is_idle {
                true => format!("link {} ({}) is detached: nothing needs it", info.id, hook.name),
                false => format!("attached {} anew as link {}", hook.name, info.id),
            });
            Held { descriptor, info }
        }
    };
    put(journal, Kind::Link, hook.name, &link.descriptor, &hook.link_pin, done)?;
    hook.link = Some(link);
    Ok(())
}

fn update(
    journal: &mut Journal<'_>,
    hook: &mut Hook,
    done: &mut Vec<String>,
) -> Result<(), BuildError> {
    let (Some(former), Some(link)) = (hook.update_from.take(), &hook.link) else { return Ok(()) };
    let (old, new) = (former.info.id, hook.program.info.id);
    let what = format!("replace program {old} of link {} ({}) by {new}", link.info.id, hook.name);
    journal
        .update(link.descriptor.as_fd(), hook.program.descriptor.as_fd(), former.descriptor.as_fd())
        .map_err(|source| failed(&what, source))?;
    done.push(format!("link {} ({}) runs program {new} instead of {old}", link.info.id, hook.name));
    Ok(())
}

fn put(
    journal: &mut Journal<'_>,
    kind: Kind,
    name: &'static str,
    object: &OwnedFd,
    work: &PinWork,
    done: &mut Vec<String>,
) -> Result<(), BuildError> {
    let PinWork::Put { former, because } = work else { return Ok(()) };
    let former = former.as_ref().map(AsFd::as_fd);
    journal
        .pin(kind, name, object.as_fd(), former)
        .map_err(|source| failed(&format!("pin {kind} {name}"), source))?;
    done.push(because.clone());
    Ok(())
}

fn failed(what: &str, source: ChangeError) -> BuildError {
    BuildError::Change { what: what.to_owned(), source }
}

/// The estate as it is now, by the kernel's own word.
fn members(maps: Vec<SettledMap>, hooks: Vec<Hook>) -> Result<Vec<Member>, BuildError> {
    let mut members = Vec::with_capacity(kernel::map::ALL.len() + 2 * kernel::program::ALL.len());
    let mut links = Vec::with_capacity(kernel::program::ALL.len());
    for SettledMap { name, map, .. } in maps {
        let entry = Entry { name: name.into(), id: map.info.id, shape: Shape::Map(map.info.shape) };
        members.push(Member { entry, descriptor: map.descriptor, is_idle: false });
    }
    for Hook { name, program, link, is_idle, .. } in hooks {
        let (program_type, tag) = (program.info.program_type, program.info.tag);
        let shape = Shape::Program { program_type, tag };
        let entry = Entry { name: name.into(), id: program.info.id, shape };
        members.push(Member { entry, descriptor: program.descriptor, is_idle: false });
        let descriptor = link.expect("every hook got its link in `attach`").descriptor;
        let info = object::link_info(descriptor.as_fd())?;
        links.push(Member { entry: link_entry(name, info), descriptor, is_idle });
    }
    members.append(&mut links);
    Ok(members)
}

fn link_entry(name: &str, info: LinkInfo) -> Entry {
    // Not a cgroup's link cannot be; 0 is what the verification refuses, but of a link with nothing to do.
    let (attach_type, cgroup_id) = info.cgroup.map_or((0, 0), |at| (at.attach_type, at.cgroup_id));
    let shape = Shape::Link { attach_type, program_id: info.program_id, cgroup_id };
    Entry { name: name.to_owned(), id: info.id, shape }
}

/// Sweeps up pins a killed loader left on their way, and names what nobody knows.
fn report_strangers(pins: &Pins, repairs: &mut Vec<String>) -> Result<(), PinError> {
    for kind in KINDS {
        let known: &[&str] = match kind {
            Kind::Map => &kernel::map::ALL,
            Kind::Program | Kind::Link => &kernel::program::ALL,
        };
        for name in pins.names(kind)? {
            let path = pins.path(kind, &name);
            if name.starts_with(UNFINISHED) {
                pins.remove(kind, &name)?;
                repairs.push(format!("removed the unfinished pin {}", path.display()));
            } else if !known.contains(&name.as_str()) {
                repairs.push(format!("left {} alone: not of this version", path.display()));
            }
        }
    }
    let directory = pins.directory();
    for name in super::pins::names(&directory)? {
        if !KINDS.iter().any(|kind| holdfast_protocol::pin::directory_name(*kind) == name) {
            let path = directory.join(name);
            let what = if fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir()) {
                "directory"
            } else {
                "file"
            };
            repairs.push(format!("left the {what} {} alone: not of this version", path.display()));
        }
    }
    Ok(())
}
