//! nginx and wrk: connections that stay, and a new connection for each request.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use holdfast_lab::{Lab, LabError, isolated};
use holdfast_tests::scene::virtual_address;

use crate::program::{Program, Report};
use crate::storm::{Storm, local, tcp};

const FRONTEND: SocketAddr = virtual_address(80, 80);
const ENDPOINT: SocketAddr = local(18080);

/// Connections of each wrk.
const CONNECTIONS: u64 = 8;
/// How long each wrk runs.
const DURATION: &str = "5s";

/// Fewest connections of a test: a hundredth of what two busy processors manage.
const LEAST: u64 = 500;

/// What wrk says of requests that failed: of the socket, and of an answer other than 2xx and 3xx.
const COMPLAINTS: [&str; 3] = ["Socket errors", "Non-2xx", "unable to connect"];

/// How long wrk keeps a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    /// For all of its requests.
    Alive,
    /// For one request.
    Close,
}

/// Everything nginx would write elsewhere is in its directory. Workers run as `www-data`.
fn configuration() -> String {
    let places = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let places = places.map(|name| format!("  {name}_temp_path nginx/{name};\n")).concat();
    format!(
        "daemon off;\npid nginx/pid;\nerror_log stderr warn;\nuser www-data;\n\
         worker_processes 1;\nevents {{ worker_connections 1024; }}\n\
         http {{\n  access_log off;\n{places}  keepalive_requests 1000000000;\n  \
         server {{ listen {ENDPOINT}; return 200 holdfast; }}\n}}\n"
    )
}

fn server(lab: &Lab) -> Result<Program, LabError> {
    let file = lab.write("nginx/nginx.conf", configuration())?;
    let mut command = lab.beside("/usr/sbin/nginx")?;
    command.args(["-e", "stderr", "-p"]).arg(lab.directory()).arg("-c").arg(file);
    let server = Program::start(lab, "nginx", command)?;
    server.wait_until("nginx to listen", || TcpStream::connect(ENDPOINT))?;
    Ok(server)
}

fn wrk(lab: &Lab, keep: Keep, duration: &str) -> Result<Program, LabError> {
    let mut command = Command::new("wrk");
    command.args(["--threads=1", &format!("--connections={CONNECTIONS}")]);
    command.arg(format!("--duration={duration}"));
    if keep == Keep::Close {
        command.args(["--header", "Connection: close"]);
    }
    command.arg(format!("http://{FRONTEND}/"));
    Program::start(lab, &format!("wrk-{keep:?}"), command)
}

/// How many connections a wrk has made at least, if it met no error.
fn judge(keep: Keep, report: &Report) -> Result<u64, String> {
    report.is_free_of(&COMPLAINTS)?;
    let line = report.text.lines().find(|line| line.contains(" requests in "));
    let count = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    let requests: u64 = count.ok_or_else(|| format!("no requests: {}", report.text))?;
    match keep {
        _ if requests == 0 => Err(format!("no request was answered: {}", report.text)),
        Keep::Alive => Ok(CONNECTIONS),
        Keep::Close => Ok(requests),
    }
}

#[test]
fn nginx_and_wrk_notice_nothing() {
    isolated(|lab| {
        let _server = server(lab)?;
        let nowhere = wrk(lab, Keep::Close, "1s")?.said_in_a_moment()?;
        assert!(nowhere.complains(&COMPLAINTS), "{nowhere:?}");

        let mut storm = Storm::start(lab, &tcp(FRONTEND, ENDPOINT))?;
        while !storm.is_over() {
            let keeps = [Keep::Alive, Keep::Close];
            let clients = keeps.map(|keep| wrk(lab, keep, DURATION));
            let reports = storm.blow(clients.into_iter().collect::<Result<_, _>>()?)?;
            for (keep, report) in keeps.into_iter().zip(reports) {
                storm.add(judge(keep, &report)?);
            }
        }
        storm.assert_survived(LEAST)
    });
}

#[test]
fn what_wrk_says_is_understood() {
    let said = |code, text: &str| Report { code: Some(code), text: text.to_owned() };
    let good = "  7731 requests in 1.00s, 1.11MB read\nRequests/sec:   7693.57\n";
    assert_eq!(judge(Keep::Close, &said(0, good)), Ok(7731));
    assert_eq!(judge(Keep::Alive, &said(0, good)), Ok(CONNECTIONS));
    let errors = [
        "  Socket errors: connect 0, read 3, write 0, timeout 0\n",
        "  Non-2xx or 3xx responses: 7\n",
    ];
    for error in errors {
        judge(Keep::Close, &said(0, &format!("{good}{error}"))).expect_err("wrk names an error");
    }
    judge(Keep::Close, &said(0, "  0 requests in 1.00s\n")).expect_err("nothing was answered");
    judge(Keep::Close, &said(1, good)).expect_err("wrk says it failed");
}
