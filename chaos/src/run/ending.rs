//! What is programmed at last, and what an uninstall leaves.

use std::time::Duration;

use holdfast_lab::control::{ask_worker, socket_path};
use holdfast_lab::wait::within;
use holdfast_lab::{Census, Lab, LabError, Supervisor};
use holdfast_protocol::control::{EndpointRow, WorkerAnswer, WorkerQuery};

use super::stopwatch::Stopwatch;
use crate::load::configuration::Configuration;
use crate::load::site::Site;
use crate::watch::Watch;

/// How long everything may take to be as it should be.
const SETTLING: Duration = Duration::from_secs(60);

/// Most differences that are named one by one.
const NAMED: usize = 10;

/// Most pages of endpoints: a bound for a worker that never says that it was the last.
const MOST_PAGES: u32 = 100_000;

/// Waits until everything has been seen as it should be, from now on.
pub fn settle(watch: &Watch<'_>, stopwatch: Stopwatch) -> Result<(), String> {
    let since = stopwatch.now_us();
    within(SETTLING, "a state as it should be", || {
        if watch.healthy_us() > since { Ok(()) } else { Err(watch.ailment()) }
    })
    .map_err(|error| error.to_string())
}

/// Where the endpoints that are programmed differ from those of the newest save.
pub fn differences(lab: &Lab, configuration: &Configuration<'_>) -> Vec<String> {
    let rows = match rows(lab) {
        Ok(rows) => rows,
        Err(error) => return vec![format!("the endpoints cannot be read: {error}")],
    };
    let is_programmed = |row: &EndpointRow| Site::is_served(&row.service) && row.state == "active";
    let served = rows.into_iter().filter(is_programmed);
    let mut there: Vec<_> = served.map(|row| (row.service, row.endpoint, row.weight)).collect();
    there.sort();
    let wanted = configuration.programmed();
    let missing = wanted.iter().filter(|row| !there.contains(row));
    let missing = missing.map(|row| format!("{row:?} is not programmed"));
    let surplus = there.iter().filter(|row| !wanted.contains(row));
    let surplus = surplus.map(|row| format!("{row:?} is programmed and not configured"));
    let mut found: Vec<String> = missing.chain(surplus).take(NAMED).collect();
    if found.is_empty() && there.len() != wanted.len() {
        found.push(format!("{} endpoints are programmed instead of {}", there.len(), wanted.len()));
    }
    found
}

fn rows(lab: &Lab) -> Result<Vec<EndpointRow>, LabError> {
    let (socket, mut offset, mut all) = (socket_path(lab), 0, Vec::new());
    for _ in 0..MOST_PAGES {
        match ask_worker(&socket, &WorkerQuery::Endpoints { offset })? {
            WorkerAnswer::Endpoints { rows, next } => {
                all.extend(rows);
                match next {
                    Some(next) => offset = next,
                    None => return Ok(all),
                }
            }
            other => return Err(LabError::Unexpected(format!("{other:?}"))),
        }
    }
    Err(LabError::Unexpected(format!("more than {MOST_PAGES} pages")))
}

/// Uninstalls, and names what is left: kernel objects, files, processes.
pub fn uninstall(lab: &Lab, supervisor: Option<Supervisor>, before: &Census) -> Vec<String> {
    let mut leftovers = Vec::new();
    let during = Census::take(lab, before);
    match lab.uninstall() {
        Ok(ended) if ended.code == Some(0) => {}
        Ok(ended) => leftovers.push(format!("the uninstall failed: {}", ended.stderr.trim())),
        Err(error) => leftovers.push(error.to_string()),
    }
    match supervisor.map(|mut supervisor| supervisor.ended()) {
        Some(Ok(end)) if end.success() => {}
        Some(Ok(end)) => leftovers.push(format!("the supervisor left with {end}")),
        Some(Err(error)) => leftovers.push(error.to_string()),
        None => leftovers.push("there was no supervisor to uninstall".to_owned()),
    }
    match during {
        Ok(during) if during.objects.is_empty() => {
            leftovers.push("there was nothing in the kernel to uninstall".to_owned());
        }
        Ok(during) => {
            let returned = before.wait_for_return(lab, &during);
            leftovers.extend(returned.err().map(|error| error.to_string()));
        }
        Err(error) => leftovers.push(error.to_string()),
    }
    leftovers
}
