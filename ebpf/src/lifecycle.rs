//! What happens to a connection after `connect(2)`, and what is counted for it. Pure.
//!
//! ```text
//! TCP       IDLE ── attempt ──► PENDING ── established ──► OPEN ── closed ──► IDLE
//!                                  └────────── closed: it failed ─────────────┘
//! datagram  IDLE ── connected ──────────────────────────► OPEN ── closed ──► IDLE
//! ```
//!
//! Whatever is added to a live count on one step is taken away on a later one of the same socket, and
//! each step is taken once: the phase is exchanged atomically, in one word with the socket's cookie. So it
//! does not matter that the kernel may tell an end twice (the state of a socket, and its release), nor
//! who else looks at the socket at that moment.
//!
//! A connection of a service with bounds takes its place before all that, when it is decided:
//!
//! ```text
//! RESERVED ── attempt ──► PENDING      RESERVED ── connected ──► OPEN
//!     └── closed, or released: it never began ──► IDLE
//! ```
//!
//! A TCP connection outlives the last descriptor of its socket, and then it is the end of the connection
//! that nobody needs the socket's state after; of any other socket it is the last descriptor. Whoever
//! comes last frees it: a phase says whether the descriptors have gone.
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
    /// Nobody has the socket any more. What has begun may go on; what has not never will.
    Abandoned,
    /// Likewise, and nothing goes on.
    Released,
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
    /// It gives its place back without ever having begun.
    Dropped,
    /// It goes on without a descriptor.
    Left,
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
    let (abandoned, stage) = (phase & phase::ABANDONED, phase & !phase::ABANDONED);
    let (next, outcome) = match (stage, event) {
        (phase::IDLE, Event::Attempt) => (phase::PENDING, Outcome::Begun),
        (phase::IDLE, Event::Connected) => (phase::OPEN, Outcome::Connected),
        (phase::PENDING, Event::Established) => (phase::OPEN, Outcome::Established),
        (phase::PENDING, Event::Closed | Event::Released) => (phase::IDLE, Outcome::Failed),
        (phase::RESERVED, Event::Attempt) => (phase::PENDING, Outcome::Begun),
        (phase::RESERVED, Event::Connected) => (phase::OPEN, Outcome::Connected),
        (phase::RESERVED, Event::Closed | Event::Abandoned | Event::Released) => {
            (phase::IDLE, Outcome::Dropped)
        }
        (phase::OPEN, Event::Closed | Event::Released) => (phase::IDLE, Outcome::Closed),
        (phase::PENDING | phase::OPEN, Event::Abandoned) if abandoned == 0 => {
            return Step { next: phase | phase::ABANDONED, live: 0, outcome: Outcome::Left };
        }
        _ => return Step { next: phase, live: 0, outcome: Outcome::Unchanged },
    };
    let live = counted(next).wrapping_sub(counted(stage));
    Step { next: if next == phase::IDLE { next } else { next | abandoned }, live, outcome }
}

/// Whether nobody needs the state of a socket any more after `step`, which was taken from `phase` for
/// `event`.
#[inline(always)]
#[must_use]
pub const fn is_last(phase: u64, event: Event, step: &Step) -> bool {
    let has_descriptors =
        phase & phase::ABANDONED == 0 && !matches!(event, Event::Abandoned | Event::Released);
    step.next == phase::IDLE && !has_descriptors
}

/// What a connection in `phase` has added to the words of what is live.
#[inline(always)]
const fn counted(phase: u64) -> u64 {
    match phase & !phase::ABANDONED {
        phase::PENDING | phase::RESERVED => Live::PENDING,
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
    if is_tcp && state != CLOSE { Event::Abandoned } else { Event::Released }
}

/// Whether a connection that closes coming from `state` has ended both its streams, or its own.
#[inline(always)]
#[must_use]
pub const fn has_ended_in_order(state: u32) -> bool {
    matches!(state, FIN_WAIT2 | LAST_ACK | CLOSING)
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
        let own_end = has_ended_in_order(state) as u64;
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

    const PHASES: [u64; 6] = [
        phase::IDLE,
        phase::PENDING,
        phase::RESERVED,
        phase::OPEN,
        phase::PENDING | phase::ABANDONED,
        phase::OPEN | phase::ABANDONED,
    ];
    const EVENTS: [Event; 7] = [
        Event::None,
        Event::Attempt,
        Event::Established,
        Event::Connected,
        Event::Closed,
        Event::Abandoned,
        Event::Released,
    ];

    /// The live counts and the outcomes after `events`.
    fn after(events: &[Event]) -> (Live, Vec<Outcome>) {
        after_from(phase::IDLE, events)
    }

    /// Likewise, of a connection that is in `phase` already.
    fn after_from(phase: u64, events: &[Event]) -> (Live, Vec<Outcome>) {
        let (mut phase, mut live, mut outcomes) = (phase, counted(phase), Vec::new());
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
    fn a_place_that_was_taken_is_given_back_or_used() {
        use Event::{Abandoned, Attempt, Closed, Connected, Established};
        let after = |events: &[Event]| after_from(phase::RESERVED, events);
        assert_eq!(after(&[]).0, Live(Live::PENDING));
        assert_eq!(after(&[Attempt, Established, Closed]).0, Live(0));
        assert_eq!(after(&[Connected]).0, Live(Live::OPEN));
        for end in [Closed, Abandoned] {
            assert_eq!(after(&[end]), (Live(0), [Outcome::Dropped].to_vec()));
        }
        // What has begun goes on after the last descriptor.
        assert_eq!(after(&[Attempt, Abandoned]).0, Live(Live::PENDING));
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
        // Every sequence of up to six events, by counting in base seven.
        for (length, from) in (0..=6_u32).flat_map(|length| PHASES.map(|phase| (length, phase))) {
            for number in 0..EVENTS.len().pow(length) {
                let digit = |place: u32| EVENTS[number / EVENTS.len().pow(place) % EVENTS.len()];
                let mut events: Vec<Event> = (0..length).map(digit).collect();
                let before = after_from(from, &events).0;
                assert!(before.open() + before.pending() <= 1, "{events:?}");
                events.push(Event::Closed);
                assert_eq!(after_from(from, &events).0, Live(0), "{events:?}");
            }
        }
    }

    /// Descriptors and connection end in any order, and only the last of the two frees the state.
    #[test]
    fn the_state_of_a_socket_is_freed_once_by_whoever_comes_last() {
        use Event::{Abandoned, Attempt, Closed, Connected, Established, Released};
        let freed_at = |events: &[Event]| {
            let mut phase = phase::IDLE;
            let mut freed = Vec::new();
            for (at, event) in events.iter().enumerate() {
                let step = step(phase, *event);
                if is_last(phase, *event, &step) {
                    freed.push(at);
                }
                phase = step.next;
            }
            freed
        };
        assert_eq!(freed_at(&[Attempt, Established, Closed, Released]), [3]);
        assert_eq!(freed_at(&[Attempt, Established, Abandoned, Closed]), [3]);
        assert_eq!(freed_at(&[Attempt, Abandoned, Established, Closed]), [3]);
        assert_eq!(freed_at(&[Attempt, Abandoned, Closed]), [2]);
        assert_eq!(freed_at(&[Connected, Closed, Connected, Released]), [3]);
        assert_eq!(freed_at(&[Released]), [0]);
        // The kernel has not told of the attempt: nothing goes on that would be counted.
        assert_eq!(freed_at(&[Abandoned]), [0]);
        assert_eq!(freed_at(&[Attempt, Established, Closed]), []);
    }

    #[test]
    fn a_phase_of_another_build_is_left_alone() {
        for event in EVENTS {
            assert_eq!(step(8, event), Step { next: 8, live: 0, outcome: Outcome::Unchanged });
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
        assert_eq!(release_event(true, CLOSE), Event::Released);
        assert_eq!(release_event(true, ESTABLISHED), Event::Abandoned);
        assert_eq!(release_event(false, ESTABLISHED), Event::Released);
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
