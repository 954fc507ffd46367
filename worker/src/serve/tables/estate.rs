//! The narrow interface to the maps.
//!
//! Everything this worker ever writes to the kernel is a call of [`Writer`], and each call is one
//! mutation: a test that stops at the nth call has stopped the writer at any point it can die at.

use holdfast_bpf::BpfError;
use holdfast_protocol::kernel::endpoint::{EndpointState, Live};
use holdfast_protocol::kernel::{
    EnrolledKey, EnrolmentWord, Frontend, FrontendKey, HeadWord, ServiceRecord,
};

use super::slot::Slot;

/// How much the maps hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Service numbers: elements of `HEADS`, `SERVICES`, `COUNTERS` and `TRAFFIC`.
    pub services: u32,
    /// Elements of `TABLES`.
    pub slots: u32,
    /// Elements of `FRONTENDS`.
    pub frontends: u32,
    /// Elements of `ENDPOINTS`; the first is no endpoint's.
    pub endpoints: u32,
}

/// A word of an endpoint that drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamp {
    /// [`EndpointState::drains_ns`].
    Drains(u64),
    /// [`EndpointState::closes_ns`].
    Closes(u64),
}

/// What can be read of the maps.
pub trait Reader {
    /// How much they hold.
    fn capacity(&self) -> Capacity;
    /// The head of `number`, which is below [`Capacity::services`].
    fn head(&self, number: u32) -> HeadWord;
    /// The record of `number`, which is below [`Capacity::services`].
    fn record(&self, number: u32) -> ServiceRecord;
    /// The slot at `index`, which is below [`Capacity::slots`].
    fn slot(&self, index: u32) -> Slot;
    /// What is known of the endpoint with this number, which is below [`Capacity::endpoints`].
    fn endpoint(&self, state: u32) -> EndpointState;
    /// What is open and pending of `number`, which is below [`Capacity::services`].
    fn live(&self, number: u32) -> Live;
    /// Where `key` leads, if it is there.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    fn frontend(&self, key: &FrontendKey) -> Result<Option<Frontend>, BpfError>;
    /// Every frontend, in no order.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    fn frontends(&self) -> Result<Vec<(FrontendKey, Frontend)>, BpfError>;
    /// Which list of the enrolled is in force, and what is on all lists, in no order.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    fn enrolment(&self) -> Result<(EnrolmentWord, Vec<EnrolledKey>), BpfError>;
}

/// What can be written to the maps, one mutation a call. Numbers and indices are below the
/// [`Capacity`].
pub trait Writer {
    /// Writes a slot that no published table contains.
    fn write_slot(&mut self, index: u32, slot: Slot);
    /// Writes the record of a number that is not published.
    fn write_record(&mut self, number: u32, record: ServiceRecord);
    /// Stores the head of `number` in one step, after everything written before.
    fn publish(&mut self, number: u32, head: HeadWord);
    /// Sets everything that is counted of `number`, which is not published, to 0, apart from what is
    /// open and pending: that is up to the connections.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    fn zero_counters(&mut self, number: u32) -> Result<(), BpfError>;
    /// Gives the number `state`, which no published table names, to `endpoint`, of which nothing has
    /// been counted yet. What is open and pending stays: that is up to the connections.
    fn write_endpoint(&mut self, state: u32, endpoint: EndpointState);
    /// Stores a word of the endpoint `state`, in one step.
    fn stamp(&mut self, state: u32, stamp: Stamp);
    /// Sets where `key` leads, in one step.
    ///
    /// # Errors
    ///
    /// When the kernel refuses, for want of room above all.
    fn set_frontend(&mut self, key: &FrontendKey, frontend: Frontend) -> Result<(), BpfError>;
    /// Removes `key`, in one step.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    fn delete_frontend(&mut self, key: &FrontendKey) -> Result<(), BpfError>;
    /// A plan is done: what lookups find from now on may be remembered. What was before
    /// [`set_frontend`](Self::set_frontend), [`delete_frontend`](Self::delete_frontend) or
    /// [`write_record`](Self::write_record) was called counts no more since then.
    fn begin_era(&mut self);
    /// Adds `key` to a list of the enrolled that is not in force, in one step.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    fn list(&mut self, key: &EnrolledKey) -> Result<(), BpfError>;
    /// Removes `key` from a list that is not in force, in one step.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    fn strike(&mut self, key: &EnrolledKey) -> Result<(), BpfError>;
    /// Puts a list in force in one step, after everything written before.
    fn publish_enrolment(&mut self, word: EnrolmentWord);
}
