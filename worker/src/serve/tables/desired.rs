//! What a configuration asks of the tables.

use std::fmt;
use std::sync::Arc;

use holdfast_config::List;
use holdfast_protocol::kernel::{
    EndpointSlot, FrontendKey, LOOKUP_PER_SLOT, PROTOCOL_TCP, PROTOCOL_UDP, SETTINGS_SLOTS,
    ServiceRecord, Settings, policy,
};

/// Everything the tables should say, and nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// In the configuration's order. No two have the same record, none share a frontend key.
    ///
    /// One that is still the same after a save, or after an endpoint's health has turned, is the same
    /// allocation: who has programmed it need not look into it.
    pub services: List<Arc<DesiredService>>,
}

/// One port of a service in one address family: what gets a service number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredService {
    /// Which service it is. Its number goes with it, and so do its counters.
    pub record: ServiceRecord,
    /// The addresses that lead to it.
    pub keys: Vec<FrontendKey>,
    /// Where they lead.
    pub table: Table,
}

/// A table without its identity: what two generations of a service can have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// One of [`policy`](holdfast_protocol::kernel::policy).
    pub policy: u8,
    /// What `connect` fails with when there is no endpoint.
    pub no_endpoint_errno: u16,
    /// Which of [`feature`](holdfast_protocol::kernel::feature) it uses.
    pub features: u8,
    /// What those features are told; `None` takes no slots.
    pub settings: Option<Settings>,
    /// The rows, at most 2^32 - 2.
    pub endpoints: Vec<EndpointSlot>,
    /// Indices of `endpoints`, for policies that look one up.
    pub lookup: Vec<u32>,
}

impl Table {
    /// How many slots it takes: one for the header, those of settings and lookup table, and one per
    /// endpoint.
    #[must_use]
    pub fn slots(&self) -> u32 {
        1 + self.settings_slots()
            + self.endpoint_count()
            + self.lookup_count().div_ceil(LOOKUP_PER_SLOT)
    }

    /// How many slots its settings take.
    #[must_use]
    pub const fn settings_slots(&self) -> u32 {
        if self.settings.is_some() { SETTINGS_SLOTS } else { 0 }
    }

    /// How many entries its lookup table has.
    #[must_use]
    pub fn lookup_count(&self) -> u32 {
        u32::try_from(self.lookup.len()).expect("a lookup table has some entries per endpoint")
    }

    /// The index of the endpoint that is counted for the row `index`: itself, unless that is another address
    /// of an endpoint that is asked for by its addresses.
    #[must_use]
    pub fn counted(&self, index: usize) -> usize {
        let alias = self.endpoints[index].alias as usize;
        if self.policy == policy::DIRECT && alias < self.endpoints.len() { alias } else { index }
    }

    /// How many endpoints it has.
    #[must_use]
    pub fn endpoint_count(&self) -> u32 {
        u32::try_from(self.endpoints.len()).expect("a configuration holds at most 2^20 endpoints")
    }
}

/// A record as people know it: `web, port http (80/tcp, IPv4)`.
#[derive(Clone, Copy, Debug)]
pub struct Label<'a>(pub &'a ServiceRecord);

impl fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let record = self.0;
        write!(
            f,
            "{}, port {} ({}/{}, ",
            name(&record.service),
            name(&record.port_name),
            u16::from_be(record.port_be),
            protocol(record.protocol),
        )?;
        match record.family {
            ServiceRecord::DIRECT => f.write_str("direct)"),
            family => write!(f, "IPv{family})"),
        }
    }
}

/// The name in a field that is padded with zeros.
#[must_use]
pub fn name(field: &[u8]) -> String {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}

/// The name of an IP protocol number.
#[must_use]
pub fn protocol(number: u8) -> &'static str {
    match number {
        PROTOCOL_TCP => "tcp",
        PROTOCOL_UDP => "udp",
        _ => "unknown",
    }
}
