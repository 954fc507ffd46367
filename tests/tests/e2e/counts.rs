//! What the kernel counts of a connection after `connect(2)`: nothing is counted twice, nothing is
//! forgotten, and what is open now is what is open now.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process;
use std::thread;

use holdfast_lab::process::Process;
use holdfast_lab::wait::holds;
use holdfast_lab::{Backend, Lab, LabError, Service, TestResult, eventually, isolated};
use holdfast_tests::rows::{counted, rows, services};
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use serde_json::Value;

use crate::scene::{WEB, serve, virtual_address, web};

/// Where nobody listens.
const SHUT: SocketAddr = virtual_address(11, 81);
/// Where somebody listens who never accepts.
const FULL: SocketAddr = virtual_address(12, 82);
/// Where no route leads to.
const LOST: SocketAddr = virtual_address(13, 83);
/// Where the server closes first.
const BRIEF: SocketAddr = virtual_address(14, 84);
/// A datagram service, and another.
const DATAGRAM: SocketAddr = virtual_address(15, 85);
const OTHER: SocketAddr = virtual_address(16, 86);

/// Processes that open and lose sockets at once.
const PROCESSES: usize = 4;
/// Rounds of each of them.
const ROUNDS: usize = 250;
/// Sockets of a round that each of the cheap ways to lose one gets; see [`round`].
const MANY: usize = 24;
/// Sockets in all that the test promises to lose.
const SOCKETS: usize = 100_000;

/// `TCP_ESTABLISHED` and `TCP_SYN_SENT` as `/proc/net/tcp` prints them.
const ESTABLISHED: &str = "01";
const SYN_SENT: &str = "02";

#[test]
fn live_counts_are_what_the_kernel_lists() {
    isolated(|lab| {
        let (red, full) = (Backend::tcp("red")?, FullListener::new()?);
        let services = [
            web(&red),
            Service::tcp("full", FULL).endpoint(full.address),
            Service::udp("dns", DATAGRAM).endpoint(red.v4()),
        ];
        let mut supervisor = serve(lab, &services)?;
        let connections = connect(WEB, 7)?;
        let datagrams = connect_datagrams(DATAGRAM, 5)?;
        let attempts: Vec<OwnedFd> = (0..3).map(|_| begin(FULL)).collect::<Result<_, _>>()?;
        assert_eq!(listed(red.v4(), ESTABLISHED)?, 7);
        wait_for(lab, "web", (7, 0))?;
        wait_for(lab, "dns", (5, 0))?;
        wait_for(lab, "full", (0, u64::try_from(listed(full.address, SYN_SENT)?)?))?;
        assert_eq!(listed(full.address, SYN_SENT)?, 3);

        // Whoever takes over finds it all in the kernel, and what ends meanwhile is counted.
        let epoch = supervisor.status()?.epoch;
        drop(connections);
        let pid = supervisor.status()?.worker.pid;
        assert!(supervisor.kill_worker(pid));
        drop(datagrams);
        supervisor.wait_for_grant_after(epoch)?;
        drop(attempts);
        for name in ["web", "dns", "full"] {
            wait_for(lab, name, (0, 0))?;
        }
        let (web, full) = (traffic(lab, "web")?, traffic(lab, "full")?);
        assert_eq!((number(&web, "opened"), number(&web, "failed")), (7, 0), "{web}");
        assert_eq!((number(&full, "opened"), number(&full, "failed")), (0, 3), "{full}");
        Ok(())
    });
}

#[test]
fn bytes_are_counted_as_the_two_sides_saw_them() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        let _supervisor = serve(lab, &[web(&red)])?;
        let mut stream = TcpStream::connect(WEB)?;
        let banner = holdfast_lab::backend::banner("red").len();
        stream.write_all(&[b'x'; 1000])?;
        stream.read_exact(&mut vec![0; banner + 1000])?;
        // The server ends its side once it has seen the end of ours: both ends are orderly.
        stream.shutdown(Shutdown::Write)?;
        assert_eq!(stream.read(&mut [0; 1])?, 0);
        drop(stream);
        wait_for(lab, "web", (0, 0))?;
        let (service, endpoint) = (traffic(lab, "web")?, rows(lab, "endpoints")?[0].clone());
        for row in [&service, &endpoint["traffic"]] {
            assert_eq!(number(row, "sent_bytes"), 1000, "{row}");
            // A stream's end may count as one.
            let received = number(row, "received_bytes");
            let expected = u64::try_from(banner + 1000)?;
            assert!((expected..=expected + 1).contains(&received), "{row}");
        }
        Ok(())
    });
}

#[test]
fn an_endpoint_keeps_its_counts_over_changes_and_restarts() {
    isolated(|lab| {
        let (red, green) = (Backend::tcp("red")?, Backend::tcp("green")?);
        let mut supervisor = serve(lab, &[web(&red)])?;
        let stays = connect(WEB, 3)?;
        let both = holdfast_lab::render(&[web(&red).endpoint(green.v4())]);
        crate::scene::put_in_force(lab, &mut supervisor, &both)?;
        let opened = |lab: &Lab, address: SocketAddr| -> Result<(u64, u64), LabError> {
            let all = rows(lab, "endpoints")?;
            let row = all.iter().find(|row| row["endpoint"] == address.to_string());
            let row = row.ok_or_else(|| LabError::Unexpected(format!("no {address}: {all:?}")))?;
            Ok((number(&row["traffic"], "opened"), number(&row["traffic"], "open")))
        };
        assert_eq!(opened(lab, red.v4())?, (3, 3));
        assert_eq!(opened(lab, green.v4())?, (0, 0));
        // An endpoint that goes and comes again is a new one; the old connections are the service's.
        let only = holdfast_lab::render(&[Service::tcp("web", WEB).endpoint(green.v4())]);
        crate::scene::put_in_force(lab, &mut supervisor, &only)?;
        assert_eq!(number(&traffic(lab, "web")?, "open"), 3);
        crate::scene::put_in_force(lab, &mut supervisor, &both)?;
        assert_eq!(opened(lab, red.v4())?, (0, 0));
        drop(stays);
        wait_for(lab, "web", (0, 0))?;
        assert_eq!(opened(lab, red.v4())?, (0, 0), "nothing was taken from the new one");
        Ok(())
    });
}

#[test]
fn a_hundred_thousand_sockets_lost_in_every_way_leave_nothing_behind() {
    isolated(|lab| lose_sockets(lab, |service| service));
}

/// With limits, a connection takes its place before anything else can happen to it.
#[test]
fn so_do_they_when_each_has_taken_a_place() {
    let limits = "limits: { connections: 1000000, endpoint_pending: 1000000 }";
    isolated(|lab| lose_sockets(lab, |service| service.key(limits)));
}

fn lose_sockets(lab: &Lab, with: impl Fn(Service) -> Service) -> TestResult {
    widen_ports()?;
    let (red, dns) = (Backend::tcp("red")?, Backend::udp("dns")?);
    let (full, brief) = (FullListener::new()?, brief_server()?);
    let shut = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let nowhere = SocketAddr::from(([10, 98, 76, 54], 80));
    let services = [
        web(&red),
        Service::tcp("shut", SHUT).endpoint(shut),
        Service::tcp("full", FULL).endpoint(full.address),
        Service::tcp("lost", LOST).endpoint(nowhere),
        Service::tcp("brief", BRIEF).endpoint(brief),
        Service::udp("dns", DATAGRAM).endpoint(dns.v4()),
        Service::udp("other", OTHER).endpoint(dns.v4()),
    ];
    let mut supervisor = serve(lab, &services.map(with))?;
    let epoch = supervisor.status()?.epoch;
    let children: Vec<Process> = (0..PROCESSES).map(|_| child()).collect::<Result<_, _>>()?;
    assert!(supervisor.kill_worker(supervisor.status()?.worker.pid));
    for child in &children {
        reap(child)?;
    }
    supervisor.wait_for_grant_after(epoch)?;
    let mut lost = 0;
    for row in services_until_quiet(lab)? {
        lost += number(&row, "connections");
    }
    assert!(lost >= u64::try_from(SOCKETS)?, "only {lost}");
    let shut = traffic(lab, "shut")?;
    let refused = counted(lab, "shut", "connections")?;
    assert_eq!((number(&shut, "opened"), number(&shut, "failed")), (0, refused), "{shut}");
    let lost = traffic(lab, "lost")?;
    assert_eq!((number(&lost, "opened"), number(&lost, "failed")), (0, 0), "never attempted");
    Ok(())
}

/// The services, once none has anything open or pending; and no endpoint either.
fn services_until_quiet(lab: &Lab) -> Result<Vec<Value>, LabError> {
    let quiet = |rows: &[Value]| {
        let of =
            |row: &Value| (number(&row["traffic"], "open"), number(&row["traffic"], "pending"));
        rows.iter().all(|row| of(row) == (0, 0))
    };
    eventually("everything to be closed", || -> Result<Vec<Value>, String> {
        let (services, endpoints) = (services(lab), rows(lab, "endpoints"));
        let (Ok(services), Ok(endpoints)) = (services, endpoints) else {
            return Err("the worker does not answer".to_owned());
        };
        let text = || format!("{services:?} {endpoints:?}");
        holds(quiet(&services) && quiet(&endpoints), text).map(|()| services.clone())
    })
}

/// Starts a process that loses sockets in every way, and in the end itself with some open.
fn child() -> Result<Process, Box<dyn Error>> {
    // SAFETY: the child uses sockets of its own and memory, which glibc keeps usable after fork(2),
    // and ends without running anything of the parent's.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(Process::open(u32::try_from(child.as_raw())?)?),
        ForkResult::Child => {
            let result = (0..ROUNDS).try_for_each(|_| round());
            if let Err(error) = result {
                eprintln!("a round failed: {error}");
                process::exit(1);
            }
            let _held = (connect(WEB, 50), connect_datagrams(OTHER, 50));
            let _begun: Vec<_> = (0..20).map(|_| begin(FULL)).collect();
            let _killed = raise(Signal::SIGKILL);
            unreachable!("SIGKILL cannot be survived");
        }
    }
}

fn reap(child: &Process) -> Result<(), Box<dyn Error>> {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.pid())?);
    match waitpid(pid, None)? {
        WaitStatus::Signaled(_, Signal::SIGKILL, _) => Ok(()),
        other => Err(format!("a child ended otherwise: {other:?}").into()),
    }
}

/// Some sockets, lost in every way.
fn round() -> Result<(), Box<dyn Error>> {
    for _ in 0..MANY {
        // Reset by us.
        reset_when_dropped(&TcpStream::connect(WEB)?)?;
        // Refused by the kernel of the peer.
        assert!(TcpStream::connect(SHUT).is_err());
        // A datagram socket, connected, connected again elsewhere and disconnected.
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(DATAGRAM)?;
        socket.connect(OTHER)?;
        disconnect(&socket)?;
    }
    // Closed by us first: what is left of it waits in TIME_WAIT. By the peer first: nothing is.
    drop(TcpStream::connect(WEB)?);
    assert_eq!(TcpStream::connect(BRIEF)?.read_to_end(&mut Vec::new())?, 0);
    half_close()?;
    // Given up before the peer has answered.
    drop(begin(FULL)?);
    // Failed before anything was sent: no route, and then connected elsewhere after all.
    assert!(TcpStream::connect(LOST).is_err());
    begin_again()?;
    // No local port: another connection has the same two ends.
    no_local_port()?;
    pass_on()
}

/// Ends our side and closes with data on its way to us.
fn half_close() -> Result<(), Box<dyn Error>> {
    let mut stream = TcpStream::connect(WEB)?;
    stream.write_all(b"x")?;
    stream.shutdown(Shutdown::Write)?;
    Ok(())
}

/// A socket that no route leads from, then one that is disconnected, then one that reaches.
fn begin_again() -> Result<(), Box<dyn Error>> {
    let socket = tcp_socket(0)?;
    assert!(connect_to(&socket, LOST).is_err());
    connect_to(&socket, WEB)?;
    disconnect(&socket)?;
    connect_to(&socket, WEB)?;
    reset_when_dropped(&socket)
}

/// `EADDRNOTAVAIL`: a socket bound to the port that a connection to the same endpoint has.
fn no_local_port() -> Result<(), Box<dyn Error>> {
    let first = tcp_socket(0)?;
    reuse_address(&first)?;
    connect_to(&first, WEB)?;
    let stream = TcpStream::from(first.try_clone()?);
    let local = stream.local_addr()?;
    let second = tcp_socket(0)?;
    reuse_address(&second)?;
    if bind_to(&second, local).is_ok() {
        assert!(connect_to(&second, WEB).is_err(), "two connections with the same ends");
    }
    reset_when_dropped(&stream)
}

/// Hands a connection to another process, which loses it.
fn pass_on() -> Result<(), Box<dyn Error>> {
    let stream = TcpStream::connect(WEB)?;
    reset_when_dropped(&stream)?;
    // SAFETY: the child ends at once.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => {
            drop(stream);
            waitpid(child, None)?;
            Ok(())
        }
        // SAFETY: `_exit` runs nothing of this process's.
        ForkResult::Child => unsafe { libc::_exit(0) },
    }
}

/// A listener whose queue of connections is full: nobody accepts, so further attempts stay pending.
struct FullListener {
    address: SocketAddr,
    _listener: OwnedFd,
    _queued: Vec<TcpStream>,
}

impl FullListener {
    fn new() -> Result<Self, Box<dyn Error>> {
        let listener = tcp_socket(0)?;
        bind_to(&listener, SocketAddr::from(([127, 0, 0, 1], 0)))?;
        // SAFETY: the descriptor is open; the call takes no address.
        answer(unsafe { libc::listen(listener.as_raw_fd(), 0) })?;
        let address = TcpListener::from(listener.try_clone()?).local_addr()?;
        // A queue of length 0 takes one.
        let _queued = vec![TcpStream::connect(address)?];
        Ok(Self { address, _listener: listener, _queued })
    }
}

/// A server that closes every connection at once, and ends with the process.
fn brief_server() -> Result<SocketAddr, Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || listener.incoming().for_each(drop));
    Ok(address)
}

fn connect(address: SocketAddr, count: usize) -> Result<Vec<TcpStream>, std::io::Error> {
    (0..count).map(|_| TcpStream::connect(address)).collect()
}

fn connect_datagrams(address: SocketAddr, count: usize) -> Result<Vec<UdpSocket>, std::io::Error> {
    let connected = |_| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(address).map(|()| socket)
    };
    (0..count).map(connected).collect()
}

/// An attempt that does not wait for its end.
fn begin(address: SocketAddr) -> Result<OwnedFd, std::io::Error> {
    let socket = tcp_socket(libc::SOCK_NONBLOCK)?;
    match connect_to(&socket, address) {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(socket),
        Err(error) => Err(error),
        Ok(()) => Ok(socket),
    }
}

fn tcp_socket(flags: i32) -> Result<OwnedFd, std::io::Error> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | flags;
    // SAFETY: the call takes no address.
    let raw = answer(unsafe { libc::socket(libc::AF_INET, kind, 0) })?;
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn connect_to(socket: &OwnedFd, address: SocketAddr) -> Result<(), std::io::Error> {
    let (raw, length) = raw_address(address);
    // SAFETY: the address is live and as long as is said.
    answer(unsafe { libc::connect(socket.as_raw_fd(), (&raw const raw).cast(), length) }).map(drop)
}

fn bind_to(socket: &OwnedFd, address: SocketAddr) -> Result<(), std::io::Error> {
    let (raw, length) = raw_address(address);
    // SAFETY: the address is live and as long as is said.
    answer(unsafe { libc::bind(socket.as_raw_fd(), (&raw const raw).cast(), length) }).map(drop)
}

/// `connect(2)` to no address at all.
fn disconnect(socket: &impl AsRawFd) -> Result<(), std::io::Error> {
    // SAFETY: a `sockaddr` is plain integers, for which zeros are valid: `AF_UNSPEC` is 0.
    let nowhere: libc::sockaddr = unsafe { std::mem::zeroed() };
    let length = socket_length::<libc::sockaddr>();
    // SAFETY: the address is live and as long as is said.
    answer(unsafe { libc::connect(socket.as_raw_fd(), &raw const nowhere, length) }).map(drop)
}

/// Makes closing reset the connection instead of ending it.
fn reset_when_dropped(socket: &impl AsRawFd) -> Result<(), Box<dyn Error>> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    Ok(set_option(socket, libc::SO_LINGER, &linger)?)
}

fn reuse_address(socket: &impl AsRawFd) -> Result<(), std::io::Error> {
    set_option(socket, libc::SO_REUSEADDR, &1_i32)
}

fn set_option<T>(socket: &impl AsRawFd, option: i32, value: &T) -> Result<(), std::io::Error> {
    let (level, value) = (libc::SOL_SOCKET, std::ptr::from_ref(value).cast());
    let length = socket_length::<T>();
    // SAFETY: the value is live and as long as is said.
    answer(unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, value, length) }).map(drop)
}

fn raw_address(address: SocketAddr) -> (libc::sockaddr_in, libc::socklen_t) {
    let SocketAddr::V4(v4) = address else { unreachable!("the sockets here are IPv4") };
    let raw = libc::sockaddr_in {
        sin_family: libc::sa_family_t::try_from(libc::AF_INET).expect("2"),
        sin_port: v4.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
        sin_zero: [0; 8],
    };
    (raw, socket_length::<libc::sockaddr_in>())
}

fn socket_length<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).expect("addresses are short")
}

fn answer(answer: i32) -> Result<i32, std::io::Error> {
    if answer < 0 { Err(std::io::Error::last_os_error()) } else { Ok(answer) }
}

/// Room for what waits in TIME_WAIT, in the network namespace of this lab.
fn widen_ports() -> TestResult {
    std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "1024 65535")?;
    Ok(())
}

/// How many TCP sockets in `state` have `peer`, by the kernel's own list.
fn listed(peer: SocketAddr, state: &str) -> Result<usize, Box<dyn Error>> {
    let SocketAddr::V4(v4) = peer else { return Err("IPv4 only".into()) };
    let peer = format!("{:08X}:{:04X}", u32::from_ne_bytes(v4.ip().octets()), v4.port());
    let text = std::fs::read_to_string("/proc/thread-self/net/tcp")?;
    let fields = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    Ok(fields.filter(|it| it.len() > 3 && it[2] == peer && it[3] == state).count())
}

fn traffic(lab: &Lab, name: &str) -> Result<Value, LabError> {
    let services = services(lab)?;
    let row = services.iter().find(|row| row["service"] == name);
    row.map(|row| row["traffic"].clone())
        .ok_or_else(|| LabError::Unexpected(format!("no {name} in {services:?}")))
}

fn number(row: &Value, column: &str) -> u64 {
    row[column].as_u64().unwrap_or_else(|| panic!("no {column} in {row}"))
}

/// Waits until that many connections of a service are open and pending.
/// Waits until so many of the service's connections are open and pending.
pub fn wait_for(lab: &Lab, name: &str, expected: (u64, u64)) -> Result<(), LabError> {
    eventually(&format!("{name} to have {expected:?} open and pending"), || {
        let traffic = traffic(lab, name).map_err(|error| error.to_string())?;
        let live = (number(&traffic, "open"), number(&traffic, "pending"));
        holds(live == expected, || traffic.to_string())
    })
}
