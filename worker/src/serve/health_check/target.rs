//! What is checked, and what can be found.

use std::net::SocketAddr;
use std::sync::Arc;

use holdfast_config::HealthCheck;

/// An endpoint of a service, as it is checked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// The service's name.
    pub service: Arc<str>,
    /// Where it is checked.
    pub address: SocketAddr,
}

/// A target that is to be checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// The target.
    pub target: Target,
    /// How it is checked.
    pub check: Arc<HealthCheck>,
    /// What is known of it.
    pub prior: Prior,
}

/// What is known of a target before its first check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prior {
    /// It was healthy.
    Healthy,
    /// Nothing, and it gets connections: the first check decides. So are the endpoints of a service that
    /// begins: without them it would begin with refusing.
    Presumed,
    /// Nothing, and it gets no connections until a check has passed. So is an endpoint that comes to
    /// others: they can do without it for so long.
    Unchecked,
    /// It was unhealthy.
    Unhealthy,
}

/// What a target is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It gets connections.
    Healthy,
    /// It gets none yet.
    Unchecked,
    /// It gets none.
    Unhealthy,
    /// It gets none for a time, whatever checks say.
    Ejected,
}

impl Prior {
    /// What it means for connections.
    #[must_use]
    pub const fn verdict(self) -> Verdict {
        match self {
            Self::Healthy | Self::Presumed => Verdict::Healthy,
            Self::Unchecked => Verdict::Unchecked,
            Self::Unhealthy => Verdict::Unhealthy,
        }
    }

    /// Whether a single check decides, whatever the thresholds are.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Presumed | Self::Unchecked)
    }
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The endpoint answered as it should.
    Passed,
    /// It did not, in a few words: `connection refused`.
    Failed(String),
    /// The check could not be made, for something this node lacks. That says nothing about the endpoint.
    Undecided(String),
}

/// A target whose verdict, or the reason for it, is another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The target.
    pub target: Target,
    /// What it is taken for from now on.
    pub verdict: Verdict,
    /// Why, if it is unhealthy: what the last check found.
    pub reason: String,
}

/// Checks that have ended, by what they found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// [`Outcome::Passed`].
    pub passed: u64,
    /// [`Outcome::Failed`].
    pub failed: u64,
    /// [`Outcome::Undecided`].
    pub undecided: u64,
}
