//! Bounds on what is open at once, and connections spread by it.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Barrier;

use holdfast_lab::wait::holds;
use holdfast_lab::{Backend, Lab, LabError, Service, eventually, isolated};
use holdfast_tests::rows::{counted, rows, services};

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
        assert!(TcpStream::connect(WEB).is_err());
        drop(held);
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
