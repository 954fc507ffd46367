//! The narrow interface to the maps of access policies: what [`tables::estate`] is to those of services.
//!
//! [`tables::estate`]: crate::serve::tables::estate

use holdfast_bpf::BpfError;
use holdfast_protocol::kernel::HeadWord;
use holdfast_protocol::kernel::rules::{Cell, PolicyCounters};

/// What can be read.
pub trait PolicyReader {
    /// Which image is in force.
    fn policy_head(&self) -> HeadWord;
    /// The cell at `index`, which is below [`CELLS`](holdfast_protocol::kernel::rules::CELLS).
    fn policy_cell(&self, index: u32) -> Cell;
    /// What was counted for a policy, over all CPUs. The number is below
    /// [`POLICY_NUMBERS`](holdfast_protocol::kernel::rules::POLICY_NUMBERS).
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    fn policy_counters(&self, number: u32) -> Result<PolicyCounters, BpfError>;
}

/// What can be written, one mutation a call.
pub trait PolicyWriter {
    /// Writes a cell of the image that is not in force.
    fn write_policy_cell(&mut self, index: u32, cell: Cell);
    /// Sets the counters of a number that no image in force names to 0.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    fn zero_policy_counters(&mut self, number: u32) -> Result<(), BpfError>;
    /// Says which image is in force, in one step, after everything written before.
    fn publish_policies(&mut self, head: HeadWord);
}
