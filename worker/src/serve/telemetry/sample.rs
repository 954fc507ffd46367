//! What is read of the maps for a scrape: of each published service number its record, its counters and
//! how many endpoints it has, a bounded number of them at a time.

use holdfast_bpf::BpfError;
use holdfast_protocol::kernel::traffic::Traffic;
use holdfast_protocol::kernel::{HeadWord, ServiceCounters, ServiceRecord, policy};

use crate::serve::tables::estate::Reader;
use crate::serve::tables::maps::Counters;
use crate::serve::tables::slot;

/// Service numbers looked at in one turn: about a millisecond, most of it the kernel copying counters.
pub const NUMBERS_A_TURN: u32 = 2048;

/// What is programmed and was counted for one service number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Which service it is.
    pub record: ServiceRecord,
    /// Endpoints in its table.
    pub endpoints: u32,
    /// Rows of its table that are further addresses of those.
    pub aliases: u32,
    /// Endpoints of its port that are not healthy, as far as they are checked.
    pub unhealthy: u32,
    /// Endpoints of its port that are ejected.
    pub ejected: u32,
    /// Over all CPUs.
    pub counters: ServiceCounters,
    /// What became of its connections, if there were any: most services of a large estate are idle.
    pub traffic: Option<Box<Traffic>>,
}

/// The numbers looked at in one turn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Those that are published.
    pub services: Vec<Counted>,
    /// Where the next page starts, if there is one.
    pub next: Option<u32>,
}

/// The page that starts at the number `from`.
///
/// # Errors
///
/// When the counters cannot be read.
pub fn page<M: Reader + Counters>(maps: &M, from: u32) -> Result<Page, BpfError> {
    let capacity = maps.capacity().services;
    let end = from.saturating_add(NUMBERS_A_TURN).min(capacity);
    let published: Vec<(u32, HeadWord)> = (from..end)
        .map(|number| (number, maps.head(number)))
        .filter(|(_, head)| head.is_published())
        .collect();
    let next = (end < capacity).then_some(end);
    let (Some((first, _)), Some((last, _))) = (published.first(), published.last()) else {
        return Ok(Page { services: Vec::new(), next });
    };
    let counters = maps.counters_from(*first, last - first + 1)?;
    let counted = |(number, head): &(u32, HeadWord)| {
        let (endpoints, aliases) = endpoints(maps, *number, *head);
        Counted {
            record: maps.record(*number),
            endpoints,
            aliases,
            unhealthy: 0,
            ejected: 0,
            counters: counters[(number - first) as usize],
            traffic: Some(maps.traffic(*number))
                .filter(|traffic| *traffic != Traffic::default())
                .map(Box::new),
        }
    };
    Ok(Page { services: published.iter().map(counted).collect(), next })
}

/// How many endpoints the table has that `head` names, and how many further addresses of them; none when
/// it is not this number's.
fn endpoints(maps: &impl Reader, number: u32, head: HeadWord) -> (u32, u32) {
    let slots = maps.capacity().slots;
    if head.slot() >= slots {
        return (0, 0);
    }
    let header = slot::to_header(&maps.slot(head.slot()));
    let is_own = (header.service, header.generation) == (number, head.generation());
    if !is_own {
        return (0, 0);
    }
    if header.policy != policy::DIRECT {
        return (header.endpoints, 0);
    }
    let first = head.slot().saturating_add(1).saturating_add(header.settings);
    let end = first.saturating_add(header.endpoints).min(slots);
    let is_alias = |(row, index): &(u32, u32)| slot::to_endpoint(&maps.slot(*index)).alias != *row;
    let aliases = (0..).zip(first..end).filter(is_alias).count();
    let aliases = u32::try_from(aliases).unwrap_or(u32::MAX);
    (header.endpoints.saturating_sub(aliases), aliases)
}
