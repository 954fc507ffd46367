//! What the keeper does when the time of draining endpoints has come: has their connections closed.

use std::time::{Duration, Instant};

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};
use holdfast_protocol::handover::Closed;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

use super::keeper::Keeper;
use crate::channel::{Channel, ChannelError};
use crate::closer::{self, CloserError, Heard, Spacing};
use crate::process::{Child, Ending};
use crate::reactor;
use crate::takeover::WorkerId;

/// The closer that is at work, if one is, and when the next one may be.
#[derive(Default)]
pub(super) struct Closings {
    at_work: Option<Closer>,
    spacing: Spacing,
}

/// It is over when it has both said its last word and ended.
struct Closer {
    child: Child,
    outcome: Option<Result<Closed, CloserError>>,
    ending: Option<Ending>,
}

impl Closings {
    /// Whether a closer is at work.
    pub(super) const fn is_busy(&self) -> bool {
        self.at_work.is_some()
    }
}

impl Keeper {
    /// `worker` says that the time of so many endpoints has come. Whoever may not write does not say that; and
    /// who is put off says it again.
    pub(super) fn overdue(&mut self, worker: WorkerId, endpoints: u32, ctx: &mut Context<Self>) {
        let now = self.time(Instant::now());
        let is_due = self.state.writer() == Some(worker) && self.state.leaving().is_none();
        if !is_due || self.closings.is_busy() || !self.closings.spacing.allows(now) {
            return;
        }
        let (child, channel) = match self.start_closer() {
            Ok(started) => started,
            Err(error) => return self.close_later(&error),
        };
        tracing::info!(
            pid = child.pid(),
            endpoints,
            "a closer closes what has drained long enough"
        );
        self.closings.at_work = Some(Closer { child, outcome: None, ending: None });
        let hearing = async {
            let silent = Err(CloserError::Channel(ChannelError::Silent));
            timeout(closer::CLOSING, hear(channel)).await.unwrap_or(silent)
        };
        let heard = |outcome, keeper: &mut Self, ctx: &mut Context<Self>| {
            keeper.closer_spoke(outcome, ctx);
        };
        ctx.spawn(hearing.into_actor(self).map(heard));
    }

    fn start_closer(&self) -> Result<(Child, AsyncFd<Channel>), CloserError> {
        let (channel, child) = closer::start(&self.settings.plan, &self.estate)?;
        match reactor::watch(channel) {
            Ok(channel) => Ok((child, channel)),
            Err(source) => {
                // It is reaped as a stranger.
                child.kill();
                Err(ChannelError::Socket { operation: "epoll_ctl", source }.into())
            }
        }
    }

    fn closer_spoke(&mut self, outcome: Result<Closed, CloserError>, ctx: &mut Context<Self>) {
        let Some(closer) = &mut self.closings.at_work else { return };
        let patience = if outcome.is_ok() { closer::ENDING } else { Duration::ZERO };
        closer.outcome = Some(outcome);
        let pid = closer.child.pid();
        ctx.run_later(patience, move |keeper, _| {
            // Not reaped, so the number still is that child's.
            let closer = keeper.closings.at_work.as_ref();
            if let Some(closer) = closer.filter(|closer| closer.child.pid() == pid)
                && closer.ending.is_none()
            {
                closer.child.kill();
            }
        });
        self.conclude_closing();
    }

    /// Whether the child `pid`, which was reaped, was a closer.
    pub(super) fn closer_ended(&mut self, pid: u32, ending: Ending) -> bool {
        let Some(closer) = &mut self.closings.at_work else { return false };
        if closer.child.pid() != pid || closer.ending.is_some() {
            return false;
        }
        closer.ending = Some(ending);
        self.conclude_closing();
        true
    }

    fn conclude_closing(&mut self) {
        match self.closings.at_work.take() {
            Some(Closer { outcome: Some(outcome), ending: Some(ending), .. }) => match outcome {
                Ok(Closed { closed, left: 0, .. }) => {
                    tracing::info!(closed, "connections to drained endpoints were closed");
                    self.closings.spacing.ended(true, self.time(Instant::now()));
                }
                Ok(Closed { closed, left, reason }) => {
                    tracing::warn!(
                        closed,
                        left,
                        reason,
                        "not every connection to drained endpoints was closed"
                    );
                    self.closings.spacing.ended(true, self.time(Instant::now()));
                }
                Err(CloserError::Channel(ChannelError::Closed)) => {
                    self.close_later(&CloserError::Ended(ending));
                }
                Err(error) => self.close_later(&error),
            },
            unfinished => self.closings.at_work = unfinished,
        }
    }

    fn close_later(&mut self, error: &CloserError) {
        tracing::error!(%error, "connections to drained endpoints were not closed; it is tried again later");
        self.closings.spacing.ended(false, self.time(Instant::now()));
    }

    /// Ends a closer that is at work. What it has closed is closed, and the rest is for later.
    pub(super) fn abandon_closing(&mut self) {
        let Some(Closer { child, ending: None, .. }) = self.closings.at_work.take() else { return };
        child.kill();
        // An error means that it was reaped by whoever reaps strangers.
        let _ended = child.wait(Instant::now() + closer::ENDING);
    }
}

/// Hears a closer to its last word.
async fn hear(channel: AsyncFd<Channel>) -> Result<Closed, CloserError> {
    loop {
        let mut ready = channel
            .readable()
            .await
            .map_err(|source| ChannelError::Socket { operation: "epoll_wait", source })?;
        match closer::hear(channel.get_ref())? {
            Heard::Nothing => ready.clear_ready(),
            Heard::Greeting => {}
            Heard::Done(closed) => return Ok(closed),
        }
    }
}
