//! The kernel's list of the sockets of a network namespace, and the closing of one of them: netlink's
//! `NETLINK_SOCK_DIAG` (sock_diag(7); `include/uapi/linux/inet_diag.h`).

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

use super::message::{self, Answer, Row, Sort};

/// Bytes of one answer at most: the kernel sends dumps in pieces of up to 32 KiB.
const ANSWER_BYTES: usize = 64 * 1024;

/// Sockets that are looked at in one namespace at most, of one sort: more than a node's memory allows.
const MAX_ROWS: usize = 4_000_000;

/// How long the kernel may take for the next piece of an answer: it answers within the call.
const PATIENCE_SECONDS: i64 = 5;

/// Why sockets cannot be listed or closed.
#[derive(Debug, thiserror::Error)]
pub enum DiagError {
    /// The kernel refused.
    #[error("{operation}: {source}")]
    Refused {
        /// What was tried.
        operation: &'static str,
        /// The kernel's answer.
        source: Errno,
    },
    /// It said something that is not understood.
    #[error("the kernel's list of sockets cannot be read: {0}")]
    Garbled(&'static str),
}

/// Asks about the sockets of one network namespace: the one this process was in when it was opened.
#[derive(Debug)]
pub struct Diag {
    socket: OwnedFd,
}

impl Diag {
    /// Of the network namespace this process is in.
    ///
    /// # Errors
    ///
    /// When the kernel has no such socket.
    pub fn open() -> Result<Self, DiagError> {
        let (family, kind) = (AddressFamily::Netlink, SockType::Raw);
        let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)
            .map_err(refused("make a socket to list sockets with"))?;
        let patience = TimeVal::seconds(PATIENCE_SECONDS);
        setsockopt(&socket, ReceiveTimeout, &patience)
            .map_err(refused("bound the wait for the list of sockets"))?;
        Ok(Self { socket })
    }

    /// Passes every socket of this sort that is connected to `look`, with what the map `storage` has of it.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn list(
        &self,
        sort: Sort,
        storage: BorrowedFd<'_>,
        mut look: impl FnMut(&Row<'_>),
    ) -> Result<(), DiagError> {
        const LIST: &str = "list sockets";
        self.say(&message::list(sort, storage.as_raw_fd()), LIST)?;
        let mut buffer = vec![0; ANSWER_BYTES];
        let mut rows = 0;
        loop {
            let length = self.hear(&mut buffer, LIST)?;
            for answer in message::answers(&buffer[..length]) {
                match answer.map_err(DiagError::Garbled)? {
                    Answer::Row(row) => {
                        look(&row);
                        rows += 1;
                    }
                    Answer::Done => return Ok(()),
                    Answer::Error(0) => {}
                    Answer::Error(errno) => {
                        return Err(refused(LIST)(Errno::from_raw(errno)));
                    }
                }
            }
            if rows > MAX_ROWS {
                return Err(DiagError::Garbled("it does not end"));
            }
        }
    }

    /// Closes the socket that `id`, taken from its [`Row`], names, as if its connection had been aborted: its owner
    /// gets `ECONNABORTED`. Returns whether there still was one.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; `EOPNOTSUPP` if it was built without `CONFIG_INET_DIAG_DESTROY`.
    pub fn destroy(&self, sort: Sort, id: &message::Id) -> Result<bool, DiagError> {
        const DESTROY: &str = "close a socket";
        self.say(&message::destroy(sort, id), DESTROY)?;
        let mut buffer = [0; 4096];
        let length = self.hear(&mut buffer, DESTROY)?;
        match message::answers(&buffer[..length]).next() {
            Some(Ok(Answer::Error(0))) => Ok(true),
            Some(Ok(Answer::Error(libc::ENOENT | libc::ESTALE))) => Ok(false),
            Some(Ok(Answer::Error(errno))) => Err(refused(DESTROY)(Errno::from_raw(errno))),
            Some(Err(what)) => Err(DiagError::Garbled(what)),
            _ => Err(DiagError::Garbled("there is no acknowledgement")),
        }
    }

    fn say(&self, packet: &[u8], operation: &'static str) -> Result<(), DiagError> {
        // Without an address it goes to the kernel.
        send(self.socket.as_raw_fd(), packet, MsgFlags::empty()).map_err(refused(operation))?;
        Ok(())
    }

    fn hear(&self, buffer: &mut [u8], operation: &'static str) -> Result<usize, DiagError> {
        loop {
            // MSG_TRUNC answers with the length the packet had.
            return match recv(self.socket.as_raw_fd(), buffer, MsgFlags::MSG_TRUNC) {
                Ok(length) if length <= buffer.len() => Ok(length),
                Ok(_) => Err(DiagError::Garbled("it is too long")),
                Err(Errno::EINTR) => continue,
                Err(source) => Err(DiagError::Refused { operation, source }),
            };
        }
    }
}

fn refused(operation: &'static str) -> impl Fn(Errno) -> DiagError {
    move |source| DiagError::Refused { operation, source }
}
