//! Every way of choosing an endpoint, for IPv4, IPv6 and IPv4-mapped clients, while workers die.

use std::error::Error;
use std::net::SocketAddr;

use holdfast_lab::{Attempt, Backend, Service, Supervisor, Target, TestResult, attempt, isolated};

use crate::scene::{mapped, serve, virtual_address, virtual_address6};

/// What a client of each family connects to: the two addresses of a service, and the first one as an
/// IPv6 socket says it.
fn addresses() -> [SocketAddr; 3] {
    let v4 = virtual_address(10, 80);
    [v4, virtual_address6(0x10, 80), mapped(v4)]
}

/// The service at [`addresses`], without an endpoint.
fn service(balancing: &str) -> Service {
    let [v4, v6, _] = addresses();
    Service::tcp("web", v4).at(v6.ip()).balanced(balancing)
}

fn backends(names: &[&str]) -> Result<Vec<Backend>, Box<dyn Error>> {
    Ok(names.iter().map(|name| Backend::tcp(name)).collect::<Result<_, _>>()?)
}

/// `service` with both addresses of each of `backends`.
fn with_endpoints(service: Service, backends: &[Backend]) -> Service {
    backends
        .iter()
        .fold(service, |service, backend| service.endpoint(backend.v4()).endpoint(backend.v6()))
}

/// The backend that one connection to `address` reaches.
fn reached(address: SocketAddr, names: &[&str]) -> String {
    match attempt(&Target::tcp(address, names)) {
        Attempt::Reached(name) => name,
        other => panic!("{address}: {other:?}"),
    }
}

/// Kills the worker, and waits until the next one may write.
fn replace_worker(supervisor: &mut Supervisor) -> TestResult {
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
