//! The binary this process was started from, how to try what is there now, and how to become it.

use std::ffi::{CString, OsString};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::execv;

use super::carried::{Carried, acknowledgement};
use super::inherit::{InheritError, sealed, set_close_on_exec};
use crate::process::{self, Child, Ending};

/// The option by which a successor is told where its state is.
pub const RESUME: &str = "--resume-from";
/// The option by which it is told to check only.
pub const REHEARSE: &str = "--rehearse";

/// Most bytes kept of what a rehearsal says.
const MAX_SAID_BYTES: u64 = 1024;

/// A binary and its arguments.
#[derive(Clone, Debug)]
pub struct Image {
    path: PathBuf,
    arguments: Vec<OsString>,
}

/// A rehearsal under way.
#[derive(Debug)]
pub struct Rehearsal {
    /// The process.
    pub child: Child,
    output: OwnedFd,
    expected: String,
}

impl Image {
    /// This process's. To be asked at its start: later its file may be another, or deleted.
    ///
    /// # Errors
    ///
    /// When it cannot be found out.
    pub fn of_this_process() -> io::Result<Self> {
        let own = std::env::current_exe()?;
        let given = std::env::args_os().next().map(PathBuf::from);
        let given = given.filter(|given| given.components().count() > 1);
        // As it was named, if it was: a link that is changed later is meant to be followed then.
        let named = given.and_then(|given| std::path::absolute(given).ok());
        let path = named.filter(|named| is_same_file(named, &own)).unwrap_or(own);
        Ok(Self { path, arguments: without_succession(std::env::args_os()) })
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Starts what is at the path now, to check whether it can take `carried` over.
    ///
    /// # Errors
    ///
    /// When it does not even start.
    pub fn rehearse(&self, carried: &Carried) -> Result<Rehearsal, InheritError> {
        let bytes = carried.encode()?;
        let state = sealed(&bytes)?;
        let mut command = Command::new(&self.path);
        command.args(self.arguments.iter().skip(1));
        command.arg(resume_option(state.as_raw_fd())).arg(REHEARSE);
        let mut kept = carried.descriptors();
        kept.push(state.as_raw_fd());
        let (child, output) = process::spawn_with(&mut command, kept)?;
        Ok(Rehearsal { child, output, expected: acknowledgement(&bytes) })
    }

    /// Becomes what is at the path now, with `carried`. Returns only when that fails, and then
    /// everything is as it was.
    #[must_use]
    pub fn become_it(&self, carried: &Carried) -> InheritError {
        match self.exec(carried) {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    fn exec(&self, carried: &Carried) -> Result<std::convert::Infallible, InheritError> {
        let state = sealed(&carried.encode()?)?;
        let path = c_string(self.path.as_os_str())?;
        let resume = OsString::from(resume_option(state.as_raw_fd()));
        let arguments = self.arguments.iter().chain([&resume]);
        let arguments = arguments.map(|each| c_string(each)).collect::<io::Result<Vec<_>>>()?;
        let mut kept = carried.descriptors();
        kept.push(state.as_raw_fd());
        let opened = kept.iter().try_for_each(|fd| set_close_on_exec(*fd, false));
        // The signal mask, which blocks what is read from a descriptor, survives: a signal that
        // arrives in between stays pending for the successor instead of ending it.
        let failed = opened.and_then(|()| execv(&path, &arguments).map_err(io::Error::from));
        for descriptor in kept {
            if let Err(error) = set_close_on_exec(descriptor, true) {
                tracing::error!(%error, descriptor, "a descriptor may leak into children");
            }
        }
        failed.map_err(InheritError::from)
    }
}

impl Rehearsal {
    /// How it went, once its process is reaped.
    ///
    /// # Errors
    ///
    /// Why it cannot take over, in its own words if it had any.
    pub fn outcome(self, ending: Ending) -> Result<(), String> {
        let mut said = Vec::new();
        let output = std::fs::File::from(self.output);
        // What cannot be read was not said: the pipe does not wait.
        let _whole = output.take(MAX_SAID_BYTES).read_to_end(&mut said);
        let said = String::from_utf8_lossy(&said);
        let said = said.trim();
        match ending {
            Ending::Exited(0) if said.lines().last() == Some(&*self.expected) => Ok(()),
            Ending::Exited(0) => Err("it did not say that it can take over".to_owned()),
            ending if said.is_empty() => Err(ending.to_string()),
            ending => Err(format!("{said} ({ending})")),
        }
    }
}

fn resume_option(state: RawFd) -> String {
    format!("{RESUME}={state}")
}

/// The arguments without what a predecessor added.
fn without_succession(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let added = |argument: &OsString| {
        argument.as_bytes().starts_with(format!("{RESUME}=").as_bytes()) || argument == REHEARSE
    };
    arguments.filter(|argument| !added(argument)).collect()
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let (one, other) = (std::fs::metadata(one), std::fs::metadata(other));
    matches!((one, other), (Ok(one), Ok(other))
        if (one.dev(), one.ino()) == (other.dev(), other.ino()))
}

fn c_string(text: &std::ffi::OsStr) -> io::Result<CString> {
    Ok(CString::new(text.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_predecessor_added_is_not_passed_on() {
        let given = ["holdfast", "run", "--config", "x", "--resume-from=7", "--rehearse"];
        let left = without_succession(given.into_iter().map(OsString::from));
        assert_eq!(left, ["holdfast", "run", "--config", "x"]);
    }

    #[test]
    fn this_process_has_an_image() {
        let image = Image::of_this_process().expect("it runs");
        assert!(is_same_file(image.path(), &std::env::current_exe().expect("it runs")));
    }
}
