//! How long each step of a takeover may take. Every one of these is an upper bound for a machine
//! under heavy load; governance does not depend on any of them, only how long a stuck worker is
//! waited for.

use std::time::Duration;

use holdfast_protocol::handover::HEARTBEAT_INTERVAL;

use super::phase::Phase;

/// From the order to start a worker until it answers `Hello`: fork, exec, dropping privileges.
/// Milliseconds; a machine that swaps needs seconds.
pub const GREETING: Duration = Duration::from_secs(5);
/// Until the whole estate is accepted: a handful of system calls per object.
pub const ACCEPTING: Duration = Duration::from_secs(5);
/// Until a worker is ready: it reads a full estate back and compiles the largest configuration
/// (50 MB) on a busy core.
pub const PREPARING: Duration = Duration::from_secs(30);
/// Until the former worker lets go. Meanwhile nobody applies changes, so it is short; a worker
/// looks at its socket between any two services it writes.
pub const RELEASING: Duration = Duration::from_secs(2);
/// Until a granted worker has applied its difference: a million slots take well under a second.
pub const GRANTING: Duration = Duration::from_secs(15);
/// Until a worker that left is gone: it has only its telemetry to finish.
pub const LEAVING: Duration = Duration::from_secs(10);
/// The same when the supervisor itself leaves: half of the ten seconds that container runtimes
/// grant by default before they kill.
pub const STOPPING: Duration = Duration::from_secs(5);
/// A worker that is ready or granted and reports no progress for this long hangs: six heartbeats, so that a busy
/// machine, which may well skip one or two, is not mistaken for a stuck worker.
pub const SILENCE: Duration = HEARTBEAT_INTERVAL.saturating_mul(6);

/// How long a worker may stay in `phase`; `None` where something else bounds it.
#[must_use]
pub const fn of(phase: Phase) -> Option<Duration> {
    match phase {
        Phase::Spawning | Phase::Greeted => Some(GREETING),
        Phase::Offered { .. } => Some(ACCEPTING),
        Phase::Preparing => Some(PREPARING),
        Phase::Granting { .. } => Some(GRANTING),
        Phase::Shadow { .. } | Phase::Granted { .. } => Some(SILENCE),
        Phase::Releasing => Some(RELEASING),
        Phase::Leaving => Some(LEAVING),
        // Waits for the new worker, whose deadline is GRANTING.
        Phase::Released => None,
        // SIGKILL cannot be refused. A process the kernel cannot end may still write, so nobody
        // is granted until it is gone, however long that takes.
        Phase::Dying { .. } => None,
    }
}
