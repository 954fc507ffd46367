//! The supervisor's end of the conversation with a real worker.

use std::io::{self, IoSlice, Read as _};
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use holdfast_lab::handover::{Fault, Then};
use holdfast_protocol::control::{WorkerAnswer, WorkerQuery};
use holdfast_protocol::handover::{
    CHILD_DESCRIPTOR, ConfigReport, FromChild, History, Occasion, Offer, ToChild,
};
use holdfast_protocol::wire;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{InitFlags, Inotify};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, recv, sendmsg, socketpair,
};

use crate::estate::Estate;

/// Far above what a healthy worker takes, so that a loaded machine raises no false alarm.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A worker, killed when dropped.
pub struct Worker {
    pub child: Child,
    socket: Option<OwnedFd>,
}

impl Worker {
    pub fn spawn(config: &Path) -> Self {
        Self::spawn_with(config, &["--user", "nobody"])
    }

    pub fn spawn_with(config: &Path, arguments: &[&str]) -> Self {
        Self::spawn_after(config, arguments, || Ok(()))
    }

    /// A worker in whose process `prepare` has run.
    pub fn spawn_after(
        config: &Path,
        arguments: &[&str],
        prepare: impl Fn() -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
            .expect("a socket pair");
        let raw = theirs.as_raw_fd();
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast-worker"));
        command.arg("serve").arg("--config").arg(config).args(arguments);
        let watch: OwnedFd = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
            .expect("an instance of inotify")
            .into();
        // Beyond the number that the child's end of the socket takes, which may be free here.
        let beyond = FcntlArg::F_DUPFD_CLOEXEC(CHILD_DESCRIPTOR + 1);
        // SAFETY: the descriptor is new, and nobody else knows its number.
        let watch = unsafe { OwnedFd::from_raw_fd(fcntl(&watch, beyond).expect("a descriptor")) };
        let watched = watch.as_raw_fd();
        command.arg(format!("--watch={watched}")).stderr(Stdio::piped());
        // SAFETY: dup2(2) and fcntl(2) are async-signal-safe, as is what the tests prepare, which are
        // system calls as well. Should the descriptor already be the
        // right one, dup2 leaves it close-on-exec, so that is cleared.
        unsafe {
            command.pre_exec(move || {
                libc::dup2(raw, CHILD_DESCRIPTOR);
                libc::fcntl(CHILD_DESCRIPTOR, libc::F_SETFD, 0);
                libc::fcntl(watched, libc::F_SETFD, 0);
                prepare()
            });
        }
        let child = command.spawn().expect("the worker starts");
        Self { child, socket: Some(ours) }
    }

    /// A worker that has been handed `estate` and is ready.
    pub fn ready(config: &Path, estate: &Estate, occasion: Occasion) -> (Self, ConfigReport) {
        let worker = Self::spawn(config);
        worker.hand_over(estate, occasion);
        let report = worker.await_ready();
        (worker, report)
    }

    pub fn granted(config: &Path, estate: &Estate, epoch: u64) -> Self {
        let (worker, _) = Self::ready(config, estate, Occasion::Start);
        worker.grant(epoch);
        worker
    }

    pub fn hand_over(&self, estate: &Estate, occasion: Occasion) {
        self.greet(occasion);
        self.offer(estate);
    }

    /// Greets a worker that need not know what became of earlier configurations.
    pub fn greet(&self, occasion: Occasion) {
        self.greet_with(occasion, &History::default(), &[]);
    }

    pub fn greet_with(&self, occasion: Occasion, history: &History, snapshot: &[RawFd]) {
        self.tell(&hello(occasion), &[]);
        let welcome = self.hear();
        assert!(matches!(welcome, FromChild::Welcome { .. }), "{welcome:?}");
        self.tell(&ToChild::History(history.clone()), snapshot);
    }

    pub fn offer(&self, estate: &Estate) {
        self.send_offer(estate);
        assert_eq!(self.hear(), FromChild::Accepted { index: 0 });
    }

    /// Offers, and leaves whatever is said from then on to be heard.
    pub fn send_offer(&self, estate: &Estate) {
        let raw: Vec<RawFd> = estate.descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let offer = Offer { index: 0, of: 1, entries: estate.entries.clone() };
        self.tell(&ToChild::Offer(offer), &raw);
    }

    pub fn await_ready(&self) -> ConfigReport {
        match self.hear() {
            FromChild::Ready { config } => config,
            other => panic!("expected Ready, got {other:?}"),
        }
    }

    pub fn grant(&self, epoch: u64) {
        self.tell(&ToChild::Grant { epoch }, &[]);
        self.hear_until(|message| *message == FromChild::Granted { epoch });
    }

    /// The next report on the configuration for which `wanted` holds.
    pub fn await_config(&self, wanted: impl Fn(&ConfigReport) -> bool) -> ConfigReport {
        let is_wanted = |message: &FromChild| match message {
            FromChild::Config(report) => wanted(report),
            _ => false,
        };
        match self.hear_until(is_wanted) {
            FromChild::Config(report) => report,
            _ => unreachable!("only reports are wanted"),
        }
    }

    pub fn ask(&self, query: &WorkerQuery) -> WorkerAnswer {
        let body = wire::encode(query).expect("encodes");
        self.tell(&ToChild::Query { id: 7, body }, &[]);
        match self.hear_until(|message| matches!(message, FromChild::Answer { .. })) {
            FromChild::Answer { id: 7, body } => wire::decode(&body).expect("decodes"),
            other => panic!("expected an answer, got {other:?}"),
        }
    }

    /// Says `message` to somebody who may be gone.
    pub fn try_tell(&self, message: &ToChild) -> nix::Result<()> {
        let packet = wire::encode(message).expect("encodes");
        holdfast_lab::handover::send(self.socket().as_fd(), &packet, &[])
    }

    pub fn tell(&self, message: &ToChild, descriptors: &[RawFd]) {
        let packet = wire::encode(message).expect("encodes");
        let rights = [ControlMessage::ScmRights(descriptors)];
        let control = if descriptors.is_empty() { &[] } else { &rights[..] };
        let socket = self.socket().as_raw_fd();
        let slices = [IoSlice::new(&packet)];
        sendmsg::<()>(socket, &slices, control, MsgFlags::MSG_NOSIGNAL, None).expect("sent");
    }

    /// The same, with a fault. Whoever ends by it hangs up.
    pub fn commit(&mut self, fault: Fault, message: &ToChild, descriptors: &[BorrowedFd<'_>]) {
        let packet = wire::encode(message).expect("encodes");
        let then = fault.commit(self.socket().as_fd(), &packet, descriptors).expect("sent");
        if then == Then::Ends {
            self.hang_up();
        }
    }

    /// The next message that has to do with a takeover: no heartbeat, and not what is tried or seen.
    pub fn hear(&self) -> FromChild {
        self.hear_until(|message| {
            !matches!(
                message,
                FromChild::Heartbeat { .. } | FromChild::Trying { .. } | FromChild::Seen(_)
            )
        })
    }

    pub fn hear_until(&self, mut wanted: impl FnMut(&FromChild) -> bool) -> FromChild {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let message = self.next(deadline).expect("the worker is there");
            if wanted(&message) {
                return message;
            }
        }
    }

    /// Whether it becomes ready before it ends.
    pub fn becomes_ready(&self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.next(deadline) {
                Some(FromChild::Ready { .. }) => return true,
                Some(_) => {}
                None => return false,
            }
        }
    }

    /// The next message; `None` at the end.
    fn next(&self, deadline: Instant) -> Option<FromChild> {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).expect("seconds");
        let ready = poll(&mut [PollFd::new(self.socket().as_fd(), PollFlags::POLLIN)], timeout);
        assert_eq!(ready, Ok(1), "the worker says nothing");
        let mut packet = vec![0; wire::MAX_PACKET_BYTES];
        let length = match recv(self.socket().as_raw_fd(), &mut packet, MsgFlags::empty()) {
            // It left something unread, which says nothing about what it had said.
            Err(Errno::ECONNRESET) => return self.next(deadline),
            received => received.expect("read"),
        };
        (length > 0).then(|| wire::decode(&packet[..length]).expect("decodes"))
    }

    pub fn socket(&self) -> &OwnedFd {
        self.socket.as_ref().expect("not hung up")
    }

    /// Closes the supervisor's end.
    pub fn hang_up(&mut self) {
        self.socket = None;
    }

    /// Waits until it has ended. What it logged comes with it.
    pub fn await_end(&mut self) -> (ExitStatus, String) {
        let mut status = None;
        eventually(|| {
            status = self.child.try_wait().expect("waited for");
            status.is_some()
        });
        let mut log = String::new();
        let mut stderr = self.child.stderr.take().expect("piped");
        stderr.read_to_string(&mut log).expect("read");
        (status.expect("it has ended"), log)
    }

    pub fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("reaped");
    }

    /// A line of `/proc/PID/status`.
    pub fn status(&self, field: &str) -> String {
        let path = format!("/proc/{}/status", self.child.id());
        let text = std::fs::read_to_string(path).expect("its status");
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{field}:")));
        line.expect("the field").split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Waits until `condition` holds.
pub fn eventually(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "it does not come true");
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub fn hello(occasion: Occasion) -> ToChild {
    ToChild::Hello {
        newest: wire::VERSION,
        oldest: wire::OLDEST_VERSION,
        instance: "test".to_owned(),
        epoch: 1,
        occasion,
    }
}
