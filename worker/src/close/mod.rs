//! The closer: a privileged child that closes connections and lives for milliseconds.
//!
//! The worker, which may not, tells the supervisor when the time of draining endpoints has come; the supervisor
//! starts this. It believes neither: which connections are to be closed it reads from the maps ([`due`]), and
//! closes those that the kernel lists as connected to such an endpoint ([`diag`], [`message`]), in its own network
//! namespace and in each that the programs have remembered a socket of ([`namespace`]). Nor does it believe the
//! maps, which a worker writes: the kernel has to say that the socket is governed ([`governed`]). It reads
//! no configuration, and is confined ([`sandbox`]) before it hears anything.
//!
//! **Architecture Invariant:** it closes nothing that the maps do not say, whoever has it started, and never a
//! connection to somewhere else.
//!
//! **Architecture Invariant:** it closes nothing that is not governed, whatever the maps say.
//!
//! **Architecture Invariant:** it writes nothing but one counter, and only after it has closed a connection.

pub mod diag;
pub mod due;
pub mod governed;
mod maps;
pub mod message;
pub mod namespace;
pub mod sandbox;

use std::os::fd::{AsRawFd as _, RawFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use holdfast_bpf::BpfError;
use holdfast_protocol::handover::{Closed, MAX_TEXT_BYTES};
use holdfast_protocol::wire::bounded;
use nix::time::{ClockId, clock_gettime};

use self::diag::{Diag, DiagError};
use self::due::Targets;
use self::governed::{Governed, GovernedError};
use self::maps::{Maps, MapsError};
use self::message::{Id, Sort};
use self::namespace::Namespaces;
use crate::lifeline::Lifeline;
use crate::load::conversation::{Conversation, ConversationError};
use crate::serve::privilege::{self, PrivilegeError};
use crate::serve::sandbox::calls::CallsError;

/// How long network namespaces are looked for in all; less than the supervisor's patience, so that it hears what
/// was done. What is left is tried again.
const SEARCH: Duration = Duration::from_secs(4);

/// `CAP_NET_ADMIN` and `CAP_SYS_ADMIN` (`include/uapi/linux/capability.h`): to close a socket, and to enter a network
/// namespace. The maps come as descriptors.
const CAPABILITIES: [u32; 2] = [12, 21];

/// What is said of a socket that the maps would have closed.
const NOT_GOVERNED: &str = "it is not known to be in the governed cgroup, whatever the maps say";

/// Whose connections.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Name of the instance.
    #[arg(long)]
    pub instance: String,
    /// The governed cgroup.
    #[arg(long, value_name = "PATH")]
    pub cgroup: PathBuf,
}

/// Why nothing was closed.
#[derive(Debug, thiserror::Error)]
enum CloseError {
    #[error(transparent)]
    Maps(#[from] MapsError),
    #[error(transparent)]
    Kernel(#[from] BpfError),
    #[error("cannot list sockets: {0}")]
    Diag(#[from] DiagError),
    #[error(transparent)]
    Privilege(#[from] PrivilegeError),
    #[error(transparent)]
    Calls(#[from] CallsError),
    #[error("cannot open its own network namespace: {0}")]
    Own(#[from] std::io::Error),
    #[error(transparent)]
    Governed(#[from] GovernedError),
}

/// Closes what is to be closed and says so: `holdfast-worker close`.
#[must_use]
pub fn close(arguments: &Arguments) -> ExitCode {
    // SAFETY: the command line runs one command, once, and has opened nothing before it.
    let lifeline = unsafe { Lifeline::inherited() };
    let outcome = lifeline.map_err(ConversationError::from).and_then(|lifeline| {
        let fenced = Fenced::new(&arguments.cgroup, lifeline.as_raw_fd());
        converse(&Conversation::begin(lifeline, &arguments.instance)?, fenced)
    });
    outcome.unwrap_or_else(|error| {
        // There is nobody left to tell but whoever reads the standard error.
        eprintln!("holdfast-worker: {error}");
        ExitCode::FAILURE
    })
}

fn converse(
    conversation: &Conversation,
    fenced: Result<Fenced, CloseError>,
) -> Result<ExitCode, ConversationError> {
    let (offer, descriptors) = conversation.offered()?;
    let closed =
        fenced.and_then(|fenced| Closer::new(Maps::of(offer, descriptors)?, fenced)?.run());
    match closed {
        Ok(closed) => conversation.closed(closed).map(|()| ExitCode::SUCCESS),
        Err(error) => conversation.refuse(&error.to_string()).map(|()| ExitCode::FAILURE),
    }
}

/// What it takes beside the maps, opened before everything that opens more is given up.
struct Fenced {
    governed: Governed,
    namespaces: Namespaces,
}

impl Fenced {
    /// Gives up what closing the sockets of the cgroup `governed` does not take.
    fn new(governed: &Path, lifeline: RawFd) -> Result<Self, CloseError> {
        let governed = Governed::of(governed)?;
        let namespaces = Namespaces::open()?;
        privilege::keep_only(&CAPABILITIES)?;
        sandbox::confine(lifeline, namespaces.file_system())?;
        Ok(Self { governed, namespaces })
    }
}

/// At work.
struct Closer {
    maps: Maps,
    targets: Targets,
    fenced: Fenced,
    closed: Closed,
}

/// A socket that is to be closed, as far as the maps and its peer go.
struct Found {
    id: Id,
    service: u32,
    cgroup: Option<u64>,
}

impl Closer {
    fn new(maps: Maps, fenced: Fenced) -> Result<Self, CloseError> {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_err(std::io::Error::from)?;
        let now_ns = u64::try_from(Duration::from(now).as_nanos()).unwrap_or(0);
        let targets = maps.targets(now_ns)?;
        Ok(Self { maps, targets, fenced, closed: Closed::default() })
    }

    fn run(mut self) -> Result<Closed, CloseError> {
        let until = Instant::now() + SEARCH;
        if self.targets.is_of_nobody() {
            return Ok(self.closed);
        }
        self.close_here()?;
        for id in self.targets.namespaces() {
            if self.fenced.namespaces.is_own(id) {
                continue;
            }
            let entered =
                self.fenced.namespaces.enter(id, until).map_err(|error| error.to_string());
            let closed = entered.and_then(|()| self.close_here().map_err(|it| it.to_string()));
            if let Err(reason) = closed {
                self.leave(self.targets.within(id), &reason);
            }
        }
        Ok(self.closed)
    }

    /// Closes what is to be closed in the network namespace this process is in.
    fn close_here(&mut self) -> Result<(), DiagError> {
        let diag = Diag::open()?;
        for sort in Sort::ALL {
            let mut found = Vec::new();
            let targets = &self.targets;
            diag.list(sort, self.maps.storage(), |row| {
                let service = targets.verdict(&row.listed(), row.stored().as_ref());
                found.extend(service.map(|service| Found {
                    id: row.id,
                    service,
                    cgroup: row.cgroup(),
                }));
            })?;
            for socket in found {
                self.close_one(&diag, sort, &socket);
            }
        }
        Ok(())
    }

    fn close_one(&mut self, diag: &Diag, sort: Sort, socket: &Found) {
        if !socket.cgroup.is_some_and(|cgroup| self.fenced.governed.has(cgroup)) {
            return self.leave(1, NOT_GOVERNED);
        }
        match diag.destroy(sort, &socket.id) {
            Ok(true) => {
                self.maps.count(socket.service);
                self.closed.closed += 1;
            }
            // It has ended by itself.
            Ok(false) => {}
            Err(error) => self.leave(1, &error.to_string()),
        }
    }

    fn leave(&mut self, sockets: u64, reason: &str) {
        self.closed.left += sockets;
        self.closed.reason = bounded(reason, MAX_TEXT_BYTES);
    }
}
