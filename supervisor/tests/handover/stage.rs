//! A supervisor of its own for a row of cells, with a stand-in for its children.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_lab::handover::{Fault, Said, Told};
use holdfast_lab::inside::Ended;
use holdfast_lab::supervisor::Launch;
use holdfast_lab::wait::{holds, within};
use holdfast_lab::{Lab, LabError, Supervisor, binaries, census, control, eventually, process};
use holdfast_protocol::control::{LinkStatus, Request, Response, Status};
use nix::sys::signal::Signal;

use super::cells::{Cell, Due, Expected, Turn};

/// The longest step of a takeover (30 seconds to get ready), and as much again for a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How many descriptors a supervisor may have that is short of none.
const ROOM: usize = 1024;

/// What the log says of a takeover that came to a grant, and of one that did not.
pub const OUTCOMES: [&str; 2] = ["a worker is granted", "a worker was not granted"];

/// What it says of a closer that was started.
const CLOSER: &str = "a closer closes";

pub type Outcome = Result<(), Box<dyn std::error::Error>>;

/// The places of one instance.
pub struct Place<'a> {
    lab: &'a Lab,
    name: String,
    worker: PathBuf,
}

impl<'a> Place<'a> {
    pub fn new(lab: &'a Lab, name: &str) -> Result<Self, Box<dyn std::error::Error>> {
        lab.write(&format!("{name}/script"), "")?;
        let worker = lab.directory().join(name).join("worker");
        symlink(binaries::example("scripted_worker")?, &worker)?;
        Ok(Self { lab, name: name.to_owned(), worker })
    }

    /// What the next worker does wrong.
    fn script(&self, words: &str) -> Outcome {
        self.lab.write(&format!("{}/script", self.name), words)?;
        Ok(())
    }

    /// What the next loader does wrong.
    pub fn script_loader(&self, words: &str) -> Outcome {
        self.lab.write(&format!("{}/worker.script", self.name), words)?;
        Ok(())
    }

    pub fn launch(&self) -> Launch<'_> {
        self.lab
            .supervisor(&self.lab.directory().join(&self.name).join("script"))
            .binary(Path::new(env!("CARGO_BIN_EXE_holdfast")))
            .with("--worker", &self.worker)
            .with("--instance", &self.name)
            .with("--log-format", "text")
            // Any free port: there is one for each row.
            .with("--metrics", "127.0.0.1:0")
    }

    pub fn uninstall(&self) -> Result<Ended, Box<dyn std::error::Error>> {
        let mut command = self.lab.beside(env!("CARGO_BIN_EXE_holdfast"))?;
        command.arg("uninstall").args(["--instance", &self.name]).arg("--worker").arg(&self.worker);
        command.arg("--cgroup").arg(self.lab.governed()).arg("--bpffs").arg(self.lab.bpffs());
        command.arg("--state-dir").arg(self.lab.state_directory());
        command.arg("--run-dir").arg(self.lab.run_directory());
        Ok(Ended::run(&mut command)?)
    }

    /// Everything pinned, with its id.
    pub fn pins(&self) -> Result<BTreeMap<PathBuf, u32>, LabError> {
        census::pins(self.lab, &self.name)
    }
}

/// How many descriptors `pid` has, apart from instances of inotify: those of dead workers are kept
/// for the next ones, which has a bound and a test of its own.
fn descriptors(pid: u32) -> std::io::Result<usize> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd"))?;
    // One that was closed meanwhile has no link any more.
    let links = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    Ok(links.filter(|link| link.as_os_str() != "anon_inode:inotify").count())
}

/// A supervisor that serves.
pub struct Stage<'a> {
    place: Place<'a>,
    supervisor: Supervisor,
    descriptors: usize,
    links: Vec<LinkStatus>,
    pins: BTreeMap<PathBuf, u32>,
}

impl<'a> Stage<'a> {
    pub fn start(lab: &'a Lab, name: &str) -> Result<Self, Box<dyn std::error::Error>> {
        Self::start_with(lab, name, |launch| launch)
    }

    /// The same with more options.
    pub fn start_with(
        lab: &'a Lab,
        name: &str,
        more: impl for<'l> FnOnce(Launch<'l>) -> Launch<'l>,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let place = Place::new(lab, name)?;
        let mut supervisor = more(place.launch()).start()?;
        // With two workers at a time it has had all it keeps for them: a dead one's instance of inotify
        // is kept for the next.
        control::ask(supervisor.socket(), &Request::Reload)?;
        let links = supervisor.wait_for_grant()?.links;
        let (descriptors, pins) = (descriptors(supervisor.pid())?, place.pins()?);
        Ok(Self { place, supervisor, descriptors, links, pins })
    }

    /// Has a worker make the fault of `cell`, and checks what comes of it.
    pub fn try_worker(&mut self, cell: &Cell) -> Outcome {
        let Cell { due, fault, expected } = cell;
        let logged = self.log()?.len();
        self.place.script(&script(cell))?;
        if cell.turn() == Turn::Former {
            self.reload()?;
        }
        let before = self.supervisor.status()?;
        match cell.turn() {
            Turn::Recovery => assert!(self.supervisor.kill_worker(before.worker.pid)),
            _ => self.supervisor.signal(Signal::SIGHUP)?,
        }
        if matches!(due, Due::Said(Said::Answer) | Due::Told(Told::Query)) {
            self.wait("the new worker", |status| is_granted(status, &before, 1))?;
            // Who asks is told when there is no answer; what is asked is of no importance.
            let _answer = control::ask(self.supervisor.socket(), &Request::Worker(vec![1]));
        }
        self.await_outcome(&before, expected, logged)?;
        self.await_words(logged, &format!("{fault:?} at {}", due.name()))?;
        if (*due, *fault) == (Due::Said(Said::Overdue), Fault::Early) {
            // It was said long before the grant: by nobody who may write.
            let log = self.log()?;
            holds(!log[logged..].contains(CLOSER), || log[logged..].to_owned())?;
        }
        self.check_whole()
    }

    /// Has a closer make the fault of `cell`, and checks what comes of it: words in the log.
    pub fn try_closer(&mut self, cell: &Cell) -> Outcome {
        let Cell { due, fault, expected } = cell;
        let logged = self.log()?.len();
        let before = self.supervisor.status()?;
        self.place.script_loader(&script(cell))?;
        self.place.script("once overdue")?;
        self.supervisor.signal(Signal::SIGHUP)?;
        self.await_outcome(&before, expected, logged)?;
        self.await_words(logged, &format!("{fault:?} at {}", due.name()))?;
        let pid = self.supervisor.status()?.worker.pid;
        self.await_words(logged, "a worker is granted")?;
        holds(pid != before.worker.pid, || format!("{pid} serves on"))?;
        self.check_whole()
    }

    /// Has a worker that does what `words` say take over.
    pub fn reload_with(&mut self, words: &str) -> Outcome {
        self.place.script(words)?;
        let before = self.supervisor.status()?;
        self.reload()?;
        self.wait("another worker", |status| is_granted(status, &before, 1))?;
        Ok(())
    }

    /// Kills the worker; whether the next one is told how to recognise what is in force.
    pub fn tells_successor(&mut self) -> Result<bool, Box<dyn std::error::Error>> {
        self.place.script("aloud")?;
        let (before, logged) = (self.supervisor.status()?, self.log()?.len());
        assert!(self.supervisor.kill_worker(before.worker.pid));
        self.wait("a successor", |status| is_granted(status, &before, 1))?;
        let log = self.log()?;
        let is_told = |message: Told| log[logged..].contains(&format!("told {}\n", message.name()));
        assert!(is_told(Told::InForce), "it follows a crash: {log}");
        Ok(is_told(Told::Seen))
    }

    /// Kills the worker while a spare stands by; what is logged until that is granted.
    pub fn kill_beside_spare(&mut self) -> Result<String, Box<dyn std::error::Error>> {
        let is_ready =
            |status: &Status| status.standby.as_ref().is_some_and(|spare| spare.state == "shadow");
        let before = self.wait("a spare", |status| is_ready(status))?;
        let logged = self.log()?.len();
        assert!(self.supervisor.kill_worker(before.worker.pid));
        self.wait("its grant", |status| is_granted(status, &before, 1))?;
        // What another spare is told comes after that.
        let log = self.log()?.split_off(logged);
        let grant = log.find(OUTCOMES[0]).ok_or("no grant")?;
        Ok(log[..grant].to_owned())
    }

    fn await_outcome(&mut self, before: &Status, expected: &Expected, logged: usize) -> Outcome {
        match expected {
            Expected::Kept(reason) => {
                let failed = before.takeovers.failed + 1;
                let status = self.wait("the failure", |status| {
                    status.takeovers.failed == failed && status.worker.state == "granted"
                })?;
                let said = status.takeovers.last_failure;
                holds(said.contains(reason), || format!("`{said}` does not say `{reason}`"))?;
                let (pid, old) = (status.worker.pid, before.worker.pid);
                holds(pid == old, || format!("{pid} serves instead of {old}"))?;
                // A grant that failed uses one epoch, and what is given back another.
                let epochs = status.epoch - before.epoch;
                holds(epochs <= 2, || format!("{epochs} epochs later"))?;
            }
            Expected::Granted => {
                let status = self.wait("a grant", |status| is_granted(status, before, 1))?;
                let pid = status.worker.pid;
                holds(pid != before.worker.pid, || format!("{pid} serves on"))?;
            }
            Expected::Replaced(reason) => {
                self.wait("a replacement", |status| is_granted(status, before, 2))?;
                self.await_words(logged, reason)?;
            }
            Expected::Served(reason) => {
                self.await_words(logged, reason)?;
                self.wait("a worker", |status| status.worker.state == "granted")?;
            }
            Expected::Failed(_) => unreachable!("a worker's fault does not end the supervisor"),
        }
        Ok(())
    }

    /// Checks that a sane worker is granted, and that everything is as at the start.
    pub fn check_whole(&mut self) -> Outcome {
        self.place.script("")?;
        self.reload()?;
        eventually("one worker", || {
            let workers = self.supervisor.workers();
            holds(workers.len() == 1, || format!("{workers:?}"))
        })?;
        let (pid, most) = (self.supervisor.pid(), self.descriptors);
        eventually("no more descriptors than at the start", || {
            let now = descriptors(pid).map_err(|error| error.to_string())?;
            holds(now <= most, || format!("{now} instead of {most}"))
        })?;
        let links = self.supervisor.status()?.links;
        holds(links == self.links, || format!("{links:?} instead of {:?}", self.links))?;
        let pins = self.place.pins()?;
        holds(pins == self.pins, || format!("{pins:?} instead of {:?}", self.pins))?;
        Ok(())
    }

    /// Asks for another worker while no more than `room` descriptors can be opened; whether there was
    /// room for it.
    pub fn try_starved(&mut self, room: usize) -> Result<bool, Box<dyn std::error::Error>> {
        let before = self.supervisor.status()?;
        let logged = self.log()?.len();
        // Numbers beyond the limit stay open; the free ones below it are what can be opened.
        let open = process::descriptors(self.supervisor.pid())?;
        self.limit(&format!("{}:", open + room))?;
        self.supervisor.signal(Signal::SIGHUP)?;
        let outcome = within(PATIENCE, "an outcome", || {
            let log = self.log().map_err(|error| error.to_string())?;
            let found = OUTCOMES.iter().position(|words| log[logged..].contains(words));
            found.ok_or_else(|| log[logged..].to_owned())
        })?;
        self.limit(&format!("{ROOM}:"))?;
        let status = self.wait("a worker", |status| status.worker.state == "granted")?;
        if outcome > 0 {
            let (pid, said) = (status.worker.pid, status.takeovers.last_failure);
            holds(pid == before.worker.pid, || format!("{pid} serves: {said}"))?;
            holds(said.contains("Too many open files"), || format!("it says `{said}`"))?;
        }
        self.check_whole()?;
        Ok(outcome == 0)
    }

    /// Sets how many descriptors the supervisor may have.
    fn limit(&self, descriptors: &str) -> Outcome {
        let pid = self.supervisor.pid().to_string();
        let mut command = std::process::Command::new("prlimit");
        let ended = Ended::run(command.args(["--pid", &pid, &format!("--nofile={descriptors}")]))?;
        holds(ended.code == Some(0), || format!("{ended:?}"))?;
        Ok(())
    }

    fn reload(&self) -> Outcome {
        match control::ask(self.supervisor.socket(), &Request::Reload)? {
            Response::Reloaded { .. } => Ok(()),
            other => Err(format!("not reloaded: {other:?}").into()),
        }
    }

    fn wait(
        &mut self,
        what: &str,
        wanted: impl Fn(&Status) -> bool,
    ) -> Result<Status, Box<dyn std::error::Error>> {
        Ok(within(PATIENCE, what, || {
            let status = self.supervisor.status().map_err(|error| error.to_string())?;
            if wanted(&status) { Ok(status) } else { Err(format!("{status:?}")) }
        })?)
    }

    /// Waits until `words` are in the log, from `logged` on.
    fn await_words(&self, logged: usize, words: &str) -> Outcome {
        within(PATIENCE, &format!("`{words}` in the log"), || {
            let log = self.log().map_err(|error| error.to_string())?;
            holds(log[logged..].contains(words), || log[logged..].to_owned())
        })?;
        Ok(())
    }

    fn log(&self) -> std::io::Result<String> {
        fs::read_to_string(self.supervisor.log())
    }
}

fn is_granted(status: &Status, before: &Status, takeovers: u64) -> bool {
    status.takeovers.count == before.takeovers.count + takeovers && status.worker.state == "granted"
}

/// Once, so that the next child does nothing wrong.
pub fn script(cell: &Cell) -> String {
    let Cell { due, fault, .. } = cell;
    let refuses = *due == Due::Said(Said::Refused) && *fault != Fault::Early;
    let otherwise = if refuses { "refuse" } else { "" };
    format!("once at {} do {fault:?} {otherwise}", due.name())
}
