//! What only the supervisor knows and a scrape asks for: the worker, which answers scrapes, is told
//! before each grant and whenever it changes.

use serde::{Deserialize, Serialize};

use crate::control::Takeover;

/// What the supervisor says of itself. Counters run since it started; a supervisor that becomes
/// another binary in its process goes on counting.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vitals {
    /// Whether the descriptor of the listener for scrapes travels beside this: the worker answers
    /// there from its next grant to the release that ends it.
    pub listens: bool,
    /// When the supervisor started, in milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// Its version.
    pub version: String,
    /// Takeovers that ended in a grant.
    pub takeovers: u64,
    /// Takeovers that did not.
    pub takeovers_failed: u64,
    /// The newest that ended in a grant.
    pub last_takeover: Option<Takeover>,
    /// How often it became another binary.
    pub replacements: u64,
    /// How often kernel and manifest were compared.
    pub drift_audits: u64,
    /// How many differences were repaired.
    pub drift_repairs: u64,
    /// How many there are now.
    pub drift_open: u64,
    /// Since when the configuration in force is, in milliseconds since the Unix epoch; 0 while there
    /// is none.
    pub config_since_ms: u64,
}
