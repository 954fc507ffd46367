//! What connections get while nobody, or somebody new, is in charge.

use std::fs;
use std::io::ErrorKind;
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use holdfast_lab::load::Shape;
use holdfast_lab::wait::holds;
use holdfast_lab::{
    Attempt, Backend, Lab, Load, Service, Stream, Target, TestResult, attempt, cgroup, eventually,
    isolated, render,
};
use holdfast_protocol::handover::ConfigState;
use holdfast_tests::life::{Life, Restart};
use holdfast_tests::rows::counted;
use holdfast_tests::scene::{
    FILE, WEB, assert_reached, put_in_force, virtual_address, wait_until_ungoverned, web,
};
use holdfast_tests::watch::Watch;
use nix::sys::signal::Signal;

/// Kmesh #1204, #1265: each restart deleted every authorization policy and put it in again, and what
/// was denied was allowed in between. A service that refuses does so at every instant before, during
/// and after every restart and save; somebody listens at its address, so that a gap lets through.
#[test]
fn pf09_what_is_refused_is_refused_at_every_instant() {
    isolated(|lab| {
        let (red, blue) = (Backend::tcp("red")?, Backend::tcp("blue")?);
        let denied = virtual_address(20, 80);
        let _behind_the_gap = Backend::tcp_at("gap", &[denied])?;
        let services = |backend: &Backend| {
            render(&[Service::tcp("deny", denied).no_endpoint("deny"), web(backend)])
        };
        let mut life = Life::new(lab, lab.write(FILE, services(&red))?);
        life.start()?;
        let allowed = Target::tcp(WEB, &["red", "blue"]);
        let watch = Watch::start(move || {
            let refused = TcpStream::connect_timeout(&denied, Duration::from_secs(20));
            let as_told = matches!(&refused, Err(e) if e.kind() == ErrorKind::PermissionDenied);
            holds(as_told, || format!("what is denied got {refused:?}"))?;
            match attempt(&allowed) {
                Attempt::Reached(_) => Ok(()),
                other => Err(format!("what is allowed got {other:?}")),
            }
        });
        for restart in Restart::QUICK {
            life.restart(restart)?;
            for backend in [&blue, &red] {
                put_in_force(lab, life.supervisor(), &services(backend))?;
            }
        }
        // A time in which nobody serves, and a configuration that changed meanwhile.
        life.end(Signal::SIGKILL)?;
        lab.write(FILE, services(&blue))?;
        life.start()?;
        assert_reached(&Target::tcp(WEB, &["blue"]));
        watch.assert_right(200);
        Ok(())
    });
}

/// Cilium #45077, #30609: programs that a stopped agent had left behind cut the host off for minutes.
/// What stays attached while no process of ours exists forwards, refuses and counts as ever, however
/// many connections that takes; nothing in it depends on time.
#[test]
fn pf12_what_stays_attached_without_a_process_works_on() {
    const CONNECTIONS: u64 = 5_000;
    isolated(|lab| {
        let (red, green) = (Backend::tcp("red")?, Backend::udp("green")?);
        let (dns, deny) = (virtual_address(53, 53), virtual_address(20, 80));
        let services = [
            web(&red),
            Service::udp("dns", dns).endpoint(green.v4()),
            Service::tcp("deny", deny).no_endpoint("deny"),
        ];
        let mut life = Life::new(lab, lab.write(FILE, render(&services))?);
        life.start()?;
        let stream = Stream::open(WEB, 12)?;
        let count = |lab: &Lab| -> Result<u64, Box<dyn std::error::Error>> {
            let (web, dns) =
                (counted(lab, "web", "connections")?, counted(lab, "dns", "connections")?);
            Ok(web + dns)
        };
        let before = count(lab)?;
        life.end(Signal::SIGKILL)?;
        assert_eq!(cgroup::processes(&lab.control())?, [0_u32; 0], "no process is left");

        let targets = [Target::tcp(WEB, &["red"]), Target::udp(dns, &["green"])];
        let load = Load::start(&targets, Shape { clients: 2, rest: Duration::ZERO, seed: 12 });
        eventually("enough connections", || match load.so_far().connections() {
            CONNECTIONS.. => Ok(()),
            fewer => Err(fewer),
        })?;
        let tally = load.finish();
        assert_eq!((tally.failed, tally.ungoverned), (0, 0), "{tally:?}");
        for _ in 0..100 {
            let error = TcpStream::connect(deny).expect_err("there is no endpoint");
            assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        }
        let sofar = stream.bytes();
        eventually("the stream to go on", || {
            holds(stream.bytes() > sofar, || "it stands still".to_owned())
        })?;

        life.start()?;
        assert_eq!(count(lab)?, before + tally.reached, "each was counted");
        assert_eq!(counted(lab, "deny", "refused")?, 100);
        assert_eq!(stream.finish().broken, None);
        Ok(())
    });
}

/// Cilium #29667: the first clean-up after a restart removed state of connections that were in use. A
/// restarted worker deletes nothing until it knows all that it is to serve, and what connections rest
/// on is never its to delete.
#[test]
fn pf13_nothing_is_deleted_before_the_desired_state_is_complete() {
    isolated(|lab| {
        let (red, green) = (Backend::tcp("red")?, Backend::udp("green")?);
        let (api, dns) = (virtual_address(30, 80), virtual_address(53, 53));
        let dns_service = Service::udp("dns", dns).endpoint(green.v4());
        let a = render(&[web(&red), dns_service]);
        let b = render(&[Service::tcp("api", api).endpoint(red.v4())]);
        lab.write("services/a.yaml", &a)?;
        let other = lab.write("services/b.yaml", &b)?;
        let mut life = Life::new(lab, lab.directory().join("services"));
        life.start()?;

        let connection = TcpStream::connect(WEB)?;
        let datagrams = UdpSocket::bind("0.0.0.0:0")?;
        datagrams.connect(dns)?;
        let targets =
            [Target::tcp(WEB, &["red"]), Target::tcp(api, &["red"]), Target::udp(dns, &["green"])];
        let load =
            Load::start(&targets, Shape { clients: 2, rest: Duration::from_millis(1), seed: 13 });
        let half = &b[..b.len() / 2];
        for restart in Restart::QUICK {
            // Half written, and not there yet: what it held stays until what it holds is known.
            for incomplete in [Some(half), None] {
                match incomplete {
                    Some(text) => drop(lab.write("services/b.yaml", text)?),
                    // A link that leads nowhere: the file is meant to be there.
                    None => {
                        fs::remove_file(&other)?;
                        std::os::unix::fs::symlink("nowhere.yaml", &other)?;
                    }
                }
                life.supervisor().wait_until("it to be missed", |status| {
                    status.config.state == ConfigState::Rejected
                })?;
                if restart != Restart::Reload {
                    life.restart(restart)?;
                }
                let services = life.supervisor().status()?.services;
                assert_eq!(services, 3, "{restart:?} with {incomplete:?}");
            }
            fs::remove_file(&other)?;
            lab.write("services/b.yaml", &b)?;
            life.supervisor()
                .wait_until("all of it", |status| status.config.state == ConfigState::InForce)?;
            assert_eq!(connection.peer_addr()?, WEB, "after {restart:?}");
            assert_eq!(datagrams.peer_addr()?, dns, "after {restart:?}");
        }
        let tally = load.finish();
        assert_eq!((tally.failed, tally.ungoverned), (0, 0), "{tally:?}");

        // Complete, and without it: now it goes, and the connections stay as they are.
        fs::remove_file(&other)?;
        wait_until_ungoverned(&Target::tcp(api, &["red"]))?;
        assert_reached(&Target::tcp(WEB, &["red"]));
        assert_eq!((connection.peer_addr()?, datagrams.peer_addr()?), (WEB, dns));
        TestResult::Ok(())
    });
}
