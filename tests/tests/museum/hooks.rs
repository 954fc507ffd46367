//! What is attached to the cgroup's hooks, and what holds it there.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};

use holdfast_bpf::{BpfError, link, object};
use holdfast_lab::wait::holds;
use holdfast_lab::{Backend, Lab, TestResult, cgroup, eventually, isolated, pass, render};
use holdfast_protocol::kernel::{map, program};
use holdfast_protocol::manifest::Kind;
use holdfast_tests::builds::{another_build, own_worker, replace};
use holdfast_tests::hooks::{self, HOOKS, map_ids, pin, programs_of_ours};
use holdfast_tests::life::{Life, Restart};
use holdfast_tests::scene::{FILE, WEB, assert_reached, web};
use holdfast_tests::watch::Watch;
use nix::sys::signal::Signal;

/// A configuration that needs every link: one of its policies is about arriving connections.
fn judged(backend: &Backend) -> String {
    const POLICY: &str = "policies: [{ name: p, direction: inbound, action: deny, rules: [{ to: { ports: [9] } }] }]\n";
    render(&[web(backend)]) + POLICY
}

fn pinned(lab: &Lab, kind: Kind, name: &str) -> Result<OwnedFd, BpfError> {
    object::get(&pin(lab, kind, name))
}

/// Makes the links of the two `connect` hooks run the programs of the two `getpeername` hooks. Later kernels
/// refuse that (`EINVAL`, seen with Linux 6.18.44): there they run another program of `connect`.
fn misdirect(lab: &Lab) -> TestResult {
    let pairs =
        [(program::CONNECT4, program::GETPEERNAME4), (program::CONNECT6, program::GETPEERNAME6)];
    let heads = pinned(lab, Kind::Map, map::HEADS)?;
    for (hook, other) in pairs {
        let (link, wrong) = (pinned(lab, Kind::Link, hook)?, pinned(lab, Kind::Program, other)?);
        let now = object::by_id(Kind::Program, object::link_info(link.as_fd())?.program_id)?;
        match link::update(link.as_fd(), wrong.as_fd(), now.as_fd()) {
            Err(error) if error.errno() == libc::EINVAL => {
                let (_, attach_type) = HOOKS.iter().find(|(name, _)| *name == hook).expect("one");
                let wrong = pass::program(other, *attach_type, Some(heads.as_fd()))?;
                link::update(link.as_fd(), wrong.as_fd(), now.as_fd())?;
            }
            done => done?,
        }
    }
    Ok(())
}

/// Kmesh: a restart put the program of one direction on the link of the other. After a takeover of
/// any kind each link's program, hook and cgroup are what they should be; where somebody has
/// misdirected them meanwhile, that is found and put right.
#[test]
fn pf04_after_a_restart_each_link_runs_its_own_program() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        let mut life = Life::new(lab, lab.write(FILE, judged(&red))?);
        life.start()?;
        hooks::check(lab)?;
        for restart in Restart::QUICK {
            life.restart(restart)?;
            hooks::check(lab).map_err(|error| format!("after {restart:?}: {error}"))?;
        }
        for nobody_serves in [true, false] {
            if nobody_serves {
                life.end(Signal::SIGKILL)?;
            }
            misdirect(lab)?;
            hooks::check(lab).expect_err("it shows");
            if nobody_serves {
                life.start()?;
            } else {
                eventually("the programs to be put right", || hooks::check(lab))?;
            }
            hooks::check(lab)?;
            assert_reached(&holdfast_lab::Target::tcp(WEB, &["red"]));
        }
        Ok(())
    });
}

/// Kmesh #591, #665, #1346 and Cilium #44194: after a restart two generations of the same program
/// were attached at once, and connections were lost. Each hook carries exactly one program of ours
/// before, during and after every restart and upgrade.
#[test]
fn pf10_no_hook_ever_carries_two_of_our_programs_or_none() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        let worker = own_worker(lab)?;
        let file = lab.write(FILE, judged(&red))?;
        let mut life = Life::new(lab, file).with("--worker", &worker);
        life.start()?;
        let (cgroup, maps) = (lab.governed(), map_ids(lab)?);
        let watch = Watch::start(move || {
            HOOKS.iter().try_for_each(|(name, hook)| {
                let ours = programs_of_ours(&cgroup, *hook, &maps).map_err(|e| e.to_string())?;
                holds(ours.len() == 1, || format!("programs {ours:?} on the hook of {name}"))
            })
        });
        for upgrade in [true, false] {
            for restart in Restart::QUICK {
                life.restart(restart)?;
            }
            // Another build, and then the former one again: both ways are upgrades.
            match upgrade {
                true => another_build(&worker)?,
                false => replace(&worker, &holdfast_lab::binaries::find("holdfast-worker")?)?,
            }
            for restart in [Restart::SupervisorKilled, Restart::SupervisorTerminated] {
                life.restart(restart)?;
            }
        }
        watch.assert_right(100);
        hooks::check(lab)
    });
}

/// Attaches another copy of what a link runs.
fn attach_copy(lab: &Lab, name: &str, attach_type: u32) -> Result<OwnedFd, BpfError> {
    let program = pinned(lab, Kind::Program, name)?;
    let cgroup = File::open(lab.governed()).expect("the governed cgroup exists");
    link::create(program.as_fd(), cgroup.as_fd(), attach_type)
}

/// Cilium #46065: one orphaned link kept every agent in a restart loop. Links and pins that are
/// missing, defunct, too many or not ours are repaired or reported, and never stop a start.
#[test]
fn pf11_broken_links_and_pins_never_stop_a_start() {
    type Damage = fn(&Lab) -> Result<Vec<OwnedFd>, Box<dyn std::error::Error>>;
    const DAMAGES: [(&str, Damage); 8] = [
        ("a link's pin is missing", |lab| {
            let held = pinned(lab, Kind::Link, program::CONNECT4)?;
            fs::remove_file(pin(lab, Kind::Link, program::CONNECT4))?;
            Ok(vec![held])
        }),
        ("a link is gone", |lab| {
            fs::remove_file(pin(lab, Kind::Link, program::CONNECT6))?;
            Ok(Vec::new())
        }),
        ("a link is defunct", |lab| {
            link::detach(pinned(lab, Kind::Link, program::CONNECT4)?.as_fd())?;
            Ok(Vec::new())
        }),
        ("every link is defunct", |lab| {
            for (name, _) in HOOKS {
                link::detach(pinned(lab, Kind::Link, name)?.as_fd())?;
            }
            Ok(Vec::new())
        }),
        ("a link is there twice", |lab| {
            let (name, hook) = HOOKS[0];
            Ok(vec![attach_copy(lab, name, hook)?])
        }),
        ("a map's pin is another object", |lab| {
            let heads = pin(lab, Kind::Map, map::HEADS);
            fs::remove_file(&heads)?;
            object::pin(pinned(lab, Kind::Program, program::CONNECT4)?.as_fd(), &heads)?;
            Ok(Vec::new())
        }),
        ("a directory is in place of a pin", |lab| {
            let path = pin(lab, Kind::Program, program::CONNECT4);
            fs::remove_file(&path)?;
            fs::create_dir(path)?;
            Ok(Vec::new())
        }),
        ("pins of nobody's", |lab| {
            let stray = pin(lab, Kind::Link, "stray");
            object::pin(pinned(lab, Kind::Map, map::HEADS)?.as_fd(), &stray)?;
            fs::create_dir(pin(lab, Kind::Map, "stray-directory"))?;
            Ok(Vec::new())
        }),
    ];
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        let mut life = Life::new(lab, lab.write(FILE, judged(&red))?);
        life.start()?;
        let maps: BTreeSet<u32> = map_ids(lab)?.into_iter().collect();
        for (what, damage) in DAMAGES {
            life.end(Signal::SIGKILL)?;
            let held = damage(lab)?;
            let status = life.start().map_err(|error| format!("{what}: {error}"))?;
            assert!(status.links.iter().all(|link| link.ok && link.pinned), "{what}: {status:?}");
            assert!(status.drift.open.is_empty(), "{what}: {status:?}");
            hooks::check(lab).map_err(|error| format!("{what}: {error}"))?;
            assert_eq!(map_ids(lab)?.into_iter().collect::<BTreeSet<_>>(), maps, "{what}");
            assert_reached(&holdfast_lab::Target::tcp(WEB, &["red"]));
            drop(held);
        }
        Ok(())
    });
}

/// Cilium #48420: the link sat on a cgroup that was removed, its pin was there, and the status said
/// that all was well. Health is what the kernel says of links and hooks, not that a path exists.
#[test]
fn pf15_a_pin_alone_is_not_health() {
    isolated(|lab| {
        let governed = lab.governed().join("below");
        fs::create_dir(&governed)?;
        let red = Backend::tcp("red")?;
        let file = lab.write(FILE, judged(&red))?;
        let mut life = Life::new(lab, file).with("--cgroup", &governed);
        let status = life.start()?;
        assert!(status.links.iter().all(|link| link.ok), "{status:?}");

        fs::remove_dir(&governed)?;
        // Read at the moment of the question: no audit is waited for.
        let status = life.supervisor().status()?;
        assert!(status.links.iter().all(|link| link.pinned && !link.ok), "{status:?}");
        life.supervisor().wait_until("the report", |status| {
            status.drift.open.iter().any(|drift| drift.contains("cgroup is gone"))
        })?;
        for (name, _) in HOOKS {
            assert!(pin(lab, Kind::Link, name).exists(), "{name} is pinned as ever");
        }

        fs::create_dir(&governed)?;
        let status = life.restart(Restart::SupervisorTerminated)?;
        assert!(status.links.iter().all(|link| link.pinned && link.ok), "{status:?}");
        let anew = cgroup::id(&governed)?;
        for (name, _) in HOOKS {
            let info = object::link_info(pinned(lab, Kind::Link, name)?.as_fd())?;
            assert_eq!(info.cgroup.map(|at| at.cgroup_id), Some(anew), "{name}");
        }
        Ok(())
    });
}

/// Ids of the maps that process `pid` has descriptors of.
fn held_maps(pid: u32) -> Result<BTreeSet<u32>, std::io::Error> {
    let mut held = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // One that was closed meanwhile is not held.
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        let id = text.lines().find_map(|line| line.strip_prefix("map_id:"));
        held.extend(id.and_then(|id| id.trim().parse::<u32>().ok()));
    }
    Ok(held)
}

/// A tail-call array is emptied by the kernel when its last user reference goes, though its link
/// stays: what was denied is allowed. Every map is both held by the supervisor and pinned, at every
/// moment, whatever was removed and repaired before.
#[test]
fn pf16_every_map_is_held_and_pinned_whatever_was_repaired() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        let mut life = Life::new(lab, lab.write(FILE, judged(&red))?);
        let repairs = life.start()?.drift.repairs;
        let maps: BTreeSet<u32> = map_ids(lab)?.into_iter().collect();
        assert_eq!(maps.len(), map::ALL.len());
        let check = |life: &mut Life<'_>, what: &str| -> TestResult {
            let held = held_maps(life.supervisor().pid())?;
            assert!(held.is_superset(&maps), "{what}: {held:?} are held, not {maps:?}");
            eventually("every map to be pinned", || {
                let pinned = map_ids(lab).map_err(|error| error.to_string())?;
                let pinned: BTreeSet<u32> = pinned.into_iter().collect();
                holds(pinned == maps, || format!("{what}: {pinned:?} instead of {maps:?}"))
            })?;
            Ok(())
        };
        check(&mut life, "the start")?;
        for restart in Restart::QUICK {
            life.restart(restart)?;
            check(&mut life, &format!("{restart:?}"))?;
        }
        // Two rounds of repair: by the supervisor alone, and by the loader.
        for name in map::ALL {
            fs::remove_file(pin(lab, Kind::Map, name))?;
        }
        check(&mut life, "every map's pin removed")?;
        fs::remove_dir_all(pin(lab, Kind::Map, map::HEADS).parent().expect("has one"))?;
        link::detach(pinned(lab, Kind::Link, program::CONNECT4)?.as_fd())?;
        life.supervisor().wait_until("the repairs", |status| {
            status.drift.repairs > repairs
                && status.drift.open.is_empty()
                && status.links.iter().all(|link| link.ok)
        })?;
        check(&mut life, "a link detached, and the pins removed")?;
        life.restart(Restart::SupervisorKilled)?;
        check(&mut life, "killed after repairs")?;
        hooks::check(lab)
    });
}
