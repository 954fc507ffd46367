//! What faults are injected into: the supervisor, its workers, its files.

use std::cell::RefCell;
use std::path::PathBuf;

use holdfast_lab::inside::INSTANCE;
use holdfast_lab::supervisor::is_worker;
use holdfast_lab::{Lab, LabError, Supervisor, cgroup, process};
use nix::sys::signal::Signal;

use crate::load::configuration::Configuration;
use crate::watch::Watch;

/// Everything that an injector may touch. It lives on one thread: a supervisor dies with the thread
/// that has started it.
pub struct Stage<'l> {
    /// The patch of the machine.
    pub lab: &'l Lab,
    /// The configuration file.
    pub configuration: &'l Configuration<'l>,
    watch: &'l Watch<'l>,
    supervisor: RefCell<Option<Supervisor>>,
    troubles: RefCell<Vec<String>>,
}

impl<'l> Stage<'l> {
    /// With a running supervisor.
    pub fn new(
        lab: &'l Lab,
        configuration: &'l Configuration<'l>,
        watch: &'l Watch<'l>,
        supervisor: Supervisor,
    ) -> Self {
        let supervisor = RefCell::new(Some(supervisor));
        Self { lab, configuration, watch, supervisor, troubles: RefCell::default() }
    }

    /// Microseconds since the run began.
    pub fn now_us(&self) -> u64 {
        self.watch.now_us()
    }

    /// The directory of the pins.
    pub fn pins(&self) -> PathBuf {
        pins(self.lab)
    }

    /// The snapshot of the last good configuration.
    pub fn snapshot(&self) -> PathBuf {
        self.lab.state_directory().join(INSTANCE).join("snapshot")
    }

    /// The worker that was granted last, as far as was seen.
    pub fn granted(&self) -> Option<u32> {
        self.watch.granted()
    }

    /// The supervisor's process id, while one runs.
    pub fn supervisor_pid(&self) -> Option<u32> {
        self.supervisor.borrow().as_ref().map(Supervisor::pid)
    }

    /// The workers of the supervisor that runs.
    pub fn workers(&self) -> Vec<u32> {
        self.supervisor.borrow().as_ref().map(Supervisor::workers).unwrap_or_default()
    }

    /// The supervisor and its workers.
    pub fn processes(&self) -> Vec<u32> {
        self.supervisor_pid().into_iter().chain(self.workers()).collect()
    }

    /// Kills a worker; false when it is none of this supervisor's that is alive.
    pub fn kill_worker(&self, pid: u32) -> bool {
        self.supervisor.borrow().as_ref().is_some_and(|supervisor| supervisor.kill_worker(pid))
    }

    /// Sends the supervisor a signal.
    pub fn signal(&self, signal: Signal) -> Result<(), LabError> {
        let nobody = || LabError::Unexpected("no supervisor runs".to_owned());
        self.supervisor.borrow().as_ref().ok_or_else(nobody)?.signal(signal)
    }

    /// Kills the supervisor, and says which process it was.
    pub fn kill_supervisor(&self) -> Result<u32, LabError> {
        let nobody = || LabError::Unexpected("no supervisor runs".to_owned());
        let supervisor = self.supervisor.borrow_mut().take().ok_or_else(nobody)?;
        let pid = supervisor.pid();
        supervisor.end(Signal::SIGKILL).map(|_| pid)
    }

    /// Starts a supervisor, as whatever watches over it would.
    pub fn start_supervisor(&self) {
        match self.lab.supervisor(self.configuration.path()).spawn() {
            Ok(supervisor) => *self.supervisor.borrow_mut() = Some(supervisor),
            Err(error) => self.trouble(format!("the supervisor does not start again: {error}")),
        }
    }

    /// Starts another supervisor if the one that ran has ended without being asked to, and says how
    /// it had ended.
    pub fn look_after_supervisor(&self) -> Option<String> {
        let ended = match self.supervisor.borrow_mut().as_mut()?.has_ended() {
            Ok(ended) => ended?.to_string(),
            Err(error) => error.to_string(),
        };
        let log = self.log_end();
        self.start_supervisor();
        Some(format!("the supervisor ended by itself ({ended}): {log}"))
    }

    /// The last lines of the supervisor's log.
    pub fn log_end(&self) -> String {
        /// Enough to see what came before the end.
        const LINES: usize = 5;
        let borrowed = self.supervisor.borrow();
        let log =
            borrowed.as_ref().and_then(|supervisor| std::fs::read_to_string(supervisor.log()).ok());
        let log = log.unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join(" | ")
    }

    /// Something could not be undone.
    pub fn trouble(&self, what: String) {
        self.troubles.borrow_mut().push(what);
    }

    /// What could not be undone since the last time somebody asked.
    pub fn troubles(&self) -> Vec<String> {
        self.troubles.take()
    }

    /// The supervisor, for its end.
    pub fn into_supervisor(self) -> Option<Supervisor> {
        self.supervisor.into_inner()
    }
}

/// The directory of the lab's pins.
pub fn pins(lab: &Lab) -> PathBuf {
    lab.bpffs().join("holdfast").join(INSTANCE)
}

/// Every worker beside the governed cgroup that runs, of whichever supervisor.
pub fn all_workers(lab: &Lab) -> Result<Vec<u32>, LabError> {
    let beside = cgroup::processes(&lab.control())?;
    Ok(beside.into_iter().filter(|pid| is_worker(*pid) && process::is_alive(*pid)).collect())
}
