//! Workers die and are replaced, and no connection notices.

use std::time::Duration;

use holdfast_lab::load::Shape;
use holdfast_lab::random::Random;
use holdfast_lab::{
    Backend, Load, Service, Stream, Supervisor, Target, TestResult, eventually, isolated,
};
use nix::sys::signal::Signal;

use crate::scene::{Scene, WEB, mapped, serve, virtual_address, virtual_address6};

const KILLS: u32 = 200;
const SIGHUPS: u32 = 50;

/// Kills a worker, whichever runs: the one that writes, one on its way in or one on its way out.
fn kill_any(supervisor: &Supervisor, random: &mut Random) -> Result<(), holdfast_lab::LabError> {
    eventually("a worker to kill", || {
        let workers = supervisor.workers();
        let drawn = random.below(workers.len().max(1) as u64);
        let victim = usize::try_from(drawn).ok().and_then(|drawn| workers.get(drawn));
        match victim.is_some_and(|pid| supervisor.kill_worker(*pid)) {
            true => Ok(()),
            false => Err(format!("none of {workers:?} could be killed")),
        }
    })
}

/// 200 kills and 50 restarts in an order drawn from a seed. After half of the faults the next one
/// does not wait for a granted worker, so it hits a takeover.
fn inject(supervisor: &mut Supervisor) -> TestResult {
    let mut random = Random::new(2026);
    let (mut kills, mut sighups) = (KILLS, SIGHUPS);
    while kills + sighups > 0 {
        if random.below(u64::from(kills + sighups)) < u64::from(kills) {
            kill_any(supervisor, &mut random)?;
            kills -= 1;
        } else {
            supervisor.signal(Signal::SIGHUP)?;
            sighups -= 1;
        }
        if random.below(2) == 0 {
            supervisor.wait_for_grant()?;
        }
    }
    supervisor.wait_for_grant()?;
    Ok(())
}

fn services(tcp: &[Backend], udp: &Backend) -> Vec<Service> {
    let web = Service::tcp("web", WEB).at(virtual_address6(0x10, 80).ip());
    let web = tcp
        .iter()
        .fold(web, |web, backend| web.weighted(backend.v4(), 1).weighted(backend.v6(), 3));
    vec![web, Service::udp("dns", virtual_address(53, 53)).endpoint(udp.v4())]
}

#[test]
fn two_hundred_kills_and_fifty_restarts_fail_no_connection() {
    isolated(|lab| {
        let tcp = [Backend::tcp("red")?, Backend::tcp("blue")?];
        let udp = Backend::udp("green")?;
        let mut supervisor = serve(lab, &services(&tcp, &udp))?;
        let web = [WEB, mapped(WEB), virtual_address6(0x10, 80)];
        let mut targets: Vec<Target> =
            web.iter().map(|address| Target::tcp(*address, &["red", "blue"])).collect();
        targets.push(Target::udp(virtual_address(53, 53), &["green"]));

        let streams = web.iter().zip(0..).map(|(address, seed)| Stream::open(*address, seed));
        let streams: Vec<Stream> = streams.collect::<Result<_, _>>()?;
        let shape = Shape { clients: 4, rest: Duration::from_millis(1), seed: 7 };
        let load = Load::start(&targets, shape);
        inject(&mut supervisor)?;
        let sofar: Vec<u64> = streams.iter().map(Stream::bytes).collect();
        eventually("each stream to go on after the last fault", || {
            let go_on = streams.iter().zip(&sofar).all(|(stream, bytes)| stream.bytes() > *bytes);
            if go_on { Ok(()) } else { Err("one stands still") }
        })?;
        let tally = load.finish();
        assert_eq!((tally.failed, tally.ungoverned), (0, 0), "{tally:?}");
        assert!(tally.reached > u64::from(KILLS + SIGHUPS), "{tally:?}");
        assert_eq!(tally.by_backend.keys().collect::<Vec<_>>(), ["blue", "green", "red"]);
        for stream in streams {
            assert_eq!(stream.finish().broken, None);
        }
        Ok(())
    });
}

#[test]
fn governance_needs_no_worker() {
    isolated(|lab| {
        let mut scene = Scene::start(lab)?;
        let before = scene.supervisor.status()?;
        // A stopped supervisor replaces nobody.
        scene.supervisor.signal(Signal::SIGSTOP)?;
        let killed = scene.supervisor.kill_worker(before.worker.pid);
        for _ in 0..100 {
            scene.assert_governed();
        }
        scene.supervisor.signal(Signal::SIGCONT)?;
        assert!(killed, "the worker {} could not be killed", before.worker.pid);
        let after = scene.supervisor.wait_for_grant_after(before.epoch)?;
        assert_ne!(after.worker.pid, before.worker.pid);
        let last = after.takeovers.last.expect("there have been two");
        assert_eq!(last.reason, "crash");
        assert!(last.total_us >= last.grant_us, "{last:?}");
        Ok(())
    });
}

#[test]
fn a_worker_that_hangs_is_replaced() {
    isolated(|lab| {
        let mut scene = Scene::start(lab)?;
        let before = scene.supervisor.status()?;
        let worker = holdfast_lab::process::Process::open(before.worker.pid)?;
        assert!(scene.supervisor.workers().contains(&worker.pid()), "it is this lab's worker");
        worker.signal(Signal::SIGSTOP)?;
        let after = scene.supervisor.wait_for_grant_after(before.epoch)?;
        assert_eq!(after.takeovers.last.expect("there have been two").reason, "hang");
        scene.assert_governed();
        assert!(worker.wait(holdfast_lab::wait::PATIENCE)?, "the old one is dead, not forgotten");
        Ok(())
    });
}

#[test]
fn epochs_grow_by_one_with_each_grant() {
    isolated(|lab| {
        let mut scene = Scene::start(lab)?;
        for epoch in 1..10 {
            let status = scene.supervisor.status()?;
            assert_eq!((status.epoch, status.worker.epoch), (epoch, epoch));
            assert!(scene.supervisor.kill_worker(status.worker.pid));
            scene.supervisor.wait_for_grant_after(epoch)?;
        }
        Ok(())
    });
}
