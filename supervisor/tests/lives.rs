//! The supervisor's binary with children that do as they are told, or the worst they can. The
//! kernel objects are real and small; `examples/scripted_worker.rs` is the child.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use holdfast_lab::wait::holds;
use holdfast_lab::{Lab, LabError, TestResult, binaries, control, eventually, isolated, process};
use holdfast_protocol::control::{Request, Response, Status};
use holdfast_protocol::handover::ConfigState;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn scripted_worker() -> PathBuf {
    binaries::example("scripted_worker").expect("built with this test")
}

/// A running supervisor, ended when dropped.
struct Holdfast<'a> {
    lab: &'a Lab,
    child: Child,
}

fn script(lab: &Lab, words: &str) -> PathBuf {
    lab.write("script", words).expect("written")
}

fn arguments(lab: &Lab, verb: &str) -> Vec<std::ffi::OsString> {
    let mut arguments = vec![verb.into()];
    arguments.extend(lab.instance_arguments());
    arguments.extend(["--worker".into(), scripted_worker().into()]);
    arguments
}

fn command(lab: &Lab) -> Command {
    let config = lab.directory().join("script");
    let mut command = lab.beside(env!("CARGO_BIN_EXE_holdfast")).expect("has a cgroup");
    command.args(arguments(lab, "run")).arg("--config").arg(config);
    command
}

/// As a container sees it that has the same bpffs and nothing else in common.
fn elsewhere(lab: &Lab) -> Result<Command, LabError> {
    let mut command = lab.beside(env!("CARGO_BIN_EXE_holdfast"))?;
    let own = lab.directory().join("elsewhere");
    command.args(["run", "--instance", "lab"]).arg("--config").arg(lab.directory().join("script"));
    command.arg("--worker").arg(scripted_worker()).arg("--run-dir").arg(own.join("run"));
    command.arg("--bpffs").arg(lab.bpffs()).arg("--cgroup").arg(lab.governed());
    command.arg("--state-dir").arg(own.join("state"));
    Ok(command)
}

fn log(lab: &Lab) -> String {
    fs::read_to_string(lab.directory().join("holdfast.log")).unwrap_or_default()
}

impl<'a> Holdfast<'a> {
    fn spawn(lab: &'a Lab) -> Self {
        let path = lab.directory().join("holdfast.log");
        let file = fs::OpenOptions::new().create(true).append(true).open(path).expect("opens");
        let child = command(lab).stderr(file).stdin(Stdio::null()).spawn().expect("starts");
        Self { lab, child }
    }

    fn start(lab: &'a Lab, words: &str) -> Self {
        script(lab, words);
        let mut holdfast = Self::spawn(lab);
        holdfast.until("a granted worker", |status| status.worker.state == "granted");
        holdfast
    }

    fn status(&self) -> Result<Status, String> {
        control::status(&control::socket_path(self.lab)).map_err(|error| error.to_string())
    }

    fn until(&mut self, what: &str, wanted: impl Fn(&Status) -> bool) -> Status {
        eventually(what, || {
            if let Ok(Some(end)) = self.child.try_wait() {
                panic!("holdfast ended ({end}) before {what}:\n{}", log(self.lab));
            }
            let status = self.status()?;
            if wanted(&status) { Ok(status) } else { Err(format!("{status:?}")) }
        })
        .unwrap_or_else(|error| panic!("{error}\n{}", log(self.lab)))
    }

    fn ask(&self, request: &Request) -> Response {
        control::ask(&control::socket_path(self.lab), request).expect("answers")
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).expect("it runs");
    }

    fn end(mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        self.ended()
    }

    fn ended(&mut self) -> ExitStatus {
        eventually("the end", || {
            self.child.try_wait().map(|end| end.ok_or("it runs")).expect("ours")
        })
        .expect("ends")
    }
}

impl Drop for Holdfast<'_> {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _gone = self.child.kill();
            let _reaped = self.child.wait();
        }
    }
}

/// Kills worker `pid` of `holdfast`, which runs.
fn strike(pid: u32) {
    process::Process::open(pid).and_then(|worker| worker.signal(Signal::SIGKILL)).expect("it runs");
}

#[test]
fn a_granted_worker_and_a_whole_estate_are_reported() {
    isolated(|lab| -> TestResult {
        let mut holdfast = Holdfast::start(lab, "");
        let status = holdfast.until("a first takeover", |status| status.takeovers.count == 1);
        assert_eq!((status.epoch, status.worker.epoch), (1, 1));
        assert_eq!(status.config.state, ConfigState::InForce);
        assert_eq!((status.services, status.endpoints), (3, 4));
        let [link] = &status.links[..] else { panic!("{:?}", status.links) };
        assert!(link.ok && link.pinned, "{link:?}");
        assert_eq!(link.attach_type, "cgroup_inet4_connect");
        assert_eq!(link.cgroup, lab.governed().display().to_string());
        let last = status.takeovers.last.expect("one takeover");
        assert_eq!(last.reason, "start");
        assert!(last.total_us >= last.spawn_us + last.handover_us + last.ready_us, "{last:?}");
        assert_eq!(process::threads(holdfast.child.id())?, 1);
        // The child has standard input, output and error, the socket, the supervisor's two locks, and
        // an instance of inotify.
        assert_eq!(process::descriptors(status.worker.pid)?, 7);

        fs::remove_file(lab.bpffs().join("holdfast/lab/links/hf_connect4"))?;
        let mended = holdfast.until("the pin again", |status| status.drift.repairs == 1);
        assert!(mended.links[0].pinned && mended.links[0].link_id == link.link_id, "{mended:?}");
        Ok(())
    });
}

#[test]
fn every_killed_worker_is_replaced_and_nothing_accumulates() {
    isolated(|lab| -> TestResult {
        const KILLS: u64 = 60;
        let mut holdfast = Holdfast::start(lab, "");
        let before = process::descriptors(holdfast.child.id())?;
        for kill in 1..=KILLS {
            let pid = holdfast.status()?.worker.pid;
            strike(pid);
            let status = holdfast.until("a replacement", |status| {
                status.worker.state == "granted" && status.worker.pid != pid
            });
            assert_eq!(status.epoch, 1 + kill);
            assert_eq!(status.takeovers.failed, 0, "{}", status.takeovers.last_failure);
        }
        let last = holdfast.status()?.takeovers.last.expect("many takeovers");
        assert_eq!(last.reason, "crash");
        // A dead worker's instance of inotify waits for the next one. The first count may include a
        // connection that was only just being closed.
        eventually("no more descriptors than before", || {
            let now =
                process::descriptors(holdfast.child.id()).map_err(|error| error.to_string())?;
            holds(now <= before + 1, || format!("{now} instead of {before} and one"))
        })?;
        assert_eq!(process::children(holdfast.child.id())?.len(), 1);
        Ok(())
    });
}

#[test]
fn a_reload_replaces_the_worker_and_says_so() {
    isolated(|lab| -> TestResult {
        let mut holdfast = Holdfast::start(lab, "");
        let old = holdfast.status()?.worker.pid;
        let Response::Reloaded { epoch, pid, total_us } = holdfast.ask(&Request::Reload) else {
            panic!("not reloaded")
        };
        assert!(epoch == 2 && pid != old && total_us > 0);
        eventually("the old worker to leave", || {
            let children = process::children(holdfast.child.id()).map_err(|e| e.to_string())?;
            holds(children == [pid], || format!("{children:?}"))
        })?;
        holdfast.signal(Signal::SIGHUP);
        let status = holdfast.until("another worker", |status| status.takeovers.count == 3);
        assert_eq!(status.takeovers.last.map(|last| last.reason), Some("reload".to_owned()));
        Ok(())
    });
}

#[test]
fn a_new_worker_that_fails_before_its_grant_leaves_the_old_one_alone() {
    isolated(|lab| -> TestResult {
        let mut holdfast = Holdfast::start(lab, "");
        let old = holdfast.status()?.worker.pid;
        let cases = [
            ("refuse", "line 3, column 7: no"),
            ("exit", "exit status 7"),
            ("at Welcome do Channel", "channel 1"),
            ("at Welcome do Stops", "answer the greeting"),
        ];
        for (count, (words, reason)) in (1..).zip(cases) {
            script(lab, words);
            let Response::Failed { reason: said } = holdfast.ask(&Request::Reload) else {
                panic!("{words}: reloaded")
            };
            assert!(said.contains(reason) && said.contains("serves on"), "{words}: {said}");
            let status =
                holdfast.until("the old worker", |status| status.worker.state == "granted");
            assert_eq!((status.worker.pid, status.epoch), (old, 1), "{words}");
            assert_eq!(status.takeovers.failed, count, "{words}");
            assert!(status.takeovers.last_failure.contains(reason), "{words}");
        }
        Ok(())
    });
}

#[test]
fn a_new_worker_that_fails_its_grant_gives_it_back_to_the_old_one() {
    isolated(|lab| -> TestResult {
        let holdfast = Holdfast::start(lab, "");
        let old = holdfast.status()?.worker.pid;
        script(lab, "at Granted do DiesBefore");
        let Response::Failed { reason } = holdfast.ask(&Request::Reload) else {
            panic!("reloaded")
        };
        assert!(reason.contains("exit status 7"), "{reason}");
        let status = holdfast.status()?;
        assert_eq!((status.worker.pid, status.worker.state.as_str()), (old, "granted"));
        assert_eq!(status.epoch, 3, "the failed grant used one, the old worker has the next");
        Ok(())
    });
}

#[test]
fn an_old_worker_that_does_not_let_go_or_leave_is_killed() {
    isolated(|lab| -> TestResult {
        for words in ["at Released do Stops", "at Leave do Stops"] {
            let holdfast = Holdfast::start(lab, words);
            let old = holdfast.status()?.worker.pid;
            script(lab, "");
            let Response::Reloaded { pid, .. } = holdfast.ask(&Request::Reload) else {
                panic!("{words}: not reloaded")
            };
            eventually("the old worker to be gone", || {
                let children = process::children(holdfast.child.id()).map_err(|e| e.to_string())?;
                holds(children == [pid], || format!("{children:?}"))
            })?;
            assert!(!process::is_alive(old), "{words}");
            assert!(holdfast.end(Signal::SIGTERM).success());
        }
        Ok(())
    });
}

#[test]
fn a_worker_that_makes_no_progress_or_floods_is_dealt_with() {
    isolated(|lab| -> TestResult {
        let mut holdfast = Holdfast::start(lab, "stuck");
        script(lab, "flood");
        // The epoch is counted when the grant is sent, the takeover when it is confirmed.
        let status = holdfast.until("a replacement", |status| status.takeovers.count == 2);
        assert_eq!(status.takeovers.last.map(|last| last.reason), Some("hang".to_owned()));
        assert!(log(lab).contains("it did not make progress within 3s"), "{}", log(lab));
        // A worker that never stops talking does not keep the supervisor from listening to others.
        script(lab, "");
        assert!(matches!(holdfast.ask(&Request::Reload), Response::Reloaded { .. }));
        Ok(())
    });
}

#[test]
fn questions_are_passed_to_the_worker_unread() {
    isolated(|lab| -> TestResult {
        let holdfast = Holdfast::start(lab, "");
        let body = vec![1, 2, 3];
        assert_eq!(holdfast.ask(&Request::Worker(body.clone())), Response::Worker(body));
        let too_long = Request::Worker(vec![0; 50 * 1024]);
        assert!(matches!(holdfast.ask(&too_long), Response::Failed { .. }));
        script(lab, "exit");
        strike(holdfast.status()?.worker.pid);
        eventually("no worker to ask", || match holdfast.ask(&Request::Worker(vec![1])) {
            Response::Failed { .. } => Ok(()),
            other => Err(format!("{other:?}")),
        })?;
        Ok(())
    });
}

#[test]
fn workers_that_cannot_start_are_retried_slowly_and_a_reload_retries_at_once() {
    isolated(|lab| -> TestResult {
        let mut holdfast = Holdfast::start(lab, "");
        script(lab, "exit");
        strike(holdfast.status()?.worker.pid);
        let status = holdfast.until("a pause", |status| status.worker.state == "backing-off");
        assert!(status.worker.reason.contains("exit status 7"), "{}", status.worker.reason);
        assert!(status.links.iter().all(|link| link.ok && link.pinned));
        holdfast.until("several attempts", |status| status.takeovers.failed >= 6);
        script(lab, "");
        assert!(matches!(holdfast.ask(&Request::Reload), Response::Reloaded { .. }));
        assert_eq!(holdfast.status()?.worker.reason, "");
        Ok(())
    });
}

#[test]
fn a_stop_keeps_governance_and_the_next_supervisor_goes_on_from_there() {
    isolated(|lab| -> TestResult {
        for (life, signal) in (1..).zip([Signal::SIGTERM, Signal::SIGINT, Signal::SIGKILL]) {
            let mut holdfast = Holdfast::start(lab, "");
            let status = holdfast.until("the epoch", |status| status.epoch == life);
            let (link, worker) = (status.links[0].link_id, status.worker.pid);
            assert!(status.links[0].ok);
            let end = holdfast.end(signal);
            assert_eq!(end.success(), signal != Signal::SIGKILL);
            eventually("the worker to be gone", || {
                holds(!process::is_alive(worker), || "it lives".to_owned())
            })?;
            let pin = lab.bpffs().join("holdfast/lab/links/hf_connect4");
            let kept = holdfast_bpf::object::get(&pin)?;
            use std::os::fd::AsFd;
            assert_eq!(holdfast_bpf::object::link_info(kept.as_fd())?.id, link);
        }
        Ok(())
    });
}

#[test]
fn other_signals_change_nothing() {
    isolated(|lab| -> TestResult {
        let mut holdfast = Holdfast::start(lab, "");
        let before = holdfast.status()?.worker.pid;
        for signal in [
            Signal::SIGUSR1,
            Signal::SIGQUIT,
            Signal::SIGALRM,
            Signal::SIGPIPE,
            Signal::SIGWINCH,
            Signal::SIGPWR,
        ] {
            holdfast.signal(signal);
        }
        holdfast.signal(Signal::SIGHUP);
        let status = holdfast.until("the reload after them", |status| status.epoch == 2);
        assert_ne!(status.worker.pid, before);
        assert!(log(lab).contains("SIGUSR1"));
        Ok(())
    });
}

#[test]
fn a_second_supervisor_is_refused_and_told_who_holds_the_instance() {
    isolated(|lab| -> TestResult {
        let holdfast = Holdfast::start(lab, "");
        let second = command(lab).output()?;
        let said = String::from_utf8_lossy(&second.stderr).into_owned();
        assert_eq!(second.status.code(), Some(75), "{said}");
        assert!(said.contains(&format!("process {}", holdfast.child.id())), "{said}");
        let third = command(lab).arg("--run-dir").arg(lab.directory()).output()?;
        assert_eq!(third.status.code(), Some(2), "an option given twice");
        let other = elsewhere(lab)?.output()?;
        let said = String::from_utf8_lossy(&other.stderr).into_owned();
        assert_eq!(other.status.code(), Some(75), "another run directory, the same pins: {said}");
        assert!(said.contains("--run-dir") && said.contains("container"), "{said}");
        Ok(())
    });
}

#[test]
fn no_supervisor_starts_while_a_worker_of_the_former_one_lives() {
    isolated(|lab| -> TestResult {
        let mut holdfast = Holdfast::start(lab, "linger");
        let orphan = process::Process::open(holdfast.status()?.worker.pid)?;
        let former = holdfast.child.id();
        holdfast.signal(Signal::SIGKILL);
        holdfast.ended();

        // A stopped process may go on writing at any time.
        orphan.signal(Signal::SIGSTOP)?;
        let refused = command(lab).output()?;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(75), "{said}");
        assert!(said.contains(&format!("process {former}")), "{said}");
        // Nor does one that sees only the pins.
        let refused = elsewhere(lab)?.output()?;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(75), "{said}");

        script(lab, "");
        let mut next = Holdfast::spawn(lab);
        orphan.signal(Signal::SIGKILL)?;
        next.until("a granted worker", |status| status.worker.state == "granted");
        assert_eq!(next.end(Signal::SIGTERM).code(), Some(0));
        Ok(())
    });
}

#[test]
fn only_root_is_answered() {
    isolated(|lab| -> TestResult {
        let holdfast = Holdfast::start(lab, "");
        let socket = control::socket_path(lab);
        let mode = |path: &std::path::Path| fs::metadata(path).map(|found| found.permissions());
        assert_eq!(mode(&socket)?.mode() & 0o777, 0o600);
        let directory = socket.parent().expect("has one");
        assert_eq!(mode(directory)?.mode() & 0o777, 0o700);
        // As if somebody had opened it to all by mistake.
        for path in socket.ancestors().take_while(|path| path.starts_with(lab.directory())) {
            fs::set_permissions(path, fs::Permissions::from_mode(0o777))?;
        }
        nix::unistd::seteuid(nix::unistd::Uid::from_raw(65_534))?;
        let answer = control::ask(&socket, &Request::Status);
        nix::unistd::seteuid(nix::unistd::Uid::from_raw(0))?;
        assert!(matches!(answer, Ok(Response::Denied { .. })), "{answer:?}");
        assert!(holdfast.status().is_ok());
        Ok(())
    });
}

fn uninstall(lab: &Lab) -> Result<String, Box<dyn std::error::Error>> {
    let mut command = lab.beside(env!("CARGO_BIN_EXE_holdfast"))?;
    let output = command.args(arguments(lab, "uninstall")).output()?;
    let said = String::from_utf8(output.stdout)?;
    let complained = String::from_utf8(output.stderr)?;
    assert!(output.status.success(), "{said}{complained}{}", log(lab));
    Ok(said)
}

fn nothing_is_left(lab: &Lab) -> TestResult {
    for directory in [lab.bpffs(), lab.state_directory(), lab.run_directory()] {
        let mut left: Vec<_> = fs::read_dir(&directory)
            .into_iter()
            .flatten()
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<Result<_, _>>()?;
        // The kernel's own, in every bpffs.
        left.retain(|name| name != "maps.debug" && name != "progs.debug");
        assert!(left.is_empty(), "{}: {left:?}", directory.display());
    }
    Ok(())
}

#[test]
fn an_uninstall_removes_everything_with_and_without_a_supervisor() {
    isolated(|lab| -> TestResult {
        let mut holdfast = Holdfast::start(lab, "");
        let said = uninstall(lab)?;
        assert!(said.contains("removed link hf_connect4"), "{said}");
        assert!(said.contains(&lab.state_directory().join("lab").display().to_string()), "{said}");
        assert!(holdfast.ended().success(), "{}", log(lab));
        nothing_is_left(lab)?;

        let holdfast = Holdfast::start(lab, "");
        assert_eq!(holdfast.status()?.epoch, 1, "a fresh start");
        holdfast.end(Signal::SIGTERM);
        assert!(uninstall(lab)?.contains("removed map HEADS"));
        nothing_is_left(lab)?;
        assert!(uninstall(lab)?.contains("nothing to remove"));
        nothing_is_left(lab)
    });
}

#[test]
fn an_interrupted_uninstall_is_finished_before_a_fresh_start() {
    isolated(|lab| -> TestResult {
        let holdfast = Holdfast::start(lab, "");
        let before = holdfast.status()?.links[0].link_id;
        holdfast.end(Signal::SIGKILL);
        let intent = lab.state_directory().join("lab/uninstall");
        fs::File::create(&intent)?.write_all(b"remove everything")?;
        let holdfast = Holdfast::start(lab, "");
        assert_ne!(holdfast.status()?.links[0].link_id, before, "the old estate was removed");
        assert!(!intent.exists());
        Ok(())
    });
}

#[test]
fn a_damaged_epoch_does_not_keep_it_from_governing() {
    isolated(|lab| -> TestResult {
        let directory = lab.state_directory().join("lab");
        fs::create_dir_all(&directory)?;
        fs::write(directory.join("epoch"), "")?;
        let holdfast = Holdfast::start(lab, "");
        assert_eq!(holdfast.status()?.epoch, 1);
        assert!(log(lab).contains("counting epochs from 1 again"), "{}", log(lab));
        Ok(())
    });
}

#[test]
fn what_is_missing_is_named_with_its_exit_status() {
    isolated(|lab| -> TestResult {
        script(lab, "");
        let config = lab.directory().join("script");
        let run = |changes: &[(&str, &str)], user: Option<&str>| {
            let mut options: std::collections::BTreeMap<String, String> = [
                ("--config", config.display().to_string()),
                ("--instance", "lab".to_owned()),
                ("--cgroup", lab.governed().display().to_string()),
                ("--bpffs", lab.bpffs().display().to_string()),
                ("--state-dir", lab.state_directory().display().to_string()),
                ("--run-dir", lab.run_directory().display().to_string()),
                ("--worker", scripted_worker().display().to_string()),
            ]
            .map(|(name, value)| (name.to_owned(), value))
            .into();
            for (name, value) in changes {
                options.insert((*name).to_owned(), (*value).to_owned());
            }
            let program = env!("CARGO_BIN_EXE_holdfast");
            let mut command = match user {
                Some(flag) => {
                    let mut command = lab.beside("setpriv").expect("has a cgroup");
                    command.args([flag, program]);
                    command
                }
                None => lab.beside(program).expect("has a cgroup"),
            };
            command.arg("run").args(options.into_iter().flat_map(|(name, value)| [name, value]));
            let output = command.output().expect("runs");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(said.contains("to mend it: "), "{changes:?}: {said}");
            (output.status.code().expect("exits"), said)
        };
        let setups: [(&str, &str, &str); 6] = [
            ("--bpffs", "/proc", "mount -t bpf bpf /proc"),
            ("--cgroup", "/proc", "cgroup2"),
            ("--cgroup", "/nonexistent", "mkdir"),
            ("--worker", "/nonexistent/worker", "/nonexistent/worker"),
            ("--worker-user", "no-such-user", "useradd"),
            ("--worker-user", "root", "--allow-root-worker"),
        ];
        for (option, value, expected) in setups {
            let (code, said) = run(&[(option, value)], None);
            assert_eq!(code, 78, "{option} {value}: {said}");
            assert!(said.contains(expected), "{option} {value}: {said}");
        }
        let (code, said) = run(&[], Some("--reuid=65534"));
        assert!(code == 77 && said.contains("root"), "{code} {said}");
        let (code, said) = run(&[], Some("--bounding-set=-kill"));
        assert!(code == 77 && said.contains("CAP_KILL"), "{code} {said}");
        nothing_is_left(lab)
    });
}

#[test]
fn as_the_first_process_it_reaps_the_children_of_others() {
    isolated(|lab| -> TestResult {
        script(lab, "");
        // An orphan that ends while the supervisor runs.
        let first = "sh -c 'sleep 1 & :'; exec \"$0\" \"$@\"";
        let mut command = lab.beside("unshare")?;
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", first]);
        command.arg(env!("CARGO_BIN_EXE_holdfast")).args(arguments(lab, "run"));
        command.arg("--config").arg(lab.directory().join("script"));
        let child = command.stdin(Stdio::null()).spawn()?;
        let mut holdfast = Holdfast { lab, child };
        holdfast.until("a granted worker", |status| status.worker.state == "granted");
        let first = process::children(holdfast.child.id())?;
        let [first] = first[..] else { panic!("{first:?}") };
        eventually("the orphan to be gone", || {
            let children = process::children(first).map_err(|error| error.to_string())?;
            holds(children.len() == 1, || format!("{children:?}"))
        })?;
        assert_eq!(holdfast.status()?.supervisor.pid, 1);
        holdfast.signal(Signal::SIGKILL);
        Ok(())
    });
}
