//! Metrics and health, through restarts of every size and from clients of every kind.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use holdfast_lab::load::Shape;
use holdfast_lab::wait::holds;
use holdfast_lab::{
    Backend, Lab, LabError, Load, Supervisor, Target, TestResult, eventually, isolated, render,
};
use holdfast_protocol::handover::ConfigState;
use holdfast_tests::life::{Life, Restart};
use holdfast_tests::scrape::{METRICS, NoAnswer, Samples, get, gone_back, samples, scrape, send};
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
const CONNECTIONS: &str =
    r#"holdfast_service_connections_total{service="web",port_name="main",protocol="tcp"}"#;

/// Two clients that connect every few milliseconds.
const SHAPE: Shape = Shape { clients: 2, rest: Duration::from_millis(2), seed: 9 };

fn served(lab: &Lab) -> Result<Scene, LabError> {
    Scene::start_with(lab, "--metrics", METRICS.to_string())
}

/// Scrapes, and fails unless there is an answer.
#[track_caller]
fn scraped() -> Samples {
    scrape().unwrap_or_else(|error| panic!("{error:?}"))
}

fn kill_writer(supervisor: &mut Supervisor) -> TestResult {
    let status = supervisor.wait_for_grant()?;
    let (pid, text) = (status.worker.pid, "the worker could not be killed".to_owned());
    Ok(holds(supervisor.kill_worker(pid), || text)?)
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
            assert!(documented.contains(name), "{name} is not in docs/metrics.md");
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

#[test]
fn whoever_asks_otherwise_is_told_what_there_is() {
    isolated(|lab| {
        let _scene = served(lab)?;
        let long = format!("GET /metrics HTTP/1.1\r\nA: {}\r\n\r\n", "b".repeat(100_000));
        let many = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(1000));
        for (request, status) in [
            ("GET / HTTP/1.1\r\n\r\n", 404),
            ("GET /metrics/x HTTP/1.1\r\n\r\n", 404),
            ("POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 405),
            ("DELETE /healthz HTTP/1.1\r\n\r\n", 405),
            ("\u{16}\u{3}\u{1}\u{2}\r\n\r\n", 400),
            (&long, 431),
            (&many, 431),
            ("HEAD /metrics HTTP/1.1\r\n\r\n", 200),
            ("GET /metrics HTTP/1.0\r\n\r\n", 200),
            ("GET /metrics?x=y HTTP/1.1\r\n\r\n", 200),
        ] {
            let answer = send(METRICS, request.as_bytes()).map_err(|error| format!("{error:?}"))?;
            assert_eq!(answer.status, status, "{request:.40}: {answer:?}");
            assert!(answer.head.contains("Connection: close"), "{answer:?}");
            assert_eq!(answer.body.is_empty(), request.starts_with("HEAD"), "{answer:?}");
        }
        Ok(())
    });
}

#[test]
fn clients_that_stay_silent_hold_nobody_up_for_long() {
    isolated(|lab| {
        let scene = served(lab)?;
        let epoch = scene.supervisor.status()?.epoch;
        // More than are served at a time, half of them with a request that never ends.
        let mut silent: Vec<TcpStream> =
            (0..40).map(|_| TcpStream::connect(METRICS)).collect::<Result<_, _>>()?;
        for stream in silent.iter_mut().skip(1).step_by(2) {
            stream.write_all(b"GET /metrics HTTP/1.1\r\nX: ")?;
        }
        let one = std::thread::spawn(scraped);
        let other = std::thread::spawn(scraped);
        for scraper in [one, other] {
            assert!(scraper.join().expect("answered").contains_key("holdfast_epoch"));
        }
        for mut stream in silent {
            let mut said = String::new();
            // It is told, or hears nothing more.
            let _reset = stream.read_to_string(&mut said);
            assert!(said.is_empty() || said.starts_with("HTTP/1.1 408 "), "{said}");
        }
        assert_eq!(scene.supervisor.status()?.epoch, epoch, "the worker serves on");
        Ok(())
    });
}

#[test]
fn two_scrapers_get_the_same() {
    isolated(|lab| {
        let _scene = served(lab)?;
        let scrapers: Vec<_> = (0..2)
            .map(|_| std::thread::spawn(|| (0..50).map(|_| scraped()).collect::<Vec<_>>()))
            .collect();
        for scraper in scrapers {
            let all = scraper.join().expect("answered");
            assert!(all.iter().all(|samples| samples[CONNECTIONS] == 1.0));
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

#[test]
fn a_port_in_use_is_refused_and_an_uninstall_frees_it() {
    isolated(|lab| {
        let taken = TcpListener::bind(METRICS)?;
        let file = lab.write(FILE, "services: []\n")?;
        let refused = lab.supervisor(&file).with("--metrics", METRICS.to_string()).run()?;
        assert_eq!(refused.code, Some(78), "{refused:?}");
        assert!(refused.stderr.contains("127.0.0.1:9150"), "{refused:?}");
        assert!(refused.stderr.contains("ss -ltnp 'sport = :9150'"), "{refused:?}");
        drop(taken);

        let mut scene = served(lab)?;
        scraped();
        let ended = lab.ctl(&["uninstall"])?;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        scene.supervisor.ended()?;
        let gone = get(METRICS, "/metrics");
        assert!(matches!(gone, Err(NoAnswer::Refused(_))), "{gone:?}");
        Ok(())
    });
}

#[test]
fn without_the_option_nothing_listens() {
    isolated(|lab| {
        let _scene = Scene::start(lab)?;
        let nobody = get(METRICS, "/metrics");
        assert!(matches!(nobody, Err(NoAnswer::Refused(_))), "{nobody:?}");
        Ok(())
    });
}

#[test]
fn ipv6_is_served_too() {
    isolated(|lab| {
        let _scene = Scene::start_with(lab, "--metrics", "[::1]:9150")?;
        let address = "[::1]:9150".parse()?;
        let answer = get(address, "/metrics").map_err(|error| format!("{error:?}"))?;
        assert_eq!(samples(&answer.body)[CONNECTIONS], 1.0);
        Ok(())
    });
}
