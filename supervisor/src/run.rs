//! `holdfast run`, in order: give up what is not needed, check the machine, take the lock, finish a
//! removal that was interrupted, let the loader build or adopt the estate, then let the actors live until they are
//! told to leave. A binary that succeeds another in its process has all of that already.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use actix::{Actor, System};
use nix::sys::signalfd::SignalFd;
use uds::nonblocking::UnixSeqpacketListener;

use crate::access::{self, ControlGroup};
use crate::actors::control::{self, Control};
use crate::actors::gate::Gate;
use crate::actors::keeper::{Farewell, Given, Keeper, Past, Predecessor};
use crate::actors::signals::{self, Signals};
use crate::channel::Channel;
use crate::command::Run;
use crate::estate::Estate;
use crate::failure::Failure;
use crate::instance;
use crate::loader;
use crate::lock::{Lock, Locks};
use crate::settings::Settings;
use crate::succession::{self, Carried, Image, Inheritance, LeftWorker};
use crate::{capabilities, memory, oom, preflight, process, reactor, record, scrapes, uninstall};

/// What the actors live on.
struct Provisions {
    settings: Settings,
    estate: Estate,
    epoch: u64,
    locks: Locks,
    listener: UnixSeqpacketListener,
    scrapes: Option<OwnedFd>,
    signals: SignalFd,
    predecessor: Option<Left>,
}

/// What a predecessor in this process left beside that.
struct Left {
    carried: Carried,
    worker: Option<LeftWorker<Channel>>,
    sessions: Vec<Channel>,
    binary: Option<OwnedFd>,
}

/// Governs until told to leave.
///
/// # Errors
///
/// When it cannot start, or cannot remove what it was told to. What is in the kernel stays there.
pub fn run(arguments: &Run) -> Result<(), Failure> {
    // Before anything is read.
    limit_rights(arguments)?;
    // Before anything could take its number.
    process::reserve_child_descriptor()
        .map_err(Failure::doing("cannot reserve a descriptor for children"))?;
    // As early as possible: later its file may be another one.
    let image = Image::of_this_process()
        .map_err(Failure::doing("cannot find this process's own binary"))?;
    let provisions = match arguments.resume_from {
        Some(state) if arguments.rehearse => return rehearse(arguments, state),
        Some(state) => resume(arguments, succession::inherit(state)?)?,
        None => begin(arguments)?,
    };
    let settings = provisions.settings.clone();
    match live(image, provisions)? {
        Farewell::Keeping => {
            // Nobody listens there any more; a failure leaves a file that says so when connected.
            let _gone = std::fs::remove_file(settings.places.socket());
            tracing::info!("left; governance stays");
            Ok(())
        }
        Farewell::Uninstalling(peers) => {
            uninstall::finish(&settings.plan, &settings.places, &peers)
        }
    }
}

/// Keeps the capabilities that are needed, all of them and no others.
fn limit_rights(arguments: &Run) -> Result<(), Failure> {
    if arguments.resume_from.is_some() && !arguments.rehearse {
        // Its predecessor had nothing else to leave it, and there is nobody to go back to.
        if let Err(error) = capabilities::keep_only_needed() {
            tracing::warn!(%error, "going on with more capabilities than needed");
        }
        return Ok(());
    }
    preflight::check_privilege()?;
    oom::stay();
    Ok(capabilities::keep_only_needed()?)
}

/// Says on standard output that this binary could go on from `state`, if it could.
fn rehearse(arguments: &Run, state: RawFd) -> Result<(), Failure> {
    preflight::check_run(arguments)?;
    let predecessor = nix::unistd::getppid().as_raw().cast_unsigned();
    println!("{}", succession::rehearse(state, predecessor)?);
    Ok(())
}

/// From nothing, or from the pins.
fn begin(arguments: &Run) -> Result<Provisions, Failure> {
    let cgroup = preflight::check_run(arguments)?;
    let settings = settings(arguments, &cgroup, preflight::control_group(arguments)?)?;
    let places = &settings.places;
    for directory in [&places.run, &places.state] {
        let what = format!("cannot use the directory {}", directory.display());
        instance::make_private(directory).map_err(Failure::doing(&what))?;
    }
    // A lock may have to be waited for, and who asks for a reload meanwhile must not end this process.
    let signals = capture()?;
    let instance = Lock::of_instance(places)?;
    let group = settings.control_group.as_ref();
    for (directory, group) in [(&places.run, group), (&places.state, None)] {
        let what = format!("cannot set the mode of the directory {}", directory.display());
        instance::settle(directory, group).map_err(Failure::doing(&what))?;
    }
    if let Some(closed) = group.and_then(|group| access::obstacle(&places.run, group.id)) {
        let (closed, mend) = (closed.display(), "chmod o+x, or RuntimeDirectoryMode=0711");
        tracing::warn!(%closed, mend, "members of the control group do not get to the socket");
    }
    // Another run directory is another lock, but the pins are the same.
    let mut pinned = Lock::of_pins(places)?;
    if places.uninstall_intent().exists() {
        tracing::warn!("an uninstall was interrupted: finishing it before starting afresh");
        uninstall::remove_pins(&settings.plan)?;
        record::clear_intent(&places.uninstall_intent())?;
        pinned = None;
    }
    // Refused before anything is loaded, and after the last worker that had it is gone.
    let scrapes = arguments.metrics.map(scrapes::listen).transpose()?;
    let epoch = record::read_epoch(&places.epoch()).unwrap_or_else(|error| {
        // A power failure can leave the file empty. Governing matters more than counting.
        tracing::warn!(%error, "counting epochs from 1 again");
        0
    });
    let estate = load(&settings)?;
    let pins = match pinned {
        Some(lock) => Some(lock),
        None => Lock::directory(&places.pins_in_use())?,
    };
    let locks = Locks { instance, pins };
    let socket = places.socket();
    let what = format!("cannot listen at {}", socket.display());
    let listener = control::listen(&socket, group).map_err(Failure::doing(&what))?;
    let predecessor = None;
    Ok(Provisions { settings, estate, epoch, locks, listener, scrapes, signals, predecessor })
}

/// From a predecessor in this process. Nothing is checked that it governs without, so that there is
/// nothing to fail at: the rehearsal did.
fn resume(arguments: &Run, left: Inheritance) -> Result<Provisions, Failure> {
    let Inheritance { carried, estate, locks, listener, sessions, scrapes, worker, binary } = left;
    let group = preflight::control_group(arguments).unwrap_or_else(|error| {
        tracing::warn!(%error, "only root is answered");
        None
    });
    let settings = settings(arguments, Path::new(OsStr::from_bytes(&carried.cgroup)), group)?;
    let (signals, epoch) = (capture()?, carried.epoch);
    let predecessor = Some(Left { carried, worker, sessions, binary });
    Ok(Provisions { settings, estate, epoch, locks, listener, scrapes, signals, predecessor })
}

fn settings(
    arguments: &Run,
    cgroup: &Path,
    group: Option<ControlGroup>,
) -> Result<Settings, Failure> {
    Settings::new(arguments, cgroup, group)
        .map_err(Failure::doing("cannot resolve paths: the working directory is gone"))
}

fn capture() -> Result<SignalFd, Failure> {
    signals::capture().map_err(Failure::doing("cannot read signals from a descriptor"))
}

fn load(settings: &Settings) -> Result<Estate, Failure> {
    let estate = loader::load(&settings.plan)
        .map_err(|source| Failure::Load { source, pinned: settings.places.has_pins() })?;
    tracing::info!(
        instance = settings.plan.instance,
        cgroup = %settings.plan.cgroup.display(),
        objects = estate.len(),
        "holding the estate"
    );
    Ok(estate)
}

/// Lets the actors live until they are told to leave.
fn live(image: Image, provisions: Provisions) -> Result<Farewell, Failure> {
    let Provisions { settings, estate, epoch, locks, listener, scrapes, signals, predecessor } =
        provisions;
    let departure = Rc::new(RefCell::new(None));
    // Kept until everything is removed, not only until the actors have ended.
    let locks = Rc::new(RefCell::new(locks));
    let gate = Rc::new(Gate::default());
    let control_group = settings.control_group.clone();
    let given = Given {
        settings,
        image,
        gate: Rc::clone(&gate),
        locks: Rc::clone(&locks),
        listener: listener.as_raw_fd(),
        scrapes,
        departure: Rc::clone(&departure),
    };
    // Most of what has run until now never runs again: the command line, checks, and hearing a loader.
    memory::give_back();
    let system = System::new();
    system
        .block_on(async {
            let (predecessor, sessions) = match predecessor {
                Some(Left { carried, worker, sessions, binary }) => {
                    let hear = |LeftWorker { child, channel, watch }| {
                        reactor::watch(channel).map(|channel| LeftWorker { child, channel, watch })
                    };
                    let worker = worker.map(hear).transpose()?;
                    (Some(Predecessor { carried, worker, binary }), sessions)
                }
                None => (None, Vec::new()),
            };
            let keeper = Keeper::new(given, Past { estate, epoch, predecessor }).start();
            Signals::new(signals, Rc::clone(&gate), keeper.clone()).start();
            Control::new(listener, sessions, control_group, gate, keeper).start();
            Ok::<(), io::Error>(())
        })
        .map_err(Failure::doing("cannot watch a worker's socket"))?;
    system.run().map_err(Failure::doing("the actors ended badly"))?;
    Ok(departure.borrow_mut().take().unwrap_or(Farewell::Keeping))
}
