//! What people see.

use std::thread;
use std::time::Duration;

use holdfast_lab::process::Process;
use holdfast_lab::{Backend, Service, isolated};
use holdfast_protocol::control::LinkStatus;
use holdfast_protocol::kernel::program;
use holdfast_tests::hooks::HOOKS;
use holdfast_tests::rows::{rows, services};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::scene::{FILE, Scene, WEB, serve, virtual_address6};

#[test]
fn status_has_every_documented_field() {
    isolated(|lab| {
        let scene = Scene::start(lab)?;
        let status = lab.json(&["status"])?;
        for field in [
            "/supervisor/pid",
            "/supervisor/uptime_s",
            "/supervisor/version",
            "/worker/pid",
            "/worker/uid",
            "/worker/state",
            "/worker/epoch",
            "/worker/uptime_s",
            "/worker/capabilities",
            "/epoch",
            "/config/path",
            "/config/digest",
            "/config/state",
            "/services",
            "/endpoints",
            "/takeovers/count",
            "/takeovers/failed",
            "/takeovers/last/reason",
            "/takeovers/last/detect_us",
            "/takeovers/last/spawn_us",
            "/takeovers/last/handover_us",
            "/takeovers/last/ready_us",
            "/takeovers/last/grant_us",
            "/takeovers/last/total_us",
        ] {
            assert!(status.pointer(field).is_some(), "no {field} in {status}");
        }
        assert_eq!(status["supervisor"]["pid"], scene.supervisor.pid());
        assert_eq!(status["config"]["path"], scene.file.display().to_string());
        let links = status["links"].as_array().expect("a list");
        assert_eq!(links.len(), HOOKS.len(), "{status}");
        for link in links {
            for field in ["name", "attach_type", "link_id", "prog_id", "cgroup", "pinned", "ok"] {
                assert!(link.get(field).is_some(), "no {field} in {link}");
            }
            assert_eq!((&link["ok"], &link["pinned"]), (&Value::from(true), &Value::from(true)));
            // No policy is about arriving connections.
            let cgroup = match link["name"] == program::INGRESS {
                true => LinkStatus::NOT_NEEDED.to_owned(),
                false => lab.governed().display().to_string(),
            };
            assert_eq!(link["cgroup"], cgroup);
        }
        Ok(())
    });
}

#[test]
fn services_endpoints_and_links_list_what_is_programmed() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        let six = virtual_address6(0x10, 80);
        let service =
            Service::tcp("web", WEB).at(six.ip()).weighted(red.v4(), 3).weighted(red.v6(), 5);
        let _supervisor = serve(lab, &[service])?;
        let services = services(lab)?;
        assert_eq!(services.len(), 1, "{services:?}");
        let row = &services[0];
        assert_eq!((&row["service"], &row["port"]), (&Value::from("web"), &Value::from(80)));
        assert_eq!(
            (&row["protocol"], &row["policy"]),
            (&Value::from("tcp"), &Value::from("weighted"))
        );
        let text = row["addresses"].to_string();
        assert!(text.contains("127.96.0.10") && text.contains("fd96::10"), "{text}");

        let endpoints = rows(lab, "endpoints")?;
        let seen: Vec<(Value, Value)> =
            endpoints.iter().map(|row| (row["endpoint"].clone(), row["weight"].clone())).collect();
        for (endpoint, weight) in [(red.v4(), 3), (red.v6(), 5)] {
            let expected = (Value::from(endpoint.to_string()), Value::from(weight));
            assert!(seen.contains(&expected), "no {expected:?} in {seen:?}");
        }
        assert_eq!(rows(lab, "links")?.len(), HOOKS.len());
        Ok(())
    });
}

#[test]
fn what_people_read_is_plain_in_a_pipe() {
    isolated(|lab| {
        let _scene = Scene::start(lab)?;
        for command in ["status", "services", "endpoints", "links", "version"] {
            let ended = lab.ctl(&[command])?;
            assert_eq!(ended.code, Some(0), "{command}: {ended:?}");
            assert!(!ended.stdout.contains('\x1b'), "{command}: {}", ended.stdout);
            assert!(!ended.stdout.trim().is_empty(), "{command}");
        }
        let services = lab.ctl(&["services"])?.stdout;
        assert!(services.contains("web") && services.contains("127.96.0.10"), "{services}");
        Ok(())
    });
}

#[test]
fn check_prints_every_error_with_its_place_and_touches_nothing() {
    isolated(|lab| {
        let good = lab.write("good.yaml", "services: []\n")?;
        let good = lab.ctl(&["check", good.to_str().expect("labs are in plain places")])?;
        assert_eq!(good.code, Some(0), "{good:?}");
        let bad = "services:\n  - nmae: web\n    addresses: [300.0.0.1]\n";
        let bad = lab.write(FILE, bad)?;
        let bad = lab.ctl(&["check", bad.to_str().expect("labs are in plain places")])?;
        assert_eq!(bad.code, Some(1), "{bad:?}");
        let said = format!("{}{}", bad.stdout, bad.stderr);
        for place in [":2:5:", ":3:17:"] {
            assert!(said.contains(&format!("{FILE}{place}")), "no {place} in: {said}");
        }
        Ok(())
    });
}

/// What a worker was asked and did not live to answer, the next one is asked.
#[test]
fn a_question_outlives_the_worker_that_was_asked() {
    /// How long a question may take to be where it goes.
    const ON_ITS_WAY: Duration = Duration::from_millis(300);
    isolated(|lab| {
        let scene = Scene::start(lab)?;
        let status = scene.supervisor.status()?;
        let worker = Process::open(status.worker.pid)?;
        worker.signal(Signal::SIGSTOP)?;
        let answer = thread::scope(|scope| {
            let asker = scope.spawn(|| lab.ctl(&["services"]));
            thread::sleep(ON_ITS_WAY);
            let killed = worker.signal(Signal::SIGKILL);
            let answer = asker.join().expect("it does not panic");
            killed.map(|()| answer)
        })??;
        assert!(answer.code == Some(0) && answer.stdout.contains("web"), "{answer:?}");
        Ok(())
    });
}

#[test]
fn without_a_supervisor_it_says_so() {
    isolated(|lab| {
        for command in ["status", "reload"] {
            let ended = lab.ctl(&[command])?;
            assert!(ended.code.is_some_and(|code| code != 0), "{command}: {ended:?}");
            assert!(ended.stderr.contains("holdfast run"), "{command}: {ended:?}");
        }
        Ok(())
    });
}
