//! Connections of endpoints that have drained for the time their service gives them are closed: wherever their
//! sockets are, whoever restarts meanwhile, not before, and no others.

use std::error::Error;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use holdfast_lab::process::Process;
use holdfast_lab::wait::holds;
use holdfast_lab::{
    Backend, Lab, LabError, Service, Supervisor, TestResult, binaries, eventually, isolated,
};
use holdfast_tests::builds::{own_worker, replace, script};
use holdfast_tests::life::{Life, Restart};
use holdfast_tests::rows::{rows, services};
use holdfast_tests::scrape::{METRICS, scrape};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;

use crate::scene::{FILE, WEB, mapped, put_in_force, virtual_address, virtual_address6};

/// Another service of the same endpoints.
pub const API: SocketAddr = virtual_address(11, 80);
/// One over UDP.
const DNS: SocketAddr = virtual_address(12, 53);

/// How long a test waits for one answer of a server.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection, and who it reached.
pub struct Held {
    pub stream: TcpStream,
    pub name: String,
}

impl Held {
    pub fn open(address: SocketAddr) -> std::io::Result<Self> {
        Self::of(TcpStream::connect(address)?)
    }

    /// The connection `stream`, of which nothing was read yet.
    pub fn of(stream: TcpStream) -> std::io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut line = String::new();
        BufReader::with_capacity(1, &stream).read_line(&mut line)?;
        Ok(Self { stream, name: line.trim_end().to_owned() })
    }

    /// Fails unless bytes still go there and back.
    #[track_caller]
    pub fn assert_alive(&mut self) {
        let mut answer = [0; 12];
        let there = self.stream.write_all(b"still there?");
        let back = there.and_then(|()| self.stream.read_exact(&mut answer));
        assert!(back.is_ok() && &answer == b"still there?", "{}: {back:?}", self.name);
    }

    /// Waits until it is closed, and fails unless that is as somebody closes it on this node.
    #[track_caller]
    pub fn await_abort(&mut self) {
        let error = self.stream.read(&mut [0; 1]).expect_err("it is closed");
        assert_eq!(error.kind(), ErrorKind::ConnectionAborted, "{}: {error}", self.name);
    }
}

/// Opens connections to `address` until so many have reached `name`; those, and the others.
pub fn reach(
    address: SocketAddr,
    name: &str,
    count: usize,
) -> Result<(Vec<Held>, Vec<Held>), LabError> {
    let (mut wanted, mut others) = (Vec::new(), Vec::new());
    eventually("connections to the endpoint", || {
        let held = Held::open(address).map_err(|error| error.to_string())?;
        if held.name == name {
            wanted.push(held)
        } else {
            others.push(held)
        }
        holds(wanted.len() >= count, || format!("{} have", wanted.len()))
    })?;
    Ok((wanted, others))
}

/// `service` with both addresses of each backend, the first of which says `keys`.
pub fn with(service: Service, [red, green]: [&Backend; 2], keys: &str) -> Service {
    let service = service.endpoint_with(red.v4(), keys).endpoint_with(red.v6(), keys);
    service.endpoint(green.v4()).endpoint(green.v6())
}

/// The service `name` at `address`, which closes after `close_after` if it says so.
pub fn service(name: &str, address: SocketAddr, close_after: Option<&str>) -> Service {
    let service = Service::tcp(name, address).balanced("policy: round_robin");
    match close_after {
        Some(time) => service.key(&format!("drain: {{ close_after: {time} }}")),
        None => service,
    }
}

/// What a service counts that is open or pending.
fn live(lab: &Lab, name: &str) -> Result<u64, LabError> {
    let rows = services(lab)?;
    let row = rows.iter().find(|row| row["service"] == name);
    let count = |key: &str| row.and_then(|row| row["traffic"][key].as_u64()).unwrap_or(u64::MAX);
    Ok(count("open").saturating_add(count("pending")))
}

fn wait_for_live(lab: &Lab, name: &str, expected: u64) -> Result<(), LabError> {
    eventually(&format!("{expected} connections of {name}"), || {
        let live = live(lab, name).map_err(|error| error.to_string())?;
        holds(live == expected, || format!("{live} are live"))
    })
}

/// How many connections `endpoint` of the service `web` has, and how long until they are closed, if it has any.
fn closing(lab: &Lab, endpoint: &Backend) -> Result<Option<(u64, u64)>, LabError> {
    let (rows, address) = (rows(lab, "endpoints")?, endpoint.v4().to_string());
    let row = rows.iter().find(|row| row["service"] == "web" && row["endpoint"] == address);
    let open = row.and_then(|row| row["traffic"]["open"].as_u64());
    Ok(open.zip(row.and_then(|row| row["drain"]["closes_in_ms"].as_u64())))
}

/// How many connections of the service are counted as closed for this.
fn drained(name: &str, protocol: &str) -> Result<u64, Box<dyn Error>> {
    let samples = scrape().map_err(|error| format!("{error:?}"))?;
    let labels = format!(r#"{{service="{name}",port_name="main",protocol="{protocol}"}}"#);
    let value = samples.get(&format!("holdfast_service_connections_drained_total{labels}"));
    Ok(format!("{}", value.ok_or("no such sample")?).parse()?)
}

fn wait_for_drained(name: &str, protocol: &str, expected: u64) -> Result<(), LabError> {
    eventually(&format!("{expected} closed connections of {name}"), || {
        let count = drained(name, protocol).map_err(|error| error.to_string())?;
        holds(count == expected, || format!("{count} are counted"))
    })
}

pub fn start(lab: &Lab, services: &[Service]) -> Result<Supervisor, LabError> {
    let file = lab.write(FILE, text(services))?;
    lab.supervisor(&file).with("--metrics", METRICS.to_string()).start()
}

pub fn text(services: &[Service]) -> String {
    format!("access_log: {{}}\n{}", holdfast_lab::render(services))
}

#[test]
fn connections_live_until_the_time_has_come_and_are_closed_then() {
    isolated(|lab| {
        const TIME: Duration = Duration::from_secs(2);
        let (red, green) = (Backend::tcp("red")?, Backend::tcp("green")?);
        let both = [&red, &green];
        let texts = |keys: &str| {
            let web = with(service("web", WEB, Some("2s")), both, keys);
            // It drains as well, and says nothing of closing.
            [web, with(service("api", API, None), both, keys)]
        };
        let log = lab.directory().join("access.log");
        let file = lab.write(FILE, text(&texts("weight: 1")))?;
        let launch = lab.supervisor(&file).with("--metrics", METRICS.to_string());
        let mut supervisor = launch.with("--access-log", &log).start()?;
        let (mut old, mut others) = reach(WEB, "red", 3)?;
        let (mut kept, others_kept) = reach(API, "red", 2)?;
        others.extend(others_kept);

        let begun = Instant::now();
        put_in_force(lab, &mut supervisor, &text(&texts("draining: true")))?;
        old.iter_mut().for_each(Held::assert_alive);
        old.iter_mut().for_each(Held::await_abort);
        assert!(begun.elapsed() >= TIME, "closed after {:?}", begun.elapsed());
        others.iter_mut().chain(&mut kept).for_each(Held::assert_alive);

        // Their ends are counted once, and told with the reason.
        let alive = others.iter().filter(|held| held.stream.peer_addr().is_ok_and(|it| it == WEB));
        wait_for_live(lab, "web", u64::try_from(alive.count())?)?;
        wait_for_drained("web", "tcp", 3)?;
        assert_eq!(drained("api", "tcp")?, 0);
        eventually("three lines that say why", || {
            let log = std::fs::read_to_string(&log).map_err(|error| error.to_string())?;
            let lines = log.lines().filter(|line| line.contains(r#""reason":"drained""#));
            holds(lines.count() == 3, || log.clone())
        })?;
        let states = rows(lab, "endpoints")?;
        let reason = |service: &str| {
            let row = states
                .iter()
                .find(|row| row["service"] == service && row["endpoint"] == red.v4().to_string());
            row.and_then(|row| row["reason"].as_str()).unwrap_or("no row").to_owned()
        };
        assert_eq!(reason("web"), "connections are closed after 2s");
        assert_eq!(reason("api"), "");
        // Nobody is let in again, and nobody was there to ask for anything.
        let log = std::fs::read_to_string(supervisor.log())?;
        assert!(log.contains("connections to drained endpoints were closed"), "{log}");
        assert!(!log.contains("were not closed"), "{log}");
        TestResult::Ok(())
    });
}

/// A network namespace of its own, with a backend called `red` at the same address as outside, and
/// connections that a thread in there has opened.
struct Elsewhere {
    ask: Sender<()>,
    told: Receiver<Result<(), String>>,
    thread: JoinHandle<()>,
}

impl Elsewhere {
    /// Opens a connection to each of `addresses` in there, all of which lead to `endpoint`.
    fn open(endpoint: SocketAddr, addresses: Vec<SocketAddr>) -> Result<Self, Box<dyn Error>> {
        let (ask, asked) = channel::<()>();
        let (tell, told) = channel();
        let thread = thread::spawn(move || {
            let opened = within(endpoint, &addresses);
            let opened = opened.map_err(|error| error.to_string());
            let (mut held, _red) = match opened {
                Ok(opened) => opened,
                Err(error) => return drop(tell.send(Err(error))),
            };
            held.iter_mut().for_each(Held::assert_alive);
            let _nobody = tell.send(Ok(()));
            if asked.recv().is_ok() {
                held.iter_mut().for_each(Held::await_abort);
                let _nobody = tell.send(Ok(()));
            }
        });
        let elsewhere = Self { ask, told, thread };
        elsewhere.told.recv_timeout(PATIENCE)??;
        Ok(elsewhere)
    }

    /// Waits until all of them are closed.
    fn await_aborts(self) -> Result<(), Box<dyn Error>> {
        self.ask.send(())?;
        let told = self.told.recv_timeout(PATIENCE + PATIENCE);
        self.thread.join().map_err(|_| "a connection was not closed as it should be")?;
        Ok(told??)
    }
}

fn within(
    endpoint: SocketAddr,
    addresses: &[SocketAddr],
) -> Result<(Vec<Held>, Backend), Box<dyn Error>> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    // A child is in the network namespace of the thread that starts it.
    let up = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status()?;
    holds(up.success(), || up.to_string())?;
    let red = Backend::tcp_at("red", &[endpoint])?;
    let held: Result<Vec<_>, _> = addresses.iter().map(|address| Held::open(*address)).collect();
    Ok((held?, red))
}

#[test]
fn sockets_of_every_kind_are_closed_wherever_they_are() {
    isolated(|lab| {
        let (red, green) = (Backend::tcp("red")?, Backend::tcp("green")?);
        let dns = Backend::udp("dns")?;
        let texts = |keys: &str| {
            let web = service("web", WEB, Some("0s")).at(virtual_address6(10, 80).ip());
            let web = web.endpoint_with(red.v4(), keys).endpoint_with(red.v6(), keys);
            let web = if keys.contains("draining") { web.endpoint(green.v4()) } else { web };
            let udp = Service::udp("dns", DNS).key("drain: { close_after: 0s }");
            [web, udp.endpoint_with(dns.v4(), keys)]
        };
        let mut supervisor = start(lab, &texts("weight: 1"))?;
        let addresses = [WEB, mapped(WEB), virtual_address6(10, 80)];
        let here: Result<Vec<_>, _> = addresses.map(Held::open).into_iter().collect();
        let mut here = here?;
        let elsewhere = Elsewhere::open(red.v4(), vec![WEB, mapped(WEB)])?;
        let datagrams = UdpSocket::bind("127.0.0.1:0")?;
        datagrams.connect(DNS)?;
        datagrams.set_read_timeout(Some(PATIENCE))?;
        // Its peer is the address that is asked for, and no connection to that one is closed.
        let bystander = UdpSocket::bind("127.0.0.1:0")?;
        bystander.connect(green.v4())?;
        wait_for_live(lab, "web", 5)?;

        put_in_force(lab, &mut supervisor, &text(&texts("draining: true")))?;
        here.iter_mut().for_each(Held::await_abort);
        elsewhere.await_aborts()?;
        let error = datagrams.recv(&mut [0; 16]).expect_err("it is closed");
        assert_eq!(error.kind(), ErrorKind::ConnectionAborted, "{error}");
        let error = datagrams.send(b"?").expect_err("it is connected to nobody");
        assert_eq!(error.raw_os_error(), Some(libc::EDESTADDRREQ), "{error}");
        bystander.send(b"?")?;
        wait_for_live(lab, "web", 0)?;
        wait_for_drained("web", "tcp", 5)?;
        wait_for_drained("dns", "udp", 1)?;
        // Its owner still has it, and only then it is over.
        assert_eq!(live(lab, "dns")?, 1);
        drop(datagrams);
        wait_for_live(lab, "dns", 0)?;
        TestResult::Ok(())
    });
}

#[test]
fn the_time_goes_on_whoever_restarts_and_connections_are_closed_once() {
    isolated(|lab| {
        const TIME: Duration = Duration::from_secs(4);
        let (red, green) = (Backend::tcp("red")?, Backend::tcp("green")?);
        let both = [&red, &green];
        let texts = |keys: &str| [with(service("web", WEB, Some("4s")), both, keys)];
        let file = lab.write(FILE, text(&texts("weight: 1")))?;
        let mut life = Life::new(lab, file).with("--metrics", METRICS.to_string());
        life.start()?;
        let (mut old, mut others) = reach(WEB, "red", 3)?;
        let begun = Instant::now();
        put_in_force(lab, life.supervisor(), &text(&texts("draining: true")))?;
        let marked = Instant::now();
        let (open, mut last) = closing(lab, &red)?.ok_or("it is not known when it closes")?;
        assert!(open == 3 && last <= 4000, "{open} are open, and {last} ms are left");
        for restart in
            [Restart::WorkerKilled, Restart::SupervisorReplaced, Restart::SupervisorKilled]
        {
            life.restart(restart)?;
            if marked.elapsed() < TIME / 2 {
                old.iter_mut().for_each(Held::assert_alive);
            }
            // Nobody begins anew.
            if let Some((_, left)) = closing(lab, &red)? {
                assert!(left <= last, "{left} ms are left, {last} were before {restart:?}");
                last = left;
            }
        }
        old.iter_mut().for_each(Held::await_abort);
        assert!(begun.elapsed() >= TIME, "closed after {:?}", begun.elapsed());
        wait_for_drained("web", "tcp", 3)?;
        // Whoever comes next closes nobody else, and counts none of it again.
        life.restart(Restart::WorkerKilled)?;
        wait_for_drained("web", "tcp", 3)?;
        others.iter_mut().for_each(Held::assert_alive);
        TestResult::Ok(())
    });
}

#[test]
fn what_falls_due_while_nobody_serves_is_closed_by_the_next() {
    isolated(|lab| {
        let (red, green) = (Backend::tcp("red")?, Backend::tcp("green")?);
        let texts = |keys: &str| [with(service("web", WEB, Some("1s")), [&red, &green], keys)];
        let file = lab.write(FILE, text(&texts("weight: 1")))?;
        let mut life = Life::new(lab, file);
        life.start()?;
        let (mut old, _others) = reach(WEB, "red", 2)?;
        put_in_force(lab, life.supervisor(), &text(&texts("draining: true")))?;
        life.end(Signal::SIGKILL)?;
        // What is on disk cannot be used: what is in force goes on, and so does its time.
        lab.write(FILE, "services: nothing\n")?;
        life.start()?;
        old.iter_mut().for_each(Held::await_abort);
        TestResult::Ok(())
    });
}

#[test]
fn what_drains_no_more_keeps_its_connections() {
    isolated(|lab| {
        let (red, green) = (Backend::tcp("red")?, Backend::tcp("green")?);
        let both = [&red, &green];
        let texts = |web: &str, api: &str| {
            let of = |name, address, keys| with(service(name, address, Some("1s")), both, keys);
            [of("web", WEB, web), of("api", API, api)]
        };
        let mut supervisor = start(lab, &texts("weight: 1", "weight: 1"))?;
        let (mut kept, _others) = reach(WEB, "red", 2)?;
        let (mut closed, _others_closed) = reach(API, "red", 2)?;
        put_in_force(lab, &mut supervisor, &text(&texts("draining: true", "weight: 1")))?;
        // The other one's time begins later, and is over later than the first one's would have been.
        put_in_force(lab, &mut supervisor, &text(&texts("weight: 2", "draining: true")))?;
        closed.iter_mut().for_each(Held::await_abort);
        wait_for_drained("api", "tcp", 2)?;
        kept.iter_mut().for_each(Held::assert_alive);
        assert_eq!(drained("web", "tcp")?, 0);
        // It drains again, under another number; what it had before is closed as well.
        let (mut more, _others_more) = reach(WEB, "red", 1)?;
        put_in_force(lab, &mut supervisor, &text(&texts("draining: true", "weight: 1")))?;
        kept.iter_mut().chain(&mut more).for_each(Held::await_abort);
        wait_for_drained("web", "tcp", 3)?;
        TestResult::Ok(())
    });
}

#[test]
fn an_endpoint_that_is_removed_keeps_its_connections() {
    isolated(|lab| {
        let (red, green) = (Backend::tcp("red")?, Backend::tcp("green")?);
        let web = || service("web", WEB, Some("0s"));
        let api = |keys: &str| with(service("api", API, Some("0s")), [&red, &green], keys);
        let before = [with(web(), [&red, &green], "weight: 1"), api("weight: 1")];
        let mut supervisor = start(lab, &before)?;
        let (mut kept, _others) = reach(WEB, "red", 2)?;
        let (mut closed, _others_closed) = reach(API, "red", 1)?;
        let after = [web().endpoint(green.v4()).endpoint(green.v6()), api("draining: true")];
        put_in_force(lab, &mut supervisor, &text(&after))?;
        closed.iter_mut().for_each(Held::await_abort);
        kept.iter_mut().for_each(Held::assert_alive);
        TestResult::Ok(())
    });
}

#[test]
fn a_closer_that_is_killed_is_followed_by_another() {
    isolated(|lab| {
        let (red, green) = (Backend::tcp("red")?, Backend::tcp("green")?);
        let texts = |keys: &str| [with(service("web", WEB, Some("1s")), [&red, &green], keys)];
        let file = lab.write(FILE, text(&texts("weight: 1")))?;
        let worker = own_worker(lab)?;
        let mut supervisor = lab.supervisor(&file).with("--worker", &worker).start()?;
        let (mut old, mut others) = reach(WEB, "red", 2)?;
        // The next child that is started from it stops, and is killed here.
        let stopping = "if [ \"$1\" = close ]; then kill -STOP $$; fi; exit 1";
        let script = script(lab, "stopping", stopping)?;
        put_in_force(lab, &mut supervisor, &text(&texts("draining: true")))?;
        replace(&worker, &script)?;
        let closer = eventually("a closer", || {
            let log =
                std::fs::read_to_string(supervisor.log()).map_err(|error| error.to_string())?;
            let line = log.lines().find(|line| line.contains("a closer closes"));
            let line = line.ok_or_else(|| log.clone())?;
            pid_of(line).ok_or_else(|| line.to_owned())
        })?;
        // Before that its shell has not read the script.
        eventually("a closer that has stopped", || {
            let stat = std::fs::read_to_string(format!("/proc/{closer}/stat"));
            let stat = stat.map_err(|error| error.to_string())?;
            holds(stat.contains(") T "), || stat.clone())
        })?;
        replace(&worker, &binaries::find(binaries::WORKER)?)?;
        Process::open(closer)?.signal(Signal::SIGKILL)?;
        old.iter_mut().for_each(Held::await_abort);
        others.iter_mut().for_each(Held::assert_alive);
        let status = supervisor.status()?;
        assert_eq!(status.takeovers.count, 1, "one worker has done all of it: {status:?}");
        TestResult::Ok(())
    });
}

/// The process id in a line of the supervisor's log.
fn pid_of(line: &str) -> Option<u32> {
    let (_, rest) = line.split_once("\"pid\":").or_else(|| line.split_once("pid="))?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}
