//! `holdfastctl`: shows and controls a running Holdfast, and checks its configuration.
//!
//! In reading order: `command` is the command line; `session` asks the supervisor, `top` and
//! `trace` again and again; `render` turns
//! answers into text and `output` writes it; `exit` says how each failure ends.
//!
//! **Architecture Invariant:** nothing here touches the kernel's objects, the worker or the state
//! directory. What is to be done is asked of the supervisor, and what is shown is what it said.
#![forbid(unsafe_code)]

mod command;
mod exit;
mod output;
mod render;
mod session;
mod top;
mod trace;

use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use holdfast_config::Diagnostic;
use serde::Serialize;

use command::{CommandLine, Options, Verb};
use exit::{Failure, REFUSED};
use render::{BAD, paint};
use session::{Session, SessionError};

/// This program's version.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a configuration may say, for editors and other programs.
const SCHEMA: &[u8] = include_bytes!("../../docs/configuration.schema.json");

fn main() -> ExitCode {
    let CommandLine { options, verb } = CommandLine::parse();
    run(&options, verb).unwrap_or_else(|failure| {
        anstream::eprintln!("{} {failure}", paint(BAD, "holdfastctl:"));
        failure.code()
    })
}

fn run(options: &Options, verb: Verb) -> Result<ExitCode, Failure> {
    let session = Session::new(&options.instance, &options.socket());
    let json = options.json;
    match verb {
        Verb::Status => show(json, &session.status()?, render::status::status)?,
        Verb::Services => show(json, session.services()?.as_slice(), render::rows::services)?,
        Verb::Top(pace) => top::top(json, &pace, &session)?,
        Verb::Trace(following) => trace::trace(json, &following, &session)?,
        Verb::Endpoints => show(json, session.endpoints()?.as_slice(), render::rows::endpoints)?,
        Verb::Policies => show(json, session.policies()?.as_slice(), render::policies::policies)?,
        Verb::Links => show(json, session.status()?.links.as_slice(), render::rows::links)?,
        Verb::Reload => return reload(json, &session),
        Verb::Uninstall => {
            let removed = session.uninstall()?;
            show(json, &Uninstalled { removed: &removed.items }, |all| {
                render::outcome::uninstalled(all.removed)
            })?;
            // Not closed before the kernel does it, which is when the exit status is settled.
            std::mem::forget(removed);
        }
        Verb::Check { path } => return check(json, &path),
        Verb::Schema => output::bytes(SCHEMA)?,
        Verb::Version => version(json, &session)?,
        Verb::Completions { shell } => {
            // Into memory first: the generator panics when the pipe is closed.
            let mut script = Vec::new();
            let mut command = CommandLine::command();
            clap_complete::generate(shell, &mut command, "holdfastctl", &mut script);
            output::bytes(&script)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes `value` as JSON, or as `render` says it.
fn show<T: Serialize + ?Sized>(
    json: bool,
    value: &T,
    render: impl FnOnce(&T) -> String,
) -> Result<(), Failure> {
    let written = if json { output::json(value) } else { output::text(&render(value)) };
    Ok(written?)
}

/// `uninstall --json`.
#[derive(Serialize)]
struct Uninstalled<'a> {
    removed: &'a [String],
}

/// `reload --json` when the new worker is refused.
#[derive(Serialize)]
struct Refused<'a> {
    reason: &'a str,
}

fn reload(json: bool, session: &Session) -> Result<ExitCode, Failure> {
    match session.reload() {
        Ok(outcome) => {
            show(json, &outcome, |outcome| render::outcome::reloaded(*outcome))?;
            Ok(ExitCode::SUCCESS)
        }
        // An outcome too: a program that asked for JSON gets it as such.
        Err(SessionError::Failed { reason }) if json => {
            output::json(&Refused { reason: &reason })?;
            Ok(ExitCode::from(REFUSED))
        }
        Err(error) => Err(error.into()),
    }
}

/// One error of `check --json`.
#[derive(Serialize)]
struct ErrorRow<'a> {
    file: &'a str,
    line: u32,
    column: u32,
    message: &'a str,
}

impl<'a> From<&'a Diagnostic> for ErrorRow<'a> {
    fn from(error: &'a Diagnostic) -> Self {
        let (line, column) = (error.line(), error.column());
        Self { file: error.file(), line, column, message: error.message() }
    }
}

fn check(json: bool, path: &Path) -> Result<ExitCode, Failure> {
    let sources = match holdfast_config::read(path) {
        // Too much of it is an error in it, but one without a place.
        Err(error) if json && error.is_over_limit() => {
            let (file, message) = (path.display().to_string(), error.to_string());
            output::json(&[ErrorRow { file: &file, line: 1, column: 1, message: &message }])?;
            return Ok(ExitCode::from(REFUSED));
        }
        read => read?,
    };
    match holdfast_config::parse(&sources) {
        Ok(config) => {
            if json {
                output::json::<[ErrorRow<'_>]>(&[])?;
            } else {
                output::text(&render::check::valid(&config))?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(errors) => {
            if json {
                let rows: Vec<ErrorRow<'_>> = errors.iter().map(ErrorRow::from).collect();
                output::json(&rows)?;
            } else {
                output::text(&render::check::invalid(&errors, output::is_terminal()))?;
            }
            Ok(ExitCode::from(REFUSED))
        }
    }
}

/// `version --json`.
#[derive(Serialize)]
struct Versions {
    holdfastctl: &'static str,
    /// Of the running supervisor; null when it cannot be asked.
    supervisor: Option<String>,
}

fn version(json: bool, session: &Session) -> Result<(), Failure> {
    let (supervisor, reason) = match session.status() {
        Ok(status) => (Some(status.supervisor.version), String::new()),
        Err(SessionError::NotRunning { .. }) => (None, "not running".to_owned()),
        Err(error) => (None, error.to_string()),
    };
    show(json, &Versions { holdfastctl: VERSION, supervisor }, |versions| {
        render::outcome::version(VERSION, versions.supervisor.as_deref().ok_or(&reason))
    })
}
