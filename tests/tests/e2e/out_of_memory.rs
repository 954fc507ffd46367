//! The worker is killed because memory runs out, and nothing else happens.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use holdfast_lab::wait::holds;
use holdfast_lab::{
    Backend, Lab, LabError, Service, Target, TestResult, eventually, isolated, process, render,
};
use holdfast_protocol::handover::ConfigState;

use crate::scene::{FILE, WEB, assert_reached, wait_until_reached, web};

/// What supervisor and worker may take beyond what they have: far more than they need for a few
/// services, far less than it takes to read [`enormous`].
const MARGIN_BYTES: u64 = 8 * 1024 * 1024;

/// `CAP_SYS_RESOURCE`, as a bit.
const SYS_RESOURCE: u64 = 1 << 24;

/// What names of our memory cgroups begin with; this process's id follows.
const PREFIX: &str = "holdfast-oom-";

/// A memory cgroup for the supervisor, of either version, removed when dropped.
struct MemoryCgroup {
    path: PathBuf,
    is_ours: bool,
    limit: &'static str,
    usage: &'static str,
    events: &'static str,
}

impl MemoryCgroup {
    fn create(lab: &Lab) -> Result<Self, LabError> {
        let mountinfo = Path::new("/proc/self/mountinfo");
        let mounts = fs::read_to_string(mountinfo).map_err(LabError::file("read", mountinfo))?;
        match version_1_mount(&mounts) {
            Some(mount) => Self::version_1(&mount),
            None => Self::version_2(lab),
        }
    }

    fn version_1(mount: &Path) -> Result<Self, LabError> {
        remove_abandoned(mount);
        let path = mount.join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir(&path).map_err(LabError::file("create the memory cgroup", &path))?;
        let (limit, usage) = ("memory.limit_in_bytes", "memory.usage_in_bytes");
        Ok(Self { path, is_ours: true, limit, usage, events: "memory.oom_control" })
    }

    /// The cgroup the lab has made for the supervisor, with the memory controller.
    fn version_2(lab: &Lab) -> Result<Self, LabError> {
        let path = lab.control();
        let parent = path.parent().unwrap_or(&path).join("cgroup.subtree_control");
        fs::write(&parent, "+memory").map_err(LabError::file(
            "get a memory controller, which this test needs, of either version, from",
            &parent,
        ))?;
        let (limit, usage) = ("memory.max", "memory.current");
        Ok(Self { path, is_ours: false, limit, usage, events: "memory.events" })
    }

    fn read(&self, name: &str) -> Result<String, LabError> {
        let path = self.path.join(name);
        fs::read_to_string(&path).map_err(LabError::file("read", &path))
    }

    /// Allows what is used now and [`MARGIN_BYTES`] more.
    fn tighten(&self) -> TestResult {
        let usage: u64 = self.read(self.usage)?.trim().parse()?;
        fs::write(self.path.join(self.limit), (usage + MARGIN_BYTES).to_string())?;
        Ok(())
    }

    /// How many processes of it the kernel has killed.
    fn killed(&self) -> Result<u64, Box<dyn std::error::Error>> {
        let events = self.read(self.events)?;
        let line = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        Ok(line.ok_or("the kernel does not count kills")?.trim().parse()?)
    }
}

impl Drop for MemoryCgroup {
    fn drop(&mut self) {
        if self.is_ours {
            let removed = eventually("the memory cgroup to be removed", || {
                fs::remove_dir(&self.path).map_err(|error| error.to_string())
            });
            removed.unwrap_or_else(|error| eprintln!("{error}"));
        }
    }
}

/// The mount point of the memory controller of version 1 in the text of a `mountinfo` file.
fn version_1_mount(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let options = right.strip_prefix("cgroup ")?.split(' ').next_back()?;
        let is_memory = options.split(',').any(|option| option == "memory");
        is_memory.then(|| left.split(' ').nth(4).map(PathBuf::from))?
    })
}

/// Removes what killed runs of this test have left.
fn remove_abandoned(mount: &Path) {
    for entry in fs::read_dir(mount).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let maker = name.strip_prefix(PREFIX).and_then(|pid| pid.parse().ok());
        if maker.is_some_and(|pid| !process::is_alive(pid)) {
            // Fails as long as somebody is in it.
            let _left_to_the_next_run = fs::remove_dir(entry.path());
        }
    }
}

/// A valid configuration that takes tens of megabytes to read.
fn enormous(first: &Service) -> String {
    let endpoint = |n: u16| {
        let [high, low] = n.to_be_bytes();
        SocketAddr::from(([127, 2, high, low], 18080))
    };
    let many = (0..100_u8).map(|n| {
        let service = Service::tcp(&format!("s{n}"), SocketAddr::from(([127, 97, 0, n], 80)));
        (0..1000).fold(service, |service, n| service.endpoint(endpoint(n)))
    });
    render(&std::iter::once(first.clone()).chain(many).collect::<Vec<_>>())
}

fn oom_score_adj(pid: u32) -> Result<i32, Box<dyn std::error::Error>> {
    Ok(process::read(pid, "oom_score_adj")?.trim().parse()?)
}

#[test]
fn a_worker_out_of_memory_costs_nothing_but_the_worker() {
    isolated(|lab| {
        let memory = MemoryCgroup::create(lab)?;
        let red = Backend::tcp("red")?;
        let file = lab.write(FILE, render(&[web(&red)]))?;
        let list = memory.path.join("cgroup.procs");
        let join = "echo $$ > \"$0\" && exec \"$@\"";
        let program = ["sh", "-c", join, list.to_str().expect("mounts are in plain places")];
        let mut supervisor = lab.supervisor(&file).under(&program).start()?;
        let before = supervisor.status()?;
        let may_lower = u64::from_str_radix(&process::status(std::process::id(), "CapEff")?, 16)?;
        let inherited = oom_score_adj(std::process::id())?;
        let own = if may_lower & SYS_RESOURCE == 0 { inherited } else { -1000 };
        assert_eq!(oom_score_adj(before.supervisor.pid)?, own);
        assert_eq!(oom_score_adj(before.worker.pid)?, (own.max(0) + 500).min(1000));
        memory.tighten()?;
        assert_eq!(memory.killed()?, 0);

        lab.write(FILE, enormous(&web(&red)))?;
        // The supervisor is not asked meanwhile: where it may not protect itself, it must want no
        // memory in the moment after a worker's end.
        eventually("a worker without the enormous configuration", || {
            let log = fs::read_to_string(supervisor.log()).map_err(|error| error.to_string())?;
            let after = log.split_once("is set aside").map(|(_, after)| after);
            let granted = after.is_some_and(|after| after.contains("a worker is granted"));
            holds(granted, || log)
        })?;
        assert!(memory.killed()? >= 3, "only the kernel ended workers");
        let status = supervisor.status()?;
        assert_eq!(status.config.state, ConfigState::SetAside);
        let [aside] = status.config.set_aside.as_slice() else { panic!("{:?}", status.config) };
        for said in [&aside.reason, &status.takeovers.last_failure] {
            assert!(said.contains("SIGKILL") && said.contains("out of memory"), "{said}");
        }
        assert_eq!(status.supervisor.pid, before.supervisor.pid);
        assert_eq!(status.links, before.links, "governance stays");
        let blue = Backend::tcp("blue")?;
        let target = Target::tcp(WEB, &["red"]);
        for _ in 0..20 {
            assert_reached(&target);
        }
        lab.write(FILE, render(&[web(&blue)]))?;
        let log = fs::read_to_string(supervisor.log())?;
        assert!(log.contains("out of memory"), "{log}");

        let after = supervisor.wait_until("a worker, by itself", |status| {
            status.worker.state == "granted" && status.config.state == ConfigState::InForce
        })?;
        assert_eq!((after.services, after.supervisor.pid), (1, before.supervisor.pid));
        assert_eq!(after.worker.reason, "");
        wait_until_reached(&Target::tcp(WEB, &["blue"]))?;
        assert_eq!(supervisor.status()?.links, before.links);
        supervisor.end(nix::sys::signal::Signal::SIGTERM)?;
        eventually("the memory cgroup to be empty", || {
            let left = fs::read_to_string(&list).map_err(|error| error.to_string())?;
            // The lab's own commands are in the lab's cgroup of version 2 only while they run.
            holds(left.is_empty(), || left.clone())
        })?;
        Ok(())
    });
}
