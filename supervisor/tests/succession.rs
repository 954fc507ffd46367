//! The supervisor becomes the binary on disk, in the process it is: with the real binaries, real
//! connections, and with binaries that cannot take over.

mod scene;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use holdfast_lab::load::Shape;
use holdfast_lab::wait::holds;
use holdfast_lab::{
    Lab, LabError, Load, TestResult, binaries, control, eventually, isolated, process,
};
use holdfast_protocol::control::{Request, Response, Status};
use nix::sys::signal::Signal;

use scene::Scene;

impl<'a> Scene<'a> {
    /// From a binary that can be replaced.
    fn start(lab: &'a Lab) -> Result<Self, LabError> {
        install(lab, &good());
        Self::start_with(lab, |launch| launch.binary(&binary(lab)))
    }

    /// Asks for a replacement, and waits until it has happened.
    fn replace(&mut self) -> Result<Status, LabError> {
        let wanted = self.supervisor.status()?.replacements.count + 1;
        self.supervisor.signal(Signal::SIGUSR2)?;
        self.replaced(wanted)
    }

    fn replaced(&mut self, wanted: u64) -> Result<Status, LabError> {
        self.supervisor.wait_until("the replacement", |status| {
            status.replacements.count == wanted && status.worker.state == "granted"
        })
    }

    /// Asks for a replacement that is going to fail; why it did.
    fn fail(&mut self) -> Result<String, LabError> {
        let before = self.log().matches(STAYS).count();
        self.supervisor.signal(Signal::SIGUSR2)?;
        eventually("the attempt", || {
            holds(self.log().matches(STAYS).count() > before, || self.log())
        })?;
        Ok(self.supervisor.status()?.replacements.last_failure)
    }

    fn descriptors(&self) -> Result<usize, LabError> {
        process::descriptors(self.supervisor.pid())
    }

    /// The first count may include a connection that was only just being closed.
    fn assert_no_more_descriptors_than(&self, before: usize) -> TestResult {
        Ok(eventually("no more descriptors than before", || {
            let now = self.descriptors().map_err(|error| error.to_string())?;
            holds(now <= before, || format!("{now} instead of {before}"))
        })?)
    }
}

/// What the log says of a replacement that did not happen.
const STAYS: &str = "does not replace this binary, which goes on";

fn binary(lab: &Lab) -> PathBuf {
    lab.directory().join("holdfast")
}

/// Puts another binary in place of the supervisor's, as a package manager does.
fn install(lab: &Lab, content: &[u8]) {
    let fresh = lab.directory().join("holdfast.fresh");
    fs::write(&fresh, content).expect("there is room");
    binaries::replace(&binary(lab), &fresh).expect("it is ours");
}

fn good() -> Vec<u8> {
    fs::read(env!("CARGO_BIN_EXE_holdfast")).expect("it was built")
}

#[test]
fn fifty_replacements_keep_process_worker_objects_and_descriptors() {
    isolated(|lab| -> TestResult {
        const REPLACEMENTS: u64 = 50;
        let mut scene = Scene::start(lab)?;
        let first = scene.replace()?;
        let (ids, descriptors) = (scene.pinned()?, scene.descriptors()?);
        for _ in 1..REPLACEMENTS {
            install(lab, &good());
            let status = scene.replace()?;
            assert_eq!(status.worker.pid, first.worker.pid, "{}", scene.log());
            assert_eq!(status.links, first.links);
        }
        let last = scene.supervisor.status()?;
        assert_eq!(last.supervisor.pid, scene.supervisor.pid());
        assert_eq!((last.epoch, last.takeovers.count), (1, 1), "no takeover happened");
        assert_eq!(last.replacements.last_failure, "");
        assert_eq!(last.config, first.config);
        assert!(last.worker.uptime_s >= first.worker.uptime_s);
        assert!(last.supervisor.uptime_s >= first.supervisor.uptime_s);
        assert_eq!(scene.pinned()?, ids);
        assert_eq!(process::threads(scene.supervisor.pid())?, 1);
        assert_eq!(process::children(scene.supervisor.pid())?, [last.worker.pid]);
        scene.assert_no_more_descriptors_than(descriptors)?;
        let arguments = process::arguments(scene.supervisor.pid())?;
        let added = arguments.iter().filter(|argument| argument.starts_with("--resume-from"));
        assert_eq!(added.count(), 1, "{arguments:?}");
        scene.assert_governed();

        // What it inherited is worth as much as what it made.
        assert!(scene.supervisor.kill_worker(last.worker.pid));
        let status = scene.supervisor.wait_for_grant_after(last.epoch)?;
        assert_eq!(status.epoch, 2);
        let Response::Reloaded { epoch: 3, .. } =
            control::ask(&control::socket_path(lab), &Request::Reload)?
        else {
            panic!("not reloaded")
        };
        scene.assert_governed();
        assert!(scene.supervisor.end(Signal::SIGTERM)?.success());
        Ok(())
    });
}

#[test]
fn the_inherited_worker_is_still_watched() {
    isolated(|lab| -> TestResult {
        let mut scene = Scene::start(lab)?;
        let worker = scene.replace()?.worker.pid;
        process::Process::open(worker)?.signal(Signal::SIGSTOP)?;
        let status = scene.supervisor.wait_for_grant_after(1)?;
        assert_ne!(status.worker.pid, worker);
        assert_eq!(status.takeovers.last.map(|last| last.reason), Some("hang".to_owned()));
        Ok(())
    });
}

#[test]
fn signals_right_behind_are_not_lost() {
    isolated(|lab| -> TestResult {
        let mut scene = Scene::start(lab)?;
        for round in 1..=10 {
            scene.supervisor.signal(Signal::SIGUSR2)?;
            // Somewhere between the request and the new binary's first instruction.
            let until = Instant::now() + Duration::from_millis(3) * u32::try_from(round)?;
            while Instant::now() < until {
                std::hint::spin_loop();
            }
            scene.supervisor.signal(Signal::SIGHUP)?;
            scene.supervisor.wait_until("both", |status| {
                status.replacements.count == round && status.epoch == 1 + round
            })?;
        }
        // The other way round, a takeover is under way and is waited for.
        scene.supervisor.signal(Signal::SIGHUP)?;
        scene.supervisor.signal(Signal::SIGUSR2)?;
        scene
            .supervisor
            .wait_until("both", |status| status.replacements.count == 11 && status.epoch == 12)?;
        scene.assert_governed();
        scene.supervisor.signal(Signal::SIGUSR2)?;
        assert!(scene.supervisor.end(Signal::SIGTERM)?.success());
        Ok(())
    });
}

#[test]
fn a_binary_that_cannot_take_over_leaves_the_old_one_alone() {
    isolated(|lab| -> TestResult {
        let mut scene = Scene::start(lab)?;
        let before = scene.supervisor.status()?;
        let descriptors = scene.descriptors()?;
        let refuses = "#!/bin/sh\necho 'it is a state of version 1, and I take 2'\nexit 1\n";
        // Passes the rehearsal and is gone when it comes to it.
        let vanishes =
            format!("#!/bin/sh\nrm \"$0\"; exec {} \"$@\"\n", env!("CARGO_BIN_EXE_holdfast"));
        let cases: [(&str, Vec<u8>, &str); 6] = [
            ("false", fs::read("/bin/false")?, "exit status 1"),
            ("true", fs::read("/bin/true")?, "did not say that it can take over"),
            ("another version", refuses.into(), "a state of version 1, and I take 2"),
            ("no program", b"\x7fELF and no more".into(), "exit status 127"),
            ("never ends", b"#!/bin/sh\nexec sleep 1000\n".into(), "killed by SIGKILL"),
            ("vanishes", vanishes.into(), "No such file"),
        ];
        for (name, content, reason) in cases {
            install(lab, &content);
            let said = scene.fail()?;
            assert!(said.contains(reason), "{name}: {said}");
            let status = scene.supervisor.status()?;
            assert_eq!(status.worker.pid, before.worker.pid, "{name}");
            assert_eq!((status.epoch, status.replacements.count), (1, 0), "{name}");
        }
        install(lab, &good());
        fs::set_permissions(binary(lab), fs::Permissions::from_mode(0o644))?;
        assert!(scene.fail()?.contains("Permission denied"));
        fs::remove_file(binary(lab))?;
        assert!(scene.fail()?.contains("No such file"));
        scene.assert_no_more_descriptors_than(descriptors)?;
        scene.assert_governed();

        // No child of it knows any of its descriptors, also not after a failed exec.
        assert!(scene.supervisor.kill_worker(before.worker.pid));
        let worker = scene.supervisor.wait_for_grant_after(1)?.worker.pid;
        let held = fs::read_dir(format!("/proc/{worker}/fd"))?
            .flatten()
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .filter(|target| {
                target.to_string_lossy().contains("anon_inode:bpf") && !is_map(target)
            });
        let held: Vec<PathBuf> = held.collect();
        assert!(held.is_empty(), "{held:?}");

        install(lab, &good());
        let status = scene.replace()?;
        assert_eq!((status.worker.pid, status.replacements.last_failure), (worker, String::new()));
        Ok(())
    });
}

fn is_map(target: &Path) -> bool {
    target.to_string_lossy().contains("bpf-map")
}

#[test]
fn nobody_who_connects_or_asks_notices() {
    isolated(|lab| -> TestResult {
        const REPLACEMENTS: u64 = 20;
        let mut scene = Scene::start(lab)?;
        let shape = Shape { clients: 4, rest: Duration::from_millis(1), seed: 3 };
        let load = Load::start(&[scene.target()], shape);
        let stop = AtomicBool::new(false);
        let socket = control::socket_path(lab);
        let asked = std::thread::scope(|scope| -> Result<_, LabError> {
            let asking = scope.spawn(|| {
                let mut asked = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    if let Err(error) = control::status(&socket) {
                        return Err(format!("request {asked}: {error}"));
                    }
                    asked += 1;
                }
                Ok(asked)
            });
            let replaced = (0..REPLACEMENTS).try_for_each(|_| scene.replace().map(drop));
            stop.store(true, Ordering::Relaxed);
            let asked = asking.join().expect("it does not panic");
            replaced.map(|()| asked)
        })?;
        let tally = load.finish();
        assert_eq!((tally.failed, tally.ungoverned), (0, 0), "{:?}", tally.first_trouble);
        assert!(tally.reached > 100, "{tally:?}");
        let asked = asked.unwrap_or_else(|error| panic!("{error}\n{}", scene.log()));
        println!("{} connections, {asked} requests, {REPLACEMENTS} replacements", tally.reached);
        Ok(())
    });
}

#[test]
fn a_worker_that_dies_around_the_exec_is_replaced() {
    isolated(|lab| -> TestResult {
        let mut scene = Scene::start(lab)?;
        for round in 0..25_u32 {
            let before = scene.supervisor.status()?;
            scene.supervisor.signal(Signal::SIGUSR2)?;
            let until = Instant::now() + Duration::from_micros(1500) * round;
            while Instant::now() < until {
                std::hint::spin_loop();
            }
            assert!(scene.supervisor.kill_worker(before.worker.pid), "{}", scene.log());
            let wanted = before.replacements.count + 1;
            let status = scene.supervisor.wait_until("another worker", |status| {
                status.replacements.count == wanted
                    && status.epoch == before.epoch + 1
                    && status.worker.state == "granted"
            })?;
            assert_ne!(status.worker.pid, before.worker.pid);
        }
        scene.assert_governed();
        Ok(())
    });
}
