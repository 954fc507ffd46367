//! Which events are told of a connection. Pure.

use holdfast_protocol::kernel::event::{Wanted, kind};
use holdfast_protocol::kernel::feature;

use crate::decide::{Decision, NO_SERVICE, Tables, Verdict};
use crate::lifecycle::Outcome;
use crate::limit::is_current;
use crate::words;

/// Whether anybody may ask for events of a connection that was decided so.
#[inline(always)]
#[must_use]
pub const fn may_be_told(decision: &Decision, wanted: Wanted) -> bool {
    wanted.0 != 0 || asks(decision)
}

/// Whether its service asks for some of its own.
#[inline(always)]
const fn asks(decision: &Decision) -> bool {
    decision.table.shape.features & feature::EVENTS != 0
}

/// Which kinds of event are told of a connection, and which of them are for the access log: a word as
/// [`SocketState::told`](holdfast_protocol::kernel::SocketState::told), which has it [`kept`].
#[inline(always)]
#[must_use]
pub const fn told_of(all: u16, logged: u16) -> u32 {
    (logged as u32) << 16 | (all | logged) as u32
}

/// Whether a `told` word has this kind, and whether for the access log.
#[inline(always)]
#[must_use]
pub const fn has(told: u32, kind: u8) -> (bool, bool) {
    let bit = kind::bit(kind) as u32;
    (told & bit != 0, told >> 16 & bit != 0)
}

/// What is kept of a [`told_of`] word with a socket: of the kinds that come to a connection which was sent.
#[inline(always)]
#[must_use]
pub const fn kept(told: u32) -> u16 {
    const { assert!(kind::SENT < 8 && kind::ESTABLISHED < 8 && kind::CLOSED < 8 && kind::FAILED < 8) };
    ((told >> 16) as u16 & 0xff) << 8 | (told as u16 & 0xff)
}

/// The [`told_of`] word that was [`kept`].
#[inline(always)]
#[must_use]
pub const fn told_again(kept: u16) -> u32 {
    told_of(kept & 0xff, kept >> 8)
}

/// The kinds of event that are told of a connection that was decided so: [`told_of`]. The access log's
/// sample is drawn here, once for a connection. One whose table has been replaced meanwhile is in
/// it: rather a line too many.
#[inline(always)]
pub fn told<T: Tables>(tables: &T, decision: &Decision, wanted: Wanted) -> u32 {
    let all = wanted.all();
    let (mut sample, mut logged) = (wanted.sample(), wanted.logged());
    if decision.service != NO_SERVICE && asks(decision) {
        (sample, logged) = (u32::MAX, kind::ENDS);
        if let Some(settings) = tables.slot(decision.table.header.wrapping_add(2)) {
            let word = tables.slot_word(settings, words::SETTINGS_EVENTS);
            if is_current(tables, decision) {
                (sample, logged) = (words::low(word), words::high(word) as u16);
            }
        }
    }
    let is_drawn = logged != 0 && (sample == u32::MAX || tables.random() < sample);
    told_of(all, if is_drawn { logged } else { 0 })
}

/// The same of what is about no service; `draw` gives 32 random bits.
#[inline(always)]
#[must_use]
pub fn told_apart(wanted: Wanted, draw: impl Fn() -> u32) -> u32 {
    let sample = wanted.sample();
    let is_drawn = wanted.logged() != 0 && (sample == u32::MAX || draw() < sample);
    told_of(wanted.all(), if is_drawn { wanted.logged() } else { 0 })
}

/// What there is to tell of a decision, apart from that a connection was sent.
#[inline(always)]
#[must_use]
pub const fn of_failure(verdict: Verdict) -> Option<u8> {
    match verdict {
        Verdict::Untouched | Verdict::Sent => None,
        Verdict::Refused => Some(kind::REFUSED),
        Verdict::Denied => Some(kind::DENIED),
        Verdict::Limited => Some(kind::LIMITED),
        Verdict::Unsettled => Some(kind::UNSETTLED),
    }
}

/// What there is to tell of a step of a connection.
#[inline(always)]
#[must_use]
pub const fn of_step(outcome: Outcome) -> Option<u8> {
    match outcome {
        Outcome::Unchanged | Outcome::Begun | Outcome::Dropped | Outcome::Left => None,
        Outcome::Established | Outcome::Connected => Some(kind::ESTABLISHED),
        Outcome::Closed => Some(kind::CLOSED),
        Outcome::Failed => Some(kind::FAILED),
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    #[test]
    fn what_is_logged_is_told() {
        let told = told_of(0, kind::bit(kind::CLOSED));
        assert_eq!(has(told, kind::CLOSED), (true, true));
        let told = told_of(kind::ALL, kind::bit(kind::CLOSED));
        assert_eq!([has(told, kind::CLOSED), has(told, kind::SENT)], [(true, true), (true, false)]);
        assert_eq!(has(told_of(0, 0), kind::CLOSED), (false, false));
    }

    #[test]
    fn what_is_kept_with_a_socket_says_the_same_of_every_kind_that_comes_to_it() {
        for (all, logged) in [(0, 0), (kind::ALL, 0), (0, kind::ENDS), (kind::ALL, kind::ENDS)] {
            let told = told_of(all, logged);
            for kind in [kind::SENT, kind::ESTABLISHED, kind::CLOSED, kind::FAILED] {
                assert_eq!(has(told_again(kept(told)), kind), has(told, kind), "{kind}");
            }
        }
        assert_eq!(kept(0), 0);
    }

    #[test]
    fn every_connection_that_was_sent_ends_in_one_event_at_most() {
        use Outcome::{Begun, Closed, Connected, Dropped, Established, Failed, Left, Unchanged};
        let told = |outcome| of_step(outcome).filter(|kind| kind::ENDS & kind::bit(*kind) != 0);
        let ends: Vec<_> = [Closed, Failed].into_iter().filter_map(told).collect();
        assert_eq!(ends, [kind::CLOSED, kind::FAILED]);
        for outcome in [Unchanged, Begun, Dropped, Left, Connected, Established] {
            assert_eq!(told(outcome), None, "{outcome:?}");
        }
    }
}
