//! Servers that say who they are.
//!
//! A TCP backend greets each connection with a line that holds its name, then echoes. A UDP backend
//! answers each datagram with that line, followed by the datagram. One thread serves all of it.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::thread::JoinHandle;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::error::LabError;

/// Any free port of each family's loopback address.
const ANYWHERE: [&str; 2] = ["127.0.0.1:0", "[::1]:0"];

/// Events taken from the kernel at once.
const EVENTS_AT_ONCE: usize = 64;

/// Largest piece that is echoed at once, in bytes. Clients keep at most this much in flight, which
/// fits a fresh socket's send buffer, so an echo never has to wait.
pub const ECHO_BYTES: usize = 16 * 1024;

/// The token of the descriptor that ends the thread; sockets have smaller ones.
const STOP: u64 = u64::MAX;

/// A server, stopped when dropped.
#[derive(Debug)]
pub struct Backend {
    name: String,
    addresses: Vec<SocketAddr>,
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

/// The line a backend called `name` identifies itself with.
#[must_use]
pub fn banner(name: &str) -> String {
    format!("{name}\n")
}

impl Backend {
    /// A TCP server at free ports of 127.0.0.1 and `::1`.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn tcp(name: &str) -> Result<Self, LabError> {
        Self::tcp_at(name, &ANYWHERE.map(literal))
    }

    /// A TCP server at these addresses.
    ///
    /// # Errors
    ///
    /// When one of them is taken.
    pub fn tcp_at(name: &str, addresses: &[SocketAddr]) -> Result<Self, LabError> {
        Self::start(name, addresses, |address| {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok((listener.local_addr()?, Socket::Listener(listener)))
        })
    }

    /// A UDP server at free ports of 127.0.0.1 and `::1`.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn udp(name: &str) -> Result<Self, LabError> {
        Self::udp_at(name, &ANYWHERE.map(literal))
    }

    /// A UDP server at these addresses.
    ///
    /// # Errors
    ///
    /// When one of them is taken.
    pub fn udp_at(name: &str, addresses: &[SocketAddr]) -> Result<Self, LabError> {
        Self::start(name, addresses, |address| {
            let socket = UdpSocket::bind(address)?;
            socket.set_nonblocking(true)?;
            Ok((socket.local_addr()?, Socket::Datagrams(socket)))
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its first IPv4 address.
    ///
    /// # Panics
    ///
    /// When it has none.
    #[must_use]
    pub fn v4(&self) -> SocketAddr {
        *self.addresses.iter().find(|address| address.is_ipv4()).expect("it listens on IPv4")
    }

    /// Its first IPv6 address.
    ///
    /// # Panics
    ///
    /// When it has none.
    #[must_use]
    pub fn v6(&self) -> SocketAddr {
        *self.addresses.iter().find(|address| address.is_ipv6()).expect("it listens on IPv6")
    }

    fn start(
        name: &str,
        addresses: &[SocketAddr],
        bind: impl Fn(SocketAddr) -> io::Result<(SocketAddr, Socket)>,
    ) -> Result<Self, LabError> {
        let failed = || LabError::system(format!("start the backend {name}"));
        let sockets: io::Result<Vec<_>> = addresses.iter().map(|address| bind(*address)).collect();
        let (addresses, sockets): (Vec<_>, Vec<_>) = sockets.map_err(failed())?.into_iter().unzip();
        let stop = EventFd::from_flags(EfdFlags::EFD_CLOEXEC).map_err(io::Error::from);
        let stop = Arc::new(stop.map_err(failed())?);
        let server = Server::new(name, sockets, &stop).map_err(failed())?;
        let thread = std::thread::spawn(move || server.serve());
        Ok(Self { name: name.to_owned(), addresses, stop, thread: Some(thread) })
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let stopped = self.stop.write(1);
        if let (Ok(_), Some(thread)) = (stopped, self.thread.take()) {
            // A panic of the thread has been printed already.
            let _ = thread.join();
        }
    }
}

enum Socket {
    Listener(TcpListener),
    Datagrams(UdpSocket),
    Connection(TcpStream),
}

struct Server {
    banner: String,
    epoll: Epoll,
    sockets: HashMap<u64, Socket>,
    next_token: u64,
    buffer: Vec<u8>,
    _stop: Arc<EventFd>,
}

impl Server {
    fn new(name: &str, sockets: Vec<Socket>, stop: &Arc<EventFd>) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(stop.as_ref(), EpollEvent::new(EpollFlags::EPOLLIN, STOP))?;
        let mut server = Self {
            banner: banner(name),
            epoll,
            sockets: HashMap::new(),
            next_token: 0,
            buffer: vec![0; ECHO_BYTES],
            _stop: Arc::clone(stop),
        };
        sockets.into_iter().try_for_each(|socket| server.watch(socket))?;
        Ok(server)
    }

    fn serve(mut self) {
        let mut events = [EpollEvent::empty(); EVENTS_AT_ONCE];
        loop {
            let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Err(nix::Error::EINTR) => 0,
                ready => ready.expect("waiting for sockets of our own"),
            };
            for event in &events[..count] {
                if event.data() == STOP {
                    return;
                }
                self.attend(event.data());
            }
        }
    }

    fn watch(&mut self, socket: Socket) -> io::Result<()> {
        let token = self.next_token;
        let event = EpollEvent::new(EpollFlags::EPOLLIN, token);
        match &socket {
            Socket::Listener(listener) => self.epoll.add(listener, event),
            Socket::Datagrams(datagrams) => self.epoll.add(datagrams, event),
            Socket::Connection(connection) => self.epoll.add(connection, event),
        }?;
        self.next_token += 1;
        self.sockets.insert(token, socket);
        Ok(())
    }

    fn attend(&mut self, token: u64) {
        let Some(socket) = self.sockets.remove(&token) else { return };
        let keep = match &socket {
            Socket::Listener(listener) => {
                self.accept(listener);
                true
            }
            Socket::Datagrams(datagrams) => {
                self.answer(datagrams);
                true
            }
            Socket::Connection(connection) => self.echo(connection),
        };
        if keep {
            self.sockets.insert(token, socket);
        }
    }

    /// Greets everybody who waits. A client that has gone again is not the server's concern: the
    /// client counts.
    fn accept(&mut self, listener: &TcpListener) {
        while let Ok((connection, _)) = listener.accept() {
            let greeted = connection
                .set_nonblocking(true)
                .and_then(|()| (&connection).write_all(self.banner.as_bytes()));
            if greeted.is_ok() {
                // Fails only without memory; the client then sees the connection close.
                let _ = self.watch(Socket::Connection(connection));
            }
        }
    }

    fn answer(&mut self, datagrams: &UdpSocket) {
        while let Ok((length, client)) = datagrams.recv_from(&mut self.buffer) {
            let answer = [self.banner.as_bytes(), &self.buffer[..length]].concat();
            // A lost answer shows at the client.
            let _ = datagrams.send_to(&answer, client);
        }
    }

    /// Echoes what has arrived; says whether the connection goes on.
    fn echo(&mut self, mut connection: &TcpStream) -> bool {
        match connection.read(&mut self.buffer) {
            Ok(0) => false,
            Ok(length) => connection.write_all(&self.buffer[..length]).is_ok(),
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }
}

fn literal(address: &str) -> SocketAddr {
    address.parse().expect("a literal address")
}
