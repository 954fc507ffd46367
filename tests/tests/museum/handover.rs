//! Handovers that do not come to their end.

use std::error::Error;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use holdfast_lab::control::{ask, socket_path};
use holdfast_lab::inside::INSTANCE;
use holdfast_lab::process::{self, Process};
use holdfast_lab::random::Random;
use holdfast_lab::supervisor::{GRANTED, workers_of};
use holdfast_lab::wait::{PATIENCE, holds};
use holdfast_lab::{
    Backend, Lab, LabError, Supervisor, Target, TestResult, binaries, eventually, isolated, render,
};
use holdfast_protocol::control::{Request, Response, Status};
use holdfast_tests::builds::{Switched, own_worker, replace, script};
use holdfast_tests::hooks;
use holdfast_tests::life::{Life, Restart};
use holdfast_tests::programmed::Maps;
use holdfast_tests::scene::{FILE, Scene, WEB, assert_reached, put_in_force, web};
use holdfast_tests::watch::Watch;
use nix::sys::signal::Signal;

/// As long as a takeover on an idle machine takes, so that deaths hit every part of one.
const TAKEOVER_US: u64 = 6_000;

/// Waits until a worker beside `known` runs, without a rest between two looks: a takeover is over in
/// milliseconds.
fn candidate(supervisor: &Supervisor, known: u32) -> Result<u32, LabError> {
    let begin = Instant::now();
    loop {
        let workers = supervisor.workers();
        match workers.iter().find(|pid| **pid != known) {
            Some(pid) => return Ok(*pid),
            None if begin.elapsed() > PATIENCE => {
                return Err(LabError::Unexpected(format!("no candidate beside {workers:?}")));
            }
            None => {}
        }
    }
}

/// Kills the granted worker, and gives its process id.
fn kill_granted(supervisor: &Supervisor) -> Result<u32, LabError> {
    eventually("a granted worker to kill", || {
        let worker = supervisor.status().map_err(|error| error.to_string())?.worker;
        // A status from before its end is known names one that is gone.
        let killed = worker.state == GRANTED && supervisor.kill_worker(worker.pid);
        if killed { Ok(worker.pid) } else { Err(format!("{worker:?}")) }
    })
}

/// A wait of at most `limit` microseconds, which no scheduler rounds up.
fn spin(random: &mut Random, limit: u64) {
    let until = Instant::now() + Duration::from_micros(random.below(limit));
    while Instant::now() < until {
        std::hint::spin_loop();
    }
}

/// What a worker that serves on goes on being.
fn serving(status: &Status) -> (u32, u64, String) {
    (status.worker.pid, status.epoch, status.config.digest.clone())
}

/// Asks for a takeover that must fail, and says why it did.
fn failed_reload(lab: &Lab, supervisor: &Supervisor) -> Result<String, Box<dyn Error>> {
    let answer = reload(lab, supervisor)?;
    Ok(answer.expect_err("the new worker cannot be granted"))
}

/// Asks for a takeover. Where it fails, the one who served serves on, and the reason is given.
fn reload(lab: &Lab, supervisor: &Supervisor) -> Result<Result<(), String>, Box<dyn Error>> {
    let before = supervisor.status()?;
    let reason = match ask(&socket_path(lab), &Request::Reload)? {
        Response::Reloaded { .. } => return Ok(Ok(())),
        Response::Failed { reason } => reason,
        other => return Err(format!("asked to reload, answered {other:?}").into()),
    };
    assert_eq!(serving(&supervisor.status()?), serving(&before), "{reason}");
    eventually("the candidate to be gone", || {
        let workers = supervisor.workers();
        holds(workers == [before.worker.pid], || format!("{workers:?}"))
    })?;
    Ok(Err(reason))
}

/// A supervisor whose worker's binary can be replaced.
fn life<'a>(lab: &'a Lab, red: &Backend) -> Result<Life<'a>, Box<dyn Error>> {
    let file = lab.write(FILE, render(&[web(red)]))?;
    let mut life = Life::new(lab, file).with("--worker", own_worker(lab)?);
    life.start()?;
    Ok(life)
}

/// Envoy #10953: two generations waited for each other for ever. Each step of a handover has a
/// deadline, and the end of either side at any step ends it with nothing changed.
#[test]
fn pf17_every_step_of_a_handover_has_an_end() {
    /// Takeovers that a death ends, and how many deaths that may take.
    const HITS: u64 = 15;
    const DEATHS: usize = 300;
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        let mut life = life(lab, &red)?;
        let maps = Maps::open(&lab.bpffs(), INSTANCE)?;
        let (before, mut random) = (maps.read()?, Random::new(17));
        for _ in 0..DEATHS {
            let status = life.supervisor().status()?;
            if status.takeovers.failed >= HITS {
                break;
            }
            let ended = status.takeovers.count + status.takeovers.failed;
            life.supervisor().signal(Signal::SIGHUP)?;
            let candidate = candidate(life.supervisor(), status.worker.pid)?;
            spin(&mut random, TAKEOVER_US);
            life.supervisor().kill_worker(candidate);
            life.supervisor().wait_until("the takeover to end", |status| {
                status.takeovers.count + status.takeovers.failed > ended
                    && status.worker.state == GRANTED
            })?;
            assert_eq!(maps.read()?, before);
        }
        let failed = life.supervisor().status()?.takeovers.failed;
        assert!(failed >= HITS, "only {failed} of {DEATHS} deaths hit a takeover");

        // The former worker never says that it has let go: it is killed, and the next one granted.
        let status = life.supervisor().status()?;
        Process::open(status.worker.pid)?.signal(Signal::SIGSTOP)?;
        life.supervisor().signal(Signal::SIGHUP)?;
        life.supervisor().wait_for_grant_after(status.epoch)?;

        // The next one never says a word.
        let mute = script(lab, "mute", "exec sleep 1000")?;
        replace(&lab.directory().join("worker"), &mute)?;
        let reason = failed_reload(lab, life.supervisor())?;
        assert!(reason.contains("within"), "{reason}");
        assert_eq!(maps.read()?, before);
        hooks::check(lab)
    });
}

/// Envoy #33446: a child that died while it started blocked all later restarts. A new worker may die
/// at any step; the next restart works.
#[test]
fn pf18_a_worker_that_dies_while_it_starts_does_not_block_the_next() {
    const DEATHS: usize = 40;
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        let (file, switched) = (lab.write(FILE, render(&[web(&red)]))?, Switched::new(lab)?);
        let mut life = Life::new(lab, file).with("--worker", &switched.worker);
        life.start()?;
        let mut random = Random::new(18);
        for death in 0..DEATHS {
            let killed = kill_granted(life.supervisor())?;
            // Its successor as well, and that one's: none of them is a candidate beside another.
            for _ in 0..death % 3 {
                let starting = candidate(life.supervisor(), killed)?;
                spin(&mut random, TAKEOVER_US);
                life.supervisor().kill_worker(starting);
            }
        }
        let status = life.supervisor().wait_for_grant()?;
        for restart in Restart::QUICK {
            life.restart(restart)?;
        }

        // None that starts gets far enough to serve: as soon as one could, one does.
        switched.break_off()?;
        assert!(failed_reload(lab, life.supervisor())?.contains("exit status 1"));
        let former = life.supervisor().status()?.worker.pid;
        assert!(life.supervisor().kill_worker(former));
        let backing_off = life.supervisor().wait_until("restarts to back off", |status| {
            status.worker.state == "backing-off" && status.takeovers.failed >= 3
        })?;
        assert!(backing_off.links.iter().all(|link| link.ok), "{backing_off:?}");
        assert_reached(&Target::tcp(WEB, &["red"]));
        switched.mend()?;
        life.supervisor().signal(Signal::SIGHUP)?;
        life.supervisor().wait_for_grant_after(status.epoch)?;
        Ok(())
    });
}

/// Envoy #550 and HAProxy #2184: restarts in quick succession killed parent and child, or piled old
/// workers up. A storm of signals is folded into one takeover at a time, of at most two workers.
#[test]
fn pf19_a_storm_of_restarts_is_one_takeover_at_a_time() {
    const SIGNALS: u32 = 300;
    isolated(|lab| {
        let mut scene = Scene::start(lab)?;
        let (before, pid) = (scene.supervisor.status()?.epoch, scene.supervisor.pid());
        let watch = Watch::start(move || {
            let workers = workers_of(pid);
            holds(workers.len() <= 2, || format!("{workers:?} at once"))
        });
        for signal in 0..SIGNALS {
            scene.supervisor.signal(Signal::SIGHUP)?;
            if signal % 10 == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        scene.supervisor.wait_for_grant_after(before)?;
        eventually("one worker to be left", || {
            let workers = scene.supervisor.workers();
            holds(workers.len() == 1, || format!("{workers:?}"))
        })?;
        let takeovers = scene.supervisor.status()?.takeovers.count;
        assert!(takeovers < 50, "a storm folds: {takeovers} takeovers for {SIGNALS} signals");
        watch.assert_right(20);
        scene.assert_governed();
        Ok(())
    });
}

/// Pingora: the old process left although sending it the descriptors had failed. The old worker
/// serves on, saves included, until the new one was granted.
#[test]
fn pf20_the_old_worker_stays_until_the_new_one_is_granted() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        let mut life = life(lab, &red)?;
        let deaf = script(lab, "deaf", "exec 3>&-; exec sleep 1000")?;
        let gone = script(lab, "gone", "exit 7")?;
        let blue = Backend::tcp("blue")?;
        for (candidate, backend) in [(deaf, &blue), (gone, &red)] {
            replace(&lab.directory().join("worker"), &candidate)?;
            failed_reload(lab, life.supervisor())?;
            let former = life.supervisor().status()?.worker;
            put_in_force(lab, life.supervisor(), &render(&[web(backend)]))?;
            let after = life.supervisor().status()?.worker;
            assert_eq!((after.pid, after.epoch), (former.pid, former.epoch));
            assert_reached(&Target::tcp(WEB, &[backend.name()]));
        }
        Ok(())
    });
}

/// Sets how many descriptors process `pid` may have open.
fn limit_descriptors(pid: u32, limit: &str) -> TestResult {
    let limit = format!("--nofile={limit}");
    let done = Command::new("prlimit").args(["--pid", &pid.to_string(), &limit]).status()?;
    assert!(done.success(), "{done}");
    Ok(())
}

/// Whoever passes descriptors: a receiver that may open no more gets fewer, silently. The loss is
/// found out, the handover is refused with a reason that says what to do, and the old worker serves.
#[test]
fn pf22_descriptors_lost_on_the_way_are_noticed_and_refused() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        let mut life = life(lab, &red)?;
        let real = binaries::find(binaries::WORKER)?;
        let worker = lab.directory().join("worker");
        // From too few for its libraries to enough for everything.
        let mut reasons = Vec::new();
        for limit in 5..64 {
            let commands = format!("ulimit -n {limit}; exec {} \"$@\"", real.display());
            replace(&worker, &script(lab, "short", &commands)?)?;
            match reload(lab, life.supervisor())? {
                Ok(()) => break,
                Err(reason) => reasons.push(reason),
            }
        }
        let said = reasons.iter().any(|reason| reason.contains("RLIMIT_NOFILE"));
        assert!(said, "{reasons:?}");

        // The supervisor itself may open no more: it starts nobody, and goes on.
        replace(&worker, &real)?;
        let (pid, before) = (life.supervisor().pid(), life.supervisor().status()?);
        let (open, limits) = (process::descriptors(pid)?, process::read(pid, "limits")?);
        let usual = limits.lines().find(|line| line.starts_with("Max open files"));
        let usual: Vec<&str> = usual.expect("each process has it").split_whitespace().collect();
        limit_descriptors(pid, &format!("{open}:{}", usual[4]))?;
        life.supervisor().signal(Signal::SIGHUP)?;
        eventually("the takeover to fail", || {
            let log = fs::read_to_string(life.supervisor().log())?;
            let failed = log.contains("Too many open files");
            if failed { Ok(()) } else { Err(std::io::Error::other(log)) }
        })?;
        assert_reached(&Target::tcp(WEB, &["red"]));
        limit_descriptors(pid, &format!("{}:{}", usual[3], usual[4]))?;
        assert_eq!(serving(&life.supervisor().status()?), serving(&before));
        life.supervisor().signal(Signal::SIGHUP)?;
        life.supervisor().wait_for_grant_after(before.epoch)?;
        hooks::check(lab)
    });
}
