//! Changes that are undone unless they are completed: a loader that fails half-way leaves what it
//! found. (One that is killed half-way leaves what the next one completes.)

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use holdfast_bpf::link;
use holdfast_protocol::manifest::Kind;

use super::pins::{PinError, Pins};

/// How one change is undone.
#[derive(Debug)]
enum Undo {
    /// Nothing was pinned there before.
    Unpin { kind: Kind, name: &'static str },
    /// This was pinned there before.
    Pin { kind: Kind, name: &'static str, former: OwnedFd },
    /// The link did not exist before.
    Detach { link: OwnedFd },
    /// The link ran another program before.
    Update { link: OwnedFd, now: OwnedFd, former: OwnedFd },
}

/// The changes made so far. Dropping it undoes them, last first; [`complete`](Self::complete) keeps
/// them.
#[derive(Debug)]
pub struct Journal<'a> {
    pins: &'a Pins,
    undo: Vec<Undo>,
}

impl<'a> Journal<'a> {
    /// A journal of no changes yet.
    pub const fn new(pins: &'a Pins) -> Self {
        Self { pins, undo: Vec::new() }
    }

    /// Pins the object; `former` is the one that is pinned there now.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn pin(
        &mut self,
        kind: Kind,
        name: &'static str,
        object: BorrowedFd<'_>,
        former: Option<BorrowedFd<'_>>,
    ) -> Result<(), ChangeError> {
        let former = former.map(|former| former.try_clone_to_owned()).transpose()?;
        self.pins.put(kind, name, object)?;
        self.undo.push(match former {
            Some(former) => Undo::Pin { kind, name, former },
            None => Undo::Unpin { kind, name },
        });
        Ok(())
    }

    /// Attaches `program`, and answers with the link.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn attach(
        &mut self,
        program: BorrowedFd<'_>,
        cgroup: BorrowedFd<'_>,
        attach_type: u32,
    ) -> Result<OwnedFd, ChangeError> {
        let link = link::create(program, cgroup, attach_type)?;
        self.undo.push(Undo::Detach { link: link.try_clone()? });
        Ok(link)
    }

    /// Makes `link` run `new` instead of `former`.
    ///
    /// # Errors
    ///
    /// When the kernel refuses, also because the link runs something else by now.
    pub fn update(
        &mut self,
        link: BorrowedFd<'_>,
        new: BorrowedFd<'_>,
        former: BorrowedFd<'_>,
    ) -> Result<(), ChangeError> {
        let undo = Undo::Update {
            link: link.try_clone_to_owned()?,
            now: new.try_clone_to_owned()?,
            former: former.try_clone_to_owned()?,
        };
        link::update(link, new, former)?;
        self.undo.push(undo);
        Ok(())
    }

    /// Keeps the changes.
    pub fn complete(mut self) {
        self.undo.clear();
    }
}

/// A change that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// To the pins.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// To the links.
    #[error(transparent)]
    Bpf(#[from] holdfast_bpf::BpfError),
    /// No descriptor to undo it with.
    #[error("cannot duplicate a descriptor: {0}; raise this process's RLIMIT_NOFILE")]
    Descriptor(#[from] std::io::Error),
}

impl Drop for Journal<'_> {
    fn drop(&mut self) {
        while let Some(undo) = self.undo.pop() {
            let undone = match &undo {
                Undo::Unpin { kind, name } => {
                    self.pins.remove(*kind, name).map_err(ChangeError::from)
                }
                Undo::Pin { kind, name, former } => {
                    self.pins.put(*kind, name, former.as_fd()).map_err(ChangeError::from)
                }
                Undo::Detach { link } => link::detach(link.as_fd()).map_err(ChangeError::from),
                Undo::Update { link, now, former } => {
                    link::update(link.as_fd(), former.as_fd(), now.as_fd())
                        .map_err(ChangeError::from)
                }
            };
            // The rest is undone all the same; the next loader repairs what is left.
            if let Err(error) = undone {
                eprintln!("holdfast-worker: could not undo a change ({undo:?}): {error}");
            }
        }
    }
}
