//! A small change of what this worker has programmed: nothing else is looked at.

use std::sync::Arc;

use super::access::NewPolicies;
use super::{Role, Session, SessionError, Work};
use crate::serve::compile::Compiled;
use crate::serve::tables::apply::Application;

impl Session {
    /// `compiled` is what is on disk, without its digest, which follows with [`load`](Self::load). If it is a
    /// small change of what is in force and nothing else is under way, it is put in force at once; otherwise
    /// it waits for its digest like any other.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn anticipate(&mut self, compiled: &Arc<Compiled>) -> Result<(), SessionError> {
        let is_idle =
            matches!(self.role, Role::Granted { work: Work::Settled, unanswered: None, .. });
        let follows = self.in_force.as_ref().is_some_and(|it| self.is_current(it));
        if !is_idle || !follows || self.health.is_pending() {
            return Ok(());
        }
        self.tell_first()?;
        if !self.plan_small(compiled)? {
            return Ok(());
        }
        // Whatever else is planned from now on leads there.
        self.latest = Some(Ok(Arc::clone(compiled)));
        self.spare_others();
        self.advance()
    }

    /// Begins to put `compiled` in force, if little of what this worker has programmed changes for it and
    /// there is room. Otherwise all of the maps has to be looked at.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub(super) fn plan_small(&mut self, compiled: &Arc<Compiled>) -> Result<bool, SessionError> {
        if !self.arrivals.suffice(compiled) {
            return Ok(false);
        }
        let Self { role: Role::Granted { maps, .. }, ledger: Some(ledger), .. } = self else {
            return Ok(false);
        };
        // What is programmed of endpoints that are new to the checks is among this.
        let Some(excerpt) = ledger.excerpt(maps, &compiled.desired)? else { return Ok(false) };
        let (desired, version) = self.health.desired(compiled, &excerpt.observed, false);
        let excerpt = match Arc::ptr_eq(&desired, &compiled.desired) {
            true => excerpt,
            false => match ledger.excerpt(maps, &desired)? {
                Some(excerpt) => excerpt,
                None => return Ok(false),
            },
        };
        let Ok((plan, desired, next)) = ledger.plan(maps, &self.rest, &desired, &excerpt) else {
            return Ok(false);
        };
        let Ok(policies) = NewPolicies::plan(maps, compiled) else { return Ok(false) };
        self.ledger = None;
        self.set_work(Work::Applying {
            compiled: Arc::clone(compiled),
            desired,
            version,
            policies: Box::new(policies),
            application: Application::new(plan),
            ledger: Box::new(next),
        });
        Ok(true)
    }
}
