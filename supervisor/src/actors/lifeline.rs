//! Reads what one worker says, one message at a time: the next is read when the keeper has dealt
//! with the last, so a worker that floods fills its own socket and nothing else.

use std::rc::Rc;
use std::time::Instant;

use actix::{
    Actor, ActorContext, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, WrapFuture,
};
use holdfast_protocol::handover::FromChild;
use tokio::io::unix::AsyncFd;

use super::gate::Gate;
use super::keeper::Keeper;
use crate::channel::{Channel, ChannelError};
use crate::takeover::WorkerId;

/// The reading end of one worker's socket.
pub struct Lifeline {
    worker: WorkerId,
    channel: Rc<AsyncFd<Channel>>,
    gate: Rc<Gate>,
    keeper: Addr<Keeper>,
}

/// Something came out of a worker's socket.
pub struct Heard {
    /// Whose.
    pub worker: WorkerId,
    /// What.
    pub news: News,
    /// When the kernel said so.
    pub at: Instant,
}

/// What can come out of a worker's socket.
pub enum News {
    /// A message.
    Message(FromChild),
    /// The end.
    Closed,
    /// Something that ends the conversation.
    Fault(String),
}

/// The worker is gone.
pub struct HangUp;

impl Message for Heard {
    type Result = ();
}

impl Message for HangUp {
    type Result = ();
}

impl Lifeline {
    /// Reads `worker`'s end of `channel` for `keeper`, as long as `gate` is open.
    #[must_use]
    pub const fn new(
        worker: WorkerId,
        channel: Rc<AsyncFd<Channel>>,
        gate: Rc<Gate>,
        keeper: Addr<Keeper>,
    ) -> Self {
        Self { worker, channel, gate, keeper }
    }
}

impl Actor for Lifeline {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let (channel, gate) = (Rc::clone(&self.channel), Rc::clone(&self.gate));
        let reading = read(self.worker, channel, gate, self.keeper.clone());
        ctx.spawn(reading.into_actor(self).map(|(), _, ctx| ctx.stop()));
    }
}

impl Handler<HangUp> for Lifeline {
    type Result = ();

    fn handle(&mut self, _: HangUp, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

async fn read(
    worker: WorkerId,
    channel: Rc<AsyncFd<Channel>>,
    gate: Rc<Gate>,
    keeper: Addr<Keeper>,
) {
    loop {
        let Ok(mut ready) = channel.readable().await else { return };
        gate.pass().await;
        let at = Instant::now();
        let Some(news) = next(channel.get_ref()) else {
            ready.clear_ready();
            continue;
        };
        let last = !matches!(news, News::Message(_));
        // An error means that the keeper is gone, and this process about to be.
        if keeper.send(Heard { worker, news, at }).await.is_err() || last {
            return;
        }
    }
}

/// What there is to read now, if anything.
pub(super) fn next(channel: &Channel) -> Option<News> {
    match channel.receive() {
        Ok(message) => message.map(News::Message),
        Err(ChannelError::Closed) => Some(News::Closed),
        Err(error) => Some(News::Fault(error.to_string())),
    }
}
