//! What the kernel programs tell of connections: the access log, and `holdfastctl trace`.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

use holdfast_lab::{Backend, Lab, LabError, Service, Supervisor, eventually, isolated, render};
use holdfast_protocol::handover::ConfigState;
use holdfast_tests::scrape::scrape;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::scene::{WEB, virtual_address, web};

/// A supervisor for `services` that logs what `log` says, and where.
fn logging(
    lab: &Lab,
    log: &str,
    services: &[Service],
) -> Result<(Supervisor, std::path::PathBuf), Box<dyn std::error::Error>> {
    let file = lab.write("config.yaml", format!("{}{log}\n", render(services)))?;
    let written = lab.directory().join("access.log");
    let mut supervisor = lab.supervisor(&file).with("--access-log", &written).start()?;
    let status = supervisor.wait_for_grant()?;
    assert_eq!(status.config.state, ConfigState::InForce, "{}", status.config.error);
    Ok((supervisor, written))
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    // A worker that is killed while it writes leaves a part of a line.
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The lines once there are `count` of them that `are_wanted`.
pub fn wait_for(
    path: &Path,
    count: usize,
    are_wanted: impl Fn(&Value) -> bool,
) -> Result<Vec<Value>, LabError> {
    eventually("the lines", || {
        let found: Vec<Value> = lines(path).into_iter().filter(&are_wanted).collect();
        if found.len() >= count { Ok(found) } else { Err(format!("{} of {count}", found.len())) }
    })
}

fn is(event: &'static str) -> impl Fn(&Value) -> bool {
    move |line| line["event"] == event
}

/// A connection that sends `bytes`, reads them back and ends.
fn exchange(bytes: usize) -> io::Result<()> {
    let mut stream = TcpStream::connect(WEB)?;
    stream.write_all(&vec![7; bytes])?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut back = Vec::new();
    stream.read_to_end(&mut back)?;
    Ok(())
}

#[test]
fn a_connection_has_a_line_when_it_ends() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        let (_supervisor, log) = logging(lab, "access_log: {}", &[web(&red)])?;
        exchange(1000)?;
        let line = wait_for(&log, 1, is("closed"))?.remove(0);
        assert_eq!(line["service"], "web");
        assert_eq!(line["protocol"], "tcp");
        assert_eq!(line["destination"], WEB.to_string());
        assert_eq!(line["endpoint"], red.v4().to_string());
        assert_eq!(line["sent_bytes"], 1000);
        assert!(line["source"].as_str().is_some_and(|source| source.starts_with("127.")), "{line}");
        for key in ["handshake_us", "duration_us", "received_bytes", "retransmits", "cgroup"] {
            assert!(line[key].is_u64(), "{key}: {line}");
        }
        assert_eq!(lines(&log).len(), 1);
        Ok(())
    });
}

#[test]
fn what_comes_to_nothing_has_a_line_that_says_why() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        let (shut, free) = (virtual_address(61, 1), virtual_address(62, 80));
        let [lost, none, few] = [63, 64, 65].map(|host| virtual_address(host, 80));
        let policies = "identities: []\npolicies:\n  - name: no-free\n    action: deny\n    rules: \
                        [{ to: { cidrs: [FREE/32] } }]\n";
        let log = format!("access_log: {{}}\n{}", policies.replace("FREE", &free.ip().to_string()));
        let services = [
            web(&red),
            Service::tcp("lost", lost).endpoint(shut),
            Service::tcp("none", none),
            Service::tcp("few", few)
                .endpoint(red.v4())
                .key("limits: { rate: { connections_per_second: 1, burst: 1 } }"),
        ];
        let (_supervisor, log) = logging(lab, &log, &services)?;
        assert!(TcpStream::connect(lost).is_err());
        assert!(TcpStream::connect(none).is_err());
        let _one = TcpStream::connect(few)?;
        assert!(TcpStream::connect(few).is_err());
        assert!(TcpStream::connect(free).is_err());
        let failed = wait_for(&log, 1, is("failed"))?.remove(0);
        assert_eq!((&failed["service"], &failed["reason"]), (&"lost".into(), &"refused".into()));
        let refused = wait_for(&log, 1, is("refused"))?.remove(0);
        assert_eq!(
            (&refused["service"], &refused["error"]),
            (&"none".into(), &"ECONNREFUSED".into())
        );
        let limited = wait_for(&log, 1, is("limited"))?.remove(0);
        assert_eq!(limited["service"], "few");
        let denied = wait_for(&log, 1, is("denied"))?.remove(0);
        assert_eq!((&denied["policy"], &denied["error"]), (&"no-free".into(), &"EPERM".into()));
        assert_eq!(denied["destination"], free.to_string());
        assert!(denied.get("service").is_none(), "{denied}");
        Ok(())
    });
}

#[test]
fn datagrams_have_lines_too() {
    isolated(|lab| {
        let red = Backend::udp("red")?;
        let name = virtual_address(70, 53);
        let service = Service::udp("dns", name).endpoint(red.v4());
        let (_supervisor, log) = logging(lab, "access_log: { format: json }", &[service])?;
        let connected = UdpSocket::bind("127.0.0.1:0")?;
        connected.connect(name)?;
        drop(connected);
        let unconnected = UdpSocket::bind("127.0.0.1:0")?;
        for _ in 0..3 {
            unconnected.send_to(b"?", name)?;
        }
        let closed = wait_for(&log, 1, is("closed"))?.remove(0);
        assert_eq!((&closed["protocol"], &closed["service"]), (&"udp".into(), &"dns".into()));
        let flow = wait_for(&log, 1, is("flow"))?;
        assert_eq!(flow[0]["endpoint"], red.v4().to_string());
        assert_eq!(flow[0]["source"], unconnected.local_addr()?.to_string());
        assert_eq!(flow.len(), 1);
        Ok(())
    });
}

#[test]
fn a_service_says_itself_what_is_logged_of_it() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        let quiet = virtual_address(71, 80);
        let services = [
            web(&red).key("access_log: { sample: 10 }"),
            Service::tcp("quiet", quiet).endpoint(red.v4()).key("access_log: { sample: 0 }"),
            Service::tcp("none", virtual_address(72, 80)).key("access_log: { events: [closed] }"),
        ];
        let (_supervisor, log) = logging(lab, "access_log: {}", &services)?;
        for _ in 0..2000 {
            drop(TcpStream::connect(WEB)?);
            drop(TcpStream::connect(quiet)?);
        }
        assert!(TcpStream::connect(virtual_address(72, 80)).is_err());
        wait_for(&log, 100, is("closed"))?;
        std::thread::sleep(Duration::from_millis(500));
        let lines = lines(&log);
        assert!(lines.iter().all(|line| line["service"] == "web"), "{lines:?}");
        // Of 2,000 connections 200 are expected, with a standard deviation of 13.
        assert!((120..280).contains(&lines.len()), "{} lines", lines.len());
        Ok(())
    });
}

#[test]
fn every_connection_has_its_line_whatever_happens_to_workers() {
    isolated(|lab| {
        const CONNECTIONS: usize = 3000;
        let red = Backend::tcp("red")?;
        let (mut supervisor, log) = logging(lab, "access_log: {}", &[web(&red)])?;
        for number in 0..CONNECTIONS {
            drop(TcpStream::connect(WEB)?);
            if number % 100 == 50 {
                for worker in supervisor.workers() {
                    supervisor.kill_worker(worker);
                }
            }
            if number % 1000 == 700 {
                supervisor.signal(Signal::SIGHUP)?;
            }
        }
        supervisor.wait_for_grant()?;
        let sockets = eventually("a line for each connection", || {
            let mut sockets: HashMap<u64, usize> = HashMap::new();
            for line in lines(&log).iter().filter(|line| line["event"] == "closed") {
                *sockets.entry(line["socket"].as_u64().unwrap_or(0)).or_default() += 1;
            }
            if sockets.len() == CONNECTIONS { Ok(sockets) } else { Err(sockets.len().to_string()) }
        })?;
        assert!(!sockets.contains_key(&0));
        Ok(())
    });
}

#[test]
fn events_wait_while_there_is_no_supervisor_and_what_finds_no_room_is_counted() {
    isolated(|lab| {
        // More than the 29,000 that the kernel has room for.
        const CONNECTIONS: usize = 40_000;
        let red = Backend::tcp("red")?;
        let (supervisor, log) = logging(lab, "access_log: {}", &[web(&red)])?;
        supervisor.end(Signal::SIGTERM)?;
        for _ in 0..CONNECTIONS {
            drop(TcpStream::connect(WEB)?);
        }
        let file = lab.directory().join("config.yaml");
        let metrics = "127.0.0.1:9150";
        let mut supervisor =
            lab.supervisor(&file).with("--access-log", &log).with("--metrics", metrics).start()?;
        supervisor.wait_for_grant()?;
        let lost = eventually("each connection told or counted as lost", || {
            let told = lines(&log).len();
            let lost = scrape().map_err(|error| format!("{error:?}"))?;
            let lost = lost.get("holdfast_events_lost_total").copied().unwrap_or(-1.0);
            if told as f64 + lost == CONNECTIONS as f64 {
                Ok(lost)
            } else {
                Err(format!("{told} told, {lost} lost"))
            }
        })?;
        assert!(lost > 0.0 && lost < CONNECTIONS as f64 / 2.0, "{lost} lost");
        Ok(())
    });
}

#[test]
fn connections_can_be_followed_live_over_a_new_worker() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        let other = virtual_address(73, 80);
        let services = [web(&red), Service::tcp("other", other).endpoint(red.v4())];
        let file = lab.write("config.yaml", render(&services))?;
        let mut supervisor = lab.supervisor(&file).start()?;
        supervisor.wait_for_grant()?;
        let mut trace = lab.ctl_command(&["--json", "trace", "--service", "web", "--for", "4s"])?;
        let trace = trace.stdout(std::process::Stdio::piped()).spawn()?;
        let end = std::time::Instant::now() + Duration::from_secs(3);
        let (mut connections, mut killed) = (0, false);
        // The first question is under way.
        std::thread::sleep(Duration::from_millis(500));
        while std::time::Instant::now() < end {
            drop(TcpStream::connect(WEB)?);
            drop(TcpStream::connect(other)?);
            connections += 1;
            if connections == 20 {
                for worker in supervisor.workers() {
                    killed |= supervisor.kill_worker(worker);
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let output = trace.wait_with_output()?;
        let text = String::from_utf8(output.stdout)?;
        let lines: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        assert!(killed && output.status.success());
        assert!(lines.iter().all(|line| line["service"] == "web"));
        for event in ["sent", "established", "closed"] {
            let found = lines.iter().filter(|line| line["event"] == event).count();
            // What the killed worker had read and nobody had asked for is gone: 200 ms of it at most.
            assert!(
                found + 25 >= connections && found <= connections,
                "{event}: {found} of {connections}"
            );
        }
        Ok(())
    });
}
