//! The child's end of the socket to the supervisor: typed messages with descriptors beside them.
//!
//! Every system call here is non-blocking (`MSG_DONTWAIT`), whatever the flags of the open file are,
//! because whoever else holds a descriptor of it could change them. [`Lifeline::send`] and
//! [`Lifeline::receive`] wait with `poll(2)` up to a deadline; [`Lifeline::try_send`] and
//! [`Lifeline::try_receive`] return at once, for a caller that has a reactor and registers
//! [`AsFd::as_fd`] with it.
//!
//! Every error ends the conversation: a packet that was lost or misunderstood cannot be asked for
//! again.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Instant;

use holdfast_protocol::handover::{CHILD_DESCRIPTOR, FromChild, ToChild};
use holdfast_protocol::wire::{self, MAX_DESCRIPTORS, MAX_PACKET_BYTES, WireError};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::SockType as SocketTypeOption;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockType, SockaddrLike,
    SockaddrStorage, getsockname, getsockopt, recvmsg, sendmsg,
};

/// Why the conversation with the supervisor is over.
#[derive(Debug, thiserror::Error)]
pub enum LifelineError {
    /// Nothing suitable was inherited: not started by the supervisor.
    #[error(
        "descriptor {CHILD_DESCRIPTOR} is not the supervisor's socket ({0}); \
         this command is started by `holdfast run`, not by hand"
    )]
    NotInherited(String),
    /// The supervisor closed its end.
    #[error("the supervisor has closed the connection")]
    Closed,
    /// The deadline passed.
    #[error("the supervisor did not {0} in time")]
    Deadline(&'static str),
    /// A packet lost part of its bytes.
    #[error("a message from the supervisor exceeds {MAX_PACKET_BYTES} bytes and was cut")]
    Truncated,
    /// A packet lost descriptors: this process may open no more, or the supervisor sent too many.
    #[error(
        "descriptors from the supervisor were lost on the way; \
         raise this process's limit of open files (RLIMIT_NOFILE)"
    )]
    DescriptorsLost,
    /// More descriptors than a packet may carry.
    #[error("{0} descriptors exceed the {MAX_DESCRIPTORS} a message may carry")]
    TooManyDescriptors(usize),
    /// The packet is not a message.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The kernel refused.
    #[error("{operation} on the supervisor's socket: {source}")]
    Socket {
        /// The system call.
        operation: &'static str,
        /// The kernel's answer.
        source: Errno,
    },
}

/// The child's end of the socket. It owns the descriptor, and no other process inherits it.
#[derive(Debug)]
pub struct Lifeline {
    socket: OwnedFd,
}

impl Lifeline {
    /// Takes over the inherited descriptor [`CHILD_DESCRIPTOR`].
    ///
    /// # Errors
    ///
    /// [`LifelineError::NotInherited`] when it is not open or not such a socket.
    ///
    /// # Safety
    ///
    /// Nothing else in this process owns that descriptor: call it once, before anything that opens
    /// descriptors, which would get that number if the parent had left it closed.
    pub unsafe fn inherited() -> Result<Self, LifelineError> {
        // SAFETY: the number is only borrowed, and only for a call that fails cleanly when it is
        // not open; the caller vouches that nobody closes it meanwhile.
        let borrowed = unsafe { BorrowedFd::borrow_raw(CHILD_DESCRIPTOR) };
        fcntl(borrowed, FcntlArg::F_GETFD)
            .map_err(|errno| LifelineError::NotInherited(errno.desc().to_owned()))?;
        // SAFETY: it is open, as the line above has shown, and nobody else owns it, as the caller
        // vouches.
        Self::new(unsafe { OwnedFd::from_raw_fd(CHILD_DESCRIPTOR) })
    }

    /// Takes over `socket`, which has to be a `SOCK_SEQPACKET` socket of the Unix family.
    ///
    /// # Errors
    ///
    /// [`LifelineError::NotInherited`] when it is something else.
    pub fn new(socket: OwnedFd) -> Result<Self, LifelineError> {
        let refused = |why: &str| LifelineError::NotInherited(why.to_owned());
        let kind = getsockopt(&socket, SocketTypeOption).map_err(|errno| refused(errno.desc()))?;
        if kind != SockType::SeqPacket {
            return Err(refused("a socket of another type"));
        }
        let address = getsockname::<SockaddrStorage>(socket.as_raw_fd())
            .map_err(|errno| refused(errno.desc()))?;
        if address.family() != Some(AddressFamily::Unix) {
            return Err(refused("a socket of another family"));
        }
        fcntl(&socket, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))
            .map_err(|source| LifelineError::Socket { operation: "fcntl", source })?;
        Ok(Self { socket })
    }

    /// Sends `message` with `descriptors` beside it, waiting for room until `deadline`.
    ///
    /// # Errors
    ///
    /// As [`try_send`](Self::try_send), and [`LifelineError::Deadline`].
    pub fn send(
        &self,
        message: &FromChild,
        descriptors: &[BorrowedFd<'_>],
        deadline: Instant,
    ) -> Result<(), LifelineError> {
        while !self.try_send(message, descriptors)? {
            self.wait(PollFlags::POLLOUT, deadline, "read")?;
        }
        Ok(())
    }

    /// Sends `message` with `descriptors` beside it, or answers `false` when there is no room now.
    ///
    /// # Errors
    ///
    /// [`LifelineError::Closed`] when the supervisor is gone; otherwise as the variants say.
    pub fn try_send(
        &self,
        message: &FromChild,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<bool, LifelineError> {
        if descriptors.len() > MAX_DESCRIPTORS {
            return Err(LifelineError::TooManyDescriptors(descriptors.len()));
        }
        let packet = wire::encode(message)?;
        let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
        // MSG_NOSIGNAL: a supervisor that is gone is an error here, not a SIGPIPE.
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let slices = [IoSlice::new(&packet)];
        loop {
            return match sendmsg::<()>(self.socket.as_raw_fd(), &slices, control, flags, None) {
                Ok(_) => Ok(true),
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => Ok(false),
                Err(Errno::EPIPE | Errno::ECONNRESET) => Err(LifelineError::Closed),
                Err(source) => Err(LifelineError::Socket { operation: "sendmsg", source }),
            };
        }
    }

    /// The next message and the descriptors beside it, waiting for it until `deadline`.
    ///
    /// # Errors
    ///
    /// As [`try_receive`](Self::try_receive), and [`LifelineError::Deadline`].
    pub fn receive(&self, deadline: Instant) -> Result<(ToChild, Vec<OwnedFd>), LifelineError> {
        loop {
            if let Some(received) = self.try_receive()? {
                return Ok(received);
            }
            self.wait(PollFlags::POLLIN, deadline, "answer")?;
        }
    }

    /// The next message and the descriptors beside it, or `None` when there is none now.
    ///
    /// Descriptors are close-on-exec. They are closed again when the packet is refused.
    ///
    /// # Errors
    ///
    /// [`LifelineError::Closed`] when the supervisor is gone; otherwise as the variants say.
    pub fn try_receive(&self) -> Result<Option<(ToChild, Vec<OwnedFd>)>, LifelineError> {
        let mut packet = vec![0_u8; MAX_PACKET_BYTES];
        let mut control = nix::cmsg_space!([RawFd; MAX_DESCRIPTORS]);
        let (length, flags, descriptors) = loop {
            let mut slices = [IoSliceMut::new(&mut packet)];
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
            let socket = self.socket.as_raw_fd();
            match recvmsg::<()>(socket, &mut slices, Some(&mut control), flags) {
                Ok(received) => {
                    let descriptors = match received.cmsgs() {
                        Ok(messages) => messages.flat_map(owned).collect::<Vec<_>>(),
                        Err(_) => {
                            close_strays(&control);
                            return Err(LifelineError::DescriptorsLost);
                        }
                    };
                    break (received.bytes, received.flags, descriptors);
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::ECONNRESET) => return Err(LifelineError::Closed),
                Err(source) => return Err(LifelineError::Socket { operation: "recvmsg", source }),
            }
        };
        // No message is empty, so nothing read is the end of the file.
        if length == 0 {
            return Err(LifelineError::Closed);
        }
        if flags.contains(MsgFlags::MSG_TRUNC) {
            return Err(LifelineError::Truncated);
        }
        Ok(Some((wire::decode(&packet[..length])?, descriptors)))
    }

    fn wait(
        &self,
        events: PollFlags,
        deadline: Instant,
        missing: &'static str,
    ) -> Result<(), LifelineError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(LifelineError::Deadline(missing));
        }
        // Rounded up, so that the last fraction of a millisecond is not spent spinning.
        let milliseconds = left.as_millis().saturating_add(1);
        let timeout = PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(self.socket.as_fd(), events)], timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(source) => Err(LifelineError::Socket { operation: "poll", source }),
        }
    }
}

impl AsFd for Lifeline {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Lifeline {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Closes the descriptors that arrived in a control buffer that was too small for all of them: nix
/// hides those that did. The kernel puts one message there, or none.
fn close_strays(control: &[u8]) {
    const HEADER: usize = size_of::<libc::cmsghdr>();
    let Some((header, data)) = control.split_at_checked(HEADER) else { return };
    // SAFETY: as many bytes as the struct has, of plain integers, read without asking for alignment.
    let header = unsafe { header.as_ptr().cast::<libc::cmsghdr>().read_unaligned() };
    if (header.cmsg_level, header.cmsg_type) != (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
        return;
    }
    let length = header.cmsg_len.saturating_sub(HEADER).min(data.len());
    for raw in data[..length].chunks_exact(size_of::<RawFd>()) {
        let raw = RawFd::from_ne_bytes(raw.try_into().expect("a chunk has this size"));
        // SAFETY: the kernel has just installed this descriptor in this process, and nobody else
        // has learnt of it.
        drop(unsafe { OwnedFd::from_raw_fd(raw) });
    }
}

/// The descriptors of one control message.
fn owned(message: ControlMessageOwned) -> Vec<OwnedFd> {
    let ControlMessageOwned::ScmRights(raw) = message else { return Vec::new() };
    // SAFETY: the kernel has just installed these descriptors in this process, and each control
    // message is read once.
    raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use nix::sys::socket::{SockFlag, send, socketpair};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    fn pair() -> (OwnedFd, Lifeline) {
        let (supervisor, child) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .expect("a socket pair");
        (supervisor, Lifeline::new(child).expect("a sequenced-packet socket"))
    }

    fn tell(supervisor: &OwnedFd, packet: &[u8], descriptors: &[RawFd]) {
        let rights = [ControlMessage::ScmRights(descriptors)];
        let slices = [IoSlice::new(packet)];
        sendmsg::<()>(supervisor.as_raw_fd(), &slices, &rights, MsgFlags::empty(), None)
            .expect("the packet is sent");
    }

    fn soon() -> Instant {
        Instant::now() + PATIENCE
    }

    #[test]
    fn a_message_arrives_with_its_descriptors() {
        let (supervisor, lifeline) = pair();
        let (beside, far) = UnixStream::pair().expect("a stream");
        let packet = wire::encode(&ToChild::Accept { index: 7 }).expect("encodes");
        tell(&supervisor, &packet, &[beside.as_raw_fd(), far.as_raw_fd()]);
        let (message, descriptors) = lifeline.receive(soon()).expect("arrives");
        assert_eq!(message, ToChild::Accept { index: 7 });
        assert_eq!(descriptors.len(), 2);
        for descriptor in &descriptors {
            let flags = fcntl(descriptor, FcntlArg::F_GETFD).expect("open");
            assert_eq!(flags & FdFlag::FD_CLOEXEC.bits(), FdFlag::FD_CLOEXEC.bits());
        }
    }

    #[test]
    fn a_message_is_sent_with_its_descriptors() {
        let (supervisor, lifeline) = pair();
        let (beside, _far) = UnixStream::pair().expect("a stream");
        lifeline.send(&FromChild::Released, &[beside.as_fd()], soon()).expect("sent");
        let mut packet = [0_u8; 64];
        let mut control = nix::cmsg_space!([RawFd; 1]);
        let mut slices = [IoSliceMut::new(&mut packet)];
        let raw = supervisor.as_raw_fd();
        let received = recvmsg::<()>(raw, &mut slices, Some(&mut control), MsgFlags::empty())
            .expect("arrives");
        let length = received.bytes;
        let descriptors = received.cmsgs().expect("whole").flat_map(owned).count();
        assert_eq!(descriptors, 1);
        assert_eq!(wire::decode(&packet[..length]), Ok(FromChild::Released));
    }

    #[test]
    fn a_message_of_another_conversation_is_refused() {
        let (supervisor, lifeline) = pair();
        let packet = wire::encode(&FromChild::Released).expect("encodes");
        tell(&supervisor, &packet, &[]);
        let refused = lifeline.try_receive();
        assert!(matches!(refused, Err(LifelineError::Wire(WireError::Channel(_)))), "{refused:?}");
    }

    #[test]
    fn a_closed_end_is_seen_in_both_directions() {
        let (supervisor, lifeline) = pair();
        drop(supervisor);
        assert!(matches!(lifeline.receive(soon()), Err(LifelineError::Closed)));
        let sent = lifeline.send(&FromChild::Released, &[], soon());
        assert!(matches!(sent, Err(LifelineError::Closed)));
    }

    #[test]
    fn silence_ends_at_the_deadline() {
        let (_supervisor, lifeline) = pair();
        let before = Instant::now();
        let patience = Duration::from_millis(30);
        let silence = lifeline.receive(before + patience);
        assert!(matches!(silence, Err(LifelineError::Deadline(_))));
        assert!(before.elapsed() >= patience);
    }

    #[test]
    fn a_supervisor_that_never_reads_ends_at_the_deadline() {
        let (_supervisor, lifeline) = pair();
        let message = FromChild::Answer { id: 1, body: vec![0; 32 * 1024] };
        while lifeline.try_send(&message, &[]).expect("the socket is open") {}
        let full = lifeline.send(&message, &[], Instant::now() + Duration::from_millis(30));
        assert!(matches!(full, Err(LifelineError::Deadline(_))));
    }

    #[test]
    fn lost_descriptors_are_noticed() {
        let (supervisor, lifeline) = pair();
        let (beside, mut far) = UnixStream::pair().expect("a stream");
        far.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let packet = wire::encode(&ToChild::Leave).expect("encodes");
        // One more than a packet may carry: the child's buffer ends before it.
        tell(&supervisor, &packet, &vec![beside.as_raw_fd(); MAX_DESCRIPTORS + 1]);
        drop(beside);
        let lost = lifeline.try_receive();
        assert!(matches!(lost, Err(LifelineError::DescriptorsLost)), "{lost:?}");
        // Those that did arrive are closed again: nobody holds that end of the stream any more.
        assert_eq!(far.read(&mut [0]).expect("the other end is closed"), 0);
    }

    #[test]
    fn an_overlong_packet_is_noticed() {
        let (supervisor, lifeline) = pair();
        tell(&supervisor, &vec![0; MAX_PACKET_BYTES + 1], &[]);
        assert!(matches!(lifeline.try_receive(), Err(LifelineError::Truncated)));
    }

    #[test]
    fn noise_is_not_a_message() {
        let (supervisor, lifeline) = pair();
        send(supervisor.as_raw_fd(), b"GET / HTTP/1.1", MsgFlags::empty()).expect("sent");
        let refused = lifeline.try_receive();
        assert!(matches!(refused, Err(LifelineError::Wire(WireError::Foreign))), "{refused:?}");
    }

    #[test]
    fn another_kind_of_socket_is_refused() {
        let (stream, _far) = UnixStream::pair().expect("a stream");
        assert!(matches!(Lifeline::new(stream.into()), Err(LifelineError::NotInherited(_))));
        let file = std::fs::File::open("/dev/null").expect("opens");
        assert!(matches!(Lifeline::new(file.into()), Err(LifelineError::NotInherited(_))));
    }
}
