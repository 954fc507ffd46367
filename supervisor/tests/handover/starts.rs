//! Starts and removals with a loader that breaks the handover, or without room for descriptors.

use std::fs;

use holdfast_lab::wait::{holds, within};
use holdfast_lab::{Supervisor, eventually, process};
use holdfast_protocol::control::Status;

use super::cells::{Cell, Expected};
use super::stage::{OUTCOMES, Outcome, PATIENCE, Place, script};

/// Has a loader make the fault of `cell` at a start, and checks what comes of it: nothing.
pub fn try_loader(place: &Place<'_>, cell: &Cell) -> Outcome {
    let before = place.pins()?;
    place.script_loader(&script(cell))?;
    let mut supervisor = place.launch().spawn()?;
    match &cell.expected {
        Expected::Failed(reason) => {
            let log = await_end(&mut supervisor)?;
            holds(log.contains(reason), || format!("`{log}` does not say `{reason}`"))?;
        }
        Expected::Served(_) => {
            let granted = |status: &Status| status.worker.state == "granted";
            eventually("an end or a grant", || {
                let (pid, status) = (supervisor.pid(), supervisor.status());
                let settled = status.is_ok_and(|status| granted(&status));
                holds(settled || !process::is_alive(pid), || "neither".to_owned())
            })?;
        }
        _ => drop(supervisor.wait_for_grant()?),
    }
    let log = fs::read_to_string(supervisor.log())?;
    let made = format!("{:?} at {}", cell.fault, cell.due.name());
    holds(log.contains(&made), || format!("no `{made}` in:\n{log}"))?;
    drop(supervisor);
    let pins = place.pins()?;
    holds(pins == before, || format!("{pins:?} instead of {before:?}"))?;

    place.script_loader("")?;
    let mut sane = place.launch().start()?;
    let links = sane.wait_for_grant()?.links;
    holds(links.iter().all(|link| link.ok && link.pinned), || format!("{links:?}"))?;
    Ok(())
}

/// Starts a supervisor that may have only so many descriptors; whether it came to serve. Whether or not,
/// nothing has changed.
pub fn try_starved_start(
    place: &Place<'_>,
    descriptors: usize,
) -> Result<bool, Box<dyn std::error::Error>> {
    let before = place.pins()?;
    let limit = format!("--nofile={descriptors}:{descriptors}");
    let mut supervisor = place.launch().under(&["prlimit", &limit, "--"]).spawn()?;
    // It may have room for the estate and none for a worker, and then none for those who ask either.
    let log = eventually("an end or an outcome", || {
        let is_over = !process::is_alive(supervisor.pid());
        let log = fs::read_to_string(supervisor.log()).map_err(|error| error.to_string())?;
        let is_decided = OUTCOMES.iter().any(|words| log.contains(words));
        if is_over || is_decided { Ok(log) } else { Err(log) }
    })?;
    let serves = log.contains(OUTCOMES[0]);
    if !serves && !log.contains(OUTCOMES[1]) {
        // Who says it depends on who wants the next one: this process, its children or the kernel.
        let log = await_end(&mut supervisor)?;
        let reasons = ["open files", "descriptors arrived", "exit status"];
        let is_said = reasons.iter().any(|reason| log.contains(reason));
        holds(is_said, || format!("no reason in `{log}`"))?;
    }
    drop(supervisor);
    let pins = place.pins()?;
    holds(pins == before, || format!("{pins:?} instead of {before:?}"))?;
    Ok(serves)
}

/// Waits until `supervisor` has ended with an error; what it said.
fn await_end(supervisor: &mut Supervisor) -> Result<String, Box<dyn std::error::Error>> {
    let pid = supervisor.pid();
    within(PATIENCE, "the end", || holds(!process::is_alive(pid), || "it runs".to_owned()))?;
    let end = supervisor.ended()?;
    let log = fs::read_to_string(supervisor.log())?;
    holds(end.code() == Some(1), || format!("{end}: {log}"))?;
    Ok(log)
}

/// Has a loader make the fault of `cell` at a removal, which the next one completes.
pub fn try_remover(place: &Place<'_>, cell: &Cell) -> Outcome {
    place.script_loader("")?;
    drop(place.launch().start()?);
    place.script_loader(&script(cell))?;
    let ended = place.uninstall()?;
    let said = &ended.stderr;
    let made = format!("{:?} at {}", cell.fault, cell.due.name());
    holds(said.contains(&made), || format!("no `{made}` in:\n{said}"))?;
    match &cell.expected {
        Expected::Failed(reason) => {
            holds(ended.code == Some(1), || format!("{ended:?}"))?;
            holds(said.contains(reason), || format!("`{said}` does not say `{reason}`"))?;
            place.script_loader("")?;
            let again = place.uninstall()?;
            holds(again.code == Some(0), || format!("{again:?}"))?;
        }
        _ => holds(ended.code == Some(0), || format!("{ended:?}"))?,
    }
    let pins = place.pins()?;
    holds(pins.is_empty(), || format!("{pins:?} are left"))?;
    Ok(())
}
