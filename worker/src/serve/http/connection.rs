//! The sockets: the listener that the supervisor made, and the connections that arrive there. Both are
//! non-blocking without being made so here: the filter of system calls has no call for that.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{MsgFlags, Shutdown, SockFlag, accept4, recv, send, shutdown};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

use super::request::{MAX_HEAD_BYTES, Refusal, Request, parse};

/// How long the head of a request may take to arrive: a scraper sends it at once.
const HEAD_TIME: Duration = Duration::from_secs(2);

/// How long a client that was answered may take to close, so that it reads the answer before it hears
/// that what it sent beyond its request was not read.
const CLOSING_TIME: Duration = Duration::from_millis(500);

/// Most bytes that are read of what follows a request.
const MAX_IGNORED_BYTES: usize = 64 * 1024;

/// Where connections arrive.
#[derive(Debug)]
pub struct Listener(AsyncFd<OwnedFd>);

/// One of them.
#[derive(Debug)]
pub struct Connection(AsyncFd<OwnedFd>);

impl Listener {
    /// Lets the reactor watch `socket`.
    ///
    /// # Errors
    ///
    /// When the kernel can watch no more descriptors.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        // SAFETY: `OwnedFd` owns its one descriptor, never replaces it, and closes it when it is dropped,
        // which `AsyncFd` does after deregistering.
        Ok(Self(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE)? }))
    }

    /// The next connection.
    ///
    /// # Errors
    ///
    /// What `accept4(2)` says, apart from a connection that is gone already.
    pub async fn accept(&self) -> io::Result<Connection> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        loop {
            let accept = |fd: &OwnedFd| Ok(accept4(fd.as_raw_fd(), flags)?);
            let raw = match self.0.async_io(Interest::READABLE, accept).await {
                Ok(raw) => raw,
                Err(error) if is_passing(&error) => continue,
                Err(error) => return Err(error),
            };
            // SAFETY: the kernel has just made this descriptor, and nobody else has learnt of it.
            let socket = unsafe { OwnedFd::from_raw_fd(raw) };
            // SAFETY: as in `Listener::new`.
            return Ok(Connection(unsafe { AsyncFd::register(socket)? }));
        }
    }
}

/// Whether the client or a signal was in the way, and not this process.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted)
}

impl Connection {
    /// What the client asks; `None` when it has gone without asking.
    ///
    /// # Errors
    ///
    /// [`Refusal`], to be told to the client.
    pub async fn request(&self) -> Result<Option<Request>, Refusal> {
        timeout(HEAD_TIME, self.read_head()).await.unwrap_or(Err(Refusal::TooSlow))
    }

    async fn read_head(&self) -> Result<Option<Request>, Refusal> {
        let mut head = vec![0; MAX_HEAD_BYTES];
        let mut length = 0;
        loop {
            match self.read(&mut head[length..]).await {
                Ok(0) | Err(_) => return Ok(None),
                Ok(more) => length += more,
            }
            if let Some(request) = parse(&head[..length])? {
                return Ok(Some(request));
            }
        }
    }

    async fn read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = |fd: &OwnedFd| Ok(recv(fd.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT)?);
        self.0.async_io(Interest::READABLE, read).await
    }

    /// Sends all of `bytes`, as fast as the client reads.
    ///
    /// # Errors
    ///
    /// When the client is gone.
    pub async fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        // MSG_NOSIGNAL: a client that is gone is an error here, not a SIGPIPE.
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        while !bytes.is_empty() {
            let write = |fd: &OwnedFd| Ok(send(fd.as_raw_fd(), bytes, flags)?);
            let sent = self.0.async_io(Interest::WRITABLE, write).await?;
            bytes = &bytes[sent..];
        }
        Ok(())
    }

    /// Ends the connection so that the client reads everything that was sent: closing it with something
    /// unread would make the kernel reset it (RFC 9112, section 9.6).
    pub async fn close(self) {
        // A client that is gone needs no good-bye.
        let _gone = shutdown(self.0.as_raw_fd(), Shutdown::Write);
        let ignore = async {
            let mut ignored = vec![0; MAX_HEAD_BYTES];
            let mut left = MAX_IGNORED_BYTES;
            while let Ok(read @ 1..) = self.read(&mut ignored).await
                && left > read
            {
                left -= read;
            }
        };
        let _patience = timeout(CLOSING_TIME, ignore).await;
    }
}
