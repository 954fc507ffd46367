//! One instance through restarts of every size.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use holdfast_lab::process::Process;
use holdfast_lab::supervisor::{GRANTED, Launch};
use holdfast_lab::wait::holds;
use holdfast_lab::{
    Backend, Census, Lab, LabError, Stream, Supervisor, Target, TestResult, cgroup, eventually,
    render,
};
use holdfast_protocol::control::{LinkStatus, Status};
use nix::sys::signal::Signal;

use crate::scene::{Scene, WEB, assert_reached, put_in_force, wait_until_reached, web};

/// A restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// SIGHUP: the worker is replaced gracefully.
    Reload,
    /// The worker is killed.
    WorkerKilled,
    /// The worker is stopped until it is found to hang. Takes the supervisor three seconds.
    WorkerHung,
    /// SIGUSR2: the supervisor becomes the binary on disk.
    SupervisorReplaced,
    /// SIGTERM, and another start.
    SupervisorTerminated,
    /// SIGKILL, and another start.
    SupervisorKilled,
}

impl Restart {
    /// Those that take milliseconds.
    pub const QUICK: [Self; 5] = [
        Self::Reload,
        Self::WorkerKilled,
        Self::SupervisorReplaced,
        Self::SupervisorTerminated,
        Self::SupervisorKilled,
    ];

    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Reload,
        Self::WorkerKilled,
        Self::WorkerHung,
        Self::SupervisorReplaced,
        Self::SupervisorTerminated,
        Self::SupervisorKilled,
    ];
}

/// An instance, and with which arguments its supervisor is started each time.
#[derive(Debug)]
pub struct Life<'a> {
    lab: &'a Lab,
    file: PathBuf,
    options: Vec<(&'static str, OsString)>,
    supervisor: Option<Supervisor>,
}

impl<'a> Life<'a> {
    /// An instance that nobody serves yet, with the configuration `file`.
    #[must_use]
    pub const fn new(lab: &'a Lab, file: PathBuf) -> Self {
        Self { lab, file, options: Vec::new(), supervisor: None }
    }

    /// With another value for an option of `holdfast run`.
    #[must_use]
    pub fn with(mut self, option: &'static str, value: impl AsRef<OsStr>) -> Self {
        self.options.push((option, value.as_ref().to_owned()));
        self
    }

    /// A supervisor with this instance's arguments, to be started.
    #[must_use]
    pub fn launch(&self) -> Launch<'a> {
        let launch = self.lab.supervisor(&self.file);
        self.options.iter().fold(launch, |launch, (option, value)| launch.with(option, value))
    }

    /// The configuration's path.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Starts the supervisor, and waits for a granted worker.
    ///
    /// # Errors
    ///
    /// When there is none in time.
    pub fn start(&mut self) -> Result<Status, LabError> {
        let supervisor = self.supervisor.insert(self.launch().spawn()?);
        supervisor.wait_for_grant()
    }

    /// Ends the supervisor with `signal`, and waits until its last process is gone.
    ///
    /// # Errors
    ///
    /// When one stays.
    pub fn end(&mut self, signal: Signal) -> Result<(), LabError> {
        if let Some(supervisor) = self.supervisor.take() {
            supervisor.end(signal)?;
        }
        wait_until_nobody_is_left(self.lab)
    }

    /// The running supervisor.
    ///
    /// # Panics
    ///
    /// When none was started.
    pub const fn supervisor(&mut self) -> &mut Supervisor {
        self.supervisor.as_mut().expect("it was started")
    }

    /// Restarts it, and waits until a worker is granted again.
    ///
    /// # Errors
    ///
    /// When there is none in time.
    pub fn restart(&mut self, restart: Restart) -> Result<Status, LabError> {
        let before = self.supervisor().status()?;
        match restart {
            Restart::Reload => self.supervisor().signal(Signal::SIGHUP)?,
            Restart::WorkerKilled => self.strike(before.worker.pid, Signal::SIGKILL)?,
            Restart::WorkerHung => self.strike(before.worker.pid, Signal::SIGSTOP)?,
            Restart::SupervisorReplaced => {
                self.supervisor().signal(Signal::SIGUSR2)?;
                return self.supervisor().wait_until("the replacement", |status| {
                    status.replacements.count > before.replacements.count
                        && status.worker.state == GRANTED
                });
            }
            Restart::SupervisorTerminated => return self.begin_again(Signal::SIGTERM),
            Restart::SupervisorKilled => return self.begin_again(Signal::SIGKILL),
        }
        self.supervisor().wait_for_grant_after(before.epoch)
    }

    fn begin_again(&mut self, signal: Signal) -> Result<Status, LabError> {
        // The next one starts at once, as under a service manager: nobody waits for workers.
        let supervisor = self.supervisor.take();
        supervisor.map_or(Ok(()), |supervisor| supervisor.end(signal).map(drop))?;
        self.start()
    }

    fn strike(&mut self, worker: u32, signal: Signal) -> Result<(), LabError> {
        let process = Process::open(worker).map_err(LabError::system("find the worker"))?;
        let is_ours = self.supervisor().workers().contains(&worker);
        holds(is_ours, || format!("{worker} is no worker of this supervisor"))
            .map_err(LabError::Unexpected)?;
        process.signal(signal).map_err(LabError::system(format!("send the worker {signal}")))
    }
}

/// Waits until neither a supervisor nor a child of one runs in the lab.
///
/// # Errors
///
/// When one stays.
pub fn wait_until_nobody_is_left(lab: &Lab) -> Result<(), LabError> {
    eventually("the last process to leave", || {
        let left = cgroup::processes(&lab.control()).map_err(|error| error.to_string())?;
        holds(left.is_empty(), || format!("{left:?}"))
    })
}

/// What identifies the links, whoever serves.
#[must_use]
pub fn identity(status: &Status) -> Vec<(u32, u32, String)> {
    let identity = |link: &LinkStatus| (link.link_id, link.prog_id, link.attach_type.clone());
    status.links.iter().map(identity).collect()
}

/// Ends the supervisor with `signal`: governance stays, and the next one takes over what is there.
///
/// # Errors
///
/// When the kernel or a process refuses.
///
/// # Panics
///
/// When anything is otherwise.
pub fn governance_outlives(lab: &Lab, signal: Signal) -> TestResult {
    let Scene { red, file, supervisor } = Scene::start(lab)?;
    let target = Target::tcp(WEB, &["red"]);
    let before = supervisor.status()?;
    let census = Census::take(lab, &Census::default())?;
    let stream = Stream::open(WEB, 11)?;

    let end = supervisor.end(signal)?;
    assert_eq!(end.success(), signal != Signal::SIGKILL, "{end}");
    wait_until_nobody_is_left(lab)?;
    for _ in 0..100 {
        assert_reached(&target);
    }

    let mut supervisor = lab.supervisor(&file).start()?;
    let after = supervisor.status()?;
    assert_eq!(identity(&after), identity(&before), "adopted, not made again");
    assert!(after.links.iter().all(|link| link.ok && link.pinned), "{after:?}");
    assert!(after.epoch > before.epoch, "epochs go on: {} then {}", before.epoch, after.epoch);
    assert_eq!(Census::take(lab, &census)?.objects, census.objects, "nothing was made twice");
    assert_reached(&target);
    let blue = Backend::tcp("blue")?;
    put_in_force(lab, &mut supervisor, &render(&[web(&blue)]))?;
    wait_until_reached(&Target::tcp(WEB, &["blue"]))?;

    let end = stream.finish();
    assert!(end.broken.is_none() && end.bytes > 0, "{end:?}");
    drop(red);
    Ok(())
}
