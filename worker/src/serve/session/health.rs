//! The health of endpoints: what checks find changes the tables of what is in force, and nothing else.

use std::sync::Arc;
use std::time::Instant;

use super::{Role, Session, SessionError, Work};
use crate::serve::compile::Compiled;
use crate::serve::health_check::target::{Change, Counts, Verdict, Watch};
use crate::serve::outlier::ejections::Ejection;
use crate::serve::tables::maps::Counters as _;
use crate::serve::tables::observe::{Observed, observe};
use crate::serve::tables::plan::DoesNotFit;

impl Session {
    /// This is what checks by the list of `generation` have found since the last time.
    pub fn judge(&mut self, generation: u64, changes: Vec<Change>, counts: Counts) {
        let Role::Granted { work, .. } = &mut self.role else { return };
        let turned = self.health.note(generation, changes, counts);
        // Whatever else is under way looks at the health of endpoints when it is done.
        if let Work::Settled = work
            && !turned.is_empty()
        {
            *work = Work::Due;
        }
        turned.iter().for_each(log);
    }

    /// Whether this worker looks at what becomes of connections to endpoints.
    #[must_use]
    pub fn is_looking(&self) -> bool {
        self.in_force.is_some() && self.health.ejects()
    }

    /// Looks at it, and ejects endpoints, or has them back.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to list the frontends.
    pub fn look(&mut self, now: Instant) -> Result<(), SessionError> {
        // While tables are being written it is not known under which numbers there is something.
        let Role::Granted { maps, work: work @ Work::Settled, .. } = &mut self.role else {
            return Ok(());
        };
        let Some(in_force) = &self.in_force else { return Ok(()) };
        if self.health.is_displaced() {
            self.health.place(in_force, &observe(maps)?);
        }
        let turned = self.health.look(in_force, |number| maps.endpoint_state(number), now);
        if !turned.is_empty() {
            *work = Work::Due;
        }
        turned.iter().for_each(log_ejection);
        Ok(())
    }

    /// What is to be checked from now on, if that is something else than before, and the generation of
    /// the list.
    pub fn watches(&mut self) -> Option<(u64, Vec<Watch>)> {
        self.watches.take()
    }

    /// Whether this worker has put a configuration in force since its grant.
    #[must_use]
    pub const fn has_put_in_force(&self) -> bool {
        self.in_force.is_some()
    }

    /// Nothing is known any more, and nothing is to be checked: somebody else may have written, or is
    /// about to.
    pub(super) fn forget_health(&mut self) {
        let was_watching = self.in_force.take().is_some();
        self.health = self.health.forgotten();
        self.watches = was_watching.then(|| (self.health.generation(), Vec::new()));
    }

    /// `compiled` is in force from now on: its endpoints are checked.
    pub(super) fn watch(&mut self, compiled: &Arc<Compiled>) {
        self.watches = Some(self.health.watches(compiled));
        self.in_force = Some(Arc::clone(compiled));
    }

    /// What is in force follows the health of its endpoints, if what is on disk cannot be used; why it
    /// does not, if there is no room.
    pub(super) fn plan_for_health(&mut self, observed: &Observed) -> Option<DoesNotFit> {
        let in_force = self.in_force.clone().filter(|it| !self.is_current(it))?;
        if self.health.is_pending() { self.plan_for(&in_force, observed) } else { None }
    }

    /// The tables of `compiled`, which was in force before, follow the health of its endpoints; on to
    /// what has come meanwhile.
    pub(super) fn follow_on(&mut self, compiled: &Arc<Compiled>) {
        let is_done = self.is_current(compiled) && !self.health.is_pending();
        self.set_work(if is_done { Work::Settled } else { Work::Due });
        if is_done {
            self.report(crate::serve::report::in_force(&self.summary));
        }
    }

    pub(super) fn is_in_force(&self, compiled: &Arc<Compiled>) -> bool {
        self.in_force.as_ref().is_some_and(|it| Arc::ptr_eq(it, compiled))
    }

    /// Whether `compiled` is what is on disk.
    pub(super) fn is_current(&self, compiled: &Arc<Compiled>) -> bool {
        matches!(&self.latest, Some(Ok(latest)) if Arc::ptr_eq(latest, compiled))
    }

    pub(super) const fn is_applying(&self) -> bool {
        matches!(
            self.role,
            Role::Granted { work: Work::Applying { .. } | Work::Attaching | Work::Resting, .. }
        )
    }
}

fn log_ejection(Ejection { service, port, turn }: &Ejection) {
    let (service, endpoint) = (&**service, turn.address);
    match &turn.out {
        None => tracing::info!(service, port, %endpoint, "back: gets new connections again"),
        Some((cause, time)) => {
            let reason = cause.to_string();
            tracing::warn!(service, port, %endpoint, reason, ?time, "ejected: gets no new connections");
        }
    }
}

fn log(change: &Change) {
    let Change { target, verdict, reason } = change;
    let (service, endpoint) = (&*target.service, target.address);
    match verdict {
        Verdict::Healthy => tracing::info!(service, %endpoint, "healthy: gets new connections"),
        Verdict::Unchecked | Verdict::Unhealthy | Verdict::Ejected => {
            tracing::warn!(service, %endpoint, reason, "unhealthy: gets no new connections");
        }
    }
}
