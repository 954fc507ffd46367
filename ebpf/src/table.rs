//! The draw of an endpoint from a table: by its policy, or the one that the client stays with.
//!
//! Each way out of the table is an answer of its own, `None`: what was read belongs to a table that is being
//! replaced, and whoever asked looks again.

use holdfast_protocol::kernel::endpoint::Live;
use holdfast_protocol::kernel::{LOOKUP_PER_SLOT, SETTINGS_SLOTS, feature, policy};

use crate::affinity::{self, Stay};
use crate::decide::{NO_ROW, NO_SERVICE, Tables};
use crate::flow::{self, Former};
use crate::words;
use crate::{choose, client};

/// A table that was found.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// The service number it is of.
    pub service: u32,
    /// The slot of its header.
    pub header: u32,
    /// How many slots of settings follow it.
    pub settings: u32,
    /// What its header says.
    pub shape: words::Shape,
    /// How many entries its lookup table has.
    pub lookup: u32,
}

impl Table {
    /// The slot of its first endpoint.
    #[inline(always)]
    #[must_use]
    pub fn first(&self) -> Option<u32> {
        self.header.checked_add(1)?.checked_add(self.settings)
    }

    /// The row and the slot of the endpoint that a connection gets; `first` is the slot of the first.
    #[inline(always)]
    pub(crate) fn draw<T: Tables>(
        &self,
        tables: &T,
        first: u32,
        stay: &mut Stay,
    ) -> Option<(u32, T::Slot)> {
        let row = if self.shape.features & feature::AFFINITY == 0 {
            self.choose(tables, first)?
        } else {
            self.stay_or_choose(tables, first, stay)?
        };
        Some((row, tables.slot(first.checked_add(row)?)?))
    }

    /// The row that the policy chooses.
    #[inline(always)]
    fn choose<T: Tables>(&self, tables: &T, first: u32) -> Option<u32> {
        let shape = self.shape;
        if shape.endpoints == 1 {
            return Some(0);
        }
        let row = match shape.policy {
            policy::ROUND_ROBIN => {
                return Some(choose::turn(tables.turn(self.service), shape.endpoints));
            }
            policy::MAGLEV => return self.look_up(tables, first),
            policy::LEAST_CONNECTIONS => return self.lighter(tables, first),
            _ => choose::row(tables.random(), shape.endpoints),
        };
        if shape.policy != policy::WEIGHTED {
            return Some(row);
        }
        let slot = tables.slot(first.checked_add(row)?)?;
        let threshold = words::high(tables.slot_word(slot, words::ENDPOINT_PORT));
        let alias = words::low(tables.slot_word(slot, words::ENDPOINT_ALIAS));
        if alias >= shape.endpoints {
            return None;
        }
        Some(choose::alias(row, threshold, alias, tables.random()))
    }

    /// Of two rows that are drawn, that of the endpoint with fewer connections for its weight.
    #[inline(always)]
    fn lighter<T: Tables>(&self, tables: &T, first: u32) -> Option<u32> {
        let loaded = |row: u32| {
            let slot = tables.slot(first.checked_add(row)?)?;
            let state = words::high(tables.slot_word(slot, words::ENDPOINT_ALIAS));
            let weight = words::weight(tables.slot_word(slot, words::ENDPOINT_PORT));
            Some((Live(tables.live(state)), weight))
        };
        let one = choose::row(tables.random(), self.shape.endpoints);
        let other = choose::other_row(one, self.shape.endpoints, tables.random());
        Some(if choose::has_fewer(loaded(one)?, loaded(other)?) { other } else { one })
    }

    /// The row of the endpoint that the client stays with, or of one that is chosen for it now.
    #[inline(always)]
    fn stay_or_choose<T: Tables>(&self, tables: &T, first: u32, stay: &mut Stay) -> Option<u32> {
        let settings = self.clients(tables)?;
        stay.by = words::affinity_by(settings);
        let key = affinity::key(self.service, &client::identify(tables, stay.by));
        let (now, duration) = (tables.now(), words::affinity_ns(settings));
        stay.until = now.saturating_add(duration);
        if let Some(recent) = tables.recent(&key)
            && recent.is_recent(now, duration)
            && recent.row < self.shape.endpoints
            && flow::holds(tables, first.wrapping_add(recent.row), &recent.endpoint)
        {
            stay.row = recent.row;
            return Some(stay.row);
        }
        stay.is_new = true;
        if let Some(affinity) = tables.affinity(&key) {
            let (endpoint, row, until) = affinity::remembered(tables, affinity);
            let former = Former { endpoint, row, service: NO_SERVICE };
            if now < until {
                stay.row = flow::standing(tables, first, self.shape.endpoints, &former);
                if stay.row == row {
                    tables.extend(affinity, stay.until);
                    tables.note(&key, &stay.stand(endpoint));
                    stay.is_new = false;
                }
                if stay.row != NO_ROW {
                    return Some(stay.row);
                }
            }
        }
        stay.row = self.choose(tables, first)?;
        Some(stay.row)
    }

    /// How clients are told apart, and how long they stay: the word [`words::SETTINGS_CLIENTS`].
    #[inline(always)]
    fn clients<T: Tables>(&self, tables: &T) -> Option<u64> {
        if self.settings != SETTINGS_SLOTS {
            return None;
        }
        let settings = tables.slot(self.header.checked_add(1)?)?;
        Some(tables.slot_word(settings, words::SETTINGS_CLIENTS))
    }

    /// The row that the lookup table has for the client.
    #[inline(always)]
    fn look_up<T: Tables>(&self, tables: &T, first: u32) -> Option<u32> {
        if self.lookup == 0 {
            return None;
        }
        let by = words::hash_by(self.clients(tables)?);
        let entry = choose::row(client::hash(&client::identify(tables, by)), self.lookup);
        let slots = first.checked_add(self.shape.endpoints)?;
        let slot = tables.slot(slots.checked_add(entry / LOOKUP_PER_SLOT)?)?;
        let word = tables.slot_word(slot, (entry % LOOKUP_PER_SLOT / 2) as usize);
        let row = match entry % 2 {
            0 => words::low(word),
            _ => words::high(word),
        };
        // An entry is 1 more than a row.
        row.checked_sub(1).filter(|row| *row < self.shape.endpoints)
    }
}
