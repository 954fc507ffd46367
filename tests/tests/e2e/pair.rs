//! Two endpoints, of which one is kept from connections for a while.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use holdfast_lab::load::Shape;
use holdfast_lab::wait::holds;
use holdfast_lab::{
    Attempt, Backend, Lab, LabError, Service, Supervisor, Target, attempt, eventually, render,
};
use holdfast_tests::rows::endpoint_row;
use holdfast_tests::scrape::METRICS;
use serde_json::Value;

use crate::scene::FILE;

/// Where endpoints of these tests serve, and where it is asked how they are: below the ports that the
/// kernel gives to clients, so that they are free whenever an endpoint comes back.
pub const PORT: u16 = 18080;
pub const HEALTH: u16 = 18081;

/// Connections that are looked at where none may go elsewhere: if half of them did, all but one in 2^100
/// runs would see it.
pub const CONNECTIONS: u32 = 100;

/// Two clients that connect every millisecond.
pub const SHAPE: Shape = Shape { clients: 2, rest: Duration::from_millis(1), seed: 5 };

pub const NAMES: [&str; 2] = ["red", "green"];

/// Where the endpoint `number` is.
pub fn at(number: u8, port: u16) -> SocketAddr {
    (Ipv4Addr::new(127, 0, 0, number), port).into()
}

/// The server of the endpoint `number`.
pub fn backend(number: u8) -> Result<Backend, LabError> {
    Backend::tcp_at(NAMES[usize::from(number) - 1], &[at(number, PORT)])
}

pub fn start(lab: &Lab, services: &[Service]) -> Result<Supervisor, LabError> {
    let file = lab.write(FILE, render(services))?;
    lab.supervisor(&file).with("--metrics", METRICS.to_string()).start()
}

/// What `holdfastctl` says of the endpoint `number` of `service`.
pub fn row(lab: &Lab, service: &str, number: u8) -> Result<Value, LabError> {
    endpoint_row(lab, service, at(number, PORT))
}

/// Every connection to `address` reaches the backend called `name`.
#[track_caller]
pub fn assert_only(address: SocketAddr, name: &str) {
    for _ in 0..CONNECTIONS {
        let attempt = attempt(&Target::tcp(address, &NAMES));
        assert_eq!(attempt, Attempt::Reached(name.to_owned()));
    }
}

/// Waits until a connection reaches the backend called `name`.
pub fn wait_until_used(address: SocketAddr, name: &str) -> Result<(), LabError> {
    eventually(&format!("{name} to get a connection"), || {
        let attempt = attempt(&Target::tcp(address, &NAMES));
        holds(attempt == Attempt::Reached(name.to_owned()), || format!("{attempt:?}"))
    })
}
