//! The maps that the closer looks at, and the one counter it writes.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use holdfast_bpf::BpfError;
use holdfast_bpf::array::Array;
use holdfast_bpf::mapped::MappedArray;
use holdfast_protocol::handover::Offer;
use holdfast_protocol::kernel::endpoint::EndpointState;
use holdfast_protocol::kernel::traffic::Traffic;
use holdfast_protocol::kernel::{SocketState, map};

use super::due::{Due, Targets};
use crate::serve::offer::{OfferError, check};

/// Elements that are read at once: half a megabyte of the larger ones.
const BATCH: u32 = 4096;

/// Why the offer is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum MapsError {
    /// It is not the four maps.
    #[error("the supervisor offers other maps than those that connections are closed by")]
    Others,
    /// One of them is not what it says.
    #[error(transparent)]
    Offer(#[from] OfferError),
    /// One of them does not hold what it should.
    #[error(transparent)]
    Kernel(#[from] BpfError),
}

/// The maps.
#[derive(Debug)]
pub struct Maps {
    endpoints: Array<EndpointState>,
    sockets: Array<SocketState>,
    /// `OVERFLOW`: the kernel reads it while it lists sockets.
    storage: OwnedFd,
    traffic: MappedArray<Traffic>,
}

impl Maps {
    /// Those of `offer`, which has to list them in the order of [`map::CLOSING`].
    pub fn of(offer: Offer, descriptors: Vec<OwnedFd>) -> Result<Self, MapsError> {
        let names = offer.entries.iter().map(|entry| entry.name.as_str());
        if !names.eq(map::CLOSING) {
            return Err(MapsError::Others);
        }
        for (entry, descriptor) in offer.entries.iter().zip(&descriptors) {
            check(entry, descriptor)?;
        }
        let descriptors: Result<[OwnedFd; 4], _> = descriptors.try_into();
        let [endpoints, sockets, storage, traffic] =
            descriptors.map_err(|_surplus| MapsError::Others)?;
        let mut traffic = MappedArray::map(traffic)?;
        traffic.protect(true)?;
        Ok(Self {
            endpoints: Array::new(endpoints)?,
            sockets: Array::new(sockets)?,
            storage,
            traffic,
        })
    }

    /// What is to be closed at `now_ns`.
    pub fn targets(&self, now_ns: u64) -> Result<Targets, BpfError> {
        let mut due = Vec::new();
        each(&self.endpoints, |number, state: EndpointState| {
            if state.is_overdue(now_ns) {
                due.push((number, state));
            }
        })?;
        let mut targets = Targets::of(Due::of(due.into_iter(), now_ns));
        if !targets.is_of_nobody() {
            each(&self.sockets, |_, socket| targets.add(&socket))?;
        }
        Ok(targets)
    }

    /// What is remembered of sockets beside `SOCKETS`.
    pub fn storage(&self) -> BorrowedFd<'_> {
        self.storage.as_fd()
    }

    /// A connection of this service was closed. Nobody else writes the counter: there is one closer at a time.
    pub fn count(&mut self, service: u32) {
        if service < self.traffic.length() {
            let drained = self.traffic.read(service).drained.wrapping_add(1);
            self.traffic.write_word(service, Traffic::DRAINED_WORD, drained);
        }
    }
}

fn each<V: holdfast_bpf::mapped::Plain>(
    array: &Array<V>,
    mut look: impl FnMut(u32, V),
) -> Result<(), BpfError> {
    let length = array.length();
    for first in (0..length).step_by(BATCH as usize) {
        let values = array.lookup_from(first, BATCH.min(length - first))?;
        (first..).zip(values).for_each(|(index, value)| look(index, value));
    }
    Ok(())
}
