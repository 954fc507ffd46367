//! Access policies about what arrives: who may connect to a workload, and what becomes of those who have.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use holdfast_lab::{Lab, LabError, Supervisor, TestResult, eventually, isolated};
use holdfast_protocol::handover::ConfigState;
use holdfast_tests::rows::rows;

use crate::scene::{FILE, put_in_force};

/// How long a packet that was let through may take over loopback, many times over.
const PATIENCE: Duration = Duration::from_millis(500);

fn start(lab: &Lab, policies: &str) -> Result<Supervisor, LabError> {
    let file = lab.write(FILE, format!("services: []\n{policies}"))?;
    let mut supervisor = lab.supervisor(&file).start()?;
    let status = supervisor.wait_for_grant()?;
    assert_eq!(status.config.state, ConfigState::InForce, "{}", status.config.error);
    Ok(supervisor)
}

fn change(lab: &Lab, supervisor: &mut Supervisor, policies: &str) -> TestResult {
    put_in_force(lab, supervisor, &format!("services: []\n{policies}")).map(drop)
}

/// Whether a connection to `address` is established; one whose first segment is dropped is not.
fn arrives(address: SocketAddr) -> bool {
    match TcpStream::connect_timeout(&address, PATIENCE) {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::TimedOut, "{address}: {error}");
            false
        }
    }
}

/// A policy that denies what arrives at `port`.
fn closed(port: u16) -> String {
    format!(
        "policies:\n  - {{ name: closed, direction: inbound, action: deny, rules: [{{ to: {{ ports: \
         [{port}] }} }}] }}\n"
    )
}

fn denied(lab: &Lab) -> Result<u64, LabError> {
    let policies = rows(lab, "policies")?;
    Ok(policies.first().and_then(|row| row["denied"].as_u64()).unwrap_or(0))
}

#[test]
fn what_a_policy_denies_does_not_arrive() {
    isolated(|lab| {
        let [shut, open] = ["127.0.0.1:0", "127.0.0.1:0"].map(TcpListener::bind);
        let (shut, open) = (shut?, open?);
        let six = TcpListener::bind(("::1", shut.local_addr()?.port()))?;
        let mut supervisor = start(lab, &closed(shut.local_addr()?.port()))?;
        assert!(!arrives(shut.local_addr()?));
        assert!(!arrives(six.local_addr()?));
        assert!(arrives(open.local_addr()?));
        assert!(denied(lab)? >= 2);
        change(lab, &mut supervisor, "")?;
        assert!(arrives(shut.local_addr()?) && arrives(six.local_addr()?));
        Ok(())
    });
}

#[test]
fn an_allowing_policy_lets_in_whom_it_names_and_nobody_else() {
    isolated(|lab| {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let policies = format!(
            "identities:\n  - {{ name: friend, cidrs: [127.0.0.7/32] }}\npolicies:\n  - name: friends\n    \
             direction: inbound\n    action: allow\n    rules: [{{ from: {{ identities: [friend] }}, to: \
             {{ ports: [{port}] }} }}]\n"
        );
        let _supervisor = start(lab, &policies)?;
        assert!(!arrives(listener.local_addr()?));
        let friend = nix::sys::socket::SockaddrIn::new(127, 0, 0, 7, 0);
        let socket = nix::sys::socket::socket(
            nix::sys::socket::AddressFamily::Inet,
            nix::sys::socket::SockType::Stream,
            nix::sys::socket::SockFlag::SOCK_CLOEXEC,
            None,
        )?;
        let raw = std::os::fd::AsRawFd::as_raw_fd(&socket);
        nix::sys::socket::bind(raw, &friend)?;
        nix::sys::socket::connect(raw, &nix::sys::socket::SockaddrIn::new(127, 0, 0, 1, port))?;
        Ok(())
    });
}

#[test]
fn datagrams_are_judged_and_answers_are_not() {
    isolated(|lab| {
        let server = UdpSocket::bind("127.0.0.1:0")?;
        server.set_read_timeout(Some(PATIENCE))?;
        let mut supervisor = start(lab, &closed(server.local_addr()?.port()))?;
        let client = UdpSocket::bind("127.0.0.1:0")?;
        client.set_read_timeout(Some(PATIENCE))?;
        client.send_to(b"?", server.local_addr()?)?;
        let mut buffer = [0; 8];
        assert!(server.recv_from(&mut buffer).is_err(), "it was let in");
        // What is not allowed to arrive may still answer.
        let client_port = client.local_addr()?.port();
        let only = format!(
            "policies:\n  - {{ name: none, direction: inbound, action: deny, rules: [{{ to: {{ ports: \
             [{client_port}] }} }}] }}\n"
        );
        change(lab, &mut supervisor, &only)?;
        client.send_to(b"?", server.local_addr()?)?;
        let (_, from) = server.recv_from(&mut buffer)?;
        server.send_to(b"!", from)?;
        client.recv_from(&mut buffer)?;
        // Nobody else gets in there.
        let stranger = UdpSocket::bind("127.0.0.1:0")?;
        stranger.send_to(b"?", client.local_addr()?)?;
        assert!(client.recv_from(&mut buffer).is_err(), "a stranger was let in");
        Ok(())
    });
}

/// A connection that was let in before, and what comes through it.
struct Existing {
    client: TcpStream,
    server: TcpStream,
}

impl Existing {
    fn new(listener: &TcpListener) -> Result<Self, Box<dyn std::error::Error>> {
        let client = TcpStream::connect(listener.local_addr()?)?;
        let (server, _) = listener.accept()?;
        server.set_read_timeout(Some(PATIENCE))?;
        client.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { client, server })
    }

    fn goes_on(&mut self) -> bool {
        let mut buffer = [0; 1];
        let there = self.client.write_all(b"?").and_then(|()| self.server.read_exact(&mut buffer));
        let back = self.server.write_all(b"!").and_then(|()| self.client.read_exact(&mut buffer));
        there.is_ok() && back.is_ok()
    }
}

#[test]
fn what_has_arrived_goes_on_unless_it_is_to_be_cut() {
    isolated(|lab| -> TestResult {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let mut supervisor = start(lab, "")?;
        let mut kept = Existing::new(&listener)?;
        change(lab, &mut supervisor, &closed(port))?;
        assert!(!arrives(listener.local_addr()?));
        assert!(kept.goes_on(), "nobody has said that it is to be cut");
        change(lab, &mut supervisor, &(closed(port) + "inbound: { existing: cut }\n"))?;
        assert!(!kept.goes_on(), "it was to be cut");
        // What was dropped is sent again, and arrives when it may.
        change(lab, &mut supervisor, "inbound: { existing: cut }\n")?;
        eventually("the connection to go on", || {
            if kept.goes_on() { Ok(()) } else { Err("it does not".to_owned()) }
        })?;
        Ok(())
    });
}

#[test]
fn what_a_workload_opens_itself_is_not_cut() {
    isolated(|lab| -> TestResult {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mut connection = Existing::new(&listener)?;
        let client_port = connection.client.local_addr()?.port();
        let _supervisor = start(lab, &(closed(client_port) + "inbound: { existing: cut }\n"))?;
        assert!(connection.goes_on(), "it was opened here, and has not arrived");
        Ok(())
    });
}
