//! What a former worker knew of the endpoints, read back from the tables it wrote. Pure.
//!
//! An endpoint that its table would have if it were healthy, and has not, was unhealthy. Where a table has
//! no opinion (it has better ones: an endpoint of a priority that connections do not spill over to, or of
//! the other address family) nothing is known. And a table of a service that may use all when nobody is
//! healthy looks the same in both cases.
//!
//! When in doubt an endpoint is taken for unhealthy: it then comes back a few checks later than it could,
//! and never gets connections that it should not.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use holdfast_config::{Endpoint, Locality, Port};
use holdfast_protocol::kernel::{Address, ServiceRecord};

use super::checked::{Checked, is_asked, level, sent_to, uses_all};
use super::target::Prior;
use crate::serve::compile::{kernel_address, records};
use crate::serve::tables::desired::{DesiredService, Table};

/// What a table says of an endpoint. The later, the more it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Opinion {
    /// There is no such table yet.
    Begins,
    /// It would not have it either way.
    None,
    /// It has it, perhaps for want of a healthy one.
    Perhaps,
    /// It has it.
    Present,
    /// It would have it if it were healthy.
    Absent,
}

/// What the tables say of the endpoints of `checked`, by what `key` makes of each at each port: what is
/// checked there, say. `whole` are its tables while everybody is healthy, `table` finds the one that is
/// published for a record, and `absent` is what a missing endpoint is taken for.
#[must_use]
pub fn recall<'t, 'w, K: Eq + Hash>(
    checked: &Checked,
    node: Option<&Locality>,
    whole: impl Iterator<Item = &'w Arc<DesiredService>>,
    table: impl Fn(&ServiceRecord) -> Option<&'t Table>,
    absent: Prior,
    key: impl Fn(&Port, &Endpoint) -> K,
) -> HashMap<K, Prior> {
    let mut opinions: HashMap<K, Opinion> = HashMap::new();
    let service = &checked.service;
    for ((port, record), whole) in records(service).zip(whole) {
        let asked: Vec<&Endpoint> =
            service.endpoints.iter().filter(|it| is_asked(service, node, it)).collect();
        let mut note = |endpoint: &Endpoint, opinion: Opinion| {
            let noted = opinions.entry(key(port, endpoint)).or_insert(opinion);
            *noted = opinion.max(*noted);
        };
        let Some(table) = table(&record) else {
            asked.iter().for_each(|endpoint| note(endpoint, Opinion::Begins));
            continue;
        };
        let present = Present::new(table, checked, &whole.table);
        let of_family =
            |is_ipv4| asked.iter().copied().filter(move |it| it.address.is_ipv4() == is_ipv4);
        let has_any = |is_ipv4| of_family(is_ipv4).any(|endpoint| present.has(port, endpoint));
        for is_ipv4 in [true, false] {
            // IPv6 clients use IPv4 endpoints when no IPv6 one is healthy, and an empty table would use
            // either.
            let is_told = match (is_ipv4, record.family == 4) {
                (true, _) => has_any(true) || present.addresses.is_empty(),
                (false, true) => false,
                (false, false) => has_any(false) || has_any(true) || present.addresses.is_empty(),
            };
            let group: Vec<&Endpoint> = of_family(is_ipv4).collect();
            if is_told {
                opine(checked, node, port, &present, &group, &mut note);
            } else {
                group.iter().for_each(|endpoint| note(endpoint, Opinion::None));
            }
        }
    }
    let prior = |opinion| match opinion {
        Opinion::Begins | Opinion::Perhaps => Prior::Presumed,
        Opinion::None => Prior::Unchecked,
        Opinion::Present => Prior::Healthy,
        Opinion::Absent => absent,
    };
    opinions.into_iter().map(|(key, opinion)| (key, prior(opinion))).collect()
}

/// The endpoints of a table.
struct Present {
    addresses: HashSet<(Address, u16)>,
    /// Whether they may be there for want of a healthy one.
    perhaps: bool,
}

impl Present {
    fn new(table: &Table, checked: &Checked, whole: &Table) -> Self {
        let addresses = |table: &Table| -> HashSet<_> {
            table.endpoints.iter().map(|slot| (slot.address, slot.port_be)).collect()
        };
        let (addresses, whole) = (addresses(table), addresses(whole));
        Self { perhaps: uses_all(&checked.service) && addresses == whole, addresses }
    }

    fn has(&self, port: &Port, endpoint: &Endpoint) -> bool {
        let there = sent_to(port, endpoint);
        self.addresses.contains(&(kernel_address(there.ip()), there.port().to_be()))
    }
}

/// What a table that has `present` says of the endpoints of one family.
fn opine(
    checked: &Checked,
    node: Option<&Locality>,
    port: &Port,
    present: &Present,
    group: &[&Endpoint],
    note: &mut impl FnMut(&Endpoint, Opinion),
) {
    let service = &checked.service;
    let level = |endpoint: &Endpoint| level(service, node, endpoint);
    let used = group.iter().filter(|endpoint| present.has(port, endpoint));
    // A priority is used only when those before it lack somebody, so what lacks in them is unhealthy;
    // nothing is known of those behind.
    let last = used.filter_map(|endpoint| level(endpoint)).max();
    for endpoint in group {
        let opinion = match (present.has(port, endpoint), last) {
            (true, _) if present.perhaps => Opinion::Perhaps,
            (true, _) => Opinion::Present,
            (false, Some(last)) if level(endpoint).is_some_and(|level| level > last) => {
                Opinion::None
            }
            (false, _) => Opinion::Absent,
        };
        note(endpoint, opinion);
    }
}
