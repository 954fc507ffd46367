//! The loader: a privileged child that lives for milliseconds.
//!
//! It builds the estate, or adopts what a former life left, repairs it, hands its descriptors to the
//! supervisor and exits; or it removes all of it. It reads no configuration beyond its arguments,
//! and nothing from the network.
//!
//! In reading order:
//!
//! - [`conversation`]: what is said between the loader and the supervisor.
//! - [`adopt`]: what to keep and what to make, decided without a system call.
//! - [`place`], [`pins`], [`object`], [`create`]: the cgroup and the bpffs; the pins; the kernel
//!   object and how its parts are made.
//! - [`survey`], [`settle`], [`build`], [`verify`]: what there is, what there will be, making it so,
//!   reading it back. [`journal`] undoes what was not completed.
//! - [`mod@clear`]: the removal.
//!
//! **Architecture Invariant:** what governs is changed only in [`build`] and [`mod@clear`], and in
//! `build` only by steps that leave each hook with exactly one program of ours.
//!
//! **Architecture Invariant:** a link is known by what the kernel says about it, never by the path
//! of its pin.

pub mod adopt;
mod attribute;
pub mod build;
pub mod clear;
pub mod conversation;
pub mod create;
pub mod journal;
pub mod object;
pub mod pins;
pub mod place;
pub mod settle;
pub mod survey;
pub mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use holdfast_protocol::kernel::limit;

use self::build::{BuildError, Member};
use self::conversation::{Conversation, ConversationError};
use self::object::Sizes;
use self::pins::{PinError, Pins};
use self::place::{Cgroup, PlaceError, check_bpffs};
use crate::lifeline::Lifeline;

/// Which estate, and where it is attached and pinned.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Name of the instance.
    #[arg(long)]
    pub instance: String,
    /// The cgroup whose processes are governed.
    #[arg(long, value_name = "DIR")]
    pub cgroup: PathBuf,
    /// The bpffs that holds the pins.
    #[arg(long, value_name = "DIR")]
    pub bpffs: PathBuf,
    /// Room for this many services (one per service, port and address family).
    #[arg(long, value_name = "N", default_value_t = limit::DEFAULT_SERVICES)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub max_services: u32,
    /// Room for this many endpoint slots (one per endpoint and one per table).
    #[arg(long, value_name = "N", default_value_t = limit::DEFAULT_SLOTS)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub max_slots: u32,
    /// Room for this many flows of unconnected UDP sockets.
    #[arg(long, value_name = "N", default_value_t = limit::DEFAULT_FLOWS)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub max_flows: u32,
    /// Attach what judges arriving connections, though no policies in force are about any yet.
    #[arg(long)]
    pub arrivals: bool,
}

/// Why there is nothing to hand over.
#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Pin(#[from] PinError),
    #[error(transparent)]
    Build(#[from] BuildError),
}

/// Builds or adopts the estate and hands it over: `holdfast-worker load`.
#[must_use]
pub fn load(arguments: &Arguments) -> ExitCode {
    converse(arguments, |conversation| {
        let mut repairs = Vec::new();
        let built = estate(arguments, &mut repairs);
        for repair in &repairs {
            conversation.repaired(repair)?;
        }
        match built {
            Ok(members) => conversation.hand_over(&members).map(|()| ExitCode::SUCCESS),
            Err(error) => {
                let reason = format!("cannot load the estate of `{}`: {error}", arguments.instance);
                conversation.refuse(&reason).map(|()| ExitCode::FAILURE)
            }
        }
    })
}

/// Removes the estate and lists what was removed: `holdfast-worker clear`.
#[must_use]
pub fn clear(arguments: &Arguments) -> ExitCode {
    converse(arguments, |conversation| {
        match clear::clear(&arguments.bpffs, &arguments.instance, &arguments.cgroup) {
            Ok(items) => conversation.cleared(&items).map(|()| ExitCode::SUCCESS),
            Err(error) => {
                let reason =
                    format!("cannot remove the estate of `{}`: {error}", arguments.instance);
                conversation.refuse(&reason).map(|()| ExitCode::FAILURE)
            }
        }
    })
}

fn converse(
    arguments: &Arguments,
    work: impl FnOnce(&Conversation) -> Result<ExitCode, ConversationError>,
) -> ExitCode {
    // SAFETY: the command line runs one command, once, and has opened nothing before it.
    let lifeline = unsafe { Lifeline::inherited() };
    let outcome = lifeline
        .map_err(ConversationError::from)
        .and_then(|lifeline| Conversation::begin(lifeline, &arguments.instance))
        .and_then(|conversation| work(&conversation));
    outcome.unwrap_or_else(|error| {
        // There is nobody left to tell but whoever reads the standard error.
        eprintln!("holdfast-worker: {error}");
        ExitCode::FAILURE
    })
}

fn estate(arguments: &Arguments, repairs: &mut Vec<String>) -> Result<Vec<Member>, LoadError> {
    let cgroup = Cgroup::open(&arguments.cgroup)?;
    check_bpffs(&arguments.bpffs)?;
    let sizes = Sizes {
        services: arguments.max_services,
        slots: arguments.max_slots,
        flows: arguments.max_flows,
    };
    let pins = Pins::open(&arguments.bpffs, &arguments.instance, repairs)?;
    let built = build::build(&cgroup, &pins, sizes, arguments.arrivals, repairs);
    if built.is_err() {
        // Those made for an estate that did not come to be.
        pins.remove_empty_directories();
    }
    Ok(built?)
}
