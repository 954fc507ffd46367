//! A configuration that crashes workers.

use std::net::SocketAddr;

use holdfast_lab::control::{ask, socket_path};
use holdfast_lab::{Backend, Service, Target, binaries, isolated, render};
use holdfast_protocol::control::{Request, Response};
use holdfast_protocol::handover::ConfigState;
use holdfast_tests::builds::script;
use holdfast_tests::life::{Life, Restart};
use holdfast_tests::scene::{FILE, WEB, assert_reached, put_in_force, web};

/// Kibibytes of address space for a worker: enough for a small configuration, not for [`crashing`].
const LIMIT: u32 = 48 * 1024;

/// A valid configuration that no worker can read within [`LIMIT`].
fn crashing() -> String {
    const SERVICES: u16 = 12_000;
    let service = |number: u16| {
        let [high, low] = number.to_be_bytes();
        let address = SocketAddr::from(([127, 98, high, low], 80));
        Service::tcp(&format!("h{number}"), address).endpoint(([127, 0, 1, 1], 80).into())
    };
    render(&(0..SERVICES).map(service).collect::<Vec<_>>())
}

/// Crashes after which it is set aside; another supervisor finds out for itself.
const CRASHES: u64 = 3;

/// Kmesh: each retry of a bad configuration crashed the daemon again. One that crashes three workers is
/// set aside by its digest; the last good one stays in force, the status says so, and
/// another save lifts it.
#[test]
fn pf30_a_configuration_that_crashes_workers_is_set_aside() {
    isolated(|lab| {
        let (red, blue) = (Backend::tcp("red")?, Backend::tcp("blue")?);
        let real = binaries::find(binaries::WORKER)?;
        let commands = format!("ulimit -v {LIMIT}; exec {} \"$@\"", real.display());
        let file = lab.write(FILE, render(&[web(&red)]))?;
        let mut life = Life::new(lab, file).with("--worker", script(lab, "limited", &commands)?);
        let good = life.start()?.config.digest;
        life.supervisor().wait_until("the good one to have proved itself", |status| {
            status.config.snapshot.digest == good
        })?;
        lab.write(FILE, crashing())?;
        let aside = life.supervisor().wait_until("the bad one to be set aside", |status| {
            status.config.state == ConfigState::SetAside && status.worker.state == "granted"
        })?;
        assert_eq!(aside.config.digest, good);
        assert!(!aside.config.error.is_empty(), "{aside:?}");
        assert!(aside.takeovers.failed <= CRASHES, "{aside:?}");
        // A reload says that it cannot; everything else goes on with the good one.
        for restart in Restart::QUICK.into_iter().filter(|it| *it != Restart::Reload) {
            let status = life.restart(restart)?;
            assert_eq!(
                (status.config.state, &status.config.digest),
                (ConfigState::SetAside, &good)
            );
            assert!(status.takeovers.failed <= CRASHES, "{restart:?}: {status:?}");
            assert_reached(&Target::tcp(WEB, &["red"]));
        }
        let answer = ask(&socket_path(lab), &Request::Reload)?;
        assert!(matches!(answer, Response::Failed { .. }), "{answer:?}");
        put_in_force(lab, life.supervisor(), &render(&[web(&blue)]))?;
        assert_reached(&Target::tcp(WEB, &["blue"]));
        Ok(())
    });
}
