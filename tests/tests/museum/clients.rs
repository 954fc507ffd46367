//! What those notice who connect, are connected, or ask.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use holdfast_bpf::map::PerCpuArray;
use holdfast_bpf::object;
use holdfast_lab::control::{ask, socket_path};
use holdfast_lab::load::Shape;
use holdfast_lab::wait::holds;
use holdfast_lab::{
    Backend, Lab, Load, Service, Stream, Target, TestResult, eventually, isolated, render,
};
use holdfast_protocol::control::{Request, Response, WorkerAnswer, WorkerQuery};
use holdfast_protocol::kernel::{ServiceCounters, map};
use holdfast_protocol::manifest::Kind;
use holdfast_protocol::wire::{decode, encode};
use holdfast_tests::builds::Switched;
use holdfast_tests::hooks;
use holdfast_tests::life::{Life, Restart};
use holdfast_tests::rows::counted;
use holdfast_tests::scene::{
    FILE, WEB, assert_reached, mapped, virtual_address, virtual_address6, web,
};
use holdfast_tests::watch::Watch;
use nix::sys::signal::Signal;
use serde_json::Value;

/// ztunnel and Linkerd: established connections end when the proxy restarts; ztunnel's own restart
/// test passes when nine in ten survive. Here no connection notices any restart, nor the end of it
/// all: not one reset, not one byte lost.
#[test]
fn pf26_established_connections_never_notice() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        let service = Service::tcp("web", WEB).at(virtual_address6(0x10, 80).ip());
        let service = service.endpoint(red.v4()).endpoint(red.v6());
        let mut life = Life::new(lab, lab.write(FILE, render(&[service]))?);
        life.start()?;
        let addresses = [WEB, mapped(WEB), virtual_address6(0x10, 80)];
        let streams = addresses.iter().zip(0..).map(|(address, seed)| Stream::open(*address, seed));
        let streams: Vec<Stream> = streams.collect::<Result<_, _>>()?;
        let all_go_on = |after: &str| {
            let sofar: Vec<u64> = streams.iter().map(Stream::bytes).collect();
            eventually(&format!("each stream to go on after {after}"), || {
                let go_on = streams.iter().zip(&sofar).all(|(stream, old)| stream.bytes() > *old);
                if go_on { Ok(()) } else { Err("one stands still") }
            })
        };
        let targets = addresses.map(|address| Target::tcp(address, &["red"]));
        let load =
            Load::start(&targets, Shape { clients: 2, rest: Duration::from_millis(1), seed: 26 });
        for restart in Restart::ALL {
            life.restart(restart)?;
            all_go_on(&format!("{restart:?}"))?;
        }
        let tally = load.finish();
        assert_eq!((tally.failed, tally.ungoverned), (0, 0), "{tally:?}");
        life.end(Signal::SIGKILL)?;
        all_go_on("the last process's end")?;
        assert_eq!(lab.uninstall()?.code, Some(0));
        all_go_on("the removal of everything")?;
        for stream in streams {
            assert_eq!(stream.finish().broken, None);
        }
        Ok(())
    });
}

/// Asks for the status and for the services, one after the other; what went wrong with either.
fn ask_both(lab: &Lab) -> impl FnMut() -> Result<(), String> + Send + 'static {
    let socket = socket_path(lab);
    let query = encode(&WorkerQuery::Services { offset: 0 }).expect("a few bytes");
    move || {
        let answer = ask(&socket, &Request::Status).map_err(|error| error.to_string())?;
        holds(matches!(answer, Response::Status(_)), || format!("{answer:?}"))?;
        match ask(&socket, &Request::Worker(query.clone())).map_err(|error| error.to_string())? {
            Response::Worker(body) => match decode(&body).map_err(|error| error.to_string())? {
                WorkerAnswer::Services { rows, .. } => {
                    holds(rows.len() == 1, || format!("{rows:?}"))
                }
                other => Err(format!("{other:?}")),
            },
            // Nobody there who knows: an answer that says so.
            Response::Failed { reason } if !reason.is_empty() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    }
}

/// Kmesh: DNS answers stop while the daemon restarts, and its restart test turns the DNS proxy off.
/// The socket that serves requests is held by the supervisor: while there is no worker, or the
/// supervisor becomes another binary or stands still, requests wait or are answered, never refused.
#[test]
fn pf27_requests_wait_or_are_answered_while_no_worker_exists() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        let (file, switched) = (lab.write(FILE, render(&[web(&red)]))?, Switched::new(lab)?);
        let mut life = Life::new(lab, file).with("--worker", &switched.worker);
        life.start()?;
        let watches = [Watch::start(ask_both(lab)), Watch::start(ask_both(lab))];
        for _ in 0..10 {
            for restart in [Restart::WorkerKilled, Restart::Reload, Restart::SupervisorReplaced] {
                life.restart(restart)?;
            }
        }
        // For as long as it takes to back off, there is none at all.
        switched.break_off()?;
        let pid = life.supervisor().status()?.worker.pid;
        assert!(life.supervisor().kill_worker(pid));
        let status = life.supervisor().wait_until("restarts to back off", |status| {
            status.worker.state == "backing-off" && status.takeovers.failed >= 4
        })?;
        switched.mend()?;
        life.supervisor().signal(Signal::SIGHUP)?;
        life.supervisor().wait_for_grant_after(status.epoch)?;

        // Asked while the supervisor stands still: the request waits in the socket.
        life.supervisor().signal(Signal::SIGSTOP)?;
        let (socket, answered) = (socket_path(lab), Arc::new(AtomicBool::new(false)));
        let done = Arc::clone(&answered);
        let asking = std::thread::spawn(move || {
            let answer = ask(&socket, &Request::Status).map_err(|error| error.to_string());
            done.store(true, Ordering::SeqCst);
            answer
        });
        for _ in 0..20 {
            assert_reached(&Target::tcp(WEB, &["red"]));
        }
        assert!(!answered.load(Ordering::SeqCst), "nobody could have answered");
        life.supervisor().signal(Signal::SIGCONT)?;
        let answer = asking.join().expect("it does not panic")?;
        assert!(matches!(answer, Response::Status(_)), "{answer:?}");
        for watch in watches {
            watch.assert_right(20);
        }
        Ok(())
    });
}

/// Watches that the sum of all counters, read from the kernel, never goes back.
fn counters_never_go_back(lab: &Lab) -> Result<Watch, Box<dyn std::error::Error>> {
    /// More numbers than these tests have services.
    const NUMBERS: u32 = 8;
    let counters = object::get(&hooks::pin(lab, Kind::Map, map::COUNTERS))?;
    let counters: PerCpuArray<ServiceCounters> = PerCpuArray::new(counters)?;
    let highest = AtomicU64::new(0);
    Ok(Watch::start(move || {
        let mut sum = 0;
        for number in 0..NUMBERS {
            let cpus = counters.lookup(number).map_err(|error| error.to_string())?;
            sum += cpus.iter().map(|cpu| cpu.connections + cpu.refused).sum::<u64>();
        }
        let before = highest.fetch_max(sum, Ordering::Relaxed);
        holds(sum >= before, || format!("{before} were counted, and then {sum}"))
    }))
}

/// Kmesh and Tetragon: what happened without a daemon is lost, and metrics start from zero. Counters
/// live in the kernel: each connection is counted, also without a worker and without a supervisor,
/// and no count ever goes back.
#[test]
fn pf28_counters_go_on_and_never_go_back() {
    const EACH: u64 = 25;
    isolated(|lab| {
        let (red, deny) = (Backend::tcp("red")?, virtual_address(20, 80));
        let services = [web(&red), Service::tcp("deny", deny).no_endpoint("deny")];
        let mut life = Life::new(lab, lab.write(FILE, render(&services))?);
        life.start()?;
        let watch = counters_never_go_back(lab)?;
        let connect = || {
            for _ in 0..EACH {
                assert_reached(&Target::tcp(WEB, &["red"]));
                std::net::TcpStream::connect(deny).expect_err("there is no endpoint");
            }
        };
        let mut expected = 0;
        let mut check = |what: &str, times: u64| -> TestResult {
            expected += times * EACH;
            let found = (counted(lab, "web", "connections")?, counted(lab, "deny", "refused")?);
            assert_eq!(found, (expected, expected), "after {what}");
            Ok(())
        };
        for restart in Restart::QUICK {
            connect();
            life.restart(restart)?;
            connect();
            check(&format!("{restart:?}"), 2)?;
        }
        // Without a worker: a stopped supervisor replaces nobody.
        let status = life.supervisor().status()?;
        life.supervisor().signal(Signal::SIGSTOP)?;
        let killed = life.supervisor().kill_worker(status.worker.pid);
        connect();
        life.supervisor().signal(Signal::SIGCONT)?;
        assert!(killed, "{status:?}");
        life.supervisor().wait_for_grant_after(status.epoch)?;
        check("a time without a worker", 1)?;
        // Without anybody.
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            life.end(signal)?;
            connect();
            life.start()?;
            check("a time without a supervisor", 1)?;
        }
        watch.assert_right(100);
        Ok(())
    });
}

/// The other half of PF28: what happens while nobody reads waits in the kernel's ring buffer, which links and pins
/// hold, and is told then; each connection once, or twice if a worker died before it had given it up.
#[test]
fn events_of_pf28_wait_until_somebody_reads_them() {
    const EACH: usize = 50;
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        let text = render(&[web(&red)]) + "access_log: { events: [closed] }\n";
        let log = lab.directory().join("access.log");
        let mut life = Life::new(lab, lab.write(FILE, text)?).with("--access-log", &log);
        life.start()?;
        let mut connections = 0;
        let mut connect = || {
            for _ in 0..EACH {
                assert_reached(&Target::tcp(WEB, &["red"]));
            }
            connections += EACH;
            connections
        };
        let told = |expected: usize| {
            eventually("a line for each connection", || {
                let text = std::fs::read_to_string(&log).map_err(|error| error.to_string())?;
                let lines =
                    text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
                let sockets: HashSet<u64> =
                    lines.filter_map(|line| line["socket"].as_u64()).collect();
                holds(sockets.len() == expected, || format!("{} of {expected}", sockets.len()))
            })
        };
        // Without a worker: a stopped supervisor replaces nobody.
        let status = life.supervisor().status()?;
        life.supervisor().signal(Signal::SIGSTOP)?;
        let killed = life.supervisor().kill_worker(status.worker.pid);
        let expected = connect();
        life.supervisor().signal(Signal::SIGCONT)?;
        assert!(killed, "{status:?}");
        life.supervisor().wait_for_grant_after(status.epoch)?;
        told(expected)?;
        // Without anybody.
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            life.end(signal)?;
            let expected = connect();
            life.start()?;
            told(expected)?;
        }
        Ok(())
    });
}
