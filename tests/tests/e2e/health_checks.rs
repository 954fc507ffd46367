//! Endpoints are asked whether they work, and those that do not get no new connections: whatever
//! becomes of the worker that asks.

use std::error::Error;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Instant;

use holdfast_lab::wait::holds;
use holdfast_lab::{
    Attempt, Backend, Lab, LabError, Load, Service, Target, TestResult, attempt, eventually,
    isolated, render,
};
use holdfast_protocol::handover::ConfigState;
use holdfast_tests::health_server::HealthServer;
use holdfast_tests::scrape::scrape;
use nix::sys::signal::Signal;

use crate::pair::{
    CONNECTIONS, HEALTH, NAMES, PORT, SHAPE, assert_only, at, backend, row, start, wait_until_used,
};
use crate::scene::{FILE, WEB, put_in_force, virtual_address, virtual_address6};

/// Workers that are killed one after the other.
const KILLS: u32 = 10;

/// Checks that notice soon.
const SOON: &str = "interval: 100ms, healthy_threshold: 2, unhealthy_threshold: 2";

/// The key of a service that is checked as `keys` say.
fn checked(keys: &str) -> String {
    format!("health_check: {{ {keys} }}")
}

/// The service of both endpoints, checked as `keys` say.
fn web(keys: &str) -> Service {
    let service = Service::tcp("web", WEB).key(&checked(keys));
    service.endpoint(at(1, PORT)).endpoint(at(2, PORT))
}

/// It is asked over HTTP, at another port than connections go to.
fn asked(keys: &str) -> String {
    format!("http: {{ path: /healthz }}, port: {HEALTH}, {keys}")
}

/// Two endpoints, and who says how they are.
struct Endpoints {
    _backends: [Backend; 2],
    red: HealthServer,
    green: HealthServer,
}

impl Endpoints {
    fn open() -> Result<Self, LabError> {
        Ok(Self {
            _backends: [backend(1)?, backend(2)?],
            red: HealthServer::at(at(1, HEALTH))?,
            green: HealthServer::at(at(2, HEALTH))?,
        })
    }
}

/// Waits until it says that the endpoint is in `state`, for this reason. As long as a table still has it, more is said.
fn wait_for(lab: &Lab, number: u8, state: &str, reason: &str) -> Result<(), LabError> {
    wait_for_of(lab, "web", number, state, reason)
}

fn wait_for_of(
    lab: &Lab,
    service: &str,
    number: u8,
    state: &str,
    reason: &str,
) -> Result<(), LabError> {
    eventually(&format!("{service}'s endpoint {number} to be {state}"), || {
        let row = row(lab, service, number).map_err(|error| error.to_string())?;
        let says = row["reason"] == reason;
        holds(row["state"] == state && says, || row.to_string())
    })
}

#[test]
fn an_endpoint_that_is_gone_gets_no_connection_until_it_is_back() {
    isolated(|lab| {
        let (red, _green) = (backend(1)?, backend(2)?);
        let mut supervisor = start(lab, &[web(&format!("tcp: {{}}, {SOON}"))])?;
        wait_until_used(WEB, "red")?;
        for _ in 0..2 {
            wait_until_used(WEB, "green")?;
        }
        drop(red);
        wait_for(lab, 1, "unhealthy", "connection refused")?;
        wait_for(lab, 2, "active", "")?;
        assert_only(WEB, "green");
        let text = lab.ctl(&["endpoints"])?.stdout;
        assert!(text.contains("unhealthy: connection refused"), "{text}");
        let _red = backend(1)?;
        wait_for(lab, 1, "active", "")?;
        wait_until_used(WEB, "red")?;
        let status = supervisor.wait_for_grant()?;
        assert_eq!(status.takeovers.count, 1, "one worker has done all of it: {status:?}");
        Ok(())
    });
}

#[test]
fn an_answer_of_503_costs_new_connections_and_no_old_one() {
    isolated(|lab| {
        let endpoints = Endpoints::open()?;
        let _supervisor = start(lab, &[web(&asked(SOON))])?;
        let mut old = connection_to("red")?;
        endpoints.red.say(503);
        wait_for(lab, 1, "unhealthy", "answered 503")?;
        assert_only(WEB, "green");
        old.write_all(b"still there?")?;
        let mut answer = [0; 12];
        old.read_exact(&mut answer)?;
        assert_eq!(&answer, b"still there?");
        let samples = scrape().map_err(|error| format!("{error:?}"))?;
        let labels = r#"{service="web",port_name="main",protocol="tcp"}"#;
        let value = |name: &str| samples.get(name).copied();
        assert_eq!(value(&format!("holdfast_service_endpoints{labels}")), Some(1.0));
        assert_eq!(value(&format!("holdfast_service_endpoints_unhealthy{labels}")), Some(1.0));
        // Two failures were asked for; the other endpoint may have been asked once until now.
        for outcome in ["passed", "failed"] {
            let name = format!(r#"holdfast_health_checks_total{{outcome="{outcome}"}}"#);
            eventually("two checks of each outcome", || {
                let samples = scrape().map_err(|error| format!("{error:?}"))?;
                let count = samples.get(&name).copied();
                holds(count.is_some_and(|count| count >= 2.0), || format!("{name}: {count:?}"))
            })?;
        }
        endpoints.red.say(204);
        wait_for(lab, 1, "active", "")?;
        wait_until_used(WEB, "red")?;
        Ok(())
    });
}

/// A connection to the service that has reached the backend called `name`.
fn connection_to(name: &str) -> Result<TcpStream, Box<dyn Error>> {
    Ok(eventually("a connection to it", || {
        let connection = TcpStream::connect(WEB).map_err(|error| error.to_string())?;
        let mut line = String::new();
        let greeted = BufReader::new(&connection).read_line(&mut line);
        greeted.map_err(|error| error.to_string())?;
        if line.trim_end() == name { Ok(connection) } else { Err(line) }
    })?)
}

#[test]
fn an_endpoint_that_does_not_answer_is_unhealthy() {
    isolated(|lab| {
        let _backends = [backend(1)?, backend(2)?];
        // The kernel takes connections for it, and nobody ever answers.
        let _silent = TcpListener::bind(at(1, HEALTH))?;
        let _green = HealthServer::at(at(2, HEALTH))?;
        let _supervisor = start(lab, &[web(&asked(&format!("{SOON}, timeout: 50ms")))])?;
        wait_for(lab, 1, "unhealthy", "timed out after 50ms")?;
        assert_only(WEB, "green");
        Ok(())
    });
}

/// Checks that a new worker would need some seconds to find out by: what it did not know from before, it
/// would send connections to for so long.
const SLOW: &str = "interval: 1s, healthy_threshold: 2, unhealthy_threshold: 3";

#[test]
fn an_ejection_survives_every_worker_and_the_supervisor() {
    isolated(|lab| {
        let endpoints = Endpoints::open()?;
        let mut supervisor = start(lab, &[web(&asked(SLOW))])?;
        endpoints.red.say(503);
        wait_for(lab, 1, "unhealthy", "answered 503")?;
        let load = Load::start(&[Target::tcp(WEB, &NAMES)], SHAPE);
        for _ in 0..KILLS {
            let before = supervisor.wait_for_grant()?;
            holds(supervisor.kill_worker(before.worker.pid), || "no worker".to_owned())?;
            supervisor.wait_for_grant_after(before.epoch)?;
            // Until the new one has looked at the endpoint by itself.
            wait_for(lab, 1, "unhealthy", "answered 503")?;
        }
        let epoch = supervisor.status()?.epoch;
        supervisor.signal(Signal::SIGHUP)?;
        supervisor.wait_for_grant_after(epoch)?;
        supervisor.end(Signal::SIGKILL)?;
        let file = lab.directory().join(FILE);
        let mut supervisor = lab.supervisor(&file).start()?;
        supervisor.wait_for_grant()?;
        wait_for(lab, 1, "unhealthy", "answered 503")?;
        let tally = load.finish();
        assert_eq!((tally.failed, tally.ungoverned), (0, 0), "{tally:?}");
        assert_eq!(tally.by_backend.keys().collect::<Vec<_>>(), ["green"], "{tally:?}");
        endpoints.red.say(200);
        wait_for(lab, 1, "active", "")?;
        wait_until_used(WEB, "red")?;
        Ok(())
    });
}

#[test]
fn when_nobody_is_healthy_connections_get_what_is_configured() {
    isolated(|lab| {
        let endpoints = Endpoints::open()?;
        let strict = virtual_address(11, 80);
        let keys = format!("{}, when_all_unhealthy: no_endpoint", asked(SOON));
        let other = Service::tcp("strict", strict).key(&checked(&keys)).no_endpoint("deny");
        let other = other.endpoint(at(1, PORT)).endpoint(at(2, PORT));
        let mut supervisor = start(lab, &[web(&asked(SOON)), other])?;
        endpoints.red.say(500);
        endpoints.green.say(500);
        for number in [1, 2] {
            let used = "answered 500; used all the same, for want of a healthy one";
            wait_for_of(lab, "web", number, "unhealthy", used)?;
            wait_for_of(lab, "strict", number, "unhealthy", "answered 500")?;
        }
        let used = Load::start(&[Target::tcp(WEB, &NAMES)], SHAPE);
        let denied = || {
            let error = TcpStream::connect(strict).expect_err("nobody is healthy");
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        };
        for _ in 0..KILLS / 2 {
            (0..CONNECTIONS).for_each(|_| denied());
            let before = supervisor.wait_for_grant()?;
            holds(supervisor.kill_worker(before.worker.pid), || "no worker".to_owned())?;
            eventually("the next worker", || {
                denied();
                let status = supervisor.status().map_err(|error| error.to_string())?;
                holds(status.epoch > before.epoch, || format!("epoch {}", status.epoch))
            })?;
        }
        let tally = used.finish();
        assert_eq!((tally.failed, tally.ungoverned), (0, 0), "{tally:?}");
        assert_eq!(tally.by_backend.len(), 2, "{tally:?}");
        endpoints.green.say(200);
        for (service, address) in [("web", WEB), ("strict", strict)] {
            wait_for_of(lab, service, 2, "active", "")?;
            wait_for_of(lab, service, 1, "unhealthy", "answered 500")?;
            assert_only(address, "green");
        }
        Ok(())
    });
}

#[test]
fn what_is_in_force_follows_health_while_what_is_on_disk_is_rejected() {
    isolated(|lab| {
        let endpoints = Endpoints::open()?;
        let mut supervisor = start(lab, &[web(&asked(SOON))])?;
        let digest = supervisor.status()?.config.digest;
        lab.write(FILE, "services: nothing\n")?;
        supervisor
            .wait_until("a rejection", |status| status.config.state == ConfigState::Rejected)?;
        endpoints.red.say(503);
        wait_for(lab, 1, "unhealthy", "answered 503")?;
        assert_only(WEB, "green");
        endpoints.red.say(200);
        wait_for(lab, 1, "active", "")?;
        wait_until_used(WEB, "red")?;
        let config = supervisor.status()?.config;
        assert_eq!((config.state, config.digest), (ConfigState::Rejected, digest));
        Ok(())
    });
}

#[test]
fn checks_come_and_go_with_a_save_and_no_connection_notices() {
    isolated(|lab| {
        let endpoints = Endpoints::open()?;
        let both = || Service::tcp("web", WEB).endpoint(at(1, PORT)).endpoint(at(2, PORT));
        let mut supervisor = start(lab, &[both()])?;
        let load = Load::start(&[Target::tcp(WEB, &NAMES)], SHAPE);
        endpoints.red.say(503);
        // The worker cannot connect any more, so this is for the next one.
        let epoch = supervisor.status()?.epoch;
        put_in_force(lab, &mut supervisor, &render(&[web(&asked(SOON))]))?;
        supervisor.wait_for_grant_after(epoch)?;
        wait_for(lab, 1, "unhealthy", "answered 503")?;
        assert_only(WEB, "green");
        // An endpoint that comes to others waits until its first check has passed.
        let epoch = supervisor.status()?.epoch;
        let only_green = Service::tcp("web", WEB).key(&checked(&asked(SOON))).endpoint(at(2, PORT));
        put_in_force(lab, &mut supervisor, &render(&[only_green]))?;
        put_in_force(lab, &mut supervisor, &render(&[web(&asked(SOON))]))?;
        wait_for(lab, 1, "unhealthy", "answered 503")?;
        let green = load.so_far().by_backend.get("red").copied();
        assert_only(WEB, "green");
        assert_eq!(load.so_far().by_backend.get("red").copied(), green);
        // Without checks nobody is left out.
        put_in_force(lab, &mut supervisor, &render(&[both()]))?;
        wait_until_used(WEB, "red")?;
        assert_eq!(supervisor.status()?.epoch, epoch, "that took no other worker");
        let tally = load.finish();
        assert_eq!((tally.failed, tally.ungoverned), (0, 0), "{tally:?}");
        Ok(())
    });
}

#[test]
fn a_spare_checks_nobody() {
    isolated(|lab| {
        let endpoints = Endpoints::open()?;
        let file = lab.write(FILE, render(&[web(&asked("interval: 200ms"))]))?;
        let mut supervisor = lab.supervisor(&file).flag("--standby").start()?;
        supervisor.wait_until("a spare that is ready", |status| {
            status.standby.as_ref().is_some_and(|spare| spare.state == "shadow")
        })?;
        let (begin, before) = (Instant::now(), endpoints.red.asked());
        eventually("more checks", || {
            let asked = endpoints.red.asked() - before;
            holds(asked >= 20, || format!("{asked} checks"))
        })?;
        // One worker cannot make more, however fast the machine is, and two would.
        let most = begin.elapsed().as_millis() / 180 + 2;
        let asked = u128::from(endpoints.red.asked() - before);
        assert!(asked <= most, "{asked} checks in {:?}", begin.elapsed());
        Ok(())
    });
}

#[test]
fn connections_fail_over_when_the_nearest_are_unhealthy() {
    isolated(|lab| {
        let endpoints = Endpoints::open()?;
        let service = Service::tcp("web", WEB).balanced("locality: { mode: failover }");
        let service = service.key(&checked(&asked(SOON)));
        let service = service.endpoint_with(at(1, PORT), "priority: 0");
        let _supervisor = start(lab, &[service.endpoint_with(at(2, PORT), "priority: 1")])?;
        wait_for(lab, 2, "standby", "")?;
        assert_only(WEB, "red");
        endpoints.red.say(503);
        wait_for(lab, 1, "unhealthy", "answered 503")?;
        assert_only(WEB, "green");
        endpoints.red.say(200);
        wait_for(lab, 1, "active", "")?;
        assert_only(WEB, "red");
        TestResult::Ok(())
    });
}

#[test]
fn ipv6_endpoints_are_checked_too_and_ipv4_ones_stand_in_for_them() {
    isolated(|lab| {
        let v6: SocketAddr = (Ipv6Addr::LOCALHOST, PORT).into();
        let address = virtual_address6(0x10, 80);
        let six = Backend::tcp_at("green", &[v6])?;
        let _four = backend(1)?;
        let service = Service::tcp("web", WEB).at(address.ip()).endpoint(at(1, PORT)).endpoint(v6);
        let _supervisor = start(lab, &[service.key(&checked(&format!("tcp: {{}}, {SOON}")))])?;
        assert_only(WEB, "red");
        assert_only(address, "green");
        drop(six);
        wait_until_used(address, "red")?;
        assert_only(address, "red");
        assert_only(WEB, "red");
        let _six = Backend::tcp_at("green", &[v6])?;
        wait_until_used(address, "green")?;
        assert_only(address, "green");
        TestResult::Ok(())
    });
}

#[test]
fn a_datagram_service_is_checked_where_it_answers_tcp() {
    isolated(|lab| {
        let udp = |number: u8| Backend::udp_at(NAMES[usize::from(number) - 1], &[at(number, PORT)]);
        let _backends = [udp(1)?, udp(2)?];
        let red = HealthServer::at(at(1, HEALTH))?;
        let _green = HealthServer::at(at(2, HEALTH))?;
        let service = Service::udp("web", WEB).key(&checked(&asked(SOON)));
        let service = service.endpoint(at(1, PORT)).endpoint(at(2, PORT));
        let _supervisor = start(lab, &[service])?;
        red.say(503);
        wait_for(lab, 1, "unhealthy", "answered 503")?;
        for _ in 0..CONNECTIONS {
            let attempt = attempt(&Target::udp(WEB, &NAMES));
            assert_eq!(attempt, Attempt::Reached("green".to_owned()));
        }
        TestResult::Ok(())
    });
}
