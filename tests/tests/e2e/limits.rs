//! Bounds on what is open at once, and connections spread by it.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Barrier;
use std::time::Instant;

use holdfast_lab::wait::holds;
use holdfast_lab::{Backend, Lab, LabError, Service, eventually, isolated};
use holdfast_tests::rows::{counted, rows, services};

use crate::counts::wait_for;
use crate::scene::{WEB, serve, virtual_address, web};

/// Threads that connect at the same moment, more than there are places.
const THREADS: usize = 8;
/// What each of them tries.
const ATTEMPTS: usize = 40;

#[test]
fn no_more_connections_are_open_than_the_limit_says_however_many_try_at_once() {
    isolated(|lab| {
        const LIMIT: usize = 100;
        let red = Backend::tcp("red")?;
        let _supervisor = serve(lab, &[web(&red).key("limits: { connections: 100 }")])?;
        let (start, held) = (Barrier::new(THREADS), std::sync::Mutex::new(Vec::new()));
        let attempt = || {
            start.wait();
            for _ in 0..ATTEMPTS {
                match TcpStream::connect(WEB) {
                    Ok(stream) => held.lock().expect("no thread panics").push(stream),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionRefused),
                }
            }
        };
        std::thread::scope(|scope| {
            (0..THREADS).for_each(|_| drop(scope.spawn(attempt)));
        });
        let mut held = held.into_inner()?;
        // Two that meet at the last place may both step back; then it is free for the next.
        while let Ok(stream) = TcpStream::connect(WEB) {
            held.push(stream);
        }
        assert_eq!(held.len(), LIMIT);
        let attempts = u64::try_from(THREADS * ATTEMPTS - LIMIT)?;
        assert!(counted(lab, "web", "limited")? >= attempts);
        // Each that ends makes room for one.
        held.pop();
        eventually("room for one", || TcpStream::connect(WEB)).map(|stream| held.push(stream))?;
        assert!(TcpStream::connect(WEB).is_err());
        Ok(())
    });
}

#[test]
fn a_full_endpoint_gives_way_to_the_other_one() {
    isolated(|lab| {
        let (red, green) = (Backend::tcp("red")?, Backend::tcp("green")?);
        let both = web(&red).endpoint(green.v4()).key("limits: { endpoint_connections: 5 }");
        let _supervisor = serve(lab, &[both])?;
        let held: Vec<TcpStream> =
            (0..10).map(|_| TcpStream::connect(WEB)).collect::<Result<_, _>>()?;
        assert_eq!(open(lab)?, [5, 5]);
        assert_eq!(let_through(20), 0);
        wait_for(lab, "web", (10, 0))?;
        drop(held);
        Ok(())
    });
}

/// Connections to `WEB` that were let through of `tries`; those that were not were refused.
fn let_through(tries: usize) -> usize {
    let connect = || match TcpStream::connect(WEB) {
        Ok(_) => 1,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            0
        }
    };
    (0..tries).map(|_| connect()).sum()
}

#[test]
fn no_more_begin_in_a_second_than_the_rate_says_and_no_restart_fills_the_bucket() {
    isolated(|lab| {
        const BURST: usize = 20;
        let red = Backend::tcp("red")?;
        let rate = "limits: { rate: { connections_per_second: 1, burst: 20 } }";
        let mut supervisor = serve(lab, &[web(&red).key(rate)])?;
        let since = Instant::now();
        let mut passed = let_through(2 * BURST);
        assert!(passed >= BURST, "only {passed}");
        let worker = supervisor.wait_for_grant()?;
        assert!(supervisor.kill_worker(worker.worker.pid));
        supervisor.wait_for_grant_after(worker.epoch)?;
        passed += let_through(BURST);
        // One more for each second that has begun meanwhile.
        let earned = usize::try_from(since.elapsed().as_secs())? + 1;
        assert!(passed <= BURST + earned, "{passed} within {earned} seconds");
        let tries = u64::try_from(3 * BURST - passed)?;
        assert_eq!(counted(lab, "web", "limited")?, tries);
        // What is refused takes no turn: there is one again as time passes.
        eventually("a connection that is on time", || TcpStream::connect(WEB))?;
        Ok(())
    });
}

#[test]
fn a_client_that_has_used_up_its_rate_leaves_that_of_others_alone() {
    isolated(|lab| {
        let green = Backend::udp("green")?;
        let dns = virtual_address(14, 53);
        let rate =
            "limits: { client_rate: { connections_per_second: 1, burst: 5, by: source_address } }";
        let _supervisor = serve(lab, &[Service::udp("dns", dns).endpoint(green.v4()).key(rate)])?;
        let from = |host: u8| {
            let socket = UdpSocket::bind(SocketAddr::from(([127, 0, 0, host], 0)))?;
            socket.connect(dns)
        };
        let since = Instant::now();
        let passed = (0..50).filter(|_| from(21).is_ok()).count();
        let earned = usize::try_from(since.elapsed().as_secs())? + 1;
        assert!((5..=5 + earned).contains(&passed), "{passed} within {earned} seconds");
        assert!((0..5).all(|_| from(22).is_ok()), "another client has its own");
        Ok(())
    });
}

#[test]
fn attempts_that_come_to_nothing_give_their_places_back() {
    isolated(|lab| {
        let shut = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let nowhere = SocketAddr::from(([10, 98, 76, 54], 80));
        let lost = virtual_address(13, 83);
        let services = [
            Service::tcp("web", WEB).endpoint(shut).key("limits: { connections: 1, pending: 1 }"),
            Service::tcp("lost", lost).endpoint(nowhere).key("limits: { pending: 1 }"),
        ];
        let _supervisor = serve(lab, &services)?;
        for _ in 0..100 {
            assert!(TcpStream::connect(WEB).is_err());
            // No route: nothing is ever sent, and the place is given back with the socket.
            let error = TcpStream::connect(lost).expect_err("there is no route");
            assert_eq!(error.kind(), ErrorKind::NetworkUnreachable);
        }
        for name in ["web", "lost"] {
            assert_eq!(counted(lab, name, "limited")?, 0, "{name}");
            let all = services_of(lab, name)?;
            assert_eq!((all["open"].as_u64(), all["pending"].as_u64()), (Some(0), Some(0)));
        }
        Ok(())
    });
}

#[test]
fn datagram_sockets_have_places_too() {
    isolated(|lab| {
        let (dns, address) = (Backend::udp("dns")?, virtual_address(53, 53));
        let service = Service::udp("dns", address).endpoint(dns.v4());
        let _supervisor = serve(lab, &[service.key("limits: { connections: 2, pending: 1 }")])?;
        let connect = || {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.connect(address).map(|()| socket)
        };
        let held = [connect()?, connect()?];
        assert_eq!(connect().expect_err("full").kind(), ErrorKind::ConnectionRefused);
        drop(held);
        connect()?;
        Ok(())
    });
}

#[test]
fn connections_go_where_fewer_are_open() {
    isolated(|lab| {
        let (red, green) = (Backend::tcp("red")?, Backend::tcp("green")?);
        let spread = web(&red).endpoint(green.v4()).balanced("policy: least_connections");
        let _supervisor = serve(lab, &[spread])?;
        // With two endpoints both are drawn each time, so they never differ by more than one.
        let held: Vec<TcpStream> =
            (0..40).map(|_| TcpStream::connect(WEB)).collect::<Result<_, _>>()?;
        assert_eq!(open(lab)?, [20, 20]);
        drop(held);
        Ok(())
    });
}

fn services_of(lab: &Lab, name: &str) -> Result<serde_json::Value, LabError> {
    let services = services(lab)?;
    let row = services.iter().find(|row| row["service"] == name);
    row.map(|row| row["traffic"].clone())
        .ok_or_else(|| LabError::Unexpected(format!("no {name} in {services:?}")))
}

/// How many connections each endpoint has, once none is being opened.
fn open(lab: &Lab) -> Result<Vec<u64>, LabError> {
    eventually("no attempt to be pending", || -> Result<Vec<u64>, String> {
        let rows = rows(lab, "endpoints").map_err(|error| error.to_string())?;
        let number = |row: &serde_json::Value, of: &str| row["traffic"][of].as_u64().unwrap_or(0);
        let pending: u64 = rows.iter().map(|row| number(row, "pending")).sum();
        holds(pending == 0, || format!("{rows:?}"))?;
        Ok(rows.iter().map(|row| number(row, "open")).collect())
    })
}
