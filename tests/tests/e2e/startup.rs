//! What is refused before anything is touched: one message that names what is missing and the
//! command that mends it.

use std::fs;

use holdfast_lab::inside::{Ended, INSTANCE};
use holdfast_lab::wait::holds;
use holdfast_lab::{Census, Lab, TestResult, binaries, eventually, isolated, process, render};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal;

use crate::scene::{FILE, Scene, web};

/// It could not be done.
const FAILED: i32 = 1;
/// `EX_TEMPFAIL`: somebody else holds it.
const HELD: i32 = 75;
/// `EX_NOPERM`.
const NO_PERMISSION: i32 = 77;
/// `EX_CONFIG`.
const NOT_CONFIGURED: i32 = 78;

#[track_caller]
fn assert_refused(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.code, Some(code), "{ended:?}");
    for word in words {
        assert!(ended.stderr.contains(word), "no `{word}` in: {}", ended.stderr);
    }
}

/// Runs `body`, which must be refused, and checks that nothing was touched.
fn touching_nothing(lab: &Lab, body: impl FnOnce(&std::path::Path) -> TestResult) -> TestResult {
    let file = lab.write(FILE, "services: []\n")?;
    let before = Census::take(lab, &Census::default())?;
    body(&file)?;
    assert_eq!(Census::take(lab, &before)?.objects, before.objects);
    Ok(())
}

#[test]
fn a_second_supervisor_is_refused_and_told_who_holds_the_instance() {
    isolated(|lab| {
        let scene = Scene::start(lab)?;
        let holder = scene.supervisor.pid().to_string();
        let second = lab.supervisor(&scene.file).run()?;
        assert_refused(&second, HELD, &[&holder]);
        let status = scene.supervisor.status()?;
        assert_eq!((status.epoch, status.takeovers.count), (1, 1), "the first one has not noticed");
        scene.assert_governed();
        Ok(())
    });
}

#[test]
fn a_directory_that_is_no_cgroup() {
    isolated(|lab| {
        touching_nothing(lab, |file| {
            let ended = lab.supervisor(file).with("--cgroup", lab.directory()).run()?;
            assert_refused(&ended, NOT_CONFIGURED, &["cgroup2", "findmnt"]);
            Ok(())
        })
    });
}

#[test]
fn no_cgroup2_at_all() {
    isolated(|lab| {
        touching_nothing(lab, |file| {
            let mut command = lab.beside("unshare")?;
            let script = "umount --all --types cgroup2 && exec \"$@\"";
            command.args(["--mount", "sh", "-c", script, "sh"]);
            command.arg(binaries::find(binaries::SUPERVISOR)?).arg("run").arg("--config").arg(file);
            command.arg("--bpffs").arg(lab.bpffs()).arg("--run-dir").arg(lab.run_directory());
            command.arg("--state-dir").arg(lab.state_directory());
            let ended = Ended::run(&mut command)?;
            assert_refused(&ended, NOT_CONFIGURED, &["cgroup2", "mount -t cgroup2"]);
            Ok(())
        })
    });
}

#[test]
fn no_bpffs() {
    isolated(|lab| {
        touching_nothing(lab, |file| {
            let ended = lab.supervisor(file).with("--bpffs", lab.directory()).run()?;
            assert_refused(&ended, NOT_CONFIGURED, &["bpffs", "mount -t bpf"]);
            Ok(())
        })
    });
}

#[test]
fn no_privilege() {
    isolated(|lab| {
        touching_nothing(lab, |_| {
            // The build's own directory may be closed to other users.
            let own = lab.directory().join("holdfast");
            binaries::replace(&own, &binaries::find(binaries::SUPERVISOR)?)?;
            let mut command = lab.beside("setpriv")?;
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(own);
            command.args(["run", "--config"]).arg(lab.directory().join(FILE));
            command.args(lab.instance_arguments());
            assert_refused(&Ended::run(&mut command)?, NO_PERMISSION, &["root", "sudo"]);
            Ok(())
        })
    });
}

#[test]
fn a_missing_capability() {
    isolated(|lab| {
        touching_nothing(lab, |file| {
            // What is not in the bounding set is not in any set after the next exec.
            for name in ["sys_admin", "net_admin", "setuid", "setgid", "setpcap", "kill"] {
                let bounding = format!("--bounding-set=-{name}");
                let ended = lab.supervisor(file).under(&["setpriv", &bounding, "--"]).run()?;
                let name = format!("CAP_{}", name.to_uppercase());
                assert_refused(&ended, NO_PERMISSION, &[&name]);
            }
            Ok(())
        })
    });
}

#[test]
fn no_worker_binary() {
    isolated(|lab| {
        touching_nothing(lab, |file| {
            let ended = lab.supervisor(file).with("--worker", "/nowhere/holdfast-worker").run()?;
            assert_refused(&ended, NOT_CONFIGURED, &["/nowhere/holdfast-worker", "--worker"]);
            Ok(())
        })
    });
}

#[test]
fn a_worker_binary_that_is_none() {
    isolated(|lab| {
        touching_nothing(lab, |file| {
            // Executable, so that only running it shows what it is.
            let ended = lab.supervisor(file).with("--worker", "/bin/false").run()?;
            let words = ["/bin/false", "exit status 1", "--worker", "nothing is governed"];
            assert_refused(&ended, FAILED, &words);
            Ok(())
        })
    });
}

#[test]
fn a_worker_user_that_is_root() {
    isolated(|lab| {
        touching_nothing(lab, |file| {
            for root in ["root", "0"] {
                let ended = lab.supervisor(file).with("--worker-user", root).run()?;
                assert_refused(&ended, NOT_CONFIGURED, &["root"]);
            }
            Ok(())
        })
    });
}

#[test]
fn a_worker_user_that_does_not_exist() {
    isolated(|lab| {
        touching_nothing(lab, |file| {
            let ended = lab.supervisor(file).with("--worker-user", "nosuchuser").run()?;
            assert_refused(&ended, NOT_CONFIGURED, &["nosuchuser"]);
            Ok(())
        })
    });
}

#[test]
fn what_was_refused_starts_once_it_is_mended() {
    isolated(|lab| {
        let red = holdfast_lab::Backend::tcp("red")?;
        let file = lab.write(FILE, render(&[web(&red)]))?;
        let refused = lab.supervisor(&file).with("--bpffs", lab.directory()).run()?;
        assert_refused(&refused, NOT_CONFIGURED, &[]);
        let _supervisor = lab.supervisor(&file).start()?;
        crate::scene::assert_reached(&holdfast_lab::Target::tcp(crate::scene::WEB, &["red"]));
        Ok(())
    });
}

/// Whoever writes the configuration asks for a reload and does not know that a supervisor is just
/// starting. Found by an endurance run: a storm of SIGHUP met one that waited for its lock, and ended it.
#[test]
fn a_reload_that_is_asked_for_too_early_ends_nobody() {
    isolated(|lab| {
        let scene = Scene::start(lab)?;
        let (file, path) = (scene.file.clone(), lab.run_directory().join(INSTANCE).join("lock"));
        assert!(scene.supervisor.end(Signal::SIGTERM)?.success());
        // As a worker of a killed supervisor holds it for a moment.
        let held = Flock::lock(fs::File::open(&path)?, FlockArg::LockExclusive);
        let held = held.map_err(|(_, errno)| errno)?;
        let mut next = lab.supervisor(&file).spawn()?;
        eventually("SIGHUP to be heard", || {
            let blocked =
                process::status(next.pid(), "SigBlk").map_err(|error| error.to_string())?;
            let mask = u64::from_str_radix(&blocked, 16).map_err(|error| error.to_string())?;
            holds(mask & (1 << (Signal::SIGHUP as i32 - 1)) != 0, || blocked)
        })?;
        next.signal(Signal::SIGHUP)?;
        drop(held);
        next.wait_for_grant()?;
        Ok(())
    });
}
