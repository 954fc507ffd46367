//! The maps of an estate whose supervisor and worker are gone: what is pinned stays, and nobody else
//! writes it.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::Context;
use holdfast_bpf::object;
use holdfast_lab::{Lab, Service, render};
use holdfast_protocol::handover::Offer;
use holdfast_protocol::kernel::map;
use holdfast_protocol::manifest::{Entry, Kind, Shape};
use holdfast_worker::serve::offer::Gathering;
use holdfast_worker::serve::tables::maps::{GrantedMaps, ShadowMaps};
use nix::sys::signal::Signal;

/// Deepest that pins are nested.
const DEPTH: u32 = 4;

/// Has a loader make an estate, ends its supervisor, and takes the maps over to write them.
pub fn abandoned(lab: &Lab) -> anyhow::Result<GrantedMaps> {
    let service = Service::tcp("first", "127.99.0.9:80".parse()?);
    let file = lab.write("first.yaml", render(&[service]))?;
    let supervisor = lab.supervisor(&file).start()?;
    supervisor.end(Signal::SIGTERM)?;
    let maps = ShadowMaps::map(taken(&pinned(&lab.bpffs())?)?)?;
    Ok(maps.grant()?)
}

/// The maps, as an offer brings them.
fn taken(maps: &[OwnedFd]) -> anyhow::Result<holdfast_worker::serve::offer::EstateMaps> {
    let entries = maps.iter().map(|descriptor| {
        let info = object::map_info(descriptor.as_fd())?;
        Ok(Entry { name: info.name, id: info.id, shape: Shape::Map(info.shape) })
    });
    let entries = entries.collect::<anyhow::Result<Vec<Entry>>>()?;
    let descriptors = maps.iter().map(OwnedFd::try_clone).collect::<Result<_, _>>()?;
    let mut gathering = Gathering::default();
    gathering.take(Offer { index: 0, of: 1, entries }, descriptors)?;
    Ok(gathering.finish()?)
}

/// Every map of the estate that is pinned below `directory`.
pub fn pinned(directory: &Path) -> anyhow::Result<Vec<OwnedFd>> {
    let mut found = Vec::new();
    walk(directory, DEPTH, &mut found)?;
    Ok(found)
}

fn walk(directory: &Path, depth: u32, found: &mut Vec<OwnedFd>) -> anyhow::Result<()> {
    let cannot = || format!("cannot list {}", directory.display());
    for entry in fs::read_dir(directory).with_context(cannot)? {
        let path = entry.with_context(cannot)?.path();
        if path.is_dir() {
            if depth > 0 {
                walk(&path, depth - 1, found)?;
            }
            continue;
        }
        // Files of the bpffs itself are no objects.
        let Ok(object) = object::get(&path) else { continue };
        if object::kind_of(object.as_fd()) == Some(Kind::Map) {
            let name = object::map_info(object.as_fd())?.name;
            if map::ALL.contains(&name.as_str()) {
                found.push(object);
            }
        }
    }
    Ok(())
}
