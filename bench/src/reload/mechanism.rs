//! What orders a change: a save, a signal, or another process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use holdfast_lab::process::{self, Process};
use holdfast_lab::supervisor::GRANTED;
use holdfast_lab::{Lab, Service, Supervisor, render};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;

use super::Ordered;
use crate::peers::Missing;
use crate::peers::proxy::{self, Proxy, Route, wait_until_served};

/// The instance that changes with a save; the other one changes with SIGHUP.
const SAVING: &str = "saving";
const RELOADING: &str = "reloading";

/// How long a former Envoy drains, and lives, in seconds. Their defaults are ten and fifteen minutes.
const ENVOY_DRAIN_S: &str = "1";
const ENVOY_PARENT_S: &str = "2";

/// Longer than that: how long former processes may take to end.
const FORMER: Duration = Duration::from_secs(10);

/// Which processes Envoy shares memory with: the patch has a memory file system of its own.
const ENVOY_BASE: &str = "1";

/// Where that is mounted.
const SHARED_MEMORY: &str = "/dev/shm";

/// A way to change a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Holdfast: the file is saved, and the worker reads it.
    HoldfastSave,
    /// Holdfast: SIGHUP right after a save, and another worker takes over.
    HoldfastReload,
    /// HAProxy: another process with `-sf`.
    HaproxySf,
    /// HAProxy: SIGUSR2 to the master.
    HaproxyMaster,
    /// nginx: SIGHUP to the master.
    Nginx,
    /// Envoy: another process with the next restart epoch.
    Envoy,
}

/// All of them.
pub const ALL: [Kind; 6] = [
    Kind::HoldfastSave,
    Kind::HoldfastReload,
    Kind::HaproxySf,
    Kind::HaproxyMaster,
    Kind::Nginx,
    Kind::Envoy,
];

/// One that runs.
pub enum Mechanism {
    /// Holdfast.
    Holdfast { kind: Kind, supervisor: Supervisor },
    /// A proxy: the newest process last.
    Proxy { kind: Kind, processes: Vec<Proxy>, started: u32 },
}

impl Kind {
    /// Its name, for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HoldfastSave => "Holdfast, a save",
            Self::HoldfastReload => "Holdfast, SIGHUP",
            Self::HaproxySf => "HAProxy, -sf",
            Self::HaproxyMaster => "HAProxy, master-worker",
            Self::Nginx => "nginx, SIGHUP",
            Self::Envoy => "Envoy, hot restart",
        }
    }

    /// What is killed where a crash is measured, if one is.
    pub const fn crash_name(self) -> Option<&'static str> {
        match self {
            Self::HoldfastSave | Self::HaproxyMaster => None,
            Self::HoldfastReload => Some("Holdfast, its worker"),
            Self::HaproxySf => Some("HAProxy, started again at once"),
            Self::Nginx => Some("nginx, its worker"),
            Self::Envoy => Some("Envoy, started again at once"),
        }
    }

    /// Whether it is Holdfast's.
    pub const fn is_ours(self) -> bool {
        matches!(self, Self::HoldfastSave | Self::HoldfastReload)
    }

    /// Where clients connect to.
    pub fn address(self) -> SocketAddr {
        let number = ALL.iter().position(|it| *it == self).unwrap_or_default();
        let number = u8::try_from(number).unwrap_or_default();
        match self.is_ours() {
            true => SocketAddr::from(([127, 97, 0, 1 + number], 80)),
            false => SocketAddr::from(([127, 0, 0, 1], 18_400 + u16::from(number))),
        }
    }

    /// Whether it is here.
    pub fn find(self) -> Result<(), Missing> {
        self.proxy().map_or(Ok(()), |proxy| proxy.find().map(drop))
    }

    const fn proxy(self) -> Option<proxy::Kind> {
        match self {
            Self::HoldfastSave | Self::HoldfastReload => None,
            Self::HaproxySf | Self::HaproxyMaster => Some(proxy::Kind::Haproxy),
            Self::Nginx => Some(proxy::Kind::Nginx),
            Self::Envoy => Some(proxy::Kind::Envoy),
        }
    }

    /// Writes the configuration that leads to `backend`.
    fn write(self, lab: &Lab, backend: SocketAddr) -> anyhow::Result<PathBuf> {
        let (name, text) = match self.proxy() {
            None => {
                let service = Service::tcp("web", self.address()).endpoint(backend);
                ("holdfast.yaml", render(&[service]))
            }
            Some(proxy) => {
                proxy.configuration(Route { listen: self.address(), backend, udp: None })
            }
        };
        Ok(lab.write(&format!("{self:?}/{name}"), text)?)
    }
}

impl Mechanism {
    /// Starts it, with connections to `backend`.
    pub fn start(lab: &Lab, kind: Kind, backend: SocketAddr) -> anyhow::Result<Self> {
        let file = kind.write(lab, backend)?;
        if kind.proxy().is_none() {
            let instance = if kind == Kind::HoldfastSave { SAVING } else { RELOADING };
            // Clients are in both instances' cgroup.
            let supervisor = lab.supervisor(&file).with("--instance", instance).start()?;
            return Ok(Self::Holdfast { kind, supervisor });
        }
        if kind == Kind::Envoy {
            own_shared_memory()?;
        }
        let mut mechanism = Self::Proxy { kind, processes: Vec::new(), started: 0 };
        mechanism.spawn(lab, &file)?;
        wait_until_served(kind.address(), kind.name())?;
        Ok(mechanism)
    }

    /// Which one it is.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Holdfast { kind, .. } | Self::Proxy { kind, .. } => *kind,
        }
    }

    /// Changes its configuration to `backend`, and says when the order was given.
    pub fn order(&mut self, lab: &Lab, backend: SocketAddr) -> anyhow::Result<Ordered> {
        let kind = self.kind();
        // A save is the order itself.
        let before = Instant::now();
        let file = kind.write(lab, backend)?;
        let written = Instant::now();
        match (kind, &*self) {
            (Kind::HoldfastSave, _) => return Ok(before),
            (_, Self::Holdfast { supervisor, .. }) => supervisor.signal(Signal::SIGHUP)?,
            (Kind::HaproxyMaster, Self::Proxy { processes, .. }) => {
                newest(processes)?.signal(Signal::SIGUSR2)?;
            }
            (Kind::Nginx, Self::Proxy { processes, .. }) => {
                newest(processes)?.signal(Signal::SIGHUP)?;
            }
            (_, Self::Proxy { .. }) => self.spawn(lab, &file)?,
        }
        Ok(written)
    }

    /// Kills the process that serves, as a crash would, and has it started again at once where nothing
    /// else does; says when.
    pub fn crash(&mut self, lab: &Lab, backend: SocketAddr) -> anyhow::Result<Ordered> {
        let kind = self.kind();
        let file = kind.write(lab, backend)?;
        let victim = match &*self {
            Self::Holdfast { supervisor, .. } => supervisor.status()?.worker.pid,
            Self::Proxy { processes, .. } => match kind {
                Kind::Nginx => {
                    let children = process::children(newest(processes)?.pid())?;
                    *children.first().context("nginx has a worker")?
                }
                _ => newest(processes)?.pid(),
            },
        };
        let victim = Process::open(victim).context("cannot watch the process to kill")?;
        let begin = Instant::now();
        victim.signal(Signal::SIGKILL).context("cannot kill it")?;
        if let (Self::Proxy { processes, started, .. }, false) = (&mut *self, kind == Kind::Nginx) {
            // Reaps it: whoever watches over a process starts it again then.
            drop(processes.pop());
            *started = 0;
            self.spawn(lab, &file)?;
        }
        Ok(begin)
    }

    /// Waits until only the newest process is left.
    pub fn settle(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Holdfast { supervisor, .. } => {
                supervisor.wait_until("a granted worker", |it| it.worker.state == GRANTED)?;
            }
            Self::Proxy { processes, .. } => {
                while processes.len() > 1 {
                    let former = processes.remove(0);
                    ensure!(former.has_ended_within(FORMER)?, "the former process does not end");
                }
            }
        }
        Ok(())
    }

    /// Starts a process of a proxy, which makes the former one leave.
    fn spawn(&mut self, lab: &Lab, file: &std::path::Path) -> anyhow::Result<()> {
        let Self::Proxy { kind, processes, started } = self else { return Ok(()) };
        let proxy = kind.proxy().context("it is a proxy")?;
        let binary = proxy.find().map_err(|Missing(why)| anyhow::anyhow!(why))?;
        let mut command = lab.beside(binary)?;
        match kind {
            Kind::HaproxyMaster => {
                command.args(["-W", "-q", "-db", "-f"]).arg(file);
            }
            Kind::HaproxySf => {
                command.args(["-q", "-db", "-f"]).arg(file);
                if let Some(former) = processes.last() {
                    command.args(["-sf", &former.pid().to_string()]);
                }
            }
            Kind::Nginx => {
                let prefix = file.parent().context("a file is in a directory")?;
                command.args(["-e", "stderr", "-g", "daemon off;", "-p"]).arg(prefix);
                command.arg("-c").arg(file);
            }
            _ => {
                command.args(["--concurrency", "1", "--log-level", "off", "-c"]).arg(file);
                command.args(["--base-id", ENVOY_BASE, "--restart-epoch", &started.to_string()]);
                command.args(["--drain-time-s", ENVOY_DRAIN_S]);
                command.args(["--parent-shutdown-time-s", ENVOY_PARENT_S]);
            }
        }
        *started += 1;
        processes.push(Proxy::spawn(command, kind.name())?);
        Ok(())
    }
}

fn newest(processes: &[Proxy]) -> anyhow::Result<&Proxy> {
    processes.last().context("the proxy was started")
}

/// A memory file system that only this patch sees: Envoy leaves files in it.
fn own_shared_memory() -> anyhow::Result<()> {
    let nothing = None::<&str>;
    mount(Some("tmpfs"), SHARED_MEMORY, Some("tmpfs"), MsFlags::empty(), nothing)
        .with_context(|| format!("cannot mount a tmpfs at {SHARED_MEMORY}"))
}
