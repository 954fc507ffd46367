//! What a scrape asks of the estate. It changes nothing.

use super::{Role, Session};
use crate::serve::tables::estate::Reader as _;
use crate::serve::telemetry::Facts;
use crate::serve::telemetry::sample::{Page, page};

impl Session {
    /// A page of what is programmed, from the service number `from` on, and what is known beside it.
    ///
    /// # Errors
    ///
    /// Why it cannot be said, for people.
    pub fn survey(&self, from: u32) -> Result<(Page, Facts), String> {
        let (page, capacity) = match &self.role {
            Role::Absent => return Err("this worker has no estate".to_owned()),
            Role::Shadow { maps, .. } => (page(maps, from), maps.capacity()),
            Role::Granted { maps, .. } => (page(maps, from), maps.capacity()),
        };
        let facts = Facts {
            config: self.reported.clone(),
            capacity: Some(capacity),
            frontends: self.frontends,
            is_settled: matches!(self.role, Role::Granted { unanswered: None, .. }),
        };
        page.map(|page| (page, facts)).map_err(|error| error.to_string())
    }
}
