//! Endpoints that drain: from when on is written to the maps, and when their time has come, the supervisor is
//! told so. This worker could not close a connection.

use std::net::SocketAddr;
use std::time::Duration;

use holdfast_protocol::handover::FromChild;
use nix::time::ClockId;

use super::{Role, Session, Work};
use crate::serve::compile::Compiled;
use crate::serve::drain::{self, Closings, Drains, News, Wanted};
use crate::serve::rows::ip;
use crate::serve::tables::desired::name;

impl Session {
    /// What is marked in the maps counts, whatever is on disk.
    pub(super) fn find_drains(&mut self) {
        if let Role::Granted { maps, .. } = &self.role {
            self.drains = drain::marked(maps);
        }
    }

    /// Nothing is to be closed from now on that does not drain in what is about to be put in force.
    pub(super) fn spare_others(&mut self) {
        if let Role::Granted { maps, work: Work::Applying { compiled, .. }, .. } = &mut self.role
            && drain::is_any(maps)
        {
            drain::unmark(maps, &Wanted::of(&compiled.aside));
        }
    }

    /// `compiled` is in force: its endpoints that drain get no new connections any more.
    pub(super) fn follow_drains(&mut self, compiled: &Compiled) {
        let Role::Granted { maps, .. } = &mut self.role else { return };
        let wanted = Wanted::of(&compiled.aside);
        let (drains, news) = drain::mark(maps, &wanted, now_ns());
        self.drains = drains;
        for news in &news {
            let (service, endpoint) = names(news);
            let connections = news.connections();
            tracing::info!(service, %endpoint, connections, "drains: its connections are closed later");
        }
    }

    /// Asks the supervisor to have connections closed whose time has come. How long until there is something to
    /// do again, if there ever will be.
    pub fn see_to_drains(&mut self) -> Option<Duration> {
        // While tables are being written it is not known whose a number is.
        let Role::Granted { maps, work, unanswered: None } = &self.role else { return None };
        if !matches!(work, Work::Applying { .. }) {
            let (endpoints, news) = self.drains.ask(maps, now_ns());
            for news in &news {
                let (service, endpoint) = names(news);
                let connections = news.connections();
                tracing::info!(service, %endpoint, connections, "has drained: its connections are closed now");
            }
            if endpoints > 0 {
                self.outbox.push(FromChild::Overdue { endpoints });
            }
        }
        let next = self.drains.next_ns()?;
        Some(Duration::from_nanos(next.saturating_sub(now_ns())))
    }

    /// When connections of endpoints that drain are closed.
    pub(super) fn closings(&self) -> Closings {
        match &self.role {
            Role::Granted { maps, .. } => self.drains.closings(maps),
            _ => Closings::default(),
        }
    }

    /// Somebody else sees to it.
    pub(super) fn forget_drains(&mut self) {
        self.drains = Drains::default();
    }
}

fn names(News { record, state }: &News) -> (String, SocketAddr) {
    let endpoint = SocketAddr::new(ip(state.address), u16::from_be(state.port_be));
    (name(&record.service), endpoint)
}

/// `CLOCK_MONOTONIC`, by which endpoints are marked. A kernel without it has no time either.
pub(super) fn now_ns() -> u64 {
    let now = ClockId::CLOCK_MONOTONIC.now().map_or(Duration::ZERO, Duration::from);
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
