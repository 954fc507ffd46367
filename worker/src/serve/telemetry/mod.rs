//! What can be scraped: metrics in the Prometheus text format, and the health of each component.
//!
//! - [`family`]: what a metric is, and how its samples are written.
//! - [`sample`]: what is read of the maps, a bounded number of services at a time.
//! - [`services`], [`system`]: the families, of each service and of Holdfast itself. What is added to the
//!   counters in the kernel is one more entry of [`services::FAMILIES`].
//! - [`exposition`]: all of them as text, a bounded number of lines at a time.
//! - [`health`]: `/healthz` and `/readyz`.
//!
//! Everything here is pure, apart from reading the maps. The text is written here and not by a library:
//! it is made in steps, between which the other actors take turns, and `promtool` judges it in the tests.

pub mod exposition;
pub mod family;
pub mod health;
pub mod sample;
pub mod services;
pub mod system;

use holdfast_protocol::handover::{ConfigReport, Vitals};
use holdfast_protocol::kernel::event::EventControl;

use super::health_check::target::Counts;
use super::outlier::ejections;
use super::tables::estate::Capacity;

/// What is known beside the maps' contents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The epoch this worker writes in; 0 while it does not.
    pub epoch: u64,
    /// When this worker started, in milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// What the supervisor says of itself.
    pub vitals: Vitals,
    /// What this worker says of the maps and of the configuration.
    pub facts: Facts,
}

/// What the session knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The configuration, once something was said of it.
    pub config: Option<ConfigReport>,
    /// Whether the maps are here, and how much they hold.
    pub capacity: Option<Capacity>,
    /// Frontends in the maps, once they have been counted.
    pub frontends: Option<u64>,
    /// Health checks that have ended since this worker started to write.
    pub checks: Counts,
    /// Endpoints that were ejected since.
    pub ejections: ejections::Counts,
    /// How many events were told, and how many were lost.
    pub events: Option<EventControl>,
    /// Whether the grant was answered: the tables are as the configuration says, or as they were when
    /// it cannot be used.
    pub is_settled: bool,
}
