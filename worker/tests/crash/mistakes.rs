//! Writers that are wrong, to show that the tests find them out.

use holdfast_protocol::kernel::HeadWord;
use holdfast_worker::serve::tables::observe::Observed;
use holdfast_worker::serve::tables::plan::{Operation, Plan};

use crate::dying::Tamper;

/// How a writer can be wrong.
#[derive(Clone, Copy, Debug)]
pub enum Mistake {
    /// It publishes tables that it has not written yet.
    PublishFirst,
    /// It brings addresses after the publication that should begin them.
    AddressesLate,
    /// It writes over the table that is in force.
    InPlace,
}

impl Mistake {
    pub const ALL: [Self; 3] = [Self::PublishFirst, Self::AddressesLate, Self::InPlace];

    /// Whether single connections fail. They do not when each gets what its address says, and only
    /// the addresses of one service disagree.
    pub fn is_felt_by_connections(self) -> bool {
        !matches!(self, Self::AddressesLate)
    }

    /// Makes a plan wrong in this way.
    pub fn tamper(self) -> Tamper {
        match self {
            Self::PublishFirst => publish_first,
            Self::AddressesLate => addresses_late,
            Self::InPlace => in_place,
        }
    }
}

fn publish_first(mut plan: Plan, _: &Observed) -> Plan {
    plan.operations.sort_by_key(|operation| !matches!(operation, Operation::Publish(..)));
    plan
}

fn addresses_late(mut plan: Plan, _: &Observed) -> Plan {
    plan.operations.sort_by_key(|operation| matches!(operation, Operation::SetFrontend(..)));
    plan
}

fn in_place(mut plan: Plan, observed: &Observed) -> Plan {
    let now = |number: u32| observed.published(number).map(|service| service.head.slot());
    for operation in &mut plan.operations {
        match operation {
            Operation::WriteTable { number, slot, .. } => *slot = now(*number).unwrap_or(*slot),
            Operation::Publish(number, head) if head.is_published() => {
                let slot = now(*number).unwrap_or(head.slot());
                *head = HeadWord::new(slot, head.generation());
            }
            _ => {}
        }
    }
    plan
}

/// A writer that does not clean up: every address that ends stays in the map.
pub fn without_tidying(mut plan: Plan, _: &Observed) -> Plan {
    plan.operations.retain(|operation| !matches!(operation, Operation::DeleteFrontend(_)));
    plan
}
