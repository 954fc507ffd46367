//! Messages over a `SOCK_SEQPACKET` socket, with descriptors beside them. Nothing here waits but
//! [`Channel::wait`], which only start and removal use, before and after the actors live.
#![expect(unsafe_code, reason = "uds hands received descriptors over as raw integers")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::time::Instant;

use holdfast_protocol::wire::{self, MAX_DESCRIPTORS, MAX_PACKET_BYTES, Message, WireError};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};
use uds::nonblocking::UnixSeqpacketConn;

/// One end of a conversation.
#[derive(Debug)]
pub struct Channel {
    socket: UnixSeqpacketConn,
}

/// Why a message was not sent or received. All of them end the conversation.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The peer closed its end.
    #[error("the peer closed its socket")]
    Closed,
    /// The peer does not take its messages.
    #[error("the peer does not read its messages: its socket is full")]
    Full,
    /// The peer said nothing until the deadline.
    #[error("the peer said nothing in time")]
    Silent,
    /// A packet is not a message, or a message not a packet.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The kernel refused.
    #[error("{operation}: {source}")]
    Socket {
        /// The system call.
        operation: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl Channel {
    /// A conversation with oneself: this process's end, and the one for a child.
    ///
    /// # Errors
    ///
    /// When this process may open no more descriptors.
    pub fn pair() -> Result<(Self, OwnedFd), ChannelError> {
        let (ours, theirs) = UnixSeqpacketConn::pair()
            .map_err(|source| ChannelError::Socket { operation: "socketpair", source })?;
        // SAFETY: `into_raw_fd` gives the descriptor up, so it has exactly one owner again.
        let theirs = unsafe { OwnedFd::from_raw_fd(theirs.into_raw_fd()) };
        Ok((Self::new(ours), theirs))
    }

    /// A conversation over a connected, non-blocking socket.
    #[must_use]
    pub const fn new(socket: UnixSeqpacketConn) -> Self {
        Self { socket }
    }

    /// Sends `message` with `descriptors` beside it, at once or not at all.
    ///
    /// # Errors
    ///
    /// [`ChannelError::Full`] when the peer is a whole socket buffer behind, which no peer that
    /// keeps to the protocol ever is.
    pub fn send<M: Message>(
        &self,
        message: &M,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), ChannelError> {
        let packet = wire::encode(message)?;
        let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        loop {
            let error = match self.socket.send_fds(&packet, &raw) {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            return Err(match error.kind() {
                io::ErrorKind::Interrupted => continue,
                io::ErrorKind::WouldBlock => ChannelError::Full,
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => ChannelError::Closed,
                _ => ChannelError::Socket { operation: "sendmsg", source: error },
            });
        }
    }

    /// The next message, or `None` when there is none now. Descriptors beside it are not taken:
    /// the kernel drops them, so a peer cannot fill this process's table.
    ///
    /// # Errors
    ///
    /// Any [`ChannelError`] but `Full` and `Silent`.
    pub fn receive<M: Message>(&self) -> Result<Option<M>, ChannelError> {
        let Some(mut packet) = self.next_packet()? else { return Ok(None) };
        let length = self
            .socket
            .recv(&mut packet)
            .map_err(|source| ChannelError::Socket { operation: "recvmsg", source })?;
        Ok(Some(wire::decode(&packet[..length])?))
    }

    /// The next message and the descriptors beside it, close-on-exec, or `None` when there is
    /// none now. Fewer may arrive than were sent, without any sign of it: the message has to say
    /// how many to expect.
    ///
    /// # Errors
    ///
    /// Any [`ChannelError`] but `Full` and `Silent`. The descriptors are closed then.
    pub fn receive_with_descriptors<M: Message>(
        &self,
    ) -> Result<Option<(M, Vec<OwnedFd>)>, ChannelError> {
        let Some(mut packet) = self.next_packet()? else { return Ok(None) };
        let mut raw: [RawFd; MAX_DESCRIPTORS] = [-1; MAX_DESCRIPTORS];
        let (length, _, count) = self
            .socket
            .recv_fds(&mut packet, &mut raw)
            .map_err(|source| ChannelError::Socket { operation: "recvmsg", source })?;
        let descriptors = raw[..count]
            .iter()
            // SAFETY: the kernel installed these `count` descriptors in this process with the call
            // above (with MSG_CMSG_CLOEXEC), and nobody else knows their numbers.
            .map(|fd| unsafe { OwnedFd::from_raw_fd(*fd) })
            .collect();
        Ok(Some((wire::decode(&packet[..length])?, descriptors)))
    }

    /// Waits until there is something to receive.
    ///
    /// # Errors
    ///
    /// [`ChannelError::Silent`] when there is nothing at `deadline`.
    pub fn wait(&self, deadline: Instant) -> Result<(), ChannelError> {
        if readable_until(self.as_fd(), deadline)
            .map_err(|source| ChannelError::Socket { operation: "poll", source })?
        {
            Ok(())
        } else {
            Err(ChannelError::Silent)
        }
    }

    /// Room for the next packet, exactly; `None` when there is none.
    fn next_packet(&self) -> Result<Option<Vec<u8>>, ChannelError> {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC | MsgFlags::MSG_DONTWAIT;
        loop {
            return match recv(self.socket.as_raw_fd(), &mut [], flags) {
                // No message is empty, so nothing to read is the end of the file.
                Ok(0) => Err(ChannelError::Closed),
                Ok(length) if length > MAX_PACKET_BYTES => Err(WireError::TooLong(length).into()),
                Ok(length) => Ok(Some(vec![0; length])),
                // A peer that closed its end without reading everything: said once, before what
                // it had sent itself, which is still there to be read.
                Err(Errno::EINTR | Errno::ECONNRESET) => continue,
                Err(Errno::EAGAIN) => Ok(None),
                Err(errno) => Err(ChannelError::Socket { operation: "recv", source: errno.into() }),
            };
        }
    }
}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket is open as long as `self`, which the result borrows.
        unsafe { BorrowedFd::borrow_raw(self.socket.as_raw_fd()) }
    }
}

/// Waits until `fd` is readable or closed, or `deadline` has come; whether the former.
///
/// # Errors
///
/// What `poll(2)` says.
pub fn readable_until(fd: BorrowedFd<'_>, deadline: Instant) -> io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // Rounded up, so that the last fraction of a millisecond is not spent spinning.
        let timeout =
            PollTimeout::try_from(left.as_millis().saturating_add(1)).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], timeout) {
            Ok(0) if Instant::now() >= deadline => return Ok(false),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use holdfast_protocol::handover::{FromChild, ToChild};

    use super::*;

    fn both() -> (Channel, Channel) {
        let (ours, theirs) = UnixSeqpacketConn::pair().expect("a socket pair");
        (Channel::new(ours), Channel::new(theirs))
    }

    #[test]
    fn messages_arrive_in_order_and_then_there_is_none() {
        let (a, b) = both();
        a.send(&ToChild::Release, &[]).expect("sent");
        a.send(&ToChild::Leave, &[]).expect("sent");
        assert_eq!(b.receive().expect("received"), Some(ToChild::Release));
        assert_eq!(b.receive().expect("received"), Some(ToChild::Leave));
        assert_eq!(b.receive::<ToChild>().expect("received"), None);
        drop(a);
        assert!(matches!(b.receive::<ToChild>(), Err(ChannelError::Closed)));
    }

    #[test]
    fn the_last_words_of_a_peer_that_did_not_listen_are_heard() {
        let (a, b) = both();
        a.send(&ToChild::Release, &[]).expect("sent");
        b.send(&FromChild::Released, &[]).expect("sent");
        drop(b);
        assert_eq!(a.receive().expect("received"), Some(FromChild::Released));
        assert!(matches!(a.receive::<FromChild>(), Err(ChannelError::Closed)));
    }

    #[test]
    fn descriptors_arrive_close_on_exec_and_are_dropped_where_none_are_expected() {
        let (a, b) = both();
        let file = std::fs::File::open("/dev/null").expect("opens");
        for _ in 0..2 {
            a.send(&ToChild::Release, &[file.as_fd(), file.as_fd()]).expect("sent");
        }
        let (_, descriptors) =
            b.receive_with_descriptors::<ToChild>().expect("received").expect("there is one");
        assert_eq!(descriptors.len(), 2);
        for descriptor in &descriptors {
            let flags = nix::fcntl::fcntl(descriptor, nix::fcntl::FcntlArg::F_GETFD);
            assert_eq!(flags.expect("open") & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
        }
        let open = || std::fs::read_dir("/proc/self/fdinfo").expect("readable").count();
        let before = open();
        assert_eq!(b.receive().expect("received"), Some(ToChild::Release));
        assert!(open() <= before, "descriptors nobody asked for were kept");
    }

    #[test]
    fn what_is_not_a_message_is_refused() {
        let (a, b) = both();
        a.socket.send(b"GET / HTTP/1.1").expect("sent");
        assert!(matches!(b.receive::<ToChild>(), Err(ChannelError::Wire(WireError::Foreign))));
        a.send(&FromChild::Released, &[]).expect("sent");
        assert!(matches!(b.receive::<ToChild>(), Err(ChannelError::Wire(WireError::Channel(_)))));
        a.socket.send(&vec![0; MAX_PACKET_BYTES + 1]).expect("sent");
        assert!(matches!(b.receive::<ToChild>(), Err(ChannelError::Wire(WireError::TooLong(_)))));
    }

    #[test]
    fn a_peer_that_does_not_read_is_noticed_and_not_waited_for() {
        let (a, _b) = both();
        let message = ToChild::Query { id: 1, body: vec![0; 32 * 1024] };
        let error = (0..1000).find_map(|_| a.send(&message, &[]).err()).expect("fills up");
        assert!(matches!(error, ChannelError::Full), "{error}");
    }

    #[test]
    fn silence_is_waited_for_until_the_deadline() {
        let (a, b) = both();
        let deadline = Instant::now() + Duration::from_millis(20);
        assert!(matches!(b.wait(deadline), Err(ChannelError::Silent)));
        assert!(Instant::now() >= deadline);
        a.send(&ToChild::Leave, &[]).expect("sent");
        b.wait(Instant::now() + Duration::from_secs(5)).expect("there is something");
    }
}
