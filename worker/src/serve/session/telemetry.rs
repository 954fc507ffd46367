//! What a scrape asks of the estate. It changes nothing.

use std::num::NonZeroU16;

use holdfast_protocol::kernel::PROTOCOL_TCP;

use super::{Role, Session};
use crate::serve::outlier::ejections::Ejections;
use crate::serve::tables::desired::name;
use crate::serve::tables::estate::Reader as _;
use crate::serve::tables::maps::Counters as _;
use crate::serve::telemetry::Facts;
use crate::serve::telemetry::sample::{Page, page};

impl Session {
    /// A page of what is programmed, from the service number `from` on, and what is known beside it.
    ///
    /// # Errors
    ///
    /// Why it cannot be said, for people.
    pub fn survey(&mut self, from: u32) -> Result<(Page, Facts), String> {
        let (page, capacity, events) = match &self.role {
            Role::Absent => return Err("this worker has no estate".to_owned()),
            Role::Shadow { maps, .. } => (page(maps, from), maps.capacity(), maps.event_control()),
            Role::Granted { maps, .. } => (page(maps, from), maps.capacity(), maps.event_control()),
        };
        let facts = Facts {
            config: self.reported.clone(),
            capacity: Some(capacity),
            frontends: self.frontends,
            checks: self.health.counts(),
            ejections: self.health.ejections().counts(),
            events: Some(events),
            is_settled: matches!(self.role, Role::Granted { unanswered: None, .. }),
        };
        let mut page = page.map_err(|error| error.to_string())?;
        if let Some(in_force) = &self.in_force {
            let unhealthy = self.health.unhealthy(in_force);
            for service in &mut page.services {
                let record = &service.record;
                let port = (record.service, (record.port_be, record.protocol));
                service.unhealthy = unhealthy.get(&port).copied().unwrap_or(0);
            }
            if self.health.ejects() {
                count_ejected(self.health.ejections(), &mut page);
            }
        }
        Ok((page, facts))
    }
}

/// Notes of each service how many of its endpoints are ejected.
fn count_ejected(ejections: &Ejections, page: &mut Page) {
    for service in &mut page.services {
        let record = &service.record;
        if record.protocol == PROTOCOL_TCP
            && let Some(port) = NonZeroU16::new(u16::from_be(record.port_be))
        {
            let out = ejections.out(&name(&record.service), port);
            service.ejected = out.try_into().unwrap_or(u32::MAX);
        }
    }
}
