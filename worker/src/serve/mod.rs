//! The worker: unprivileged and replaceable. It reads the configuration, writes the maps while it
//! is granted, and may die at any instruction.
//!
//! In reading order:
//!
//! - [`privilege`]: giving up every privilege, before anything is read.
//! - [`sandbox`]: and what every process may do without any.
//! - [`conversation`], [`offer`]: what the supervisor says, and the estate it hands over.
//! - [`source`]: noticing that the configuration has changed, and reading it. [`snapshot`]: the last
//!   one that proved itself.
//! - [`compile`]: from the configuration to what the tables should say. [`compilation`]: one after
//!   another. [`locality`]: what each endpoint gets. [`spread`], [`alias`], [`maglev`]: how the kernel chooses so.
//!   [`aside`]: who gets nothing. [`direct`]: who is asked for by name. Pure.
//! - [`drain`]: which endpoints drain, and since when.
//! - [`tables`]: what the tables say, and the safe way from one to the other.
//! - [`policy`]: the same for access policies.
//! - [`health_check`]: asking endpoints whether they work, and what follows for the tables.
//! - [`session`], [`grace`]: shadow, granted, released, and what is done in each.
//! - [`report`], [`queries`], [`rows`]: what the supervisor and `holdfastctl` are told.
//! - [`events`]: the access log, and whoever follows connections live.
//! - [`telemetry`], [`http`]: what whoever scrapes is told, and how.
//! - [`memory`]: what is given back when a configuration has been compiled. [`undertaker`]: who takes the rest
//!   apart when this process is dead.
//! - `actors`: the shells around all of it.
//!
//! **Architecture Invariant:** there is no privilege when the first byte of configuration is read,
//! and both filters of the [`sandbox`] are in force.
//!
//! **Architecture Invariant:** nothing is written to a map except through
//! [`GrantedMaps`](tables::maps::GrantedMaps), which exist only between a grant and a release.
//!
//! **Architecture Invariant:** without its supervisor a worker ends at once, wherever it stands.

mod actors;
pub mod alias;
pub mod aside;
pub mod compilation;
pub mod compile;
pub mod conversation;
pub mod direct;
pub mod drain;
pub mod events;
pub mod grace;
pub mod health_check;
pub mod http;
pub mod locality;
pub mod log;
pub mod maglev;
pub mod memory;
pub mod offer;
pub mod outlier;
pub mod policy;
pub mod privilege;
pub mod queries;
pub mod report;
pub mod resolve;
pub mod rows;
pub mod sandbox;
pub mod session;
pub mod snapshot;
pub mod source;
pub mod spread;
pub mod tables;
pub mod telemetry;
pub mod undertaker;

use std::os::fd::{AsRawFd as _, RawFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use holdfast_protocol::handover::{FromChild, MAX_TEXT_BYTES};
use holdfast_protocol::wire;

use self::actors::Reactor;
use self::log::LogFormat;
use self::privilege::Identity;
use self::sandbox::files::{Enforced, Readable};
use self::source::watcher;
use crate::lifeline::Lifeline;

/// How long a worker that cannot even start tries to say why.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What to serve, and as whom.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The configuration: a file, or a directory of files.
    #[arg(long, value_name = "PATH")]
    pub config: PathBuf,
    /// The user to become, by name or number.
    #[arg(long, value_name = "NAME|UID", default_value = "nobody")]
    pub user: String,
    /// An instance of inotify to watch the configuration with; without one it is looked at now and then.
    #[arg(long, value_name = "FD")]
    pub watch: Option<RawFd>,
    /// Accept a user that is root.
    #[arg(long)]
    pub allow_root: bool,
    /// How to log.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
}

/// Where the configuration is, and who reads it.
#[derive(Debug)]
struct Configuration {
    path: PathBuf,
    reader: Identity,
    readable: Readable,
}

/// Serves until it is told to leave.
#[must_use]
pub fn serve(arguments: &Arguments) -> ExitCode {
    // SAFETY: this process has just started and has opened nothing, so the descriptor is the one it
    // inherited or none at all.
    let lifeline = unsafe { Lifeline::inherited() };
    // SAFETY: as above.
    let watch = arguments.watch.map(|raw| unsafe { watcher::inherited(raw) }).transpose();
    log::start(arguments.log_format);
    let served = lifeline.context("cannot reach the supervisor").and_then(|lifeline| {
        let watch = watch.context("the descriptor to watch the configuration with is another");
        match watch.and_then(|watch| Ok((watch, prepare(arguments, &lifeline)?))) {
            Ok((watch, (reactor, configuration))) => {
                reactor.run(lifeline, configuration, watch).context("cannot start the reactor")
            }
            Err(error) => {
                refuse(&lifeline, &error);
                Err(error)
            }
        }
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Gives up what serving does not need. The order is that of the [`sandbox`].
fn prepare(arguments: &Arguments, lifeline: &Lifeline) -> anyhow::Result<(Reactor, Configuration)> {
    let reader = Identity::resolve(&arguments.user, arguments.allow_root)?;
    reader.assume()?;
    let path = arguments.config.clone();
    let (readable, enforced) =
        sandbox::files::confine(&path).context("cannot confine access to files")?;
    if enforced != Enforced::Fully {
        tracing::warn!(
            %enforced,
            "this kernel does not confine the worker's access to files and network as Linux 6.12 \
             does; its user's rights and the filter of system calls remain"
        );
    }
    let starting = Reactor::start().context("cannot make the reactor")?;
    // Made while the threads start.
    let filter = sandbox::calls::filter(lifeline.as_raw_fd())?;
    let reactor = starting.finish().context("cannot make the reactor")?;
    // After the threads: where only so many may be started, those are what serving needs.
    if let Err(error) = undertaker::start() {
        tracing::warn!("a takeover from this worker will wait until its memory is free: {error}");
    }
    sandbox::calls::confine(&filter)?;
    Ok((reactor, Configuration { path, reader, readable }))
}

fn refuse(lifeline: &Lifeline, error: &anyhow::Error) {
    let reason = wire::bounded(&format!("{error:#}"), MAX_TEXT_BYTES);
    let deadline = Instant::now() + LAST_WORDS;
    // When nobody listens any more, there is nobody to tell.
    let _unheard = lifeline.send(&FromChild::Refused { reason }, &[], deadline);
}
