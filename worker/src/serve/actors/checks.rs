//! Makes the health checks that a [`Checker`] asks for, and tells what it concludes.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use actix::{
    Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, SpawnHandle, WrapFuture,
};

use super::tables::{Judged, Tables};
use crate::serve::health_check::checker::{Action, Checker, Event, Ticket};
use crate::serve::health_check::probe::probe;
use crate::serve::health_check::target::{Change, Outcome, Target, Watch};

/// How often it is logged, at most, that checks cannot be made: there may be thousands.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// Makes checks.
pub struct Checks {
    tables: Addr<Tables>,
    checker: Checker,
    /// Of the list of targets that is in force.
    generation: u64,
    /// What the checker's times count from.
    start: Instant,
    under_way: HashMap<Ticket, SpawnHandle>,
    /// The timer for the checker's next tick.
    alarm: Option<SpawnHandle>,
    complained: Option<Instant>,
}

/// These are to be checked from now on, and nothing else.
pub struct Targets {
    /// Of this list; it grows.
    pub generation: u64,
    /// The list.
    pub watches: Vec<Watch>,
}

impl Message for Targets {
    type Result = ();
}

impl Checks {
    /// Tells `tables` what it finds.
    pub fn new(tables: Addr<Tables>) -> Self {
        let (checker, start) = (Checker::default(), Instant::now());
        let (generation, under_way) = (0, HashMap::new());
        Self { tables, checker, generation, start, under_way, alarm: None, complained: None }
    }

    fn step(&mut self, event: Event, ctx: &mut Context<Self>) {
        let before = self.checker.counts();
        let actions = self.checker.step(event, self.start.elapsed());
        let mut changes: Vec<Change> = Vec::new();
        for action in actions {
            match action {
                Action::Begin(ticket, target, check) => {
                    let probing = async move { (probe(target.address, &check).await, target) };
                    let ended =
                        probing.into_actor(self).map(move |(outcome, target), actor, ctx| {
                            actor.ended(ticket, outcome, &target, ctx);
                        });
                    self.under_way.insert(ticket, ctx.spawn(ended));
                }
                Action::BreakOff(ticket) => {
                    if let Some(probing) = self.under_way.remove(&ticket) {
                        ctx.cancel_future(probing);
                    }
                }
                Action::Tell(change) => changes.push(change),
            }
        }
        let counts = self.checker.counts();
        if counts != before {
            self.tables.do_send(Judged { generation: self.generation, changes, counts });
        }
        self.set_alarm(ctx);
    }

    fn ended(
        &mut self,
        ticket: Ticket,
        outcome: Outcome,
        target: &Target,
        ctx: &mut Context<Self>,
    ) {
        self.under_way.remove(&ticket);
        if let Outcome::Undecided(reason) = &outcome {
            self.complain(target, reason);
        }
        self.step(Event::Ended(ticket, outcome), ctx);
    }

    fn complain(&mut self, target: &Target, reason: &str) {
        if self.complained.is_none_or(|last| last.elapsed() >= COMPLAINT_INTERVAL) {
            self.complained = Some(Instant::now());
            let (service, endpoint) = (&*target.service, target.address);
            tracing::error!(
                service,
                %endpoint,
                reason,
                "this node cannot make a health check, and what was known of the endpoint stays; is \
                 there a limit on descriptors (`ulimit -n`), or a filter?"
            );
        }
    }

    fn set_alarm(&mut self, ctx: &mut Context<Self>) {
        if let Some(alarm) = self.alarm.take() {
            ctx.cancel_future(alarm);
        }
        if let Some(wake) = self.checker.wake() {
            let left = wake.saturating_sub(self.start.elapsed());
            let alarm = ctx.run_later(left, |actor, ctx| {
                actor.alarm = None;
                actor.step(Event::Tick, ctx);
            });
            self.alarm = Some(alarm);
        }
    }
}

impl Actor for Checks {
    type Context = Context<Self>;
}

impl Handler<Targets> for Checks {
    type Result = ();

    fn handle(&mut self, Targets { generation, watches }: Targets, ctx: &mut Self::Context) {
        self.generation = generation;
        self.step(Event::Watch(watches), ctx);
    }
}
