//! PostgreSQL and pgbench: connections that stay, and a new connection for each transaction.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use holdfast_lab::inside::Ended;
use holdfast_lab::wait::holds;
use holdfast_lab::{Lab, TestResult, isolated};
use holdfast_tests::scene::virtual_address;

use crate::program::{Program, Report, directory_of, server_as};
use crate::storm::{Storm, local, tcp};

const FRONTEND: SocketAddr = virtual_address(54, 5432);
const ENDPOINT: SocketAddr = local(15432);

/// The user that the package makes for the server, which refuses to run as root. The superuser of a
/// cluster has its name.
const USER: &str = "postgres";

/// Where Debian has the binaries of each major version.
const VERSIONS: &str = "/usr/lib/postgresql";

/// Connections of each pgbench at a time.
const CLIENTS: u64 = 4;
/// How long each pgbench runs, in seconds.
const SECONDS: u64 = 5;

/// Fewest connections of a test: a connection costs the server a process.
const LEAST: u64 = 50;

/// What pgbench says of a connection or a transaction that failed, beside its count.
const COMPLAINTS: [&str; 4] = ["error:", "aborted", "FATAL", "WARNING"];

/// How long pgbench keeps a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    /// For all of its transactions.
    Alive,
    /// For one transaction.
    Close,
}

/// The binaries of the newest version that is installed.
fn binaries() -> Result<PathBuf, Box<dyn std::error::Error>> {
    let versions = std::fs::read_dir(VERSIONS).into_iter().flatten().flatten();
    let found = versions.map(|entry| entry.path().join("bin")).filter(|path| path.is_dir());
    let version =
        |path: &PathBuf| -> Option<u32> { path.parent()?.file_name()?.to_str()?.parse().ok() };
    let newest = found.max_by_key(version);
    Ok(newest.ok_or_else(|| format!("no PostgreSQL in {VERSIONS}: run tools/setup"))?)
}

fn run(command: &mut Command) -> TestResult {
    let ended = Ended::run(command)?;
    Ok(holds(ended.code == Some(0), || format!("{command:?} failed: {ended:?}"))?)
}

/// A fresh cluster with the tables of pgbench, served.
fn server(lab: &Lab, binaries: &Path) -> Result<Program, Box<dyn std::error::Error>> {
    let data = directory_of(lab, USER)?.join("data");
    let program = |name: &str| binaries.join(name).display().to_string();
    let mut initdb = server_as(lab, USER, &program("initdb"))?;
    initdb.args(["--auth=trust", "--no-sync", "--no-locale", "--encoding=UTF8", "--pgdata"]);
    run(initdb.arg(&data))?;
    let mut command = server_as(lab, USER, &program("postgres"))?;
    command.arg("-D").arg(&data);
    let port = format!("port={}", ENDPOINT.port());
    // What is in the cluster need not survive the machine.
    for setting in ["listen_addresses=127.0.0.1", &port, "unix_socket_directories=", "fsync=off"] {
        command.args(["-c", setting]);
    }
    let server = Program::start(lab, "postgres", command)?;
    // It listens a moment before it lets anybody in.
    server.wait_until("PostgreSQL to listen", || TcpStream::connect(ENDPOINT))?;
    server.wait_until("PostgreSQL to be ready", || {
        run(pgbench(binaries, ENDPOINT).args(["--initialize", "--quiet"]))
            .map_err(|error| error.to_string())
    })?;
    Ok(server)
}

fn pgbench(binaries: &Path, server: SocketAddr) -> Command {
    let mut command = Command::new(binaries.join("pgbench"));
    command.args(["--host", &server.ip().to_string(), "--port", &server.port().to_string()]);
    command.args(["--username", USER, "--no-vacuum"]);
    command.env("PGDATABASE", USER);
    command
}

fn load(lab: &Lab, binaries: &Path, keep: Keep) -> Result<Program, holdfast_lab::LabError> {
    let mut command = pgbench(binaries, FRONTEND);
    command.args(["--client", &CLIENTS.to_string(), "--time", &SECONDS.to_string()]);
    if keep == Keep::Close {
        command.args(["--connect", "--select-only"]);
    }
    Program::start(lab, &format!("pgbench-{keep:?}"), command)
}

/// How many connections a pgbench has made at least, if it met no error.
fn judge(keep: Keep, report: &Report) -> Result<u64, String> {
    report.is_free_of(&COMPLAINTS)?;
    let done = report.number_after("number of transactions actually processed:")?;
    let failed = report.number_after("number of failed transactions:")?;
    holds(done > 0 && failed == 0, || format!("transactions failed: {}", report.text))?;
    Ok(if keep == Keep::Alive { CLIENTS } else { done })
}

#[test]
fn postgresql_and_pgbench_notice_nothing() {
    isolated(|lab| {
        let binaries = binaries()?;
        let _server = server(lab, &binaries)?;
        let nowhere = load(lab, &binaries, Keep::Close)?.said_in_a_moment()?;
        assert!(nowhere.complains(&COMPLAINTS), "{nowhere:?}");

        let mut storm = Storm::start(lab, &tcp(FRONTEND, ENDPOINT))?;
        while !storm.is_over() {
            let keeps = [Keep::Alive, Keep::Close];
            let clients = keeps.map(|keep| load(lab, &binaries, keep));
            let reports = storm.blow(clients.into_iter().collect::<Result<_, _>>()?)?;
            for (keep, report) in keeps.into_iter().zip(reports) {
                storm.add(judge(keep, &report)?);
            }
        }
        storm.assert_survived(LEAST)
    });
}

#[test]
fn what_pgbench_says_is_understood() {
    let said = |code, text: &str| Report { code: Some(code), text: text.to_owned() };
    let good = "number of transactions actually processed: 1234\n\
                number of failed transactions: 0 (0.000%)\n";
    assert_eq!(judge(Keep::Close, &said(0, good)), Ok(1234));
    assert_eq!(judge(Keep::Alive, &said(0, good)), Ok(CLIENTS));
    let failed = good.replace(": 0 (0.000%)", ": 2 (0.162%)");
    judge(Keep::Close, &said(0, &failed)).expect_err("transactions have failed");
    let none = good.replace("1234", "0");
    judge(Keep::Close, &said(0, &none)).expect_err("nothing was done");
    judge(Keep::Close, &said(2, good)).expect_err("it says it failed");
    let aborted = format!("pgbench: error: client 3 aborted in command 4\n{good}");
    judge(Keep::Close, &said(0, &aborted)).expect_err("a client was aborted");
}
