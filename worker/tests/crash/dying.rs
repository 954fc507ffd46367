//! Workers that kill themselves after a given number of words.
//!
//! A word is the most that is written in one step. A slot of `TABLES` is several, and so is a record:
//! a worker may die with either half written. Everything else is one step: a system call, during
//! which the kernel does not let a process be killed, or the store that publishes.

use std::panic::{AssertUnwindSafe, catch_unwind};

use holdfast_bpf::BpfError;
use holdfast_protocol::kernel::{
    EnrolledKey, EnrolmentWord, Frontend, FrontendKey, HeadWord, PORT_NAME_BYTES,
    SERVICE_NAME_BYTES, SLOT_BYTES, ServiceRecord, endpoint::EndpointState,
};
use holdfast_worker::serve::grace;
use holdfast_worker::serve::tables::apply::Application;
use holdfast_worker::serve::tables::desired::Desired;
use holdfast_worker::serve::tables::estate::{Reader, Stamp, Writer};
use holdfast_worker::serve::tables::maps::GrantedMaps;
use holdfast_worker::serve::tables::observe::{Observed, observe};
use holdfast_worker::serve::tables::plan::{Operation, Plan, plan};
use holdfast_worker::serve::tables::rest::Rest;
use holdfast_worker::serve::tables::slot::Slot;
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

use crate::handed::Handed;

/// Bytes of a word.
const WORD: usize = size_of::<u64>();
const SLOT_WORDS: usize = SLOT_BYTES / WORD;
const RECORD_WORDS: usize = size_of::<ServiceRecord>() / WORD;

/// Words that say whose number one of `ENDPOINTS` is; what is counted follows them.
const IDENTITY_WORDS: usize = EndpointState::LIVE_WORD;

/// What a child ends with when it has done everything, and when it panicked.
const FINISHED: i32 = 0;
const PANICKED: i32 = 1;

/// How a worker that was to die ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It killed itself.
    Killed,
    /// It had fewer words to write.
    Finished,
}

/// A change to a plan before it is carried out: none, or one that makes it wrong.
pub type Tamper = fn(Plan, &Observed) -> Plan;

/// Leaves the plan as it is.
pub fn right(plan: Plan, _: &Observed) -> Plan {
    plan
}

/// How many words there are to write in `operations`.
pub fn words(operations: &[Operation], desired: &Desired) -> usize {
    let of = |operation: &Operation| match operation {
        Operation::WriteTable { service, .. } => {
            desired.services[*service].table.slots() as usize * SLOT_WORDS
        }
        Operation::WriteRecord { .. } => RECORD_WORDS,
        Operation::NumberEndpoint { .. } => IDENTITY_WORDS,
        _ => 1,
    };
    let era = 1;
    operations.iter().map(of).sum::<usize>() + era
}

/// Starts a worker that puts `desired` in force, the way a granted worker does, and dies once it has
/// written `words` words.
pub fn write(estate: &Handed, desired: &Desired, words: usize, tamper: Tamper) -> End {
    // SAFETY: this process has other threads, so the child may only call what takes no lock that one
    // of them could hold. It allocates, which glibc keeps possible after fork(2), and makes system
    // calls; it prints only when it panics, and then ends without running anything of the parent's.
    match unsafe { fork() }.expect("a child") {
        ForkResult::Child => {
            let work = || put_in_force(estate, desired, words, tamper);
            let code = catch_unwind(AssertUnwindSafe(work)).map_or(PANICKED, |()| FINISHED);
            // SAFETY: it ends this process and runs nothing on the way.
            unsafe { libc::_exit(code) }
        }
        ForkResult::Parent { child } => match waitpid(child, None).expect("our child") {
            WaitStatus::Signaled(_, Signal::SIGKILL, _) => End::Killed,
            WaitStatus::Exited(_, FINISHED) => End::Finished,
            other => panic!("the worker that was to die ended otherwise: {other:?}"),
        },
    }
}

/// The plan of a worker that has just been granted, and what it was made from.
pub fn planned(estate: &Handed, desired: &Desired) -> (Plan, Observed) {
    let maps = estate.shadow();
    let mut rest = Rest::default();
    let observed = observe(&maps).expect("readable");
    let plan = match plan(&observed, desired, &mut rest.space(&maps, &observed)) {
        Err(error) if error.is_space() => {
            assert!(grace::pass(), "this kernel offers no grace period");
            rest.end();
            plan(&observed, desired, &mut rest.space(&maps, &observed))
        }
        planned => planned,
    };
    (plan.expect("it fits"), observed)
}

fn put_in_force(estate: &Handed, desired: &Desired, words: usize, tamper: Tamper) {
    let (plan, observed) = planned(estate, desired);
    let maps = estate.shadow().grant().expect("writable");
    let mut dying = Dying { maps, left: words };
    let mut application = Application::new(tamper(plan, &observed));
    let done = application.advance(desired, &mut dying, usize::MAX).expect("the kernel takes it");
    assert!(done);
}

/// Writes until no word is left, then dies.
struct Dying {
    maps: GrantedMaps,
    left: usize,
}

impl Dying {
    /// Writes the first words of something of `words` words: all of it, or as many as are left.
    fn spend(&mut self, words: usize, write: impl FnOnce(&mut GrantedMaps, usize)) {
        let written = words.min(self.left);
        if written > 0 {
            write(&mut self.maps, written);
        }
        self.left -= written;
        if written < words {
            raise(Signal::SIGKILL).expect("a process may kill itself");
            unreachable!("SIGKILL cannot be survived");
        }
    }

    /// Does what is one step.
    fn step(
        &mut self,
        write: impl FnOnce(&mut GrantedMaps) -> Result<(), BpfError>,
    ) -> Result<(), BpfError> {
        let mut answer = Ok(());
        self.spend(1, |maps, _| answer = write(maps));
        answer
    }
}

impl Writer for Dying {
    fn write_slot(&mut self, index: u32, slot: Slot) {
        self.spend(SLOT_WORDS, |maps, words| {
            let mut mixed = maps.slot(index);
            mixed[..words * WORD].copy_from_slice(&slot[..words * WORD]);
            maps.write_slot(index, mixed);
        });
    }

    fn write_record(&mut self, number: u32, record: ServiceRecord) {
        self.spend(RECORD_WORDS, |maps, words| {
            let mixed = first_words(&maps.record(number), &record, words);
            maps.write_record(number, mixed);
        });
    }

    fn publish(&mut self, number: u32, head: HeadWord) {
        self.spend(1, |maps, _| maps.publish(number, head));
    }

    fn zero_counters(&mut self, number: u32) -> Result<(), BpfError> {
        self.step(|maps| maps.zero_counters(number))
    }

    fn write_endpoint(&mut self, state: u32, endpoint: EndpointState) {
        self.spend(IDENTITY_WORDS, |maps, words| {
            let whole = words == IDENTITY_WORDS;
            let mut mixed = if whole { endpoint } else { maps.endpoint(state) };
            let written = (words * WORD / size_of::<u32>()).min(mixed.address.len());
            mixed.address[..written].copy_from_slice(&endpoint.address[..written]);
            maps.write_endpoint(state, mixed);
        });
    }

    fn stamp(&mut self, state: u32, stamp: Stamp) {
        self.spend(1, |maps, _| maps.stamp(state, stamp));
    }

    fn set_frontend(&mut self, key: &FrontendKey, frontend: Frontend) -> Result<(), BpfError> {
        self.step(|maps| maps.set_frontend(key, frontend))
    }

    fn delete_frontend(&mut self, key: &FrontendKey) -> Result<(), BpfError> {
        self.step(|maps| maps.delete_frontend(key))
    }

    fn begin_era(&mut self) {
        self.spend(1, |maps, _| maps.begin_era());
    }

    fn list(&mut self, key: &EnrolledKey) -> Result<(), BpfError> {
        self.step(|maps| maps.list(key))
    }

    fn strike(&mut self, key: &EnrolledKey) -> Result<(), BpfError> {
        self.step(|maps| maps.strike(key))
    }

    fn publish_enrolment(&mut self, word: EnrolmentWord) {
        self.spend(1, |maps, _| maps.publish_enrolment(word));
    }
}

/// `old` with its first `words` words from `new`.
fn first_words(old: &ServiceRecord, new: &ServiceRecord, words: usize) -> ServiceRecord {
    if words == RECORD_WORDS {
        return *new;
    }
    let bytes = words * WORD;
    let name = bytes.min(SERVICE_NAME_BYTES);
    let port_name = (bytes - name).min(PORT_NAME_BYTES);
    let mut mixed = *old;
    mixed.service[..name].copy_from_slice(&new.service[..name]);
    mixed.port_name[..port_name].copy_from_slice(&new.port_name[..port_name]);
    mixed
}
