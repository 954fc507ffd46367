//! Connections to endpoints themselves: they pass to where they ask, and are the service's all the same.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use holdfast_lab::wait::holds;
use holdfast_lab::{Backend, Lab, LabError, Service, TestResult, eventually, isolated, render};
use holdfast_tests::life::{Life, Restart};
use holdfast_tests::rows::{counted, endpoint_row, rows, services};
use holdfast_tests::scrape::{METRICS, scrape};
use serde_json::Value;

use crate::events;
use crate::scene::{FILE, WEB, mapped, put_in_force, serve, virtual_address, web};

/// The access log's name.
const LOG: &str = "access.log";

/// A service without addresses, whose endpoints are those.
fn headless(name: &str, protocol: &str, endpoints: &[&str]) -> String {
    format!(
        "  - name: {name}\n    direct: true\n    ports: [{{ name: main, port: 80, protocol: {protocol} }}]\n    \
         endpoints: [{}]\n",
        endpoints.join(", ")
    )
}

/// An endpoint as the configuration has it, with further keys.
fn endpoint(at: SocketAddr, keys: &str) -> String {
    format!("{{ address: \"{}\", port: {}{keys} }}", at.ip(), at.port())
}

fn text(services: &[String]) -> String {
    format!("services:\n{}", services.concat())
}

/// What is counted of the endpoint of `service` at `address`: opened, open and failed.
fn traffic(lab: &Lab, service: &str, address: SocketAddr) -> Result<[u64; 3], LabError> {
    let row = endpoint_row(lab, service, address)?;
    Ok(["opened", "open", "failed"].map(|key| row["traffic"][key].as_u64().unwrap_or(u64::MAX)))
}

/// Waits until nothing is open at any endpoint, and so everything has been counted.
fn wait_until_closed(lab: &Lab) -> Result<(), LabError> {
    eventually("everything to be closed", || {
        let all = rows(lab, "endpoints").map_err(|error| error.to_string())?;
        holds(all.iter().all(|row| row["traffic"]["open"] == 0), || format!("{all:?}"))
    })
}

/// The lines of the access log that are about `service`, once there are `count` of them.
fn lines(lab: &Lab, service: &str, count: usize) -> Result<Vec<Value>, LabError> {
    events::wait_for(&lab.directory().join(LOG), count, |line| line["service"] == service)
}

#[test]
fn it_goes_where_it_asks_and_is_counted_and_told() {
    isolated(|lab| {
        let own = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("[::1]:0")?];
        let [v4, v6] = [own[0].local_addr()?, own[1].local_addr()?];
        let web = Service::tcp("web", WEB).endpoint(v4).endpoint(v6).key("direct: true");
        let file = lab.write(FILE, render(&[web]) + "access_log: {}\n")?;
        let log = lab.directory().join(LOG);
        let mut supervisor = lab.supervisor(&file).with("--access-log", &log).start()?;
        supervisor.wait_for_grant()?;
        let mut trace = lab.ctl_command(&["--json", "trace", "--service", "web", "--for", "2s"])?;
        let trace = trace.stdout(std::process::Stdio::piped()).spawn()?;
        // The first question is under way.
        thread::sleep(std::time::Duration::from_millis(500));
        for (listener, asked) in [(&own[0], v4), (&own[1], v6), (&own[0], mapped(v4))] {
            let stream = TcpStream::connect(asked)?;
            assert_eq!(stream.peer_addr()?, asked);
            let (served, peer) = listener.accept()?;
            assert_eq!(mapped(peer), mapped(stream.local_addr()?));
            assert_eq!(mapped(served.local_addr()?), mapped(asked));
        }
        wait_until_closed(lab)?;
        assert_eq!(counted(lab, "web", "connections")?, 3);
        assert_eq!((traffic(lab, "web", v4)?, traffic(lab, "web", v6)?), ([2, 0, 0], [1, 0, 0]));
        for line in lines(lab, "web", 3)? {
            assert_eq!((&line["event"], &line["port_name"]), (&"closed".into(), &"main".into()));
            assert_eq!(line["endpoint"], line["destination"]);
            let at = [v4, v6].map(|address| Value::from(address.to_string()));
            assert!(at.contains(&line["endpoint"]), "{line}");
        }
        let traced = String::from_utf8(trace.wait_with_output()?.stdout)?;
        assert_eq!(traced.matches("\"event\":\"established\"").count(), 3, "{traced}");

        // By its address it is chosen among, and counted together.
        drop(TcpStream::connect(WEB)?);
        assert_eq!(counted(lab, "web", "connections")?, 4);
        let row = services(lab)?.remove(0);
        assert_eq!(
            (&row["policy"], &row["addresses"]),
            (&"random, direct".into(), &serde_json::json!(["127.96.0.10"]))
        );
        assert_eq!(row["endpoints"], 1, "of those that are chosen among");

        // One that comes to nothing is one that failed.
        drop(own);
        assert_eq!(
            TcpStream::connect(v4).map_err(|it| it.kind()).err(),
            Some(ErrorKind::ConnectionRefused)
        );
        eventually("the failure", || {
            let traffic = traffic(lab, "web", v4).map_err(|error| error.to_string())?;
            holds(traffic[2] == 1, || format!("{traffic:?}"))
        })?;
        Ok(())
    });
}

#[test]
fn a_thousand_are_counted_exactly_whatever_happens_to_workers_and_supervisors() {
    isolated(|lab| {
        let (red, green) = (Backend::tcp("red")?, Backend::tcp("green")?);
        let web = web(&red).endpoint(red.v6()).endpoint(green.v4()).key("direct: true");
        let file = lab.write(FILE, render(&[web]))?;
        let mut life = Life::new(lab, file);
        life.start()?;
        let targets = [red.v4(), red.v6(), green.v4(), mapped(red.v4())];
        for round in 0..50 {
            for target in targets.iter().cycle().take(20) {
                assert_eq!(TcpStream::connect(*target)?.peer_addr()?, *target);
            }
            match round % 10 {
                3 | 6 => drop(life.restart(Restart::WorkerKilled)?),
                8 => drop(life.restart(Restart::QUICK[round / 10])?),
                _ => {}
            }
        }
        wait_until_closed(lab)?;
        assert_eq!(counted(lab, "web", "connections")?, 1000);
        let opened =
            [red.v4(), red.v6(), green.v4()].map(|at| traffic(lab, "web", at).map(|it| it[0]));
        assert_eq!(opened.into_iter().collect::<Result<Vec<_>, _>>()?, [500, 250, 250]);
        Ok(())
    });
}

#[test]
fn a_policy_denies_it_at_once_and_it_counts_for_the_service() {
    isolated(|lab| {
        let (red, green) = (Backend::tcp("red")?, Backend::udp("green")?);
        let services = [
            web(&red).key("direct: true").to_string(),
            headless("dns", "udp", &[&endpoint(green.v4(), "")]),
        ];
        let ports = format!("[{}, {}]", red.v4().port(), green.v4().port());
        let policy = format!(
            "policies: [{{ name: closed, action: deny, rules: [{{ to: {{ ports: {ports} }} }}] }}]\n"
        );
        let file = lab.write(FILE, format!("{}{policy}access_log: {{}}\n", text(&services)))?;
        let log = lab.directory().join(LOG);
        let mut supervisor = lab
            .supervisor(&file)
            .with("--access-log", &log)
            .with("--metrics", METRICS.to_string())
            .start()?;
        supervisor.wait_for_grant()?;
        let denied = |error: std::io::Error| assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        denied(TcpStream::connect(red.v4()).expect_err("a policy denies it"));
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        denied(socket.send_to(b"?", green.v4()).expect_err("a policy denies it"));
        denied(socket.connect(green.v4()).expect_err("a policy denies it"));
        let line = lines(lab, "web", 1)?.remove(0);
        assert_eq!((&line["event"], &line["policy"]), (&"denied".into(), &"closed".into()));
        assert_eq!(line["endpoint"], red.v4().to_string());
        assert_eq!(lines(lab, "dns", 2)?.len(), 2);
        let samples = scrape().map_err(|error| format!("{error:?}"))?;
        let denied = |service: &str, protocol: &str| {
            let labels =
                format!("{{service=\"{service}\",port_name=\"main\",protocol=\"{protocol}\"}}");
            samples.get(&format!("holdfast_service_connections_denied_total{labels}")).copied()
        };
        assert_eq!((denied("web", "tcp"), denied("dns", "udp")), (Some(1.0), Some(2.0)));
        assert_eq!(counted(lab, "web", "connections")?, 0);
        Ok(())
    });
}

#[test]
fn a_headless_service_is_its_endpoints_also_those_that_nobody_would_choose() {
    isolated(|lab| {
        let backends = ["red", "green", "blue"].map(Backend::tcp);
        let [red, green, blue] = backends.each_ref().map(|it| it.as_ref().map(Backend::v4));
        let (red, green, blue) = (red.expect("red"), green.expect("green"), blue.expect("blue"));
        let endpoints =
            [endpoint(red, ""), endpoint(green, ", draining: true"), endpoint(blue, ", weight: 0")];
        let all = headless("db", "tcp", &endpoints.each_ref().map(String::as_str));
        let file = lab.write(FILE, text(&[all]))?;
        let _supervisor = lab.supervisor(&file).start()?;
        for address in [red, green, blue, green] {
            drop(TcpStream::connect(address)?);
        }
        wait_until_closed(lab)?;
        let opened = |at| traffic(lab, "db", at).map(|it| it[0]);
        assert_eq!((opened(red)?, opened(green)?, opened(blue)?), (1, 2, 1));
        let states = [red, green, blue]
            .map(|at| endpoint_row(lab, "db", at).map(|row| row["state"].clone()));
        let states: Vec<Value> = states.into_iter().collect::<Result<_, _>>()?;
        assert_eq!(states, ["active", "draining", "idle"]);
        let service = services(lab)?.remove(0);
        assert_eq!(
            (&service["policy"], &service["addresses"]),
            (&"direct".into(), &serde_json::json!([]))
        );
        assert_eq!((&service["endpoints"], &service["connections"]), (&3.into(), &4.into()));
        let shown = lab.ctl(&["services"])?.stdout;
        assert!(shown.contains("db       main 80/tcp  headless   direct"), "{shown}");
        Ok(())
    });
}

#[test]
fn an_alias_passes_to_where_it_is_and_counts_for_its_endpoint() {
    isolated(|lab| {
        let [own, host, other] = ["127.0.0.1:0", "127.0.0.9:0", "[::1]:0"].map(TcpListener::bind);
        let (own, host, other) = (own?, host?, other?);
        let [at, host_port, v6] = [own.local_addr()?, host.local_addr()?, other.local_addr()?];
        let aliases = format!(
            ", aliases: [{{ address: 127.0.0.9, port: {} }}, {{ address: \"::1\", port: {} }}]",
            host_port.port(),
            v6.port()
        );
        let pod = headless("pod", "tcp", &[&endpoint(at, &aliases)]);
        let mut supervisor = lab.supervisor(&lab.write(FILE, text(&[pod]))?).start()?;
        for (listener, asked) in [(&own, at), (&host, host_port), (&other, v6), (&host, host_port)]
        {
            let stream = TcpStream::connect(asked)?;
            assert_eq!(stream.peer_addr()?, asked);
            assert_eq!(listener.accept()?.0.local_addr()?, asked);
        }
        wait_until_closed(lab)?;
        assert_eq!(traffic(lab, "pod", at)?, [4, 0, 0]);
        let shown = endpoint_row(lab, "pod", at)?;
        // In the order of their addresses, in which an IPv4 one is `::ffff:` and itself.
        assert_eq!(shown["aliases"], serde_json::json!([v6.to_string(), host_port.to_string()]));
        let shown = lab.ctl(&["endpoints"])?.stdout;
        assert!(shown.contains(&format!("{at} (also {v6}, {host_port})")), "{shown}");

        // Its number stays when an alias goes, which is nobody's then.
        let aliases = format!(", aliases: [{{ address: \"::1\", port: {} }}]", v6.port());
        put_in_force(
            lab,
            &mut supervisor,
            &text(&[headless("pod", "tcp", &[&endpoint(at, &aliases)])]),
        )?;
        drop(TcpStream::connect(host_port)?);
        drop(TcpStream::connect(v6)?);
        wait_until_closed(lab)?;
        assert_eq!((traffic(lab, "pod", at)?, counted(lab, "pod", "connections")?), ([5, 0, 0], 5));
        Ok(())
    });
}

#[test]
fn datagrams_are_flows_and_their_answers_come_from_where_they_were_sent() {
    isolated(|lab| {
        let green = Backend::udp("green")?;
        let endpoints = [endpoint(green.v4(), ""), endpoint(green.v6(), "")];
        let dns = headless("dns", "udp", &endpoints.each_ref().map(String::as_str));
        let mut supervisor = lab.supervisor(&lab.write(FILE, text(&[dns]))?).start()?;
        let (v4, v6) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("[::]:0")?);
        let ask = |socket: &UdpSocket, at: SocketAddr| -> TestResult {
            socket.set_read_timeout(Some(holdfast_lab::wait::PATIENCE))?;
            socket.send_to(b"who?", at)?;
            assert_eq!(socket.recv_from(&mut [0; 256])?.1, at);
            Ok(())
        };
        for _ in 0..3 {
            ask(&v4, green.v4())?;
            ask(&v6, green.v6())?;
            ask(&v6, mapped(green.v4()))?;
            let worker = supervisor.status()?;
            assert!(supervisor.kill_worker(worker.worker.pid));
            supervisor.wait_for_grant_after(worker.epoch)?;
        }
        assert_eq!(counted(lab, "dns", "connections")?, 3, "a flow is one connection");
        let connected = UdpSocket::bind("127.0.0.1:0")?;
        connected.connect(green.v4())?;
        assert_eq!(connected.peer_addr()?, green.v4());
        assert_eq!(counted(lab, "dns", "connections")?, 4);
        assert_eq!(traffic(lab, "dns", green.v4())?, [1, 1, 0]);
        drop(connected);
        wait_until_closed(lab).map_err(Into::into)
    });
}

#[test]
fn what_is_removed_passes_untouched_and_what_was_open_ends_as_ever() {
    isolated(|lab| {
        let (red, green) = (Backend::tcp("red")?, Backend::tcp("green")?);
        let both = web(&red).endpoint(green.v4()).key("direct: true");
        let mut supervisor = serve(lab, &[both])?;
        let held = TcpStream::connect(red.v4())?;
        assert_eq!(traffic(lab, "web", red.v4())?, [1, 1, 0]);
        let only = Service::tcp("web", WEB).endpoint(green.v4());
        put_in_force(lab, &mut supervisor, &render(&[only.clone().key("direct: true")]))?;
        let free = TcpStream::connect(red.v4())?;
        assert_eq!(free.peer_addr()?, red.v4());
        assert_eq!(counted(lab, "web", "connections")?, 1);
        drop(held);
        eventually("the end of what was open", || {
            let row = services(lab).map_err(|error| error.to_string())?.remove(0);
            holds(row["traffic"]["open"] == 0, || row.to_string())
        })?;
        // Without the key nothing of it is counted.
        put_in_force(lab, &mut supervisor, &render(&[only]))?;
        drop(TcpStream::connect(green.v4())?);
        assert_eq!(counted(lab, "web", "connections")?, 0, "what was asked for itself is gone");
        assert_eq!(services(lab)?.remove(0)["policy"], "random");
        Ok(())
    });
}

#[test]
fn of_two_services_the_first_counts_and_the_other_takes_over_without_a_gap() {
    isolated(|lab| {
        let (red, green) = (Backend::tcp("red")?, Backend::tcp("green")?);
        let [shared, own] = [endpoint(red.v4(), ""), endpoint(green.v4(), "")];
        let second = headless("second", "tcp", &[&shared]);
        let with = text(&[headless("first", "tcp", &[&shared, &own]), second.clone()]);
        let without = text(&[headless("first", "tcp", &[&own]), second]);
        let file = lab.write(FILE, &with)?;
        let mut supervisor = lab.supervisor(&file).start()?;
        let opened = |service: &str| counted(lab, service, "connections");
        drop(TcpStream::connect(red.v4())?);
        assert_eq!((opened("first")?, opened("second")?), (1, 0));
        let address = red.v4();
        let (stop, made) = (AtomicBool::new(false), AtomicU64::new(0));
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    TcpStream::connect(address).expect("nothing is refused");
                    made.fetch_add(1, Ordering::Relaxed);
                }
            });
            let changed = (0..10).try_for_each(|turn| {
                let text = if turn % 2 == 0 { &without } else { &with };
                put_in_force(lab, &mut supervisor, text)?;
                // One was on its way, and one began after it.
                let before = made.load(Ordering::Relaxed);
                eventually("connections", || {
                    let now = made.load(Ordering::Relaxed);
                    holds(now >= before + 2, || format!("{before}, then {now}"))
                })?;
                TestResult::Ok(())
            });
            stop.store(true, Ordering::Relaxed);
            changed
        })?;
        let made = made.into_inner();
        let (first, second) = (opened("first")?, opened("second")?);
        assert_eq!(first + second, 1 + made, "{first} and {second}");
        assert!(first > 1 && second > 0, "{first} and {second} of {made}");
        Ok(())
    });
}

#[test]
fn limits_hold_and_a_full_endpoint_sends_nobody_to_another() {
    isolated(|lab| {
        let (red, green) = (Backend::tcp("red")?, Backend::tcp("green")?);
        let both = web(&red).endpoint(green.v4()).key("direct: true");
        let _supervisor = serve(lab, &[both.key("limits: { endpoint_connections: 2 }")])?;
        let held = [TcpStream::connect(red.v4())?, TcpStream::connect(red.v4())?];
        for _ in 0..5 {
            let error = TcpStream::connect(red.v4()).expect_err("it is full");
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        }
        assert_eq!(traffic(lab, "web", green.v4())?, [0, 0, 0]);
        assert_eq!(counted(lab, "web", "limited")?, 5);
        // Those that are sent by the service's address have places of their own.
        drop(TcpStream::connect(WEB)?);
        drop(held);
        eventually("room", || TcpStream::connect(red.v4())).map(drop)?;
        Ok(())
    });
}

#[test]
fn what_collides_is_refused_and_what_is_in_force_stays() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        let other = virtual_address(11, 80);
        let good = render(&[
            web(&red).key("direct: true"),
            Service::tcp("other", other).endpoint(red.v4()),
        ]);
        let file = lab.write(FILE, &good)?;
        let mut supervisor = lab.supervisor(&file).start()?;
        let bad = good.replacen(
            "weight: 1",
            "weight: 1, aliases: [{ address: 127.96.0.11, port: 80 }]",
            1,
        );
        assert_ne!(good, bad);
        lab.write(FILE, &bad)?;
        let status =
            supervisor.wait_until("the refusal", |status| !status.config.error.is_empty())?;
        let error = &status.config.error;
        assert!(
            error.contains("the alias 127.96.0.11:80/tcp is a frontend of service `other`"),
            "{error}"
        );
        drop(TcpStream::connect(red.v4())?);
        assert_eq!(counted(lab, "web", "connections")?, 1);
        Ok(())
    });
}
