//! Standard output: text for people, JSON for programs.

use std::io::{self, ErrorKind, IsTerminal as _, Write as _};
use std::ops::ControlFlow;

use serde::Serialize;

/// Whether somebody reads along. Lines of a file and carets are for them; a program wants one line
/// an error.
pub fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Writes styled text, without its styles if nobody looks at it on a terminal or `NO_COLOR` is set.
pub fn text(text: &str) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    tolerate_closed(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// Writes styled text as [`text`] does, and says whether anybody reads what may follow.
pub fn part(text: &str) -> io::Result<ControlFlow<()>> {
    let mut out = anstream::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(ControlFlow::Continue(())),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
        Err(error) => Err(error),
    }
}

/// Writes `value` as JSON.
pub fn json<T: Serialize + ?Sized>(value: &T) -> io::Result<()> {
    let mut json = serde_json::to_vec_pretty(value)?;
    json.push(b'\n');
    bytes(&json)
}

/// Writes `bytes` as they are.
pub fn bytes(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    tolerate_closed(out.write_all(bytes).and_then(|()| out.flush()))
}

/// A reader that has seen enough, as `head` does, is no failure of ours.
fn tolerate_closed(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
