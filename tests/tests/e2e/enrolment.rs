//! Who is governed: everybody in the cgroup, or who is listed. A save changes it, and so does a listed
//! cgroup that comes or goes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::slice::from_ref;

use holdfast_lab::inside::Ended;
use holdfast_lab::wait::holds;
use holdfast_lab::{Backend, Lab, Service, TestResult, eventually, isolated, render};
use holdfast_tests::life::{Life, Restart};
use holdfast_tests::rows::counted;

use crate::scene::{FILE, WEB, put_in_force, virtual_address, web};

/// The configuration of `services` and an enrolment of `lists`.
fn configuration(services: &[Service], lists: &[(&str, &[PathBuf])]) -> String {
    let mut text = render(services);
    text.push_str("enrolment:\n");
    for (key, paths) in lists {
        let paths: Vec<String> = paths.iter().map(|path| format!("{}", path.display())).collect();
        text.push_str(&format!("  {key}: [{}]\n", paths.join(", ")));
    }
    text
}

fn cgroups(services: &[Service], paths: &[PathBuf]) -> String {
    configuration(services, &[("cgroups", paths)])
}

/// Makes the cgroup `name` below the governed one.
fn cgroup(lab: &Lab, name: &str) -> std::io::Result<PathBuf> {
    let path = lab.governed().join(name);
    fs::create_dir(&path)?;
    Ok(path)
}

/// Whether a process in `cgroup` that connects to [`WEB`] is governed: nobody is at the address itself.
fn is_governed(cgroup: &Path) -> Result<bool, Box<dyn std::error::Error>> {
    let (processes, ip, port) = (cgroup.join("cgroup.procs"), WEB.ip(), WEB.port());
    let script = format!(
        "echo $$ > {} && read -r line < /dev/tcp/{ip}/{port} && echo $line",
        processes.display()
    );
    let ended = Ended::run(Command::new("bash").args(["-c", &script]))?;
    match ended.stdout.trim() {
        "red" => Ok(true),
        _ if ended.stderr.contains("refused") => Ok(false),
        _ => Err(format!("{ended:?}").into()),
    }
}

#[track_caller]
fn assert_governed(cgroup: &Path, expected: bool) -> TestResult {
    assert_eq!(is_governed(cgroup)?, expected, "{}", cgroup.display());
    Ok(())
}

/// Waits until that is so: paths are looked up again every other second.
fn wait_until(cgroup: &Path, expected: bool) -> TestResult {
    let what = format!("{} to be governed: {expected}", cgroup.display());
    eventually(&what, || {
        let now = is_governed(cgroup).map_err(|error| error.to_string())?;
        holds(now == expected, || format!("{now}"))
    })?;
    Ok(())
}

#[test]
fn only_listed_cgroups_and_those_below_are_governed_and_a_save_changes_it() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        let services = [web(&red)];
        let (app, other) = (cgroup(lab, "app")?, cgroup(lab, "other")?);
        let deep = cgroup(lab, "app/deep")?;
        let mut life = Life::new(lab, lab.write(FILE, cgroups(&services, from_ref(&app)))?);
        life.start()?;
        let check = |expected: [bool; 4]| -> TestResult {
            for (path, expected) in [&app, &deep, &other, &lab.governed()].into_iter().zip(expected)
            {
                assert_governed(path, expected)?;
            }
            Ok(())
        };
        check([true, true, false, false])?;
        for restart in Restart::QUICK {
            life.restart(restart)?;
            check([true, true, false, false])?;
        }
        put_in_force(lab, life.supervisor(), &cgroups(&services, &[other.clone(), deep.clone()]))?;
        check([false, true, true, false])?;
        put_in_force(lab, life.supervisor(), &render(&services))?;
        check([true, true, true, true])
    });
}

#[test]
fn a_listed_cgroup_is_enrolled_when_it_comes_and_when_it_comes_again() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        let services = [web(&red)];
        let path = lab.governed().join("late");
        let file = lab.write(FILE, cgroups(&services, from_ref(&path)))?;
        let supervisor = lab.supervisor(&file).start()?;
        assert_governed(&lab.governed(), false)?;
        let log = fs::read_to_string(supervisor.log())?;
        assert!(log.contains("not enrolled until it is there") && log.contains("late"), "{log}");
        for _ in 0..2 {
            let late = cgroup(lab, "late")?;
            wait_until(&late, true)?;
            assert_governed(&lab.governed(), false)?;
            eventually("the cgroup to be empty", || fs::remove_dir(&late))?;
        }
        Ok(())
    });
}

#[test]
fn a_datagram_of_a_socket_that_is_not_enrolled_passes_untouched() {
    isolated(|lab| {
        let (green, dns) = (Backend::udp("green")?, virtual_address(53, 53));
        let services = [Service::udp("dns", dns).endpoint(green.v4())];
        let app = cgroup(lab, "app")?;
        let _own = Backend::udp_at("own", &[dns])?;
        let file = lab.write(FILE, cgroups(&services, &[app]))?;
        let mut supervisor = lab.supervisor(&file).start()?;
        let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(holdfast_lab::wait::PATIENCE))?;
        let ask = || -> Result<String, Box<dyn std::error::Error>> {
            let mut buffer = [0; 64];
            socket.send_to(b"who?", dns)?;
            let (length, source) = socket.recv_from(&mut buffer)?;
            assert_eq!(source, dns);
            Ok(String::from_utf8_lossy(&buffer[..length]).lines().next().unwrap_or("").to_owned())
        };
        assert_eq!(ask()?, "own");
        put_in_force(lab, &mut supervisor, &render(&services))?;
        assert_eq!(ask()?, "green");
        put_in_force(lab, &mut supervisor, &cgroups(&services, &[lab.control()]))?;
        assert_eq!(ask()?, "own");
        Ok(())
    });
}

#[test]
fn only_listed_network_namespaces_are_governed() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        let services = [web(&red)];
        let name = |name: &str, command: &str| -> Result<PathBuf, Box<dyn std::error::Error>> {
            let path = lab.write(name, "")?;
            let script = command.replace("PATH", &path.display().to_string());
            let ended = Ended::run(Command::new("bash").args(["-c", &script]))?;
            assert_eq!(ended.code, Some(0), "{ended:?}");
            Ok(path)
        };
        // Bound in the lab's own mount namespace, both are gone with it.
        let own = name("own", "mount --bind /proc/self/ns/net PATH")?;
        let blue = name("blue", "unshare --net=PATH true")?;
        let listed =
            |path: &PathBuf| configuration(&services, &[("network_namespaces", from_ref(path))]);
        let mut supervisor = lab.supervisor(&lab.write(FILE, listed(&own))?).start()?;
        assert_governed(&lab.governed(), true)?;
        put_in_force(lab, &mut supervisor, &listed(&blue))?;
        assert_governed(&lab.governed(), false)?;
        // Nobody serves in the other namespace, but what is governed is counted.
        let before = counted(lab, "web", "connections")?;
        let script = format!("true < /dev/tcp/{}/{}", WEB.ip(), WEB.port());
        let enter = format!("--net={}", blue.display());
        Ended::run(Command::new("nsenter").args([enter.as_str(), "bash", "-c", script.as_str()]))?;
        assert_eq!(counted(lab, "web", "connections")?, before + 1);
        Ok(())
    });
}
