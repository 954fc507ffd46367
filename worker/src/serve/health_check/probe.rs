//! One check, over the network.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};

use holdfast_config::{HealthCheck, Http, Probe};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrStorage, connect, getsockname, getsockopt,
    recv, send, socket, sockopt,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Duration, timeout};

use super::answer::{self, MAX_STATUS_LINE_BYTES};
use super::target::Outcome;

/// Most bytes that are read of what follows the first line of an answer, so that the server can send it
/// and close: whoever closes before has the kernel reset the connection, which some servers log.
const MAX_IGNORED_BYTES: usize = 16 * 1024;

/// How long that may take, whatever the check's timeout is.
const CLOSING_TIME: Duration = Duration::from_millis(100);

/// Bytes read at once.
const PIECE_BYTES: usize = 2 * 1024;

/// Checks the endpoint at `address` as `check` says.
pub async fn probe(address: SocketAddr, check: &HealthCheck) -> Outcome {
    let limit = check.timeout;
    let late = || Outcome::Failed(format!("timed out after {limit:?}"));
    let begin = tokio::time::Instant::now();
    let stream = match timeout(limit, Stream::open(address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return verdict(&error),
        Err(_) => return late(),
    };
    match &check.probe {
        Probe::Tcp => Outcome::Passed,
        Probe::Http(http) => {
            let left = limit.saturating_sub(begin.elapsed());
            timeout(left, stream.ask(http, address)).await.unwrap_or_else(|_| late())
        }
    }
}

/// What `error` says of the endpoint: nothing, if it is of this node's own making.
fn verdict(error: &io::Error) -> Outcome {
    const OWN: [Errno; 8] = [
        Errno::EMFILE,
        Errno::ENFILE,
        Errno::ENOMEM,
        Errno::ENOBUFS,
        Errno::EADDRNOTAVAIL,
        Errno::EAFNOSUPPORT,
        // A filter of this process, or of the node.
        Errno::EPERM,
        Errno::EACCES,
    ];
    let number = error.raw_os_error().map(Errno::from_raw);
    match number {
        Some(errno) if OWN.contains(&errno) => Outcome::Undecided(errno.desc().to_lowercase()),
        Some(errno) => Outcome::Failed(errno.desc().to_lowercase()),
        None => Outcome::Failed(error.to_string()),
    }
}

/// A connection to an endpoint.
#[derive(Debug)]
struct Stream(AsyncFd<OwnedFd>);

impl Stream {
    async fn open(address: SocketAddr) -> io::Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(family, SockType::Stream, flags, None)?;
        let there = SockaddrStorage::from(address);
        match connect(socket.as_raw_fd(), &there) {
            Ok(()) | Err(Errno::EINPROGRESS) => {}
            Err(errno) => return Err(errno.into()),
        }
        // SAFETY: `OwnedFd` owns its one descriptor, never replaces it, and closes it when it is dropped,
        // which `AsyncFd` does after deregistering.
        let stream = unsafe { AsyncFd::register(socket)? };
        // Only looked at: `send` still has to see the readiness.
        drop(stream.writable().await?);
        match getsockopt(&stream, sockopt::SocketError)? {
            0 => {}
            error => return Err(io::Error::from_raw_os_error(error)),
        }
        // Where nobody listens at a port that the kernel also gives to clients, a socket can be given
        // the very port it connects to, and TCP lets it connect to itself (RFC 9293, section 3.5).
        if getsockname::<SockaddrStorage>(stream.as_raw_fd())? == there {
            return Err(Errno::ECONNREFUSED.into());
        }
        Ok(Self(stream))
    }

    async fn ask(&self, http: &Http, address: SocketAddr) -> Outcome {
        match self.ask_for_status(http, address).await {
            Ok(outcome) => outcome,
            Err(error) => verdict(&error),
        }
    }

    async fn ask_for_status(&self, http: &Http, address: SocketAddr) -> io::Result<Outcome> {
        self.write(answer::request(http, address).as_bytes()).await?;
        let mut head = Vec::with_capacity(MAX_STATUS_LINE_BYTES);
        let mut piece = [0; PIECE_BYTES];
        loop {
            let read = self.read(&mut piece).await?;
            let room = MAX_STATUS_LINE_BYTES - head.len();
            head.extend_from_slice(&piece[..read.min(room)]);
            if let Some(outcome) = answer::outcome(http, &head, read == 0) {
                if read > 0 {
                    let _patience = timeout(CLOSING_TIME, self.ignore()).await;
                }
                return Ok(outcome);
            }
        }
    }

    /// Reads to the end, if that is near.
    async fn ignore(&self) {
        let mut left = MAX_IGNORED_BYTES;
        let mut piece = [0; PIECE_BYTES];
        while let Ok(read @ 1..) = self.read(&mut piece).await
            && left > read
        {
            left -= read;
        }
    }

    async fn read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = |fd: &OwnedFd| Ok(recv(fd.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT)?);
        self.0.async_io(Interest::READABLE, read).await
    }

    async fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        // MSG_NOSIGNAL: a server that is gone is an error here, not a SIGPIPE.
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        while !bytes.is_empty() {
            let write = |fd: &OwnedFd| Ok(send(fd.as_raw_fd(), bytes, flags)?);
            let sent = self.0.async_io(Interest::WRITABLE, write).await?;
            bytes = &bytes[sent..];
        }
        Ok(())
    }
}
