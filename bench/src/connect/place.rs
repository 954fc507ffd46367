//! Where connections are made from, and what lies between there and the backend.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use anyhow::Context;
use holdfast_bpf::object;
use holdfast_lab::{Lab, Supervisor};
use holdfast_protocol::control::{LinkStatus, Status};
use holdfast_protocol::handover::ConfigState;
use holdfast_protocol::kernel::program;
use holdfast_protocol::manifest::Kind;

use super::case::{self, Family};
use super::kernel::Empty;
use crate::place::beside;

/// Numbers in the tables: each of the largest number of services takes two.
const MAX_SERVICES: &str = "131072";

/// What lies between the client and the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Between {
    /// Nothing: a cgroup without a program.
    Nothing,
    /// A program that does nothing.
    Empty,
    /// Holdfast with this many services, and the address is not a service's.
    Untouched(u32),
    /// Holdfast, and the address is that of one of its services, always the same.
    Governed(u32),
    /// Holdfast, with one service that has limits and affinity, and access policies by workload that let it pass.
    Asked,
    /// Holdfast, and each connection is to another one of its services: in no cache is anything that
    /// was read for the one before.
    Turns(u32),
}

/// A cgroup to connect from, and the programs that run there.
pub struct Place {
    /// Where.
    pub cgroup: PathBuf,
    /// What runs there.
    pub programs: Vec<Program>,
    /// What is measured there.
    pub between: Vec<Between>,
    _held: Held,
}

/// A program, and whether it is the one that `connect(2)` calls.
pub struct Program {
    /// By descriptor.
    pub descriptor: OwnedFd,
    /// Others run when something happens to the socket later.
    pub is_of_connect: bool,
}

/// What keeps a place as it is.
enum Held {
    Nothing,
    Programs { _empty: [Empty; 2] },
    Instance { _supervisor: Supervisor },
}

impl Between {
    /// How it is called in a table.
    pub fn name(self) -> String {
        let services = |count: u32| match count {
            1 => "1 service".to_owned(),
            _ => format!("{} services", holdfast_lab::page::grouped(count.into())),
        };
        match self {
            Self::Nothing => "nothing between".to_owned(),
            Self::Empty => "an empty program".to_owned(),
            Self::Untouched(count) => {
                format!("Holdfast, {}, no service's address", services(count))
            }
            Self::Governed(count) => format!("Holdfast, {}", services(count)),
            Self::Asked => "Holdfast, a service with limits, affinity and policies".to_owned(),
            Self::Turns(count) => format!("Holdfast, {}, by turns", services(count)),
        }
    }
}

impl Place {
    /// A cgroup without a program.
    pub fn nothing(lab: &Lab) -> anyhow::Result<Self> {
        let cgroup = beside(lab, "nothing")?;
        let between = vec![Between::Nothing];
        Ok(Self { cgroup, programs: Vec::new(), between, _held: Held::Nothing })
    }

    /// One with an empty program for each family.
    pub fn empty(lab: &Lab) -> anyhow::Result<Self> {
        let cgroup = beside(lab, "empty")?;
        let empty = [Empty::attach(&cgroup, Family::V4)?, Empty::attach(&cgroup, Family::V6)?];
        let copy = |it: &Empty| {
            let descriptor = it.program.try_clone().context("cannot copy a descriptor")?;
            Ok(Program { descriptor, is_of_connect: true })
        };
        let programs = empty.iter().map(copy).collect::<anyhow::Result<_>>()?;
        let held = Held::Programs { _empty: empty };
        Ok(Self { cgroup, programs, between: vec![Between::Empty], _held: held })
    }

    /// One that an instance of its own governs, with this many services in force.
    pub fn governed(lab: &Lab, services: u32) -> anyhow::Result<Self> {
        let between =
            [Between::Untouched, Between::Governed, Between::Turns].map(|of| of(services));
        let text = case::configuration(services);
        Self::instance(lab, &format!("with-{services}"), text, services, between.to_vec())
    }

    /// One whose connections everything is asked of, by policies that name the workload of another place.
    pub fn asked(lab: &Lab, other: &Self) -> anyhow::Result<Self> {
        Self::instance(lab, "asked", case::asked(&other.cgroup), 1, vec![Between::Asked])
    }

    /// One that the instance `name` governs, with `text` and as many services in force.
    fn instance(
        lab: &Lab,
        name: &str,
        text: String,
        services: u32,
        between: Vec<Between>,
    ) -> anyhow::Result<Self> {
        let cgroup = beside(lab, name)?;
        let file = lab.write(&format!("{name}.yaml"), text)?;
        let launch = lab.supervisor(&file).with("--instance", name).with("--cgroup", &cgroup);
        let mut supervisor = launch.with("--max-services", MAX_SERVICES).start()?;
        let is_in_force = |status: &Status| {
            status.config.state == ConfigState::InForce && status.services >= services
        };
        let status = supervisor.wait_until("the services to be in force", is_in_force)?;
        let program = |link: &LinkStatus| {
            let descriptor = object::by_id(Kind::Program, link.prog_id)?;
            let is_of_connect = [program::CONNECT4, program::CONNECT6].contains(&&*link.name);
            Ok(Program { descriptor, is_of_connect })
        };
        let programs = status.links.iter().map(program).collect::<anyhow::Result<_>>()?;
        let held = Held::Instance { _supervisor: supervisor };
        Ok(Self { cgroup, programs, between, _held: held })
    }
}
