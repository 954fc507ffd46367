//! Every message of the handover, every fault, and what has to come of it.

use holdfast_lab::handover::{Fault, Said, Told};

/// What the stand-in ends with.
const ENDED: &str = "exit status 7";
/// What is said of a closer that did its work.
const CLOSED: &str = "were closed";

/// A message at which a fault is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Due {
    /// The child says it.
    Said(Said),
    /// The child reads it.
    Told(Told),
}

/// When a worker says or reads a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// On its way to its first grant.
    Candidate,
    /// In answer to its grant.
    Granting,
    /// While it writes.
    Writer,
    /// While another worker is to follow it.
    Former,
    /// After the death of the former worker.
    Recovery,
    /// Never: this is what the other kind of child says.
    Never,
}

/// What has to come of a fault. The text is what somebody is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// The new worker is not granted, and the old one serves on.
    Kept(String),
    /// The new worker is granted all the same.
    Granted,
    /// The new worker is granted, and then replaced.
    Replaced(String),
    /// Whether the new worker was granted before it failed is not known; somebody serves.
    Served(String),
    /// The supervisor does not start, or does not remove everything.
    Failed(String),
}

/// One fault at one message.
#[derive(Clone, Debug)]
pub struct Cell {
    pub due: Due,
    pub fault: Fault,
    pub expected: Expected,
}

impl Cell {
    /// When the fault is made.
    pub fn turn(&self) -> Turn {
        if self.fault == Fault::Early { Turn::Candidate } else { self.due.turn() }
    }
}

impl Due {
    /// Every message.
    pub fn all() -> impl Iterator<Item = Self> {
        let told = Told::ALL.iter().map(|told| Self::Told(*told));
        Said::ALL.iter().map(|said| Self::Said(*said)).chain(told)
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Said(said) => said.name(),
            Self::Told(told) => told.name(),
        }
    }

    /// When it is a worker's turn to say or to read it.
    pub const fn turn(self) -> Turn {
        match self {
            Self::Said(
                Said::Welcome | Said::Accepted | Said::Trying | Said::Ready | Said::Refused,
            ) => Turn::Candidate,
            // The vitals are told right before the grant.
            Self::Said(Said::Granted) | Self::Told(Told::Grant | Told::Vitals) => Turn::Granting,
            Self::Said(
                Said::Heartbeat
                | Said::Config
                | Said::Answer
                | Said::Kept
                | Said::NotKept
                | Said::SnapshotUnusable
                | Said::Overdue
                | Said::Attach
                | Said::Seen,
            )
            | Self::Told(Told::Query | Told::Keep | Told::NotAttached) => Turn::Writer,
            Self::Said(Said::Released) | Self::Told(Told::Release | Told::Leave) => Turn::Former,
            Self::Said(Said::Offer | Said::Repaired | Said::Cleared | Said::Closed)
            | Self::Told(Told::Accept) => Turn::Never,
            // The stand-in's estate has nothing that judges arriving connections, so it hears of none attached.
            Self::Told(Told::Attached) => Turn::Never,
            Self::Told(Told::Hello | Told::History | Told::Offer) => Turn::Candidate,
            Self::Told(Told::InForce | Told::Seen) => Turn::Recovery,
        }
    }

    /// What the supervisor says of somebody who stops when this is due.
    const fn duty(self) -> &'static str {
        match self {
            Self::Said(Said::Welcome) | Self::Told(Told::Hello) => "answer the greeting",
            Self::Said(Said::Accepted | Said::Refused) | Self::Told(Told::Offer) => {
                "accept the estate"
            }
            Self::Said(Said::Trying | Said::Ready) => "get ready",
            Self::Said(Said::Granted) | Self::Told(Told::Grant | Told::Vitals) => {
                "confirm its grant"
            }
            Self::Said(
                Said::Heartbeat
                | Said::Config
                | Said::Answer
                | Said::Kept
                | Said::NotKept
                | Said::SnapshotUnusable
                | Said::Overdue
                | Said::Attach
                | Said::Seen,
            )
            | Self::Told(Told::Query | Told::Keep | Told::NotAttached) => "make progress",
            Self::Said(Said::Released) | Self::Told(Told::Release) => "let go",
            Self::Told(Told::Leave) => "leave",
            // They follow the greeting at once, which is answered first.
            Self::Told(Told::History | Told::InForce | Told::Seen) => "accept the estate",
            Self::Said(Said::Offer | Said::Repaired | Said::Cleared | Said::Closed)
            | Self::Told(Told::Accept | Told::Attached) => "",
        }
    }
}

/// What the supervisor says of rubbish.
const fn rubbish(fault: Fault) -> Option<&'static str> {
    match fault {
        Fault::Foreign => Some("not a Holdfast message"),
        Fault::Truncated => Some("cannot be decoded"),
        Fault::Trailing => Some("1 bytes follow the message"),
        Fault::Channel => Some("channel 1 arrived on another one"),
        Fault::Version => Some("protocol version 2"),
        Fault::TooLong => Some("exceeds the limit"),
        Fault::DiesBefore
        | Fault::DiesAfter
        | Fault::Twice
        | Fault::Early
        | Fault::Stops
        | Fault::TooFew
        | Fault::TooMany => None,
    }
}

/// Every cell of a worker.
pub fn of_worker() -> Vec<Cell> {
    let cells = Due::all().flat_map(|due| {
        Fault::ALL.iter().filter_map(move |fault| {
            let expected = match due {
                Due::Said(said) => worker_says(said, *fault),
                Due::Told(told) => worker_reads(told, *fault),
            };
            expected.map(|expected| Cell { due, fault: *fault, expected })
        })
    });
    cells.collect()
}

fn worker_says(said: Said, fault: Fault) -> Option<Expected> {
    use Expected::{Granted, Kept, Replaced, Served};
    let due = Due::Said(said);
    let turn = due.turn();
    let kept = |text: &str| Some(Kept(text.to_owned()));
    let replaced = |text: &str| Some(Replaced(text.to_owned()));
    match fault {
        Fault::Early => early(said),
        _ if turn == Turn::Never => None,
        // No message of a worker comes with a descriptor, and one that does is not looked at.
        Fault::TooFew => None,
        Fault::DiesAfter | Fault::Twice | Fault::TooMany if said == Said::Refused => kept("line 3"),
        Fault::TooMany => Some(Granted),
        Fault::Stops | Fault::DiesBefore | Fault::DiesAfter | Fault::Twice => {
            let text = match fault {
                Fault::Stops => format!("it did not {} within", due.duty()),
                Fault::Twice => format!("it said {}", said.name()),
                _ => ENDED.to_owned(),
            };
            match (turn, fault, said) {
                (_, Fault::Twice, said) if is_news(said) => Some(Granted),
                (Turn::Former, ..) => Some(Granted),
                // Dead before what it said was read, or after.
                (Turn::Granting, Fault::DiesAfter, _)
                | (
                    _,
                    Fault::DiesBefore | Fault::DiesAfter,
                    Said::Config
                    | Said::Kept
                    | Said::NotKept
                    | Said::SnapshotUnusable
                    | Said::Overdue
                    | Said::Attach
                    | Said::Seen,
                ) => Some(Served(text)),
                (Turn::Writer, ..) | (Turn::Granting, Fault::Twice, _) => replaced(&text),
                _ => kept(&text),
            }
        }
        fault => {
            let text = rubbish(fault)?;
            match turn {
                Turn::Former => Some(Granted),
                Turn::Writer => replaced(text),
                _ => kept(text),
            }
        }
    }
}

/// Whether the takeover does not depend on it, so that it may be said at any time.
const fn is_news(said: Said) -> bool {
    match said {
        Said::Heartbeat
        | Said::Config
        | Said::Answer
        | Said::Trying
        | Said::Kept
        | Said::NotKept
        | Said::SnapshotUnusable
        | Said::Overdue
        | Said::Attach
        | Said::Seen => true,
        Said::Welcome
        | Said::Accepted
        | Said::Refused
        | Said::Ready
        | Said::Released
        | Said::Granted
        | Said::Offer
        | Said::Repaired
        | Said::Cleared
        | Said::Closed => false,
    }
}

/// What comes of a worker that says this before it has answered the greeting.
fn early(said: Said) -> Option<Expected> {
    Some(match said {
        // The second one is too much.
        Said::Welcome => Expected::Kept("it said Welcome".to_owned()),
        Said::Accepted | Said::Ready | Said::Released | Said::Granted => {
            Expected::Kept(format!("it said {}", said.name()))
        }
        Said::Refused => Expected::Kept("line 3".to_owned()),
        Said::Heartbeat
        | Said::Config
        | Said::Answer
        | Said::Trying
        | Said::Kept
        | Said::NotKept
        | Said::SnapshotUnusable
        | Said::Overdue
        | Said::Attach
        | Said::Seen => Expected::Granted,
        Said::Offer | Said::Repaired | Said::Cleared | Said::Closed => {
            Expected::Kept("which no worker does".to_owned())
        }
    })
}

fn worker_reads(told: Told, fault: Fault) -> Option<Expected> {
    let due = Due::Told(told);
    let text = match fault {
        Fault::DiesBefore => ENDED.to_owned(),
        Fault::Stops => format!("it did not {} within", due.duty()),
        Fault::TooFew if told == Told::Offer => "0 of 1 descriptors arrived".to_owned(),
        _ => return None,
    };
    match due.turn() {
        Turn::Candidate | Turn::Granting => Some(Expected::Kept(text)),
        Turn::Writer => Some(Expected::Replaced(text)),
        Turn::Former => Some(Expected::Granted),
        Turn::Recovery => Some(Expected::Served(text)),
        Turn::Never => None,
    }
}

/// Every cell of a loader that hands the estate over.
pub fn of_loader() -> Vec<Cell> {
    of_child(&[Said::Welcome, Said::Repaired, Said::Offer, Said::Refused], loader_early)
}

/// Every cell of a loader that removes the estate.
pub fn of_remover() -> Vec<Cell> {
    of_child(&[Said::Welcome, Said::Cleared, Said::Refused], remover_early)
}

/// Every cell of a closer. What it does is in the log, and nothing else comes of it.
pub fn of_closer() -> Vec<Cell> {
    let says = [Said::Welcome, Said::Closed, Said::Refused];
    let mut cells = Vec::new();
    for (due, fault) in Due::all().flat_map(|due| Fault::ALL.iter().map(move |f| (due, *f))) {
        let text = match due {
            Due::Said(said) if fault == Fault::Early => Some(closer_early(said)),
            Due::Said(said) if says.contains(&said) => closer_says(said, fault),
            Due::Told(Told::Hello | Told::Offer) => match fault {
                Fault::DiesBefore => Some(ENDED),
                Fault::Stops => Some("said nothing in time"),
                _ => None,
            },
            Due::Said(_) | Due::Told(_) => None,
        };
        let expected = text.map(|text| Expected::Served(text.to_owned()));
        cells.extend(expected.map(|expected| Cell { due, fault, expected }));
    }
    cells
}

/// What is said of a closer that makes a fault at what it says.
fn closer_says(said: Said, fault: Fault) -> Option<&'static str> {
    match fault {
        Fault::TooFew => None,
        Fault::DiesAfter | Fault::Twice | Fault::TooMany if said == Said::Refused => Some("line 3"),
        // Its last word was heard.
        Fault::DiesAfter if said == Said::Closed => Some(CLOSED),
        Fault::DiesBefore | Fault::DiesAfter => Some(ENDED),
        Fault::Twice | Fault::TooMany => Some(CLOSED),
        Fault::Stops => Some("said nothing in time"),
        fault => rubbish(fault),
    }
}

/// What is said of a closer whose first word this is.
const fn closer_early(said: Said) -> &'static str {
    match said {
        Said::Welcome | Said::Closed => CLOSED,
        Said::Refused => "line 3",
        Said::Accepted
        | Said::Ready
        | Said::Released
        | Said::Granted
        | Said::Heartbeat
        | Said::Config
        | Said::Answer
        | Said::Trying
        | Said::Kept
        | Said::NotKept
        | Said::SnapshotUnusable
        | Said::Overdue
        | Said::Attach
        | Said::Seen
        | Said::Offer
        | Said::Repaired
        | Said::Cleared => "instead of what it closed",
    }
}

fn of_child(says: &[Said], early: fn(Said) -> Option<&'static str>) -> Vec<Cell> {
    let mut cells = Vec::new();
    for (due, fault) in Due::all().flat_map(|due| Fault::ALL.iter().map(move |f| (due, *f))) {
        let expected = match due {
            Due::Said(said) if fault == Fault::Early => Some(match early(said) {
                Some(text) => Expected::Failed(text.to_owned()),
                None => Expected::Granted,
            }),
            Due::Said(said) if says.contains(&said) => child_says(said, fault),
            Due::Said(_) => None,
            Due::Told(told) => child_reads(told, fault, says.contains(&Said::Offer)),
        };
        cells.extend(expected.map(|expected| Cell { due, fault, expected }));
    }
    cells
}

fn child_says(said: Said, fault: Fault) -> Option<Expected> {
    use Expected::{Failed, Granted, Served};
    let is_last = matches!(said, Said::Offer | Said::Cleared);
    let failed = |text: &str| Some(Failed(text.to_owned()));
    match fault {
        Fault::DiesAfter | Fault::Twice | Fault::TooMany if said == Said::Refused => {
            failed("line 3")
        }
        // What it handed over is there, whether or not it heard that.
        Fault::DiesAfter if said == Said::Offer => Some(Served(ENDED.to_owned())),
        Fault::DiesAfter if is_last => Some(Granted),
        Fault::DiesBefore | Fault::DiesAfter => failed(ENDED),
        Fault::Twice => Some(Granted),
        Fault::Stops => failed("said nothing in time"),
        Fault::TooFew if said == Said::Offer => failed("1 of 2 descriptors arrived"),
        Fault::TooFew => None,
        Fault::TooMany if said == Said::Offer => failed("3 descriptors arrived"),
        Fault::TooMany => Some(Granted),
        fault => failed(rubbish(fault)?),
    }
}

fn child_reads(told: Told, fault: Fault, is_loader: bool) -> Option<Expected> {
    match (told, fault) {
        (Told::Hello, Fault::DiesBefore) => Some(Expected::Failed(ENDED.to_owned())),
        (Told::Hello, Fault::Stops) => Some(Expected::Failed("said nothing in time".to_owned())),
        // The estate is handed over; that its child does not end well is of no importance.
        (Told::Accept, Fault::DiesBefore | Fault::Stops) if is_loader => Some(Expected::Granted),
        (Told::Hello | Told::Accept, _) => None,
        (
            Told::Offer
            | Told::Release
            | Told::Grant
            | Told::Leave
            | Told::Query
            | Told::InForce
            | Told::Seen
            | Told::History
            | Told::Keep
            | Told::Vitals
            | Told::Attached
            | Told::NotAttached,
            _,
        ) => None,
    }
}

/// What is wrong with this as the first word of a loader.
fn loader_early(said: Said) -> Option<&'static str> {
    match said {
        Said::Welcome | Said::Repaired => None,
        Said::Refused => Some("line 3"),
        Said::Offer => Some("0 maps and 0 links"),
        Said::Accepted
        | Said::Ready
        | Said::Released
        | Said::Granted
        | Said::Heartbeat
        | Said::Config
        | Said::Answer
        | Said::Trying
        | Said::Kept
        | Said::NotKept
        | Said::SnapshotUnusable
        | Said::Overdue
        | Said::Attach
        | Said::Seen
        | Said::Closed
        | Said::Cleared => Some("instead of an offer"),
    }
}

/// What is wrong with this as the first word of a loader that is to remove.
fn remover_early(said: Said) -> Option<&'static str> {
    match said {
        // The list is whole with its first message.
        Said::Welcome | Said::Repaired | Said::Cleared => None,
        Said::Refused => Some("line 3"),
        Said::Accepted
        | Said::Ready
        | Said::Released
        | Said::Granted
        | Said::Heartbeat
        | Said::Config
        | Said::Answer
        | Said::Trying
        | Said::Kept
        | Said::NotKept
        | Said::SnapshotUnusable
        | Said::Overdue
        | Said::Attach
        | Said::Seen
        | Said::Closed
        | Said::Offer => Some("instead of what it removed"),
    }
}
