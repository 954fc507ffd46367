//! Faults as data, and what injects them.
//!
//! - [`kind`]: which there are, what each is called, and which cannot be had at the same time.
//! - [`effect`]: what a fault makes impossible by nature, as data.
//! - [`inject`]: from a fault to a [`Guard`], one file per family:
//!   [`worker`], [`supervisor`], [`estate`], [`cgroup`], [`configuration`], [`state`], [`limits`],
//!   [`memory`], [`clock`].

mod cgroup;
mod clock;
mod configuration;
pub mod effect;
pub mod estate;
pub mod inject;
pub mod kind;
mod limits;
mod memory;
mod state;
mod supervisor;
mod worker;

use serde::{Deserialize, Serialize};

pub use effect::Effect;
pub use inject::{FaultError, Guard, inject};
pub use kind::{Kind, Kinds};

/// A fault with the choices it takes: all that is needed to do the same again. What a number picks
/// from (a worker, a pin, a place in a file) is only known when the fault hits, so a `draw` is
/// scaled to the number of possibilities then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Fault {
    /// SIGKILL to a worker: the one that writes, one on its way in or one on its way out.
    Kill {
        /// Which of those that run.
        draw: u32,
    },
    /// SIGSTOP to the worker that writes, until its silence is noticed.
    Stop,
    /// SIGSTOP to the worker that writes, and SIGCONT at the end.
    Hang,
    /// Requests to reload in quick succession.
    SighupStorm {
        /// How many.
        count: u32,
    },
    /// SIGKILL to the supervisor; started again at the end.
    SupervisorKill,
    /// SIGKILL to the worker and to the supervisor; started again at the end.
    BothKill,
    /// SIGSTOP to the supervisor, and SIGCONT at the end: to it, the monotonic clock jumps.
    SupervisorPause,
    /// SIGUSR2: the supervisor becomes the binary on disk.
    SupervisorReplace,
    /// Removes one pin, or all of them with their directories.
    UnlinkPins {
        /// Which one; `None` for all.
        draw: Option<u32>,
    },
    /// Detaches a link behind the supervisor's back.
    DetachLink {
        /// Which one.
        draw: u32,
    },
    /// Removes the governed cgroup once its processes have moved away; made anew at the end.
    RemoveCgroup,
    /// Saves a configuration with a byte in it that no text has.
    CorruptConfiguration {
        /// Where.
        draw: u32,
    },
    /// Cuts the configuration off, in place.
    TruncateConfiguration {
        /// Where.
        draw: u32,
    },
    /// Flips a byte of the snapshot.
    CorruptSnapshot {
        /// Which one.
        draw: u32,
    },
    /// Cuts the snapshot off.
    TruncateSnapshot {
        /// Where.
        draw: u32,
    },
    /// Fills the state directory's file system.
    FullState,
    /// Lowers `RLIMIT_NOFILE` of supervisor and worker to what they have open.
    NoDescriptors,
    /// Lowers `RLIMIT_AS` of supervisor and worker to what they have.
    NoMemory,
    /// A memory cgroup without room for the worker, so that the kernel ends it.
    OutOfMemory,
    /// Shifts the wall clock that supervisor and worker read; back at the end.
    ClockJump {
        /// By how many seconds.
        seconds: i64,
    },
}

impl Fault {
    /// What it is called.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Kill { .. } => Kind::Kill,
            Self::Stop => Kind::Stop,
            Self::Hang => Kind::Hang,
            Self::SighupStorm { .. } => Kind::SighupStorm,
            Self::SupervisorKill => Kind::SupervisorKill,
            Self::BothKill => Kind::BothKill,
            Self::SupervisorPause => Kind::SupervisorPause,
            Self::SupervisorReplace => Kind::SupervisorReplace,
            Self::UnlinkPins { .. } => Kind::UnlinkPins,
            Self::DetachLink { .. } => Kind::DetachLink,
            Self::RemoveCgroup => Kind::RemoveCgroup,
            Self::CorruptConfiguration { .. } => Kind::CorruptConfiguration,
            Self::TruncateConfiguration { .. } => Kind::TruncateConfiguration,
            Self::CorruptSnapshot { .. } => Kind::CorruptSnapshot,
            Self::TruncateSnapshot { .. } => Kind::TruncateSnapshot,
            Self::FullState => Kind::FullState,
            Self::NoDescriptors => Kind::NoDescriptors,
            Self::NoMemory => Kind::NoMemory,
            Self::OutOfMemory => Kind::OutOfMemory,
            Self::ClockJump { .. } => Kind::ClockJump,
        }
    }
}

/// Scales `draw` to one of `count` possibilities; 0 when there is none.
pub fn pick(draw: u32, count: usize) -> usize {
    let scaled = (u64::from(draw) * count as u64) >> u32::BITS;
    usize::try_from(scaled).expect("below a usize")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_reaches_the_first_and_the_last_possibility_and_none_beyond() {
        assert_eq!(pick(0, 7), 0);
        assert_eq!(pick(u32::MAX, 7), 6);
        assert_eq!(pick(u32::MAX / 2, 2), 0);
        assert_eq!(pick(12, 0), 0);
    }

    #[test]
    fn faults_read_as_they_are_written() {
        let faults = [
            (Fault::Kill { draw: 7 }, r#"{"fault":"kill","draw":7}"#),
            (Fault::Stop, r#"{"fault":"stop"}"#),
            (Fault::UnlinkPins { draw: None }, r#"{"fault":"unlink-pins","draw":null}"#),
            (Fault::ClockJump { seconds: -5 }, r#"{"fault":"clock-jump","seconds":-5}"#),
        ];
        for (fault, text) in faults {
            assert_eq!(serde_json::to_string(&fault).expect("plain data"), text);
            assert_eq!(serde_json::from_str::<Fault>(text).expect("as written"), fault);
        }
    }
}
