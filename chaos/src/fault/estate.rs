//! Faults behind the supervisor's back: pins removed, links detached.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use holdfast_bpf::{link as links, object};
use holdfast_lab::LabError;
use holdfast_protocol::kernel::program;

use super::inject::{FaultError, Injection, file};
use super::pick;
use crate::run::stage::Stage;

/// The links, which are called like their programs, in the order a draw picks from: all but the last, of what
/// judges arriving connections. No policy of a run is about any, so that one is not attached.
pub const LINKS: &[&str] = program::ALL.split_at(program::ALL.len() - 1).0;

/// The link that `draw` picks.
pub fn link(draw: u32) -> &'static str {
    LINKS[pick(draw, LINKS.len())]
}

/// Removes the pin that `draw` picks, or all of them.
pub fn unlink<'s>(stage: &Stage<'_>, draw: Option<u32>) -> Result<Injection<'s>, FaultError> {
    let directory = stage.pins();
    let pins = files_below(&directory).map_err(file("list", &directory))?;
    match draw {
        Some(draw) => {
            let pin = pins.get(pick(draw, pins.len()));
            let pin = pin.ok_or(FaultError::NoTarget("there is no pin"))?;
            fs::remove_file(pin).map_err(file("remove", pin))?;
            Ok(Injection::over(pin.strip_prefix(&directory).unwrap_or(pin).display().to_string()))
        }
        None => {
            fs::remove_dir_all(&directory).map_err(file("remove", &directory))?;
            Ok(Injection::over(format!("all {} of them", pins.len())))
        }
    }
}

/// Detaches the link that `draw` picks.
pub fn detach<'s>(stage: &Stage<'_>, draw: u32) -> Result<Injection<'s>, FaultError> {
    let name = link(draw);
    let pin = object::get(&stage.pins().join("links").join(name)).map_err(LabError::from)?;
    links::detach(pin.as_fd()).map_err(LabError::from)?;
    Ok(Injection::over(name))
}

/// Every file below `directory`, in the order of their paths.
pub fn files_below(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(files_below(&entry.path())?);
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}
