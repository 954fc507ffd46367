//! The conversation with the supervisor: one connection per request, each wait with an end.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_protocol::control::{
    EndpointRow, PolicyRow, Request, Response, ServiceRow, Status, WorkerAnswer, WorkerQuery,
};
use holdfast_protocol::wire::{self, MAX_PACKET_BYTES, WireError};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;

/// How long an answer may take that the supervisor or its worker only has to look up. Both answer
/// within milliseconds; a machine that is overloaded may take longer.
const LOOK_UP: Duration = Duration::from_secs(10);

/// How long a takeover or a removal may take. The supervisor gives each of their steps a deadline
/// of its own, so it answers well before this.
const CHANGE: Duration = Duration::from_secs(120);

/// Why there is no answer, or not the wished one.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Nobody listens.
    #[error(
        "no supervisor runs for instance `{instance}`: cannot connect to {socket} ({source}); \
         start one with `holdfast run --config FILE --instance {instance}`, or name another with \
         --instance and --run-dir"
    )]
    NotRunning {
        /// The instance asked for.
        instance: String,
        /// The socket tried.
        socket: PathBuf,
        /// What the system said.
        source: Errno,
    },
    /// The socket may not be used.
    #[error(
        "permission denied on {socket}: only root may talk to the supervisor, and members of the \
         group that `holdfast run --control-group` names; run this with sudo"
    )]
    Permission {
        /// The socket tried.
        socket: PathBuf,
    },
    /// The supervisor refuses this peer.
    #[error("the supervisor denied it: {reason}")]
    Denied {
        /// Who may.
        reason: String,
    },
    /// Understood, and not done.
    #[error("{reason}")]
    Failed {
        /// Why, and what is in force now.
        reason: String,
    },
    /// No answer in time.
    #[error("the supervisor at {socket} did not answer within {seconds} seconds")]
    Timeout {
        /// The socket.
        socket: PathBuf,
        /// How long it had.
        seconds: u64,
    },
    /// The connection ended before the answer.
    #[error("the supervisor at {socket} closed the connection without an answer; ask again")]
    Closed {
        /// The socket.
        socket: PathBuf,
    },
    /// Something else went wrong with the connection.
    #[error("cannot talk to the supervisor at {socket}: {source}")]
    Transport {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        source: Errno,
    },
    /// Not an answer.
    #[error("cannot understand the supervisor at {socket}: {source}; use its own holdfastctl")]
    Wire {
        /// The socket.
        socket: PathBuf,
        /// What is wrong with it.
        source: WireError,
    },
    /// An answer to something else.
    #[error("the supervisor at {socket} answered something that was not asked")]
    Unexpected {
        /// The socket.
        socket: PathBuf,
    },
}

/// A new worker that is granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Reloaded {
    /// Its epoch.
    pub epoch: u64,
    /// Its process.
    pub pid: u32,
    /// Microseconds from the request to the grant.
    pub total_us: u64,
}

/// Everything was.
#[derive(Debug)]
pub struct Removed {
    /// What, one line each.
    pub items: Vec<String>,
    /// A supervisor that is the first process of a container ends everything in it when it ends,
    /// so it waits until this is closed: to be kept until this process has nothing more to say.
    _connection: OwnedFd,
}

/// Where to ask.
#[derive(Clone, Debug)]
pub struct Session {
    instance: String,
    socket: PathBuf,
}

impl Session {
    /// A session with the supervisor of `instance`, which listens at `socket`.
    pub fn new(instance: &str, socket: &Path) -> Self {
        Self { instance: instance.to_owned(), socket: socket.to_owned() }
    }

    /// Everything the supervisor knows.
    pub fn status(&self) -> Result<Status, SessionError> {
        match self.ask(&Request::Status, LOOK_UP)? {
            Response::Status(status) => Ok(*status),
            _ => Err(self.unexpected()),
        }
    }

    /// Has the worker replaced.
    pub fn reload(&self) -> Result<Reloaded, SessionError> {
        match self.ask(&Request::Reload, CHANGE)? {
            Response::Reloaded { epoch, pid, total_us } => Ok(Reloaded { epoch, pid, total_us }),
            _ => Err(self.unexpected()),
        }
    }

    /// Has everything removed.
    pub fn uninstall(&self) -> Result<Removed, SessionError> {
        let connection = self.connect(CHANGE)?;
        self.send(&connection, &Request::Uninstall)?;
        let mut removed = Vec::new();
        loop {
            match self.receive(&connection, CHANGE)? {
                Response::Uninstalled { items, last } => {
                    removed.extend(items);
                    if last {
                        return Ok(Removed { items: removed, _connection: connection });
                    }
                }
                _ => return Err(self.unexpected()),
            }
        }
    }

    /// The services in force.
    pub fn services(&self) -> Result<Vec<ServiceRow>, SessionError> {
        self.pages(
            |offset| WorkerQuery::Services { offset },
            |answer| match answer {
                WorkerAnswer::Services { rows, next } => Ok((rows, next)),
                other => Err(other),
            },
        )
    }

    /// The endpoints in force.
    pub fn endpoints(&self) -> Result<Vec<EndpointRow>, SessionError> {
        self.pages(
            |offset| WorkerQuery::Endpoints { offset },
            |answer| match answer {
                WorkerAnswer::Endpoints { rows, next } => Ok((rows, next)),
                other => Err(other),
            },
        )
    }

    /// The access policies in force.
    pub fn policies(&self) -> Result<Vec<PolicyRow>, SessionError> {
        self.pages(
            |offset| WorkerQuery::Policies { offset },
            |answer| match answer {
                WorkerAnswer::Policies { rows, next } => Ok((rows, next)),
                other => Err(other),
            },
        )
    }

    /// What has happened to connections since the answer `after` which this one comes: lines, the number
    /// to ask after next, whether there is more already, and how many events found no room so far.
    pub fn trace(
        &self,
        after: Option<u64>,
        service: &str,
        json: bool,
    ) -> Result<(Vec<String>, u64, bool, u64), SessionError> {
        let service = service.to_owned();
        match self.ask_worker(&WorkerQuery::Trace { after, service, json })? {
            WorkerAnswer::Trace { lines, after, more, lost } => Ok((lines, after, more, lost)),
            WorkerAnswer::Failed { reason } => Err(SessionError::Failed { reason }),
            _ => Err(self.unexpected()),
        }
    }

    /// All rows, page by page.
    fn pages<T>(
        &self,
        query: impl Fn(u32) -> WorkerQuery,
        page: impl Fn(WorkerAnswer) -> Result<(Vec<T>, Option<u32>), WorkerAnswer>,
    ) -> Result<Vec<T>, SessionError> {
        let mut rows = Vec::new();
        let mut offset = 0;
        loop {
            match page(self.ask_worker(&query(offset))?) {
                Ok((more, next)) => {
                    rows.extend(more);
                    match next {
                        None => return Ok(rows),
                        // Each page has to get on, or this would never end.
                        Some(next) if next > offset => offset = next,
                        Some(_) => return Err(self.unexpected()),
                    }
                }
                Err(WorkerAnswer::Failed { reason }) => {
                    return Err(SessionError::Failed { reason });
                }
                Err(_) => return Err(self.unexpected()),
            }
        }
    }

    fn ask_worker(&self, query: &WorkerQuery) -> Result<WorkerAnswer, SessionError> {
        let packet = wire::encode(query).map_err(|source| self.wire(source))?;
        match self.ask(&Request::Worker(packet), LOOK_UP)? {
            Response::Worker(packet) => wire::decode(&packet).map_err(|source| self.wire(source)),
            _ => Err(self.unexpected()),
        }
    }

    fn ask(&self, request: &Request, patience: Duration) -> Result<Response, SessionError> {
        let connection = self.connect(patience)?;
        self.send(&connection, request)?;
        self.receive(&connection, patience)
    }

    fn connect(&self, patience: Duration) -> Result<OwnedFd, SessionError> {
        let transport = |source| self.transport(source, patience);
        let connection =
            socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)
                .map_err(transport)?;
        // The sender's timeout bounds `connect` too, which waits while the listener's queue is full.
        let timeout = TimeVal::new(patience.as_secs().cast_signed(), 0);
        setsockopt(&connection, sockopt::SendTimeout, &timeout).map_err(transport)?;
        setsockopt(&connection, sockopt::ReceiveTimeout, &timeout).map_err(transport)?;
        let address = UnixAddr::new(&self.socket).map_err(transport)?;
        connect(connection.as_raw_fd(), &address).map_err(transport)?;
        Ok(connection)
    }

    fn send(&self, connection: &OwnedFd, request: &Request) -> Result<(), SessionError> {
        let packet = wire::encode(request).map_err(|source| self.wire(source))?;
        send(connection.as_raw_fd(), &packet, MsgFlags::MSG_NOSIGNAL)
            .map(drop)
            .map_err(|source| self.transport(source, LOOK_UP))
    }

    fn receive(&self, connection: &OwnedFd, patience: Duration) -> Result<Response, SessionError> {
        // One byte more than a packet may have, so that a longer one shows.
        let mut packet = vec![0; MAX_PACKET_BYTES + 1];
        let length = loop {
            match recv(connection.as_raw_fd(), &mut packet, MsgFlags::empty()) {
                // Stopped and continued from the terminal meanwhile.
                Err(Errno::EINTR) => {}
                Ok(0) | Err(Errno::ECONNRESET) => {
                    return Err(SessionError::Closed { socket: self.socket.clone() });
                }
                Ok(length) => break length,
                Err(source) => return Err(self.transport(source, patience)),
            }
        };
        match wire::decode(&packet[..length]).map_err(|source| self.wire(source))? {
            Response::Denied { reason } => Err(SessionError::Denied { reason }),
            Response::Failed { reason } => Err(SessionError::Failed { reason }),
            response => Ok(response),
        }
    }

    fn transport(&self, source: Errno, patience: Duration) -> SessionError {
        let socket = self.socket.clone();
        match source {
            Errno::ENOENT | Errno::ECONNREFUSED | Errno::ENOTDIR => {
                SessionError::NotRunning { instance: self.instance.clone(), socket, source }
            }
            Errno::EACCES | Errno::EPERM => SessionError::Permission { socket },
            Errno::EAGAIN | Errno::ETIMEDOUT => {
                SessionError::Timeout { socket, seconds: patience.as_secs() }
            }
            Errno::EPIPE => SessionError::Closed { socket },
            source => SessionError::Transport { socket, source },
        }
    }

    fn wire(&self, source: WireError) -> SessionError {
        SessionError::Wire { socket: self.socket.clone(), source }
    }

    fn unexpected(&self) -> SessionError {
        SessionError::Unexpected { socket: self.socket.clone() }
    }
}
