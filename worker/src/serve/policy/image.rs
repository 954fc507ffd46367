//! All policies as the cells that the kernel programs read, and back.

use std::collections::{BTreeMap, HashMap};

use holdfast_config::{Access, AccessPolicy, Action, Direction};
use holdfast_protocol::kernel::rules::{
    Cell, DIRECTION_CELLS, IMAGE_CELLS, ImageHeader, MAX_TERMS, NAME_BYTES, RECORD_CELLS,
    WORD_TERMS, kind, policy_flag,
};

use super::resolve::Resolution;
use super::terms::{Term, terms};
use super::vectors::{self, Numbered, Vector};

/// Why policies cannot be programmed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooLarge {
    /// Too many terms.
    #[error(
        "the configuration does not fit: its policies come to {terms} terms, and the kernel programs \
         know {MAX_TERMS}. A rule is one term, or several where a workload may be told both by its \
         cgroup and its address; an allowing policy is one more. Remove rules, or put lists in one \
         rule instead of several"
    )]
    Terms {
        /// How many there are.
        terms: usize,
    },
    /// Too many different sets of rules.
    #[error(
        "the configuration does not fit: its policies come to {cells} cells, and the kernel tables have \
         {IMAGE_CELLS}. Remove ranges of addresses or ports that only one of many rules names"
    )]
    Cells {
        /// How many there are.
        cells: usize,
    },
}

/// A policy as it is programmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it is counted.
    pub number: u32,
    /// Of [`policy_flag`].
    pub flags: u32,
    /// How many terms it has.
    pub terms: u32,
    /// Its name.
    pub name: String,
}

/// The image of the policies of `access`, of which each is counted where `number` says. Without any
/// policy it is empty.
///
/// # Errors
///
/// [`TooLarge`], by name.
pub fn image(
    access: &Access,
    resolution: &Resolution,
    number: impl Fn(&str) -> u32,
) -> Result<Vec<Cell>, TooLarge> {
    if access.policies.is_empty() {
        return Ok(Vec::new());
    }
    let [leaving, arriving] = [Direction::Outbound, Direction::Inbound]
        .map(|direction| terms(access, resolution, direction));
    for terms in [&leaving, &arriving] {
        if terms.len() > MAX_TERMS as usize {
            return Err(TooLarge::Terms { terms: terms.len() });
        }
    }
    let numbers: Vec<u32> = access.policies.iter().map(|policy| number(&policy.name)).collect();
    let mut cells: Vec<Cell> = vec![[0; 2]];
    for (place, policy) in access.policies.iter().enumerate() {
        let terms = leaving.iter().chain(&arriving);
        let own = terms.filter(|term| term.policy == place).count();
        cells.extend(record(policy, numbers[place], own));
    }
    let mut place = |terms: &[Term]| match terms {
        [] => 0,
        terms => {
            let place = cells.len();
            direction(&mut cells, terms, &numbers, resolution);
            place
        }
    };
    let (leaving, arriving) = (place(&leaving), place(&arriving));
    if cells.len() > IMAGE_CELLS as usize {
        return Err(TooLarge::Cells { cells: cells.len() });
    }
    let cuts = if access.cuts_existing { u64::from(ImageHeader::CUTS) << 32 } else { 0 };
    cells[0] = [pair(cells.len(), access.policies.len()), pair(leaving, arriving) | cuts];
    Ok(cells)
}

fn record(policy: &AccessPolicy, number: u32, terms: usize) -> Vec<Cell> {
    let allow = if policy.action == Action::Allow { policy_flag::ALLOW } else { 0 };
    let dry_run = if policy.dry_run { policy_flag::DRY_RUN } else { 0 };
    let inbound = match policy.direction {
        Direction::Inbound => policy_flag::INBOUND,
        Direction::Outbound => 0,
    };
    let flags = allow | dry_run | inbound;
    let mut name = [0; NAME_BYTES];
    name[..policy.name.len()].copy_from_slice(policy.name.as_bytes());
    let mut cells = vec![[u64::from(number), pair(flags as usize, terms)]];
    let word = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().expect("eight bytes"));
    cells.extend(name.chunks(size_of::<Cell>()).map(|it| [word(&it[..8]), word(&it[8..])]));
    cells
}

/// Two numbers in one word, the first in the lower half. All of them are below 2^32.
fn pair(low: usize, high: usize) -> u64 {
    ((high as u64) << 32) | low as u64
}

/// Appends the terms of one direction, its header first.
fn direction(cells: &mut Vec<Cell>, terms: &[Term], numbers: &[u32], resolution: &Resolution) {
    let (bits, kinds) = arrange(terms);
    let words = kinds.len();
    let numbered = Numbered { terms, bits: &bits, words };
    let header = cells.len();
    cells.resize(header + DIRECTION_CELLS as usize, [0; 2]);
    let owners = cells.len();
    cells.resize(owners + words * WORD_TERMS as usize, [0; 2]);
    for (term, bit) in terms.iter().zip(&bits) {
        cells[owners + bit] = [u64::from(numbers[term.policy]), 0];
    }
    let asks_local = vectors::is_asked(terms, |term| &term.local);
    let asks_cgroups = vectors::is_asked(terms, |term| &term.cgroups);
    let local = |is_ipv4| match asks_local {
        true => vectors::addresses(&numbered, |term| &term.local, is_ipv4),
        false => BTreeMap::new(),
    };
    let remote = |is_ipv4| vectors::addresses(&numbered, |term| &term.remote, is_ipv4);
    let cgroups =
        if asks_cgroups { vectors::cgroups(&numbered, resolution) } else { BTreeMap::new() };
    let cgroups = cgroups.into_iter().map(|(id, vector)| (u128::from(id), vector)).collect();
    let mut writer = Sections { cells, known: HashMap::new() };
    let sections = [
        [writer.section(&remote(true), false), writer.section(&remote(false), true)],
        [writer.section(&local(true), false), writer.section(&local(false), true)],
        [writer.section(&vectors::ports(&numbered), false), writer.section(&cgroups, false)],
    ];
    let unbound = writer.vector(&vectors::outside(&numbered, |term| &term.local));
    let elsewhere = writer.vector(&vectors::outside(&numbered, |term| &term.cgroups));
    let packed = |kinds: &[u32]| {
        kinds.iter().rev().fold(0, |word, kind| (word << kind::BITS) | u64::from(*kind))
    };
    let (first, others) = kinds.split_at(words.min(kind::WORDS as usize));
    cells[header] = [words as u64, packed(first)];
    cells[header + 1] = [packed(others), owners as u64];
    cells[header + 2..header + 5].copy_from_slice(&sections);
    cells[header + 5] = [unbound, elsewhere];
}

/// The bit of each term, and the kind of each word.
fn arrange(terms: &[Term]) -> (Vec<usize>, Vec<u32>) {
    let (mut bits, mut kinds) = (vec![0; terms.len()], Vec::new());
    for kind in 0..kind::COUNT {
        let of_kind = terms.iter().enumerate().filter(|(_, term)| term.kind == kind);
        for (nth, (term, _)) in of_kind.enumerate() {
            if nth % WORD_TERMS as usize == 0 {
                kinds.push(kind);
            }
            bits[term] = (kinds.len() - 1) * WORD_TERMS as usize + nth % WORD_TERMS as usize;
        }
    }
    (bits, kinds)
}

/// Appends sections; equal vectors are written once.
struct Sections<'a> {
    cells: &'a mut Vec<Cell>,
    known: HashMap<Vector, u64>,
}

impl Sections<'_> {
    fn vector(&mut self, vector: &Vector) -> u64 {
        if let Some(offset) = self.known.get(vector) {
            return *offset;
        }
        let offset = self.cells.len() as u64;
        let words = vector.holds.iter().zip(&vector.not_ruled_out);
        self.cells.extend(words.map(|(holds, not_ruled_out)| [*holds, *not_ruled_out]));
        self.known.insert(vector.clone(), offset);
        offset
    }

    fn section(&mut self, entries: &BTreeMap<u128, Vector>, is_wide: bool) -> u64 {
        let vectors: Vec<u64> = entries.values().map(|vector| self.vector(vector)).collect();
        let start = self.cells.len();
        for (first, vector) in entries.keys().zip(vectors) {
            let (upper, lower) = ((first >> 64) as u64, *first as u64);
            match is_wide {
                true => self.cells.extend([[upper, lower], [vector, 0]]),
                false => self.cells.push([lower, vector]),
            }
        }
        pair(start, entries.len())
    }
}

/// The policies of the image whose cells `cell` gives. `None` if it is none.
#[must_use]
pub fn records(cell: impl Fn(u32) -> Cell) -> Option<Vec<Record>> {
    let [size, _] = cell(0);
    let (length, policies) = (size as u32, (size >> 32) as u32);
    if length > IMAGE_CELLS || policies.saturating_mul(RECORD_CELLS) >= length {
        return None;
    }
    let record = |place: u32| {
        let at = 1 + place * RECORD_CELLS;
        let [number, rest] = cell(at);
        let name: Vec<u8> = (at + 1..at + RECORD_CELLS)
            .flat_map(&cell)
            .flat_map(u64::to_ne_bytes)
            .take_while(|byte| *byte != 0)
            .collect();
        Record {
            number: number as u32,
            flags: rest as u32,
            terms: (rest >> 32) as u32,
            name: String::from_utf8_lossy(&name).into_owned(),
        }
    };
    Some((0..policies).map(record).collect())
}
