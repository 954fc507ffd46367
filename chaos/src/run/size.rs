//! How large the configuration is, and how hard clients press.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How large and how fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// Services in the configuration: the served ones, and others that fill the tables.
    pub services: u32,
    /// Endpoints of each service that clients connect to.
    pub served_endpoints: u16,
    /// Endpoints of each other service.
    pub filler_endpoints: u16,
    /// Clients at once.
    pub clients: u16,
    /// A client's rest after each connection, in microseconds.
    pub rest_us: u64,
    /// Long connections.
    pub streams: u16,
    /// Mean distance of saves, in microseconds.
    pub churn_us: u64,
    /// How long after its removal an endpoint may still be reached, in microseconds.
    pub grace_us: u64,
}

/// Largest values, which keep a run on one machine within its memory and ports.
pub const LARGEST: Size = Size {
    services: 50_000,
    served_endpoints: 64,
    filler_endpoints: 1_000,
    clients: 256,
    rest_us: 10_000_000,
    streams: 256,
    churn_us: 3_600_000_000,
    // Half of the time for which an endpoint that was removed stays away at least.
    grace_us: 500_000,
};

impl Size {
    /// A client's rest.
    pub const fn rest(&self) -> Duration {
        Duration::from_micros(self.rest_us)
    }

    /// What is too small or too large.
    pub fn check(&self) -> Result<(), String> {
        let services = crate::load::site::SERVED_SERVICES;
        let all = u64::from(self.services) * u64::from(self.filler_endpoints);
        let bounds = [
            ("services", self.services.into(), services.into(), LARGEST.services.into()),
            ("endpoints", self.served_endpoints.into(), 2, LARGEST.served_endpoints.into()),
            ("filler endpoints", self.filler_endpoints.into(), 1, LARGEST.filler_endpoints.into()),
            ("clients", self.clients.into(), 1, LARGEST.clients.into()),
            ("the clients' rest in us", self.rest_us, 0, LARGEST.rest_us),
            ("streams", self.streams.into(), 0, LARGEST.streams.into()),
            ("the distance of saves in us", self.churn_us, 50_000, LARGEST.churn_us),
            ("the grace after a removal in us", self.grace_us, 1_000, LARGEST.grace_us),
            ("services times their endpoints", all, 0, 500_000),
        ];
        match bounds.iter().find(|(_, value, least, most)| !(least..=most).contains(&value)) {
            Some((what, value, least, most)) => {
                Err(format!("{what}: {value} is not between {least} and {most}"))
            }
            None => Ok(()),
        }
    }
}
