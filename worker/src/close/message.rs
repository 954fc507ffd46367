//! The bytes of questions about sockets and of the kernel's answers (netlink(7), sock_diag(7)). Pure.

use holdfast_bpf::mapped::plain;
use holdfast_protocol::kernel::{PROTOCOL_TCP, PROTOCOL_UDP, SocketState, mapped};

use super::due::Listed;

/// `SOCK_DIAG_BY_FAMILY` and `SOCK_DESTROY` (`include/uapi/linux/sock_diag.h`).
const LIST: u16 = 20;
const DESTROY: u16 = 21;

/// `NLM_F_REQUEST`, `NLM_F_ACK` and `NLM_F_DUMP` (`include/uapi/linux/netlink.h`).
const REQUEST: u16 = 0x1;
const ACKNOWLEDGE: u16 = 0x4;
const DUMP: u16 = 0x300;

/// `NLMSG_ERROR` and `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// `INET_DIAG_REQ_SK_BPF_STORAGES`, and `SK_DIAG_BPF_STORAGE_REQ_MAP_FD` in it.
const ASK_STORAGE: u16 = 2;
const ASK_MAP: u16 = 1;
/// `INET_DIAG_SK_BPF_STORAGES`, `SK_DIAG_BPF_STORAGE` in it, and `SK_DIAG_BPF_STORAGE_MAP_VALUE` in that.
const STORAGES: u16 = 20;
const STORAGE: u16 = 1;
const VALUE: u16 = 3;
/// `INET_DIAG_CGROUP_ID`.
const CGROUP: u16 = 21;
/// `NLA_TYPE_MASK`: what of an attribute's type is not a flag.
const TYPE_MASK: u16 = 0x3fff;

/// Bytes of `struct nlmsghdr`, of `struct nlattr`, of `struct inet_diag_req_v2` up to the id, of
/// `struct inet_diag_sockid`, and of `struct inet_diag_msg` before and with it.
const HEADER: usize = 16;
const ATTRIBUTE: usize = 4;
const REQUEST_HEAD: usize = 8;
const ID: usize = 48;
const ROW_HEAD: usize = 4;
const ROW: usize = 72;

/// `TCP_ESTABLISHED` and the other states of `include/net/tcp_states.h`, a bit each, in which a TCP socket
/// has a peer and is not just waiting for late segments; of a UDP socket, that it is connected.
const TCP_STATES: u32 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;
const UDP_STATES: u32 = 1 << 1;

/// Sockets that are listed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sort {
    family: u8,
    protocol: u8,
}

impl Sort {
    /// Every sort that is governed.
    pub const ALL: [Self; 4] = {
        const INET: u8 = libc::AF_INET as u8;
        const INET6: u8 = libc::AF_INET6 as u8;
        [
            Self { family: INET, protocol: PROTOCOL_TCP },
            Self { family: INET6, protocol: PROTOCOL_TCP },
            Self { family: INET, protocol: PROTOCOL_UDP },
            Self { family: INET6, protocol: PROTOCOL_UDP },
        ]
    };
}

/// What names a socket in a request: `struct inet_diag_sockid`, as the kernel wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id([u8; ID]);

/// One socket of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row<'a> {
    family: u8,
    /// What names it.
    pub id: Id,
    attributes: &'a [u8],
}

/// One message of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// A socket.
    Row(Row<'a>),
    /// The end of a list.
    Done,
    /// How it went: 0, or an errno.
    Error(i32),
}

/// The question for all sockets of this sort, with what the socket storage `map` has of each.
#[must_use]
pub fn list(sort: Sort, map: i32) -> Vec<u8> {
    let states = if sort.protocol == PROTOCOL_TCP { TCP_STATES } else { UDP_STATES };
    let mut body = request(sort, states, &Id([0; ID]));
    let inner = attribute(ASK_MAP, &map.to_ne_bytes());
    body.extend(attribute(ASK_STORAGE, &inner));
    packet(LIST, REQUEST | DUMP, &body)
}

/// The order to close one of them.
#[must_use]
pub fn destroy(sort: Sort, id: &Id) -> Vec<u8> {
    packet(DESTROY, REQUEST | ACKNOWLEDGE, &request(sort, u32::MAX, id))
}

fn request(sort: Sort, states: u32, id: &Id) -> Vec<u8> {
    let mut body = Vec::with_capacity(REQUEST_HEAD + ID);
    body.extend([sort.family, sort.protocol, 0, 0]);
    body.extend(states.to_ne_bytes());
    body.extend(id.0);
    body
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(ATTRIBUTE + value.len()).expect("a few bytes");
    [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat()
}

fn packet(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + body.len()).expect("a request is small");
    let mut packet = Vec::with_capacity(HEADER + body.len());
    packet.extend(length.to_ne_bytes());
    packet.extend(kind.to_ne_bytes());
    packet.extend(flags.to_ne_bytes());
    // Which request it is, and whose: there is one at a time, and the kernel knows the socket.
    packet.extend([0; 8]);
    packet.extend(body);
    packet
}

/// The messages of one packet, or what is wrong with it.
pub fn answers(mut packet: &[u8]) -> impl Iterator<Item = Result<Answer<'_>, &'static str>> {
    std::iter::from_fn(move || {
        if packet.is_empty() {
            return None;
        }
        let Some((kind, body, rest)) = message(packet) else {
            packet = &[];
            return Some(Err("a message is cut short"));
        };
        packet = rest;
        Some(answer(kind, body))
    })
}

/// The type and the body of the first message of `packet`, and what follows it.
fn message(packet: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(array(packet, 0)?)).ok()?;
    let kind = u16::from_ne_bytes(array(packet, 4)?);
    let body = packet.get(HEADER..length)?;
    let rest = packet.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, body, rest))
}

fn answer(kind: u16, body: &[u8]) -> Result<Answer<'_>, &'static str> {
    match kind {
        DONE => Ok(Answer::Done),
        ERROR => {
            let errno = i32::from_ne_bytes(array(body, 0).ok_or("an error is cut short")?);
            Ok(Answer::Error(errno.saturating_neg()))
        }
        LIST => {
            let id = array(body, ROW_HEAD).ok_or("a socket is cut short")?;
            let attributes = body.get(ROW..).ok_or("a socket is cut short")?;
            Ok(Answer::Row(Row { family: body[0], id: Id(id), attributes }))
        }
        _ => Err("a message of an unknown type"),
    }
}

impl Row<'_> {
    /// What it is known by.
    #[must_use]
    pub fn listed(&self) -> Listed {
        let bytes = &self.id.0;
        let word = |at: usize| u32::from_ne_bytes(array(bytes, at).expect("an id has this size"));
        let port_be = u16::from_ne_bytes(array(bytes, 2).expect("likewise"));
        let peer = [20, 24, 28, 32].map(word);
        let is_ipv4 = i32::from(self.family) == libc::AF_INET;
        let address = if is_ipv4 { mapped(peer[0]) } else { peer };
        let cookie = u64::from(word(44)) << 32 | u64::from(word(40));
        Listed { cookie, peer: (address, port_be) }
    }

    /// What the socket storage that was asked for has of it.
    #[must_use]
    pub fn stored(&self) -> Option<SocketState> {
        let storages = find(self.attributes, STORAGES)?;
        let storage = find(storages, STORAGE)?;
        plain(find(storage, VALUE)?)
    }

    /// The id of the cgroup it is in, that of the process which made it, for as long as it lives: programs of
    /// this cgroup, and of those above it, are the ones that run for it.
    #[must_use]
    pub fn cgroup(&self) -> Option<u64> {
        Some(u64::from_ne_bytes(find(self.attributes, CGROUP)?.try_into().ok()?))
    }
}

/// The value of the first attribute of this type.
fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(array(attributes, 0)?));
        let kind = u16::from_ne_bytes(array(attributes, 2)?) & TYPE_MASK;
        let value = attributes.get(ATTRIBUTE..length)?;
        if kind == wanted {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use proptest::collection;
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    /// A row as the kernel lays it out: `struct inet_diag_msg`, and the attributes behind it.
    fn row(family: u8, id: &Id, attributes: &[u8]) -> Vec<u8> {
        let mut body = vec![family, 1, 0, 0];
        body.extend(id.0);
        body.extend([0; ROW - ROW_HEAD - ID]);
        body.extend(attributes);
        packet(LIST, 2, &body)
    }

    fn id(peer: [u32; 4], port_be: u16, cookie: u64) -> Id {
        let mut bytes = [0; ID];
        bytes[2..4].copy_from_slice(&port_be.to_ne_bytes());
        for (at, word) in peer.iter().enumerate() {
            bytes[20 + 4 * at..24 + 4 * at].copy_from_slice(&word.to_ne_bytes());
        }
        bytes[40..48].copy_from_slice(&cookie.to_le_bytes());
        Id(bytes)
    }

    fn rows(packet: &[u8]) -> Vec<(Listed, Option<u64>)> {
        let of = |answer| match answer {
            Ok(Answer::Row(row)) => Some((row.listed(), row.stored().map(|it| it.seat))),
            _ => None,
        };
        answers(packet).filter_map(of).collect()
    }

    #[test]
    fn a_socket_is_known_by_its_cookie_and_its_peer() {
        let both = [
            row(2, &id([0x0100_007f, 0, 0, 0], 80, 1 << 32 | 41), &[]),
            row(10, &id([1, 2, 3, 4], 81, 42), &[]),
        ]
        .concat();
        let ipv4 = Listed { cookie: 1 << 32 | 41, peer: (mapped(0x0100_007f), 80) };
        let ipv6 = Listed { cookie: 42, peer: ([1, 2, 3, 4], 81) };
        assert_eq!(rows(&both), [(ipv4, None), (ipv6, None)]);
    }

    #[test]
    fn what_is_stored_with_a_socket_is_found_among_its_attributes() {
        let mut state = [0_u8; size_of::<SocketState>()];
        let at = std::mem::offset_of!(SocketState, seat);
        state[at..at + 8].copy_from_slice(&99_u64.to_ne_bytes());
        let storage = [attribute(2, &[7, 0, 0, 0]), attribute(VALUE, &state)].concat();
        let storages = attribute(STORAGES | 0x8000, &attribute(STORAGE, &storage));
        let attributes = [attribute(8, &[1]), vec![0; 3], storages].concat();
        let packet = row(2, &id([1, 0, 0, 0], 80, 41), &attributes);
        assert_eq!(rows(&packet)[0].1, Some(99));
        let short = attribute(STORAGES, &attribute(STORAGE, &attribute(VALUE, &state[..127])));
        assert_eq!(rows(&row(2, &id([1, 0, 0, 0], 80, 41), &short))[0].1, None);
    }

    #[test]
    fn its_cgroup_is_found_among_its_attributes_if_the_kernel_says_it() {
        let cgroup = |attributes: &[u8]| {
            let packet = row(2, &id([1, 0, 0, 0], 80, 41), attributes);
            let first = answers(&packet).next().expect("one").expect("whole");
            if let Answer::Row(row) = first { row.cgroup() } else { None }
        };
        let of = |bytes: &[u8]| [attribute(14, &[]), attribute(CGROUP, bytes)].concat();
        assert_eq!(cgroup(&of(&0x1_0000_0007_u64.to_ne_bytes())), Some(0x1_0000_0007));
        assert_eq!((cgroup(&of(&[7, 0, 0, 0])), cgroup(&of(&[])), cgroup(&[])), (None, None, None));
    }

    #[test]
    fn an_acknowledgement_says_how_it_went() {
        let error = |errno: i32| packet(ERROR, 0, &errno.to_ne_bytes());
        let told = |packet: &[u8]| answers(packet).next().expect("one").expect("whole").errno();
        assert_eq!((told(&error(0)), told(&error(-libc::ENOENT))), (Some(0), Some(libc::ENOENT)));
        assert_eq!(told(&error(i32::MIN)), Some(i32::MAX));
        assert_eq!(told(&packet(DONE, 0, &[])), None);
    }

    impl Answer<'_> {
        fn errno(self) -> Option<i32> {
            if let Self::Error(errno) = self { Some(errno) } else { None }
        }
    }

    #[test]
    fn whatever_is_cut_short_is_an_error_and_no_panic() {
        let storages = attribute(STORAGES, &attribute(STORAGE, &attribute(VALUE, &[1; 128])));
        let whole = row(2, &id([1, 0, 0, 0], 80, 41), &storages);
        for length in 1..whole.len() {
            let all: Vec<_> = answers(&whole[..length]).collect();
            assert!(matches!(all[..], [Err(_)]), "{length}: {all:?}");
        }
        for length in 0..=u8::MAX {
            // An attribute that says it is longer than it is, or shorter than its head.
            let mut bytes = row(2, &id([1, 0, 0, 0], 80, 41), &storages);
            bytes[HEADER + ROW] = length;
            let _whatever = rows(&bytes);
        }
        let mut endless = whole;
        endless[..4].copy_from_slice(&0_u32.to_ne_bytes());
        assert!(answers(&endless).all(|answer| answer.is_err()));
    }

    proptest! {
        /// A packet's bytes count, and not those behind it in the buffer.
        #[test]
        fn any_bytes_are_read_to_their_end_and_no_further(
            packet in mostly_whole(),
            behind in collection::vec(any::<u8>(), 0..300),
        ) {
            let longer = [&packet[..], &behind].concat();
            let alone: Vec<_> = answers(&packet).collect();
            prop_assert!(alone.iter().eq(&answers(&longer[..packet.len()]).collect::<Vec<_>>()));
            prop_assert!(alone.len() <= packet.len().div_ceil(HEADER));
            let wrong = alone.iter().position(|answer| *answer == Err("a message is cut short"));
            prop_assert!(wrong.is_none_or(|at| at + 1 == alone.len()), "it went on behind the end");
            for answer in alone.into_iter().flatten() {
                if let Answer::Row(row) = answer {
                    let _whatever = (row.listed(), row.stored(), row.cgroup());
                }
            }
        }
    }

    /// Messages as the kernel sends them, a few bytes of which are others, cut off somewhere.
    fn mostly_whole() -> impl Strategy<Value = Vec<u8>> {
        let body = collection::vec(any::<u8>(), 0..300);
        let kind = prop_oneof![Just(LIST), Just(ERROR), Just(DONE), any::<u16>()];
        let messages = collection::vec((kind, body), 0..4).prop_map(|messages| {
            let packets = messages.iter().map(|(kind, body)| packet(*kind, 0, body));
            packets
                .flat_map(|mut it| {
                    it.resize(it.len().next_multiple_of(4), 0);
                    it
                })
                .collect::<Vec<u8>>()
        });
        let changes = collection::vec((any::<Index>(), any::<u8>()), 0..3);
        (messages, changes, any::<Index>(), any::<bool>()).prop_map(
            |(mut bytes, changes, end, cut)| {
                for (at, byte) in changes {
                    if !bytes.is_empty() {
                        let at = at.index(bytes.len());
                        bytes[at] = byte;
                    }
                }
                bytes.truncate(if cut { end.index(bytes.len() + 1) } else { bytes.len() });
                bytes
            },
        )
    }
}
