//! An uninstall that is killed half-way is finished by whoever comes next, and nothing else is an
//! uninstall.

use std::fs;
use std::path::PathBuf;
use std::sync::mpsc;

use holdfast_lab::control::{ask, socket_path};
use holdfast_lab::process::{self, Process};
use holdfast_lab::wait::holds;
use holdfast_lab::{
    Attempt, Backend, Census, Lab, Supervisor, TestResult, attempt, binaries, eventually, isolated,
    render,
};
use holdfast_protocol::control::{Request, Response};
use holdfast_protocol::manifest::Kind;
use holdfast_tests::hooks::HOOKS;
use holdfast_tests::life::wait_until_nobody_is_left;
use nix::sys::signal::Signal;

use crate::scene::{FILE, Scene, put_in_force, wait_until_ungoverned, web};
use crate::steps::{End, kill_before};

/// Far more steps than an uninstall has.
const MOST_STEPS: usize = 200;

/// Far fewer: ten links are detached, and links, programs and maps unpinned.
const FEWEST_STEPS: usize = 20;

fn intent(lab: &Lab) -> PathBuf {
    lab.state_directory().join(holdfast_lab::inside::INSTANCE).join("uninstall")
}

/// Kills `holdfast uninstall`, which runs alone, before its nth step.
fn kill_command(
    lab: &Lab,
    supervisor: Supervisor,
    nth: usize,
) -> Result<End, Box<dyn std::error::Error>> {
    supervisor.end(Signal::SIGTERM)?;
    wait_until_nobody_is_left(lab)?;
    // Stopped until it is followed.
    let mut command = lab.beside("sh")?;
    command.args(["-c", "kill -STOP $$; exec \"$@\"", "sh"]);
    command.arg(binaries::find(binaries::SUPERVISOR)?).arg("uninstall");
    command.args(lab.instance_arguments()).stdout(std::process::Stdio::null());
    let mut child = command.spawn()?;
    let root = Process::open(child.id())?;
    eventually("the command to stop", || {
        let state = process::status(root.pid(), "State").map_err(|error| error.to_string())?;
        holds(state.starts_with('T'), || state.clone())
    })?;
    let end = follow(&root, nth, || Ok(root.signal(Signal::SIGCONT)?))?;
    let status = child.wait()?;
    assert_eq!(status.success(), end == End::Completed, "{status}");
    Ok(end)
}

/// Kills a supervisor that was told to uninstall before its nth step.
fn kill_supervisor(
    lab: &Lab,
    mut supervisor: Supervisor,
    nth: usize,
) -> Result<End, Box<dyn std::error::Error>> {
    let root = Process::open(supervisor.pid())?;
    let end = follow(&root, nth, || {
        // That one dies before it answers is the point.
        let _answered = ask(&socket_path(lab), &Request::Uninstall);
        Ok(())
    })?;
    assert_eq!(supervisor.ended()?.success(), end == End::Completed);
    Ok(end)
}

fn follow(
    root: &Process,
    nth: usize,
    meanwhile: impl FnOnce() -> TestResult,
) -> Result<End, Box<dyn std::error::Error>> {
    std::thread::scope(|scope| {
        let (follows, until_followed) = mpsc::channel();
        let following = scope.spawn(move || kill_before(root, nth, &follows));
        // An error is one of the thread, which says it itself.
        if until_followed.recv().is_ok() {
            meanwhile()?;
        }
        following.join().expect("no panic").map_err(|error| error.to_string().into())
    })
}

type Interrupt = fn(&Lab, Supervisor, usize) -> Result<End, Box<dyn std::error::Error>>;

/// Interrupts an uninstall at each step in turn. Every other one is finished by the next start, the
/// others by the next uninstall; `first` says which begins.
fn at_each_step(lab: &Lab, interrupt: Interrupt, first: usize) -> TestResult {
    let before = Census::take(lab, &Census::default())?;
    let mut finished_by_start = 0;
    for nth in 1..=MOST_STEPS {
        let scene = Scene::start(lab)?;
        let target = scene.target();
        let Scene { red, file, supervisor } = scene;
        let during = Census::take(lab, &before)?;
        let end = interrupt(lab, supervisor, nth)?;
        wait_until_nobody_is_left(lab)?;
        if end == End::Completed {
            before.wait_for_return(lab, &during)?;
            assert!(nth > FEWEST_STEPS, "only {nth} steps were seen");
            assert!(finished_by_start > FEWEST_STEPS / 4, "{finished_by_start} of {nth}");
            println!("{nth} points, {finished_by_start} unfinished ones found by a start");
            return Ok(());
        }
        let is_meant = intent(lab).exists();
        let governed = matches!(attempt(&target), Attempt::Reached(_));
        let has_pins = lab.bpffs().join("holdfast/lab").exists();
        assert!(is_meant || governed || !has_pins, "step {nth}: removed without an intent");
        if (nth + first).is_multiple_of(2) {
            let supervisor = lab.supervisor(&file).start()?;
            let log = fs::read_to_string(supervisor.log())?;
            assert_eq!(log.contains("an uninstall was interrupted"), is_meant, "step {nth}: {log}");
            assert!(!intent(lab).exists(), "step {nth}");
            let links = supervisor.status()?.links;
            assert!(links.len() == HOOKS.len() && links.iter().all(|link| link.ok && link.pinned));
            let former = during.ids(Kind::Link);
            let is_adopted = links.iter().all(|link| former.contains(&link.link_id));
            assert_eq!(is_adopted, !is_meant && has_pins, "step {nth}: {links:?}");
            finished_by_start += usize::from(is_meant);
            supervisor.end(Signal::SIGTERM)?;
        }
        let later = Census::take(lab, &during)?;
        let ended = lab.uninstall()?;
        assert_eq!(ended.code, Some(0), "step {nth}: {ended:?}");
        before.wait_for_return(lab, &later)?;
        wait_until_ungoverned(&target)?;
        drop(red);
    }
    panic!("an uninstall takes more than {MOST_STEPS} steps")
}

#[test]
fn an_uninstall_killed_at_any_step_is_finished_by_the_next_start_or_uninstall() {
    isolated(|lab| at_each_step(lab, kill_command, 0));
}

#[test]
fn a_supervisor_killed_at_any_step_of_an_uninstall_is_finished_by_the_next_start_or_uninstall() {
    isolated(|lab| at_each_step(lab, kill_supervisor, 1));
}

#[test]
fn whatever_fails_or_ends_or_changes_is_not_an_uninstall() {
    isolated(|lab| {
        let mut scene = Scene::start(lab)?;
        let links = scene.supervisor.status()?.links;
        let blue = Backend::tcp("blue")?;
        for text in ["services: []\n", &render(&[web(&blue)]), "services: []\n"] {
            put_in_force(lab, &mut scene.supervisor, text)?;
            assert_eq!(scene.supervisor.status()?.links, links);
        }
        put_in_force(lab, &mut scene.supervisor, &render(&[web(&scene.red)]))?;

        // An uninstall whose intent cannot be recorded does nothing.
        fs::create_dir(intent(lab))?;
        let answer = ask(&socket_path(lab), &Request::Uninstall)?;
        let Response::Failed { reason } = &answer else { panic!("{answer:?}") };
        assert!(reason.contains("nothing was removed"), "{reason}");
        fs::remove_dir(intent(lab))?;
        scene.assert_governed();
        assert_eq!(scene.supervisor.status()?.links, links);
        let Scene { red: _red, file, supervisor } = scene;
        supervisor.end(Signal::SIGTERM)?;

        let broken: [(&'static str, &str); 6] = [
            ("--worker", "/bin/false"),
            ("--cgroup", "/nonexistent"),
            ("--bpffs", "/proc"),
            ("--worker-user", "nosuchuser"),
            ("--control-group", "nosuchgroup"),
            ("--config", ""),
        ];
        for (option, value) in broken {
            let ended = lab.supervisor(&file).with(option, value).run()?;
            assert!(ended.code.is_some_and(|code| code != 0), "{option} {value}: {ended:?}");
            assert!(!intent(lab).exists());
        }
        for name in ["sys_admin", "net_admin", "kill"] {
            let bounding = format!("--bounding-set=-{name}");
            let ended = lab.supervisor(&file).under(&["setpriv", &bounding, "--"]).run()?;
            assert_eq!(ended.code, Some(77), "{ended:?}");
        }
        for signal in [Signal::SIGINT, Signal::SIGKILL, Signal::SIGTERM] {
            let supervisor = lab.supervisor(&file).start()?;
            assert_eq!(supervisor.status()?.links, links, "adopted");
            supervisor.end(signal)?;
            assert!(!intent(lab).exists(), "{signal}");
        }
        crate::scene::assert_reached(&holdfast_lab::Target::tcp(crate::scene::WEB, &["red"]));
        lab.write(FILE, "nonsense")?;
        Ok(())
    });
}
