//! What is programmed, row by row, for people. Pure, apart from reading the counters.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use holdfast_bpf::BpfError;
use holdfast_protocol::control::{
    DrainRow, EndpointRow, PolicyRow, ServiceRow, TrafficRow, WorkerAnswer,
};
use holdfast_protocol::handover::MAX_RELAY_BYTES;
use holdfast_protocol::kernel::endpoint::Live;
use holdfast_protocol::kernel::rules::{POLICY_NUMBERS, PolicyCounters, policy_flag};
use holdfast_protocol::kernel::{Address, EndpointSlot, ServiceRecord, is_mapped, policy};

use super::aside::{ACTIVE, STANDBY};
use super::compile::Compiled;
use super::drain::Closings;
use super::health_check::health::{Health, Standing};
use super::health_check::target::Verdict;
use super::policy::estate::PolicyReader;
use super::policy::plan;
use super::tables::desired::{Table, name, protocol};
use super::tables::maps::Counters;
use super::tables::observe::{Lead, Observed, Programmed};

/// Bytes of a page's rows at most; what is left of [`MAX_RELAY_BYTES`] is for the message around
/// them.
const PAGE_BYTES: usize = MAX_RELAY_BYTES - 1024;

/// Bytes a row takes at most beside its texts: lengths and numbers in a variable-length encoding of
/// at most 10 bytes each.
const ROW_BYTES: usize = 180;

/// Bytes a text takes at most beside its characters.
const TEXT_BYTES: usize = 10;

/// What was programmed at one moment, in the configuration's order.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    ports: Vec<Port>,
}

/// One port of a service, both families together.
#[derive(Clone, Debug)]
struct Port {
    record: ServiceRecord,
    /// One for each family that has a frontend.
    numbers: Vec<u32>,
    addresses: Vec<Address>,
    /// How endpoints are chosen; `None` without a family.
    policy: Option<u8>,
    /// Whether endpoints are asked for by their own addresses.
    is_direct: bool,
    /// Those of both families, each once.
    endpoints: Vec<Counted>,
    /// Those that are asked for by their own addresses.
    direct: Vec<Counted>,
}

/// An endpoint, whether it is used, and the numbers that what is known of it is under: one for each
/// family.
#[derive(Clone, Debug)]
struct Counted {
    slot: EndpointSlot,
    /// Whether a table has it.
    is_used: bool,
    state: &'static str,
    /// Why it is kept out; empty otherwise.
    reason: String,
    drain: Option<DrainRow>,
    numbers: Vec<u32>,
    /// Where else it answers.
    aliases: Vec<SocketAddr>,
}

/// One that is not healthy.
const UNHEALTHY: &str = "unhealthy";
/// One that is out for a time, because connections to it failed.
const EJECTED: &str = "ejected";
/// One whose first check has not ended.
const UNCHECKED: &str = "unchecked";
/// Behind the reason why an endpoint is kept out that gets connections.
const USED_ALL_THE_SAME: &str = "; used all the same, for want of a healthy one";

impl Counted {
    /// One that no table has.
    const fn unused(slot: EndpointSlot, state: &'static str, reason: String) -> Self {
        Self {
            slot,
            is_used: false,
            state,
            reason,
            drain: None,
            numbers: Vec::new(),
            aliases: Vec::new(),
        }
    }
}

/// What is known beside the tables.
#[derive(Clone, Copy, Debug, Default)]
pub struct View<'a> {
    /// The configuration on disk.
    pub compiled: Option<&'a Compiled>,
    /// The health of endpoints, the configuration in force that they are of, and what time it is.
    pub checked: Option<(&'a Health, &'a Compiled, Instant)>,
    /// When connections of endpoints that drain are closed, and what time it is, in nanoseconds of
    /// `CLOCK_MONOTONIC`.
    pub closings: Option<(&'a Closings, u64)>,
}

impl Snapshot {
    /// What `observed` says, in the configuration's order; what is not in there comes last. Endpoints
    /// that no table has stand behind the others of their port.
    #[must_use]
    pub fn new(observed: &Observed, View { compiled, checked, closings }: View<'_>) -> Self {
        let mut places: HashMap<ServiceRecord, usize> = HashMap::new();
        for (place, service) in compiled.iter().flat_map(|it| &it.desired.services).enumerate() {
            places.entry(familyless(&service.record)).or_insert(place);
        }
        let mut ports: Vec<Port> = Vec::new();
        let mut by_record: HashMap<ServiceRecord, usize> = HashMap::new();
        // Those that have addresses of their own.
        let mut by_number: HashMap<u32, usize> = HashMap::new();
        for service in &observed.services {
            let record = familyless(&service.record);
            let at = *by_record.entry(record).or_insert_with(|| {
                ports.push(Port::new(record));
                ports.len() - 1
            });
            ports[at].add(service);
            if service.record.family != ServiceRecord::DIRECT {
                by_number.insert(service.number, at);
            }
        }
        for key in observed.frontends.keys() {
            if let Some((_, Lead::To(number))) = observed.lead(key)
                && let Some(at) = by_number.get(&number)
            {
                ports[*at].addresses.push(key.address);
            }
        }
        let mut by_port: HashMap<([u8; 64], (u16, u8)), usize> = HashMap::new();
        for (at, port) in ports.iter().enumerate() {
            let record = &port.record;
            by_port.insert((record.service, (record.port_be, record.protocol)), at);
        }
        let mut standings: HashMap<usize, Vec<Standing>> = HashMap::new();
        for standing in checked.iter().flat_map(|(health, of, now)| health.standings(of, *now)) {
            if let Some(at) = by_port.get(&(standing.service, standing.port)) {
                standings.entry(*at).or_default().push(standing);
            }
        }
        for (at, standings) in standings {
            ports[at].judge(standings);
        }
        for aside in compiled.iter().flat_map(|it| &it.aside) {
            if let Some(at) = by_port.get(&(aside.service, aside.port)) {
                let told = |time| format!("connections are closed after {time:?}");
                let reason = aside.close_after.map_or_else(String::new, told);
                let known = closings.and_then(|(known, now_ns)| Some((known.of(aside)?, now_ns)));
                let drain = aside.close_after.map(|time| DrainRow {
                    close_after_ms: u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
                    closes_in_ms: known.and_then(|(closing, now_ns)| closing.left_ms(now_ns)),
                });
                let numbers = known.map_or_else(Vec::new, |(closing, _)| closing.numbers.clone());
                let unused = Counted::unused(aside.endpoint, aside.state, reason);
                ports[*at].endpoints.push(Counted { drain, numbers, ..unused });
            }
        }
        ports.iter_mut().for_each(Port::sort);
        ports.sort_by_key(|port| places.get(&port.record).copied().unwrap_or(usize::MAX));
        Self { ports }
    }

    /// The page of services that starts at `offset`.
    ///
    /// # Errors
    ///
    /// When the counters cannot be read.
    pub fn services(
        &self,
        offset: u32,
        counters: &impl Counters,
    ) -> Result<WorkerAnswer, BpfError> {
        let mut page = Page::from(offset);
        for port in self.ports.iter().skip(offset as usize) {
            if !page.push(port.service_row(counters)?, service_bytes) {
                break;
            }
        }
        let (rows, next) = page.close(self.ports.len());
        Ok(WorkerAnswer::Services { rows, next })
    }

    /// The page of endpoints that starts at `offset`.
    #[must_use]
    pub fn endpoints(&self, offset: u32, counters: &impl Counters) -> WorkerAnswer {
        let mut page = Page::from(offset);
        let all = self
            .ports
            .iter()
            .flat_map(|port| port.endpoints.iter().map(move |endpoint| (port, endpoint)));
        for (port, endpoint) in all.skip(offset as usize) {
            if !page.push(port.endpoint_row(endpoint, counters), endpoint_bytes) {
                break;
            }
        }
        let total = self.ports.iter().map(|port| port.endpoints.len()).sum();
        let (rows, next) = page.close(total);
        WorkerAnswer::Endpoints { rows, next }
    }
}

impl Port {
    fn new(record: ServiceRecord) -> Self {
        Self {
            record,
            numbers: Vec::new(),
            addresses: Vec::new(),
            policy: None,
            is_direct: false,
            endpoints: Vec::new(),
            direct: Vec::new(),
        }
    }

    fn add(&mut self, service: &Programmed) {
        self.numbers.push(service.number);
        if service.record.family == ServiceRecord::DIRECT {
            self.is_direct = true;
            self.direct
                .extend(service.table.iter().flat_map(|table| direct(table, &service.states)));
            return;
        }
        self.policy.get_or_insert(policy::RANDOM);
        if let Some(table) = &service.table {
            self.policy = Some(table.policy);
            let counted = |(slot, number): (&EndpointSlot, &u32)| Counted {
                slot: *slot,
                is_used: true,
                state: ACTIVE,
                reason: String::new(),
                drain: None,
                numbers: Vec::from_iter((*number != EndpointSlot::NO_STATE).then_some(*number)),
                aliases: Vec::new(),
            };
            self.endpoints.extend(table.endpoints.iter().zip(&service.states).map(counted));
        }
    }

    /// Shows what checks have found, also of endpoints that no table has for it.
    fn judge(&mut self, standings: Vec<Standing>) {
        let mut places: HashMap<(Address, u16), Vec<usize>> = HashMap::new();
        for (at, Counted { slot, .. }) in self.endpoints.iter().enumerate() {
            places.entry((slot.address, slot.port_be)).or_default().push(at);
        }
        for Standing { endpoint, verdict, reason, .. } in standings {
            let used = places.get(&(endpoint.address, endpoint.port_be));
            let state = match (verdict, used) {
                (Verdict::Healthy, Some(_)) => ACTIVE,
                (Verdict::Healthy, None) => STANDBY,
                (Verdict::Unchecked, _) => UNCHECKED,
                (Verdict::Unhealthy, _) => UNHEALTHY,
                (Verdict::Ejected, _) => EJECTED,
            };
            let Some(used) = used else {
                self.endpoints.push(Counted::unused(endpoint, state, reason));
                continue;
            };
            let is_kept_out = matches!(verdict, Verdict::Unhealthy | Verdict::Ejected);
            let how = if is_kept_out { USED_ALL_THE_SAME } else { "" };
            for at in used {
                let counted = &mut self.endpoints[*at];
                (counted.state, counted.reason) = (state, format!("{reason}{how}"));
            }
        }
    }

    /// Sorts the addresses, and makes one of each endpoint: an IPv6 frontend may use the same ones as
    /// an IPv4 frontend.
    fn sort(&mut self) {
        self.addresses.sort_by_key(|address| ip(*address));
        let mut places = HashMap::new();
        let mut endpoints: Vec<Counted> = Vec::with_capacity(self.endpoints.len());
        for counted in std::mem::take(&mut self.endpoints) {
            let slot = &counted.slot;
            let place = *places.entry((slot.address, slot.port_be)).or_insert(endpoints.len());
            match endpoints.get_mut(place) {
                Some(first) => first.numbers.extend(counted.numbers),
                None => endpoints.push(counted),
            }
        }
        // Nobody chooses among those of a headless service.
        let is_headless = self.policy.is_none();
        for direct in std::mem::take(&mut self.direct) {
            let place = places.get(&(direct.slot.address, direct.slot.port_be));
            match place.and_then(|place| endpoints.get_mut(*place)) {
                Some(endpoint) => {
                    endpoint.numbers.extend(direct.numbers);
                    endpoint.aliases = direct.aliases;
                    endpoint.is_used |= is_headless;
                }
                None => endpoints.push(Counted {
                    is_used: is_headless,
                    state: if is_headless { ACTIVE } else { STANDBY },
                    ..direct
                }),
            }
        }
        self.endpoints = endpoints;
    }

    /// How connections come to an endpoint.
    fn policy(&self) -> String {
        let chosen = self.policy.map(policy_name);
        let direct = self.is_direct.then_some(policy_name(policy::DIRECT));
        chosen.into_iter().chain(direct).collect::<Vec<_>>().join(", ")
    }

    fn service_row(&self, counters: &impl Counters) -> Result<ServiceRow, BpfError> {
        let (mut connections, mut refused, mut limited, mut retransmits) = (0, 0, 0, 0);
        let mut traffic = TrafficRow::default();
        for number in &self.numbers {
            let counted = counters.counters(*number)?;
            connections += counted.connections;
            refused += counted.refused + counted.unsettled;
            limited += counted.limited;
            let counted = counters.traffic(*number);
            retransmits += counted.retransmits;
            traffic.opened += counted.established;
            traffic.open += u64::from(Live(counted.live).open());
            traffic.pending += u64::from(Live(counted.live).pending());
            traffic.failed += counted.failed;
            traffic.sent_bytes += counted.sent;
            traffic.received_bytes += counted.received;
        }
        Ok(ServiceRow {
            service: name(&self.record.service),
            port_name: name(&self.record.port_name),
            port: u16::from_be(self.record.port_be),
            protocol: protocol(self.record.protocol).to_owned(),
            addresses: self.addresses.iter().map(|address| ip(*address).to_string()).collect(),
            policy: self.policy(),
            endpoints: u32::try_from(self.active()).unwrap_or(u32::MAX),
            connections,
            refused,
            limited,
            traffic,
            retransmits,
        })
    }

    /// How many endpoints get connections.
    fn active(&self) -> usize {
        self.endpoints.iter().filter(|endpoint| endpoint.is_used).count()
    }

    fn endpoint_row(&self, endpoint: &Counted, counters: &impl Counters) -> EndpointRow {
        let Counted { slot, state, reason, drain, numbers, aliases, .. } = endpoint;
        let address = address_of(slot);
        let mut traffic = TrafficRow::default();
        for number in numbers {
            let counted = counters.endpoint_state(*number);
            traffic.opened += counted.established;
            traffic.open += u64::from(Live(counted.live).open());
            traffic.pending += u64::from(Live(counted.live).pending());
            traffic.failed += counted.failed;
            traffic.sent_bytes += counted.sent;
            traffic.received_bytes += counted.received;
        }
        EndpointRow {
            service: name(&self.record.service),
            port_name: name(&self.record.port_name),
            endpoint: address.to_string(),
            weight: slot.weight,
            state: (*state).to_owned(),
            reason: reason.clone(),
            traffic,
            aliases: aliases.iter().map(SocketAddr::to_string).collect(),
            drain: *drain,
        }
    }
}

/// The endpoints that are asked for by the rows of `table`, which have the numbers `states`.
fn direct(table: &Table, states: &[u32]) -> Vec<Counted> {
    let mut places: HashMap<usize, usize> = HashMap::new();
    let mut endpoints: Vec<Counted> = Vec::new();
    for (row, state) in (0..table.endpoints.len()).zip(states) {
        let own = table.counted(row);
        let at = *places.entry(own).or_insert(endpoints.len());
        if at == endpoints.len() {
            let counted = Counted::unused(table.endpoints[own], ACTIVE, String::new());
            let numbers = Vec::from_iter((*state != EndpointSlot::NO_STATE).then_some(*state));
            endpoints.push(Counted { numbers, ..counted });
        }
        if row != own {
            endpoints[at].aliases.push(address_of(&table.endpoints[row]));
        }
    }
    endpoints
}

fn address_of(slot: &EndpointSlot) -> SocketAddr {
    SocketAddr::new(ip(slot.address), u16::from_be(slot.port_be))
}

/// The page of access policies that starts at `offset`.
///
/// # Errors
///
/// When the counters cannot be read.
pub fn policies(offset: u32, estate: &impl PolicyReader) -> Result<WorkerAnswer, BpfError> {
    let records = plan::observe(estate);
    let mut page = Page::from(offset);
    for record in records.iter().skip(offset as usize) {
        let counted = match record.number {
            0..POLICY_NUMBERS => estate.policy_counters(record.number)?,
            _ => PolicyCounters::default(),
        };
        let has = |flag| record.flags & flag != 0;
        let row = PolicyRow {
            policy: record.name.clone(),
            direction: if has(policy_flag::INBOUND) { "inbound" } else { "outbound" }.to_owned(),
            action: if has(policy_flag::ALLOW) { "allow" } else { "deny" }.to_owned(),
            dry_run: has(policy_flag::DRY_RUN),
            terms: record.terms,
            denied: counted.denied,
            would_deny: counted.dry_run,
        };
        if !page.push(row, |row| {
            let texts = [&row.policy, &row.direction, &row.action];
            ROW_BYTES + texts.iter().map(|text| text.len() + TEXT_BYTES).sum::<usize>()
        }) {
            break;
        }
    }
    let (rows, next) = page.close(records.len());
    Ok(WorkerAnswer::Policies { rows, next })
}

/// Rows that fit into one answer.
struct Page<R> {
    rows: Vec<R>,
    offset: usize,
    left: usize,
}

impl<R> Page<R> {
    fn from(offset: u32) -> Self {
        Self { rows: Vec::new(), offset: offset as usize, left: PAGE_BYTES }
    }

    /// Adds `row` unless the page is full.
    fn push(&mut self, row: R, bytes: impl Fn(&R) -> usize) -> bool {
        let Some(left) = self.left.checked_sub(bytes(&row)) else { return false };
        self.left = left;
        self.rows.push(row);
        true
    }

    /// The rows, and where the next page of `total` rows starts.
    fn close(self, total: usize) -> (Vec<R>, Option<u32>) {
        let next = self.offset + self.rows.len();
        // A page without a row would be asked for again and again.
        let more = next < total && !self.rows.is_empty();
        (self.rows, more.then(|| u32::try_from(next).unwrap_or(u32::MAX)))
    }
}

/// An upper bound of the bytes of `row` in an answer. A service has at most 64 addresses, so a row
/// always fits into a page.
fn service_bytes(row: &ServiceRow) -> usize {
    let texts = [&row.service, &row.port_name, &row.protocol, &row.policy];
    ROW_BYTES
        + texts.into_iter().chain(&row.addresses).map(|it| it.len() + TEXT_BYTES).sum::<usize>()
}

fn endpoint_bytes(row: &EndpointRow) -> usize {
    let texts = [&row.service, &row.port_name, &row.endpoint, &row.state, &row.reason];
    ROW_BYTES + texts.into_iter().chain(&row.aliases).map(|it| it.len() + TEXT_BYTES).sum::<usize>()
}

const fn familyless(record: &ServiceRecord) -> ServiceRecord {
    ServiceRecord { family: 0, ..*record }
}

const fn policy_name(number: u8) -> &'static str {
    match number {
        policy::RANDOM => "random",
        policy::WEIGHTED => "weighted",
        policy::ROUND_ROBIN => "round_robin",
        policy::MAGLEV => "maglev",
        policy::LEAST_CONNECTIONS => "least_connections",
        policy::DIRECT => "direct",
        _ => "unknown",
    }
}

/// The address in the form people use; IPv4 as such.
#[must_use]
pub fn ip(address: Address) -> IpAddr {
    if is_mapped(&address) {
        return IpAddr::V4(Ipv4Addr::from(address[3].to_ne_bytes()));
    }
    let mut octets = [0; 16];
    for (bytes, word) in octets.chunks_exact_mut(4).zip(address) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    IpAddr::V6(Ipv6Addr::from(octets))
}
