//! A container as a guard: `runc run` in the foreground, and what else a runtime asks of runc.

use std::error::Error;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use holdfast_lab::inside::{Ended, INSTANCE};
use holdfast_lab::process::Process;
use holdfast_lab::supervisor::GRANTED;
use holdfast_lab::wait::{PATIENCE, holds};
use holdfast_lab::{Lab, LabError, cgroup, control, eventually};
use holdfast_protocol::control::{SOCKET_NAME, Status};

use crate::bundle::{Bundle, cgroup_path};

/// runc looks for the cgroup hierarchy at one place only. A machine that has cgroup2 elsewhere gets
/// it there in a mount namespace of its own, which is what the container's is made from.
const AT_THE_USUAL_PLACE: &str = "mount --bind \"$0\" /sys/fs/cgroup && exec runc \"$@\"";

/// A running container; removed when dropped, whatever state it is in.
pub struct Container<'a> {
    lab: &'a Lab,
    name: String,
    child: Child,
    runtime: Process,
    run: PathBuf,
    log: PathBuf,
}

/// `runc` with these arguments, to be run in `lab`.
fn runc(lab: &Lab, arguments: &[&str]) -> Result<Command, LabError> {
    let mut command = lab.beside("unshare")?;
    command.args(["--mount", "sh", "-c", AT_THE_USUAL_PLACE]).arg(cgroup::mount_point()?);
    command.arg("--root").arg(lab.directory().join("runc")).args(arguments);
    Ok(command)
}

impl<'a> Container<'a> {
    /// Starts it, without waiting for anything.
    pub fn spawn(lab: &'a Lab, bundle: &Bundle<'_>) -> Result<Self, Box<dyn Error>> {
        let name = unused_name();
        let path = bundle.write(&name)?;
        Self::run(lab, name, &path, bundle.run_directory())
    }

    /// Starts what is laid out in `path`, whatever it is. `run` is removed when it has ended.
    pub fn run(
        lab: &'a Lab,
        name: String,
        path: &Path,
        run: &Path,
    ) -> Result<Self, Box<dyn Error>> {
        let log = lab.directory().join(format!("{name}.log"));
        let file = File::create(&log).map_err(LabError::file("create", &log))?;
        let mut command = runc(lab, &["run", "--bundle"])?;
        command.arg(path).arg(&name).stdin(Stdio::null());
        command.stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().map_err(LabError::system("start runc"))?;
        let runtime = Process::open(child.id())?;
        Ok(Self { lab, name, child, runtime, run: run.to_owned(), log })
    }

    /// Starts it, and waits until its first worker is granted.
    pub fn start(lab: &'a Lab, bundle: &Bundle<'_>) -> Result<Self, Box<dyn Error>> {
        let mut container = Self::spawn(lab, bundle)?;
        container.wait_until("a granted worker", |status| status.worker.state == GRANTED)?;
        Ok(container)
    }

    /// What its supervisor says about itself.
    pub fn status(&self) -> Result<Status, LabError> {
        control::status(&self.run.join(INSTANCE).join(SOCKET_NAME))
    }

    /// Waits until its status is as `wanted`, and gives that status.
    pub fn wait_until(
        &mut self,
        what: &str,
        mut wanted: impl FnMut(&Status) -> bool,
    ) -> Result<Status, LabError> {
        let seen = eventually(what, || {
            if let Ok(Some(end)) = self.child.try_wait() {
                return Ok(Err(format!("it ended ({end}) before {what}:\n{}", self.log())));
            }
            let status = self.status().map_err(|error| format!("{error}\n{}", self.log()))?;
            if wanted(&status) { Ok(Ok(status)) } else { Err(format!("{status:?}")) }
        });
        seen?.map_err(LabError::Unexpected)
    }

    /// What it printed.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Runs `runc VERB NAME ARGUMENTS`, which must succeed.
    pub fn runc(&self, verb: &[&str], arguments: &[&str]) -> Result<String, Box<dyn Error>> {
        let ended = self.try_runc(verb, arguments)?;
        match ended.code {
            Some(0) => Ok(ended.stdout),
            _ => Err(format!("runc {verb:?} {} {arguments:?}: {ended:?}", self.name).into()),
        }
    }

    /// Runs a command inside and waits for its end; that it fails is for the caller to judge.
    pub fn execute(&self, command: &[&str]) -> Result<Ended, LabError> {
        self.try_runc(&["exec"], command)
    }

    fn try_runc(&self, verb: &[&str], arguments: &[&str]) -> Result<Ended, LabError> {
        let all = [verb, &[self.name.as_str()], arguments].concat();
        Ended::run(runc(self.lab, &all)?.stdin(Stdio::null()))
    }

    /// The process that is 1 inside, as the host knows it.
    pub fn init(&self) -> Result<Process, Box<dyn Error>> {
        let state: serde_json::Value = serde_json::from_str(&self.runc(&["state"], &[])?)?;
        let pid = state["pid"].as_u64().ok_or_else(|| format!("no pid in {state}"))?;
        Ok(Process::open(u32::try_from(pid)?)?)
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// Waits for its end and that nothing is left of it; the exit code its runtime sees. Its run
    /// directory goes with it.
    pub fn ended(&mut self) -> Result<i32, Box<dyn Error>> {
        let code = self.ended_beside_another()?;
        match fs::remove_dir_all(&self.run) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(code),
        }
    }

    /// The same for one whose run directory another one may have as well: it stays.
    pub fn ended_beside_another(&mut self) -> Result<i32, Box<dyn Error>> {
        let waited = self.runtime.wait(PATIENCE)?;
        holds(waited, || format!("it goes on:\n{}", self.log()))?;
        let code = self.child.wait()?.code().ok_or("runc was killed")?;
        let own = cgroup_path(self.lab, &self.name)?;
        let path = cgroup::mount_point()?.join(own.trim_start_matches('/'));
        eventually("its cgroup to be gone", || holds(!path.exists(), || "it is there".into()))?;
        Ok(code)
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        if self.has_ended() {
            return;
        }
        let deleted = self.try_runc(&["delete", "--force"], &[]);
        if !matches!(&deleted, Ok(Ended { code: Some(0), .. })) {
            eprintln!("the container {} may still run: {deleted:?}", self.name);
            let _ended_already = self.child.kill();
        }
        let _reaped = self.child.wait();
    }
}

/// A name for the next one.
pub fn unused_name() -> String {
    static STARTED: AtomicU32 = AtomicU32::new(0);
    format!("container-{}", STARTED.fetch_add(1, Ordering::Relaxed))
}
