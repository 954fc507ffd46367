//! Every message the supervisor sends a worker with every fault, and every message of a worker with a
//! supervisor that is gone when it is said: the worker ends, and what is in the maps stays.

use std::fs::{self, File};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::path::Path;

use holdfast_lab::handover::{Fault, Said, Told, send};
use holdfast_lab::process;
use holdfast_protocol::handover::{ConfigReport, History, Occasion, Offer, Seen, ToChild, Vitals};
use holdfast_protocol::wire;
use nix::sys::resource::{Resource, setrlimit};

use crate::configuration::{file, key, services};
use crate::estate::Estate;
use crate::supervisor::{Worker, hello};

/// More questions than a worker has answers waiting and its socket room for.
const FLOOD: u64 = 4096;

/// What has to come of a fault.
#[derive(Clone, Copy, Debug)]
enum Expected {
    /// The worker ends, and logs why.
    Ends(&'static str),
    /// It leaves, as it was told.
    Leaves,
    /// It goes on.
    GoesOn,
}

fn message(told: Told, estate: &Estate) -> ToChild {
    match told {
        Told::Hello => hello(Occasion::Recovery),
        Told::InForce => ToChild::InForce(ConfigReport::default()),
        Told::Seen => ToChild::Seen(Seen { digest: "ab".repeat(32), mark: "1".to_owned() }),
        Told::History => ToChild::History(history()),
        Told::Keep => ToChild::Keep,
        Told::Offer => ToChild::Offer(Offer { index: 0, of: 1, entries: estate.entries.clone() }),
        Told::Grant => ToChild::Grant { epoch: 1 },
        Told::Query => ToChild::Query { id: 7, body: vec![1] },
        Told::Release => ToChild::Release,
        Told::Leave => ToChild::Leave,
        Told::Accept => ToChild::Accept { index: 0 },
        Told::Vitals => ToChild::Vitals(Vitals { listens: true, ..Vitals::default() }),
        Told::Attached => ToChild::Attached,
        Told::NotAttached => ToChild::NotAttached { reason: "no room".to_owned() },
    }
}

/// What there is to tell when there is a snapshot, whose descriptor travels beside it.
fn history() -> History {
    History { snapshot: "ab".repeat(32), ..History::default() }
}

/// A worker to which this message is due.
fn reach(told: Told, config: &Path, estate: &Estate) -> Worker {
    match told {
        Told::Hello => Worker::spawn(config),
        Told::History | Told::Seen => {
            let worker = Worker::spawn(config);
            worker.tell(&hello(Occasion::Recovery), &[]);
            worker.hear();
            worker
        }
        Told::InForce | Told::Offer | Told::Accept => {
            let worker = Worker::spawn(config);
            worker.greet(Occasion::Recovery);
            worker
        }
        Told::Grant | Told::Vitals => Worker::ready(config, estate, Occasion::Start).0,
        Told::Query
        | Told::Release
        | Told::Leave
        | Told::Keep
        | Told::Attached
        | Told::NotAttached => Worker::granted(config, estate, 1),
    }
}

fn expected(told: Told, fault: Fault) -> Option<Expected> {
    use Expected::{Ends, GoesOn, Leaves};
    Some(match fault {
        // No worker is told this, whenever it comes.
        _ if told == Told::Accept && fault != Fault::Early => return None,
        Fault::DiesAfter | Fault::Twice | Fault::TooMany if told == Told::Leave => Leaves,
        Fault::Early => match told {
            Told::Leave => Leaves,
            told => Ends(told.name()),
        },
        Fault::Twice => match told {
            Told::InForce
            | Told::Query
            | Told::Seen
            | Told::History
            | Told::Keep
            | Told::Vitals
            | Told::Attached
            | Told::NotAttached => GoesOn,
            told => Ends(told.name()),
        },
        Fault::DiesBefore | Fault::DiesAfter | Fault::Stops => Ends("governance stays"),
        Fault::Foreign => Ends("not a Holdfast message"),
        Fault::Truncated => Ends("cannot be decoded"),
        Fault::Trailing => Ends("1 bytes follow the message"),
        Fault::Channel => Ends("channel 2 arrived on another one"),
        Fault::Version => Ends("protocol version 2"),
        Fault::TooLong => Ends("exceeds 65536 bytes"),
        Fault::TooFew if told == Told::Offer => Ends("objects but brought"),
        Fault::TooFew if matches!(told, Told::History | Told::Keep | Told::Vitals) => {
            Ends("ulimit -n")
        }
        Fault::TooFew => return None,
        Fault::TooMany if told == Told::Offer => Ends("objects but brought"),
        Fault::TooMany => GoesOn,
    })
}

/// Whether the worker may have begun to write by itself: it has read a whole grant.
const fn grants(told: Told, fault: Fault) -> bool {
    let is_whole = matches!(fault, Fault::DiesAfter | Fault::Twice | Fault::TooMany);
    matches!(told, Told::Grant) && is_whole
}

/// Makes one fault, and checks what comes of it.
fn try_told(told: Told, fault: Fault, expected: Expected) {
    println!("{fault:?} at {told:?}");
    let (_directory, path) = file(&services(1, &[1001]));
    let estate = Estate::new(16, 64);
    let due = if fault == Fault::Early { Told::Hello } else { told };
    let mut worker = reach(due, &path, &estate);
    let before = estate.content();
    let snapshot = tempfile::tempfile().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let beside: Vec<BorrowedFd<'_>> = match told {
        Told::Offer => estate.descriptors.iter().map(|descriptor| descriptor.as_fd()).collect(),
        Told::History | Told::Keep => vec![snapshot.as_fd()],
        Told::Vitals => vec![listener.as_fd()],
        _ => Vec::new(),
    };
    worker.commit(fault, &message(told, &estate), &beside);
    match (fault, expected) {
        (Fault::Early, Expected::Ends(_)) if told != Told::Hello => {}
        (Fault::Early, Expected::Ends(_)) => worker.tell(&message(told, &estate), &[]),
        (Fault::Stops, _) => {
            assert!(process::is_alive(worker.child.id()), "it waits for its supervisor");
            worker.hang_up();
        }
        _ => {}
    }
    match expected {
        Expected::Ends(reason) => {
            let (status, log) = worker.await_end();
            assert_eq!(status.code(), Some(1), "{log}");
            assert!(log.contains(reason), "`{reason}` is not in:\n{log}");
        }
        Expected::Leaves => assert!(worker.await_end().0.success()),
        Expected::GoesOn => goes_on(told, &worker, &estate),
    }
    if grants(told, fault) {
        let ports = estate.connect(&key(0));
        assert!(matches!(ports.as_deref(), None | Some([1001])), "{ports:?}");
    } else {
        assert!(estate.content() == before, "{fault:?} at {told:?} changed the maps");
    }
    drop(worker);
    let _next = Worker::granted(&path, &estate, 2);
    assert_eq!(estate.connect(&key(0)), Some(vec![1001]));
}

/// The answer that is due to `told` comes.
fn goes_on(told: Told, worker: &Worker, estate: &Estate) {
    match told {
        Told::Hello => assert_eq!(Said::from(&worker.hear()), Said::Welcome),
        Told::Seen => {
            worker.tell(&ToChild::History(History::default()), &[]);
            worker.offer(estate);
        }
        Told::InForce | Told::History => worker.offer(estate),
        Told::Keep => drop(worker.hear_until(|said| Said::from(said) == Said::Kept)),
        Told::Grant => drop(worker.hear_until(|said| Said::from(said) == Said::Granted)),
        Told::Query => drop(worker.hear_until(|said| Said::from(said) == Said::Answer)),
        // It says nothing to that, and goes on listening.
        Told::Vitals => {
            worker.tell(&ToChild::Query { id: 7, body: vec![1] }, &[]);
            worker.hear_until(|said| Said::from(said) == Said::Answer);
        }
        // Nobody has asked, so nothing is to be done.
        Told::Attached | Told::NotAttached => {
            worker.tell(&ToChild::Query { id: 7, body: vec![1] }, &[]);
            worker.hear_until(|said| Said::from(said) == Said::Answer);
        }
        Told::Release => drop(worker.hear_until(|said| Said::from(said) == Said::Released)),
        Told::Offer | Told::Leave | Told::Accept => {
            unreachable!("it does not go on after {told:?}")
        }
    }
}

#[test]
fn a_supervisor_that_breaks_the_handover_ends_its_worker_and_changes_nothing() {
    let cells: Vec<_> = Told::ALL
        .iter()
        .flat_map(|told| Fault::ALL.iter().map(|fault| (*told, *fault)))
        .filter_map(|(told, fault)| Some((told, fault, expected(told, fault)?)))
        .collect();
    println!("{} cells of a worker's supervisor", cells.len());
    for (told, fault, expected) in cells {
        try_told(told, fault, expected);
    }
}

/// A worker that has just said this; `None` when no worker says it by itself.
fn heard(said: Said, config: &Path, estate: &Estate) -> Option<Worker> {
    let granted = || Worker::granted(config, estate, 1);
    let told = |worker: Worker, message: ToChild| {
        worker.tell(&message, &[]);
        worker.hear_until(|heard| Said::from(heard) == said);
        worker
    };
    Some(match said {
        Said::Welcome => reach(Told::Offer, config, estate),
        Said::Accepted => {
            let worker = reach(Told::Offer, config, estate);
            worker.offer(estate);
            worker
        }
        Said::Ready => reach(Told::Grant, config, estate),
        Said::Granted => granted(),
        Said::Released => told(granted(), ToChild::Release),
        Said::Answer => told(granted(), ToChild::Query { id: 7, body: vec![1] }),
        Said::Heartbeat => {
            let worker = granted();
            worker.hear_until(|heard| Said::from(heard) == said);
            worker
        }
        Said::Config => {
            let worker = granted();
            crate::configuration::write(config, &services(1, &[2001]));
            worker.hear_until(|heard| Said::from(heard) == said);
            worker
        }
        Said::Refused => told(Worker::spawn(config), ToChild::Grant { epoch: 1 }),
        Said::Trying => {
            let worker = reach(Told::Offer, config, estate);
            worker.hear_until(|heard| Said::from(heard) == said);
            worker
        }
        Said::Kept => kept(granted(), &tempfile::tempfile().unwrap(), said),
        Said::NotKept => {
            kept(granted(), &File::options().write(true).open("/dev/full").unwrap(), said)
        }
        Said::SnapshotUnusable => {
            fs::remove_file(config).unwrap();
            let worker = reach(Told::History, config, estate);
            let noise = tempfile::tempfile().unwrap();
            worker.tell(&ToChild::History(history()), &[noise.as_raw_fd()]);
            worker.offer(estate);
            worker.hear_until(|heard| Said::from(heard) == said);
            worker
        }
        Said::Attach => {
            let text = fs::read_to_string(config).unwrap();
            let policy = "policies: [{ name: p, direction: inbound, action: deny, rules: [{}] }]\n";
            crate::configuration::write(config, &(text + policy));
            told(Worker::ready(config, estate, Occasion::Start).0, ToChild::Grant { epoch: 1 })
        }
        // It has a test with connections, in `tests/tests/e2e/drained.rs`; it changes nothing here.
        Said::Overdue => return None,
        // It is said two seconds after a save: see `recognised.rs`.
        Said::Seen => return None,
        Said::Offer | Said::Repaired | Said::Cleared | Said::Closed => return None,
    })
}

/// A worker that was told to keep what is in force in `file`, and has just said this.
fn kept(worker: Worker, file: &File, said: Said) -> Worker {
    worker.tell(&ToChild::Keep, &[file.as_raw_fd()]);
    worker.hear_until(|heard| Said::from(heard) == said);
    worker
}

#[test]
fn a_supervisor_that_is_gone_when_it_is_answered_leaves_everything_in_force() {
    for said in Said::ALL {
        let (_directory, path) = file(&services(1, &[1001]));
        let estate = Estate::new(16, 64);
        let Some(mut worker) = heard(*said, &path, &estate) else { continue };
        println!("gone at {said:?}");
        let before = estate.content();
        worker.hang_up();
        assert_eq!(worker.await_end().0.code(), Some(1));
        assert!(estate.content() == before, "{said:?}");
    }
}

#[test]
fn a_supervisor_that_does_not_read_is_not_waited_for_for_ever() {
    let (_directory, path) = file(&services(1, &[1001]));
    let estate = Estate::new(16, 64);
    let mut worker = Worker::granted(&path, &estate, 1);
    let before = estate.content();
    for id in 0..FLOOD {
        let packet = ToChild::Query { id, body: vec![1] };
        if worker.try_tell(&packet).is_err() {
            break;
        }
    }
    let (status, log) = worker.await_end();
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("has not read for too long"), "{log}");
    assert!(estate.content() == before);
}

#[test]
fn a_worker_short_of_descriptors_changes_nothing_whatever_the_shortage() {
    let (_directory, path) = file(&services(1, &[1001]));
    let estate = Estate::new(16, 64);
    let before = estate.content();
    let offer = wire::encode(&message(Told::Offer, &estate)).unwrap();
    let beside: Vec<_> = estate.descriptors.iter().map(|descriptor| descriptor.as_fd()).collect();
    let (mut lost, mut ready) = (0, 0);
    // Up to more than it needs by itself: tests beside this one have descriptors open that it may inherit.
    for limit in 4..48 {
        let mut worker = Worker::spawn_after(&path, &["--user", "nobody"], move || {
            Ok(setrlimit(Resource::RLIMIT_NOFILE, limit, limit)?)
        });
        // One that has ended already hears neither.
        let _heard = worker.try_tell(&hello(Occasion::Start));
        let history = wire::encode(&ToChild::History(History::default())).unwrap();
        let _heard = send(worker.socket().as_fd(), &history, &[]);
        let _heard = send(worker.socket().as_fd(), &offer, &beside);
        if worker.becomes_ready() {
            ready += 1;
            worker.hang_up();
        }
        let (status, log) = worker.await_end();
        assert!(!status.success(), "{log}");
        lost += u64::from(log.contains("RLIMIT_NOFILE"));
        assert!(estate.content() == before);
    }
    // Some cannot even start, some lose a part of the estate on the way, and some have room.
    assert!(lost > 0 && ready > 0, "{lost} lost descriptors, {ready} became ready");
}
