//! Reads signals from a descriptor instead of being interrupted by them, and reaps children: its
//! own, and as PID 1 everybody's.

use std::io;
use std::rc::Rc;
use std::time::Instant;

use actix::{Actor, Addr, AsyncContext, Context, Message, WrapFuture};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::gate::Gate;
use super::keeper::Keeper;
use crate::process::{self, Ending};
use crate::reactor;

/// Left to the kernel: faults of this process itself, which must end it, and what a shell's job
/// control uses, which only ever pauses it.
const NOT_OURS: [Signal; 10] = [
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGSYS,
    Signal::SIGTRAP,
    Signal::SIGABRT,
    Signal::SIGTSTP,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
];

/// Reads signals for the keeper.
pub struct Signals {
    descriptor: Option<SignalFd>,
    gate: Rc<Gate>,
    keeper: Addr<Keeper>,
}

/// A signal arrived.
pub struct Arrived {
    /// Which.
    pub signal: Signal,
    /// Who sent it; 0 for the kernel.
    pub sender: u32,
    /// When.
    pub at: Instant,
}

/// A child is dead and reaped.
pub struct Reaped {
    /// Its process id, which may be given to another process from here on.
    pub pid: u32,
    /// How it ended.
    pub ending: Ending,
    /// When this process heard of it.
    pub at: Instant,
}

impl Message for Arrived {
    type Result = ();
}

impl Message for Reaped {
    type Result = ();
}

/// Turns every signal that is not about a fault of this process into something to read, from here
/// on. None of them then does what it does by default: ending the process, mostly.
///
/// # Errors
///
/// When this process may open no more descriptors.
pub fn capture() -> io::Result<SignalFd> {
    let mut captured = SigSet::all();
    NOT_OURS.into_iter().for_each(|signal| captured.remove(signal));
    captured.thread_block()?;
    Ok(SignalFd::with_flags(&captured, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?)
}

impl Signals {
    /// Passes what `descriptor` says on to `keeper`, as long as `gate` is open.
    #[must_use]
    pub const fn new(descriptor: SignalFd, gate: Rc<Gate>, keeper: Addr<Keeper>) -> Self {
        Self { descriptor: Some(descriptor), gate, keeper }
    }
}

impl Actor for Signals {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let descriptor = self.descriptor.take().expect("an actor starts once");
        ctx.spawn(read(descriptor, Rc::clone(&self.gate), self.keeper.clone()).into_actor(self));
    }
}

async fn read(descriptor: SignalFd, gate: Rc<Gate>, keeper: Addr<Keeper>) {
    let descriptor = match reactor::watch(descriptor) {
        Ok(descriptor) => descriptor,
        Err(error) => {
            tracing::error!(%error, "signals cannot be read; only SIGKILL will be heard");
            return;
        }
    };
    // Children that died before there was anybody to hear of it.
    reap(&keeper, &gate, Instant::now()).await;
    loop {
        let Ok(mut ready) = descriptor.readable().await else { return };
        gate.pass().await;
        let at = Instant::now();
        match descriptor.get_ref().read_signal() {
            Ok(Some(info)) if info.ssi_signo == Signal::SIGCHLD as u32 => {
                reap(&keeper, &gate, at).await
            }
            Ok(Some(info)) => {
                let number = i32::try_from(info.ssi_signo).unwrap_or(0);
                if let Ok(signal) = Signal::try_from(number) {
                    keeper.do_send(Arrived { signal, sender: info.ssi_pid, at });
                }
            }
            Ok(None) => ready.clear_ready(),
            Err(error) => tracing::error!(%error, "cannot read a signal"),
        }
    }
}

/// One SIGCHLD can stand for several children. Each is dealt with before the next is reaped, so
/// that its process id is not in use again when the keeper looks it up.
async fn reap(keeper: &Addr<Keeper>, gate: &Gate, at: Instant) {
    loop {
        gate.pass().await;
        let Some((pid, ending)) = process::reap() else { return };
        if keeper.send(Reaped { pid, ending, at }).await.is_err() {
            return;
        }
    }
}
