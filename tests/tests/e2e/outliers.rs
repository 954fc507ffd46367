//! Endpoints whose connections fail get no new ones for a time: whatever becomes of the worker that has
//! seen it.

use holdfast_lab::wait::holds;
use holdfast_lab::{
    Attempt, Lab, LabError, Load, Service, Supervisor, Target, TestResult, attempt, eventually,
    isolated, render,
};
use holdfast_tests::health_server::HealthServer;
use holdfast_tests::scrape::scrape;
use nix::sys::signal::Signal;

use crate::pair::{
    CONNECTIONS, HEALTH, NAMES, PORT, SHAPE, assert_only, at, backend, row, start, wait_until_used,
};
use crate::scene::{FILE, WEB, put_in_force};

/// Failures in a row after which an endpoint is out.
const FAILURES: u32 = 5;

/// Workers that are killed one after the other.
const KILLS: u32 = 5;

/// The service of both endpoints, which go by turns, ejected as `keys` say.
fn web(keys: &str) -> Service {
    let ejection = format!("outlier_ejection: {{ consecutive_failures: {FAILURES}, {keys} }}");
    let service = Service::tcp("web", WEB).balanced("policy: round_robin").key(&ejection);
    service.endpoint(at(1, PORT)).endpoint(at(2, PORT))
}

/// The state of the endpoint `number`, and why.
fn state(lab: &Lab, number: u8) -> Result<(String, String), LabError> {
    let row = row(lab, "web", number)?;
    let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
    Ok((text("state"), text("reason")))
}

/// Waits until `holdfastctl` says that the endpoint is in `state`, for a reason that begins so.
fn wait_for(lab: &Lab, number: u8, state: &str, reason: &str) -> Result<(), LabError> {
    eventually(&format!("endpoint {number} to be {state}"), || {
        let (found, why) = self::state(lab, number).map_err(|error| error.to_string())?;
        holds(found == state && why.starts_with(reason), || format!("{found}: {why}"))
    })
}

/// Connects until so many connections have failed.
fn fail(times: u32) -> Result<(), LabError> {
    let mut failed = 0;
    eventually("connections to fail", || {
        failed += u32::from(!matches!(attempt(&Target::tcp(WEB, &NAMES)), Attempt::Reached(_)));
        holds(failed >= times, || format!("{failed} have"))
    })
}

/// Connects until the endpoint `number` is ejected.
fn fail_until_ejected(lab: &Lab, number: u8) -> Result<(), LabError> {
    eventually("an ejection", || {
        let _outcome = attempt(&Target::tcp(WEB, &NAMES));
        let (state, why) = state(lab, number).map_err(|error| error.to_string())?;
        holds(state == "ejected", || format!("{state}: {why}"))
    })
}

/// Kills the worker, and waits for the next one.
fn kill_worker(supervisor: &mut Supervisor) -> Result<(), LabError> {
    let before = supervisor.wait_for_grant()?;
    holds(supervisor.kill_worker(before.worker.pid), || "no worker".to_owned())
        .map_err(LabError::Unexpected)?;
    supervisor.wait_for_grant_after(before.epoch)?;
    Ok(())
}

#[test]
fn an_endpoint_that_fails_is_out_for_a_time_and_costs_nobody_a_connection() {
    isolated(|lab| {
        let (red, _green) = (backend(1)?, backend(2)?);
        let mut supervisor = start(lab, &[web("base_time: 3s")])?;
        wait_until_used(WEB, "red")?;
        drop(red);
        fail(FAILURES - 1)?;
        // A connection that is established would begin the row anew, and there is none to red.
        fail_until_ejected(lab, 1)?;
        wait_for(lab, 1, "ejected", "")?;
        let (_, reason) = state(lab, 1)?;
        assert!(reason.contains(" connections failed in a row; until "), "{reason}");
        assert_only(WEB, "green");
        let text = lab.ctl(&["endpoints"])?.stdout;
        assert!(text.contains("ejected: "), "{text}");
        let samples = scrape().map_err(|error| format!("{error:?}"))?;
        let value = |name: &str| samples.get(name).copied();
        let labels = r#"{service="web",port_name="main",protocol="tcp"}"#;
        assert_eq!(value(&format!("holdfast_service_endpoints_ejected{labels}")), Some(1.0));
        assert_eq!(value(&format!("holdfast_service_endpoints_unhealthy{labels}")), Some(0.0));
        let total = r#"holdfast_outlier_ejections_total{reason="consecutive_failures"}"#;
        assert_eq!(value(total), Some(1.0));
        let _red = backend(1)?;
        wait_for(lab, 1, "active", "")?;
        wait_until_used(WEB, "red")?;
        let status = supervisor.wait_for_grant()?;
        assert_eq!(status.takeovers.count, 1, "one worker has done all of it: {status:?}");
        Ok(())
    });
}

#[test]
fn an_outlier_stays_out_over_every_worker_and_the_supervisor() {
    isolated(|lab| {
        let (red, _green) = (backend(1)?, backend(2)?);
        let mut supervisor = start(lab, &[web("base_time: 10s")])?;
        wait_until_used(WEB, "red")?;
        drop(red);
        fail_until_ejected(lab, 1)?;
        wait_for(lab, 1, "ejected", "")?;
        assert_only(WEB, "green");
        // Nobody listens there: whoever had it back would lose connections.
        let load = Load::start(&[Target::tcp(WEB, &NAMES)], SHAPE);
        for _ in 0..KILLS {
            kill_worker(&mut supervisor)?;
            wait_for(lab, 1, "ejected", "found ejected by the former worker; until ")?;
        }
        let epoch = supervisor.status()?.epoch;
        supervisor.signal(Signal::SIGHUP)?;
        supervisor.wait_for_grant_after(epoch)?;
        supervisor.end(Signal::SIGKILL)?;
        let file = lab.directory().join(FILE);
        let mut supervisor = lab.supervisor(&file).start()?;
        supervisor.wait_for_grant()?;
        wait_for(lab, 1, "ejected", "found ejected by the former worker; until ")?;
        let tally = load.finish();
        assert_eq!((tally.failed, tally.ungoverned), (0, 0), "{tally:?}");
        assert_eq!(tally.by_backend.keys().collect::<Vec<_>>(), ["green"], "{tally:?}");
        let _red = backend(1)?;
        wait_for(lab, 1, "active", "")?;
        wait_until_used(WEB, "red")?;
        Ok(())
    });
}

#[test]
fn a_new_worker_ejects_nobody_for_what_is_past() {
    isolated(|lab| {
        let (red, _green) = (backend(1)?, backend(2)?);
        let mut supervisor = start(lab, &[web("base_time: 1m")])?;
        wait_until_used(WEB, "red")?;
        drop(red);
        for _ in 0..KILLS {
            fail(FAILURES - 1)?;
            kill_worker(&mut supervisor)?;
        }
        // By now there are far more failures in a row than are asked for.
        assert_eq!(state(lab, 1)?.0, "active");
        fail_until_ejected(lab, 1)?;
        TestResult::Ok(())
    });
}

#[test]
fn no_more_are_out_than_the_ceiling_allows() {
    isolated(|lab| {
        let both = [backend(1)?, backend(2)?];
        let mut supervisor = start(lab, &[web("base_time: 1m, max_ejected_percent: 50")])?;
        wait_until_used(WEB, "red")?;
        drop(both);
        fail(4 * FAILURES)?;
        let out = || -> Result<usize, LabError> {
            let states = [state(lab, 1)?.0, state(lab, 2)?.0];
            Ok(states.iter().filter(|state| *state == "ejected").count())
        };
        eventually("one to be out", || {
            fail(1).map_err(|error| error.to_string())?;
            let out = out().map_err(|error| error.to_string())?;
            holds(out == 1, || format!("{out} are"))
        })?;
        for _ in 0..CONNECTIONS {
            fail(1)?;
            assert_eq!(out()?, 1);
        }
        // Where all may be out, connections go to all when all are.
        let all = web("base_time: 1m, max_ejected_percent: 100");
        put_in_force(lab, &mut supervisor, &render(&[all]))?;
        eventually("both to be out", || {
            fail(1).map_err(|error| error.to_string())?;
            let out = out().map_err(|error| error.to_string())?;
            holds(out == 2, || format!("{out} are"))
        })?;
        let (_, reason) = state(lab, 1)?;
        assert!(reason.ends_with("; used all the same, for want of a healthy one"), "{reason}");
        let _both = [backend(1)?, backend(2)?];
        wait_until_used(WEB, "red")?;
        wait_until_used(WEB, "green")?;
        Ok(())
    });
}

#[test]
fn a_passing_check_does_not_bring_an_outlier_back() {
    isolated(|lab| {
        let (red, _green) = (backend(1)?, backend(2)?);
        let servers = [HealthServer::at(at(1, HEALTH))?, HealthServer::at(at(2, HEALTH))?];
        let check = format!(
            "health_check: {{ http: {{ path: /healthz }}, port: {HEALTH}, interval: 100ms }}"
        );
        let mut supervisor = start(lab, &[web("base_time: 1m").key(&check)])?;
        wait_until_used(WEB, "red")?;
        drop(red);
        fail_until_ejected(lab, 1)?;
        assert_only(WEB, "green");
        kill_worker(&mut supervisor)?;
        // The next worker does not know which of the two it was, until checks have passed.
        wait_for(lab, 1, "ejected", "found ejected by the former worker; until ")?;
        assert_only(WEB, "green");
        servers[0].say(503);
        wait_for(lab, 1, "unhealthy", "answered 503")?;
        assert_only(WEB, "green");
        Ok(())
    });
}
