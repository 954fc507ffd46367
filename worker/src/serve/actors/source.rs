//! Reads the configuration when the worker starts and whenever it has changed on disk.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use actix::{
    Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, SpawnHandle, WrapFuture,
};
use holdfast_config::Sources;
use holdfast_protocol::handover::{FromChild, Seen};
use nix::sys::inotify::Inotify;

use super::compiler::{Compiler, Fresh, Text};
use super::lifeline::{End, Link, Pulse, Say};
use super::tables::{Found, Order, SETTLING, Tables};
use crate::serve::Configuration;
use crate::serve::source::places::places_and_steps;
use crate::serve::source::reading;
use crate::serve::source::settling::{Change, Settling};
use crate::serve::source::signature::{CERTAIN_AFTER, Signature, signature};
use crate::serve::source::watcher::Watcher;
use crate::serve::source::{BEATS_PER_POLL, POLL_INTERVAL};

/// Why a worker ends whose configuration has left the directories it may read.
const MOVED: &str = "the configuration has moved to another directory, which only a new worker may \
                     read: this one has confined itself to where it was";

/// Watches and reads the configuration.
pub struct Source {
    /// What changes are noticed with, until the actor starts.
    watch: Option<Inotify>,
    configuration: Arc<Configuration>,
    compiler: Addr<Compiler>,
    tables: Addr<Tables>,
    link: Addr<Link>,
    settling: Settling,
    /// Of what was read last.
    signature: Option<Signature>,
    /// Digest of what was passed on last, or why there was nothing.
    passed: Option<Result<String, String>>,
    reading: bool,
    /// Whether something has changed since that began.
    again: bool,
    /// What is on disk by what a former worker has read of it, as long as this one has not.
    assumed: Option<Seen>,
    /// When what was read right after it had changed is read once more.
    recheck: Option<SpawnHandle>,
    /// What was said to be on disk last, and how it is recognised.
    said: Option<Seen>,
    /// Heartbeats so far.
    beats: u32,
}

/// This worker, and nobody else, writes from now on, as this epoch.
pub struct Granted(pub u64);

impl Message for Granted {
    type Result = ();
}

/// What became of configurations is known: it is time to look at what is on disk. A former worker has read this.
pub struct Look(pub Option<Seen>);

impl Message for Look {
    type Result = ();
}

/// What was found on disk.
pub struct Read {
    signature: Signature,
    /// The text, or why it cannot be read.
    pub text: Result<Arc<Sources>, String>,
    /// How long it had not changed before it was read.
    age: Option<Duration>,
    /// Whether it failed because this process confined itself to where the configuration was.
    outside: bool,
}

impl Source {
    pub fn new(
        configuration: Configuration,
        watch: Option<Inotify>,
        compiler: Addr<Compiler>,
        tables: Addr<Tables>,
        link: Addr<Link>,
    ) -> Self {
        Self {
            watch,
            configuration: Arc::new(configuration),
            compiler,
            tables,
            link,
            settling: Settling::default(),
            signature: None,
            passed: None,
            reading: false,
            again: false,
            assumed: None,
            recheck: None,
            said: None,
            beats: 0,
        }
    }

    /// Watches with inotify. Without it, changes are found by looking.
    fn watch(&mut self, ctx: &mut Context<Self>) {
        match self.watch.take().map(Watcher::new) {
            Some(Ok(watcher)) => self.await_change(watcher, ctx),
            Some(Err(error)) => tracing::warn!(%error, "changes are found by looking"),
            None => tracing::warn!(
                "nothing to watch the configuration with; it is looked at every {POLL_INTERVAL:?}"
            ),
        }
    }

    fn await_change(&mut self, mut watcher: Watcher, ctx: &mut Context<Self>) {
        let (places, steps) = places_and_steps(&self.configuration.path);
        watcher.watch(&places, steps);
        let waiting = async move { (watcher.changed().await, watcher) };
        ctx.spawn(waiting.into_actor(self).map(|(change, watcher), actor, ctx| {
            // An error means that the reactor is gone, and this process about to be.
            if let Ok(change) = change {
                actor.notice(change, ctx);
                actor.await_change(watcher, ctx);
            }
        }));
    }

    fn notice(&mut self, change: Change, ctx: &mut Context<Self>) {
        let now = Instant::now();
        let until = self.settling.notice(change, now);
        if until <= now {
            return self.read_if_settled(ctx);
        }
        ctx.run_later(until - now, Self::read_if_settled);
    }

    fn read_if_settled(&mut self, ctx: &mut Context<Self>) {
        if self.settling.is_settled(Instant::now()) {
            self.read_if_changed(ctx);
        }
    }

    fn poll(&mut self, ctx: &mut Context<Self>) {
        let idle = !self.reading && !self.settling.is_waiting();
        if idle && self.signature.as_ref() != Some(&signature(&self.configuration.path)) {
            self.notice(Change::Written, ctx);
        }
    }

    fn read_if_changed(&mut self, ctx: &mut Context<Self>) {
        if self.reading {
            // What is being read may be what was before this change.
            self.again = true;
        } else if self.signature.as_ref() != Some(&signature(&self.configuration.path)) {
            self.read(ctx);
        }
    }

    fn read(&mut self, ctx: &mut Context<Self>) {
        self.reading = true;
        self.assumed = None;
        if let Some(recheck) = self.recheck.take() {
            ctx.cancel_future(recheck);
        }
        self.settling.reads(Instant::now());
        let (configuration, compiler) = (Arc::clone(&self.configuration), self.compiler.clone());
        // Nothing can have changed little when nothing was read before.
        let is_first = self.passed.is_none();
        let reading = async move {
            if is_first {
                let both = move || Read::of(&configuration).with_digest();
                return tokio::task::spawn_blocking(both).await.ok();
            }
            // What little has changed is in force when this is answered. Whoever computed the digest meanwhile
            // would take the processor of whoever puts it there.
            let read = compiler.send(Fresh(configuration)).await.ok()??;
            tokio::task::spawn_blocking(|| read.with_digest()).await.ok()
        };
        ctx.spawn(reading.into_actor(self).map(|reading, actor, ctx| {
            actor.reading = false;
            if let Some((read, digest)) = reading {
                actor.recognise(&read, &digest, ctx);
                actor.pass_on(read, digest);
            }
            if std::mem::take(&mut actor.again) {
                actor.read_if_changed(ctx);
            }
        }));
    }

    /// Says by what the next worker recognises what was read. A change right after the last one may look the same: what
    /// was read as soon as it had changed, as saves are, is read once more when any other change would show.
    fn recognise(&mut self, read: &Read, digest: &str, ctx: &mut Context<Self>) {
        let (Ok(_), Some(mark), Some(age)) = (&read.text, read.signature.mark(), read.age) else {
            return;
        };
        if age < CERTAIN_AFTER {
            self.recheck = Some(ctx.run_later(CERTAIN_AFTER, |actor, ctx| {
                actor.recheck = None;
                if !actor.reading && !actor.settling.is_waiting() {
                    actor.read(ctx);
                }
            }));
            return;
        }
        let seen = Seen { digest: digest.to_owned(), mark };
        if self.said.as_ref() != Some(&seen) {
            self.link.do_send(Say(FromChild::Seen(seen.clone())));
            self.said = Some(seen);
        }
    }

    /// Passes on what was read, unless it is what was passed on before.
    fn pass_on(&mut self, Read { signature, text, outside, .. }: Read, digest: String) {
        if outside {
            return self.link.do_send(End::Failed(MOVED.to_owned()));
        }
        self.signature = Some(signature);
        let text = text.map(|text| (digest, text));
        let passed = text.as_ref().map(|(digest, _)| digest.clone()).map_err(Clone::clone);
        if self.passed.as_ref() != Some(&passed) {
            self.passed = Some(passed);
            self.compiler.do_send(Text(text));
        }
    }
}

impl Read {
    /// Reads the configuration.
    pub fn of(Configuration { path, reader, readable }: &Configuration) -> Self {
        // The signature first: a change between the two shows as another one later.
        let signature = signature(path);
        let age = signature.age(SystemTime::now());
        let text = reading::text(path, reader).map(Arc::new);
        let outside = text.is_err() && readable.lacks(path);
        Self { signature, text, age, outside }
    }

    /// The same, and the digest of the text, if there is one.
    fn with_digest(self) -> (Self, String) {
        let digest = self.text.as_ref().map(|text| text.digest()).unwrap_or_default();
        (self, digest)
    }
}

impl Actor for Source {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // First the watch: whatever changes after what is read then is told of, as what it is.
        self.watch(ctx);
    }
}

impl Handler<Look> for Source {
    type Result = ();

    /// What a former worker has read is still there: it is read when nobody waits any more. It may be megabytes, and
    /// the next grant waits for this.
    fn handle(&mut self, Look(seen): Look, ctx: &mut Self::Context) {
        if self.reading || self.passed.is_some() || self.assumed.is_some() {
            return;
        }
        let found = signature(&self.configuration.path).mark();
        match seen.filter(|seen| found.as_ref() == Some(&seen.mark)) {
            Some(seen) => {
                self.tables.do_send(Found(seen.digest.clone()));
                self.assumed = Some(seen);
            }
            None => self.read(ctx),
        }
    }
}

impl Handler<Granted> for Source {
    type Result = ();

    /// One that has waited for its grant may not have noticed a save that the former worker put in
    /// force: it must not put back what was before.
    fn handle(&mut self, Granted(epoch): Granted, ctx: &mut Self::Context) {
        if self.assumed.is_some() {
            // Whatever else is there by now is read as well.
            self.tables.do_send(Order::Write { epoch, is_current: true });
            ctx.run_later(SETTLING, |actor, ctx| {
                if actor.assumed.is_some() {
                    actor.read(ctx);
                }
            });
            return;
        }
        let is_current = !self.reading
            && !self.settling.is_waiting()
            && self.signature.as_ref() == Some(&signature(&self.configuration.path));
        self.tables.do_send(Order::Write { epoch, is_current });
        if !is_current {
            // Whatever is read next is passed on, also when it is what was read last.
            self.passed = None;
            self.signature = None;
            // What is waited for already is not put off, and what inotify is about to tell of is read when
            // that says so.
            if !self.reading && !self.settling.is_waiting() {
                self.notice(Change::Written, ctx);
            }
        }
    }
}

impl Handler<Pulse> for Source {
    type Result = ();

    fn handle(&mut self, pulse: Pulse, ctx: &mut Self::Context) {
        pulse.pass();
        self.beats = self.beats.wrapping_add(1);
        if self.beats.is_multiple_of(BEATS_PER_POLL) {
            self.poll(ctx);
        }
    }
}
