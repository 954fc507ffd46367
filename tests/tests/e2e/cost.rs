//! What a connection costs in the kernel program, by the kernel's own account: a measurement to be run
//! alone (`--ignored cost`), which asserts nothing about time.

use std::error::Error;
use std::fs::File;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use holdfast_bpf::object;
use holdfast_lab::{Lab, Service, isolated, render};
use holdfast_protocol::kernel::program;
use holdfast_protocol::manifest::Kind;
use holdfast_tests::hooks;

use crate::scene::{put_in_force, serve, virtual_address};

/// Names the file that the figures are written to: what a lab's process prints is not shown.
const REPORT_VARIABLE: &str = "HOLDFAST_COST_REPORT";
/// Names the only case to measure, if it is set: for builds that are compared by turns.
const CASE_VARIABLE: &str = "HOLDFAST_COST_CASE";

/// Connections for one figure, and figures for one median.
const CONNECTIONS: u64 = 5_000;
const ROUNDS: usize = 25;
/// Endpoints of the service, at ports where nobody listens.
const ENDPOINTS: u16 = 10;

/// Which sockets connect.
#[derive(Clone, Copy)]
enum Sockets {
    /// A TCP socket for each connection, which is refused by its endpoint.
    Tcp,
    /// A UDP socket for each connection.
    Udp,
    /// One UDP socket again and again, which also ends what was counted before.
    Again,
}

impl Sockets {
    const ALL: [(&str, Self); 3] =
        [("TCP", Self::Tcp), ("UDP", Self::Udp), ("one UDP socket", Self::Again)];

    fn connect(self, address: SocketAddr, again: &UdpSocket) -> io::Result<()> {
        match self {
            Self::Tcp => match TcpStream::connect(address) {
                Err(refused) if refused.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
                other => other.map(drop),
            },
            Self::Udp => UdpSocket::bind("0.0.0.0:0")?.connect(address),
            Self::Again => again.connect(address),
        }
    }
}

/// Has the kernel account for the time of programs while it lives (`BPF_ENABLE_STATS`, Linux 5.8).
fn account() -> io::Result<OwnedFd> {
    const ENABLE_STATS: libc::c_int = 32;
    let run_time = 0_u32;
    // SAFETY: the attribute of this command is one number, which the kernel reads from a live reference.
    let answer = unsafe {
        libc::syscall(libc::SYS_bpf, ENABLE_STATS, &raw const run_time, size_of::<u32>())
    };
    match i32::try_from(answer) {
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(descriptor) if descriptor >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// How long `connect4` ran in all, in nanoseconds, and how often.
fn spent(lab: &Lab) -> Result<(u64, u64), Box<dyn Error>> {
    let program = object::get(&hooks::pin(lab, Kind::Program, program::CONNECT4))?;
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd()))?;
    let number = |name: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|number| number.trim().parse::<u64>().ok()).ok_or(format!("no {name}"))
    };
    Ok((number("run_time_ns:")?, number("run_cnt:")?))
}

/// What is asked of a service.
struct Case {
    /// As the figures call it.
    name: &'static str,
    /// Keys of `load_balancing`.
    balancing: &'static str,
    /// Another key of the service.
    key: &'static str,
    /// What follows the services.
    more: &'static str,
}

impl Case {
    const fn plain(name: &'static str, balancing: &'static str) -> Self {
        Self { name, balancing, key: "", more: "" }
    }

    const fn with(name: &'static str, key: &'static str, more: &'static str) -> Self {
        Self { name, balancing: "policy: random", key, more }
    }

    /// The service at `address`, of one protocol.
    fn service(
        &self,
        of: fn(&str, SocketAddr) -> Service,
        name: &str,
        address: SocketAddr,
    ) -> Service {
        let empty = of(name, address).balanced(self.balancing);
        let empty = if self.key.is_empty() { empty } else { empty.key(self.key) };
        let endpoint = |port| (Ipv4Addr::LOCALHOST, port).into();
        (1..=ENDPOINTS).fold(empty, |service, port| service.endpoint(endpoint(port)))
    }
}

/// How long a run of `connect4` takes, of some connections by these sockets.
fn run(
    lab: &Lab,
    sockets: Sockets,
    address: SocketAddr,
    again: &UdpSocket,
) -> Result<u64, Box<dyn Error>> {
    let before = spent(lab)?;
    for _ in 0..CONNECTIONS {
        sockets.connect(address, again)?;
    }
    let after = spent(lab)?;
    Ok((after.0 - before.0) / (after.1 - before.1))
}

const LIMITS: &str = "limits: { connections: 1000000, endpoint_connections: 1000000 }";
const RATES: &str = "limits: { rate: { connections_per_second: 1000000 }, \
                     client_rate: { connections_per_second: 1000000 } }";
const RANGE: &str = "policies:
  - { name: far, action: deny, rules: [{ to: { cidrs: [10.0.0.0/8], ports: [1-1000] } }] }
";
const WORKLOAD: &str = "identities:
  - { name: other, cgroups: [/sys/fs/cgroup/nobody.slice/none.service] }
policies:
  - { name: far, action: deny, rules: [{ from: { identities: [other] }, to: { ports: [53] } }] }
  - { name: near, action: allow, rules: [{ to: { ports: [53] } }] }
";

#[test]
#[ignore = "a measurement: run it alone"]
fn of_each_way_of_choosing() {
    isolated(|lab| {
        let address = virtual_address(53, 53);
        let report = std::env::var_os(REPORT_VARIABLE);
        let report = report.ok_or(format!("set {REPORT_VARIABLE} to the file to write to"))?;
        let mut report = File::create(report)?;
        let only = std::env::var(CASE_VARIABLE);
        let _accounted = account()?;
        let mut supervisor = serve(lab, &[])?;
        for case in [
            Case::plain("random", "policy: random"),
            Case::plain("weighted", "policy: weighted"),
            Case::plain("round_robin", "policy: round_robin"),
            Case::plain("maglev", "policy: maglev"),
            Case::plain("maglev by namespace", "policy: maglev, hash_by: network_namespace"),
            Case::plain("least_connections", "policy: least_connections"),
            Case::plain("affinity", "policy: random, affinity: { for: 1h }"),
            Case::with("limits", LIMITS, ""),
            Case::with("rates", RATES, ""),
            Case::with("a policy by range and port", "", RANGE),
            Case::with("policies by workload", "", WORKLOAD),
            Case {
                name: "affinity, limits and policies",
                balancing: "policy: random, affinity: { for: 1h }",
                key: LIMITS,
                more: WORKLOAD,
            },
        ] {
            if only.as_ref().is_ok_and(|only| only != case.name) {
                continue;
            }
            let text = render(&[
                case.service(Service::udp, "dns", address),
                case.service(Service::tcp, "dns-tcp", address),
            ]);
            put_in_force(lab, &mut supervisor, &(text + case.more))?;
            let mut rounds = Sockets::ALL.map(|_| Vec::new());
            let again = UdpSocket::bind("0.0.0.0:0")?;
            for _ in 0..ROUNDS {
                for ((_, sockets), figures) in Sockets::ALL.iter().zip(&mut rounds) {
                    figures.push(run(lab, *sockets, address, &again)?);
                }
            }
            for ((sockets, _), figures) in Sockets::ALL.iter().zip(&mut rounds) {
                figures.sort_unstable();
                let (median, least) = (figures[ROUNDS / 2], figures[0]);
                let name = case.name;
                writeln!(
                    report,
                    "{name}, {sockets}: {median} ns a run in the median, {least} at least"
                )?;
            }
        }
        Ok(())
    });
}
