//! Starts, ends and upgrades that fail.

use std::error::Error;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use holdfast_bpf::{link, object};
use holdfast_lab::load::Shape;
use holdfast_lab::{Backend, Census, Lab, Load, Target, TestResult, isolated, render};
use holdfast_protocol::handover::ConfigState;
use holdfast_protocol::kernel::program;
use holdfast_protocol::manifest::Kind;
use holdfast_protocol::pin;
use holdfast_tests::builds::{another_build, own_worker, replace};
use holdfast_tests::hooks::{self, HOOKS};
use holdfast_tests::life::{Life, wait_until_nobody_is_left};
use holdfast_tests::scene::{FILE, WEB, assert_reached, web};
use nix::sys::signal::Signal;

/// Clients that keep connecting to [`WEB`], behind which `red` is.
fn clients() -> Load {
    let shape = Shape { clients: 2, rest: Duration::from_millis(1), seed: 1 };
    Load::start(&[Target::tcp(WEB, &["red"])], shape)
}

#[track_caller]
fn assert_unharmed(load: Load) {
    let tally = load.finish();
    assert_eq!((tally.failed, tally.ungoverned), (0, 0), "{tally:?}");
    assert!(tally.reached > 100, "{tally:?}");
}

/// A supervisor that starts with one thing wrong and ends by itself.
fn fails_to_start(life: &Life<'_>, option: &'static str, value: &str) -> TestResult {
    let ended = life.launch().with(option, value).run()?;
    assert!(!matches!(ended.code, None | Some(0)), "{option} {value}: {ended:?}");
    Ok(())
}

/// Kmesh: a daemon that started while its control plane was down ran its deferred clean-up and took
/// the whole data plane away. A start that fails, at whichever step, must change nothing.
#[test]
fn pf01_a_start_that_fails_changes_nothing() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        let mut life = Life::new(lab, lab.write(FILE, render(&[web(&red)]))?);
        life.start()?;
        life.end(Signal::SIGTERM)?;
        let before = Census::take(lab, &Census::default())?;
        let load = clients();

        fails_to_start(&life, "--worker", "/nowhere/worker")?;
        fails_to_start(&life, "--worker", "/bin/false")?;
        fails_to_start(&life, "--cgroup", "/nowhere/cgroup")?;
        fails_to_start(&life, "--max-services", "1000")?;
        fails_to_start(&life, "--worker-user", "no-such-user")?;
        assert_eq!(Census::take(lab, &before)?.objects, before.objects);

        // What it is to serve cannot be had: it serves what there is, and says why.
        for broken in [None, Some("services: [")] {
            match broken {
                Some(text) => drop(lab.write(FILE, text)?),
                None => fs::remove_file(life.file())?,
            }
            let mut supervisor = life.launch().spawn()?;
            supervisor.wait_until("a word about the configuration", |status| {
                status.config.error.contains(FILE) || status.worker.reason.contains(FILE)
            })?;
            assert_eq!(Census::take(lab, &before)?.objects, before.objects);
            supervisor.end(Signal::SIGTERM)?;
            wait_until_nobody_is_left(lab)?;
        }
        assert_eq!(Census::take(lab, &before)?.objects, before.objects);
        assert_unharmed(load);

        lab.write(FILE, render(&[web(&red)]))?;
        let status = life.start()?;
        assert_eq!(status.config.state, ConfigState::InForce);
        assert_eq!(Census::take(lab, &before)?.objects, before.objects, "the same objects");
        hooks::check(lab)
    });
}

/// Kmesh: SIGTERM while the API server answered with an error was taken for an uninstall, and
/// everything was detached. Only an explicit and local order to uninstall removes anything.
#[test]
fn pf02_no_signal_and_no_error_is_an_uninstall() {
    /// Those that a process can catch, but the two that stand for something else here and SIGCHLD.
    const OTHERS: [Signal; 7] = [
        Signal::SIGQUIT,
        Signal::SIGUSR1,
        Signal::SIGPIPE,
        Signal::SIGALRM,
        Signal::SIGWINCH,
        Signal::SIGXCPU,
        Signal::SIGIO,
    ];
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        let mut life = Life::new(lab, lab.write(FILE, render(&[web(&red)]))?);
        life.start()?;
        let before = Census::take(lab, &Census::default())?;
        let load = clients();
        for (ending, broken) in [
            (Signal::SIGTERM, None),
            (Signal::SIGINT, Some("services: [")),
            (Signal::SIGTERM, None),
        ] {
            match broken {
                Some(text) => drop(lab.write(FILE, text)?),
                None => fs::remove_file(life.file())?,
            }
            life.supervisor().wait_until("the configuration to be missed", |status| {
                status.config.state == ConfigState::Rejected
            })?;
            for signal in OTHERS {
                life.supervisor().signal(signal)?;
            }
            life.supervisor().status()?;
            life.end(ending)?;
            assert_eq!(Census::take(lab, &before)?.objects, before.objects);
            lab.write(FILE, render(&[web(&red)]))?;
            life.start()?;
        }
        assert_unharmed(load);
        assert_eq!(Census::take(lab, &before)?.objects, before.objects);
        let ended = lab.uninstall()?;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let left = Census::take(lab, &before)?;
        assert_eq!(left.ids(Kind::Link).len(), 0, "{left:?}");
        Ok(())
    });
}

/// The tags of the programs that the links run.
fn tags(lab: &Lab) -> Result<Vec<[u8; 8]>, Box<dyn Error>> {
    let tag = |(name, _): &(&str, u32)| -> Result<[u8; 8], Box<dyn Error>> {
        let link = object::get(&hooks::pin(lab, Kind::Link, name))?;
        let program = object::link_info(link.as_fd())?.program_id;
        let program = object::by_id(Kind::Program, program)?;
        Ok(object::program_info(program.as_fd())?.tag)
    };
    HOOKS.iter().map(tag).collect()
}

/// Ids of the pinned programs.
fn pinned_programs(lab: &Lab) -> Result<Vec<u32>, Box<dyn Error>> {
    let id = |(name, _): &(&str, u32)| -> Result<u32, Box<dyn Error>> {
        let program = object::get(&hooks::pin(lab, Kind::Program, name))?;
        Ok(object::program_info(program.as_fd())?.id)
    };
    HOOKS.iter().map(id).collect()
}

/// Fills a hook with programs of somebody else's, up to the kernel's limit: here, with those of a
/// second instance, which governs a cgroup of its own.
fn fill(lab: &Lab, hook: (&str, u32)) -> Result<Vec<OwnedFd>, Box<dyn Error>> {
    const OTHER: &str = "other";
    const MAX_PROGRAMS: usize = 64;
    let below = lab.governed().join(OTHER);
    fs::create_dir(&below)?;
    let file = lab.write("other.yaml", "services: []\n")?;
    let life = Life::new(lab, file).with("--instance", OTHER).with("--cgroup", below);
    life.launch().start()?.end(Signal::SIGTERM)?;
    let theirs = object::get(&pin::path(&lab.bpffs(), OTHER, Kind::Program, hook.0))?;
    let cgroup = fs::File::open(lab.governed())?;
    let there = link::attached_programs(cgroup.as_fd(), hook.1)?.len();
    (there..MAX_PROGRAMS)
        .map(|_| link::create(theirs.as_fd(), cgroup.as_fd(), hook.1).map_err(Into::into))
        .collect()
}

/// Kmesh #687, #797, #951: an upgrade failed half-way on a path that was pinned already, cleaned up
/// after itself and started cold. One that fails half-way must leave the old set attached, working
/// and complete.
#[test]
fn pf03_an_upgrade_that_fails_half_way_leaves_the_old_set_working() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        let worker = own_worker(lab)?;
        let file = lab.write(FILE, render(&[web(&red)]))?;
        let mut life = Life::new(lab, file).with("--worker", &worker);
        another_build(&worker)?;
        life.start()?;
        assert_reached(&Target::tcp(WEB, &["red"]));
        let (old, pins) = (tags(lab)?, pinned_programs(lab)?);
        let before = Census::take(lab, &Census::default())?;
        life.end(Signal::SIGKILL)?;
        let load = clients();

        // One hook has lost its link, and has no room for another: found once others are replaced.
        let lost = object::get(&hooks::pin(lab, Kind::Link, program::CONNECT6))?;
        link::detach(lost.as_fd())?;
        let connect6 =
            *HOOKS.iter().find(|hook| hook.0 == program::CONNECT6).expect("it is a hook");
        let foreign = fill(lab, connect6)?;
        replace(&worker, &holdfast_lab::binaries::find(holdfast_lab::binaries::WORKER)?)?;
        for _ in 0..3 {
            let ended = life.launch().run()?;
            assert_eq!(ended.code, Some(1), "{ended:?}");
            assert!(ended.stderr.contains("64 programs"), "{}", ended.stderr);
            assert_eq!((tags(lab)?, pinned_programs(lab)?), (old.clone(), pins.clone()));
            assert_eq!(
                Census::take(lab, &before)?.objects.intersection(&before.objects).count(),
                before.objects.len(),
                "the old objects are all there"
            );
        }

        foreign.iter().try_for_each(|link| link::detach(link.as_fd()))?;
        life.start()?;
        let new = tags(lab)?;
        assert!(old.iter().zip(&new).all(|(old, new)| old != new), "{old:?} {new:?}");
        assert_unharmed(load);
        hooks::check(lab)
    });
}
