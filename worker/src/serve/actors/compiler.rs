//! From text to a configuration, on a helper thread: parsing the largest one takes longer than a
//! heartbeat may be late. And from text to a snapshot, and back.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use actix::{
    Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, ResponseActFuture,
    WrapFuture,
};
use holdfast_config::Sources;
use holdfast_protocol::handover::{ConfigState, FromChild, History, MAX_TEXT_BYTES};
use holdfast_protocol::wire;

use super::lifeline::{Link, Say};
use super::source::Read;
use super::tables::{Ahead, Found, Loading, Restored, Tables};
use crate::serve::Configuration;
use crate::serve::compilation::{Compilation, Outcome};
use crate::serve::compile::{Compiled, compile_sources};
use crate::serve::session::{Loaded, Unusable};
use crate::serve::{memory, snapshot};

/// Compiles one text at a time; of those that come meanwhile only the last is compiled.
pub struct Compiler {
    tables: Addr<Tables>,
    link: Addr<Link>,
    /// What became of earlier configurations; nothing is compiled before that is known.
    past: Option<Past>,
    busy: bool,
    /// Whether what little has changed is being compiled before the digest of the text is known.
    preparing: bool,
    /// What the next text is compared with, unless it is being used.
    compilation: Compilation,
    waiting: Option<Text>,
    /// What was compiled last, and is not in the snapshot.
    unkept: Option<(String, Arc<Sources>)>,
}

/// What is on disk and its digest, or why it cannot be read.
pub struct Text(pub Result<(String, Arc<Sources>), String>);

/// Read what is on disk. Its digest follows, unless it is what was there before. Answered when what little has
/// changed is in force, or is not to be.
pub struct Fresh(pub Arc<Configuration>);

/// What became of earlier configurations.
pub struct Past {
    /// As the supervisor says.
    pub history: History,
    /// The snapshot, if there is one.
    pub snapshot: Option<OwnedFd>,
}

/// Read the snapshot.
pub struct Restore;

/// Write what was compiled last to this file, as a snapshot.
pub struct Keep(pub OwnedFd);

impl Message for Text {
    type Result = ();
}

impl Message for Fresh {
    type Result = Option<Read>;
}

impl Message for Past {
    type Result = ();
}

impl Message for Restore {
    type Result = ();
}

impl Message for Keep {
    type Result = ();
}

impl Compiler {
    pub fn new(tables: Addr<Tables>, link: Addr<Link>) -> Self {
        let compilation = Compilation::default();
        let (past, waiting, unkept) = (None, None, None);
        let (busy, preparing) = (false, false);
        Self { tables, link, past, busy, preparing, compilation, waiting, unkept }
    }

    /// Compiles `sources`, once the supervisor has been told: should that crash this process, it
    /// has to know why.
    fn compile(&mut self, digest: String, sources: Arc<Sources>, ctx: &mut Context<Self>) {
        self.busy = true;
        let is_kept = self.past.as_ref().is_some_and(|past| past.history.snapshot == digest);
        self.unkept = (!is_kept).then(|| (digest.clone(), Arc::clone(&sources)));
        let told = self.link.send(Say(FromChild::Trying { digest: digest.clone() }));
        let mut compilation = std::mem::take(&mut self.compilation);
        let is_prepared = compilation.is_prepared(&sources);
        let work = move || {
            let compiled = compilation.compile(&sources, digest);
            // A part leaves little behind.
            if !matches!(compiled, Ok(Outcome { is_whole: false, .. })) {
                memory::give_back();
            }
            (compilation, compiled)
        };
        let compiling = async move {
            // An error means that the reactor is about to end.
            let _told = told.await;
            // What little is left to do takes less time than another thread takes to begin.
            if is_prepared { Ok(work()) } else { tokio::task::spawn_blocking(work).await }
        };
        ctx.spawn(compiling.into_actor(self).map(|compiled, actor, ctx| {
            let loaded = match compiled {
                Ok((compilation, compiled)) => {
                    actor.compilation = compilation;
                    let compiled = compiled.map(|Outcome { compiled, .. }| compiled);
                    compiled.map_err(|diagnostics| rejected(diagnostics.to_string()))
                }
                Err(panic) => Err(rejected(format!("it cannot be compiled: {panic}"))),
            };
            actor.pass_on(loaded, ctx);
        }));
    }

    fn pass_on(&mut self, loaded: Loaded, ctx: &mut Context<Self>) {
        self.busy = false;
        self.tables.do_send(Loading(loaded));
        self.go_on(ctx);
    }

    /// It is done with something: on to the text that has come meanwhile.
    fn go_on(&mut self, ctx: &mut Context<Self>) {
        if let Some(text) = self.waiting.take() {
            ctx.notify(text);
        }
    }

    /// Why `digest` is not to be tried, if it is not.
    fn set_aside(&self, digest: &str) -> Option<Unusable> {
        let past = self.past.as_ref()?;
        let found = past.history.set_aside.iter().find(|aside| aside.digest == digest)?;
        let error = format!(
            "this configuration (sha256 {digest}) crashed one worker after the other, the last one: \
             {}. It is set aside; save a different one",
            found.reason
        );
        Some(Unusable { state: ConfigState::SetAside, error })
    }
}

fn rejected(error: String) -> Unusable {
    Unusable { state: ConfigState::Rejected, error }
}

/// The configuration in the snapshot `file`.
fn restore(file: OwnedFd) -> Result<Compiled, String> {
    let sources = snapshot::read(File::from(file)).map_err(|error| error.to_string())?;
    compile_sources(&sources).map_err(|diagnostics| diagnostics.to_string())
}

impl Actor for Compiler {
    type Context = Context<Self>;
}

impl Handler<Text> for Compiler {
    type Result = ();

    fn handle(&mut self, text: Text, ctx: &mut Self::Context) {
        match text {
            text if self.busy || self.preparing || self.past.is_none() => self.waiting = Some(text),
            Text(Ok((digest, sources))) => match self.set_aside(&digest) {
                Some(unusable) => self.tables.do_send(Loading(Err(unusable))),
                None => {
                    self.tables.do_send(Found(digest.clone()));
                    self.compile(digest, sources, ctx);
                }
            },
            Text(Err(error)) => self.tables.do_send(Loading(Err(rejected(error)))),
        }
    }
}

impl Handler<Fresh> for Compiler {
    type Result = ResponseActFuture<Self, Option<Read>>;

    /// What little has changed is compiled where it is read, because each change of the thread takes time that
    /// nobody bounds, and put in force.
    fn handle(&mut self, Fresh(configuration): Fresh, _: &mut Self::Context) -> Self::Result {
        // Without its digest nobody knows whether it is one of those that are set aside.
        let may_be_tried = self.past.as_ref().is_some_and(|past| past.history.set_aside.is_empty());
        if self.busy || self.preparing || !may_be_tried || !self.compilation.is_following() {
            let reading = tokio::task::spawn_blocking(move || Read::of(&configuration));
            return Box::pin(async { reading.await.ok() }.into_actor(self));
        }
        self.preparing = true;
        let mut compilation = std::mem::take(&mut self.compilation);
        let preparing = tokio::task::spawn_blocking(move || {
            let read = Read::of(&configuration);
            let prepared = read.text.as_ref().ok().and_then(|text| compilation.prepare(text));
            (compilation, prepared, Some(read))
        });
        Box::pin(preparing.into_actor(self).then(|prepared, actor, ctx| {
            actor.preparing = false;
            // A compilation that is lost is made anew from the whole text.
            let (compilation, prepared, read) = prepared.unwrap_or_default();
            actor.compilation = compilation;
            actor.go_on(ctx);
            let tables = actor.tables.clone();
            let ahead = async move {
                if let Some(compiled) = prepared {
                    let _gone = tables.send(Ahead(compiled)).await;
                }
                read
            };
            ahead.into_actor(actor)
        }))
    }
}

impl Handler<Past> for Compiler {
    type Result = ();

    fn handle(&mut self, past: Past, ctx: &mut Self::Context) {
        self.past = Some(past);
        if let Some(text) = self.waiting.take() {
            ctx.notify(text);
        }
    }
}

impl Handler<Restore> for Compiler {
    type Result = ();

    fn handle(&mut self, _: Restore, ctx: &mut Self::Context) {
        let past = self.past.as_mut();
        let snapshot = past.and_then(|past| past.snapshot.take().zip(Some(&past.history)));
        let usable = snapshot.filter(|(_, history)| {
            !history.set_aside.iter().any(|aside| aside.digest == history.snapshot)
        });
        let Some((file, _)) = usable else {
            return self.tables.do_send(Restored(Err(String::new())));
        };
        let restoring = tokio::task::spawn_blocking(move || restore(file));
        ctx.spawn(restoring.into_actor(self).map(|restored, actor, _| {
            let restored = restored.unwrap_or_else(|panic| Err(panic.to_string()));
            let bounded = |reason: String| wire::bounded(&reason, MAX_TEXT_BYTES);
            actor.tables.do_send(Restored(restored.map(Arc::new).map_err(bounded)));
        }));
    }
}

impl Handler<Keep> for Compiler {
    type Result = ();

    fn handle(&mut self, Keep(file): Keep, ctx: &mut Self::Context) {
        let Some((digest, sources)) = self.unkept.clone().filter(|_| !self.busy) else {
            let reason = "something else is on disk by now".to_owned();
            return self.link.do_send(Say(FromChild::NotKept { reason }));
        };
        let writing =
            tokio::task::spawn_blocking(move || snapshot::write(File::from(file), &sources));
        ctx.spawn(writing.into_actor(self).map(|written, actor, _| {
            let message = match written {
                Ok(Ok(())) => {
                    actor.unkept.take_if(|(kept, _)| *kept == digest);
                    FromChild::Kept { digest }
                }
                Ok(Err(error)) => FromChild::NotKept {
                    reason: format!("cannot write the snapshot of the configuration: {error}"),
                },
                Err(panic) => FromChild::NotKept { reason: panic.to_string() },
            };
            actor.link.do_send(Say(message));
        }));
    }
}
