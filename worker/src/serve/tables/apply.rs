//! A plan, carried out a bounded batch at a time.

use holdfast_bpf::BpfError;
use holdfast_protocol::kernel::endpoint::EndpointState;
use holdfast_protocol::kernel::{EndpointSlot, TableHeader};

use super::desired::{Desired, Table};
use super::estate::Writer;
use super::plan::{Freed, Operation, Plan};
use super::slot;

/// A plan on its way. Giving it up between two batches, or dying in one, leaves what any prefix of
/// it leaves: every service wholly old or wholly new.
#[derive(Debug)]
pub struct Application {
    plan: Plan,
    done: usize,
}

impl Application {
    /// Begins `plan`.
    #[must_use]
    pub const fn new(plan: Plan) -> Self {
        Self { plan, done: 0 }
    }

    /// Carries out at most `operations` more. Returns whether all is done.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a mutation; nothing after it has been done.
    pub fn advance(
        &mut self,
        desired: &Desired,
        writer: &mut impl Writer,
        operations: usize,
    ) -> Result<bool, BpfError> {
        let rest = &self.plan.operations[self.done..];
        for operation in rest.iter().take(operations) {
            carry_out(operation, desired, writer)?;
            self.done += 1;
        }
        let is_done = self.done == self.plan.operations.len();
        if is_done {
            writer.begin_era();
        }
        Ok(is_done)
    }

    /// What is carried out.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What the plan has freed, all of it being done.
    #[must_use]
    pub fn into_freed(self) -> Freed {
        self.plan.freed
    }
}

fn carry_out(
    operation: &Operation,
    desired: &Desired,
    writer: &mut impl Writer,
) -> Result<(), BpfError> {
    match *operation {
        Operation::DeleteFrontend(ref key) => writer.delete_frontend(key)?,
        Operation::SetFrontend(ref key, frontend) => writer.set_frontend(key, frontend)?,
        Operation::ZeroCounters(number) => writer.zero_counters(number)?,
        Operation::WriteRecord { number, service } => {
            writer.write_record(number, desired.services[service].record);
        }
        Operation::NumberEndpoint { state, number, service, endpoint } => {
            let EndpointSlot { address, port_be, .. } =
                desired.services[service].table.endpoints[endpoint];
            writer.write_endpoint(state, EndpointState::of(number, address, port_be));
        }
        Operation::WriteTable { number, generation, slot, service, ref states } => {
            let table = &desired.services[service].table;
            write_table(writer, table, states, slot, (number, generation));
        }
        Operation::Publish(number, head) => writer.publish(number, head),
    }
    Ok(())
}

/// Writes the header first: should a program, against all expectation, still read what was here
/// before, it finds another identity and looks again.
fn write_table(
    writer: &mut impl Writer,
    table: &Table,
    states: &[u32],
    at: u32,
    (service, generation): (u32, u32),
) {
    let header = TableHeader {
        service,
        generation,
        endpoints: table.endpoint_count(),
        no_endpoint_errno: table.no_endpoint_errno,
        policy: table.policy,
        features: table.features,
        settings: table.settings_slots(),
        lookup: table.lookup_count(),
        reserved: 0,
    };
    let settings = table.settings.iter().flat_map(slot::from_settings);
    let numbered = table.endpoints.iter().zip(states);
    let endpoints = numbered
        .map(|(endpoint, state)| slot::from_endpoint(&EndpointSlot { state: *state, ..*endpoint }));
    let slots = std::iter::once(slot::from_header(&header))
        .chain(settings)
        .chain(endpoints)
        .chain(slot::from_lookup(&table.lookup));
    for (index, slot) in (at..).zip(slots) {
        writer.write_slot(index, slot);
    }
}
