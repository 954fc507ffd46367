//! Which ends of a worker may be its own fault.

use nix::sys::signal::Signal;

use crate::process::Ending;

/// What a worker that cannot or will not go on exits with, having said why.
const ORDERLY: [i32; 2] = [0, 1];

/// An end, and what else is known of it.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// What the kernel says.
    pub ending: Ending,
    /// Whether the supervisor killed it, because it hung or broke the protocol.
    pub was_given_up: bool,
    /// Whether the kernel killed it because memory was short.
    pub is_starved: bool,
}

impl End {
    /// Whether the worker's binary or configuration may be the reason. A signal that somebody sent
    /// says nothing about either: SIGKILL counts only from the supervisor or for memory.
    #[must_use]
    pub fn is_suspicious(self) -> bool {
        match self.ending {
            Ending::Exited(status) => !ORDERLY.contains(&status) || self.was_given_up,
            Ending::Killed(Signal::SIGKILL) => self.was_given_up || self.is_starved,
            Ending::Killed(Signal::SIGTERM | Signal::SIGINT | Signal::SIGHUP) => self.was_given_up,
            Ending::Killed(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(ending: Ending) -> End {
        End { ending, was_given_up: false, is_starved: false }
    }

    #[test]
    fn what_others_do_to_a_worker_is_not_its_fault() {
        let others = [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];
        for signal in others {
            assert!(!end(Ending::Killed(signal)).is_suspicious(), "{signal}");
            let given_up = End { was_given_up: true, ..end(Ending::Killed(signal)) };
            assert!(given_up.is_suspicious(), "{signal}");
        }
        assert!(!end(Ending::Exited(0)).is_suspicious() && !end(Ending::Exited(1)).is_suspicious());
    }

    #[test]
    fn crashes_and_want_of_memory_are() {
        for signal in [Signal::SIGABRT, Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGSYS] {
            assert!(end(Ending::Killed(signal)).is_suspicious(), "{signal}");
        }
        assert!(end(Ending::Exited(101)).is_suspicious(), "a panic");
        let short = End { is_starved: true, ..end(Ending::Killed(Signal::SIGKILL)) };
        assert!(short.is_suspicious());
    }
}
