//! An estate as it is handed to a worker, and the workers that take it over.

use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;

use holdfast_protocol::handover::{ConfigState, FromChild, Occasion, Offer, ToChild};
use holdfast_protocol::kernel::{PORT_NAME_BYTES, SERVICE_NAME_BYTES, ServiceRecord};
use holdfast_protocol::manifest::{Entry, Kind};
use holdfast_worker::serve::compile::Compiled;
use holdfast_worker::serve::grace;
use holdfast_worker::serve::offer::Gathering;
use holdfast_worker::serve::session::{Next, Session};
use holdfast_worker::serve::tables::estate::{Reader as _, Writer as _};
use holdfast_worker::serve::tables::maps::ShadowMaps;
use holdfast_worker::serve::tables::observe::{Observed, observe};
use holdfast_worker::serve::tables::slot::UNTOUCHED;

use crate::serving::Worker;

/// The epoch of every grant here: nobody compares them.
const EPOCH: u64 = 1;

const NO_RECORD: ServiceRecord = ServiceRecord {
    service: [0; SERVICE_NAME_BYTES],
    port_name: [0; PORT_NAME_BYTES],
    port_be: 0,
    protocol: 0,
    family: 0,
    reserved: 0,
};

/// The maps of an estate, with what a supervisor says about them.
pub struct Handed {
    entries: Vec<Entry>,
    descriptors: Vec<OwnedFd>,
}

impl Handed {
    /// The maps among `entries`: a worker is offered nothing else.
    pub fn new(entries: Vec<Entry>, descriptors: Vec<OwnedFd>) -> Self {
        let all = entries.into_iter().zip(descriptors);
        let (entries, descriptors) =
            all.filter(|(entry, _)| entry.shape.kind() == Kind::Map).unzip();
        Self { entries, descriptors }
    }

    /// The maps as a worker maps them that has just been offered them.
    pub fn shadow(&self) -> ShadowMaps {
        let copy = |fd: &OwnedFd| fd.try_clone().expect("another descriptor");
        let descriptors = self.descriptors.iter().map(copy).collect();
        let mut gathering = Gathering::default();
        let offer = Offer { index: 0, of: 1, entries: self.entries.clone() };
        assert!(gathering.take(offer, descriptors).expect("the estate"));
        ShadowMaps::map(gathering.finish().expect("all of it")).expect("mapped")
    }

    /// What the maps say.
    pub fn observed(&self) -> Observed {
        observe(&self.shadow()).expect("readable")
    }

    /// The next worker takes over, with `compiled` on disk: what `serve` runs, without its process.
    /// Returns how often it had to wait for a grace period.
    pub fn take_over(&self, compiled: &Arc<Compiled>) -> usize {
        let mut session = Session::default();
        session.load(Ok(Arc::clone(compiled))).expect("loaded");
        session.adopt(self.shadow(), Occasion::Recovery).expect("adopted");
        session.grant(EPOCH, true).expect("granted");
        let mut rests = 0;
        loop {
            match session.next() {
                Next::Wait | Next::Restore => break,
                Next::Advance => session.advance().expect("advanced"),
                Next::Verify => session.verify(),
                Next::Rest { turn } => {
                    assert!(grace::pass(), "this kernel offers no grace period");
                    session.rested(turn);
                    rests += 1;
                }
            }
        }
        let said = session.outbox();
        let answered = |message: &FromChild| *message == FromChild::Granted { epoch: EPOCH };
        assert!(said.iter().any(answered), "{said:?}");
        rests
    }

    /// The next worker takes over, in a process of its own and without a privilege.
    pub fn take_over_by_process(&self, config: &Path) {
        let mut worker = Worker::spawn(config);
        worker.greet(Occasion::Recovery);
        let raw: Vec<RawFd> = self.descriptors.iter().map(|fd| fd.as_raw_fd()).collect();
        let offer = Offer { index: 0, of: 1, entries: self.entries.clone() };
        worker.tell(&ToChild::Offer(offer), &raw);
        assert_eq!(worker.hear(), FromChild::Accepted { index: 0 });
        let report = worker.await_ready();
        assert_eq!(report.state, ConfigState::InForce, "{report:?}");
        worker.grant(EPOCH);
        worker.kill();
    }

    /// Makes what nothing refers to as it was on the first day, so that the next workers need not
    /// wait for a grace period each: they cannot know that one has passed.
    pub fn renew(&self) {
        assert!(grace::pass(), "this kernel offers no grace period");
        let observed = self.observed();
        let mut maps = self.shadow().grant().expect("writable");
        let used = observed.used_slots();
        let is_used = |slot: u32| used.iter().any(|run| (run.start..run.end()).contains(&slot));
        for slot in (0..observed.capacity.slots).filter(|slot| !is_used(*slot)) {
            if maps.slot(slot) != UNTOUCHED {
                maps.write_slot(slot, UNTOUCHED);
            }
        }
        for number in 0..observed.capacity.services {
            if observed.published(number).is_none() {
                maps.write_record(number, NO_RECORD);
            }
        }
    }
}
