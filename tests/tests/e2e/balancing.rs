//! Every way of choosing an endpoint, for IPv4, IPv6 and IPv4-mapped clients, while workers die.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;

use holdfast_lab::{
    Attempt, Backend, Service, Supervisor, Target, TestResult, attempt, isolated, render,
};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};

use crate::scene::{mapped, put_in_force, serve, virtual_address, virtual_address6};

/// What a client of each family connects to: the two addresses of a service, and the first one as an
/// IPv6 socket says it.
pub fn addresses() -> [SocketAddr; 3] {
    let v4 = virtual_address(10, 80);
    [v4, virtual_address6(0x10, 80), mapped(v4)]
}

/// The service at [`addresses`], without an endpoint.
pub fn service(balancing: &str) -> Service {
    let [v4, v6, _] = addresses();
    Service::tcp("web", v4).at(v6.ip()).balanced(balancing)
}

pub fn backends(names: &[&str]) -> Result<Vec<Backend>, Box<dyn Error>> {
    Ok(names.iter().map(|name| Backend::tcp(name)).collect::<Result<_, _>>()?)
}

/// `service` with both addresses of each of `backends`.
fn with_endpoints(service: Service, backends: &[Backend]) -> Service {
    backends
        .iter()
        .fold(service, |service, backend| service.endpoint(backend.v4()).endpoint(backend.v6()))
}

/// The backend that one connection to `address` reaches.
pub fn reached(address: SocketAddr, names: &[&str]) -> String {
    match attempt(&Target::tcp(address, names)) {
        Attempt::Reached(name) => name,
        other => panic!("{address}: {other:?}"),
    }
}

/// Kills the worker, and waits until the next one may write.
pub fn replace_worker(supervisor: &mut Supervisor) -> TestResult {
    let epoch = supervisor.status()?.epoch;
    let workers = supervisor.workers();
    assert!(!workers.is_empty() && workers.iter().all(|pid| supervisor.kill_worker(*pid)));
    supervisor.wait_for_grant_after(epoch)?;
    Ok(())
}

#[test]
fn round_robin_goes_on_where_it_was_whatever_happens_to_workers() {
    isolated(|lab| {
        const NAMES: [&str; 3] = ["red", "green", "blue"];
        let backends = backends(&NAMES)?;
        let service = with_endpoints(service("policy: round_robin"), &backends);
        let mut supervisor = serve(lab, &[service])?;
        for address in addresses() {
            let first = reached(address, &NAMES);
            let at = NAMES.iter().position(|name| *name == first).expect("one of them");
            for turn in 1..=30 {
                assert_eq!(reached(address, &NAMES), NAMES[(at + turn) % 3], "turn {turn}");
                if turn == 10 {
                    replace_worker(&mut supervisor)?;
                }
                if turn == 20 {
                    lab.ctl(&["reload"])?;
                }
            }
        }
        Ok(())
    });
}

/// The backend that a connection from `source` to `address` reaches.
pub fn reached_from(source: SocketAddr, address: SocketAddr) -> Result<String, Box<dyn Error>> {
    let family = if source.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(source))?;
    connect(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    let connection = TcpStream::from(socket);
    // Closing with a reset leaves no port in TIME_WAIT.
    setsockopt(&connection, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
    let mut line = String::new();
    BufReader::new(connection).read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

/// Addresses of the host itself that clients bind to.
fn sources() -> impl Iterator<Item = SocketAddr> {
    (1..=200).map(|host| (Ipv4Addr::new(127, 0, 1, host), 0).into())
}

/// Where each of [`sources`] is sent.
fn placed() -> Result<BTreeMap<SocketAddr, String>, Box<dyn Error>> {
    let [v4, ..] = addresses();
    sources().map(|source| Ok((source, reached_from(source, v4)?))).collect()
}

/// By which backend each of [`sources`] is served in `after` and not in `before`.
fn moved<'a>(
    before: &'a BTreeMap<SocketAddr, String>,
    after: &BTreeMap<SocketAddr, String>,
) -> Vec<&'a str> {
    let moved = before.iter().filter(|(source, name)| after[source] != **name);
    moved.map(|(_, name)| name.as_str()).collect()
}

#[test]
fn maglev_keeps_a_client_on_its_endpoint_and_moves_only_those_of_a_removed_one() {
    isolated(|lab| {
        const NAMES: [&str; 5] = ["red", "green", "blue", "white", "black"];
        let backends = backends(&NAMES)?;
        let empty = || service("policy: maglev, hash_by: source_address");
        let mut supervisor = serve(lab, &[with_endpoints(empty(), &backends)])?;
        let before = placed()?;
        let on = |name: &str| before.values().filter(|on| *on == name).count();
        assert!(NAMES.iter().all(|name| (15..=75).contains(&on(name))), "{before:?}");

        replace_worker(&mut supervisor)?;
        assert_eq!(lab.ctl(&["reload"])?.code, Some(0));
        assert_eq!(placed()?, before);
        // An IPv6 socket that uses IPv4 is the same client.
        for source in sources().step_by(20) {
            assert_eq!(reached_from(mapped(source), addresses()[2])?, before[&source]);
        }

        let fewer = render(&[with_endpoints(empty(), &backends[1..])]);
        put_in_force(lab, &mut supervisor, &fewer)?;
        let after = placed()?;
        let moved = moved(&before, &after);
        let own = moved.iter().filter(|name| **name == NAMES[0]).count();
        assert_eq!(own, on(NAMES[0]), "all that were on the removed endpoint have moved");
        assert!(moved.len() - own <= 20, "of the others hardly any has: {moved:?}");
        Ok(())
    });
}

#[test]
fn maglev_by_process_is_the_same_for_every_connection_of_every_family() {
    isolated(|lab| {
        const NAMES: [&str; 3] = ["red", "green", "blue"];
        let backends = backends(&NAMES)?;
        let policies = ["policy: maglev", "policy: maglev, hash_by: network_namespace"];
        let first = with_endpoints(service(policies[0]), &backends);
        let mut supervisor = serve(lab, &[first])?;
        for policy in policies {
            let text = render(&[with_endpoints(service(policy), &backends).no_endpoint("deny")]);
            put_in_force(lab, &mut supervisor, &text)?;
            for address in addresses() {
                let first = reached(address, &NAMES);
                assert!((0..20).all(|_| reached(address, &NAMES) == first), "{address}, {policy}");
                replace_worker(&mut supervisor)?;
                assert_eq!(reached(address, &NAMES), first);
            }
        }
        Ok(())
    });
}
