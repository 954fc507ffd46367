//! `holdfastctl trace`: what happens to connections, as it happens.

use std::ops::ControlFlow;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::command::Following;
use crate::exit::Failure;
use crate::output;
use crate::session::{Session, SessionError};

/// How often it is asked what has happened. The worker tells every event for some seconds after each
/// time.
const ASKING: Duration = Duration::from_millis(200);

/// How long a worker that is just being replaced is waited for.
const REPLACING: Duration = Duration::from_secs(5);

/// Prints a line for each event until the time is over or nobody reads any more.
pub fn trace(json: bool, following: &Following, session: &Session) -> Result<(), Failure> {
    let service = following.service.as_deref().unwrap_or_default();
    if !service.is_empty() && !session.services()?.iter().any(|row| row.service == service) {
        let reason = format!("there is no service `{service}`; `holdfastctl services` lists them");
        return Err(SessionError::Failed { reason }.into());
    }
    let end = following.duration.map(|duration| Instant::now() + duration);
    let (mut after, mut known) = (None, None);
    loop {
        let (lines, next, more, lost) = ask(session, after, service, json)?;
        let text: String = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
        if output::part(&text)? == ControlFlow::Break(()) {
            return Ok(());
        }
        let former = known.replace(lost).unwrap_or(lost);
        if lost > former {
            anstream::eprintln!(
                "holdfastctl: {} events found no room in the kernel",
                lost - former
            );
        }
        after = Some(next);
        match end {
            Some(end) if Instant::now() >= end && !more => return Ok(()),
            _ if more => {}
            Some(end) => sleep(ASKING.min(end.saturating_duration_since(Instant::now()))),
            None => sleep(ASKING),
        }
    }
}

/// Asks, also while the worker is being replaced.
fn ask(
    session: &Session,
    after: Option<u64>,
    service: &str,
    json: bool,
) -> Result<(Vec<String>, u64, bool, u64), SessionError> {
    let end = Instant::now() + REPLACING;
    loop {
        match session.trace(after, service, json) {
            Err(SessionError::Failed { .. }) if Instant::now() < end => sleep(ASKING),
            answer => return answer,
        }
    }
}
