//! How one message becomes one packet of a `SOCK_SEQPACKET` socket.
//!
//! ```text
//! byte 0..2   magic "HF"
//! byte 2      protocol version
//! byte 3      channel: who talks to whom
//! byte 4..    the message, in postcard's encoding
//! ```
//!
//! The length is checked before anything is decoded, the header before the body, and a body with
//! bytes left over is refused: a message means exactly one thing or nothing.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The newest protocol version this build speaks.
pub const VERSION: u8 = 1;
/// The oldest protocol version this build speaks.
pub const OLDEST_VERSION: u8 = 1;

/// Largest packet in bytes. The kernel's default socket buffer (`net.core.wmem_default`, 212,992)
/// holds three of them, so a sender never waits for a reader that is merely slow.
pub const MAX_PACKET_BYTES: usize = 64 * 1024;

/// Most descriptors in one packet: one less than the kernel's `SCM_MAX_FD` (253), which musl's
/// buffer cannot hold.
pub const MAX_DESCRIPTORS: usize = 252;

/// Bytes before the message.
pub const HEADER_BYTES: usize = 4;

const MAGIC: [u8; 2] = *b"HF";

/// Which conversation a message belongs to, so that a packet can never be taken for another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Channel {
    /// From the supervisor to a child.
    ToChild = 1,
    /// From a child to the supervisor.
    FromChild = 2,
    /// From `holdfastctl` to the supervisor.
    ToSupervisor = 3,
    /// From the supervisor to `holdfastctl`.
    FromSupervisor = 4,
    /// A question passed on by the supervisor unread.
    ToWorker = 5,
    /// Its answer, passed back unread.
    FromWorker = 6,
}

/// A type that travels as a packet of its own.
pub trait Message: Serialize + DeserializeOwned {
    /// The conversation it belongs to.
    const CHANNEL: Channel;
}

/// Why a packet is not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Longer than [`MAX_PACKET_BYTES`].
    #[error("a message of {0} bytes exceeds the limit of {MAX_PACKET_BYTES}")]
    TooLong(usize),
    /// Shorter than its header, or not starting with the magic.
    #[error("not a Holdfast message")]
    Foreign,
    /// Another version.
    #[error("protocol version {0}; this build speaks {OLDEST_VERSION} to {VERSION}")]
    Version(u8),
    /// A message of another conversation.
    #[error("a message for channel {0} arrived on another one")]
    Channel(u8),
    /// Not an encoding of the expected type.
    #[error("a message that cannot be decoded: {0}")]
    Malformed(postcard::Error),
    /// Bytes follow the message.
    #[error("{0} bytes follow the message")]
    Trailing(usize),
}

/// The packet for `message`.
///
/// # Errors
///
/// [`WireError::TooLong`] when it does not fit, [`WireError::Malformed`] when its type cannot be
/// encoded at all.
pub fn encode<M: Message>(message: &M) -> Result<Vec<u8>, WireError> {
    let mut packet = Vec::with_capacity(256);
    packet.extend_from_slice(&MAGIC);
    packet.push(VERSION);
    packet.push(M::CHANNEL as u8);
    let packet = postcard::to_extend(message, packet).map_err(WireError::Malformed)?;
    if packet.len() > MAX_PACKET_BYTES {
        return Err(WireError::TooLong(packet.len()));
    }
    Ok(packet)
}

/// The message in `packet`.
///
/// # Errors
///
/// Any [`WireError`]; nothing of the packet may be used then.
pub fn decode<M: Message>(packet: &[u8]) -> Result<M, WireError> {
    if packet.len() > MAX_PACKET_BYTES {
        return Err(WireError::TooLong(packet.len()));
    }
    let (header, body) = packet.split_at_checked(HEADER_BYTES).ok_or(WireError::Foreign)?;
    if header[..2] != MAGIC {
        return Err(WireError::Foreign);
    }
    if !(OLDEST_VERSION..=VERSION).contains(&header[2]) {
        return Err(WireError::Version(header[2]));
    }
    if header[3] != M::CHANNEL as u8 {
        return Err(WireError::Channel(header[3]));
    }
    match postcard::take_from_bytes(body).map_err(WireError::Malformed)? {
        (message, []) => Ok(message),
        (_, rest) => Err(WireError::Trailing(rest.len())),
    }
}

/// `text` cut to at most `limit` bytes at a character boundary: whatever a peer, a file or the
/// kernel says, what travels is bounded.
#[must_use]
pub fn bounded(text: &str, limit: usize) -> String {
    text[..text.floor_char_boundary(limit)].to_owned()
}
