//! How fast workers that fail are replaced: at once, then slower and slower, and never at the cost of
//! governance. Only lower bounds of times are asserted: a busy machine makes everything later.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use holdfast_lab::wait::{holds, within};
use holdfast_lab::{Backend, Target, TestResult, binaries, eventually, isolated, render};
use holdfast_tests::builds::{own_worker, replace};
use nix::sys::signal::Signal;

use crate::scene::{FILE, Scene, WEB, assert_reached, web};

/// Failures that are retried at once, and the delay after them, which doubles
/// (`supervisor/src/takeover/pace.rs`).
const FREE: usize = 2;
const FIRST_DELAY: Duration = Duration::from_millis(100);

/// Failures that are waited for: the last pause is between 1.6 and 3.2 seconds.
const FAILURES: usize = 8;

/// Replacements of granted workers without a delay, and how often there is one more.
const BURST: u32 = 100;
const INTERVAL: Duration = Duration::from_millis(100);

/// Kills: so many that an idle machine would be done much earlier without the limit.
const KILLS: u32 = 150;

/// The moments at which workers were started, as one that fails notes them.
fn starts(path: &Path) -> Result<Vec<Duration>, String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .map(|line| line.parse().map(Duration::from_nanos).map_err(|error| format!("{error}")))
        .collect()
}

#[test]
fn a_worker_that_cannot_start_is_retried_ever_more_slowly() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        let file = lab.write(FILE, render(&[web(&red)]))?;
        let worker = own_worker(lab)?;
        let mut supervisor = lab.supervisor(&file).with("--worker", &worker).start()?;
        let before = supervisor.status()?;
        let times = lab.directory().join("times");
        let script = format!(
            "#!/bin/sh\n[ \"$1\" = serve ] || exec {} \"$@\"\ndate +%s%N >> {}\nexit 7\n",
            binaries::find(binaries::WORKER)?.display(),
            times.display()
        );
        replace(&worker, &lab.write("failing", script)?)?;
        assert!(supervisor.kill_worker(before.worker.pid));
        let starts = within(Duration::from_secs(120), "many failures", || {
            let starts = starts(&times)?;
            if starts.len() > FAILURES { Ok(starts) } else { Err(format!("{starts:?}")) }
        })?;
        let pauses: Vec<Duration> = starts.windows(2).map(|two| two[1] - two[0]).collect();
        for (failure, pause) in pauses.iter().enumerate().skip(FREE) {
            let doublings = u32::try_from(failure - FREE)?;
            let whole = FIRST_DELAY * 2_u32.pow(doublings);
            assert!(*pause >= whole / 2, "after failure {}: {pauses:?}", failure + 1);
        }
        let status = supervisor
            .wait_until("the next pause", |status| status.worker.state == "backing-off")?;
        assert!(status.worker.reason.contains("exit status 7"), "{status:?}");
        assert_eq!(status.links, before.links);
        assert_reached(&Target::tcp(WEB, &["red"]));

        // Whoever mends it need not wait.
        replace(&worker, &binaries::find(binaries::WORKER)?)?;
        supervisor.signal(Signal::SIGHUP)?;
        supervisor.wait_for_grant_after(before.epoch)?;
        assert_reached(&Target::tcp(WEB, &["red"]));
        Ok(())
    });
}

#[test]
fn workers_that_die_once_granted_are_replaced_at_once_and_then_at_a_limited_rate() {
    isolated(|lab| {
        let mut scene = Scene::start(lab)?;
        let before = scene.supervisor.status()?;
        let begin = Instant::now();
        for kill in 1..=KILLS {
            let status =
                scene.supervisor.wait_for_grant_after(before.epoch + u64::from(kill) - 2)?;
            assert!(scene.supervisor.kill_worker(status.worker.pid), "kill {kill}");
            scene.assert_governed();
        }
        scene.supervisor.wait_for_grant_after(before.epoch + u64::from(KILLS) - 1)?;
        let least = INTERVAL * (KILLS - BURST - 1);
        assert!(begin.elapsed() >= least, "{:?} instead of {least:?}", begin.elapsed());
        let after = scene.supervisor.status()?;
        assert_eq!(after.takeovers.failed, 0, "{after:?}");
        assert_eq!(after.links, before.links);
        eventually("one worker to be left", || {
            let workers = scene.supervisor.workers();
            holds(workers.len() == 1, || format!("{workers:?}"))
        })?;
        TestResult::Ok(())
    });
}
