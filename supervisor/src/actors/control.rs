//! Answers `holdfastctl`: a listener, and one session per connection, each bounded in time and held
//! to what its peer may ask.

use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, ActorContext, ActorFutureExt, Addr, AsyncContext, Context, WrapFuture};
use holdfast_protocol::control::{Request, Response};
use tokio::io::unix::AsyncFd;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};
use tokio::time::timeout;
use uds::nonblocking::UnixSeqpacketListener;

use super::answers::{Ask, Uninstall};
use super::gate::{Busy, Connected, Gate};
use super::keeper::Keeper;
use crate::access::{self, ControlGroup, Level, Peer};
use crate::channel::{Channel, ChannelError};
use crate::timeline::micros;
use crate::{memory, reactor};

/// Most connections at a time. People have one or two; a monitoring agent one more.
const MAX_SESSIONS: usize = 16;

/// Most of them for others than root, so that they cannot keep root from connecting.
const MAX_MEMBERS: usize = MAX_SESSIONS / 2;

/// How long a connection may say nothing, or not read its answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long to wait when connections cannot be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What root and the control group may do with the socket: connect takes writing.
const OWNERS: u32 = 0o600;
const GROUPS: u32 = 0o060;

/// The listener.
pub struct Control {
    listener: Option<UnixSeqpacketListener>,
    sessions: Vec<Channel>,
    doorkeeper: Doorkeeper,
    gate: Rc<Gate>,
    keeper: Addr<Keeper>,
}

/// Who is let in.
#[derive(Clone)]
struct Doorkeeper {
    group: Option<ControlGroup>,
    /// Seats for others than root.
    members: Arc<Semaphore>,
}

/// Listens at `path`, for root and `group` alone.
///
/// # Errors
///
/// When the path cannot be bound: too long (107 bytes at most), or no such directory.
pub fn listen(path: &Path, group: Option<&ControlGroup>) -> io::Result<UnixSeqpacketListener> {
    // Whoever made it is gone: this process holds the instance's lock.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixSeqpacketListener::bind(path)?;
    access::share(path, OWNERS, group, GROUPS)?;
    Ok(listener)
}

impl Control {
    /// Answers who connects to `listener`, and who is connected in `sessions` already, root and
    /// members of `group`, with what `keeper` says, as long as `gate` is open.
    #[must_use]
    pub fn new(
        listener: UnixSeqpacketListener,
        sessions: Vec<Channel>,
        group: Option<ControlGroup>,
        gate: Rc<Gate>,
        keeper: Addr<Keeper>,
    ) -> Self {
        let doorkeeper = Doorkeeper { group, members: Arc::new(Semaphore::new(MAX_MEMBERS)) };
        Self { listener: Some(listener), sessions, doorkeeper, gate, keeper }
    }
}

impl Actor for Control {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let listener = self.listener.take().expect("an actor starts once");
        match reactor::watch(listener) {
            Ok(listener) => {
                let sessions = std::mem::take(&mut self.sessions);
                let (doorkeeper, gate) = (self.doorkeeper.clone(), Rc::clone(&self.gate));
                let accepting = accept(listener, sessions, doorkeeper, gate, self.keeper.clone());
                ctx.spawn(accepting.into_actor(self));
            }
            Err(error) => tracing::error!(%error, "nobody can connect to the control socket"),
        }
    }
}

/// What a peer may ask for, and its place among those who are not root.
struct Admitted {
    level: Level,
    _seat: Option<OwnedSemaphorePermit>,
}

impl Doorkeeper {
    /// Asked of each connection, and of the kernel.
    fn admit(&self, channel: &Channel) -> Result<Admitted, TryAcquireError> {
        let level = Peer::of(channel)
            .map_or(Level::Nothing, |peer| access::level(&peer, self.group.as_ref()));
        let seat = match level {
            Level::Everything => None,
            Level::Questions | Level::Nothing => {
                Some(Arc::clone(&self.members).try_acquire_owned()?)
            }
        };
        Ok(Admitted { level, _seat: seat })
    }
}

async fn accept(
    listener: AsyncFd<UnixSeqpacketListener>,
    sessions: Vec<Channel>,
    doorkeeper: Doorkeeper,
    gate: Rc<Gate>,
    keeper: Addr<Keeper>,
) {
    let seats = Arc::new(Semaphore::new(MAX_SESSIONS));
    let begin = |channel, seat| {
        // Counted at once: until a session starts, this process may become another binary.
        let connected = Gate::connected(&gate, &channel);
        let connection = Some((channel, connected));
        let (doorkeeper, gate) = (doorkeeper.clone(), Rc::clone(&gate));
        Session { connection, doorkeeper, gate, keeper: keeper.clone(), _seat: seat }.start();
    };
    for channel in sessions {
        let Ok(seat) = Arc::clone(&seats).acquire_owned().await else { return };
        begin(channel, seat);
    }
    loop {
        // Without a free seat, connections wait in the kernel's queue.
        let Ok(seat) = Arc::clone(&seats).acquire_owned().await else { return };
        let Ok(mut ready) = listener.readable().await else { return };
        gate.pass().await;
        match listener.get_ref().accept_unix_addr() {
            Ok((socket, _)) => begin(Channel::new(socket), seat),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
            Err(error) => {
                // Out of descriptors, mostly. Waiting keeps this from spinning meanwhile.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection.
struct Session {
    connection: Option<(Channel, Connected)>,
    doorkeeper: Doorkeeper,
    gate: Rc<Gate>,
    keeper: Addr<Keeper>,
    _seat: OwnedSemaphorePermit,
}

impl Actor for Session {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let connection = self.connection.take().expect("an actor starts once");
        let (doorkeeper, gate) = (self.doorkeeper.clone(), Rc::clone(&self.gate));
        let talk = converse(connection, doorkeeper, gate, self.keeper.clone());
        ctx.spawn(talk.into_actor(self).map(|(), _, ctx| ctx.stop()));
    }
}

async fn converse(
    (channel, connected): (Channel, Connected),
    doorkeeper: Doorkeeper,
    gate: Rc<Gate>,
    keeper: Addr<Keeper>,
) {
    let Ok(Admitted { level, _seat }) = doorkeeper.admit(&channel) else {
        return refuse(&channel, "too many are connected; try again");
    };
    let Ok(channel) = reactor::watch(channel) else { return };
    while let Ok(Some((request, _busy))) = timeout(PATIENCE, receive(&channel, &gate)).await {
        let asked = Instant::now();
        let response = match request {
            // Only now: closing with a request unread would reset the connection under the answer.
            request if !level.permits(&request) => {
                Ok(Response::Denied { reason: level.denial(doorkeeper.group.as_ref()) })
            }
            Request::Uninstall => {
                drop(connected);
                return hand_over(channel.into_inner(), &keeper).await;
            }
            request => keeper.send(Ask(request)).await,
        };
        let Ok(mut response) = response else { return };
        if let Response::Reloaded { total_us, .. } = &mut response {
            *total_us = micros(asked.elapsed());
        }
        // What finding an answer takes is not used until the next question. Before it is sent: who has heard it may
        // look at this process's memory.
        memory::give_back();
        if !matches!(timeout(PATIENCE, send(&channel, &response)).await, Ok(Ok(()))) {
            return;
        }
    }
}

/// The peer is answered by whoever removes everything, when the actors have ended.
async fn hand_over(channel: Channel, keeper: &Addr<Keeper>) {
    if let Ok(Some((channel, reason))) = keeper.send(Uninstall(channel)).await {
        refuse(&channel, &reason);
    }
}

fn refuse(channel: &Channel, reason: &str) {
    let _told = channel.send(&Response::Failed { reason: reason.to_owned() }, &[]);
}

/// The next request; `None` when there will be none that can be understood.
async fn receive<'a>(channel: &AsyncFd<Channel>, gate: &'a Gate) -> Option<(Request, Busy<'a>)> {
    loop {
        let mut ready = channel.readable().await.ok()?;
        gate.pass().await;
        match channel.get_ref().receive() {
            Ok(Some(request)) => return Some((request, gate.answering())),
            Ok(None) => ready.clear_ready(),
            Err(ChannelError::Wire(error)) => {
                refuse(channel.get_ref(), &error.to_string());
                return None;
            }
            Err(_) => return None,
        }
    }
}

async fn send(channel: &AsyncFd<Channel>, response: &Response) -> Result<(), ChannelError> {
    loop {
        let Ok(mut ready) = channel.writable().await else { return Err(ChannelError::Closed) };
        match channel.get_ref().send(response, &[]) {
            Err(ChannelError::Full) => ready.clear_ready(),
            sent => return sent,
        }
    }
}
