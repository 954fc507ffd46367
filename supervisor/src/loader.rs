//! Running the loader: the privileged child that builds, adopts or clears the estate, hands it
//! over and ends. Before the actors start and after they have ended, this waits for it; while they
//! live, they hear it themselves, through [`start`] and [`Arrival`].

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use holdfast_protocol::handover::{FromChild, Occasion, Offer, ToChild};
use holdfast_protocol::wire;

use crate::channel::{Channel, ChannelError};
use crate::estate::{Estate, EstateError};
use crate::oom;
use crate::process::{self, Child, Ending};

/// How long the loader may take in all. It loads eleven programs and allocates the maps, whose
/// memory the kernel clears: tens of milliseconds; a machine that swaps needs seconds.
pub const LOADING: Duration = Duration::from_secs(30);

/// How long it may take to end after its last word.
pub const ENDING: Duration = Duration::from_secs(5);

/// Most lines kept of what was removed.
const MAX_ITEMS: usize = 4096;

/// How much is shown of what a loader should not have said.
const MAX_SHOWN_BYTES: usize = 200;

/// Tells a loader to attach what judges arriving connections.
const ARRIVALS: &str = "--arrivals";

/// What the loader is told.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its binary.
    pub worker: PathBuf,
    /// The instance.
    pub instance: String,
    /// The governed cgroup.
    pub cgroup: PathBuf,
    /// Where the pins are.
    pub bpffs: PathBuf,
    /// How much room there is; `None` leaves it to the loader.
    pub limits: Option<Limits>,
}

/// How much room there is in the maps.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Service numbers.
    pub services: u32,
    /// Endpoint slots.
    pub slots: u32,
    /// Flows of unconnected UDP sockets.
    pub flows: u32,
}

/// Why the loader did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum LoaderError {
    /// It did not start.
    #[error("cannot start the loader {}: {source}", path.display())]
    Spawn {
        /// Its binary.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It said no; why.
    #[error("{0}")]
    Refused(String),
    /// It ended early.
    #[error(
        "the loader {} ended before it was done: {ending}; give --worker a holdfast-worker of this \
         release",
        path.display()
    )]
    Ended {
        /// Its binary.
        path: PathBuf,
        /// How.
        ending: Ending,
    },
    /// It said something else than it should, or nothing.
    #[error("the loader {0}")]
    Protocol(String),
    /// The conversation failed.
    #[error("the conversation with the loader failed: {0}")]
    Channel(#[from] ChannelError),
    /// What it handed over is not what it says.
    #[error(transparent)]
    Estate(#[from] EstateError),
    /// It cannot be waited for.
    #[error("cannot wait for the loader: {0}")]
    Wait(std::io::Error),
}

/// Builds or adopts the estate.
///
/// # Errors
///
/// When it is not complete and verified; what is pinned stays as the loader left it.
pub fn load(plan: &Plan) -> Result<Estate, LoaderError> {
    let mut arrival = Arrival::default();
    converse(plan, "load", |channel, word, descriptors| arrival.take(channel, word, descriptors))?;
    arrival.estate()
}

/// Starts a loader that is to hand the estate over. `arrivals` has it attach what judges arriving
/// connections, whatever the policies in force say.
///
/// # Errors
///
/// When it does not start.
pub fn start(plan: &Plan, arrivals: bool) -> Result<(Channel, Child), LoaderError> {
    begin(plan, &["load", ARRIVALS][..1 + usize::from(arrivals)])
}

/// How far a loader has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It has nothing to say at this moment.
    Silent,
    /// It said something, and has more to say.
    Underway,
    /// This was all.
    Done,
}

/// The estate on its way from a loader.
#[derive(Debug, Default)]
pub struct Arrival {
    estate: Estate,
    next: u16,
}

impl Arrival {
    /// Hears one message of the loader, if there is one.
    ///
    /// # Errors
    ///
    /// When it is not what a loader says at this point.
    pub fn hear(&mut self, channel: &Channel) -> Result<Progress, LoaderError> {
        hear(channel, &mut |channel, word, descriptors| self.take(channel, word, descriptors))
    }

    /// What arrived, after the last message.
    ///
    /// # Errors
    ///
    /// When it is not a whole estate.
    pub fn estate(self) -> Result<Estate, LoaderError> {
        self.estate.check_complete()?;
        Ok(self.estate)
    }

    fn take(
        &mut self,
        channel: &Channel,
        word: FromChild,
        descriptors: Vec<OwnedFd>,
    ) -> Result<bool, LoaderError> {
        let FromChild::Offer(offer) = word else { return Err(unexpected(&word, "an offer")) };
        let Offer { index, of, .. } = offer;
        if index != self.next || index >= of {
            let what = format!("sent packet {index} of {of} as its packet {}", self.next);
            return Err(LoaderError::Protocol(what));
        }
        self.estate.adopt(offer, descriptors)?;
        channel.send(&ToChild::Accept { index }, &[])?;
        self.next += 1;
        Ok(self.next == of)
    }
}

/// Removes the estate; what was removed, a line each.
///
/// # Errors
///
/// When something may be left.
pub fn clear(plan: &Plan) -> Result<Vec<String>, LoaderError> {
    let mut removed = Vec::new();
    converse(plan, "clear", |_, word, _| match word {
        FromChild::Cleared { items, last } => {
            removed.extend(items);
            removed.truncate(MAX_ITEMS);
            Ok(last)
        }
        other => Err(unexpected(&other, "what it removed")),
    })?;
    Ok(removed)
}

/// Deals with what one message of a loader is about; whether that was all.
type Hear<'a> = &'a mut dyn FnMut(&Channel, FromChild, Vec<OwnedFd>) -> Result<bool, LoaderError>;

/// Runs the loader, passing what it says on until `about` answers that this was all.
fn converse(
    plan: &Plan,
    verb: &str,
    mut about: impl FnMut(&Channel, FromChild, Vec<OwnedFd>) -> Result<bool, LoaderError>,
) -> Result<(), LoaderError> {
    let deadline = Instant::now() + LOADING;
    let (channel, child) = begin(plan, &[verb])?;
    let mut talk = || -> Result<(), LoaderError> {
        loop {
            channel.wait(deadline)?;
            if hear(&channel, &mut about)? == Progress::Done {
                return Ok(());
            }
        }
    };
    finish(&plan.worker, &child, talk())
}

fn begin(plan: &Plan, verb: &[&str]) -> Result<(Channel, Child), LoaderError> {
    let (channel, theirs) = Channel::pair()?;
    let mut command = command(plan, verb);
    oom::offer_instead(&mut command);
    let child = process::spawn(&mut command, theirs, Stdio::null(), Vec::new())
        .map_err(|source| LoaderError::Spawn { path: plan.worker.clone(), source })?;
    // A loader that does not hear it has ended already; what it said, if anything, is read next.
    let _heard = channel.send(&hello(&plan.instance), &[]);
    Ok((channel, child))
}

fn hear(channel: &Channel, about: Hear<'_>) -> Result<Progress, LoaderError> {
    let Some((word, descriptors)) = channel.receive_with_descriptors()? else {
        return Ok(Progress::Silent);
    };
    match word {
        FromChild::Welcome { newest, oldest, .. } => check_version(newest, oldest)?,
        FromChild::Repaired { what } => tracing::warn!(what, "the estate was repaired"),
        FromChild::Refused { reason } => return Err(LoaderError::Refused(reason)),
        word => {
            if about(channel, word, descriptors)? {
                return Ok(Progress::Done);
            }
        }
    }
    Ok(Progress::Underway)
}

/// Reaps the loader, and says what went wrong in the most telling way.
fn finish(path: &Path, child: &Child, talked: Result<(), LoaderError>) -> Result<(), LoaderError> {
    if !matches!(talked, Ok(()) | Err(LoaderError::Channel(ChannelError::Closed))) {
        child.kill();
    }
    let ending = match child.wait(Instant::now() + ENDING).map_err(LoaderError::Wait)? {
        Some(ending) => ending,
        None => {
            child.kill();
            let waited = child.wait(Instant::now() + ENDING).map_err(LoaderError::Wait)?;
            waited.ok_or_else(|| LoaderError::Protocol("cannot be ended".to_owned()))?
        }
    };
    match talked {
        Err(LoaderError::Channel(ChannelError::Closed)) => {
            Err(LoaderError::Ended { path: path.to_owned(), ending })
        }
        Ok(()) if ending != Ending::Exited(0) => {
            tracing::warn!(%ending, "the loader did its work and then ended badly");
            Ok(())
        }
        other => other,
    }
}

fn unexpected(word: &FromChild, instead_of: &str) -> LoaderError {
    let said = wire::bounded(&format!("{word:?}"), MAX_SHOWN_BYTES);
    LoaderError::Protocol(format!("said {said} instead of {instead_of}"))
}

fn command(plan: &Plan, verb: &[&str]) -> Command {
    let mut command = Command::new(&plan.worker);
    command.args(verb).arg("--instance").arg(&plan.instance);
    command.arg("--cgroup").arg(&plan.cgroup).arg("--bpffs").arg(&plan.bpffs);
    if let Some(Limits { services, slots, flows }) = plan.limits {
        command.arg("--max-services").arg(services.to_string());
        command.arg("--max-slots").arg(slots.to_string());
        command.arg("--max-flows").arg(flows.to_string());
    }
    command
}

fn hello(instance: &str) -> ToChild {
    ToChild::Hello {
        newest: wire::VERSION,
        oldest: wire::OLDEST_VERSION,
        instance: instance.to_owned(),
        // A loader is granted nothing.
        epoch: 0,
        occasion: Occasion::Start,
    }
}

fn check_version(newest: u8, oldest: u8) -> Result<(), LoaderError> {
    if newest < wire::OLDEST_VERSION || oldest > wire::VERSION {
        let what = format!(
            "speaks protocol versions {oldest} to {newest}: install binaries of one release"
        );
        return Err(LoaderError::Protocol(what));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use holdfast_lab::binaries;

    use super::*;

    fn plan(script: &str) -> (tempfile::TempDir, Plan) {
        process::reserve_child_descriptor().expect("reserved");
        let base = tempfile::tempdir().expect("a directory");
        let (text, worker) = (base.path().join("script"), base.path().join("worker"));
        std::fs::write(&text, format!("#!/bin/sh\n{script}\n")).expect("written");
        binaries::replace(&worker, &text).expect("installed");
        let plan = Plan {
            worker,
            instance: "test".to_owned(),
            cgroup: "/nonexistent".into(),
            bpffs: "/nonexistent".into(),
            limits: Some(Limits { services: 1, slots: 2, flows: 3 }),
        };
        (base, plan)
    }

    #[test]
    fn a_loader_that_ends_early_is_reported_with_its_status() {
        let (_base, plan) = plan("exit 3");
        let error = load(&plan).expect_err("it failed");
        assert!(matches!(error, LoaderError::Ended { ending: Ending::Exited(3), .. }), "{error}");
    }

    #[test]
    fn a_loader_that_talks_nonsense_is_killed_and_reaped() {
        let (_base, plan) = plan("echo nonsense >&3; exec sleep 1000");
        let before = Instant::now();
        let error = load(&plan).expect_err("it failed");
        assert!(matches!(error, LoaderError::Channel(ChannelError::Wire(_))), "{error}");
        assert!(before.elapsed() < ENDING, "killed, not waited for");
    }

    #[test]
    fn a_loader_that_does_not_exist_is_named() {
        let (_base, mut plan) = plan("");
        plan.worker = "/nonexistent/worker".into();
        let text = clear(&plan).expect_err("it failed").to_string();
        assert!(text.contains("/nonexistent/worker"), "{text}");
    }

    #[test]
    fn a_loader_is_told_everything() {
        let (base, plan) = plan("printf '%s\\n' \"$@\" > ${0}.args");
        load(&plan).expect_err("it said nothing");
        let told = std::fs::read_to_string(base.path().join("worker.args")).expect("written");
        let expected = "load\n--instance\ntest\n--cgroup\n/nonexistent\n--bpffs\n/nonexistent\n\
                        --max-services\n1\n--max-slots\n2\n--max-flows\n3\n";
        assert_eq!(told, expected);
    }
}
