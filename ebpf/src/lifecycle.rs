//! What happens to a connection after `connect(2)`, and what is counted for it. Pure.
//!
//! ```text
//! TCP       IDLE ── attempt ──► PENDING ── established ──► OPEN ── closed ──► IDLE
//!                                  └────────── closed: it failed ─────────────┘
//! datagram  IDLE ── connected ──────────────────────────► OPEN ── closed ──► IDLE
//! ```
//!
//! Whatever is added to a live count on one step is taken away on a later one of the same socket, and
//! each step is taken once: the phase lies in the socket's storage and is exchanged atomically. So it
//! does not matter that the kernel may tell an end twice (the state of a socket, and its release), nor
//! who else looks at the socket at that moment.
//!
//! An attempt begins when the kernel is about to send the first segment. What fails before that (no
//! route, no local port) was never pending, and nothing has to be taken back for it.

use holdfast_protocol::kernel::endpoint::Live;
use holdfast_protocol::kernel::phase;

/// `BPF_SOCK_OPS_TCP_CONNECT_CB` (`include/uapi/linux/bpf.h`): the first segment is about to be sent.
const CONNECT_CALLBACK: u32 = 3;
/// `BPF_SOCK_OPS_STATE_CB`: the socket is about to change its state.
const STATE_CALLBACK: u32 = 10;

/// `TCP_ESTABLISHED` (`include/net/tcp_states.h`).
const ESTABLISHED: u32 = 1;
/// `TCP_FIN_WAIT2`: our end of the stream was acknowledged.
const FIN_WAIT2: u32 = 5;
/// `TCP_CLOSE`. A socket that enters `TIME_WAIT` gets here as well: what waits is another object.
const CLOSE: u32 = 7;
/// `TCP_CLOSE_WAIT`: the peer has ended its stream.
const CLOSE_WAIT: u32 = 8;
/// `TCP_LAST_ACK`: both streams have ended, ours is not acknowledged yet.
const LAST_ACK: u32 = 9;
/// `TCP_CLOSING`: likewise, ours having ended first.
const CLOSING: u32 = 11;

/// What happens to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing that is counted.
    None,
    /// An attempt begins.
    Attempt,
    /// The attempt has succeeded.
    Established,
    /// A datagram socket is connected, which takes no attempt.
    Connected,
    /// It has ended, or the socket goes elsewhere.
    Closed,
}

/// What came of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing: it had happened already, or cannot happen.
    Unchanged,
    /// An attempt is under way.
    Begun,
    /// A connection is open after an attempt.
    Established,
    /// A connection is open without one.
    Connected,
    /// A connection was open and is not any more.
    Closed,
    /// An attempt came to nothing.
    Failed,
}

/// What an event makes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The phase it is in from now on.
    pub next: u64,
    /// What to add to the words of what is live, with wrap-around.
    pub live: u64,
    /// What to count.
    pub outcome: Outcome,
}

/// What `event` makes of a connection in `phase`: one of [`phase`](mod@phase). Anything else in there
/// was not written by these programs, and stays.
#[inline(always)]
#[must_use]
pub const fn step(phase: u64, event: Event) -> Step {
    let (next, outcome) = match (phase, event) {
        (phase::IDLE, Event::Attempt) => (phase::PENDING, Outcome::Begun),
        (phase::IDLE, Event::Connected) => (phase::OPEN, Outcome::Connected),
        (phase::PENDING, Event::Established) => (phase::OPEN, Outcome::Established),
        (phase::PENDING, Event::Closed) => (phase::IDLE, Outcome::Failed),
        (phase::OPEN, Event::Closed) => (phase::IDLE, Outcome::Closed),
        _ => (phase, Outcome::Unchanged),
    };
    Step { next, live: counted(next).wrapping_sub(counted(phase)), outcome }
}

/// What a connection in `phase` has added to the words of what is live.
#[inline(always)]
const fn counted(phase: u64) -> u64 {
    match phase {
        phase::PENDING => Live::PENDING,
        phase::OPEN => Live::OPEN,
        _ => 0,
    }
}

/// What the kernel tells of a TCP socket: the operation, and the state it is about to have.
#[inline(always)]
#[must_use]
pub const fn tcp_event(operation: u32, state: u32) -> Event {
    match (operation, state) {
        (CONNECT_CALLBACK, _) => Event::Attempt,
        (STATE_CALLBACK, ESTABLISHED) => Event::Established,
        (STATE_CALLBACK, CLOSE) => Event::Closed,
        _ => Event::None,
    }
}

/// What it means that the last descriptor of a socket is closed. A TCP connection may go on for a
/// while, and its end is told; but of one that is closed already nothing more will be told.
#[inline(always)]
#[must_use]
pub const fn release_event(is_tcp: bool, state: u32) -> Event {
    if is_tcp && state != CLOSE { Event::None } else { Event::Closed }
}

/// What a closed TCP connection has carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Bytes the peer has acknowledged.
    pub sent: u64,
    /// Bytes that have come from it.
    pub received: u64,
    /// Segments sent again.
    pub retransmits: u64,
}

impl Carried {
    /// What was carried by a connection that closes coming from `state`, by the kernel's own counts.
    /// Those count sequence numbers: one more for the beginning of a stream and one for its end, if
    /// that was acknowledged. For a connection that is reset while it ends this may be a byte off.
    #[inline(always)]
    #[must_use]
    pub const fn by(state: u32, acknowledged: u64, received: u64, retransmits: u32) -> Self {
        let own_end = matches!(state, FIN_WAIT2 | LAST_ACK | CLOSING) as u64;
        let peers_end = matches!(state, CLOSE_WAIT | LAST_ACK | CLOSING) as u64;
        Self {
            sent: acknowledged.saturating_sub(1 + own_end),
            received: received.saturating_sub(peers_end),
            retransmits: retransmits as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    const PHASES: [u64; 3] = [phase::IDLE, phase::PENDING, phase::OPEN];
    const EVENTS: [Event; 5] =
        [Event::None, Event::Attempt, Event::Established, Event::Connected, Event::Closed];

    /// The live counts and the outcomes after `events`.
    fn after(events: &[Event]) -> (Live, Vec<Outcome>) {
        let (mut phase, mut live, mut outcomes) = (phase::IDLE, 0_u64, Vec::new());
        for event in events {
            let step = step(phase, *event);
            phase = step.next;
            live = live.wrapping_add(step.live);
            outcomes.push(step.outcome);
        }
        (Live(live), outcomes)
    }

    #[test]
    fn a_connection_is_pending_then_open_then_gone() {
        use Event::{Attempt, Closed, Established};
        assert_eq!(after(&[Attempt]).0, Live(Live::PENDING));
        assert_eq!(after(&[Attempt, Established]).0, Live(Live::OPEN));
        let (live, outcomes) = after(&[Attempt, Established, Closed]);
        assert_eq!(live, Live(0));
        assert_eq!(outcomes, [Outcome::Begun, Outcome::Established, Outcome::Closed]);
        let (live, outcomes) = after(&[Attempt, Closed]);
        assert_eq!((live, outcomes[1]), (Live(0), Outcome::Failed));
    }

    #[test]
    fn what_was_never_attempted_counts_nothing() {
        let (live, outcomes) = after(&[Event::Closed, Event::Established, Event::None]);
        assert_eq!((live, outcomes), (Live(0), [Outcome::Unchanged; 3].to_vec()));
    }

    #[test]
    fn every_event_is_idempotent() {
        for phase in PHASES {
            for event in EVENTS {
                let once = step(phase, event);
                let twice = step(once.next, event);
                assert_eq!((twice.next, twice.live), (once.next, 0), "{phase} {event:?}");
                assert_eq!(twice.outcome, Outcome::Unchanged, "{phase} {event:?}");
            }
        }
    }

    #[test]
    fn whatever_happens_the_end_leaves_nothing_behind() {
        // Every sequence of up to six events, by counting in base five.
        for length in 0..=6_u32 {
            for number in 0..5_usize.pow(length) {
                let digit = |place: u32| EVENTS[number / 5_usize.pow(place) % 5];
                let mut events: Vec<Event> = (0..length).map(digit).collect();
                let before = after(&events).0;
                assert!(before.open() + before.pending() <= 1, "{events:?}");
                events.push(Event::Closed);
                assert_eq!(after(&events).0, Live(0), "{events:?}");
            }
        }
    }

    #[test]
    fn a_phase_of_another_build_is_left_alone() {
        for event in EVENTS {
            assert_eq!(step(77, event), Step { next: 77, live: 0, outcome: Outcome::Unchanged });
        }
    }

    #[test]
    fn the_kernels_callbacks_are_told_apart() {
        assert_eq!(tcp_event(3, 0), Event::Attempt);
        assert_eq!(tcp_event(10, 1), Event::Established);
        assert_eq!(tcp_event(10, 7), Event::Closed);
        for (operation, state) in [(10, 2), (10, 4), (1, 7), (4, 1), (11, 7), (0, 0)] {
            assert_eq!(tcp_event(operation, state), Event::None, "{operation} {state}");
        }
        assert_eq!(release_event(true, CLOSE), Event::Closed);
        assert_eq!(release_event(true, ESTABLISHED), Event::None);
        assert_eq!(release_event(false, ESTABLISHED), Event::Closed);
    }

    #[test]
    fn only_bytes_of_the_streams_are_carried() {
        let carried = |state, acknowledged, received| {
            let carried = Carried::by(state, acknowledged, received, 0);
            (carried.sent, carried.received)
        };
        assert_eq!(carried(ESTABLISHED, 101, 50), (100, 50));
        assert_eq!(carried(LAST_ACK, 102, 51), (100, 50));
        assert_eq!(carried(FIN_WAIT2, 102, 50), (100, 50));
        assert_eq!(carried(CLOSE_WAIT, 101, 51), (100, 50));
        assert_eq!(carried(ESTABLISHED, 0, 0), (0, 0));
    }
}
