//! Proxies of one thread each, from an address on loopback to a backend.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use holdfast_lab::process::Process;
use holdfast_lab::{Lab, eventually};
use nix::sys::signal::Signal;

use super::{Missing, installed};

const HAPROXY: &str = "/usr/sbin/haproxy";
const NGINX: &str = "/usr/sbin/nginx";
const NGINX_STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// Environment variable that names Envoy's binary.
const ENVOY_VARIABLE: &str = "HOLDFAST_ENVOY";

/// Where else it is looked for: where `tools/peers` puts it, beside the directory of this program.
const ENVOY_BESIDE: &str = "peers/envoy";

/// How long a proxy may take to serve: Envoy takes a second on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Time between two looks at whether it does.
const LOOK: Duration = Duration::from_millis(5);

/// How long a proxy may take to leave before it is killed.
const LEAVE: Duration = Duration::from_secs(2);

/// Which proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// HAProxy in TCP mode.
    Haproxy,
    /// nginx with its stream module, TCP and UDP.
    Nginx,
    /// Envoy with its TCP proxy.
    Envoy,
}

/// What a proxy is to do.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where to it connects.
    pub backend: SocketAddr,
    /// Where to it sends datagrams, if it can.
    pub udp: Option<SocketAddr>,
}

/// A proxy that runs beside the governed cgroup. Dropping it ends it, kindly first.
#[derive(Debug)]
pub struct Proxy {
    child: Child,
    process: Process,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Haproxy, Self::Nginx, Self::Envoy];

    /// Its name, for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Haproxy => "HAProxy, TCP mode",
            Self::Nginx => "nginx, stream",
            Self::Envoy => "Envoy, TCP proxy",
        }
    }

    /// Its binary, if it is here.
    pub fn find(self) -> Result<PathBuf, Missing> {
        match self {
            Self::Haproxy => installed(HAPROXY, "haproxy"),
            Self::Nginx => installed(NGINX_STREAM, "libnginx-mod-stream")
                .and_then(|_| installed(NGINX, "nginx")),
            Self::Envoy => find_envoy(),
        }
    }

    /// The name of its file, and what is in it.
    pub fn configuration(self, route: Route) -> (&'static str, String) {
        let Route { listen, backend, udp } = route;
        match self {
            Self::Haproxy => ("haproxy.cfg", haproxy(listen, backend)),
            Self::Nginx => ("nginx.conf", nginx(listen, backend, udp)),
            Self::Envoy => ("envoy.yaml", envoy(listen, backend)),
        }
    }

    /// A command that serves the configuration at `file` in the foreground.
    pub fn command(self, lab: &Lab, binary: &Path, file: &Path) -> anyhow::Result<Command> {
        let mut command = lab.beside(binary)?;
        match self {
            Self::Haproxy => command.arg("-db").arg("-f").arg(file),
            Self::Nginx => command
                .args(["-e", "stderr", "-g", "daemon off; master_process off;", "-p"])
                .arg(file.parent().unwrap_or_else(|| lab.directory()))
                .arg("-c")
                .arg(file),
            Self::Envoy => command
                .args(["--concurrency", "1", "--log-level", "error", "--disable-hot-restart", "-c"])
                .arg(file),
        };
        Ok(command)
    }

    /// Starts it, and waits until somebody greets behind it.
    pub fn start(self, lab: &Lab, route: Route) -> anyhow::Result<Proxy> {
        let proxy = self.launch(lab, route, "greeting")?;
        wait_until_served(route.listen, self.name())?;
        Ok(proxy)
    }

    /// Starts it, and waits until it listens. `purpose` tells it from others of its kind.
    pub fn start_silent(self, lab: &Lab, route: Route, purpose: &str) -> anyhow::Result<Proxy> {
        let proxy = self.launch(lab, route, purpose)?;
        eventually(&format!("{} to listen", self.name()), || TcpStream::connect(route.listen))?;
        Ok(proxy)
    }

    fn launch(self, lab: &Lab, route: Route, purpose: &str) -> anyhow::Result<Proxy> {
        let binary = self.find().map_err(|Missing(why)| anyhow::anyhow!(why))?;
        let (name, text) = self.configuration(route);
        let file = lab.write(&format!("{purpose}/{name}"), text)?;
        Proxy::spawn(self.command(lab, &binary, &file)?, self.name())
    }
}

impl Proxy {
    /// Starts `command`.
    pub fn spawn(mut command: Command, name: &str) -> anyhow::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let process = Process::open(child.id()).with_context(|| format!("cannot watch {name}"))?;
        Ok(Self { child, process })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it `signal`.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        self.process.signal(signal).with_context(|| format!("cannot send {signal}"))
    }

    /// Waits until it has ended, at most `deadline`; says whether it has.
    pub fn has_ended_within(&self, deadline: Duration) -> anyhow::Result<bool> {
        self.process.wait(deadline).context("cannot wait for a proxy")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Each fails only when it has ended and been reaped, which nobody else does.
        let _ = self.process.signal(Signal::SIGTERM);
        let _ = self.process.wait(LEAVE);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until a connection to `listen` gets an answer: a proxy that listens may have no backend yet.
pub fn wait_until_served(listen: SocketAddr, name: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let served = || {
        let mut connection = TcpStream::connect(listen)?;
        connection.set_read_timeout(Some(PATIENCE))?;
        connection.read_exact(&mut [0])
    };
    while let Err(error) = served() {
        ensure!(Instant::now() < deadline, "{name} does not serve at {listen}: {error}");
        std::thread::sleep(LOOK);
    }
    Ok(())
}

fn find_envoy() -> Result<PathBuf, Missing> {
    let named = std::env::var_os(ENVOY_VARIABLE).map(PathBuf::from);
    let own = std::env::current_exe().unwrap_or_default();
    let beside = own.ancestors().skip(1).take(3).map(|directory| directory.join(ENVOY_BESIDE));
    let usual = ["/usr/local/bin/envoy", "/usr/bin/envoy"].map(PathBuf::from);
    let mut places = named.into_iter().chain(beside).chain(usual);
    places.find(|path| path.is_file()).ok_or_else(|| {
        Missing(format!(
            "no Envoy is here: run tools/peers, or name its binary in {ENVOY_VARIABLE}"
        ))
    })
}

fn haproxy(listen: SocketAddr, backend: SocketAddr) -> String {
    format!(
        "global\n  nbthread 1\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1m\n  \
         timeout server 1m\nlisten bench\n  bind {listen}\n  server backend {backend}\n"
    )
}

fn nginx(listen: SocketAddr, backend: SocketAddr, udp: Option<SocketAddr>) -> String {
    let datagrams = udp.map_or_else(String::new, |udp| {
        format!("server {{ listen {listen} udp; proxy_responses 1; proxy_pass {udp}; }}")
    });
    format!(
        "load_module {NGINX_STREAM};\nworker_processes 1;\npid nginx.pid;\nerror_log stderr crit;\n\
         events {{ worker_connections 4096; }}\n\
         stream {{ server {{ listen {listen}; proxy_pass {backend}; }} {datagrams} }}\n"
    )
}

fn envoy(listen: SocketAddr, backend: SocketAddr) -> String {
    let socket = |address: SocketAddr| {
        let (ip, port) = (address.ip(), address.port());
        format!("{{ socket_address: {{ address: {ip}, port_value: {port} }} }}")
    };
    let (listen, backend) = (socket(listen), socket(backend));
    format!(
        "static_resources:
  listeners:
  - name: bench
    address: {listen}
    filter_chains:
    - filters:
      - name: envoy.filters.network.tcp_proxy
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: bench
          cluster: backend
  clusters:
  - name: backend
    type: STATIC
    connect_timeout: 5s
    load_assignment:
      cluster_name: backend
      endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {backend} }} }}] }}]
"
    )
}
