//! Access policies about what arrives: who may connect to a workload, and what becomes of those who have.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
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
        let raw = socket.as_raw_fd();
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

/// Sends a segment of the connection from `from` to `to` that says nothing about itself: its header stands
/// behind more extension headers than anybody looks behind. Its sequence number is none of the connection.
fn send_obscure(from: SocketAddrV6, to: SocketAddrV6) -> TestResult {
    const DESTINATION_OPTIONS: u8 = 60;
    const TCP: u8 = 6;
    const EXTENSIONS: usize = 9;
    let mut segment = [&from.port().to_be_bytes()[..], &to.port().to_be_bytes()].concat();
    // Sequence and acknowledgement, five words of header, ACK, a window; checksum and urgent pointer.
    segment.extend([1, 2, 3, 4, 5, 6, 7, 8, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    let length = u32::try_from(segment.len())?.to_be_bytes();
    let pseudo = [&from.ip().octets()[..], &to.ip().octets(), &length, &[0, 0, 0, TCP]].concat();
    let words = pseudo.chunks(2).chain(segment.chunks(2));
    let mut sum: u32 = words.map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    segment[16..18].copy_from_slice(&(!u16::try_from(sum)?).to_be_bytes());
    // Each of them is padding (RFC 8200, section 4.2).
    let extension = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
    let mut payload: Vec<u8> =
        (1..EXTENSIONS).flat_map(|_| extension(DESTINATION_OPTIONS)).collect();
    payload.extend(extension(TCP));
    payload.extend(segment);
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(u16::try_from(payload.len())?.to_be_bytes());
    packet.extend([DESTINATION_OPTIONS, 64]);
    packet.extend([&from.ip().octets()[..], &to.ip().octets(), &payload].concat());
    // SAFETY: plain system calls; the socket is made here and owned from here on.
    let socket = unsafe {
        OwnedFd::from_raw_fd(libc::socket(libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_RAW))
    };
    let address = nix::sys::socket::SockaddrIn6::from(SocketAddrV6::new(*to.ip(), 0, 0, 0));
    let flags = nix::sys::socket::MsgFlags::empty();
    nix::sys::socket::sendto(socket.as_raw_fd(), &packet, &address, flags)?;
    Ok(())
}

#[test]
fn what_says_nothing_of_its_connection_neither_lets_it_in_nor_cuts_it() {
    isolated(|lab| -> TestResult {
        let listener = TcpListener::bind("[::1]:0")?;
        let port = listener.local_addr()?.port();
        let mut supervisor = start(lab, "inbound: { existing: cut }\n")?;
        let mut connection = Existing::new(&listener)?;
        let ends = (connection.client.local_addr()?, listener.local_addr()?);
        let (SocketAddr::V6(client), SocketAddr::V6(server)) = ends else {
            panic!("IPv6, as it was asked for: {ends:?}")
        };
        // It is the first packet that the new policies see.
        change(lab, &mut supervisor, &(closed(port + 1) + "inbound: { existing: cut }\n"))?;
        send_obscure(client, server)?;
        assert!(connection.goes_on(), "it was cut by a packet that anybody can send");
        change(lab, &mut supervisor, &(closed(port) + "inbound: { existing: cut }\n"))?;
        send_obscure(client, server)?;
        assert!(!connection.goes_on(), "it was let in by a packet that anybody can send");
        Ok(())
    });
}

#[test]
fn answers_arrive_at_who_is_not_enrolled_too() {
    isolated(|lab| -> TestResult {
        let server = UdpSocket::bind("127.0.0.1:0")?;
        server.set_read_timeout(Some(PATIENCE))?;
        let client = UdpSocket::bind("127.0.0.1:0")?;
        client.set_read_timeout(Some(PATIENCE))?;
        let nobody = lab.governed().join("nobody");
        let enrolment = format!("enrolment: {{ cgroups: [{}] }}\n", nobody.display());
        let _supervisor = start(lab, &(closed(client.local_addr()?.port()) + &enrolment))?;
        let mut buffer = [0; 8];
        client.send_to(b"?", server.local_addr()?)?;
        let (_, from) = server.recv_from(&mut buffer)?;
        server.send_to(b"!", from)?;
        client.recv_from(&mut buffer)?;
        Ok(())
    });
}
