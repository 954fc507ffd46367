//! What is known of the endpoints of the configuration in force, and the tables that follow. Pure.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Instant;

use holdfast_config::{Endpoint, Port, Protocol};
use holdfast_protocol::kernel::endpoint::EndpointState;
use holdfast_protocol::kernel::{EndpointSlot, SERVICE_NAME_BYTES, ServiceRecord};

use super::checked::{Checked, checked_at, sent_to};
use super::recall::recall;
use super::target::{Change, Counts, Prior, Target, Verdict, Watch};
use crate::serve::compile::{Compiled, kernel_address, padded, protocol, tables};
use crate::serve::outlier::ejections::{Ejection, Ejections};
use crate::serve::tables::desired::{Desired, Table};
use crate::serve::tables::observe::Observed;

/// An unhealthy endpoint of which nobody has said why.
const FORMER: &str = "found unhealthy by the former worker";

/// What is known.
#[derive(Debug, Default)]
pub struct Health {
    known: HashMap<Target, Known>,
    ejections: Ejections,
    /// Grows whenever a verdict changes.
    version: u64,
    /// The version that the tables follow.
    programmed: u64,
    /// The newest tables that were made, and of what.
    made: Option<(Arc<Compiled>, Arc<Desired>)>,
    /// Services whose endpoints have turned since.
    turned: HashSet<Arc<str>>,
    /// What was counted for whoever scrapes, and of which version.
    counted: Option<(Arc<Compiled>, u64, HashMap<PortOfService, u32>)>,
    counts: Counts,
    /// Grows with each list of [`Watch`]es.
    generation: u64,
}

#[derive(Clone, Debug)]
struct Known {
    /// The generation from which on it is watched.
    since: u64,
    prior: Prior,
    verdict: Verdict,
    reason: String,
}

/// An endpoint that may be kept out, as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The service's name, as its record has it.
    pub service: [u8; SERVICE_NAME_BYTES],
    /// The port of the service, in network order, and its protocol.
    pub port: (u16, u8),
    /// The endpoint, as a table would have it.
    pub endpoint: EndpointSlot,
    /// What it is taken for.
    pub verdict: Verdict,
    /// Why, if it is kept out.
    pub reason: String,
}

impl Health {
    /// Nothing is known any more.
    #[must_use]
    pub fn forgotten(&self) -> Self {
        Self { generation: self.generation + 1, ..Self::default() }
    }

    /// Gets to know the endpoints of `compiled` that are not known, from what is programmed.
    fn meet(&mut self, compiled: &Compiled, observed: &Observed, is_first: bool) {
        let node = compiled.node.as_ref();
        let is_new = |checked: &&Checked| {
            let mut asked = checked.asked(node);
            checked.check.is_some()
                && asked.any(|(_, _, address)| !self.known.contains_key(&checked.target(address)))
        };
        let new: Vec<&Checked> = compiled.checked.iter().filter(is_new).collect();
        let programmed: HashMap<&ServiceRecord, Option<&Table>> =
            observed.services.iter().rev().map(|it| (&it.record, it.table.as_ref())).collect();
        let absent = if is_first { Prior::Unhealthy } else { Prior::Unchecked };
        let table = |record: &ServiceRecord| programmed.get(record).copied().flatten();
        for checked in compiled.checked.iter().filter(|it| it.service.outlier_ejection.is_some()) {
            let whole = compiled.desired.services.range(checked.at.clone());
            let key = |port: &Port, endpoint: &Endpoint| {
                (port.protocol, port.port, sent_to(port, endpoint))
            };
            let priors = recall(checked, node, whole, table, absent, key);
            // Nobody knows which of the two it was, so it is both.
            let was_out = |port: NonZeroU16, address: SocketAddr| {
                priors.get(&(Protocol::Tcp, port, address)) == Some(&Prior::Unhealthy)
            };
            self.ejections.meet(checked, node, was_out);
        }
        for checked in new {
            let whole = compiled.desired.services.range(checked.at.clone());
            let key =
                |port: &Port, endpoint: &Endpoint| checked_at(&checked.service, port, endpoint);
            for (address, prior) in recall(checked, node, whole, table, absent, key) {
                let verdict = prior.verdict();
                let is_unhealthy = verdict == Verdict::Unhealthy;
                let reason = if is_unhealthy { FORMER.to_owned() } else { String::new() };
                let since = self.generation + 1;
                let known = Known { since, prior, verdict, reason };
                self.known.entry(checked.target(address)).or_insert(known);
            }
        }
    }

    /// Takes note of what checks have found by the list of `generation`; those whose verdict is another
    /// one now.
    pub fn note(&mut self, generation: u64, changes: Vec<Change>, counts: Counts) -> Vec<Change> {
        self.counts = counts;
        let known = &mut self.known;
        let turned: Vec<Change> = changes
            .into_iter()
            .filter(|change| {
                // One that is gone by now is of no interest, even if it is there again.
                let known = known.get_mut(&change.target);
                let Some(known) = known.filter(|known| known.since <= generation) else {
                    return false;
                };
                known.reason.clone_from(&change.reason);
                std::mem::replace(&mut known.verdict, change.verdict) != change.verdict
            })
            .collect();
        self.turned.extend(turned.iter().map(|change| Arc::clone(&change.target.service)));
        self.version += u64::from(!turned.is_empty());
        turned
    }

    /// The tables of `compiled` as the health of its endpoints has them, and the version they are of.
    /// Endpoints that are new are known from what is `observed`. `is_first` says that this worker has
    /// programmed nothing yet: what is missing there was unhealthy, and has not just been configured.
    pub fn desired(
        &mut self,
        compiled: &Arc<Compiled>,
        observed: &Observed,
        is_first: bool,
    ) -> (Arc<Desired>, u64) {
        let made = self.made.take().filter(|(of, _)| Arc::ptr_eq(of, compiled));
        let turned = std::mem::take(&mut self.turned);
        let desired = if let Some((_, desired)) = made {
            let has_turned = |checked: &Checked| turned.contains(&checked.name);
            self.remake(compiled, desired, has_turned)
        } else {
            self.meet(compiled, observed, is_first);
            let node = compiled.node.as_ref();
            let is_affected = |checked: &Checked| {
                let mut asked = checked.asked(node);
                asked.any(|(port, endpoint, _)| !self.is_in(checked, port, endpoint))
            };
            self.remake(compiled, Arc::clone(&compiled.desired), is_affected)
        };
        self.made = Some((Arc::clone(compiled), Arc::clone(&desired)));
        (desired, self.version)
    }

    /// `desired` with the tables of those made anew that `is_concerned` names. It is copied only if
    /// somebody else still uses it.
    fn remake(
        &self,
        compiled: &Compiled,
        mut desired: Arc<Desired>,
        is_concerned: impl Fn(&Checked) -> bool,
    ) -> Arc<Desired> {
        for checked in compiled.checked.iter().filter(|checked| is_concerned(checked)) {
            let is_in = |port: &Port, endpoint: &Endpoint| self.is_in(checked, port, endpoint);
            let tables = tables(&checked.service, compiled.node.as_ref(), is_in);
            for (at, table) in checked.at.clone().zip(tables) {
                if desired.services[at].table != table {
                    let service = Arc::make_mut(&mut desired).services.get_mut(at);
                    Arc::make_mut(service).table = table;
                }
            }
        }
        desired
    }

    fn is_healthy(&self, target: &Target) -> bool {
        self.known.get(target).is_some_and(|known| known.verdict == Verdict::Healthy)
    }

    /// Whether connections of `port` may go to `endpoint`: neither checks nor ejection say no.
    fn is_in(&self, checked: &Checked, port: &Port, endpoint: &Endpoint) -> bool {
        let is_healthy =
            || self.is_healthy(&checked.target(checked_at(&checked.service, port, endpoint)));
        let is_out = self.ejections.is_out(&checked.name, port, &sent_to(port, endpoint));
        !is_out && (checked.check.is_none() || is_healthy())
    }

    /// Whether the endpoints of some service are looked at.
    #[must_use]
    pub fn ejects(&self) -> bool {
        !self.ejections.is_empty()
    }

    /// Those that are ejected.
    #[must_use]
    pub const fn ejections(&self) -> &Ejections {
        &self.ejections
    }

    /// Whether the tables have to be read back before the next [`look`](Self::look), for
    /// [`place`](Self::place).
    #[must_use]
    pub const fn is_displaced(&self) -> bool {
        self.ejections.is_displaced()
    }

    /// Finds out under which numbers the endpoints of `compiled` are counted.
    pub fn place(&mut self, compiled: &Compiled, observed: &Observed) {
        self.ejections.place(compiled, observed);
    }

    /// Looks at what is counted of the endpoints of `compiled`, which is in force; those that are ejected
    /// by it, or back.
    pub fn look(
        &mut self,
        compiled: &Compiled,
        state: impl Fn(u32) -> EndpointState,
        now: Instant,
    ) -> Vec<Ejection> {
        let turned = self.ejections.look(compiled, state, now);
        self.turned.extend(turned.iter().map(|it| Arc::clone(&it.service)));
        self.version += u64::from(!turned.is_empty());
        turned
    }

    /// The tables follow `version` now.
    pub fn programmed(&mut self, version: u64) {
        self.programmed = version;
        self.ejections.displace();
    }

    /// Whether they do not follow the newest.
    #[must_use]
    pub const fn is_pending(&self) -> bool {
        self.programmed != self.version
    }

    /// Everything that is to be checked from now on, `compiled` being in force, and the generation of
    /// this list; what else was known is forgotten.
    pub fn watches(&mut self, compiled: &Compiled) -> (u64, Vec<Watch>) {
        self.generation += 1;
        self.ejections.keep(compiled);
        let mut watches = Vec::new();
        let mut seen = HashSet::new();
        for checked in &compiled.checked {
            let Some(check) = &checked.check else { continue };
            for (_, _, address) in checked.asked(compiled.node.as_ref()) {
                let target = checked.target(address);
                if let Some(known) = self.known.get(&target)
                    && seen.insert(target.clone())
                {
                    let (check, prior) = (Arc::clone(check), known.prior);
                    watches.push(Watch { target, check, prior });
                }
            }
        }
        self.known.retain(|target, _| seen.contains(target));
        (self.generation, watches)
    }

    /// Every endpoint of `compiled` that may be kept out, once for each port of its service, as of `now`.
    #[must_use]
    pub fn standings(&self, compiled: &Compiled, now: Instant) -> Vec<Standing> {
        let mut standings = Vec::new();
        for checked in &compiled.checked {
            let service = padded(&checked.service.name);
            for (port, endpoint, address) in checked.asked(compiled.node.as_ref()) {
                let there = sent_to(port, endpoint);
                let known = self.known.get(&checked.target(address));
                let (verdict, reason) = match known {
                    Some(known) => (known.verdict, known.reason.clone()),
                    None if checked.check.is_some() => continue,
                    None => (Verdict::Healthy, String::new()),
                };
                let ejected = self.ejections.reason(&checked.name, port, &there, now);
                let (verdict, reason) = match ejected {
                    // What a check has found says more.
                    Some(ejected) if verdict != Verdict::Unhealthy => (Verdict::Ejected, ejected),
                    _ => (verdict, reason),
                };
                standings.push(Standing {
                    service,
                    port: (port.port.get().to_be(), protocol(port.protocol)),
                    endpoint: EndpointSlot {
                        address: kernel_address(there.ip()),
                        port_be: there.port().to_be(),
                        weight: endpoint.weight,
                        threshold: 0,
                        alias: 0,
                        state: EndpointSlot::NO_STATE,
                    },
                    verdict,
                    reason,
                });
            }
        }
        standings
    }

    /// For each port of each service of `compiled` that is checked, how many endpoints are not healthy.
    pub fn unhealthy(&mut self, compiled: &Arc<Compiled>) -> &HashMap<PortOfService, u32> {
        let counted = self.counted.take();
        let counted = counted
            .filter(|(of, version, _)| Arc::ptr_eq(of, compiled) && *version == self.version)
            .unwrap_or_else(|| (Arc::clone(compiled), self.version, self.count(compiled)));
        &self.counted.insert(counted).2
    }

    fn count(&self, compiled: &Compiled) -> HashMap<PortOfService, u32> {
        let mut unhealthy = HashMap::new();
        for checked in compiled.checked.iter().filter(|checked| checked.check.is_some()) {
            let service = padded(&checked.service.name);
            for (port, _, address) in checked.asked(compiled.node.as_ref()) {
                let port = (port.port.get().to_be(), protocol(port.protocol));
                let count: &mut u32 = unhealthy.entry((service, port)).or_default();
                *count += u32::from(!self.is_healthy(&checked.target(address)));
            }
        }
        unhealthy
    }

    /// The generation of the newest list.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// How many checks have ended, and how.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }
}

/// A service's name, and its port in network order with its protocol, as records have them.
pub type PortOfService = ([u8; SERVICE_NAME_BYTES], (u16, u8));
