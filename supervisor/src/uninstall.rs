//! `holdfast uninstall`: everything of an instance goes, whether a supervisor runs or not.
//!
//! The intent is recorded first, on the disk, so that a removal that is interrupted is finished by
//! whoever starts next. It is the last thing to go.

use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::time::{Duration, Instant};

use holdfast_protocol::control::{Request, Response};
use holdfast_protocol::handover::MAX_CLEARED_ITEMS;
use nix::sys::socket::{Shutdown, getsockopt, shutdown, sockopt::PeerCredentials};
use uds::nonblocking::UnixSeqpacketConn;

use crate::channel::Channel;
use crate::command::{Uninstall, Whereabouts};
use crate::failure::Failure;
use crate::instance::{self, Places};
use crate::loader::{self, LoaderError, Plan};
use crate::lock::{Lock, LockError};
use crate::settings;
use crate::{capabilities, mounts, preflight, process, record};

/// How long a running supervisor may take to stop its workers and remove everything: its own
/// deadlines (5 s for workers to leave, 30 s for the loader) and a margin.
const REMOVAL: Duration = Duration::from_secs(60);

/// How long the first process of a PID namespace waits for those who asked, who end with it: they
/// have only to print some lines. One that is stopped must not keep the container.
const READING: Duration = Duration::from_secs(5);

/// Directories of this name are made by Holdfast, so it removes them once they are empty.
const OWN_PARENT: &str = "holdfast";

/// Removes everything of an instance, and prints what.
///
/// # Errors
///
/// When something is left.
pub fn uninstall(arguments: &Uninstall) -> Result<(), Failure> {
    let whereabouts = &arguments.whereabouts;
    preflight::check_privilege()?;
    // Before anything is read.
    capabilities::keep_only_needed()?;
    process::reserve_child_descriptor()
        .map_err(Failure::doing("cannot reserve a descriptor for children"))?;
    let resolved = "cannot resolve paths: the working directory is gone";
    let places = whereabouts.places().absolute().map_err(Failure::doing(resolved))?;
    let Removed { items: mut removed, _supervisor } =
        if exists(&places) { remove(whereabouts, &places)? } else { Removed::default() };
    // Also where there is no instance: an uninstall may have been killed just before these.
    removed.extend(remove_shared(&places));
    if removed.is_empty() {
        println!("nothing to remove: instance {} does not exist", whereabouts.instance);
    }
    for item in removed {
        println!("removed {item}");
    }
    Ok(())
}

/// After the actors have ended: removes everything and tells those who asked.
///
/// # Errors
///
/// When something is left.
pub fn finish(plan: &Plan, places: &Places, peers: &[Channel]) -> Result<(), Failure> {
    let outcome = remove_pins(plan).and_then(|mut items| {
        items.extend(remove_files(places)?);
        items.extend(remove_shared(places));
        Ok(items)
    });
    let responses = match &outcome {
        Ok(items) => pages(items),
        Err(error) => vec![Response::Failed { reason: error.to_string() }],
    };
    for peer in peers {
        for response in &responses {
            if let Err(error) = peer.send(response, &[]) {
                tracing::warn!(%error, "could not tell who asked what was removed");
                break;
            }
        }
    }
    let items = outcome?;
    tracing::info!(count = items.len(), "removed everything");
    if std::process::id() == 1 {
        // The kernel kills whatever was run beside the first process of a container, when that
        // one ends: zap_pid_ns_processes in kernel/pid_namespace.c.
        let deadline = Instant::now() + READING;
        for peer in peers {
            while peer.wait(deadline).is_ok() && peer.receive::<Request>().is_ok() {}
        }
    }
    Ok(())
}

/// What [`uninstall`] removed.
#[derive(Default)]
struct Removed {
    /// A line each.
    items: Vec<String>,
    /// A supervisor whose end would be this process's too, and which waits for this to be closed.
    /// The kernel does it when the outcome of this process is settled.
    _supervisor: Option<Channel>,
}

/// Removes what is in the kernel; a line each.
///
/// # Errors
///
/// When something is left there.
pub fn remove_pins(plan: &Plan) -> Result<Vec<String>, Failure> {
    let pins = holdfast_protocol::pin::instance_directory(&plan.bpffs, &plan.instance);
    if !pins.exists() {
        // Without pins nothing outlives the processes that held it.
        return Ok(Vec::new());
    }
    if !plan.worker.is_file() {
        return Err(preflight::missing_worker(&plan.worker).into());
    }
    let items =
        loader::clear(plan).map_err(|error: LoaderError| Failure::Remove(error.to_string()))?;
    if pins.exists() {
        return Err(Failure::Remove(format!("{} is still there", pins.display())));
    }
    Ok(items)
}

fn exists(places: &Places) -> bool {
    [&places.run, &places.state, &places.pins].into_iter().any(|place| place.exists())
}

fn remove(whereabouts: &Whereabouts, places: &Places) -> Result<Removed, Failure> {
    for directory in [&places.run, &places.state] {
        let what = format!("cannot use the directory {}", directory.display());
        instance::make_private(directory).map_err(Failure::doing(&what))?;
    }
    let _lock = match Lock::of_instance(places) {
        Ok(lock) => lock,
        Err(LockError::Held { holder, .. }) => return ask_supervisor(places, &holder),
        Err(error) => return Err(error.into()),
    };
    let pins = Lock::of_pins(places)?;
    record::write_intent(&places.uninstall_intent())?;
    // The cgroup may be gone, and governance with it; that must not keep the rest.
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let given = whereabouts.cgroup.clone().or_else(|| mounts::cgroup2(&mountinfo));
    let plan = settings::plan(whereabouts, &given.unwrap_or_else(|| "/sys/fs/cgroup".into()))
        .map_err(Failure::doing("cannot resolve paths"))?;
    let mut removed = remove_pins(&plan)?;
    drop(pins);
    removed.extend(remove_files(places)?);
    Ok(Removed { items: removed, _supervisor: None })
}

/// Asks the supervisor that runs, and waits until it is gone.
fn ask_supervisor(places: &Places, holder: &str) -> Result<Removed, Failure> {
    let failed = |why: String| Failure::Remove(format!("the supervisor (process {holder}) {why}"));
    let deadline = Instant::now() + REMOVAL;
    let socket = UnixSeqpacketConn::connect(places.socket()).map_err(|error| {
        failed(format!("does not listen: {error}; try again, or stop it first"))
    })?;
    let channel = Channel::new(socket);
    let conversation = |error: crate::channel::ChannelError| failed(format!("broke off: {error}"));
    channel.send(&Request::Uninstall, &[]).map_err(conversation)?;
    let mut removed = Vec::new();
    loop {
        channel.wait(deadline).map_err(conversation)?;
        match channel.receive().map_err(conversation)? {
            None => {}
            Some(Response::Uninstalled { items, last }) => {
                removed.extend(items);
                if last {
                    break;
                }
            }
            Some(Response::Failed { reason } | Response::Denied { reason }) => {
                return Err(failed(format!("says: {reason}")));
            }
            Some(other) => return Err(failed(format!("says something else: {other:?}"))),
        }
    }
    if getsockopt(&channel, PeerCredentials).is_ok_and(|peer| peer.pid() == 1) {
        return Ok(Removed { items: removed, _supervisor: Some(channel) });
    }
    // Nothing more will be asked; one that is the first of its own namespace waits for that.
    let _gone = shutdown(channel.as_raw_fd(), Shutdown::Write);
    // Its end closes the socket: nothing is left then, not even the process.
    while channel.wait(deadline).is_ok() && channel.receive::<Response>().is_ok() {}
    Ok(Removed { items: removed, _supervisor: None })
}

/// `items`, in answers of a bounded size.
fn pages(items: &[String]) -> Vec<Response> {
    let mut pages: Vec<_> = items
        .chunks(MAX_CLEARED_ITEMS)
        .map(|page| Response::Uninstalled { items: page.to_vec(), last: false })
        .collect();
    match pages.last_mut() {
        Some(Response::Uninstalled { last, .. }) => *last = true,
        _ => pages.push(Response::Uninstalled { items: Vec::new(), last: true }),
    }
    pages
}

/// Removes the instance's directories, the intent last; a line each.
fn remove_files(places: &Places) -> Result<Vec<String>, Failure> {
    let mut removed = Vec::new();
    for directory in [&places.run, &places.state] {
        let what = format!("cannot remove {}", directory.display());
        match remove_directory(directory, &places.uninstall_intent()) {
            Ok(()) => removed.push(format!("directory {}", directory.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Failure::doing(&what)(error)),
        }
    }
    Ok(removed)
}

/// Removes the directories that instances share, if this was the last one; a line each.
fn remove_shared(places: &Places) -> Vec<String> {
    let parents = [&places.pins, &places.run, &places.state].map(|place| place.parent());
    let own = parents.into_iter().flatten().filter(|parent| parent.ends_with(OWN_PARENT));
    // Fails while another instance has something there.
    own.filter(|parent| std::fs::remove_dir(parent).is_ok())
        .map(|parent| format!("directory {}", parent.display()))
        .collect()
}

fn remove_directory(directory: &Path, last: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.path() != last {
            let is_directory = entry.file_type()?.is_dir();
            let path = entry.path();
            if is_directory { std::fs::remove_dir_all(path)? } else { std::fs::remove_file(path)? }
        }
    }
    std::fs::remove_dir_all(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_removed_is_told_in_pages_and_the_last_says_so() {
        for (count, expected) in
            [(0, 1), (1, 1), (MAX_CLEARED_ITEMS, 1), (MAX_CLEARED_ITEMS + 1, 2)]
        {
            let pages = pages(&vec!["x".to_owned(); count]);
            assert_eq!(pages.len(), expected);
            let lasts: Vec<_> = pages
                .iter()
                .map(|page| matches!(page, Response::Uninstalled { last: true, .. }))
                .collect();
            assert_eq!(lasts.iter().filter(|last| **last).count(), 1);
            assert_eq!(lasts.last(), Some(&true));
        }
    }

    #[test]
    fn directories_go_and_foreign_parents_stay() {
        let base = tempfile::tempdir().expect("a directory");
        let name = "a".parse().expect("a name");
        let (run, state) = (base.path().join("run/holdfast"), base.path().join("state"));
        let places = Places::new(&name, &run, &state, base.path());
        for directory in [&places.run, &places.state] {
            instance::make_private(directory).expect("made");
        }
        std::fs::create_dir(run.join("other")).expect("another instance");
        record::write_intent(&places.uninstall_intent()).expect("written");
        std::fs::write(places.lock(), "1").expect("written");
        let removed = remove_files(&places).expect("removed");
        assert_eq!(removed.len(), 2);
        assert!(!exists(&places) && run.exists() && state.exists());
        assert_eq!(remove_files(&places).expect("nothing left"), [""; 0]);

        std::fs::create_dir(base.path().join("holdfast")).expect("of the pins");
        assert_eq!(remove_shared(&places).len(), 1, "another instance runs");
        std::fs::remove_dir(run.join("other")).expect("it is empty");
        assert_eq!(remove_shared(&places), [format!("directory {}", run.display())]);
        assert!(!run.exists() && state.exists(), "no name of ours");
    }
}
