//! The messages of the handover, and what can go wrong with each: for peers that break the protocol
//! on purpose.
//!
//! Both lists are complete by construction. A message that is added to the protocol does not compile
//! until it is listed here, and whoever makes a table of all messages and all faults finds it there.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::str::FromStr;

use holdfast_protocol::handover::{Closed, ConfigReport, FromChild, Offer, Seen, ToChild};
use holdfast_protocol::wire::{self, MAX_PACKET_BYTES};
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

/// An enum of plain names, with the list of all of them.
macro_rules! names {
    ($(#[$about:meta])* $list:ident { $($(#[$each:meta])* $name:ident),+ $(,)? }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $list { $($(#[$each])* $name),+ }

        impl $list {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// As it is called in a script.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),+ }
            }
        }

        impl FromStr for $list {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                let found = Self::ALL.iter().find(|each| each.name() == text);
                found.copied().ok_or_else(|| format!("`{text}` is none of {:?}", Self::ALL))
            }
        }
    };
}

/// The same for the variants of a message, none of which can be left out.
macro_rules! messages {
    ($(#[$about:meta])* $list:ident of $message:ident { $($name:ident),+ $(,)? }) => {
        names! { $(#[$about])* $list { $(#[doc = concat!("[`", stringify!($message), "::", stringify!($name), "`]")] $name),+ } }

        impl From<&$message> for $list {
            fn from(message: &$message) -> Self {
                match message { $($message::$name { .. } => Self::$name),+ }
            }
        }
    };
}

messages! {
    /// What a child says.
    Said of FromChild {
        Welcome, Accepted, Refused, Ready, Released, Granted, Heartbeat, Config, Answer, Offer,
        Repaired, Cleared, Trying, Kept, NotKept, SnapshotUnusable,
        Overdue, Closed, Attach, Seen,
    }
}

messages! {
    /// What a child is told.
    Told of ToChild {
        Hello, Offer, Accept, Release, Grant, Leave, Query, InForce, History, Keep, Vitals,
        Attached, NotAttached, Seen,
    }
}

names! {
    /// What goes wrong when a message is due.
    Fault {
        /// Its sender ends instead.
        DiesBefore,
        /// Its sender ends right after it.
        DiesAfter,
        /// It is sent twice.
        Twice,
        /// It is sent first of all, and again when it is due.
        Early,
        /// Bytes that do not begin like a message are sent instead.
        Foreign,
        /// Its end is missing.
        Truncated,
        /// A byte follows it.
        Trailing,
        /// It says that it belongs to the other direction.
        Channel,
        /// It says that it is of another version.
        Version,
        /// It is longer than any message may be.
        TooLong,
        /// Its sender stops instead.
        Stops,
        /// A descriptor that belongs to it is missing.
        TooFew,
        /// A descriptor comes with it that does not belong to it.
        TooMany,
    }
}

/// What a peer does after a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It goes on as if nothing had been.
    GoesOn,
    /// It ends.
    Ends,
    /// It stops.
    Stops,
}

impl Fault {
    /// Sends the message in `packet` and the descriptors `beside` it over `socket`, with this fault.
    ///
    /// # Errors
    ///
    /// What `sendmsg(2)` says.
    pub fn commit(
        self,
        socket: BorrowedFd<'_>,
        packet: &[u8],
        beside: &[BorrowedFd<'_>],
    ) -> Result<Then, Errno> {
        let say = |packet: &[u8]| send(socket, packet, beside);
        match self {
            Self::DiesBefore => return Ok(Then::Ends),
            Self::Stops => return Ok(Then::Stops),
            Self::DiesAfter => return say(packet).map(|()| Then::Ends),
            Self::Twice => say(packet).and_then(|()| say(packet))?,
            Self::Early => say(packet)?,
            Self::Foreign | Self::Channel | Self::Version => say(&self.relabelled(packet))?,
            Self::Truncated => say(&packet[..packet.len() - 1])?,
            Self::Trailing => say(&[packet, &[0]].concat())?,
            Self::TooLong => {
                let mut long = packet.to_vec();
                long.resize(MAX_PACKET_BYTES + 1, 0);
                say(&long)?;
            }
            Self::TooFew => send(socket, packet, &beside[..beside.len().saturating_sub(1)])?,
            Self::TooMany => {
                let stray = std::fs::File::open("/dev/null")
                    .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
                send(socket, packet, &[beside, &[stray.as_fd()]].concat())?;
            }
        }
        Ok(Then::GoesOn)
    }

    /// `packet` with another header.
    fn relabelled(self, packet: &[u8]) -> Vec<u8> {
        // Behind two bytes of magic, as `protocol/src/wire.rs` has it.
        let (at, byte) = match self {
            Self::Version => (2, wire::VERSION + 1),
            Self::Channel => {
                (3, (wire::Channel::ToChild as u8 + wire::Channel::FromChild as u8) - packet[3])
            }
            _ => (0, b'X'),
        };
        let mut changed = packet.to_vec();
        changed[at] = byte;
        changed
    }
}

/// A message that can be said at any time, because it means something at none.
#[must_use]
pub fn sample(said: Said) -> FromChild {
    match said {
        Said::Welcome => FromChild::Welcome {
            newest: wire::VERSION,
            oldest: wire::OLDEST_VERSION,
            build: "stand-in".to_owned(),
        },
        Said::Accepted => FromChild::Accepted { index: 0 },
        Said::Refused => FromChild::Refused { reason: "line 3, column 7: no".to_owned() },
        Said::Ready => FromChild::Ready { config: ConfigReport::default() },
        Said::Released => FromChild::Released,
        Said::Granted => FromChild::Granted { epoch: 1 },
        Said::Heartbeat => FromChild::Heartbeat { epoch: 0, progress: 1 },
        Said::Config => FromChild::Config(ConfigReport::default()),
        Said::Answer => FromChild::Answer { id: 0, body: vec![1] },
        Said::Offer => FromChild::Offer(Offer { index: 0, of: 1, entries: Vec::new() }),
        Said::Repaired => FromChild::Repaired { what: "something".to_owned() },
        Said::Cleared => FromChild::Cleared { items: vec!["something".to_owned()], last: true },
        Said::Trying => FromChild::Trying { digest: "ab".repeat(32) },
        Said::Kept => FromChild::Kept { digest: "ab".repeat(32) },
        Said::NotKept => FromChild::NotKept { reason: "no space".to_owned() },
        Said::SnapshotUnusable => FromChild::SnapshotUnusable { reason: "damaged".to_owned() },
        Said::Overdue => FromChild::Overdue { endpoints: 1 },
        Said::Closed => FromChild::Closed(Closed { closed: 3, ..Closed::default() }),
        Said::Attach => FromChild::Attach,
        Said::Seen => FromChild::Seen(Seen { digest: "ab".repeat(32), mark: "1".to_owned() }),
    }
}

/// Sends `packet` and the descriptors `beside` it.
///
/// # Errors
///
/// What `sendmsg(2)` says.
pub fn send(socket: BorrowedFd<'_>, packet: &[u8], beside: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let raw: Vec<RawFd> = beside.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &[] } else { &rights[..] };
    let slices = [IoSlice::new(packet)];
    sendmsg::<()>(socket.as_raw_fd(), &slices, control, MsgFlags::MSG_NOSIGNAL, None).map(drop)
}
