//! `holdfast run` as a guard, and faults against its worker.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use holdfast_protocol::control::{SOCKET_NAME, Status};
use nix::sys::signal::Signal;

use crate::binaries;
use crate::control;
use crate::error::LabError;
use crate::inside::{Ended, Lab};
use crate::process::{self, Process};
use crate::wait::{PATIENCE, eventually, holds};

/// `worker.state` of a worker that writes.
pub const GRANTED: &str = "granted";

/// The subcommand by which a worker is told from a loader.
const SERVE: &str = "serve";

/// What an undertaker is called.
const UNDERTAKER: &str = "hf-undertaker";

/// How long a supervisor may take to leave before it is killed.
const LEAVE: Duration = Duration::from_secs(20);

/// A supervisor about to be started.
#[derive(Debug)]
pub struct Launch<'a> {
    lab: &'a Lab,
    binary: Option<PathBuf>,
    program: Option<Vec<OsString>>,
    log: Option<File>,
    options: BTreeMap<&'static str, OsString>,
    flags: Vec<&'static str>,
}

/// A running `holdfast run`. Dropping it ends the process, kindly first; governance stays, as
/// always.
#[derive(Debug)]
pub struct Supervisor {
    child: Child,
    process: Process,
    socket: PathBuf,
    log: PathBuf,
}

impl<'a> Launch<'a> {
    pub(crate) fn new(lab: &'a Lab, configuration: &Path) -> Self {
        let options = BTreeMap::from([
            ("--config", configuration.into()),
            ("--instance", crate::inside::INSTANCE.into()),
            ("--cgroup", lab.governed().into()),
            ("--bpffs", lab.bpffs().into()),
            ("--state-dir", lab.state_directory().into()),
            ("--run-dir", lab.run_directory().into()),
            ("--log-format", "json".into()),
        ]);
        Self { lab, binary: None, program: None, log: None, options, flags: Vec::new() }
    }

    /// With another value for an option.
    #[must_use]
    pub fn with(mut self, option: &'static str, value: impl AsRef<OsStr>) -> Self {
        self.options.insert(option, value.as_ref().to_owned());
        self
    }

    /// From another binary than the one that was built.
    #[must_use]
    pub fn binary(mut self, path: &Path) -> Self {
        self.binary = Some(path.to_owned());
        self
    }

    /// With an option that takes no value.
    #[must_use]
    pub fn flag(mut self, flag: &'static str) -> Self {
        self.flags.push(flag);
        self
    }

    /// With its log in `file`, a pipe for one, and not in the lab's directory.
    #[must_use]
    pub fn logging_to(mut self, file: File) -> Self {
        self.log = Some(file);
        self
    }

    /// Started by another program, whose last argument precedes `holdfast`.
    #[must_use]
    pub fn under(mut self, program: &[&str]) -> Self {
        self.program = Some(program.iter().map(Into::into).collect());
        self
    }

    /// Starts it, without waiting for anything.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn spawn(mut self) -> Result<Supervisor, LabError> {
        let log = unused_log(self.lab);
        let file = match self.log.take() {
            Some(file) => file,
            None => File::create(&log).map_err(LabError::file("create", &log))?,
        };
        let copy = file.try_clone().map_err(LabError::file("duplicate", &log))?;
        let mut command = self.command()?;
        let child = command
            .stdin(Stdio::null())
            .stdout(copy)
            .stderr(file)
            .spawn()
            .map_err(LabError::system("start holdfast"))?;
        let process = Process::open(child.id()).map_err(LabError::system("watch holdfast"))?;
        let socket = self.socket();
        Ok(Supervisor { child, process, socket, log })
    }

    /// Starts it, and waits until its first worker is granted.
    ///
    /// # Errors
    ///
    /// When it cannot be started, ends instead, or takes too long.
    pub fn start(self) -> Result<Supervisor, LabError> {
        let mut supervisor = self.spawn()?;
        supervisor.wait_for_grant()?;
        Ok(supervisor)
    }

    /// Runs it to its end, for one that is expected to refuse.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn run(self) -> Result<Ended, LabError> {
        Ended::run(&mut self.command()?)
    }

    /// Where it is going to listen, by its options.
    fn socket(&self) -> PathBuf {
        let option = |name| self.options.get(name).map(PathBuf::from).unwrap_or_default();
        option("--run-dir").join(option("--instance")).join(SOCKET_NAME)
    }

    fn command(&self) -> Result<Command, LabError> {
        let holdfast = match &self.binary {
            Some(path) => path.clone(),
            None => binaries::find(binaries::SUPERVISOR)?,
        };
        let mut command = match self.program.as_deref() {
            Some([program, arguments @ ..]) => {
                let mut command = self.lab.beside(program)?;
                command.args(arguments).arg(holdfast);
                command
            }
            _ => self.lab.beside(holdfast)?,
        };
        command.arg("run");
        for (option, value) in &self.options {
            command.arg(option).arg(value);
        }
        command.args(&self.flags);
        Ok(command)
    }
}

impl Supervisor {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Where its log is.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// What it says about itself.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub fn status(&self) -> Result<Status, LabError> {
        control::status(&self.socket)
    }

    /// Waits until its status is as `wanted`, and gives that status.
    ///
    /// # Errors
    ///
    /// When it ends instead, or takes too long.
    pub fn wait_until(
        &mut self,
        what: &str,
        mut wanted: impl FnMut(&Status) -> bool,
    ) -> Result<Status, LabError> {
        let seen = eventually(what, || {
            if let Ok(Some(end)) = self.child.try_wait() {
                return Ok(Err(self.ended_instead(what, end)));
            }
            let status = self.status().map_err(|error| error.to_string())?;
            if wanted(&status) { Ok(Ok(status)) } else { Err(format!("{status:?}")) }
        });
        seen?
    }

    /// Waits until a worker is granted.
    ///
    /// # Errors
    ///
    /// As [`Supervisor::wait_until`].
    pub fn wait_for_grant(&mut self) -> Result<Status, LabError> {
        self.wait_until("a granted worker", |status| status.worker.state == GRANTED)
    }

    /// Waits until a worker other than the one of `epoch` is granted.
    ///
    /// # Errors
    ///
    /// As [`Supervisor::wait_until`].
    pub fn wait_for_grant_after(&mut self, epoch: u64) -> Result<Status, LabError> {
        self.wait_until("a newly granted worker", |status| {
            status.worker.state == GRANTED && status.epoch > epoch
        })
    }

    /// Its workers that run: the one that writes, one on its way, one on its way out.
    ///
    /// Read from `/proc`, so that a fault can hit a worker the supervisor has not spoken of yet.
    #[must_use]
    pub fn workers(&self) -> Vec<u32> {
        workers_of(self.pid())
    }

    /// Kills the worker `pid` with `SIGKILL`. False when there is no such worker of this supervisor
    /// that is alive, in which case nothing was done.
    pub fn kill_worker(&self, pid: u32) -> bool {
        // The descriptor comes first: whatever is read about the id afterwards is about this
        // process, or the signal finds it gone.
        let Ok(worker) = Process::open(pid) else { return false };
        let is_ours = process::parent(pid).is_ok_and(|parent| parent == self.pid());
        is_ours
            && is_worker(pid)
            && process::is_alive(pid)
            && worker.signal(Signal::SIGKILL).is_ok()
    }

    /// Sends it `signal`.
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Result<(), LabError> {
        self.process.signal(signal).map_err(LabError::system(format!("send holdfast {signal}")))
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    ///
    /// When the kernel does not say.
    pub fn has_ended(&mut self) -> Result<Option<ExitStatus>, LabError> {
        self.child.try_wait().map_err(LabError::system("look after holdfast"))
    }

    /// Sends it `signal` and waits until it has ended.
    ///
    /// # Errors
    ///
    /// When it stays.
    pub fn end(mut self, signal: Signal) -> Result<ExitStatus, LabError> {
        self.signal(signal)?;
        eventually("holdfast to end", || match self.child.try_wait() {
            Ok(Some(end)) => Ok(end),
            Ok(None) => Err("it runs".to_owned()),
            Err(error) => Err(error.to_string()),
        })
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    ///
    /// When it stays.
    pub fn ended(&mut self) -> Result<ExitStatus, LabError> {
        let waited = self.process.wait(PATIENCE).map_err(LabError::system("wait for holdfast"))?;
        holds(waited, || "holdfast goes on".to_owned()).map_err(LabError::Unexpected)?;
        self.child.wait().map_err(LabError::system("wait for holdfast"))
    }

    fn ended_instead(&self, what: &str, end: ExitStatus) -> LabError {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        LabError::Unexpected(format!("holdfast ended ({end}) before {what}; its log:\n{log}"))
    }

    fn leave(&mut self) -> io::Result<()> {
        if self.child.try_wait()?.is_none() {
            self.process.signal(Signal::SIGTERM)?;
            if !self.process.wait(LEAVE)? {
                self.process.signal(Signal::SIGKILL)?;
            }
            self.child.wait()?;
        }
        Ok(())
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        if let Err(error) = self.leave() {
            eprintln!("holdfast-lab: the supervisor {} may still run: {error}", self.pid());
        }
    }
}

/// The workers that run of the supervisor with this process id.
#[must_use]
pub fn workers_of(supervisor: u32) -> Vec<u32> {
    let children = process::children(supervisor).unwrap_or_default();
    children.into_iter().filter(|pid| is_worker(*pid) && process::is_alive(*pid)).collect()
}

/// Whether the process `pid` was started to serve, by whichever supervisor.
#[must_use]
pub fn is_worker(pid: u32) -> bool {
    serves(pid) && !is_undertaker(pid)
}

/// Whether the process `pid` has a worker's memory, and so what that has mapped, and executes nothing. Its
/// parent tells until it has its name, and its name when the parent is dead.
#[must_use]
pub fn is_undertaker(pid: u32) -> bool {
    process::status(pid, "Name").is_ok_and(|name| name == UNDERTAKER)
        || process::parent(pid).is_ok_and(serves)
}

/// Whether the arguments of the process `pid` are those of a worker.
fn serves(pid: u32) -> bool {
    process::arguments(pid).is_ok_and(|arguments| arguments.iter().any(|text| text == SERVE))
}

fn unused_log(lab: &Lab) -> PathBuf {
    static STARTED: AtomicU32 = AtomicU32::new(0);
    let count = STARTED.fetch_add(1, Ordering::Relaxed);
    lab.directory().join(format!("supervisor-{count}.log"))
}
