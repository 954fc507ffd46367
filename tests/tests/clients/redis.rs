//! redis-server and redis-benchmark: connections that stay, and a new connection for each request.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use holdfast_lab::wait::holds;
use holdfast_lab::{Lab, isolated};
use holdfast_tests::scene::virtual_address;

use crate::program::{Program, Report, directory_of, server_as};
use crate::storm::{Storm, local, tcp};

const FRONTEND: SocketAddr = virtual_address(79, 6379);
const ENDPOINT: SocketAddr = local(16379);

/// The user that the package makes for the server.
const USER: &str = "redis";

/// Connections of each redis-benchmark at a time.
const CLIENTS: u64 = 8;

/// What each redis-benchmark tries, one after the other.
const COMMANDS: [&str; 2] = ["SET", "GET"];

/// What redis-benchmark says of a request or a connection that failed. It ends well all the same
/// when it could not read the server's configuration.
const COMPLAINTS: [&str; 3] = ["Error", "Could not connect", "Could not fetch"];

/// How long redis-benchmark keeps a connection, and how many requests of each command it makes: about
/// a second of them in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    /// For all of its requests.
    Alive = 20_000,
    /// For one request.
    Close = 4_000,
}

fn server(lab: &Lab) -> Result<Program, Box<dyn std::error::Error>> {
    let mut command = server_as(lab, USER, "redis-server")?;
    command.args(["--bind", &ENDPOINT.ip().to_string(), "--port", &ENDPOINT.port().to_string()]);
    command.args(["--save", "", "--appendonly", "no", "--daemonize", "no", "--dir"]);
    command.arg(directory_of(lab, USER)?);
    let server = Program::start(lab, "redis-server", command)?;
    server.wait_until("redis-server to listen", || TcpStream::connect(ENDPOINT))?;
    Ok(server)
}

fn benchmark(lab: &Lab, keep: Keep) -> Result<Program, holdfast_lab::LabError> {
    let mut command = Command::new("redis-benchmark");
    command.args(["-h", &FRONTEND.ip().to_string(), "-p", &FRONTEND.port().to_string()]);
    command.args(["-c", &CLIENTS.to_string(), "-n", &(keep as u32).to_string(), "--csv"]);
    command.args(["-t", &COMMANDS.join(",").to_lowercase()]);
    command.args(["-k", if keep == Keep::Alive { "1" } else { "0" }]);
    Program::start(lab, &format!("redis-benchmark-{keep:?}"), command)
}

/// How many connections a redis-benchmark has made at least, if it met no error.
fn judge(keep: Keep, report: &Report) -> Result<u64, String> {
    report.is_free_of(&COMPLAINTS)?;
    // It prints the row of a command when the last request has been answered.
    let is_done =
        |name: &&str| report.text.lines().any(|row| row.starts_with(&format!("\"{name}\",")));
    let done = COMMANDS.iter().filter(|name| is_done(name)).count();
    holds(done == COMMANDS.len(), || format!("a command is missing: {}", report.text))?;
    let each = if keep == Keep::Alive { CLIENTS } else { keep as u64 };
    Ok(each * COMMANDS.len() as u64)
}

#[test]
fn redis_and_its_benchmark_notice_nothing() {
    isolated(|lab| {
        let _server = server(lab)?;
        let nowhere = benchmark(lab, Keep::Close)?.said_in_a_moment()?;
        assert!(nowhere.complains(&COMPLAINTS), "{nowhere:?}");

        let mut storm = Storm::start(lab, &tcp(FRONTEND, ENDPOINT))?;
        while !storm.is_over() {
            let keeps = [Keep::Alive, Keep::Close];
            let clients = keeps.map(|keep| benchmark(lab, keep));
            let reports = storm.blow(clients.into_iter().collect::<Result<_, _>>()?)?;
            for (keep, report) in keeps.into_iter().zip(reports) {
                storm.add(judge(keep, &report)?);
            }
        }
        storm.assert_survived(Keep::Close as u64)
    });
}

#[test]
fn what_redis_benchmark_says_is_understood() {
    let said = |code, text: &str| Report { code, text: text.to_owned() };
    let good = "\"test\",\"rps\"\n\"SET\",\"8403.36\",\"0.657\"\n\"GET\",\"8196.72\",\"0.690\"\n";
    assert_eq!(judge(Keep::Close, &said(Some(0), good)), Ok(8_000));
    assert_eq!(judge(Keep::Alive, &said(Some(0), good)), Ok(16));
    for error in [
        "Error writing to the server: Connection refused\n",
        "Error from server: LOADING\n",
        "Could not connect to Redis at 127.96.0.79:6379: Connection refused\n",
        "WARNING: Could not fetch server CONFIG\n",
    ] {
        judge(Keep::Close, &said(Some(0), &format!("{good}{error}"))).expect_err("it complains");
    }
    judge(Keep::Close, &said(Some(1), good)).expect_err("it says it failed");
    judge(Keep::Close, &said(None, good)).expect_err("it was ended by a signal");
    let half = &good[..good.find("\"GET\"").expect("it is there")];
    judge(Keep::Close, &said(Some(0), half)).expect_err("it has not done everything");
}
