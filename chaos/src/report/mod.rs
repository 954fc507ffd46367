//! What a run came to: as JSON, as one HTML page, as lines for a terminal.
//!
//! - [`figures`]: the figures that all forms show.
//! - [`html`], [`timeline`], [`curves`]: the page, and the drawings in it.
//! - [`text`]: the lines.

mod curves;
mod figures;
mod html;
mod text;
mod timeline;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use holdfast_lab::machine::Machine;
use serde::{Deserialize, Serialize};

use crate::history::History;
use crate::invariants::{Verdict, judge};
use crate::run::Script;

/// Version of the JSON's form; another one is not read.
const VERSION: u32 = 3;

/// Largest report that is read, in bytes: a day's is some hundred megabytes.
const LARGEST_BYTES: u64 = 1 << 30;

/// Everything about a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Of this form.
    pub version: u32,
    /// What was asked for.
    pub command: String,
    /// Where it ran.
    pub machine: Machine,
    /// What decides about the run: enough to do the same again.
    pub script: Script,
    /// What the invariants say.
    pub verdicts: Vec<Verdict>,
    /// What happened.
    pub history: History,
}

/// Why a report was not written or read.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A file operation.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// It is too large.
    #[error("{} is no report: it is larger than {LARGEST_BYTES} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It is no report.
    #[error("{} is no report of this program: {why}; make one with `holdfast-chaos run --report FILE`", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// What is needed of a report to do the same again.
#[derive(Deserialize)]
struct Replay {
    version: u32,
    script: Script,
}

impl Report {
    /// Ends a history, and judges it.
    pub fn new(script: Script, mut history: History) -> Self {
        history.conclude();
        let command = std::env::args().collect::<Vec<_>>().join(" ");
        let (machine, verdicts) = (Machine::here(), judge(&history));
        Self { version: VERSION, command, machine, script, verdicts, history }
    }

    /// Whether every promise was kept.
    pub fn is_kept(&self) -> bool {
        self.verdicts.iter().all(|verdict| verdict.complaints.is_empty())
    }

    /// Writes it as JSON.
    pub fn write_json(&self, path: &Path) -> Result<(), ReportError> {
        let text = serde_json::to_string(self).expect("plain data");
        write(path, &text)
    }

    /// Writes it as one HTML page.
    pub fn write_html(&self, path: &Path) -> Result<(), ReportError> {
        write(path, &html::render(self))
    }

    /// It as lines for people.
    pub fn text(&self) -> String {
        text::summary(self)
    }
}

/// The report at `path`.
pub fn read(path: &Path) -> Result<Report, ReportError> {
    let malformed = |why| ReportError::Malformed { path: path.to_owned(), why };
    serde_json::from_str(&read_text(path)?).map_err(|error| malformed(error.to_string()))
}

/// The script of the report at `path`.
pub fn read_script(path: &Path) -> Result<Script, ReportError> {
    let malformed = |why| ReportError::Malformed { path: path.to_owned(), why };
    let replay: Replay =
        serde_json::from_str(&read_text(path)?).map_err(|error| malformed(error.to_string()))?;
    if replay.version != VERSION {
        return Err(malformed(format!("its version is {}, not {VERSION}", replay.version)));
    }
    replay.script.plan.check().map_err(malformed)?;
    replay.script.size.check().map_err(malformed)?;
    Ok(replay.script)
}

fn read_text(path: &Path) -> Result<String, ReportError> {
    let file = |action| move |source| ReportError::File { action, path: path.to_owned(), source };
    if fs::metadata(path).map_err(file("look at"))?.len() > LARGEST_BYTES {
        return Err(ReportError::TooLarge { path: path.to_owned() });
    }
    fs::read_to_string(path).map_err(file("read"))
}

fn write(path: &Path, text: &str) -> Result<(), ReportError> {
    let action = "write";
    fs::write(path, text).map_err(|source| ReportError::File {
        action,
        path: path.to_owned(),
        source,
    })
}
