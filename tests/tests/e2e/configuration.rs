//! A save is in force without any command.

use std::error::Error;
use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use holdfast_lab::load::Shape;
use holdfast_lab::{Backend, Lab, Load, Service, Target, TestResult, isolated, render};
use holdfast_protocol::handover::ConfigState;

use crate::scene::{
    FILE, Scene, WEB, put_in_force, serve, virtual_address, wait_until_reached,
    wait_until_ungoverned, web,
};

#[test]
fn a_file_renamed_over_the_old_one_is_in_force() {
    isolated(|lab| {
        let scene = Scene::start(lab)?;
        let blue = Backend::tcp("blue")?;
        lab.write(FILE, render(&[web(&blue)]))?;
        wait_until_reached(&Target::tcp(WEB, &["blue"]))?;
        let status = scene.supervisor.status()?;
        assert_eq!((status.epoch, status.takeovers.count), (1, 1), "no other worker was needed");
        Ok(())
    });
}

#[test]
fn a_file_written_in_place_is_in_force() {
    isolated(|lab| {
        let scene = Scene::start(lab)?;
        let blue = Backend::tcp("blue")?;
        fs::write(&scene.file, render(&[web(&blue)]))?;
        wait_until_reached(&Target::tcp(WEB, &["blue"])).map_err(Into::into)
    });
}

#[test]
fn services_come_and_go_with_the_file() {
    isolated(|lab| {
        let mut scene = Scene::start(lab)?;
        let api = Service::tcp("api", virtual_address(20, 8080)).endpoint(scene.red.v4());
        let api_target = Target::tcp(virtual_address(20, 8080), &["red"]);
        let status =
            put_in_force(lab, &mut scene.supervisor, &render(&[web(&scene.red), api.clone()]))?;
        assert_eq!((status.services, status.endpoints), (2, 2));
        wait_until_reached(&api_target)?;
        scene.assert_governed();
        put_in_force(lab, &mut scene.supervisor, &render(&[api]))?;
        wait_until_ungoverned(&scene.target())?;
        wait_until_reached(&api_target)?;
        Ok(())
    });
}

#[test]
fn a_file_that_appears_again_is_in_force() {
    isolated(|lab| {
        let mut scene = Scene::start(lab)?;
        fs::remove_file(&scene.file)?;
        scene.supervisor.wait_until("the missing file to be noticed", |status| {
            status.config.state == ConfigState::Rejected
        })?;
        scene.assert_governed();
        let blue = Backend::tcp("blue")?;
        lab.write(FILE, render(&[web(&blue)]))?;
        wait_until_reached(&Target::tcp(WEB, &["blue"]))?;
        Ok(())
    });
}

#[test]
fn a_directory_of_files_is_one_configuration() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        let service = |name: &str, host| {
            render(&[Service::tcp(name, virtual_address(host, 80)).endpoint(red.v4())])
        };
        let target = |host| Target::tcp(virtual_address(host, 80), &["red"]);
        lab.write("services/a.yaml", service("a", 1))?;
        lab.write("services/b.yaml", service("b", 2))?;
        let supervisor = lab.supervisor(&lab.directory().join("services")).start()?;
        assert_eq!(supervisor.status()?.services, 2);
        wait_until_reached(&target(1))?;
        wait_until_reached(&target(2))?;
        lab.write("services/c.yaml", service("c", 3))?;
        wait_until_reached(&target(3))?;
        fs::remove_file(lab.directory().join("services/a.yaml"))?;
        wait_until_ungoverned(&target(1))?;
        wait_until_reached(&target(2))?;
        Ok(())
    });
}

/// Lays out a mounted ConfigMap as the kubelet does: the files are links into `..data`, which is a
/// link to a directory of one version.
fn mount_config_map(lab: &Lab, text: &str) -> TestResult {
    publish_config_map(lab, "..2026_01_01_first", text)?;
    symlink(format!("..data/{FILE}"), lab.directory().join("volume").join(FILE))?;
    Ok(())
}

/// Publishes a version as the kubelet does: a new directory, and `..data` renamed over.
fn publish_config_map(lab: &Lab, version: &str, text: &str) -> TestResult {
    lab.write(&format!("volume/{version}/{FILE}"), text)?;
    let volume = lab.directory().join("volume");
    symlink(version, volume.join("..data_tmp"))?;
    fs::rename(volume.join("..data_tmp"), volume.join("..data"))?;
    Ok(())
}

fn config_map_updates(lab: &Lab, configuration: &str) -> TestResult {
    let (red, blue) = (Backend::tcp("red")?, Backend::tcp("blue")?);
    mount_config_map(lab, &render(&[web(&red)]))?;
    let _supervisor = lab.supervisor(&lab.directory().join(configuration)).start()?;
    wait_until_reached(&Target::tcp(WEB, &["red"]))?;
    publish_config_map(lab, "..2026_01_02_second", &render(&[web(&blue)]))?;
    fs::remove_dir_all(lab.directory().join("volume/..2026_01_01_first"))?;
    wait_until_reached(&Target::tcp(WEB, &["blue"]))?;
    publish_config_map(lab, "..2026_01_03_third", &render(&[web(&red)]))?;
    wait_until_reached(&Target::tcp(WEB, &["red"]))?;
    Ok(())
}

#[test]
fn a_config_map_mounted_as_a_directory_is_followed() {
    isolated(|lab| config_map_updates(lab, "volume"));
}

#[test]
fn a_file_of_a_config_map_is_followed() {
    isolated(|lab| config_map_updates(lab, &format!("volume/{FILE}")));
}

/// Switches between two configurations many times under connect load; every connection counts.
fn switching_loses_nothing(
    lab: &Lab,
    targets: &[Target],
    one: &[Service],
    other: &[Service],
) -> Result<(), Box<dyn Error>> {
    const SWITCHES: usize = 60;
    let mut supervisor = serve(lab, one)?;
    let shape = Shape { clients: 4, rest: Duration::from_micros(500), seed: 5 };
    let load = Load::start(targets, shape);
    for configuration in [other, one].into_iter().cycle().take(SWITCHES) {
        put_in_force(lab, &mut supervisor, &render(configuration))?;
    }
    let tally = load.finish();
    assert_eq!((tally.failed, tally.ungoverned), (0, 0), "{tally:?}");
    assert!(tally.reached > SWITCHES as u64, "{tally:?}");
    Ok(())
}

#[test]
fn renaming_a_service_under_load_loses_no_connection() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        let other = Service::tcp("webber", WEB).endpoint(red.v4());
        switching_loses_nothing(lab, &[Target::tcp(WEB, &["red"])], &[web(&red)], &[other])
    });
}

#[test]
fn moving_an_address_between_services_under_load_loses_no_connection() {
    isolated(|lab| {
        let (red, blue) = (Backend::tcp("red")?, Backend::tcp("blue")?);
        let [a, b, moved] = [1, 2, 3].map(|host| virtual_address(host, 80));
        let of_a = Service::tcp("a", a).endpoint(red.v4());
        let of_b = Service::tcp("b", b).endpoint(blue.v4());
        let one = [of_a.clone().at(moved.ip()), of_b.clone()];
        let other = [of_a, of_b.at(moved.ip())];
        let targets = [
            Target::tcp(a, &["red"]),
            Target::tcp(b, &["blue"]),
            Target::tcp(moved, &["red", "blue"]),
        ];
        switching_loses_nothing(lab, &targets, &one, &other)
    });
}

#[test]
fn replacing_every_endpoint_under_load_loses_no_connection() {
    isolated(|lab| {
        let (red, blue) = (Backend::tcp("red")?, Backend::tcp("blue")?);
        let targets = [Target::tcp(WEB, &["red", "blue"])];
        switching_loses_nothing(lab, &targets, &[web(&red)], &[web(&blue)])
    });
}
