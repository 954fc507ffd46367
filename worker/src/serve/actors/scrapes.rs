//! Answers whoever scrapes, while this worker writes. What waits in the kernel's queue when it stops is
//! answered by the next one, which listens at the same socket.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::process;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use actix::{
    Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, SpawnHandle, WrapFuture,
};
use holdfast_protocol::handover::Vitals;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::tables::{Survey, Tables};
use crate::serve::http::answer::{self, Framing};
use crate::serve::http::connection::{Connection, Listener};
use crate::serve::http::request::{Request, Target};
use crate::serve::telemetry::exposition::Exposition;
use crate::serve::telemetry::family::CONTENT_TYPE;
use crate::serve::telemetry::sample::Counted;
use crate::serve::telemetry::services::Rows;
use crate::serve::telemetry::{Facts, Known, health};

/// Most connections at a time; the rest wait in the kernel's queue. Scrapers are one or two, and a probe.
const MAX_CONNECTIONS: u32 = 16;

/// How long an answer may take, with a client that reads slowly. Prometheus waits as long by default.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// How long the maps are waited for: a worker that applies a plan answers between two batches of it.
const MAPS_TIME: Duration = Duration::from_secs(5);

/// After a connection could not be accepted, for want of descriptors above all.
const PAUSE: Duration = Duration::from_millis(100);

/// How long a worker that was told to leave finishes answers: the supervisor waits for five seconds.
const FINISHING: Duration = Duration::from_secs(1);

/// Bytes that are gathered before they are sent: a small answer goes out as a whole.
const SENT_AT_ONCE: usize = 64 * 1024;

/// Exit status of a worker that was told to leave.
const LEFT: i32 = 0;

/// Listens, and answers.
pub struct Scrapes {
    desk: Rc<Desk>,
    /// Where to listen from the next grant on.
    listener: Option<OwnedFd>,
    accepting: Option<SpawnHandle>,
}

/// What the supervisor knows, and with its first word before a grant where to listen.
pub struct Told {
    /// What it knows.
    pub vitals: Vitals,
    /// Where to listen.
    pub listener: Option<OwnedFd>,
}

/// This worker writes from now on, in this epoch.
pub struct Begin(pub u64);

/// It does not any more.
pub struct Stop;

/// It has to end, answers that are under way being finished.
pub struct Depart;

/// What answers are made of, and how many there are at a time.
struct Desk {
    tables: Addr<Tables>,
    known: RefCell<Known>,
    places: Arc<Semaphore>,
}

impl Message for Told {
    type Result = ();
}

impl Message for Begin {
    type Result = ();
}

impl Message for Stop {
    type Result = ();
}

impl Message for Depart {
    type Result = ();
}

impl Scrapes {
    /// Answers with what `tables` says.
    pub fn new(tables: Addr<Tables>) -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let started_ms = since.as_millis().try_into().unwrap_or(u64::MAX);
        let known = RefCell::new(Known { started_ms, ..Known::default() });
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS as usize));
        let desk = Rc::new(Desk { tables, known, places });
        Self { desk, listener: None, accepting: None }
    }
}

impl Actor for Scrapes {
    type Context = Context<Self>;
}

impl Handler<Told> for Scrapes {
    type Result = ();

    fn handle(&mut self, told: Told, _: &mut Self::Context) {
        self.desk.known.borrow_mut().vitals = told.vitals;
        if self.accepting.is_none() && told.listener.is_some() {
            self.listener = told.listener;
        }
    }
}

impl Handler<Begin> for Scrapes {
    type Result = ();

    fn handle(&mut self, Begin(epoch): Begin, ctx: &mut Self::Context) {
        self.desk.known.borrow_mut().epoch = epoch;
        let Some(socket) = self.listener.take() else { return };
        match Listener::new(socket) {
            Ok(listener) => {
                let accepting = Rc::clone(&self.desk).accept(listener);
                self.accepting = Some(ctx.spawn(accepting.into_actor(self)));
            }
            Err(error) => tracing::error!(%error, "cannot listen for scrapes: they wait"),
        }
    }
}

impl Handler<Stop> for Scrapes {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        self.desk.known.borrow_mut().epoch = 0;
        self.listener = None;
        if let Some(accepting) = self.accepting.take() {
            ctx.cancel_future(accepting);
        }
    }
}

impl Handler<Depart> for Scrapes {
    type Result = ();

    fn handle(&mut self, _: Depart, ctx: &mut Self::Context) {
        tracing::info!("leaving");
        if let Some(accepting) = self.accepting.take() {
            ctx.cancel_future(accepting);
        }
        let places = Arc::clone(&self.desk.places);
        if places.available_permits() == MAX_CONNECTIONS as usize {
            process::exit(LEFT);
        }
        let finished =
            async move { drop(timeout(FINISHING, places.acquire_many(MAX_CONNECTIONS)).await) };
        ctx.spawn(finished.into_actor(self).map(|(), _, _| process::exit(LEFT)));
    }
}

impl Desk {
    /// Accepts as many connections as there are places for.
    async fn accept(self: Rc<Self>, listener: Listener) {
        while let Ok(place) = Arc::clone(&self.places).acquire_owned().await {
            match listener.accept().await {
                Ok(connection) => {
                    let desk = Rc::clone(&self);
                    actix::spawn(async move {
                        desk.serve(connection).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a scrape cannot be accepted; it waits");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    async fn serve(&self, connection: Connection) {
        let answering = async {
            match connection.request().await {
                Ok(Some(request)) => self.answer(&connection, request).await,
                Ok(None) => Ok(()),
                Err(refusal) => connection.write(answer::refusal(refusal).as_bytes()).await,
            }
        };
        // A client that is gone or slower than that gets no more, and notices.
        if let Ok(Ok(())) = timeout(ANSWER_TIME, answering).await {
            connection.close().await;
        }
    }

    async fn answer(&self, connection: &Connection, request: Request) -> io::Result<()> {
        let answer = match request.target {
            Target::Metrics => return self.answer_metrics(connection, request).await,
            Target::Health => self.health(health::healthz).await,
            Target::Readiness => self.health(health::readyz).await,
        };
        let status = if answer.is_well { answer::OK } else { answer::UNAVAILABLE };
        let text = answer::whole(status, answer::JSON, &answer.body, request.is_head);
        connection.write(text.as_bytes()).await
    }

    async fn health(
        &self,
        judge: fn(&Known, Result<(), &str>) -> health::Health,
    ) -> health::Health {
        let found = self.page(0).await;
        let mut known = self.known.borrow().clone();
        match found {
            Ok((_, _, facts)) => {
                known.facts = facts;
                judge(&known, Ok(()))
            }
            Err(reason) => judge(&known, Err(&reason)),
        }
    }

    async fn answer_metrics(&self, connection: &Connection, request: Request) -> io::Result<()> {
        let mut exposition = match self.survey().await {
            Ok(exposition) => exposition,
            Err(reason) => {
                let body = format!("the maps cannot be read: {reason}\n");
                let is_head = request.is_head;
                let text = answer::whole(answer::UNAVAILABLE, answer::TEXT, &body, is_head);
                return connection.write(text.as_bytes()).await;
            }
        };
        let framing = if request.is_modern { Framing::Chunks } else { Framing::ToTheEnd };
        let mut text = answer::head(answer::OK, CONTENT_TYPE, framing);
        if request.is_head {
            return connection.write(text.as_bytes()).await;
        }
        while let Some(part) = exposition.step() {
            text.push_str(&answer::part(&part, framing));
            if text.len() >= SENT_AT_ONCE {
                connection.write(text.as_bytes()).await?;
                text.clear();
            }
            // Heartbeats, and whoever else waits for a turn.
            tokio::task::yield_now().await;
        }
        if framing == Framing::Chunks {
            text.push_str(answer::LAST_CHUNK);
        }
        connection.write(text.as_bytes()).await
    }

    /// Everything there is to say, read a page at a time.
    async fn survey(&self) -> Result<Exposition, String> {
        let mut rows = Rows::default();
        let mut from = Some(0);
        let mut known = self.known.borrow().clone();
        while let Some(number) = from {
            let (services, next, facts) = self.page(number).await?;
            rows.add(&services);
            (from, known.facts) = (next, facts);
        }
        Ok(Exposition::new(&known, rows))
    }

    async fn page(&self, from: u32) -> Result<Surveyed, String> {
        let asked = timeout(MAPS_TIME, self.tables.send(Survey(from))).await;
        let (page, facts) = match asked {
            Ok(Ok(answer)) => answer?,
            Ok(Err(_)) => return Err("this worker is ending".to_owned()),
            Err(_) => return Err(format!("they were not read within {MAPS_TIME:?}")),
        };
        Ok((page.services, page.next, facts))
    }
}

/// Services, where the next ones start, and what is known beside them.
type Surveyed = (Vec<Counted>, Option<u32>, Facts);
