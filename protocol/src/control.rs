//! The conversation between the supervisor and `holdfastctl`, over a `SOCK_SEQPACKET` socket in
//! the instance's run directory. One request, then one answer (`Uninstall`: one or more).
//!
//! The supervisor passes [`WorkerQuery`] and [`WorkerAnswer`] on unread: it does not know what a
//! service is.

use serde::{Deserialize, Serialize};

use crate::handover::{ConfigState, Origin, SetAside};
use crate::wire::{Channel, Message};

/// File name of the control socket in the instance's run directory.
pub const SOCKET_NAME: &str = "control.sock";

/// What `holdfastctl` asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Everything the supervisor knows.
    Status,
    /// Replace the worker gracefully, and say how that ended.
    Reload,
    /// Remove everything and leave.
    Uninstall,
    /// A [`WorkerQuery`] in its own packet format, for the granted worker.
    Worker(Vec<u8>),
}

/// What the supervisor answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Response {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Reload`]: the new worker is granted.
    Reloaded {
        /// Its epoch.
        epoch: u64,
        /// Its process.
        pid: u32,
        /// Microseconds from the request to the grant.
        total_us: u64,
    },
    /// To [`Request::Uninstall`]: what was removed.
    Uninstalled {
        /// One line each, for people.
        items: Vec<String>,
        /// Whether this is the last such answer.
        last: bool,
    },
    /// To [`Request::Worker`]: a [`WorkerAnswer`] in its own packet format.
    Worker(Vec<u8>),
    /// The request was understood and could not be done.
    Failed {
        /// Why, and what is in force now.
        reason: String,
    },
    /// The peer may not ask that.
    Denied {
        /// Who may.
        reason: String,
    },
}

/// What the supervisor knows. Field names are those of `holdfastctl status --json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Name of the instance.
    pub instance: String,
    /// The supervisor's own process.
    pub supervisor: SupervisorStatus,
    /// The worker that writes, or is on its way to.
    pub worker: WorkerStatus,
    /// The spare that waits for that one's death, if there is one.
    pub standby: Option<StandbyStatus>,
    /// The newest epoch that was granted; 0 before the first.
    pub epoch: u64,
    /// The configuration.
    pub config: ConfigStatus,
    /// Services in force.
    pub services: u32,
    /// Endpoints in force.
    pub endpoints: u32,
    /// The links, as the kernel describes them at this moment.
    pub links: Vec<LinkStatus>,
    /// The takeovers of this supervisor's life.
    pub takeovers: Takeovers,
    /// How often the supervisor replaced its own binary.
    pub replacements: Replacements,
    /// How the kernel was found to differ from what was built, and what became of it.
    pub drift: DriftStatus,
}

/// The supervisor's own process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SupervisorStatus {
    /// Its process id.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// Its version.
    pub version: String,
    /// Names of the capabilities in any of its five sets, read from `/proc`.
    pub capabilities: Vec<String>,
}

/// A worker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its process id; 0 while there is none.
    pub pid: u32,
    /// Its effective user id, read from `/proc`.
    pub uid: u32,
    /// `starting`, `shadow`, `granted`, `released`, `absent` or `backing-off`.
    pub state: String,
    /// Its epoch.
    pub epoch: u64,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// Names of the capabilities in any of its five sets, read from `/proc`; empty is the promise.
    pub capabilities: Vec<String>,
    /// Whether it can gain none by executing a file either (`no_new_privs`), read from `/proc`.
    pub no_new_privs: bool,
    /// Its build.
    pub version: String,
    /// Which binary it runs: `on-disk`, or `former` when the one on disk failed and the one before
    /// it was put back.
    pub binary: String,
    /// Why there is none, or why the last one failed; empty when all is well.
    pub reason: String,
}

/// A spare worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandbyStatus {
    /// Its process id.
    pub pid: u32,
    /// `starting` or `shadow`: on its way, or ready.
    pub state: String,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// Its build.
    pub version: String,
}

/// The configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConfigStatus {
    /// The file or directory it is read from.
    pub path: String,
    /// SHA-256 of what is in force, in hexadecimal.
    pub digest: String,
    /// Whether what is on disk is in force.
    pub state: ConfigState,
    /// Why not, with file, line and column.
    pub error: String,
    /// Where what is in force came from.
    pub origin: Origin,
    /// Whether it has to prove itself yet: a crash within that time counts against it.
    pub probation: bool,
    /// Configurations that crashed workers and are not tried again, oldest first.
    pub set_aside: Vec<SetAside>,
    /// What would be restored on a cold start.
    pub snapshot: SnapshotStatus,
}

/// The last configuration that proved itself, on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotStatus {
    /// Its digest, in hexadecimal; empty when there is none.
    pub digest: String,
    /// Why the newest one could not be written or used; empty when all is well.
    pub error: String,
}

/// One link of the estate, as the kernel describes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// The program's name.
    pub name: String,
    /// The hook, as the kernel names it: `cgroup_inet4_connect`, …
    pub attach_type: String,
    /// The kernel's id of the link.
    pub link_id: u32,
    /// The kernel's id of the attached program.
    pub prog_id: u32,
    /// The cgroup's directory, or its id when it is gone; [`LinkStatus::NOT_NEEDED`] when the link is
    /// attached nowhere because there is nothing for it to do.
    pub cgroup: String,
    /// Whether its pin exists and is this link.
    pub pinned: bool,
    /// Whether link, program, hook and cgroup are what the manifest says.
    pub ok: bool,
}

impl LinkStatus {
    /// What stands in place of the cgroup of a link that is not attached because nothing needs it.
    pub const NOT_NEEDED: &'static str = "not needed";

    /// Whether it is attached nowhere because nothing needs it.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.ok && self.cgroup == Self::NOT_NEEDED
    }
}

/// Takeovers since the supervisor started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Takeovers {
    /// How many ended in a grant.
    pub count: u64,
    /// How many did not.
    pub failed: u64,
    /// The newest that ended in a grant.
    pub last: Option<Takeover>,
    /// Why the newest one that failed did.
    pub last_failure: String,
}

/// The supervisor's own binary, replaced without a new process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replacements {
    /// How often, since the process started.
    pub count: u64,
    /// Why the newest attempt failed; empty when it did not.
    pub last_failure: String,
}

/// Differences between the kernel and the manifest, since the supervisor started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriftStatus {
    /// How often the two were compared.
    pub audits: u64,
    /// How many differences were repaired.
    pub repairs: u64,
    /// The newest one that was.
    pub last: String,
    /// Those that are there now, a sentence each; empty is the promise.
    pub open: Vec<String>,
}

/// How one takeover went. All times are microseconds on the supervisor's monotonic clock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Takeover {
    /// `start`, `crash`, `hang` or `reload`.
    pub reason: String,
    /// From the kernel's notice (process ended, signal arrived, heartbeat missed) to the decision.
    pub detect_us: u64,
    /// From there until the new process runs.
    pub spawn_us: u64,
    /// From there until it has accepted every descriptor.
    pub handover_us: u64,
    /// From there until it has said that it is ready.
    pub ready_us: u64,
    /// From there until it is granted, the former one having let go.
    pub grant_us: u64,
    /// From the kernel's notice to the grant.
    pub total_us: u64,
}

/// What `holdfastctl` asks the worker. Answers come in pages: each says where the next one starts.
///
/// Questions only: whoever may ask for the status may ask these, and the supervisor passes them on
/// unread. What changes anything belongs to [`Request`], where each is judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkerQuery {
    /// The services in force.
    Services {
        /// Skip this many.
        offset: u32,
    },
    /// The endpoints in force.
    Endpoints {
        /// Skip this many.
        offset: u32,
    },
    /// The access policies in force.
    Policies {
        /// Skip this many.
        offset: u32,
    },
    /// What happens to connections from now on: every event is told for as long as somebody asks.
    Trace {
        /// The number that the answer before this one gave; none the first time.
        after: Option<u64>,
        /// Of this service only; empty for all, and for what is not a service.
        service: String,
        /// As lines of JSON instead of text.
        json: bool,
    },
}

/// What the worker answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkerAnswer {
    /// A page of services.
    Services {
        /// In the configuration's order.
        rows: Vec<ServiceRow>,
        /// Offset of the next page, if there is one.
        next: Option<u32>,
    },
    /// A page of endpoints.
    Endpoints {
        /// In the configuration's order.
        rows: Vec<EndpointRow>,
        /// Offset of the next page, if there is one.
        next: Option<u32>,
    },
    /// The worker could not answer.
    Failed {
        /// Why.
        reason: String,
    },
    /// A page of access policies.
    Policies {
        /// In the configuration's order.
        rows: Vec<PolicyRow>,
        /// Offset of the next page, if there is one.
        next: Option<u32>,
    },
    /// Events, a line each.
    Trace {
        /// Oldest first.
        lines: Vec<String>,
        /// What to ask after next.
        after: u64,
        /// Whether there are more already.
        more: bool,
        /// How many events found no room in the kernel so far.
        lost: u64,
    },
}

/// One port of a service, as programmed in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRow {
    /// The service's name.
    pub service: String,
    /// The port's name.
    pub port_name: String,
    /// The port clients connect to.
    pub port: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The addresses clients connect to; none of a headless service.
    pub addresses: Vec<String>,
    /// How an endpoint is chosen, as the configuration says it, and `direct` if clients may ask for one.
    pub policy: String,
    /// How many endpoints get connections.
    pub endpoints: u32,
    /// Connections sent to an endpoint so far.
    pub connections: u64,
    /// Connections refused so far.
    pub refused: u64,
    /// Connections refused so far because a limit was reached.
    pub limited: u64,
    /// What became of those that were sent to an endpoint.
    pub traffic: TrafficRow,
    /// Segments that closed connections sent again.
    pub retransmits: u64,
}

/// One endpoint of one port of a service: as programmed in the kernel if it is active, else as
/// configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRow {
    /// The service's name.
    pub service: String,
    /// The port's name.
    pub port_name: String,
    /// Where a connection goes: `127.0.0.1:18080`.
    pub endpoint: String,
    /// Its weight.
    pub weight: u16,
    /// `active`, or why it gets no new connections: `draining`, `idle` (weight 0), `standby` (another
    /// locality, priority or family is used), `unhealthy`, `unchecked` (no check has ended yet) or
    /// `ejected` (connections to it failed); it gets some all the same when no other is healthy and the
    /// configuration says so.
    pub state: String,
    /// Why it is unhealthy or ejected; empty otherwise.
    pub reason: String,
    /// What became of the connections that were sent to it.
    pub traffic: TrafficRow,
    /// Where else it answers who asks for it: `127.0.0.9:30080`.
    pub aliases: Vec<String>,
    /// When the connections it has are closed, if it drains and they are.
    pub drain: Option<DrainRow>,
}

/// When the connections of an endpoint that drains are closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainRow {
    /// How long after it began, as configured.
    pub close_after_ms: u64,
    /// How long from now; 0 if they are being closed. `None` if there are none.
    pub closes_in_ms: Option<u64>,
}

/// What became of connections, as the kernel counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficRow {
    /// Those that were established so far; of datagram sockets, those that were connected.
    pub opened: u64,
    /// Those that are open now.
    pub open: u64,
    /// Attempts that have not come to anything yet.
    pub pending: u64,
    /// Attempts so far that never were established: refused, timed out or given up.
    pub failed: u64,
    /// Bytes that closed TCP connections have sent.
    pub sent_bytes: u64,
    /// Bytes that closed TCP connections have received.
    pub received_bytes: u64,
}

/// One access policy, as programmed in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRow {
    /// Its name.
    pub policy: String,
    /// `outbound` or `inbound`.
    pub direction: String,
    /// `allow` or `deny`.
    pub action: String,
    /// Whether it is tried out only.
    pub dry_run: bool,
    /// How many terms its rules come to.
    pub terms: u32,
    /// Connections it denied so far.
    pub denied: u64,
    /// Connections it would have denied, were it not tried out only.
    pub would_deny: u64,
}

impl Message for Request {
    const CHANNEL: Channel = Channel::ToSupervisor;
}

impl Message for Response {
    const CHANNEL: Channel = Channel::FromSupervisor;
}

impl Message for WorkerQuery {
    const CHANNEL: Channel = Channel::ToWorker;
}

impl Message for WorkerAnswer {
    const CHANNEL: Channel = Channel::FromWorker;
}
