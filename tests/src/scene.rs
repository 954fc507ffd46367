//! What most tests start from: a backend behind a virtual address, and a supervisor that serves it.

use std::error::Error;
use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use holdfast_lab::supervisor::Launch;
use holdfast_lab::wait::holds;
use holdfast_lab::{
    Attempt, Backend, Lab, LabError, Service, Supervisor, Target, attempt, eventually, render,
};
use holdfast_protocol::control::Status;
use holdfast_protocol::handover::ConfigState;

/// The configuration's file name.
pub const FILE: &str = "holdfast.yaml";

/// The virtual address of [`Scene`]'s service.
pub const WEB: SocketAddr = virtual_address(10, 80);

/// 127.96.0.`host`: an address of 127.64.0.0/10, where nothing listens unless a test does.
pub const fn virtual_address(host: u8, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 96, 0, host)), port)
}

/// fd96::`host`: an address that no route leads to.
pub fn virtual_address6(host: u16, port: u16) -> SocketAddr {
    SocketAddr::from(([0xfd96, 0, 0, 0, 0, 0, 0, host], port))
}

/// `address` as an IPv6 socket says it: `::ffff:127.96.0.10`.
pub fn mapped(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) => (v4.ip().to_ipv6_mapped(), v4.port()).into(),
        SocketAddr::V6(_) => address,
    }
}

/// The service `web` at [`WEB`], with one backend called `red`.
pub struct Scene {
    /// The service's only endpoint.
    pub red: Backend,
    /// Its configuration.
    pub file: PathBuf,
    /// Who serves it.
    pub supervisor: Supervisor,
}

impl Scene {
    /// Starts it, and sees a connection governed.
    pub fn start(lab: &Lab) -> Result<Self, LabError> {
        Self::launch(lab, |launch| launch)
    }

    /// The same with another value for an option of the supervisor.
    pub fn start_with(
        lab: &Lab,
        option: &'static str,
        value: impl AsRef<OsStr>,
    ) -> Result<Self, LabError> {
        Self::launch(lab, |launch| launch.with(option, value))
    }

    fn launch(
        lab: &Lab,
        change: impl for<'a> FnOnce(Launch<'a>) -> Launch<'a>,
    ) -> Result<Self, LabError> {
        let red = Backend::tcp("red")?;
        let file = lab.write(FILE, render(&[web(&red)]))?;
        let supervisor = change(lab.supervisor(&file)).start()?;
        let scene = Self { red, file, supervisor };
        scene.assert_governed();
        Ok(scene)
    }

    /// The service's target.
    pub fn target(&self) -> Target {
        Target::tcp(WEB, &[self.red.name()])
    }

    /// A connection reaches the backend.
    #[track_caller]
    pub fn assert_governed(&self) {
        assert_reached(&self.target());
    }
}

/// The service at [`WEB`] with one endpoint.
pub fn web(backend: &Backend) -> Service {
    Service::tcp("web", WEB).endpoint(backend.v4())
}

/// Serves `services` and waits until they are in force.
pub fn serve(lab: &Lab, services: &[Service]) -> Result<Supervisor, LabError> {
    let file = lab.write(FILE, render(services))?;
    lab.supervisor(&file).start()
}

/// A connection reaches one of the target's backends.
#[track_caller]
pub fn assert_reached(target: &Target) {
    let attempt = attempt(target);
    assert!(matches!(attempt, Attempt::Reached(_)), "{attempt:?}");
}

/// Waits until a connection to `target` reaches one of its backends.
pub fn wait_until_reached(target: &Target) -> Result<(), LabError> {
    eventually(&format!("{} to be reached", target.address), || match attempt(target) {
        Attempt::Reached(_) => Ok(()),
        other => Err(format!("{other:?}")),
    })
}

/// Waits until a connection to `target` is not governed any more.
pub fn wait_until_ungoverned(target: &Target) -> Result<(), LabError> {
    eventually(&format!("{} to be free of governance", target.address), || {
        let attempt = attempt(target);
        holds(matches!(attempt, Attempt::Ungoverned(_)), || format!("{attempt:?}"))
    })
}

/// Writes another configuration and waits until it is in force.
pub fn put_in_force(
    lab: &Lab,
    supervisor: &mut Supervisor,
    text: &str,
) -> Result<Status, Box<dyn Error>> {
    let former = supervisor.status()?.config.digest;
    lab.write(FILE, text)?;
    Ok(supervisor.wait_until("another configuration in force", |status| {
        status.config.state == ConfigState::InForce && status.config.digest != former
    })?)
}
