//! Puts the configuration into the maps while this worker is granted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{
    Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, SpawnHandle, WrapFuture,
};
use holdfast_protocol::handover::{ConfigReport, HEARTBEAT_INTERVAL, Occasion};

use super::checks::{Checks, Targets};
use super::compiler::{Compiler, Restore};
use super::lifeline::{End, Link, Pulse, Said, Say};
use crate::serve::compile::Compiled;
use crate::serve::health_check::target::{Change, Counts};
use crate::serve::sandbox::calls;
use crate::serve::session::{Loaded, Next, Session, SessionError};
use crate::serve::tables::maps::ShadowMaps;
use crate::serve::telemetry::Facts;
use crate::serve::telemetry::sample::Page;
use crate::serve::{grace, memory};

/// How long what was in force already is left alone after a grant. The supervisor, which waits for
/// the answer, may have no other processor to hear it on: this is many times what it takes.
pub const SETTLING: Duration = Duration::from_millis(20);

/// How often the cgroups and network namespaces that an enrolment or an access policy names are looked
/// up, in heartbeats: one that is made is known a second later at the latest. A look costs two system calls
/// per path.
const BEATS_PER_LOOK_UP: u32 = 2;

/// When it is tried again to read events that cannot be read.
const TRY_AGAIN: Duration = HEARTBEAT_INTERVAL.saturating_mul(BEATS_PER_LOOK_UP);

/// How often it is looked at what becomes of connections to endpoints that may be ejected: an outlier gets
/// connections for so much longer at most. A look reads some words of mapped memory for each endpoint.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// How soon it is looked again at endpoints that drain, at the earliest: while tables are written nothing is asked.
const LEAST_WAIT: Duration = Duration::from_millis(10);

/// Why a worker ends whose configuration asks for health checks, and did not before.
const CANNOT_CONNECT: &str = "the configuration asks for health checks by now, which only a new worker may make: this one has \
     given up connecting";

/// Drives the [`Session`].
pub struct Tables {
    link: Addr<Link>,
    /// Who can restore the snapshot.
    compiler: Option<Addr<Compiler>>,
    /// Who checks endpoints.
    checks: Option<Addr<Checks>>,
    session: Session,
    /// Whether this process has given up opening connections.
    cannot_connect: bool,
    /// Whether a [`Turn`] is on its way to this actor.
    turning: bool,
    /// The stay of rest that is being waited for.
    resting: Option<u64>,
    /// Whether a look at what becomes of connections is due some time.
    is_looking: bool,
    /// The timer for endpoints that drain.
    drains: Option<SpawnHandle>,
    /// Whether events are looked for when the heart beats next, and not before.
    is_at_leisure: bool,
    /// Heartbeats so far.
    beats: u32,
}

/// Something else is on disk.
pub struct Loading(pub Loaded);

/// Little else is on disk, whose digest is not known yet. It follows with [`Found`] and [`Loading`].
pub struct Ahead(pub Arc<Compiled>);

/// Something else is on disk, with this digest; it is being compiled.
pub struct Found(pub String);

/// Who can restore the snapshot, should that be needed.
pub struct Fallback(pub Addr<Compiler>);

/// Who checks endpoints.
pub struct Checking(pub Addr<Checks>);

/// What checks have found since the last time, and how many have ended.
pub struct Judged {
    /// By which list of targets.
    pub generation: u64,
    /// What has changed.
    pub changes: Vec<Change>,
    /// Over all.
    pub counts: Counts,
}

/// What is in the snapshot.
pub struct Restored(pub Result<Arc<Compiled>, String>);

/// What is programmed from this service number on, as far as one turn goes.
pub struct Survey(pub u32);

/// What the supervisor asks.
pub enum Order {
    /// Note what is in force.
    Note(ConfigReport),
    /// Adopt the estate.
    Adopt(Box<ShadowMaps>, Occasion),
    /// Write from now on, as this epoch. What was read last may be out of date.
    Write { epoch: u64, is_current: bool },
    /// Write nothing from now on.
    Stop,
    /// Answer a query.
    Answer(u64, Vec<u8>),
    /// What judges arriving connections is attached, or why it is not.
    Attached(Result<(), String>),
}

/// Go on with what there is to do.
struct Turn;

impl Message for Loading {
    type Result = ();
}

impl Message for Ahead {
    type Result = ();
}

impl Message for Found {
    type Result = ();
}

impl Message for Fallback {
    type Result = ();
}

impl Message for Checking {
    type Result = ();
}

impl Message for Judged {
    type Result = ();
}

impl Message for Restored {
    type Result = ();
}

impl Message for Survey {
    type Result = Result<(Page, Facts), String>;
}

impl Message for Order {
    type Result = ();
}

impl Message for Turn {
    type Result = ();
}

impl Tables {
    pub fn new(link: Addr<Link>) -> Self {
        Self {
            link,
            compiler: None,
            checks: None,
            session: Session::default(),
            cannot_connect: false,
            turning: false,
            resting: None,
            is_looking: false,
            drains: None,
            is_at_leisure: false,
            beats: 0,
        }
    }

    /// After anything that happened: sends what there is to send, and sees to what is next.
    fn after(&mut self, result: Result<(), SessionError>, ctx: &mut Context<Self>) {
        self.see_to_drains(ctx);
        for message in self.session.outbox() {
            self.link.do_send(Say(message));
        }
        if let Some((generation, watches)) = self.session.watches() {
            self.connect_or_not(!watches.is_empty());
            if let Some(checks) = &self.checks {
                checks.do_send(Targets { generation, watches });
            }
        }
        self.look_or_not(ctx);
        // Somebody may want to be told by now.
        self.tell_if_at_leisure(ctx);
        match result {
            Ok(()) => self.see_to_next(ctx),
            Err(SessionError::Refused(reason)) => self.link.do_send(End::Refused(reason)),
            Err(error) => self.link.do_send(End::Failed(error.to_string())),
        }
    }

    /// Looks at what becomes of connections from time to time, as long as the configuration asks for it.
    fn look_or_not(&mut self, ctx: &mut Context<Self>) {
        if self.session.is_looking() && !self.is_looking {
            self.is_looking = true;
            ctx.run_later(LOOK_INTERVAL, |actor, ctx| {
                actor.is_looking = false;
                let result = actor.session.look(Instant::now());
                actor.after(result, ctx);
            });
        }
    }

    /// Sees to endpoints that drain, now and when the time of the next has come.
    fn see_to_drains(&mut self, ctx: &mut Context<Self>) {
        if let Some(timer) = self.drains.take() {
            ctx.cancel_future(timer);
        }
        let next = self.session.see_to_drains();
        self.drains = next.map(|wait| {
            ctx.run_later(wait.max(LEAST_WAIT), |actor, ctx| {
                actor.drains = None;
                actor.after(Ok(()), ctx);
            })
        });
    }

    /// Gives up connecting once a configuration without checks is in force. One that asks for them later
    /// is for the next worker.
    fn connect_or_not(&mut self, is_asked: bool) {
        if is_asked && self.cannot_connect {
            self.link.do_send(End::Failed(CANNOT_CONNECT.to_owned()));
        }
        if !is_asked && !self.cannot_connect && self.session.has_put_in_force() {
            match calls::renounce_connecting() {
                Ok(()) => self.cannot_connect = true,
                // It goes on with what it may do anyway.
                Err(error) => tracing::warn!(%error, "this worker may go on to open connections"),
            }
        }
    }

    fn see_to_next(&mut self, ctx: &mut Context<Self>) {
        match self.session.next() {
            Next::Wait => {}
            Next::Restore => {
                self.session.restoring();
                if let Some(compiler) = &self.compiler {
                    compiler.do_send(Restore);
                }
            }
            Next::Advance if !self.turning => {
                self.turning = true;
                // Whoever waits for what was said just now comes before the next turn.
                let said = self.link.send(Said).into_actor(self);
                ctx.spawn(said.map(|_, _, ctx| ctx.notify(Turn)));
            }
            Next::Advance => {}
            Next::Verify => drop(ctx.run_later(SETTLING, |actor, ctx| {
                actor.session.verify();
                actor.after(Ok(()), ctx);
            })),
            Next::Rest { turn } if self.resting != Some(turn) => self.rest(turn, ctx),
            Next::Rest { .. } => {}
        }
    }

    /// Passes on what the programs tell, time and again.
    fn tell(&mut self, ctx: &mut Context<Self>) {
        let next = self.session.tell(Instant::now()).unwrap_or_else(|error| {
            tracing::error!(%error, "events cannot be read");
            Some(TRY_AGAIN)
        });
        match next {
            Some(next) => drop(ctx.run_later(next, Self::tell)),
            None => self.is_at_leisure = true,
        }
    }

    fn tell_if_at_leisure(&mut self, ctx: &mut Context<Self>) {
        if std::mem::take(&mut self.is_at_leisure) {
            self.tell(ctx);
        }
    }

    /// What is looked at time and again is looked at when the heart beats: waking up for each by itself
    /// would take more processor time than the looks.
    fn beat(&mut self, ctx: &mut Context<Self>) {
        self.beats = self.beats.wrapping_add(1);
        self.tell_if_at_leisure(ctx);
        if self.session.ask_again() {
            self.after(Ok(()), ctx);
        }
        if !self.beats.is_multiple_of(BEATS_PER_LOOK_UP) {
            return;
        }
        let result = self.session.look_up_again();
        self.after(result, ctx);
        let result = self.session.look_at_cgroups();
        self.after(result, ctx);
        // Whatever questions and scrapes have looked at since.
        self.tidy();
    }

    /// Keeps no memory that is not in use while there is nothing to do: the next worker has to wait until the
    /// kernel has freed all of it.
    fn tidy(&mut self) {
        self.session.let_go();
        if self.session.has_looked() {
            drop(tokio::task::spawn_blocking(memory::give_back));
        }
    }

    fn rest(&mut self, turn: u64, ctx: &mut Context<Self>) {
        self.resting = Some(turn);
        let waiting = tokio::task::spawn_blocking(grace::pass);
        ctx.spawn(waiting.into_actor(self).map(move |passed, actor, ctx| {
            if passed.unwrap_or(false) {
                actor.session.rested(turn);
            } else {
                tracing::info!(rest = ?grace::LONG_REST, "this kernel offers no grace period");
                actor.session.rests_long();
                ctx.run_later(grace::LONG_REST, move |actor, ctx| {
                    actor.session.rested(turn);
                    actor.after(Ok(()), ctx);
                });
            }
            actor.after(Ok(()), ctx);
        }));
    }
}

impl Actor for Tables {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.tell(ctx);
    }
}

impl Handler<Turn> for Tables {
    type Result = ();

    fn handle(&mut self, _: Turn, ctx: &mut Self::Context) {
        self.turning = false;
        let result = self.session.advance();
        self.after(result, ctx);
        self.tidy();
    }
}

impl Handler<Loading> for Tables {
    type Result = ();

    fn handle(&mut self, Loading(loaded): Loading, ctx: &mut Self::Context) {
        let result = self.session.load(loaded);
        self.after(result, ctx);
        self.tidy();
    }
}

impl Handler<Ahead> for Tables {
    type Result = ();

    fn handle(&mut self, Ahead(compiled): Ahead, ctx: &mut Self::Context) {
        let result = self.session.anticipate(&compiled);
        self.after(result, ctx);
        // What was looked at of the maps is let go when its digest is known.
    }
}

impl Handler<Found> for Tables {
    type Result = ();

    fn handle(&mut self, Found(digest): Found, ctx: &mut Self::Context) {
        let result = self.session.find(digest);
        self.after(result, ctx);
    }
}

impl Handler<Fallback> for Tables {
    type Result = ();

    fn handle(&mut self, Fallback(compiler): Fallback, _: &mut Self::Context) {
        self.compiler = Some(compiler);
    }
}

impl Handler<Checking> for Tables {
    type Result = ();

    fn handle(&mut self, Checking(checks): Checking, _: &mut Self::Context) {
        self.checks = Some(checks);
    }
}

impl Handler<Judged> for Tables {
    type Result = ();

    fn handle(&mut self, judged: Judged, ctx: &mut Self::Context) {
        let Judged { generation, changes, counts } = judged;
        self.session.judge(generation, changes, counts);
        self.after(Ok(()), ctx);
    }
}

impl Handler<Restored> for Tables {
    type Result = ();

    fn handle(&mut self, Restored(restored): Restored, ctx: &mut Self::Context) {
        let result = self.session.restored(restored);
        self.after(result, ctx);
    }
}

impl Handler<Order> for Tables {
    type Result = ();

    fn handle(&mut self, order: Order, ctx: &mut Self::Context) {
        let result = match order {
            Order::Note(report) => self.session.note(report),
            Order::Adopt(maps, occasion) => self.session.adopt(*maps, occasion),
            Order::Write { epoch, is_current } => self.session.grant(epoch, is_current),
            Order::Stop => self.session.release(),
            Order::Answer(id, query) => self.session.answer(id, &query, Instant::now()),
            Order::Attached(outcome) => {
                self.session.attached(outcome);
                Ok(())
            }
        };
        self.after(result, ctx);
    }
}

impl Handler<Survey> for Tables {
    type Result = Result<(Page, Facts), String>;

    fn handle(&mut self, Survey(from): Survey, _: &mut Self::Context) -> Self::Result {
        self.session.survey(from)
    }
}

impl Handler<Pulse> for Tables {
    type Result = ();

    fn handle(&mut self, pulse: Pulse, ctx: &mut Self::Context) {
        pulse.pass();
        self.beat(ctx);
    }
}
