//! A configuration of a thousand services, and one of thousands of endpoints that are checked.

use std::net::SocketAddr;

use holdfast_lab::wait::holds;
use holdfast_lab::{Backend, Service, Target, TestResult, eventually, isolated};
use holdfast_tests::rows::rows;

use crate::scene::{assert_reached, serve};

const SERVICES: u16 = 1_000;
const ENDPOINTS: u8 = 10;

/// Every so-manieth service is tried: neither the period of a table's size nor of a byte.
const STEP: usize = 7;

/// The virtual address of service `number`.
fn address(number: u16) -> SocketAddr {
    let [high, low] = number.to_be_bytes();
    SocketAddr::from(([127, 97, high, low], 80))
}

#[test]
fn a_thousand_services_of_ten_endpoints_are_served_by_one_worker_and_the_next() {
    isolated(|lab| {
        // One server behind ten addresses of the loopback network.
        let _red = Backend::tcp_at("red", &["0.0.0.0:18080".parse()?])?;
        let services: Vec<Service> = (0..SERVICES)
            .map(|number| {
                (1..=ENDPOINTS)
                    .fold(Service::tcp(&format!("s{number}"), address(number)), |service, host| {
                        service.endpoint(SocketAddr::from(([127, 0, 1, host], 18080)))
                    })
            })
            .collect();
        let mut supervisor = serve(lab, &services)?;
        let status = supervisor.status()?;
        let total = u32::from(SERVICES) * u32::from(ENDPOINTS);
        assert_eq!((status.services, status.endpoints), (SERVICES.into(), total));
        let try_all = || {
            for number in (0..SERVICES).step_by(STEP).chain([SERVICES - 1]) {
                assert_reached(&Target::tcp(address(number), &["red"]));
            }
        };
        try_all();
        assert!(supervisor.kill_worker(status.worker.pid));
        supervisor.wait_for_grant_after(status.epoch)?;
        try_all();
        // Every page of the answer arrives.
        assert_eq!(holdfast_tests::rows::services(lab)?.len(), usize::from(SERVICES));
        TestResult::Ok(())
    });
}

/// Services whose endpoints are checked, each of them: thousands of checks a second.
const CHECKED: u16 = 200;

#[test]
fn two_thousand_endpoints_are_checked_and_fail_together_and_come_back() {
    isolated(|lab| {
        let everywhere: SocketAddr = "0.0.0.0:18080".parse()?;
        let red = Backend::tcp_at("red", &[everywhere])?;
        let check = "health_check: { tcp: {}, interval: 1s, when_all_unhealthy: no_endpoint }";
        let services: Vec<Service> = (0..CHECKED)
            .map(|number| {
                let service = Service::tcp(&format!("s{number}"), address(number)).key(check);
                (1..=ENDPOINTS).fold(service, |service, host| {
                    service.endpoint(SocketAddr::from(([127, 0, 1, host], 18080)))
                })
            })
            .collect();
        let mut supervisor = serve(lab, &services)?;
        let total = usize::from(CHECKED) * usize::from(ENDPOINTS);
        let wait_for = |state: &str| {
            eventually(&format!("all endpoints to be {state}"), || {
                let all = rows(lab, "endpoints").map_err(|error| error.to_string())?;
                let count = all.iter().filter(|row| row["state"] == state).count();
                holds(count == total && all.len() == total, || format!("{count} of {}", all.len()))
            })
        };
        wait_for("active")?;
        drop(red);
        wait_for("unhealthy")?;
        let status = supervisor.status()?;
        assert!(supervisor.kill_worker(status.worker.pid));
        supervisor.wait_for_grant_after(status.epoch)?;
        wait_for("unhealthy")?;
        let _red = Backend::tcp_at("red", &[everywhere])?;
        wait_for("active")?;
        // It had time for its heartbeats all the while.
        assert_eq!(supervisor.status()?.epoch, status.epoch + 1);
        TestResult::Ok(())
    });
}
