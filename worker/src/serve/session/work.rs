//! What a granted worker does: it looks at what is on disk and at the maps, plans, and carries the
//! plan out a batch at a time.

use std::sync::Arc;
use std::time::Instant;

use holdfast_protocol::handover::{ConfigReport, ConfigState, FromChild, Origin};

use super::access::NewPolicies;
use super::{Next, Role, Session, SessionError, Unusable, Work};
use crate::serve::compile::{Compiled, Summary};
use crate::serve::report;
use crate::serve::tables::apply::Application;
use crate::serve::tables::ledger::Ledger;
use crate::serve::tables::observe::{Observed, observe};
use crate::serve::tables::plan::{DoesNotFit, plan};

/// Operations between two looks at the socket: a few milliseconds, most of them system calls of a
/// microsecond or two.
const BATCH: usize = 1024;

impl Session {
    /// Goes on with what there is to do, for a bounded time.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn advance(&mut self) -> Result<(), SessionError> {
        if let Role::Granted { work: Work::Due, .. } = self.role {
            self.plan()?;
            self.spare_others();
        }
        let Role::Granted { maps, work, .. } = &mut self.role else { return Ok(()) };
        let Work::Applying { desired, policies, application, .. } = work else { return Ok(()) };
        // They are in force before the services of the same save: what it denies is never let through.
        policies.carry_out(maps)?;
        if !application.advance(desired, maps, BATCH)? {
            return Ok(());
        }
        let finished = std::mem::replace(work, Work::Settled);
        if let Work::Applying { compiled, version, policies, application, ledger, .. } = finished {
            self.ledger = Some(ledger);
            self.policies = Some((Arc::clone(&compiled), policies.into_resolution()));
            self.rest.begin(application.into_freed());
            self.health.programmed(version);
            self.follow_drains(&compiled);
            if self.is_in_force(&compiled) {
                self.follow_on(&compiled);
            } else {
                self.summary = compiled.summary.clone();
                self.log_as(&compiled);
                self.enrol(&compiled)?;
                self.settle(&compiled);
            }
        }
        Ok(())
    }

    /// What was in force when the former worker ended is to be compared with what is programmed.
    pub fn verify(&mut self) {
        if self.next() == Next::Verify {
            self.set_work(Work::Due);
        }
    }

    /// A grace period has passed since [`Next::Rest`] was asked for.
    pub fn rested(&mut self, turn: u64) {
        if self.next() == (Next::Rest { turn }) {
            self.turn += 1;
            self.rest.end();
            self.set_work(Work::Due);
        }
    }

    /// The rest will take long. The grant is answered without waiting for it: until then the tables
    /// stay as they are, every service wholly old.
    pub fn rests_long(&mut self) {
        self.answer_grant();
    }

    /// Looks at what is on disk and at the maps, and decides.
    fn plan(&mut self) -> Result<(), SessionError> {
        let Some(latest) = self.latest.clone() else { return Ok(()) };
        self.tell_first()?;
        if let Ok(compiled) = &latest
            && self.plan_small(compiled)?
        {
            return Ok(());
        }
        let Role::Granted { maps, .. } = &self.role else { return Ok(()) };
        let observed = observe(maps)?;
        self.has_looked = true;
        self.frontends = observed.frontends.len().try_into().ok();
        let unusable = match latest {
            Ok(compiled) => match self.plan_for(&compiled, &observed) {
                Some(error) => Unusable::does_not_fit(&error),
                None => return Ok(()),
            },
            Err(unusable) => unusable,
        };
        self.do_without(&observed, unusable);
        Ok(())
    }

    /// A service whose number may become another's now is told of by its name, as far as one turn goes.
    pub(super) fn tell_first(&mut self) -> Result<(), SessionError> {
        if let Role::Granted { maps, unanswered: None, .. } = &mut self.role
            && self.events.is_configured()
        {
            self.events.turn(maps, Instant::now())?;
        }
        Ok(())
    }

    /// Begins to put `compiled` in force, or to wait for the room, or for what judges its arriving connections;
    /// if there never will be room, why.
    pub(super) fn plan_for(
        &mut self,
        compiled: &Arc<Compiled>,
        observed: &Observed,
    ) -> Option<DoesNotFit> {
        match self.prepare_arrivals(compiled) {
            Ok(true) => {}
            Ok(false) => {
                self.set_work(Work::Attaching);
                return None;
            }
            Err(error) => return Some(error),
        }
        let Role::Granted { maps, .. } = &self.role else { return None };
        let is_first = self.in_force.is_none();
        let (desired, version) = self.health.desired(compiled, observed, is_first);
        match plan(observed, &desired, &mut self.rest.space(maps, observed)) {
            Ok(plan) => {
                let policies = match NewPolicies::plan(maps, compiled) {
                    Ok(policies) => Box::new(policies),
                    Err(error) => return Some(error.into()),
                };
                let ledger = Box::new(Ledger::after(observed, &desired, &plan));
                let (compiled, application) = (Arc::clone(compiled), Application::new(plan));
                // Until it is done, what is programmed is neither the one nor the other.
                self.ledger = None;
                self.set_work(Work::Applying {
                    compiled,
                    desired,
                    version,
                    policies,
                    application,
                    ledger,
                });
            }
            Err(error) if error.is_space() && self.rest.is_resting() => {
                self.turn += 1;
                self.set_work(Work::Resting);
            }
            Err(error) => return Some(error),
        }
        None
    }

    /// What is on disk is of no use: goes on with what is in force, or with the snapshot.
    fn do_without(&mut self, observed: &Observed, Unusable { state, mut error }: Unusable) {
        if self.calls_for_snapshot(observed, state) {
            if self.snapshot.want() {
                return self.set_work(Work::Restoring);
            }
            if let Some(compiled) = self.snapshot.restored().cloned() {
                match self.plan_for(&compiled, observed) {
                    None => return,
                    Some(other) => error = format!("{error}; and of the snapshot: {other}"),
                }
            }
        }
        if let Some(other) = self.plan_for_health(observed) {
            error = format!("{error}; and the health of endpoints is not followed: {other}");
        } else if self.is_applying() {
            return;
        }
        self.keep(observed, state, &error);
    }

    pub(super) fn set_work(&mut self, next: Work) {
        if let Role::Granted { work, .. } = &mut self.role {
            *work = next;
        }
    }

    /// `compiled` is in force; unless something else is on disk by now, that is all.
    fn settle(&mut self, compiled: &Arc<Compiled>) {
        // Nothing else is there any more: what was not wanted is deleted.
        self.frontends = self.ledger.as_ref().and_then(|it| it.frontends().try_into().ok());
        self.watch(compiled);
        if !self.is_current(compiled) || self.health.is_pending() {
            self.set_work(Work::Due);
        }
        let restored = self.snapshot.restored().is_some_and(|other| Arc::ptr_eq(other, compiled));
        if restored {
            // What is on disk is looked at once more, and what is wrong with it reported.
            self.origin = Origin::Snapshot;
        } else {
            self.origin = Origin::Disk;
            self.report(report::in_force(&self.summary));
        }
        self.answer_grant();
    }

    /// What is in force stays, for `error`.
    fn keep(&mut self, observed: &Observed, state: ConfigState, error: &str) {
        if self.summary == Summary::default() {
            self.summary = report::programmed(observed);
            self.origin = Origin::Kernel;
        }
        self.set_work(Work::Settled);
        self.report(report::kept(&self.summary, self.origin, state, error));
        self.answer_grant();
    }

    pub(super) fn answer_grant(&mut self) {
        if let Role::Granted { unanswered, .. } = &mut self.role
            && let Some(epoch) = unanswered.take()
        {
            self.outbox.push(FromChild::Granted { epoch });
        }
    }

    /// Says how the configuration is, if that has changed.
    pub(super) fn report(&mut self, config: ConfigReport) {
        if config.state == ConfigState::InForce && config.digest.is_empty() {
            // What it is known by follows: see `anticipate`.
            return;
        }
        if self.reported.as_ref() != Some(&config) {
            match config.state {
                ConfigState::InForce => {
                    tracing::info!(
                        digest = config.digest,
                        services = config.services,
                        endpoints = config.endpoints,
                        "the configuration is in force"
                    );
                }
                _ if config.origin == Origin::Snapshot => tracing::error!(
                    error = config.error,
                    digest = config.digest,
                    services = config.services,
                    endpoints = config.endpoints,
                    "the configuration on disk is not in force; the snapshot of the last good one is"
                ),
                _ => tracing::error!(
                    error = config.error,
                    "the configuration on disk is not in force; the former one stays"
                ),
            }
            self.reported = Some(config.clone());
            self.outbox.push(FromChild::Config(config));
        }
    }
}
