//! What judges arriving connections costs each packet that arrives: it is attached once a policy is about them,
//! before that is in force, and stays so whoever dies, until the uninstall.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::thread;
use std::time::Duration;

use holdfast_bpf::{link, object};
use holdfast_lab::census::Census;
use holdfast_lab::random::Random;
use holdfast_lab::{Backend, Lab, LabError, TestResult, eventually, isolated, render};
use holdfast_protocol::control::{LinkStatus, Status};
use holdfast_protocol::handover::ConfigState;
use holdfast_protocol::kernel::program;
use holdfast_protocol::manifest::Kind;
use holdfast_protocol::pin;
use holdfast_tests::hooks::{self, INGRESS};
use holdfast_tests::life::{Life, Restart};
use nix::sys::signal::Signal;

use crate::scene::{FILE, WEB, assert_reached, put_in_force, web};

/// How long a packet that was let through may take over loopback, many times over.
const PATIENCE: Duration = Duration::from_millis(500);

/// A policy that denies what arrives at the port of `listener`.
fn closed(listener: &TcpListener) -> String {
    let port = listener.local_addr().expect("it is bound").port();
    format!(
        "services: []\npolicies:\n  - {{ name: closed, direction: inbound, action: deny, rules: [{{ to: {{ \
         ports: [{port}] }} }}] }}\n"
    )
}

/// Whether a connection is established; one whose first segment is dropped is not.
fn arrives(listener: &TcpListener) -> bool {
    let address: SocketAddr = listener.local_addr().expect("it is bound");
    match TcpStream::connect_timeout(&address, PATIENCE) {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::TimedOut, "{address}: {error}");
            false
        }
    }
}

/// How many of our programs look at what arrives in the governed cgroup, by the kernel's word.
fn attached(lab: &Lab) -> Result<usize, Box<dyn std::error::Error>> {
    Ok(hooks::programs_of_ours(&lab.governed(), INGRESS, &hooks::map_ids(lab)?)?.len())
}

fn ingress(status: &Status) -> &LinkStatus {
    status.links.iter().find(|link| link.name == program::INGRESS).expect("it is in the estate")
}

fn pinned(lab: &Lab) -> Result<OwnedFd, holdfast_bpf::BpfError> {
    object::get(&hooks::pin(lab, Kind::Link, program::INGRESS))
}

fn start<'a>(lab: &'a Lab, text: &str) -> Result<Life<'a>, LabError> {
    let mut life = Life::new(lab, lab.write(FILE, text)?);
    life.start()?;
    Ok(life)
}

#[test]
fn nothing_is_attached_before_a_policy_is_about_what_arrives() {
    isolated(|lab| -> TestResult {
        let before = Census::take(lab, &Census::default())?;
        let red = Backend::tcp("red")?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mut life = start(lab, &render(&[web(&red)]))?;
        // What leaves is judged elsewhere.
        let leaving = "policies: [{ name: o, action: deny, rules: [{ to: { ports: [9] } }] }]\n";
        let other = format!("{}{leaving}", render(&[web(&red)]));
        put_in_force(lab, life.supervisor(), &other)?;
        for restart in
            [Restart::WorkerKilled, Restart::SupervisorKilled, Restart::SupervisorReplaced]
        {
            let status = life.restart(restart)?;
            assert_eq!(attached(lab)?, 0, "{restart:?}");
            let link = ingress(&status);
            assert!(link.is_idle() && link.pinned, "{restart:?}: {link:?}");
            assert_eq!((status.drift.repairs, status.drift.open.len()), (0, 0), "{restart:?}");
        }
        assert!(lab.ctl(&["links"])?.stdout.contains("not needed"));
        assert!(arrives(&listener));
        assert_reached(&holdfast_lab::Target::tcp(WEB, &["red"]));

        put_in_force(lab, life.supervisor(), &closed(&listener))?;
        assert_eq!(attached(lab)?, 1, "it is in force: it was attached before");
        assert!(!arrives(&listener));
        let status = life.supervisor().status()?;
        let link = ingress(&status).clone();
        assert!(link.ok && link.pinned && !link.is_idle(), "{link:?}");
        assert_eq!((status.drift.repairs, status.drift.open.len()), (0, 0), "nothing was broken");
        assert_eq!(
            status.worker.epoch, status.epoch,
            "the worker that asked is the one that serves"
        );
        hooks::check(lab)?;

        // Nothing that governs is taken away: it stays when the last such policy is gone.
        put_in_force(lab, life.supervisor(), &other)?;
        assert_eq!(*ingress(&life.restart(Restart::SupervisorKilled)?), link);
        assert!(arrives(&listener));
        let during = Census::take(lab, &before)?;
        let ended = lab.uninstall()?;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(ended.stdout.contains(program::INGRESS), "{ended:?}");
        life.supervisor().ended()?;
        before.wait_for_return(lab, &during)?;
        Ok(())
    });
}

#[test]
fn it_stays_attached_whoever_is_restarted() {
    isolated(|lab| -> TestResult {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mut life = start(lab, &closed(&listener))?;
        let link = ingress(&life.supervisor().status()?).clone();
        assert!(link.ok && !link.is_idle(), "{link:?}");
        for restart in Restart::QUICK {
            let status = life.restart(restart)?;
            assert_eq!(*ingress(&status), link, "{restart:?}");
            assert_eq!(status.config.state, ConfigState::InForce, "{restart:?}");
            assert_eq!(attached(lab)?, 1, "{restart:?}");
            assert!(!arrives(&listener), "{restart:?}");
        }
        Ok(())
    });
}

#[test]
fn a_save_that_needs_it_is_in_force_with_it_whoever_is_killed_meanwhile() {
    const ROUNDS: u32 = 8;
    /// A loader takes about two hundred milliseconds, of which this is somewhat more.
    const LATEST_MS: u64 = 300;
    isolated(|lab| -> TestResult {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mut random = Random::new(5);
        for round in 0..ROUNDS {
            let mut life = start(lab, "services: []\n")?;
            assert_eq!(attached(lab)?, 0, "round {round}");
            lab.write(FILE, closed(&listener))?;
            // The instant is the fault that is tried, and not a wait for anything.
            thread::sleep(Duration::from_millis(random.below(LATEST_MS)));
            let restart = match round % 2 {
                0 => Restart::WorkerKilled,
                _ => Restart::SupervisorKilled,
            };
            life.restart(restart)?;
            life.supervisor().wait_until("the policy in force", |status| {
                status.config.state == ConfigState::InForce
                    && status.config.error.is_empty()
                    && has_policy(lab)
            })?;
            assert_eq!(attached(lab)?, 1, "round {round}: {restart:?}");
            assert!(!arrives(&listener), "round {round}: {restart:?}");
            hooks::check(lab)?;
            let ended = lab.uninstall()?;
            assert_eq!(ended.code, Some(0), "{ended:?}");
            life.supervisor().ended()?;
        }
        Ok(())
    });
}

/// Whether the one policy is programmed, by what people see.
fn has_policy(lab: &Lab) -> bool {
    holdfast_tests::rows::rows(lab, "policies").is_ok_and(|rows| rows.len() == 1)
}

#[test]
fn one_that_is_needed_and_was_detached_is_attached_again() {
    isolated(|lab| -> TestResult {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mut life = start(lab, &closed(&listener))?;
        link::detach(pinned(lab)?.as_fd())?;
        let status = life.supervisor().wait_until("the repair", |status| {
            status.drift.repairs == 1 && status.drift.open.is_empty()
        })?;
        assert_eq!(status.drift.last, "link hf_ingress is detached");
        assert!(!arrives(&listener));
        hooks::check(lab)?;

        // While nobody serves, by what the policies in force say.
        life.end(Signal::SIGKILL)?;
        link::detach(pinned(lab)?.as_fd())?;
        assert!(arrives(&listener), "nothing judges it");
        life.start()?;
        assert_eq!(attached(lab)?, 1);
        assert!(!arrives(&listener));

        // And once it was needed, though nothing is judged by now.
        put_in_force(lab, life.supervisor(), "services: []\n")?;
        link::detach(pinned(lab)?.as_fd())?;
        life.supervisor().wait_until("the repair", |status| {
            status.drift.repairs == 1 && status.drift.open.is_empty()
        })?;
        assert_eq!(attached(lab)?, 1);
        Ok(())
    });
}

/// Fills the hook with programs of somebody else's: those of a second instance.
fn fill(lab: &Lab) -> Result<Vec<OwnedFd>, Box<dyn std::error::Error>> {
    const OTHER: &str = "other";
    const MAX_PROGRAMS: usize = 64;
    let below = lab.governed().join(OTHER);
    std::fs::create_dir(&below)?;
    let file = lab.write("other.yaml", "services: []\n")?;
    let other = Life::new(lab, file).with("--instance", OTHER).with("--cgroup", below);
    other.launch().start()?.end(Signal::SIGTERM)?;
    let theirs = object::get(&pin::path(&lab.bpffs(), OTHER, Kind::Program, program::INGRESS))?;
    let cgroup = std::fs::File::open(lab.governed())?;
    (0..MAX_PROGRAMS)
        .map(|_| link::create(theirs.as_fd(), cgroup.as_fd(), INGRESS).map_err(Into::into))
        .collect()
}

#[test]
fn what_cannot_be_attached_is_said_and_in_force_once_it_can() {
    isolated(|lab| -> TestResult {
        let red = Backend::tcp("red")?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mut life = start(lab, &render(&[web(&red)]))?;
        let foreign = fill(lab)?;
        lab.write(FILE, closed(&listener))?;
        let status = life
            .supervisor()
            .wait_until("the refusal", |status| status.config.state == ConfigState::DoesNotFit)?;
        for part in ["arriving connections", "64 programs", "direction: inbound"] {
            assert!(status.config.error.contains(part), "`{part}` in: {}", status.config.error);
        }
        assert_eq!((status.services, attached(lab)?), (1, 0));
        assert!(arrives(&listener));
        assert_reached(&holdfast_lab::Target::tcp(WEB, &["red"]));

        foreign.iter().try_for_each(|link| link::detach(link.as_fd()))?;
        life.supervisor().wait_until("the policy in force", |status| {
            status.config.state == ConfigState::InForce
        })?;
        assert_eq!(attached(lab)?, 1);
        assert!(!arrives(&listener));
        eventually("the rest to be right", || hooks::check(lab))?;
        Ok(())
    });
}
