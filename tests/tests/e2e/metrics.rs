//! Metrics and health, through restarts of every size.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use holdfast_lab::load::Shape;
use holdfast_lab::wait::holds;
use holdfast_lab::{
    Backend, Lab, LabError, Load, Supervisor, Target, TestResult, eventually, isolated, render,
};
use holdfast_protocol::handover::ConfigState;
use holdfast_tests::life::{Life, Restart};
use holdfast_tests::scrape::{METRICS, NoAnswer, Samples, get, gone_back, scrape};
use nix::sys::signal::Signal;

use crate::scene::{FILE, Scene, WEB, put_in_force, web};

/// Workers that are killed one after the other.
const KILLS: u32 = 20;

/// Workers that are replaced one after the other.
const RELOADS: u32 = 20;

/// How long, and how often, workers are killed under scrapes.
const KILLING: Duration = Duration::from_secs(3);
const BETWEEN_KILLS: Duration = Duration::from_millis(100);

/// The service's connections, as they are scraped.
pub const CONNECTIONS: &str =
    r#"holdfast_service_connections_total{service="web",port_name="main",protocol="tcp"}"#;

/// Two clients that connect every few milliseconds.
const SHAPE: Shape = Shape { clients: 2, rest: Duration::from_millis(2), seed: 9 };

/// [`Scene`], with metrics.
pub fn served(lab: &Lab) -> Result<Scene, LabError> {
    Scene::start_with(lab, "--metrics", METRICS.to_string())
}

/// Scrapes, and fails unless there is an answer.
#[track_caller]
pub fn scraped() -> Samples {
    scrape().unwrap_or_else(|error| panic!("{error:?}"))
}

/// Kills the worker that writes. Until the supervisor has seen a death, it names the dead one: it is
/// asked again.
fn kill_writer(supervisor: &mut Supervisor) -> TestResult {
    Ok(eventually("the worker to be killed", || {
        let status = supervisor.wait_for_grant().map_err(|error| error.to_string())?;
        let pid = status.worker.pid;
        holds(supervisor.kill_worker(pid), || format!("the worker {pid} is dead already"))
    })?)
}

#[test]
fn a_scrape_that_comes_when_no_worker_is_there_waits_for_the_next() {
    isolated(|lab| {
        let mut scene = served(lab)?;
        let mut before = scraped();
        for number in 0..KILLS {
            kill_writer(&mut scene.supervisor)?;
            // Whoever was killed cannot accept it any more.
            let after = scraped();
            assert_eq!(gone_back(&before, &after), [""; 0], "kill {number}");
            assert!(after["holdfast_epoch"] > before["holdfast_epoch"], "kill {number}");
            before = after;
        }
        assert!(before["holdfast_takeovers_total"] >= f64::from(KILLS));
        assert!(before["holdfast_last_takeover_duration_seconds{step=\"grant\"}"] > 0.0);
        Ok(())
    });
}

#[test]
fn no_scrape_fails_while_workers_are_replaced() {
    isolated(|lab| {
        let mut scene = served(lab)?;
        let load = Load::start(&[scene.target()], SHAPE);
        std::thread::scope(|scope| -> TestResult {
            let scraping = scope.spawn(|| {
                let (mut before, mut count) = (scraped(), 0_u32);
                while before["holdfast_epoch"] < f64::from(RELOADS) {
                    let after = scraped();
                    assert_eq!(gone_back(&before, &after), [""; 0]);
                    (before, count) = (after, count + 1);
                }
                count
            });
            for _ in 0..RELOADS {
                let epoch = scene.supervisor.status()?.epoch;
                scene.supervisor.signal(Signal::SIGHUP)?;
                scene.supervisor.wait_for_grant_after(epoch)?;
            }
            let count = scraping.join().expect("every scrape is answered");
            println!("{count} scrapes over {RELOADS} reloads");
            Ok(())
        })?;
        assert_eq!(load.finish().failed, 0);
        Ok(())
    });
}

/// What a kill cuts is what the killed worker had accepted and not answered yet; asked again, it is
/// answered. Nothing is ever refused.
#[test]
fn scrapes_go_on_while_workers_are_killed_every_100_ms() {
    isolated(|lab| {
        let mut scene = served(lab)?;
        let load = Load::start(&[scene.target()], SHAPE);
        let (mut kills, mut cut, mut count) = (0_u32, 0_u32, 0_u32);
        let (end, mut next) = (Instant::now() + KILLING, Instant::now());
        let mut before = scraped();
        std::thread::scope(|scope| -> TestResult {
            let supervisor = &mut scene.supervisor;
            let killing = scope.spawn(move || {
                while Instant::now() < end {
                    std::thread::sleep(next.saturating_duration_since(Instant::now()));
                    next += BETWEEN_KILLS;
                    let killed = kill_writer(supervisor).map_err(|error| error.to_string());
                    killed.expect("there is a worker to kill");
                    kills += 1;
                }
                kills
            });
            while Instant::now() < end {
                count += 1;
                let after = match scrape() {
                    Ok(samples) => samples,
                    Err(NoAnswer::Cut(_)) => {
                        cut += 1;
                        continue;
                    }
                    Err(error) => panic!("{error:?}"),
                };
                assert_eq!(gone_back(&before, &after), [""; 0]);
                before = after;
            }
            kills = killing.join().expect("every worker can be killed");
            Ok(())
        })?;
        println!("{count} scrapes, {cut} of them cut by {kills} kills");
        assert!(cut <= kills, "{cut} scrapes were cut by {kills} kills");
        assert!(kills > 10, "{kills}");
        let reached = load.finish().reached;
        eventually("every connection to be counted", || {
            let counted = scraped()[CONNECTIONS];
            holds(counted > reached as f64, || format!("{counted} of {reached} and one"))
        })?;
        Ok(())
    });
}

#[test]
fn counters_of_services_outlive_every_restart() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        let file = lab.write(FILE, render(&[web(&red)]))?;
        let mut life = Life::new(lab, file).with("--metrics", METRICS.to_string());
        life.start()?;
        let target = Target::tcp(WEB, &["red"]);
        let mut before = scraped();
        for restart in Restart::QUICK {
            crate::scene::assert_reached(&target);
            life.restart(restart)?;
            let after = scraped();
            assert_eq!(after[CONNECTIONS], before[CONNECTIONS] + 1.0, "{restart:?}");
            let start = "holdfast_supervisor_start_time_seconds";
            let is_another = after[start] != before[start];
            let is_new =
                matches!(restart, Restart::SupervisorTerminated | Restart::SupervisorKilled);
            assert_eq!(is_another, is_new, "{restart:?}");
            // What the supervisor counts begins with it, which its start says.
            if !is_new {
                assert_eq!(gone_back(&before, &after), [""; 0], "{restart:?}");
            }
            before = after;
        }
        Ok(())
    });
}

#[test]
fn promtool_finds_nothing_to_complain_of() {
    isolated(|lab| {
        let mut scene = served(lab)?;
        kill_writer(&mut scene.supervisor)?;
        scene.assert_governed();
        let text = eventually("the takeover to be told", || {
            let text = get(METRICS, "/metrics").map_err(|error| format!("{error:?}"))?.body;
            holds(text.contains("step=\"grant\""), || text.clone()).map(|()| text)
        })?;
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        promtool.stdin.take().expect("piped").write_all(text.as_bytes())?;
        let said = promtool.wait_with_output()?;
        assert!(said.status.success(), "{said:?}\n{text}");
        assert!(said.stdout.is_empty() && said.stderr.is_empty(), "{said:?}");
        for family in documented() {
            assert!(text.contains(&format!("# TYPE {family} ")), "{family} is not in\n{text}");
        }
        Ok(())
    });
}

/// The metrics that docs/metrics.md has a row for.
fn documented() -> Vec<String> {
    let page = include_str!("../../../docs/metrics.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `holdfast_"));
    rows.map(|row| format!("holdfast_{}", row.split('`').next().unwrap_or_default())).collect()
}

#[test]
fn every_metric_is_documented_and_the_dashboard_knows_no_others() {
    isolated(|lab| {
        let _scene = served(lab)?;
        let documented = documented();
        let served: Vec<String> = scraped()
            .keys()
            .map(|sample| sample.split('{').next().unwrap_or_default().to_owned())
            .collect();
        for name in &served {
            // A histogram has three kinds of samples.
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|it| name.strip_suffix(it));
            let is_known = |name: &str| documented.iter().any(|known| known == name);
            let is_documented = is_known(name) || family.is_some_and(is_known);
            assert!(is_documented, "{name} is not in docs/metrics.md");
        }
        let text = include_str!("../../../deploy/grafana/holdfast.json");
        let _valid: serde_json::Value = serde_json::from_str(text)?;
        let is_name = |character: char| character.is_ascii_alphanumeric() || character == '_';
        let words = text.split(|character| !is_name(character));
        let names: Vec<&str> = words.filter(|word| word.starts_with("holdfast_")).collect();
        assert!(names.len() > 10, "{names:?}");
        for name in names {
            assert!(documented.iter().any(|known| known == name), "no metric is called {name}");
        }
        Ok(())
    });
}

fn health(path: &str) -> Result<(u16, serde_json::Value), Box<dyn std::error::Error>> {
    let answer = get(METRICS, path).map_err(|error| format!("{error:?}"))?;
    Ok((answer.status, serde_json::from_str(&answer.body)?))
}

#[test]
fn health_says_what_works_and_readiness_what_is_in_force() {
    isolated(|lab| {
        // Nothing in the kernel and nothing to read: a worker that works, and nothing to be ready with.
        let file = lab.write(FILE, "services:\n")?;
        let mut supervisor =
            lab.supervisor(&file).with("--metrics", METRICS.to_string()).start()?;
        let (status, body) = health("/healthz")?;
        assert_eq!((status, &body["ok"]), (200, &true.into()), "{body}");
        let (status, body) = health("/readyz")?;
        assert_eq!((status, &body["ok"]), (503, &false.into()), "{body}");
        assert_eq!(body["components"]["configuration"]["state"], "rejected", "{body}");

        let red = Backend::tcp("red")?;
        put_in_force(lab, &mut supervisor, &render(&[web(&red)]))?;
        let (status, body) = health("/readyz")?;
        assert_eq!((status, &body["components"]["links"]["ok"]), (200, &true.into()), "{body}");

        // A save that is rejected changes nothing, which is as good as before.
        lab.write(FILE, "services: [{}]\n")?;
        supervisor
            .wait_until("the rejection", |status| status.config.state == ConfigState::Rejected)?;
        let (status, body) = health("/readyz")?;
        assert_eq!(status, 200, "{body}");
        assert_eq!(body["components"]["configuration"]["state"], "rejected", "{body}");
        Ok(())
    });
}
