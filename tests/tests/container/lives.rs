//! A whole container goes and another one comes, and governance stays.

use std::time::Duration;

use holdfast_lab::load::Shape;
use holdfast_lab::{Backend, Census, Lab, Load, Stream, Target, TestResult, isolated, render};
use holdfast_protocol::control::{LinkStatus, Status};
use holdfast_tests::scene::{WEB, assert_reached, wait_until_reached, wait_until_ungoverned, web};
use nix::sys::signal::Signal;

use crate::bundle::{Bundle, CONFIGURATION};
use crate::container::Container;

/// Connections made while no container exists, beside those of the load.
const WITHOUT_A_CONTAINER: u32 = 200;

/// How many containers follow each other.
const LIVES: u32 = 3;

/// Clients all the while.
const SHAPE: Shape = Shape { clients: 3, rest: Duration::from_millis(1), seed: 29 };

/// What a runtime sees of a process that was killed.
const KILLED: i32 = 128 + Signal::SIGKILL as i32;

/// Puts a configuration with these backends where containers have it mounted.
pub fn configure(lab: &Lab, backends: &[&Backend]) -> TestResult {
    let service = backends
        .iter()
        .skip(1)
        .fold(web(backends[0]), |service, backend| service.endpoint(backend.v4()));
    lab.write(&format!("{CONFIGURATION}/web.yaml"), render(&[service]))?;
    Ok(())
}

/// What identifies the links, whoever serves.
fn identity(status: &Status) -> Vec<(u32, u32, String)> {
    let identity = |link: &LinkStatus| (link.link_id, link.prog_id, link.attach_type.clone());
    status.links.iter().map(identity).collect()
}

/// Ends containers with `end`, one after the other.
fn governance_outlives(
    lab: &Lab,
    end: impl Fn(&Container<'_>) -> TestResult,
    code: i32,
) -> TestResult {
    let (red, blue) = (Backend::tcp("red")?, Backend::tcp("blue")?);
    configure(lab, &[&red])?;
    let mut container = Container::start(lab, &Bundle::new(lab, "run-0")?)?;
    let first = container.status()?;
    assert_eq!(first.supervisor.pid, 1, "process 1 of its own pid namespace");
    let objects = Census::take(lab, &Census::default())?.objects;
    let target = Target::tcp(WEB, &["red", "blue"]);
    let load = Load::start(std::slice::from_ref(&target), SHAPE);
    let stream = Stream::open(WEB, 31)?;

    let mut epoch = first.epoch;
    for life in 1..=LIVES {
        end(&container)?;
        assert_eq!(container.ended()?, code);
        for _ in 0..WITHOUT_A_CONTAINER {
            assert_reached(&target);
        }
        container = Container::start(lab, &Bundle::new(lab, &format!("run-{life}"))?)?;
        let status = container.status()?;
        assert_eq!(identity(&status), identity(&first), "adopted, not made again");
        assert!(status.links.iter().all(|link| link.ok && link.pinned), "{status:?}");
        assert_eq!(Census::take(lab, &Census::default())?.objects, objects, "the same maps, too");
        assert!(status.epoch > epoch, "epochs go on: {epoch}, then {}", status.epoch);
        epoch = status.epoch;
    }

    configure(lab, &[&blue])?;
    wait_until_reached(&Target::tcp(WEB, &["blue"]))?;
    let (tally, stream) = (load.finish(), stream.finish());
    assert_eq!((tally.failed, tally.ungoverned), (0, 0), "{tally:?}");
    assert!(tally.reached > u64::from(LIVES), "{tally:?}");
    assert!(stream.broken.is_none() && stream.bytes > 0, "{stream:?}");
    println!("{} connects, 0 failed; a stream of {} bytes", tally.reached, stream.bytes);
    end(&container)?;
    container.ended()?;
    Ok(())
}

#[test]
fn governance_outlives_containers_whose_first_process_is_killed() {
    isolated(|lab| {
        let kill = |container: &Container<'_>| Ok(container.init()?.signal(Signal::SIGKILL)?);
        governance_outlives(lab, kill, KILLED)
    });
}

#[test]
fn governance_outlives_containers_that_are_deleted_by_force() {
    isolated(|lab| {
        let delete =
            |container: &Container<'_>| container.runc(&["delete", "--force"], &[]).map(drop);
        governance_outlives(lab, delete, KILLED)
    });
}

#[test]
fn governance_outlives_containers_that_are_told_to_leave() {
    isolated(|lab| {
        let stop = |container: &Container<'_>| container.runc(&["kill"], &["TERM"]).map(drop);
        governance_outlives(lab, stop, 0)
    });
}

/// `uninstall` removes everything beside, or after, a container that has served.
fn leaves_nothing(
    lab: &Lab,
    uninstall: impl FnOnce(Container<'_>) -> Result<String, Box<dyn std::error::Error>>,
) -> TestResult {
    let red = Backend::tcp("red")?;
    configure(lab, &[&red])?;
    let before = Census::take(lab, &Census::default())?;
    let container = Container::start(lab, &Bundle::new(lab, "run-0")?)?;
    let target = Target::tcp(WEB, &["red"]);
    assert_reached(&target);
    let during = Census::take(lab, &before)?;
    assert!(during.objects.len() > 12 && !during.processes.is_empty(), "{during:?}");
    let said = uninstall(container)?;
    assert!(said.contains("connect4"), "it lists what it removed: {said}");
    before.wait_for_return(lab, &during)?;
    wait_until_ungoverned(&target)?;
    Ok(())
}

/// What is run beside process 1 dies with it, and has to have said everything before.
fn leaves_nothing_when_executed_inside(lab: &Lab, uninstall: &[&str]) -> TestResult {
    leaves_nothing(lab, |mut container| {
        let said = container.runc(&["exec"], uninstall)?;
        assert_eq!(container.ended()?, 0);
        Ok(said)
    })
}

#[test]
fn uninstalling_inside_a_running_container_leaves_nothing() {
    isolated(|lab| {
        let uninstall = ["/usr/bin/holdfastctl", "--instance", "lab", "uninstall"];
        leaves_nothing_when_executed_inside(lab, &uninstall)
    });
}

#[test]
fn a_second_holdfast_inside_a_running_container_uninstalls_it_and_leaves_nothing() {
    isolated(|lab| {
        let uninstall = ["/usr/bin/holdfast", "uninstall", "--instance", "lab", "--bpffs", "/bpf"];
        leaves_nothing_when_executed_inside(lab, &uninstall)
    });
}

#[test]
fn uninstalling_in_a_container_of_its_own_leaves_nothing() {
    isolated(|lab| {
        leaves_nothing(lab, |mut container| {
            container.init()?.signal(Signal::SIGKILL)?;
            container.ended()?;
            let bundle = Bundle::new(lab, "run-1")?.uninstalling()?;
            let mut uninstall = Container::spawn(lab, &bundle)?;
            assert_eq!(uninstall.ended()?, 0, "{}", uninstall.log());
            Ok(uninstall.log())
        })
    });
}
