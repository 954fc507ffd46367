//! What a worker does with the estate: shadow, granted, released; one step at a time.
//!
//! Nothing here waits. The actor around it calls a method for each thing that happens, sends what
//! has gathered in the outbox, and does what [`Session::next`] says. What a granted worker does is
//! in `work`, and in `small` if little changes; what concerns access policies is in `access`.

mod access;
mod arrivals;
mod drains;
mod enrolment;
mod events;
mod fallback;
mod health;
mod small;
mod telemetry;
mod work;

use std::sync::Arc;
use std::time::Instant;

use holdfast_bpf::BpfError;
use holdfast_protocol::control::{WorkerAnswer, WorkerQuery};
use holdfast_protocol::handover::{ConfigReport, ConfigState, FromChild, Occasion, Origin};
use holdfast_protocol::wire;

use self::access::NewPolicies;
use self::arrivals::Arrivals;
use self::enrolment::Enrolling;
use self::fallback::Snapshot;
use super::compile::{Compiled, Summary};
use super::drain::Drains;
use super::events::Events;
use super::health_check::health::Health;
use super::health_check::target::Watch;
use super::policy;
use super::policy::resolve::Resolution;
use super::queries::Queries;
use super::report;
use super::rows::View;
use super::tables::apply::Application;
use super::tables::desired::Desired;
use super::tables::ledger::Ledger;
use super::tables::maps::{GrantedMaps, ShadowMaps};
use super::tables::observe::{Observed, observe};
use super::tables::plan::{DoesNotFit, plan};
use super::tables::rest::Rest;

/// What is on disk: a configuration, or why there is none.
pub type Loaded = Result<Arc<Compiled>, Unusable>;

/// Why what is on disk cannot be put in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// In a word.
    pub state: ConfigState,
    /// For people.
    pub error: String,
}

/// Why a worker cannot go on. A successor repairs whatever was left half done.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// It will not serve; nothing was changed.
    #[error("{0}")]
    Refused(String),
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] BpfError),
}

/// What there is to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing, until something happens.
    Wait,
    /// Call [`Session::advance`], after everything else that wants a turn.
    Advance,
    /// Call [`Session::verify`] soon, when nobody waits for anything.
    Verify,
    /// Wait for a grace period, then call [`Session::rested`] with this turn.
    Rest {
        /// Which stay of rest this is.
        turn: u64,
    },
    /// Have the snapshot read, call [`Session::restoring`] at once and [`Session::restored`] then.
    Restore,
}

/// A worker's dealings with the estate.
#[derive(Debug)]
pub struct Session {
    role: Role,
    occasion: Occasion,
    /// What is in force, if the supervisor has said so.
    noted: Option<ConfigReport>,
    /// Digest of what is on disk, once it has been read.
    found: Option<String>,
    /// What is on disk, once it has been compiled.
    latest: Option<Loaded>,
    /// What is in force.
    summary: Summary,
    /// Where that came from.
    origin: Origin,
    /// The access policies in force, and the cgroups they were compiled for, once both are known.
    policies: Option<(Arc<Compiled>, Resolution)>,
    snapshot: Snapshot,
    /// Frontends in the maps, once they have been counted since the grant.
    frontends: Option<u64>,
    enrolling: Enrolling,
    /// Whether what judges arriving connections is attached.
    arrivals: Arrivals,
    /// What this worker has put in force since its grant.
    in_force: Option<Arc<Compiled>>,
    /// What is known of the endpoints that are checked.
    health: Health,
    /// Endpoints whose connections are to be closed some time.
    drains: Drains,
    /// What is to be checked from now on, if that is something else.
    watches: Option<(u64, Vec<Watch>)>,
    /// What this worker has programmed, unless that is just changing.
    ledger: Option<Box<Ledger>>,
    /// Whether freed room may be used again.
    rest: Rest,
    /// Grows with every change of role and every stay of rest, so that an old rest ends nothing.
    turn: u64,
    reported: Option<ConfigReport>,
    queries: Queries,
    events: Events,
    /// Whether all of the maps has been looked at since that was last asked.
    has_looked: bool,
    outbox: Vec<FromChild>,
}

#[derive(Debug)]
enum Role {
    /// The estate is not here yet, or is gone for good.
    Absent,
    /// It may be read.
    Shadow { maps: ShadowMaps, ready: bool },
    /// It may be written.
    Granted { maps: GrantedMaps, work: Work, unanswered: Option<u64> },
}

#[derive(Debug)]
enum Work {
    /// What is on disk is in force, or has been refused.
    Settled,
    /// What is on disk was in force when the former worker ended, and has to be made sure of.
    Assumed,
    /// What is on disk has not been looked at.
    Due,
    /// What judges arriving connections has to be attached first.
    Attaching,
    /// A plan is being carried out.
    Applying {
        compiled: Arc<Compiled>,
        /// The tables of `compiled`, as the health of its endpoints has them in this `version`.
        desired: Arc<Desired>,
        version: u64,
        policies: Box<NewPolicies>,
        application: Application,
        /// What will have been programmed then.
        ledger: Box<Ledger>,
    },
    /// There will be room after a grace period.
    Resting,
    /// The snapshot is being read.
    Restoring,
}

impl Default for Session {
    fn default() -> Self {
        Self {
            role: Role::Absent,
            occasion: Occasion::Start,
            noted: None,
            found: None,
            latest: None,
            summary: Summary::default(),
            origin: Origin::default(),
            policies: None,
            snapshot: Snapshot::default(),
            frontends: None,
            enrolling: Enrolling::default(),
            arrivals: Arrivals::default(),
            in_force: None,
            health: Health::default(),
            drains: Drains::default(),
            watches: None,
            ledger: None,
            rest: Rest::default(),
            turn: 0,
            reported: None,
            queries: Queries::default(),
            events: Events::default(),
            has_looked: false,
            outbox: Vec::new(),
        }
    }
}

impl Session {
    /// The former worker had put `report` in force.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn note(&mut self, report: ConfigReport) -> Result<(), SessionError> {
        if let Role::Shadow { ready: true, .. } = self.role {
            // The supervisor knows that much.
            self.reported = Some(report.clone());
        }
        self.noted = Some(report);
        self.prepare()
    }

    /// What is on disk has this digest; it is being compiled.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn find(&mut self, digest: String) -> Result<(), SessionError> {
        self.found = Some(digest);
        self.prepare()
    }

    /// The estate is here, read-only.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn adopt(&mut self, maps: ShadowMaps, occasion: Occasion) -> Result<(), SessionError> {
        self.role = Role::Shadow { maps, ready: false };
        self.occasion = occasion;
        self.prepare()
    }

    /// Something else is on disk.
    ///
    /// # Errors
    ///
    /// [`SessionError::Refused`] when this worker was started to put it in force and cannot.
    pub fn load(&mut self, loaded: Loaded) -> Result<(), SessionError> {
        self.latest = Some(loaded);
        self.found = None;
        self.arrivals.forgive();
        if let Role::Granted {
            work:
                work @ (Work::Settled
                | Work::Assumed
                | Work::Attaching
                | Work::Resting
                | Work::Restoring),
            ..
        } = &mut self.role
        {
            *work = Work::Due;
        }
        self.prepare()
    }

    /// Says that it is ready, once the estate and the configuration are here.
    fn prepare(&mut self) -> Result<(), SessionError> {
        let Role::Shadow { maps, ready: false } = &self.role else { return Ok(()) };
        let Some(latest) = &self.latest else {
            // Compiling takes far longer than all the rest together, and the former worker has said
            // that the very same text is in force already. It is made sure of after the grant.
            let noted = self.noted.as_ref().filter(|noted| {
                let is_whole = noted.state == ConfigState::InForce;
                is_whole && self.found.as_ref() == Some(&noted.digest)
            });
            if let Some(config) = noted.cloned() {
                self.say_ready(config);
            }
            return Ok(());
        };
        let observed = observe(maps)?;
        self.has_looked = true;
        let verdict = match latest {
            Ok(compiled) => match dry_run(maps, &observed, compiled) {
                Ok(()) => Ok(&compiled.summary),
                Err(error) => Err(Unusable::does_not_fit(&error)),
            },
            Err(unusable) => Err(unusable.clone()),
        };
        let config = match verdict {
            Ok(summary) => report::in_force(summary),
            Err(unusable) if self.occasion == Occasion::Reload => {
                return Err(SessionError::Refused(unusable.error));
            }
            Err(Unusable { state, error }) => {
                if self.calls_for_snapshot(&observed, state) && self.snapshot.want() {
                    return Ok(());
                }
                let (summary, origin) = match self.snapshot.restored() {
                    Some(compiled) => (compiled.summary.clone(), Origin::Snapshot),
                    // Governance goes on with what is programmed.
                    None => (report::programmed(&observed), Origin::Kernel),
                };
                report::kept(&summary, origin, state, &error)
            }
        };
        self.say_ready(config);
        Ok(())
    }

    fn say_ready(&mut self, config: ConfigReport) {
        if let Role::Shadow { ready, .. } = &mut self.role {
            *ready = true;
        }
        self.reported = Some(config.clone());
        self.outbox.push(FromChild::Ready { config });
    }

    /// This worker, and nobody else, writes from now on. `is_current` says whether what was read
    /// last is still what is on disk; if it is not, something else follows.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn grant(&mut self, epoch: u64, is_current: bool) -> Result<(), SessionError> {
        let Role::Shadow { maps, .. } = std::mem::replace(&mut self.role, Role::Absent) else {
            return Err(SessionError::Refused("granted without an estate".to_owned()));
        };
        // Nobody knows what the former writer freed when, nor what it put in force.
        self.rest = Rest::default();
        self.ledger = None;
        self.summary = Summary::default();
        self.origin = Origin::default();
        self.frontends = None;
        self.policies = None;
        self.arrivals = Arrivals::default();
        self.forget_health();
        self.turn += 1;
        let maps = maps.grant()?;
        self.events.begin(&maps, Instant::now());
        self.role = Role::Granted { maps, work: Work::Due, unanswered: Some(epoch) };
        self.find_drains();
        // A spare may have missed what the former worker had just put in force. What is programmed
        // stays until it has caught up: it never goes back to something older.
        let lags = !is_current || self.found.is_some();
        if self.latest.is_none() || self.occasion == Occasion::Standby && lags {
            self.take_for_granted(Work::Settled);
        } else if self.is_in_force_already() {
            self.take_for_granted(Work::Assumed);
            return Ok(());
        }
        self.advance()
    }

    /// Whether the former worker had put in force what this one would.
    fn is_in_force_already(&self) -> bool {
        let noted = self.noted.as_ref().filter(|noted| noted.state == ConfigState::InForce);
        let latest = self.latest.as_ref().and_then(|latest| latest.as_ref().ok());
        matches!((noted, latest), (Some(noted), Some(latest)) if noted.digest == latest.summary.digest)
    }

    /// Answers the grant before anything is compared: what is on disk, or was, was in force when
    /// the former worker ended. What is left to do is `work`.
    fn take_for_granted(&mut self, work: Work) {
        if let Some(noted) = &self.noted {
            let (digest, services, endpoints) =
                (noted.digest.clone(), noted.services, noted.endpoints);
            self.summary = Summary { digest, services, endpoints };
            self.origin = noted.origin;
        }
        self.set_work(work);
        self.answer_grant();
    }

    /// This worker writes nothing from now on. A plan that is being carried out is given up where it
    /// stands: whoever writes next sees what is there and goes on.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn release(&mut self) -> Result<(), SessionError> {
        self.turn += 1;
        self.ledger = None;
        self.forget_health();
        self.forget_drains();
        self.events.stop();
        match std::mem::replace(&mut self.role, Role::Absent) {
            Role::Granted { maps, .. } => {
                self.role = Role::Shadow { maps: maps.release()?, ready: true };
            }
            other => self.role = other,
        }
        self.outbox.push(FromChild::Released);
        Ok(())
    }

    /// Gives back the memory that looking at the maps took, while there is nothing to do with them.
    pub fn let_go(&mut self) {
        if self.next() != Next::Wait {
            return;
        }
        match &mut self.role {
            Role::Shadow { maps, .. } => maps.let_go(),
            Role::Granted { maps, .. } => maps.let_go(),
            Role::Absent => {}
        }
    }

    /// Whether all of the maps has been looked at since this was last asked, and there is nothing to do: what
    /// was read of them and planned, many times what is kept, is not in use any more.
    pub fn has_looked(&mut self) -> bool {
        self.next() == Next::Wait && std::mem::take(&mut self.has_looked)
    }

    /// What to do when nothing else wants a turn.
    #[must_use]
    pub const fn next(&self) -> Next {
        match &self.role {
            Role::Granted { work: Work::Due | Work::Applying { .. }, .. } => Next::Advance,
            Role::Granted { work: Work::Assumed, .. } => Next::Verify,
            Role::Granted { work: Work::Resting, .. } => Next::Rest { turn: self.turn },
            _ if self.snapshot.is_wanted() => Next::Restore,
            _ => Next::Wait,
        }
    }

    /// Answers the query `id`.
    ///
    /// # Errors
    ///
    /// When there is no estate to ask; the supervisor does not ask then.
    pub fn answer(&mut self, id: u64, query: &[u8], now: Instant) -> Result<(), SessionError> {
        let answer = match wire::decode(query) {
            Ok(WorkerQuery::Trace { after, service, json }) => {
                self.follow(after, &service, json, now)
            }
            Ok(query) => self.look_up(&query, now)?,
            Err(error) => WorkerAnswer::Failed { reason: error.to_string() },
        };
        let body = wire::encode(&answer).expect("a page, its lines and an error are bounded");
        self.outbox.push(FromChild::Answer { id, body });
        Ok(())
    }

    fn look_up(&mut self, query: &WorkerQuery, now: Instant) -> Result<WorkerAnswer, SessionError> {
        let compiled = self.latest.as_ref().and_then(|loaded| loaded.as_deref().ok());
        let checked = self.in_force.as_deref().map(|it| (&self.health, it, now));
        let closings = self.closings();
        let closings = Some((&closings, drains::now_ns()));
        let view = View { compiled, checked, closings };
        match &self.role {
            Role::Shadow { maps, .. } => Ok(self.queries.answer(query, maps, view, now)),
            Role::Granted { maps, .. } => Ok(self.queries.answer(query, maps, view, now)),
            Role::Absent => Err(SessionError::Refused("asked without an estate".to_owned())),
        }
    }

    /// What has to be sent, in order.
    pub fn outbox(&mut self) -> Vec<FromChild> {
        std::mem::take(&mut self.outbox)
    }
}

/// Whether `desired` would fit, everything that is free having rested.
fn dry_run(maps: &ShadowMaps, observed: &Observed, compiled: &Compiled) -> Result<(), DoesNotFit> {
    let mut rested = Rest::default();
    rested.end();
    policy::plan::plan(maps, &compiled.access, &policy::resolve::resolve(&compiled.access))?;
    plan(observed, &compiled.desired, &mut rested.space(maps, observed)).map(drop)
}
