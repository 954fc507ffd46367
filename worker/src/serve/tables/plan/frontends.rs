//! What happens to each frontend.

use holdfast_protocol::kernel::{Frontend, FrontendKey};

use super::matching::{Known, Matching};
use super::space::{DoesNotFit, Target};
use crate::serve::tables::desired::{Desired, Label};
use crate::serve::tables::observe::{Lead, Observed};

/// The frontends, by what a plan does with them.
#[derive(Debug)]
pub(super) struct Routes {
    /// Lead nowhere and are not wanted: deleted while preparing.
    pub idle: Vec<FrontendKey>,
    /// Set while preparing: they wait for a generation, or lose an end that was never published.
    pub prepared: Vec<(FrontendKey, Frontend)>,
    /// For each wanted service, the addresses that come to it from another.
    pub moves: Vec<Vec<Move>>,
    /// Not wanted any more: deleted once they have ended.
    pub ended: Vec<FrontendKey>,
    /// How many there are that were not there before.
    inserted: usize,
}

/// An address that leads elsewhere and comes to a service.
#[derive(Debug)]
pub(super) struct Move {
    pub key: FrontendKey,
    /// The kept service it comes from; `None` when that one is retired, or there is none.
    pub giver: Option<usize>,
}

impl Routes {
    pub(super) fn new(matching: &Matching<'_>, targets: &[Target], services: usize) -> Self {
        let mut routes = Self {
            idle: Vec::new(),
            prepared: Vec::new(),
            moves: (0..services).map(|_| Vec::new()).collect(),
            ended: Vec::new(),
            inserted: matching.absent.len(),
        };
        for known in &matching.known {
            match known.wanted {
                Some(service) => routes.lead_to(service, &targets[service], known),
                None => routes.end(known, targets),
            }
        }
        let absent = matching.absent.iter();
        routes
            .prepared
            .extend(absent.map(|(key, service)| (*key, targets[*service].frontend(key))));
        routes
    }

    /// Makes `known` lead to `service`, which wants it.
    fn lead_to(&mut self, service: usize, target: &Target, known: &Known) {
        let Known { key, frontend, .. } = *known;
        match known.lead {
            Lead::To(_) if known.leads_to == Some(service) => {
                self.prepare(known, Frontend { until: Frontend::FOREVER, ..frontend });
            }
            Lead::Idle => self.prepare(known, target.frontend(&key)),
            Lead::To(_) | Lead::Garbled => {
                // A dead writer's decision that it ends must not come true before it has moved.
                if known.leads_to.is_some() {
                    self.prepare(known, Frontend { until: Frontend::FOREVER, ..frontend });
                }
                self.moves[service].push(Move { key, giver: known.leads_to });
            }
        }
    }

    /// Makes an end of `known`, which nobody wants.
    fn end(&mut self, known: &Known, targets: &[Target]) {
        match (known.lead, known.leads_to) {
            (Lead::To(_), Some(service)) => {
                let until = targets[service].generation;
                self.prepare(known, Frontend { until, ..known.frontend });
                self.ended.push(known.key);
            }
            // It ends when its number is retired.
            (Lead::To(_), None) => self.ended.push(known.key),
            (Lead::Idle | Lead::Garbled, _) => self.idle.push(known.key),
        }
    }

    fn prepare(&mut self, known: &Known, frontend: Frontend) {
        if frontend != known.frontend {
            self.prepared.push((known.key, frontend));
        }
    }

    /// Whether the old frontends and the new ones fit into the map together.
    pub(super) fn check_room(
        &self,
        observed: &Observed,
        desired: &Desired,
    ) -> Result<(), DoesNotFit> {
        let capacity = observed.capacity.frontends;
        let kept = observed.frontends.len() - self.idle.len();
        let over = (kept + self.inserted).saturating_sub(capacity as usize);
        if over == 0 {
            return Ok(());
        }
        // Named is the service whose new frontend is the first without room.
        let mut room = self.inserted.saturating_sub(over);
        let absent = |key: &&FrontendKey| !observed.frontends.contains_key(*key);
        let first = desired.services.iter().find(|service| {
            let new = service.keys.iter().filter(absent).count();
            let fits = new <= room;
            room = room.saturating_sub(new);
            !fits
        });
        let service = first.map_or_else(String::new, |it| Label(&it.record).to_string());
        Err(DoesNotFit::Frontends { service, capacity })
    }
}
