//! An invalid save changes nothing, and says where it is wrong.

use holdfast_lab::{Lab, Service, TestResult, isolated, render};
use holdfast_protocol::handover::ConfigState;

use crate::scene::{FILE, Scene, WEB, put_in_force, virtual_address, web};

/// Saves `text` over a good configuration: it is rejected with `words` in the reason and, if
/// `place` is given, with that line and column; what was in force stays. Mending the file lifts it.
fn assert_rejected(lab: &Lab, text: &[u8], place: Option<&str>, words: &[&str]) -> TestResult {
    let mut scene = Scene::start(lab)?;
    let before = scene.supervisor.status()?;
    assert_eq!(before.config.state, ConfigState::InForce);

    lab.write(FILE, text)?;
    let status = scene.supervisor.wait_until("the save to be rejected", |status| {
        status.config.state == ConfigState::Rejected
    })?;
    let error = &status.config.error;
    if let Some(place) = place {
        assert!(error.contains(&format!("{FILE}:{place}:")), "no place {place} in: {error}");
    }
    for word in words {
        assert!(error.contains(word), "no `{word}` in: {error}");
    }
    assert_eq!(status.config.digest, before.config.digest, "what is in force has not changed");
    assert_eq!((status.services, status.endpoints), (before.services, before.endpoints));
    scene.assert_governed();
    assert_eq!(scene.supervisor.status()?.worker.pid, before.worker.pid, "the worker serves on");

    let api = Service::tcp("api", virtual_address(20, 80)).endpoint(scene.red.v4());
    let mended = put_in_force(lab, &mut scene.supervisor, &render(&[web(&scene.red), api]))?;
    assert_eq!((mended.services, mended.config.error.as_str()), (2, ""));
    Ok(())
}

/// A valid configuration with one thing replaced.
fn spoilt(from: &str, to: &str) -> String {
    let good = render(&[Service::tcp("web", WEB).weighted(virtual_address(9, 9), 7)]);
    assert!(good.contains(from), "`{from}` is not in:\n{good}");
    good.replace(from, to)
}

#[test]
fn a_syntax_error() {
    isolated(|lab| assert_rejected(lab, b"services:\n  - name: [web\n", Some("3:1"), &[]));
}

#[test]
fn an_unknown_key() {
    isolated(|lab| {
        let text = spoilt("    no_endpoint:", "    no_endpiont:");
        assert_rejected(lab, text.as_bytes(), Some("6:5"), &["no_endpiont"])
    });
}

#[test]
fn an_empty_file() {
    isolated(|lab| assert_rejected(lab, b"", Some("1:1"), &["empty"]));
}

#[test]
fn a_file_of_50_megabytes() {
    isolated(|lab| {
        let text = b"# fifty megabytes of nothing\n".repeat(50 * 1024 * 1024 / 29 + 1);
        assert_rejected(lab, &text, None, &[FILE, "16"])
    });
}

#[test]
fn a_duplicate_address_and_port() {
    isolated(|lab| {
        let text = render(
            &["web", "webber"].map(|name| Service::tcp(name, WEB).endpoint(virtual_address(9, 9))),
        );
        assert_rejected(lab, text.as_bytes(), Some("10:17"), &["127.96.0.10", "80", "web"])
    });
}

#[test]
fn a_port_of_zero() {
    isolated(|lab| {
        let text = spoilt("port: 80, protocol", "port: 0, protocol");
        assert_rejected(lab, text.as_bytes(), Some("4:33"), &["port"])
    });
}

#[test]
fn only_weights_of_zero() {
    isolated(|lab| {
        let text = spoilt("weight: 7", "weight: 0");
        assert_rejected(lab, text.as_bytes(), Some("8:9"), &["weight"])
    });
}

#[test]
fn bytes_that_are_no_text() {
    isolated(|lab| assert_rejected(lab, b"services:\n  - name: \xff\xfe\n", Some("2:11"), &[]));
}

#[test]
fn a_rejected_save_is_in_the_log_with_its_place() {
    isolated(|lab| {
        let mut scene = Scene::start(lab)?;
        lab.write(FILE, "services: 7\n")?;
        scene.supervisor.wait_until("the save to be rejected", |status| {
            status.config.state == ConfigState::Rejected
        })?;
        holdfast_lab::eventually("a line in the log", || {
            let log = std::fs::read_to_string(scene.supervisor.log())?;
            let place = format!("{FILE}:1:11");
            let said = log.lines().any(|line| line.contains(&place));
            if said { Ok(()) } else { Err(std::io::Error::other(log)) }
        })?;
        Ok(())
    });
}
