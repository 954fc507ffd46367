//! What the tests with the real loader and worker start from: a supervisor that governs one service.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use holdfast_lab::inside::INSTANCE;
use holdfast_lab::supervisor::Launch;
use holdfast_lab::{
    Attempt, Backend, Lab, LabError, Service, Supervisor, Target, attempt, binaries, census, render,
};

/// The service's address.
const WEB: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 96, 0, 10)), 80);

/// A supervisor that governs one service.
pub struct Scene<'a> {
    pub lab: &'a Lab,
    pub backend: Backend,
    pub supervisor: Supervisor,
}

impl<'a> Scene<'a> {
    /// Starts one as `choose` has it, with the worker that was built.
    pub fn start_with(
        lab: &'a Lab,
        choose: impl FnOnce(Launch<'a>) -> Launch<'a>,
    ) -> Result<Self, LabError> {
        let backend = Backend::tcp("red")?;
        let service = Service::tcp("web", WEB).endpoint(backend.v4());
        let file = lab.write("holdfast.yaml", render(&[service]))?;
        let launch = lab
            .supervisor(&file)
            .binary(Path::new(env!("CARGO_BIN_EXE_holdfast")))
            .with("--worker", binaries::find(binaries::WORKER)?);
        let supervisor = choose(launch).start()?;
        Ok(Self { lab, backend, supervisor })
    }

    pub fn target(&self) -> Target {
        Target::tcp(WEB, &[self.backend.name()])
    }

    #[track_caller]
    pub fn assert_governed(&self) {
        let attempt = attempt(&self.target());
        assert!(matches!(attempt, Attempt::Reached(_)), "{attempt:?}");
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.supervisor.log()).expect("it logs")
    }

    /// Everything pinned, with its id.
    pub fn pinned(&self) -> Result<BTreeMap<PathBuf, u32>, LabError> {
        census::pins(self.lab, INSTANCE)
    }
}
