//! Holds every reader back for the moment in which this process becomes another binary: what is not
//! read yet is read by the successor, and what was read has to be dealt with here.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;

use tokio::sync::Notify;

/// Shared by everybody who reads.
#[derive(Debug, Default)]
pub struct Gate {
    is_closed: Cell<bool>,
    opened: Notify,
    /// Requests that were read and not answered.
    busy: Cell<usize>,
    /// Connections of people.
    sessions: RefCell<BTreeSet<RawFd>>,
}

/// A request that is being answered, until it is dropped.
#[derive(Debug)]
pub struct Busy<'a>(&'a Gate);

/// A connection of people, until it is dropped.
#[derive(Debug)]
pub struct Connected {
    gate: Rc<Gate>,
    descriptor: RawFd,
}

impl Gate {
    /// Waits until reading is allowed. Whoever returns from here may read one thing, provided that
    /// it waits for nothing else before.
    pub async fn pass(&self) {
        while self.is_closed.get() {
            self.opened.notified().await;
        }
    }

    /// From here on nothing more is read.
    pub fn close(&self) {
        self.is_closed.set(true);
    }

    /// Reading goes on.
    pub fn open(&self) {
        self.is_closed.set(false);
        self.opened.notify_waiters();
    }

    /// Whether every request that was read has been answered.
    pub fn is_idle(&self) -> bool {
        self.busy.get() == 0
    }

    /// A request was read.
    pub fn answering(&self) -> Busy<'_> {
        self.busy.set(self.busy.get() + 1);
        Busy(self)
    }

    /// Somebody is connected through `socket`, which has to outlive the result.
    pub fn connected(gate: &Rc<Self>, socket: &impl AsRawFd) -> Connected {
        let descriptor = socket.as_raw_fd();
        gate.sessions.borrow_mut().insert(descriptor);
        Connected { gate: Rc::clone(gate), descriptor }
    }

    /// Everybody who is connected.
    pub fn sessions(&self) -> Vec<RawFd> {
        self.sessions.borrow().iter().copied().collect()
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.busy.set(self.0.busy.get() - 1);
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.gate.sessions.borrow_mut().remove(&self.descriptor);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn who_waits_at_a_closed_gate_goes_on_when_it_is_opened() {
        let gate = Gate::default();
        let mut context = Context::from_waker(Waker::noop());
        gate.close();
        let mut waiting = std::pin::pin!(gate.pass());
        assert_eq!(waiting.as_mut().poll(&mut context), Poll::Pending);
        gate.open();
        assert_eq!(waiting.as_mut().poll(&mut context), Poll::Ready(()));
    }

    #[test]
    fn requests_and_connections_count_as_long_as_they_last() {
        let gate = Rc::new(Gate::default());
        let file = std::fs::File::open("/dev/null").expect("opens");
        let (busy, connected) = (gate.answering(), Gate::connected(&gate, &file));
        assert!(!gate.is_idle());
        assert_eq!(gate.sessions(), [file.as_raw_fd()]);
        drop((busy, connected));
        assert!(gate.is_idle() && gate.sessions().is_empty());
    }
}
