//! The closer: a privileged child that closes connections and lives for milliseconds.
//!
//! The worker, which may not, tells the supervisor when the time of draining endpoints has come; the supervisor
//! starts this. It believes neither: which connections are to be closed it reads from the maps ([`due`]), and
//! closes those that the kernel lists as connected to such an endpoint ([`diag`], [`message`]), in its own network
//! namespace and in each that the programs have remembered a socket of ([`namespace`]). It reads no
//! configuration.
//!
//! **Architecture Invariant:** it closes nothing that the maps do not say, whoever has it started, and never a
//! connection to somewhere else.
//!
//! **Architecture Invariant:** it writes nothing but one counter, and only after it has closed a connection.

pub mod diag;
pub mod due;
mod maps;
pub mod message;
pub mod namespace;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use holdfast_bpf::BpfError;
use holdfast_protocol::handover::{Closed, MAX_TEXT_BYTES};
use holdfast_protocol::wire::bounded;
use nix::time::{ClockId, clock_gettime};

use self::diag::{Diag, DiagError};
use self::due::Targets;
use self::maps::{Maps, MapsError};
use self::message::{Id, Sort};
use self::namespace::Namespaces;
use crate::lifeline::Lifeline;
use crate::load::conversation::{Conversation, ConversationError};
use crate::serve::privilege::{self, PrivilegeError};

/// How long network namespaces are looked for in all; less than the supervisor's patience, so that it hears what
/// was done. What is left is tried again.
const SEARCH: Duration = Duration::from_secs(4);

/// `CAP_NET_ADMIN` and `CAP_SYS_ADMIN` (`include/uapi/linux/capability.h`): to close a socket, and to enter a network
/// namespace. The maps come as descriptors.
const CAPABILITIES: [u32; 2] = [12, 21];

/// Whose connections.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Name of the instance.
    #[arg(long)]
    pub instance: String,
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
    #[error("cannot open its own network namespace: {0}")]
    Own(#[from] std::io::Error),
}

/// Closes what is to be closed and says so: `holdfast-worker close`.
#[must_use]
pub fn close(arguments: &Arguments) -> ExitCode {
    // SAFETY: the command line runs one command, once, and has opened nothing before it.
    let lifeline = unsafe { Lifeline::inherited() };
    let outcome = lifeline
        .map_err(ConversationError::from)
        .and_then(|lifeline| Conversation::begin(lifeline, &arguments.instance))
        .and_then(|conversation| converse(&conversation));
    outcome.unwrap_or_else(|error| {
        // There is nobody left to tell but whoever reads the standard error.
        eprintln!("holdfast-worker: {error}");
        ExitCode::FAILURE
    })
}

fn converse(conversation: &Conversation) -> Result<ExitCode, ConversationError> {
    let (offer, descriptors) = conversation.offered()?;
    let closed = privilege::keep_only(&CAPABILITIES)
        .map_err(CloseError::from)
        .and_then(|()| Ok(Maps::of(offer, descriptors)?))
        .and_then(|maps| Closer::new(maps)?.run());
    match closed {
        Ok(closed) => conversation.closed(closed).map(|()| ExitCode::SUCCESS),
        Err(error) => conversation.refuse(&error.to_string()).map(|()| ExitCode::FAILURE),
    }
}

/// At work.
struct Closer {
    maps: Maps,
    targets: Targets,
    namespaces: Namespaces,
    closed: Closed,
}

impl Closer {
    fn new(maps: Maps) -> Result<Self, CloseError> {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_err(std::io::Error::from)?;
        let now_ns = u64::try_from(Duration::from(now).as_nanos()).unwrap_or(0);
        let targets = maps.targets(now_ns)?;
        Ok(Self { maps, targets, namespaces: Namespaces::open()?, closed: Closed::default() })
    }

    fn run(mut self) -> Result<Closed, CloseError> {
        let until = Instant::now() + SEARCH;
        if self.targets.is_of_nobody() {
            return Ok(self.closed);
        }
        self.close_here()?;
        for id in self.targets.namespaces() {
            if self.namespaces.is_own(id) {
                continue;
            }
            let entered = self.namespaces.enter(id, until).map_err(|error| error.to_string());
            let closed = entered.and_then(|()| self.close_here().map_err(|it| it.to_string()));
            if let Err(reason) = closed {
                self.closed.left += self.targets.within(id);
                self.closed.reason = bounded(&reason, MAX_TEXT_BYTES);
            }
        }
        Ok(self.closed)
    }

    /// Closes what is to be closed in the network namespace this process is in.
    fn close_here(&mut self) -> Result<(), DiagError> {
        let diag = Diag::open()?;
        for sort in Sort::ALL {
            let mut found: Vec<(Id, u32)> = Vec::new();
            let targets = &self.targets;
            diag.list(sort, self.maps.storage(), |row| {
                let service = targets.verdict(&row.listed(), row.stored().as_ref());
                found.extend(service.map(|service| (row.id, service)));
            })?;
            for (id, service) in found {
                match diag.destroy(sort, &id) {
                    Ok(true) => {
                        self.maps.count(service);
                        self.closed.closed += 1;
                    }
                    // It has ended by itself.
                    Ok(false) => {}
                    Err(error) => {
                        self.closed.left += 1;
                        self.closed.reason = bounded(&error.to_string(), MAX_TEXT_BYTES);
                    }
                }
            }
        }
        Ok(())
    }
}
