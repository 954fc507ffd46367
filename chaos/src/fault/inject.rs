//! From a fault to a guard.

use std::path::Path;
use std::time::Duration;

use holdfast_lab::LabError;

use super::{
    Fault, cgroup, clock, configuration, estate, limits, memory, state, supervisor, worker,
};
use crate::run::stage::Stage;

/// A fault that goes on. Dropping it undoes what can be undone; what goes wrong then is told to the
/// stage.
pub trait Guard {}

/// For faults that are over at once.
impl Guard for () {}

/// A fault that was injected.
pub struct Injection<'s> {
    /// Undoes it when dropped.
    pub guard: Box<dyn Guard + 's>,
    /// Whose grant it has ended, or will, and the instant just before.
    pub stricken: Option<(Stricken, u64)>,
    /// What exactly was done, for people.
    pub note: String,
}

/// Who cannot write any more because of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stricken {
    /// This worker.
    Worker(u32),
    /// Whoever it was.
    Anybody,
}

/// Why a fault was not injected.
#[derive(Debug, thiserror::Error)]
pub enum FaultError {
    /// There is nothing it could hit at this moment.
    #[error("there is nothing to hit: {0}")]
    NoTarget(&'static str),
    /// This machine cannot do it.
    #[error("this machine cannot do that: {0}")]
    Unsupported(String),
    /// It could not be done.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// A process, a file or a limit resisted.
    #[error("cannot {action}: {source}")]
    System {
        /// What was tried, on what.
        action: String,
        /// The kernel's answer.
        source: std::io::Error,
    },
}

impl FaultError {
    /// A failed `action`, for `map_err`.
    pub fn system<E: Into<std::io::Error>>(action: impl Into<String>) -> impl FnOnce(E) -> Self {
        move |source| Self::System { action: action.into(), source: source.into() }
    }
}

impl<'s> Injection<'s> {
    /// One that goes on until `guard` is dropped.
    pub fn held(guard: impl Guard + 's, note: impl Into<String>) -> Self {
        Self { guard: Box::new(guard), stricken: None, note: note.into() }
    }

    /// One that is over.
    pub fn over(note: impl Into<String>) -> Self {
        Self::held((), note)
    }

    /// It has taken the grant of these; `at_us` is just before.
    #[must_use]
    pub const fn striking(mut self, who: Stricken, at_us: u64) -> Self {
        self.stricken = Some((who, at_us));
        self
    }
}

/// Injects `fault`.
pub fn inject<'s>(fault: &Fault, stage: &'s Stage<'s>) -> Result<Injection<'s>, FaultError> {
    match *fault {
        Fault::Kill { draw } => worker::kill(stage, draw),
        Fault::Stop | Fault::Hang => worker::stop(stage),
        Fault::SighupStorm { count } => supervisor::storm(stage, count),
        Fault::SupervisorKill => supervisor::kill(stage, false),
        Fault::BothKill => supervisor::kill(stage, true),
        Fault::SupervisorPause => supervisor::pause(stage),
        Fault::SupervisorReplace => supervisor::replace(stage),
        Fault::UnlinkPins { draw } => estate::unlink(stage, draw),
        Fault::DetachLink { draw } => estate::detach(stage, draw),
        Fault::RemoveCgroup => cgroup::remove(stage),
        Fault::CorruptConfiguration { draw } => configuration::corrupt(stage, draw),
        Fault::TruncateConfiguration { draw } => configuration::truncate(stage, draw),
        Fault::CorruptSnapshot { draw } => state::corrupt(stage, draw),
        Fault::TruncateSnapshot { draw } => state::truncate(stage, draw),
        Fault::FullState => state::fill(stage),
        Fault::NoDescriptors => limits::descriptors(stage),
        Fault::NoMemory => limits::memory(stage),
        Fault::OutOfMemory => memory::exhaust(stage),
        Fault::ClockJump { seconds } => clock::shift(stage, seconds),
    }
}

/// How long an injector waits for what it has set off itself: a process to end, a cgroup to be
/// empty.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A file that could not be changed, for `map_err`.
pub fn file(action: &str, path: &Path) -> impl FnOnce(std::io::Error) -> FaultError {
    FaultError::system(format!("{action} {}", path.display()))
}
