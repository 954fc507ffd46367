//! A small change of what this worker has programmed: nothing else is looked at.

use std::sync::Arc;

use super::access::NewPolicies;
use super::{Role, Session, SessionError, Work};
use crate::serve::compile::Compiled;
use crate::serve::tables::apply::Application;

impl Session {
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
