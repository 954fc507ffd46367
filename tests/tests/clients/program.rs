//! Programs of the distribution as guards: whatever ends a test ends them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use holdfast_lab::process::Process;
use holdfast_lab::wait::holds;
use holdfast_lab::{Lab, LabError, TestResult, eventually};
use nix::sys::signal::Signal;

/// How long a program may take to leave before it is killed: PostgreSQL writes a last checkpoint.
const LEAVE: Duration = Duration::from_secs(10);

/// Time enough for a client to complain of an address where nobody listens, which refuses at once.
/// redis-benchmark complains and goes on for ever.
const MOMENT: Duration = Duration::from_secs(2);

/// A running program, whose output goes to a file. Dropping it ends the process, kindly first.
#[derive(Debug)]
pub struct Program {
    child: Child,
    process: Process,
    log: PathBuf,
}

impl Program {
    /// Starts `command`, with what it prints and complains of in `NAME.log`.
    ///
    /// # Errors
    ///
    /// When it is not installed.
    pub fn start(lab: &Lab, name: &str, mut command: Command) -> Result<Self, LabError> {
        let log = lab.directory().join(format!("{name}.log"));
        let file = File::create(&log).map_err(LabError::file("create", &log))?;
        let copy = file.try_clone().map_err(LabError::file("duplicate", &log))?;
        let action = format!("start {:?}: run tools/setup", command.get_program());
        let child = command
            .current_dir(lab.directory())
            .stdin(Stdio::null())
            .stdout(copy)
            .stderr(file)
            .spawn()
            .map_err(LabError::system(action))?;
        let process = Process::open(child.id()).map_err(LabError::system("watch a program"))?;
        Ok(Self { child, process, log })
    }

    /// What it has printed so far.
    ///
    /// # Errors
    ///
    /// When the file is gone.
    pub fn printed(&self) -> Result<String, LabError> {
        let bytes = fs::read(&self.log).map_err(LabError::file("read", &self.log))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Waits at most `deadline` for its end; says whether it has ended.
    ///
    /// # Errors
    ///
    /// When the kernel does not say.
    pub fn has_ended_within(&self, deadline: Duration) -> Result<bool, LabError> {
        self.process.wait(deadline).map_err(LabError::system("wait for a program"))
    }

    /// What it says when it is given a moment, in which nothing else happens, and then ended.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn said_in_a_moment(mut self) -> Result<Report, LabError> {
        if !self.has_ended_within(MOMENT)? {
            self.leave().map_err(LabError::system("end a program"))?;
        }
        self.report()
    }

    /// What a program that has ended leaves.
    ///
    /// # Errors
    ///
    /// When the kernel does not say.
    pub fn report(mut self) -> Result<Report, LabError> {
        let end = self.child.wait().map_err(LabError::system("reap a program"))?;
        Ok(Report { code: end.code(), text: self.printed()? })
    }

    /// Waits until `probe` succeeds, which it does once the program serves.
    ///
    /// # Errors
    ///
    /// When it ends instead, or takes too long.
    pub fn wait_until<T, E: std::fmt::Display>(
        &self,
        what: &str,
        mut probe: impl FnMut() -> Result<T, E>,
    ) -> Result<T, LabError> {
        eventually(what, || match self.has_ended_within(Duration::ZERO) {
            Ok(true) => Ok(Err(format!("it ended before {what}: {:?}", self.printed()))),
            Ok(false) => probe().map(Ok).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        })?
        .map_err(LabError::Unexpected)
    }

    fn leave(&mut self) -> std::io::Result<()> {
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

impl Drop for Program {
    fn drop(&mut self) {
        if let Err(error) = self.leave() {
            eprintln!("the program {} may still run: {error}", self.child.id());
        }
    }
}

/// What a program that has ended said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it printed and complained of.
    pub text: String,
}

impl Report {
    /// The whole number behind `label`, wherever that stands.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn number_after(&self, label: &str) -> Result<u64, String> {
        let rest = self.text.split_once(label).map(|(_, rest)| rest.trim_start());
        let digits = rest.map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
        let number = digits.flatten().and_then(|digits| digits.parse().ok());
        number.ok_or_else(|| format!("no number after `{label}`: {self:?}"))
    }

    /// Whether it said one of `complaints`.
    #[must_use]
    pub fn complains(&self, complaints: &[&str]) -> bool {
        complaints.iter().any(|complaint| self.text.contains(complaint))
    }

    /// `Ok` when it ended well and said none of `complaints`.
    ///
    /// # Errors
    ///
    /// The whole report.
    pub fn is_free_of(&self, complaints: &[&str]) -> Result<(), String> {
        let well = self.code == Some(0) && !self.complains(complaints);
        holds(well, || format!("exit {:?}: {}", self.code, self.text))
    }
}

/// A command that runs beside the governed cgroup as `user`, with the groups of that user, and is
/// killed when this thread ends.
///
/// # Errors
///
/// When the cgroup's path cannot be used.
pub fn server_as(lab: &Lab, user: &str, program: &str) -> Result<Command, LabError> {
    let mut command = lab.beside("setpriv")?;
    command.arg(format!("--reuid={user}")).arg(format!("--regid={user}"));
    // The kernel forgets the signal of a parent's death with a change of the user.
    command.args(["--init-groups", "--pdeathsig=KILL", "--", program]);
    Ok(command)
}

/// A directory of the lab that belongs to `user`.
///
/// # Errors
///
/// When there is no such user: its package is not installed.
pub fn directory_of(lab: &Lab, user: &str) -> Result<PathBuf, Box<dyn std::error::Error>> {
    let path = lab.directory().join(user);
    fs::create_dir(&path)?;
    give(&path, user)?;
    Ok(path)
}

fn give(path: &Path, user: &str) -> TestResult {
    let found = nix::unistd::User::from_name(user)?;
    let user = found.ok_or_else(|| format!("there is no user {user}: run tools/setup"))?;
    nix::unistd::chown(path, Some(user.uid), Some(user.gid))?;
    Ok(())
}
