//! Instances of which nothing, the access log, or a follower is told.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use anyhow::Context;
use holdfast_bpf::mapped::MappedArray;
use holdfast_bpf::object;
use holdfast_bpf::ring::RingBuffer;
use holdfast_lab::supervisor::workers_of;
use holdfast_lab::wait::holds;
use holdfast_lab::{Lab, Supervisor, binaries, eventually};
use holdfast_protocol::control::Status;
use holdfast_protocol::handover::ConfigState;
use holdfast_protocol::kernel::event::{EventControl, Wanted, kind};
use holdfast_protocol::kernel::map;
use holdfast_protocol::manifest::Kind;
use holdfast_protocol::pin;
use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;

use crate::connect::case;
use crate::place::beside;

/// Most bytes of access logs at a time: several times the lines of the highest rate in a step.
const LOG_BYTES: u64 = 1 << 30;

/// Who is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    /// Nobody.
    Nobody,
    /// The access log, of every connection.
    Log,
    /// Whoever follows every connection live.
    Follower,
}

/// An instance that governs a cgroup of its own.
pub struct Place {
    /// Who is told.
    pub telling: Telling,
    /// The cgroup.
    pub cgroup: PathBuf,
    /// Every program that runs there.
    pub programs: Vec<OwnedFd>,
    control: MappedArray<EventControl>,
    buffer: RingBuffer,
    log: PathBuf,
    configuration: PathBuf,
    _follower: Option<Follower>,
    supervisor: Option<Supervisor>,
}

/// A `holdfastctl trace` that runs until this value is dropped.
struct Follower(Child);

impl Telling {
    /// All, in the order in which they are compared.
    pub const ALL: [Self; 3] = [Self::Nobody, Self::Log, Self::Follower];

    /// How it is called in a table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nobody => "nobody is told",
            Self::Log => "the access log, of every connection",
            Self::Follower => "a follower, of everything",
        }
    }

    const fn instance(self) -> &'static str {
        match self {
            Self::Nobody => "told-nobody",
            Self::Log => "told-log",
            Self::Follower => "told-follower",
        }
    }
}

/// Makes a directory in memory for access logs: a disk is not what is measured.
pub fn memory(lab: &Lab) -> anyhow::Result<PathBuf> {
    let path = lab.directory().join("log");
    fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
    let (flags, options) = (MsFlags::MS_NOSUID | MsFlags::MS_NODEV, format!("size={LOG_BYTES}"));
    mount(Some("tmpfs"), &path, Some("tmpfs"), flags, Some(options.as_str()))
        .with_context(|| format!("cannot mount a tmpfs at {}", path.display()))?;
    Ok(path)
}

impl Place {
    /// Starts an instance with one service, and whoever follows it.
    pub fn start(lab: &Lab, telling: Telling, logs: &Path) -> anyhow::Result<Self> {
        let instance = telling.instance();
        let cgroup = beside(lab, instance)?;
        let log = if telling == Telling::Log { "access_log: {}\n" } else { "" };
        let text = format!("{log}{}", case::configuration(1));
        let configuration = lab.write(&format!("{instance}.yaml"), text)?;
        let log = logs.join(instance);
        let (supervisor, status) = serve(lab, telling, (&cgroup, &configuration, &log))?;
        let program = |id| Ok(object::by_id(Kind::Program, id)?);
        let programs = status.links.iter().map(|link| program(link.prog_id));
        let programs = programs.collect::<anyhow::Result<_>>()?;
        let map = |name| object::get(&pin::path(&lab.bpffs(), instance, Kind::Map, name));
        let control = MappedArray::map(map(map::EVENT_CONTROL)?)?;
        let buffer = RingBuffer::new(map(map::EVENTS)?)?;
        let _follower = match telling {
            Telling::Nobody | Telling::Log => None,
            Telling::Follower => Some(Follower::start(lab, instance)?),
        };
        let supervisor = Some(supervisor);
        let place = Self {
            telling,
            cgroup,
            programs,
            control,
            buffer,
            log,
            configuration,
            _follower,
            supervisor,
        };
        eventually("that somebody asks to be told", || {
            let all = Wanted(place.control().wanted).all();
            holds(telling != Telling::Follower || all == kind::ALL, || "nobody follows".to_owned())
        })?;
        Ok(place)
    }

    /// What has been told and lost so far.
    pub fn control(&self) -> EventControl {
        self.control.read(0)
    }

    /// Bytes of events that wait to be read.
    pub fn waiting(&mut self) -> anyhow::Result<u64> {
        Ok(self.buffer.waiting()?)
    }

    /// Waits until every event has been read, and its line written.
    pub fn settle(&mut self) -> anyhow::Result<()> {
        eventually("every event to be read", || match self.waiting() {
            Ok(waiting) => holds(waiting == 0, || format!("{waiting} bytes wait")),
            Err(error) => Err(error.to_string()),
        })?;
        Ok(())
    }

    /// Lines in the access log, which is empty afterwards: its worker appends.
    pub fn take_lines(&self) -> anyhow::Result<u64> {
        let about = || format!("cannot read {}", self.log.display());
        let text = fs::read(&self.log).with_context(about)?;
        self.shorten_log()?;
        let lines = text.iter().filter(|byte| **byte == b'\n').count();
        Ok(lines as u64)
    }

    /// Empties the access log.
    pub fn shorten_log(&self) -> anyhow::Result<()> {
        let about = || format!("cannot empty {}", self.log.display());
        let file = fs::OpenOptions::new().write(true).open(&self.log).with_context(about)?;
        file.set_len(0).with_context(about)
    }

    /// Ends supervisor and worker at once. What is governed stays so, and is told.
    pub fn abandon(&mut self) -> anyhow::Result<()> {
        let Some(mut supervisor) = self.supervisor.take() else { return Ok(()) };
        let pid = supervisor.pid();
        let workers = workers_of(pid);
        supervisor.signal(Signal::SIGKILL)?;
        supervisor.ended()?;
        eventually("the worker to end", || {
            let alive = workers.iter().any(|pid| holdfast_lab::process::is_alive(*pid));
            holds(!alive, || format!("{workers:?} live"))
        })?;
        Ok(())
    }

    /// Starts it again.
    pub fn resume(&mut self, lab: &Lab) -> anyhow::Result<()> {
        let files = (&*self.cgroup, &*self.configuration, &*self.log);
        let (supervisor, _) = serve(lab, self.telling, files)?;
        self.supervisor = Some(supervisor);
        Ok(())
    }
}

/// Starts a supervisor, and waits until its worker serves as configured.
fn serve(
    lab: &Lab,
    telling: Telling,
    (cgroup, configuration, log): (&Path, &Path, &Path),
) -> anyhow::Result<(Supervisor, Status)> {
    let launch = lab.supervisor(configuration).with("--instance", telling.instance());
    let launch = launch.with("--cgroup", cgroup).with("--access-log", log);
    let mut supervisor = launch.start()?;
    let is_in_force = |status: &Status| status.config.state == ConfigState::InForce;
    let status = supervisor.wait_until("the service to be in force", is_in_force)?;
    Ok((supervisor, status))
}

impl Follower {
    fn start(lab: &Lab, instance: &str) -> anyhow::Result<Self> {
        let mut command = lab.beside(binaries::find(binaries::CTL)?)?;
        command.args(["--instance", instance, "--run-dir"]).arg(lab.run_directory());
        command.arg("trace").stdout(Stdio::null());
        Ok(Self(command.spawn().context("cannot start holdfastctl")?))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // Each fails only when it has ended and been reaped, which nobody else does.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
