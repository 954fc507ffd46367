//! Holds the estate, feeds the takeover machine with what happens, and does what it says.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{OwnedFd, RawFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use actix::{Actor, Addr, AsyncContext, Context, SpawnHandle};
use holdfast_protocol::control::Replacements;
use holdfast_protocol::handover::{ConfigReport, ToChild};
use tokio::io::unix::AsyncFd;

use super::attachments::Attachments;
use super::audits::{Audit, Repair};
use super::closings::Closings;
use super::gate::Gate;
use super::lifeline::Lifeline;
use super::orders::Standing;
use super::requests::{Relays, Waiters};
use super::resumption::Resumed;
use super::successions::Succession;
use super::trials::{Exposure, Proof};
use super::vitals::Scrapes;
use crate::channel::Channel;
use crate::drift::observe::Observer;
use crate::drift::{self, Book};
use crate::estate::Estate;
use crate::lock::Locks;
use crate::oom::Witness;
use crate::process::Child;
use crate::settings::Settings;
use crate::status::Ledger;
use crate::succession::{Carried, Image, LeftWorker};
use crate::takeover::{Action, Event, State, WorkerId};
use crate::timeline::Timeline;
use crate::watches::Watches;

/// Most messages that wait; more senders than there are.
const MAILBOX: usize = 128;

/// What a keeper works with.
pub struct Given {
    /// What this process was told.
    pub settings: Settings,
    /// The binary it was started from.
    pub image: Image,
    /// Holds the readers back while this process becomes another binary.
    pub gate: Rc<Gate>,
    /// What it holds against other supervisors.
    pub locks: Rc<RefCell<Locks>>,
    /// The control socket, which stays open as long as this process lives.
    pub listener: RawFd,
    /// Where scrapes arrive, if metrics are served.
    pub scrapes: Option<OwnedFd>,
    /// Where it leaves word when it ends.
    pub departure: Departure,
}

/// What a keeper begins with.
pub struct Past {
    /// The objects.
    pub estate: Estate,
    /// The newest epoch that was granted.
    pub epoch: u64,
    /// What a predecessor in this process left beside that.
    pub predecessor: Option<Predecessor>,
}

/// What a predecessor in this process left beside the estate.
pub struct Predecessor {
    /// What it knew.
    pub carried: Carried,
    /// Its worker.
    pub worker: Option<LeftWorker<AsyncFd<Channel>>>,
    /// The worker's binary that has proved itself.
    pub binary: Option<OwnedFd>,
}

impl Past {
    fn offers(&self) -> u16 {
        u16::try_from(self.estate.offers().len()).expect("a few packets")
    }
}

/// Why the actors ended, for whoever started them.
pub type Departure = Rc<RefCell<Option<Farewell>>>;

/// Why the actors ended.
#[derive(Debug)]
pub enum Farewell {
    /// Told to leave; governance stays.
    Keeping,
    /// Told to remove everything, by these peers, who wait for what was removed.
    Uninstalling(Vec<Channel>),
}

/// The actor that decides.
pub struct Keeper {
    pub(super) settings: Settings,
    pub(super) estate: Estate,
    pub(super) state: State,
    pub(super) started: Instant,
    pub(super) workers: BTreeMap<WorkerId, Live>,
    pub(super) watches: Watches,
    pub(super) config: ConfigReport,
    pub(super) ledger: Ledger,
    /// Why the worker before this one is gone, or why there is none.
    pub(super) trouble: String,
    pub(super) relays: Relays,
    pub(super) waiters: Waiters,
    /// Knows whether memory ran out.
    pub(super) witness: Witness,
    pub(super) uninstallers: Vec<Channel>,
    pub(super) timeline: Option<Timeline>,
    pub(super) observer: Observer,
    pub(super) drift: Book,
    pub(super) repair: Option<Repair>,
    pub(super) attachments: Attachments,
    pub(super) closings: Closings,
    pub(super) proof: Proof,
    pub(super) succession: Succession,
    pub(super) replacements: Replacements,
    pub(super) image: Image,
    pub(super) gate: Rc<Gate>,
    pub(super) locks: Rc<RefCell<Locks>>,
    /// The control socket's descriptor; whoever listens owns it, as long as this process lives.
    pub(super) listener: RawFd,
    pub(super) scrapes: Scrapes,
    /// When the kernel said what the next takeover will be about.
    noticed: Option<Duration>,
    timer: Option<SpawnHandle>,
    /// A predecessor's worker, until the actor starts.
    pub(super) resumed: Option<Resumed>,
    pub(super) departure: Departure,
}

/// A worker's process and the way to it.
pub(super) struct Live {
    pub(super) child: Child,
    pub(super) since: Instant,
    pub(super) version: String,
    /// What it last said about its configuration; counts once it is granted.
    pub(super) report: ConfigReport,
    pub(super) exposure: Exposure,
    /// What it was told last, if anything.
    pub(super) told: Option<Standing>,
    pub(super) channel: Rc<AsyncFd<Channel>>,
    /// What it watches its configuration with, unless the kernel had none.
    pub(super) watch: Option<OwnedFd>,
    pub(super) lifeline: Addr<Lifeline>,
}

impl Keeper {
    /// A keeper that begins with `past`, to be started.
    #[must_use]
    pub fn new(given: Given, past: Past) -> Self {
        let Given { settings, image, gate, locks, listener, scrapes, departure } = given;
        let mut keeper = Self {
            state: State::new(past.offers(), past.epoch, jitter_seed()),
            proof: Proof::new(&settings),
            settings,
            estate: past.estate,
            started: Instant::now(),
            workers: BTreeMap::new(),
            watches: Watches::default(),
            config: ConfigReport::default(),
            ledger: Ledger::default(),
            trouble: String::new(),
            relays: Relays::default(),
            waiters: Waiters::default(),
            witness: Witness::of_this_process(),
            uninstallers: Vec::new(),
            timeline: None,
            observer: Observer::default(),
            drift: Book::new(jitter_seed()),
            repair: None,
            attachments: Attachments::default(),
            closings: Closings::default(),
            succession: Succession::None,
            replacements: Replacements::default(),
            image,
            gate,
            locks,
            listener,
            scrapes: Scrapes::new(scrapes),
            noticed: None,
            timer: None,
            departure,
            resumed: None,
        };
        if let Some(predecessor) = past.predecessor {
            keeper.resume(predecessor);
        }
        keeper
    }

    /// The machine's time: since this keeper was made.
    pub(super) fn time(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.started)
    }

    /// Feeds `event`, noticed at `at`, and everything that follows from it.
    pub(super) fn feed(&mut self, event: Event, at: Instant, ctx: &mut Context<Self>) {
        let noticed = self.time(at);
        self.noticed.get_or_insert(noticed);
        // A deadline that has passed is dealt with here as well: a worker that floods leaves the timer,
        // which is set anew after each event, no turn.
        let mut events = VecDeque::from([event, Event::Tick]);
        while let Some(event) = events.pop_front() {
            let now = self.time(Instant::now());
            if let (Event::Spawned(_), Some(timeline)) = (&event, &mut self.timeline) {
                timeline.spawned(now);
            }
            for action in self.state.step(event, now) {
                events.extend(self.perform(action, now, ctx));
            }
        }
        if !self.state.awaits_takeover() {
            self.noticed = None;
        }
        self.arm(ctx);
    }

    /// Sees to it that the machine hears of its next deadline.
    pub(super) fn arm(&mut self, ctx: &mut Context<Self>) {
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        let Some(deadline) = self.state.next_deadline() else { return };
        let due = self.started + deadline;
        let wait = due.saturating_duration_since(Instant::now());
        self.timer = Some(ctx.run_later(wait, move |keeper, ctx| {
            keeper.timer = None;
            keeper.feed(Event::Tick, due, ctx);
        }));
    }

    /// Does what the machine says; what happened because of it.
    fn perform(&mut self, action: Action, now: Duration, ctx: &mut Context<Self>) -> Option<Event> {
        match action {
            Action::Begin(cause) => {
                let noticed = self.noticed.take().unwrap_or(now);
                self.timeline = Some(Timeline::new(cause, noticed, now));
                self.waiters.takeover_begins();
                None
            }
            Action::Promote(worker, cause) => {
                let noticed = self.noticed.take().unwrap_or(now);
                self.timeline = Some(Timeline::new(cause, noticed, now));
                self.promote(worker)
            }
            Action::Spawn { worker, .. } => Some(match self.spawn(worker, ctx) {
                Ok(()) => Event::Spawned(worker),
                Err(reason) => Event::SpawnFailed(worker, reason),
            }),
            Action::Hello { worker, epoch, occasion } => {
                let greeted = self.tell(worker, &self.hello(epoch, occasion));
                let told = greeted.or_else(|| self.tell_seen(worker, occasion));
                told.or_else(|| self.tell_standing(worker, occasion))
            }
            Action::Offer(worker) => self.offer(worker),
            Action::Release(worker) => self.tell(worker, &ToChild::Release),
            Action::Grant(worker, epoch) => self.grant(worker, epoch),
            Action::Leave(worker) => {
                if let Some(live) = self.workers.get_mut(&worker) {
                    live.exposure.dismissed = true;
                }
                self.tell(worker, &ToChild::Leave)
            }
            Action::Kill(worker) => {
                self.kill(worker);
                None
            }
            Action::Conclude(outcome) => {
                self.conclude(outcome, now);
                self.prove(ctx);
                self.tell_vitals();
                // Not now: whoever waits for the grant comes first.
                ctx.notify(Audit);
                None
            }
            Action::Exit(exit) => {
                self.exit(exit, ctx);
                None
            }
        }
    }
}

impl Actor for Keeper {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // Who is held back in silence sends nothing more; this is for what was read before.
        ctx.set_mailbox_capacity(MAILBOX);
        match self.resumed.take() {
            Some(worker) => self.welcome(worker, ctx),
            None => self.feed(Event::Start, self.started, ctx),
        }
        self.keep_spare(true, ctx);
        ctx.run_interval(drift::INTERVAL, |_, ctx| ctx.notify(Audit));
    }
}

/// Different on every node and in every life; nothing secret depends on it.
pub(super) fn jitter_seed() -> u64 {
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let nanos = clock.map_or(0, |since| since.as_nanos() & u128::from(u64::MAX));
    u64::try_from(nanos).unwrap_or(0) ^ (u64::from(std::process::id()) << 32)
}
