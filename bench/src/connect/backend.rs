//! Connections of one thread to itself: no other process has to be woken for one.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect, setsockopt, socket, sockopt,
};

use super::case::{Case, Family, Transport, backend};

/// What listens, for every case.
#[derive(Debug)]
pub struct Backends {
    v4: TcpListener,
    v6: TcpListener,
    _datagrams: [UdpSocket; 2],
}

impl Backends {
    /// Starts to listen.
    pub fn start() -> anyhow::Result<Self> {
        let tcp = |family| TcpListener::bind(backend(family)).context("cannot listen");
        let udp = |family| UdpSocket::bind(backend(family)).context("cannot listen");
        Ok(Self {
            v4: tcp(Family::V4)?,
            v6: tcp(Family::V6)?,
            _datagrams: [udp(Family::V4)?, udp(Family::V6)?],
        })
    }

    /// Opens a connection from a fresh socket to `address`, and closes it; how long `connect(2)` took.
    pub fn connect(&self, case: Case, address: SocketAddr) -> anyhow::Result<Duration> {
        let client = client(case).context("cannot make a socket")?;
        let to = SockaddrStorage::from(address);
        let begin = Instant::now();
        let answer = connect(client.as_raw_fd(), &to);
        let duration = begin.elapsed();
        answer.with_context(|| format!("cannot connect to {address}"))?;
        if case.transport == Transport::Tcp {
            let listener = if case.family == Family::V4 { &self.v4 } else { &self.v6 };
            // It has arrived: on loopback, the handshake is done within `connect`.
            let (server, _) = listener.accept().context("cannot accept")?;
            // A reset leaves no port in TIME_WAIT.
            let reset = libc::linger { l_onoff: 1, l_linger: 0 };
            setsockopt(&client, sockopt::Linger, &reset)?;
            drop(client);
            drop(server);
        }
        Ok(duration)
    }

    /// The address that a connection to `address` sees as its peer: an empty measurement shows here.
    pub fn check(&self, case: Case, address: SocketAddr) -> anyhow::Result<()> {
        let client = client(case).context("cannot make a socket")?;
        connect(client.as_raw_fd(), &SockaddrStorage::from(address))?;
        let peer: SockaddrStorage = nix::sys::socket::getpeername(client.as_raw_fd())?;
        let text = peer.to_string();
        ensure!(text == address.to_string(), "connected to {address}, and the peer is {text}");
        if case.transport == Transport::Tcp {
            let listener = if case.family == Family::V4 { &self.v4 } else { &self.v6 };
            listener.accept().context("cannot accept")?;
        }
        Ok(())
    }
}

fn client(case: Case) -> io::Result<OwnedFd> {
    let family = match case.family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    };
    let kind = match case.transport {
        Transport::Tcp => SockType::Stream,
        Transport::Udp => SockType::Datagram,
    };
    Ok(socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?)
}
