//! What is left in the end.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use holdfast_bpf::{link, object};
use holdfast_lab::process::Process;
use holdfast_lab::random::Random;
use holdfast_lab::{Backend, Census, Lab, Service, Target, TestResult, binaries, isolated, render};
use holdfast_protocol::kernel::{map, program};
use holdfast_protocol::manifest::Kind;
use holdfast_tests::builds::{another_build, own_worker};
use holdfast_tests::hooks::pin;
use holdfast_tests::life::{Life, Restart, wait_until_nobody_is_left};
use holdfast_tests::scene::{
    FILE, WEB, assert_reached, put_in_force, virtual_address, wait_until_ungoverned, web,
};
use nix::sys::signal::Signal;

/// Settings of the kernel that a program of this kind could be tempted to change: all of this network
/// namespace's, and those of bpf.
fn kernel_settings() -> Result<BTreeMap<PathBuf, String>, std::io::Error> {
    fn collect(path: &Path, found: &mut BTreeMap<PathBuf, String>) -> std::io::Result<()> {
        for entry in fs::read_dir(path)? {
            let path = entry?.path();
            if path.is_dir() {
                collect(&path, found)?;
            } else if let Ok(text) = fs::read_to_string(&path) {
                // Those that cannot be read are orders, not settings.
                found.insert(path, text);
            }
        }
        Ok(())
    }
    let mut found = BTreeMap::new();
    collect(Path::new("/proc/sys/net"), &mut found)?;
    for name in ["kernel/unprivileged_bpf_disabled", "kernel/bpf_stats_enabled"] {
        let path = Path::new("/proc/sys").join(name);
        found.insert(path.clone(), fs::read_to_string(path)?);
    }
    Ok(found)
}

/// A life with everything in it that makes or moves objects.
fn live<'a>(lab: &'a Lab, red: &Backend) -> Result<Life<'a>, Box<dyn Error>> {
    let file = lab.write(FILE, render(&[web(red)]))?;
    let worker = own_worker(lab)?;
    let mut life = Life::new(lab, file).with("--worker", &worker);
    life.start()?;
    for restart in Restart::QUICK {
        life.restart(restart)?;
    }
    let api = Service::tcp("api", virtual_address(30, 80)).endpoint(red.v4());
    put_in_force(lab, life.supervisor(), &render(&[web(red), api]))?;
    // Repairs: one by the supervisor, one by the loader.
    let repairs = life.supervisor().status()?.drift.repairs;
    fs::remove_file(pin(lab, Kind::Map, map::HEADS))?;
    link::detach(object::get(&pin(lab, Kind::Link, program::CONNECT4))?.as_fd())?;
    life.supervisor().wait_until("the repairs", |status| {
        status.drift.repairs >= repairs + 2 && status.drift.open.is_empty()
    })?;
    another_build(&worker)?;
    life.restart(Restart::SupervisorKilled)?;
    assert_reached(&Target::tcp(WEB, &["red"]));
    Ok(life)
}

/// Starts `holdfast uninstall` and kills it after a while, and whatever it has started with it.
fn uninstall_killed_half_way(lab: &Lab, random: &mut Random) -> TestResult {
    /// Longer than an uninstall takes on an idle machine.
    const WHOLE_US: u64 = 30_000;
    let mut command = lab.beside(binaries::find(binaries::SUPERVISOR)?)?;
    command.arg("uninstall").args(lab.instance_arguments());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let process = Process::open(child.id())?;
    std::thread::sleep(Duration::from_micros(random.below(WHOLE_US)));
    process.signal(Signal::SIGKILL)?;
    child.wait()?;
    Ok(wait_until_nobody_is_left(lab)?)
}

/// Kmesh: uninstall leaves XDP programs, files and entries; Cilium #48936, #10067: a setting of the
/// kernel and programs on sockets. After an uninstall everything is as before the install, also when
/// uninstalls before it were killed half-way.
#[test]
fn pf29_an_uninstall_leaves_nothing() {
    const KILLED: usize = 10;
    isolated(|lab| {
        let settings = kernel_settings()?;
        assert!(settings.len() > 100, "{}", settings.len());
        let before = Census::take(lab, &Census::default())?;
        let red = Backend::tcp("red")?;
        let mut random = Random::new(29);
        for killed in [0, KILLED] {
            let mut life = live(lab, &red)?;
            let during = Census::take(lab, &before)?;
            assert!(during.ids(Kind::Link).len() >= 4, "{during:?}");
            life.end(Signal::SIGTERM)?;
            for _ in 0..killed {
                uninstall_killed_half_way(lab, &mut random)?;
            }
            // Who holds a link keeps it, but not what it did.
            let held = object::get(&pin(lab, Kind::Link, program::CONNECT4)).ok();
            let ended = lab.uninstall()?;
            assert_eq!(ended.code, Some(0), "{ended:?}");
            wait_until_ungoverned(&Target::tcp(WEB, &["red"]))?;
            drop(held);
            before.wait_for_return(lab, &during)?;
            assert_eq!(kernel_settings()?, settings);
        }
        Ok(())
    });
}
