//! Access policies: who may connect to what, and that nothing in between decides.

use std::error::Error;
use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_lab::inside::Ended;
use holdfast_lab::random::Random;
use holdfast_lab::wait::holds;
use holdfast_lab::{
    Backend, Lab, LabError, Service, Supervisor, Target, TestResult, eventually, isolated, render,
};
use holdfast_tests::life::{Life, Restart};
use holdfast_tests::rows::{counted, rows};
use holdfast_tests::watch::Watch;

use crate::scene::{
    FILE, WEB, assert_reached, mapped, put_in_force, virtual_address, virtual_address6,
};

const WEB6: u16 = 0x10;

const DNS: SocketAddr = virtual_address(53, 53);

/// The service `web` in both families, behind which is `red`, with `policies` as YAML.
fn text(red: &Backend, policies: &str) -> String {
    let web = Service::tcp("web", WEB).at(virtual_address6(WEB6, 80).ip());
    render(&[web.endpoint(red.v4()).endpoint(red.v6())]) + policies
}

fn start(lab: &Lab, red: &Backend, policies: &str) -> Result<Supervisor, LabError> {
    let file = lab.write(FILE, text(red, policies))?;
    lab.supervisor(&file).start()
}

/// The addresses that lead to `red` through the service.
fn frontends() -> [SocketAddr; 3] {
    [WEB, mapped(WEB), virtual_address6(WEB6, 80)]
}

/// And those that are its own.
fn own(red: &Backend) -> [SocketAddr; 3] {
    [red.v4(), mapped(red.v4()), red.v6()]
}

#[track_caller]
fn assert_denied(address: SocketAddr) {
    let error = TcpStream::connect(address).expect_err("a policy denies it");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{address}: {error}");
}

#[track_caller]
fn assert_passes(address: SocketAddr) {
    assert_reached(&Target::tcp(address, &["red"]));
}

/// What the policy `name` has counted in `column`.
fn count(lab: &Lab, name: &str, column: &str) -> Result<u64, LabError> {
    let policies = rows(lab, "policies")?;
    let row = policies.iter().find(|row| row["policy"] == name);
    let count = row.and_then(|row| row[column].as_u64());
    count.ok_or_else(|| LabError::Unexpected(format!("no {column} of {name} in {policies:?}")))
}

#[test]
fn a_denied_caller_gets_eperm_at_once_through_a_service_and_past_it() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        let deny = |to: &str| {
            format!("policies:\n  - {{ name: closed, action: deny, rules: [{{ to: {to} }}] }}\n")
        };
        let mut supervisor = start(lab, &red, "")?;
        frontends().into_iter().chain(own(&red)).for_each(assert_passes);

        // The service's addresses: what is behind them is somebody else's business.
        let virtual_addresses = "{ cidrs: [127.96.0.0/16, \"fd96::/16\"], ports: [80] }";
        put_in_force(lab, &mut supervisor, &text(&red, &deny(virtual_addresses)))?;
        frontends().into_iter().for_each(assert_denied);
        own(&red).into_iter().for_each(assert_passes);
        assert_eq!(count(lab, "closed", "denied")?, 3);

        // The endpoint's: no way leads around it.
        let ports = format!("{{ ports: [{}, {}] }}", red.v4().port(), red.v6().port());
        put_in_force(lab, &mut supervisor, &text(&red, &deny(&ports)))?;
        frontends().into_iter().chain(own(&red)).for_each(assert_denied);
        assert_eq!(count(lab, "closed", "denied")?, 9, "it has gone on counting");

        let udp = UdpSocket::bind("127.0.0.1:0")?;
        let error = udp.connect(red.v4()).expect_err("UDP is no way around it either");
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        let connections = counted(lab, "web", "connections")?;
        put_in_force(lab, &mut supervisor, &text(&red, ""))?;
        frontends().into_iter().chain(own(&red)).for_each(assert_passes);
        assert_eq!(counted(lab, "web", "connections")?, connections + 3, "the denied do not count");
        assert_eq!(rows(lab, "policies")?.len(), 0);
        Ok(())
    });
}

#[test]
fn each_datagram_of_a_socket_that_is_not_connected_is_judged() {
    isolated(|lab| {
        let green = Backend::udp("green")?;
        let dns = Service::udp("dns", DNS).endpoint(green.v4());
        let text = |policies: &str| render(std::slice::from_ref(&dns)) + policies;
        let deny = |to: &str| {
            format!("policies:\n  - {{ name: closed, action: deny, rules: [{{ to: {to} }}] }}\n")
        };
        let file = lab.write(FILE, text(""))?;
        let mut supervisor = lab.supervisor(&file).start()?;
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(holdfast_lab::wait::PATIENCE))?;
        let is_answered = |address: SocketAddr| {
            socket.send_to(b"who?", address)?;
            let (_, source) = socket.recv_from(&mut [0; 256])?;
            Ok::<bool, std::io::Error>(source == address)
        };
        assert!(is_answered(DNS)? && is_answered(green.v4())?);

        // By the endpoint's port: a flow that exists is no way around it, nor is the endpoint itself.
        put_in_force(
            lab,
            &mut supervisor,
            &text(&deny(&format!("{{ ports: [{}] }}", green.v4().port()))),
        )?;
        for address in [DNS, green.v4()] {
            let error = is_answered(address).expect_err("a policy denies it");
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{address}: {error}");
        }
        assert_eq!(count(lab, "closed", "denied")?, 2);

        // By the virtual address.
        put_in_force(lab, &mut supervisor, &text(&deny("{ cidrs: [127.96.0.53], ports: [53] }")))?;
        assert!(is_answered(green.v4())?);
        let error = is_answered(DNS).expect_err("a policy denies it");
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        put_in_force(lab, &mut supervisor, &text(""))?;
        assert!(is_answered(DNS)?);
        Ok(())
    });
}

#[test]
fn a_full_endpoint_does_not_give_way_to_one_that_is_denied() {
    isolated(|lab| {
        let (red, green) = (Backend::tcp("red")?, Backend::tcp("green")?);
        let web = Service::tcp("web", WEB).endpoint(red.v4()).endpoint(green.v4());
        let denied = format!(
            "policies:\n  - {{ name: closed, action: deny, rules: [{{ to: {{ ports: [{}] }} }}] }}\n",
            green.v4().port()
        );
        let text = render(&[web.key("limits: { endpoint_connections: 1 }")]) + &denied;
        let file = lab.write(FILE, text)?;
        let _supervisor = lab.supervisor(&file).start()?;
        // Half of all draws are denied at once.
        let held = eventually("the only place of red", || TcpStream::connect(WEB))?;
        assert_eq!(held.peer_addr()?, WEB);
        for _ in 0..100 {
            let error = TcpStream::connect(WEB).expect_err("red is full, and green denied");
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        }
        // Nobody has kept a place that leads nowhere.
        drop(held);
        eventually("the place again", || TcpStream::connect(WEB)).map(drop)?;
        Ok(())
    });
}

#[test]
fn a_denial_comes_before_what_is_allowed_and_nothing_else_is_allowed() {
    isolated(|lab| {
        let (red, other) = (Backend::tcp("red")?, Backend::tcp("red")?);
        let policies = format!(
            "policies:
  - {{ name: allowed, action: allow, rules: [{{ to: {{ ports: [{}, 80] }} }}] }}
  - {{ name: denied, action: deny, rules: [{{ to: {{ cidrs: [127.96.0.10] }} }}] }}\n",
            red.v4().port()
        );
        let _supervisor = start(lab, &red, &policies)?;
        assert_passes(red.v4());
        assert_passes(virtual_address6(WEB6, 80));
        assert_denied(WEB);
        assert_denied(mapped(WEB));
        assert_denied(other.v4());
        assert_eq!((count(lab, "allowed", "denied")?, count(lab, "denied", "denied")?), (1, 2));
        Ok(())
    });
}

#[test]
fn not_forms_rule_out_what_was_asked_for_and_the_endpoint() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        let deny = |to: &str| {
            format!("policies:\n  - {{ name: rest, action: deny, rules: [{{ to: {to} }}] }}\n")
        };
        let mut supervisor = start(lab, &red, &deny("{ not_cidrs: [127.96.0.10] }"))?;
        assert_passes(WEB);
        assert_denied(red.v4());
        assert_denied(virtual_address6(WEB6, 80));
        let not_ports = format!("{{ not_ports: [{}] }}", red.v4().port());
        put_in_force(lab, &mut supervisor, &text(&red, &deny(&not_ports)))?;
        assert_passes(WEB);
        assert_passes(red.v4());
        assert_denied(red.v6());
        Ok(())
    });
}

#[test]
fn a_policy_that_is_tried_out_counts_and_lets_pass() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        let policies = "policies:
  - { name: trial, action: deny, dry_run: true, rules: [{ to: { cidrs: [127.96.0.10] } }] }\n";
        let _supervisor = start(lab, &red, policies)?;
        for _ in 0..3 {
            assert_passes(WEB);
        }
        assert_passes(red.v4());
        assert_eq!((count(lab, "trial", "denied")?, count(lab, "trial", "would_deny")?), (0, 3));
        Ok(())
    });
}

/// Connects to [`WEB`] from a process in `cgroup`.
fn connect_from(cgroup: &Path) -> Result<Ended, LabError> {
    let list = cgroup.join("cgroup.procs");
    let script = format!(
        "echo $$ > {} && read -r line < /dev/tcp/{}/{} && echo $line",
        list.display(),
        WEB.ip(),
        WEB.port()
    );
    Ended::run(Command::new("bash").args(["-c", &script]))
}

fn is_denied(ended: &Ended) -> Result<(), String> {
    holds(ended.stderr.contains("not permitted"), || format!("{ended:?}"))
}

fn passes(ended: &Ended) -> Result<(), String> {
    holds(ended.stdout.trim() == "red", || format!("{ended:?}"))
}

#[test]
fn a_workload_is_known_by_its_cgroup_and_by_those_above_it() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        let shop = lab.governed().join("shop");
        let front = shop.join("front");
        fs::create_dir_all(&front)?;
        let policies = format!(
            "identities:
  - {{ name: shop, namespace: all, cgroups: [{}] }}
  - {{ name: front, cgroups: [{}] }}
policies:
  - {{ name: not-the-shop, action: deny, rules: [{{ from: {{ namespaces: [all], not_identities: [front] }} }}] }}\n",
            shop.display(),
            front.display()
        );
        let _supervisor = start(lab, &red, &policies)?;
        assert_passes(WEB);
        is_denied(&connect_from(&shop)?)?;
        passes(&connect_from(&front)?)?;
        let back = shop.join("back/deep");
        fs::create_dir_all(&back)?;
        is_denied(&connect_from(&back)?)?;

        // One that is made anew has another id, and the policies follow it.
        fs::remove_dir(&front)?;
        fs::create_dir(&front)?;
        eventually("the new cgroup to be known", || {
            passes(&connect_from(&front).map_err(|error| error.to_string())?)
        })?;
        is_denied(&connect_from(&shop)?)?;
        Ok(())
    });
}

#[test]
fn policies_and_their_counts_outlive_every_restart() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        let policies = "policies:
  - { name: closed, action: deny, rules: [{ to: { cidrs: [127.96.0.10] } }] }\n";
        let file = lab.write(FILE, text(&red, policies))?;
        let mut life = Life::new(lab, file);
        life.start()?;
        let mut denied = 0;
        for restart in Restart::QUICK {
            let watch = Watch::start(|| match TcpStream::connect(WEB) {
                Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
                other => Err(format!("{other:?}")),
            });
            life.restart(restart)?;
            let seen = watch.finish();
            assert_eq!(seen.trouble, None, "{restart:?}");
            denied += seen.looks;
            assert_eq!(count(lab, "closed", "denied")?, denied, "{restart:?}");
            assert_passes(red.v4());
        }
        Ok(())
    });
}

/// Connections one right after the other, a microsecond each: a gap between two sets of policies would
/// last no longer.
const BURST: u32 = 2000;

fn is_refused(outcome: std::io::Result<()>) -> Result<(), String> {
    match outcome {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

/// Changes between two sets of policies that deny the same pair for different reasons.
const CHANGES: u64 = 40;

#[test]
fn what_is_denied_before_and_after_a_change_is_never_let_through() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        let sets = [
            "policies:
  - { name: by-address, action: deny, rules: [{ to: { cidrs: [127.96.0.10] } }] }\n",
            "policies:
  - { name: only-ipv6, action: allow, rules: [{ to: { cidrs: [\"::/0\"] } }] }\n",
        ];
        let mut supervisor = start(lab, &red, sets[0])?;
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        let looks = Arc::new(AtomicU64::new(0));
        let looked = Arc::clone(&looks);
        let denied = Watch::start(move || {
            (0..BURST).try_for_each(|_| is_refused(socket.connect(WEB)))?;
            is_refused(TcpStream::connect(WEB).map(drop))?;
            looked.fetch_add(1, Ordering::Relaxed);
            Ok(())
        });
        let allowed = Watch::start(|| {
            let connected = TcpStream::connect(virtual_address6(WEB6, 80));
            connected.map(drop).map_err(|error| error.to_string())
        });
        let mut random = Random::new(9);
        for change in 1..=CHANGES {
            let before = looks.load(Ordering::Relaxed);
            lab.write(FILE, text(&red, sets[usize::try_from(change % 2)?]))?;
            if random.below(2) == 0 {
                let workers = supervisor.workers();
                let _may_be_gone = workers.first().map(|worker| supervisor.kill_worker(*worker));
            }
            if random.below(2) == 0 {
                supervisor.wait_for_grant()?;
            }
            // However fast changes follow each other: one has not gone by unseen.
            let has_looked =
                || holds(looks.load(Ordering::Relaxed) > before, || "no look".to_owned());
            if eventually("a look", has_looked).is_err() {
                break;
            }
        }
        supervisor.wait_for_grant()?;
        denied.assert_right(CHANGES);
        allowed.assert_right(CHANGES);
        Ok::<(), Box<dyn Error>>(()) as TestResult
    });
}
