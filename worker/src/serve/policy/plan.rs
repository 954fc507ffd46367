//! From the image in force to the wanted one, and all the steps between.

use std::collections::{HashMap, HashSet};

use holdfast_bpf::BpfError;
use holdfast_config::Access;
use holdfast_protocol::kernel::HeadWord;
use holdfast_protocol::kernel::rules::{Cell, IMAGE_CELLS, POLICY_NUMBERS};

use super::estate::{PolicyReader, PolicyWriter};
use super::image::{self, Record, TooLarge};
use super::resolve::Resolution;

/// The first cell of each of the two images.
const PLACES: [u32; 2] = [1, 1 + IMAGE_CELLS];

/// A new image on its way. Giving it up, or dying on it, before the last step changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    cells: Vec<Cell>,
    /// Numbers that no image in force names and this one does.
    fresh: Vec<u32>,
    head: HeadWord,
}

/// The policies in force.
#[must_use]
pub fn observe(estate: &impl PolicyReader) -> Vec<Record> {
    in_force(estate).unwrap_or_default()
}

fn in_force(estate: &impl PolicyReader) -> Option<Vec<Record>> {
    let place = estate.policy_head().slot();
    PLACES.contains(&place).then(|| image::records(|cell| estate.policy_cell(place + cell)))?
}

/// What is to be done so that the policies of `access` are in force; `None` if they are.
///
/// # Errors
///
/// [`TooLarge`], by name.
pub fn plan(
    estate: &impl PolicyReader,
    access: &Access,
    resolution: &Resolution,
) -> Result<Option<Change>, TooLarge> {
    let head = estate.policy_head();
    let former = observe(estate);
    let (numbers, fresh) = numbers(&former, access);
    let cells = image::image(access, resolution, |name| numbers[name])?;
    if is_in_force(estate, head, &cells) {
        return Ok(None);
    }
    let place = match cells.is_empty() {
        true => 0,
        false if head.slot() == PLACES[0] => PLACES[1],
        false => PLACES[0],
    };
    let head = HeadWord::new(place, head.generation().wrapping_add(1));
    Ok(Some(Change { cells, fresh, head }))
}

fn is_in_force(estate: &impl PolicyReader, head: HeadWord, cells: &[Cell]) -> bool {
    if cells.is_empty() || head.slot() == 0 {
        return cells.is_empty() && head.slot() == 0;
    }
    PLACES.contains(&head.slot())
        && (head.slot()..).zip(cells).all(|(at, cell)| estate.policy_cell(at) == *cell)
}

/// The number of each policy: the one it has, or one that no policy in force has.
fn numbers<'a>(former: &[Record], access: &'a Access) -> (HashMap<&'a str, u32>, Vec<u32>) {
    let known: HashMap<&str, u32> =
        former.iter().map(|record| (record.name.as_str(), record.number)).collect();
    let taken: HashSet<u32> = known.values().copied().collect();
    let mut free = (0..POLICY_NUMBERS).filter(|number| !taken.contains(number));
    let (mut numbers, mut fresh) = (HashMap::new(), Vec::new());
    for policy in &access.policies {
        let number = known.get(policy.name.as_str()).copied().unwrap_or_else(|| {
            let number = free.next().expect("there are twice as many numbers as policies");
            fresh.push(number);
            number
        });
        numbers.insert(policy.name.as_str(), number);
    }
    (numbers, fresh)
}

/// Puts `change` in force.
///
/// # Errors
///
/// When the kernel refuses; the former policies are in force then.
pub fn carry_out(change: &Change, writer: &mut impl PolicyWriter) -> Result<(), BpfError> {
    for number in &change.fresh {
        writer.zero_policy_counters(*number)?;
    }
    for (at, cell) in (change.head.slot()..).zip(&change.cells) {
        writer.write_policy_cell(at, *cell);
    }
    writer.publish_policies(change.head);
    Ok(())
}
