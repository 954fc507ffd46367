//! What a connection costs in the kernel program, by the kernel's own account: a measurement to be run
//! alone (`--ignored cost`), which asserts nothing about time.

use std::error::Error;
use std::fs::File;
use std::io::{self, Write};
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use holdfast_bpf::object;
use holdfast_lab::{Backend, Lab, Service, isolated, render};
use holdfast_protocol::kernel::program;
use holdfast_protocol::manifest::Kind;
use holdfast_tests::hooks;

use crate::scene::{put_in_force, serve, virtual_address};

/// Names the file that the figures are written to: what a lab's process prints is not shown.
const REPORT_VARIABLE: &str = "HOLDFAST_COST_REPORT";

/// Connections for one figure, and figures for one median.
const CONNECTIONS: u64 = 20_000;
const ROUNDS: usize = 9;

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
        let backends = (0..10).map(|_| Backend::udp("red")).collect::<Result<Vec<_>, _>>()?;
        let address = virtual_address(53, 53);
        let report = std::env::var_os(REPORT_VARIABLE);
        let report = report.ok_or(format!("set {REPORT_VARIABLE} to the file to write to"))?;
        let mut report = File::create(report)?;
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
            let empty = Service::udp("dns", address).balanced(case.balancing);
            let empty = if case.key.is_empty() { empty } else { empty.key(case.key) };
            let add = |service: Service, backend: &Backend| service.endpoint(backend.v4());
            let text = render(&[backends.iter().fold(empty, add)]) + case.more;
            put_in_force(lab, &mut supervisor, &text)?;
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            let mut rounds = Vec::new();
            for _ in 0..ROUNDS {
                let before = spent(lab)?;
                for _ in 0..CONNECTIONS {
                    socket.connect(address)?;
                }
                let after = spent(lab)?;
                rounds.push((after.0 - before.0) / (after.1 - before.1));
            }
            rounds.sort_unstable();
            let (median, least) = (rounds[ROUNDS / 2], rounds[0]);
            let name = case.name;
            writeln!(report, "{name}: {median} ns a run in the median, {least} at least")?;
        }
        Ok(())
    });
}
