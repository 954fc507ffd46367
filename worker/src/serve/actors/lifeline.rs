//! The worker's end of the conversation with the supervisor.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::process;
use std::rc::Rc;
use std::time::{Duration, Instant};

use actix::{
    Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, Recipient, WrapFuture,
};
use holdfast_protocol::handover::{
    FromChild, HEARTBEAT_INTERVAL, MAX_TEXT_BYTES, Occasion, Offer, Seen, ToChild,
};
use holdfast_protocol::wire;
use tokio::io::unix::AsyncFd;

use super::compiler::{Compiler, Keep, Past};
use super::scrapes::{self, Begin, Depart, Scrapes};
use super::source::{Granted, Look, Source};
use super::tables::{Order, Tables};
use crate::lifeline::{Lifeline, LifelineError};
use crate::serve::conversation::{Conversation, Task};
use crate::serve::offer::{Gathering, OfferError};
use crate::serve::tables::maps::ShadowMaps;

/// Messages that wait for the supervisor to read: a heartbeat every half second and the answers to
/// queries. One that does not read for so long is not worth waiting for.
const MAX_QUEUE: usize = 256;

/// How long a worker that ends tries to say why.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Why a message that should carry a descriptor is of no use without.
const NO_DESCRIPTOR: &str = "the descriptor of the snapshot did not arrive: this process may have \
                             too few (see `ulimit -n`)";

/// The same of the listener for scrapes.
const NO_LISTENER: &str = "the descriptor to answer scrapes at did not arrive: this process may have \
                           too few (see `ulimit -n`)";

/// Exit status of a worker that cannot or will not go on.
const FAILED: i32 = 1;

/// Speaks with the supervisor.
pub struct Link {
    socket: Rc<AsyncFd<Lifeline>>,
    tables: Addr<Tables>,
    source: Addr<Source>,
    compiler: Addr<Compiler>,
    scrapes: Addr<Scrapes>,
    conversation: Conversation,
    gathering: Gathering,
    occasion: Occasion,
    /// How what is in force is recognised, until what is on disk is looked at.
    seen: Option<Seen>,
    /// How often every actor has taken its turn.
    progress: u64,
    queue: VecDeque<FromChild>,
    /// Whether room in the socket is being waited for.
    flushing: bool,
}

/// Something to send.
pub struct Say(pub FromChild);

/// Answered when everything before it has been sent, as far as there is room.
pub struct Said;

/// The process has to end.
pub enum End {
    /// It will not serve: nothing was changed.
    Refused(String),
    /// It cannot go on.
    Failed(String),
}

/// Goes from actor to actor and back, with each heartbeat and before there are any: that it arrives shows
/// that each has taken a turn. What they do time and again, they do then.
pub struct Pulse {
    route: Vec<Recipient<Pulse>>,
}

struct Heard(Result<(ToChild, Vec<OwnedFd>), LifelineError>);

impl Message for Say {
    type Result = ();
}

impl Message for Said {
    type Result = ();
}

impl Message for End {
    type Result = ();
}

impl Message for Pulse {
    type Result = ();
}

impl Message for Heard {
    type Result = ();
}

impl Pulse {
    /// Passes it on to the next on its route.
    pub fn pass(mut self) {
        if let Some(next) = self.route.pop() {
            next.do_send(self);
        }
    }
}

impl Link {
    /// Speaks over `socket`; every heartbeat depends on `tables` and `source`.
    pub fn new(
        socket: AsyncFd<Lifeline>,
        tables: Addr<Tables>,
        source: Addr<Source>,
        compiler: Addr<Compiler>,
        scrapes: Addr<Scrapes>,
    ) -> Self {
        Self {
            socket: Rc::new(socket),
            tables,
            source,
            compiler,
            scrapes,
            conversation: Conversation::default(),
            gathering: Gathering::default(),
            occasion: Occasion::Start,
            seen: None,
            progress: 0,
            queue: VecDeque::new(),
            flushing: false,
        }
    }

    fn hear(
        &mut self,
        message: ToChild,
        descriptors: Vec<OwnedFd>,
        ctx: &mut Context<Self>,
    ) -> Result<(), String> {
        let task = self.conversation.hear(&message).map_err(|error| error.to_string())?;
        match (task, message) {
            (Task::Welcome(occasion), _) => {
                self.occasion = occasion;
                self.say(welcome(), ctx);
            }
            (Task::Gather, ToChild::Offer(offer)) => {
                self.gather(offer, descriptors, ctx).map_err(|error| error.to_string())?;
            }
            (Task::Note, ToChild::InForce(report)) => self.tables.do_send(Order::Note(report)),
            // By way of who knows whether something else is on disk by now.
            (Task::Write { epoch }, _) => {
                self.source.do_send(Granted(epoch));
                self.scrapes.do_send(Begin(epoch));
            }
            (Task::Stop, _) => {
                self.scrapes.do_send(scrapes::Stop);
                self.tables.do_send(Order::Stop);
            }
            (Task::Serve, ToChild::Vitals(vitals)) => {
                let listener = descriptors.into_iter().next().filter(|_| vitals.listens);
                if listener.is_none() && vitals.listens {
                    return Err(NO_LISTENER.to_owned());
                }
                self.scrapes.do_send(scrapes::Told { vitals, listener });
            }
            (Task::Attached, ToChild::NotAttached { reason }) => {
                self.tables.do_send(Order::Attached(Err(reason)));
            }
            (Task::Attached, _) => self.tables.do_send(Order::Attached(Ok(()))),
            (Task::Answer, ToChild::Query { id, body }) => {
                self.tables.do_send(Order::Answer(id, body));
            }
            (Task::Recall, ToChild::Seen(seen)) => self.seen = Some(seen),
            (Task::Learn, ToChild::History(history)) => {
                let snapshot = descriptors.into_iter().next();
                if snapshot.is_none() && !history.snapshot.is_empty() {
                    return Err(NO_DESCRIPTOR.to_owned());
                }
                self.compiler.do_send(Past { history, snapshot });
                self.source.do_send(Look(self.seen.take()));
            }
            (Task::Keep, _) => match descriptors.into_iter().next() {
                Some(file) => self.compiler.do_send(Keep(file)),
                None => return Err(NO_DESCRIPTOR.to_owned()),
            },
            (Task::Leave, _) => self.scrapes.do_send(Depart),
            (
                Task::Note | Task::Gather | Task::Answer | Task::Recall | Task::Learn | Task::Serve,
                _,
            ) => {}
        }
        Ok(())
    }

    fn gather(
        &mut self,
        offer: Offer,
        descriptors: Vec<OwnedFd>,
        ctx: &mut Context<Self>,
    ) -> Result<(), OfferError> {
        let index = offer.index;
        // The last one is accepted only when nothing is missing.
        let complete = match self.gathering.take(offer, descriptors)? {
            true => Some(std::mem::take(&mut self.gathering).finish()?),
            false => None,
        };
        self.say(FromChild::Accepted { index }, ctx);
        if let Some(estate) = complete {
            self.conversation.gathered();
            let maps = ShadowMaps::map(estate)?;
            self.tables.do_send(Order::Adopt(Box::new(maps), self.occasion));
        }
        Ok(())
    }

    fn beat(&mut self, ctx: &mut Context<Self>) {
        if self.conversation.is_ready() {
            let epoch = self.conversation.writing_epoch();
            self.say(FromChild::Heartbeat { epoch, progress: self.progress }, ctx);
        }
        let (tables, source) = (self.tables.clone(), self.source.clone());
        let route = vec![ctx.address().recipient(), tables.recipient(), source.recipient()];
        Pulse { route }.pass();
    }

    fn say(&mut self, message: FromChild, ctx: &mut Context<Self>) {
        if self.queue.len() == MAX_QUEUE {
            end("the supervisor has not read for too long");
        }
        self.queue.push_back(message);
        self.flush(ctx);
    }

    /// Sends what there is room for, and the rest when there is room again.
    fn flush(&mut self, ctx: &mut Context<Self>) {
        while let Some(message) = self.queue.front() {
            match self.socket.get_ref().try_send(message, &[]) {
                Ok(true) => drop(self.queue.pop_front()),
                Ok(false) => return self.flush_later(ctx),
                Err(error) => end(&error.to_string()),
            }
        }
    }

    fn flush_later(&mut self, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.flushing, true) {
            return;
        }
        let socket = Rc::clone(&self.socket);
        let room = async move {
            // Readiness that was noted before the socket filled up would end the wait at once.
            if let Ok(mut ready) = socket.writable().await {
                ready.clear_ready();
            }
            drop(socket.writable().await);
        };
        ctx.spawn(room.into_actor(self).map(|(), link, ctx| {
            link.flushing = false;
            link.flush(ctx);
        }));
    }

    /// Says `reason` if there is somebody to hear it, and ends.
    fn refuse(&mut self, reason: &str) -> ! {
        let deadline = Instant::now() + LAST_WORDS;
        let reason = wire::bounded(reason, MAX_TEXT_BYTES);
        let last = FromChild::Refused { reason: reason.clone() };
        for message in self.queue.drain(..).chain([last]) {
            if self.socket.get_ref().send(&message, &[], deadline).is_err() {
                break;
            }
        }
        end(&reason)
    }
}

/// Lets the reactor watch `lifeline`.
///
/// # Errors
///
/// When the kernel can watch no more descriptors.
pub fn register(lifeline: Lifeline) -> io::Result<AsyncFd<Lifeline>> {
    // SAFETY: `Lifeline` owns its one descriptor, never replaces it, and closes it when it is
    // dropped, which `AsyncFd` does after deregistering.
    Ok(unsafe { AsyncFd::register(lifeline)? })
}

/// Ends at once: a worker that is not led writes nothing.
fn end(reason: &str) -> ! {
    tracing::error!(reason, "this worker ends; governance stays");
    process::exit(FAILED)
}

fn welcome() -> FromChild {
    FromChild::Welcome {
        newest: wire::VERSION,
        oldest: wire::OLDEST_VERSION,
        build: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// Reads until there is nothing more to come, one message at a time.
async fn listen(socket: Rc<AsyncFd<Lifeline>>, link: Addr<Link>) {
    loop {
        let Ok(mut ready) = socket.readable().await else { return };
        let heard = match socket.get_ref().try_receive() {
            Ok(None) => {
                ready.clear_ready();
                continue;
            }
            Ok(Some(received)) => Ok(received),
            Err(error) => Err(error),
        };
        if link.send(Heard(heard)).await.is_err() {
            return;
        }
    }
}

impl Actor for Link {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.spawn(listen(Rc::clone(&self.socket), ctx.address()).into_actor(self));
        ctx.run_interval(HEARTBEAT_INTERVAL, Self::beat);
    }
}

impl Handler<Heard> for Link {
    type Result = ();

    fn handle(&mut self, Heard(heard): Heard, ctx: &mut Self::Context) {
        match heard {
            Ok((message, descriptors)) => {
                if let Err(reason) = self.hear(message, descriptors, ctx) {
                    self.refuse(&reason);
                }
            }
            Err(error) => self.refuse(&error.to_string()),
        }
    }
}

impl Handler<Say> for Link {
    type Result = ();

    fn handle(&mut self, Say(message): Say, ctx: &mut Self::Context) {
        if let FromChild::Ready { .. } = message {
            self.conversation.ready();
        }
        self.say(message, ctx);
    }
}

impl Handler<Said> for Link {
    type Result = ();

    fn handle(&mut self, _: Said, _: &mut Self::Context) {}
}

impl Handler<End> for Link {
    type Result = ();

    fn handle(&mut self, end_of: End, _: &mut Self::Context) {
        match end_of {
            End::Refused(reason) => self.refuse(&reason),
            End::Failed(reason) => end(&reason),
        }
    }
}

impl Handler<Pulse> for Link {
    type Result = ();

    fn handle(&mut self, _: Pulse, _: &mut Self::Context) {
        self.progress += 1;
    }
}
