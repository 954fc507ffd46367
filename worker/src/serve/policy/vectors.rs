//! Which terms a value satisfies, for every range of values in which that is the same.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use holdfast_config::{Cidr, PortRange};

use super::resolve::Resolution;
use super::terms::{Conditions, Term};

/// A set of terms, by the bits they have.
pub type Bits = Vec<u64>;

/// The terms that a value satisfies.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Vector {
    /// Those with a list for it that has it, as far as they have any.
    pub holds: Bits,
    /// Those that do not rule it out.
    pub not_ruled_out: Bits,
}

/// Terms and the bit of each.
#[derive(Clone, Copy, Debug)]
pub struct Numbered<'a> {
    /// The terms.
    pub terms: &'a [Term],
    /// The bit of each.
    pub bits: &'a [usize],
    /// Words of a vector.
    pub words: usize,
}

/// Which conditions of which terms a value meets.
#[derive(Clone, Debug)]
struct Met {
    /// The terms whose first list has it, then those whose second has it, and so on.
    any: Vec<Bits>,
    none: Bits,
}

/// A condition: a term's bit, and which of its lists; `None` for what it rules out.
type Condition = (usize, Option<usize>);

/// The conditions of all terms on one kind of value.
struct Field<'a, T> {
    lists: Vec<(Condition, &'a [T])>,
    /// The terms that have a first list, a second, and so on.
    required: Vec<Bits>,
    /// The bits that are some term's: nothing matches the others.
    given: Bits,
}

impl<'a, T> Field<'a, T> {
    fn new(numbered: &Numbered<'a>, conditions: impl Fn(&'a Term) -> &'a Conditions<T>) -> Self {
        let words = numbered.words;
        let (mut lists, mut required) = (Vec::new(), Vec::new());
        let mut given = vec![0; words];
        numbered.bits.iter().for_each(|bit| set(&mut given, *bit));
        for (term, bit) in numbered.terms.iter().zip(numbered.bits) {
            let conditions = conditions(term);
            for (layer, list) in conditions.any.iter().enumerate() {
                if required.len() == layer {
                    required.push(vec![0; words]);
                }
                set(&mut required[layer], *bit);
                lists.push(((*bit, Some(layer)), &list[..]));
            }
            if !conditions.none.is_empty() {
                lists.push(((*bit, None), &conditions.none[..]));
            }
        }
        Self { lists, required, given }
    }

    fn nothing(&self) -> Met {
        let none = vec![0; self.given.len()];
        Met { any: vec![none.clone(); self.required.len()], none }
    }

    fn vector(&self, met: &Met) -> Vector {
        let holds = |word: usize| {
            let layers = met.any.iter().zip(&self.required);
            layers
                .fold(self.given[word], |all, (met, required)| all & (met[word] | !required[word]))
        };
        Vector {
            holds: (0..self.given.len()).map(holds).collect(),
            not_ruled_out: met.none.iter().map(|word| !word).collect(),
        }
    }
}

impl Met {
    fn meet(&mut self, (bit, layer): Condition) {
        match layer {
            Some(layer) => set(&mut self.any[layer], bit),
            None => set(&mut self.none, bit),
        }
    }
}

fn set(bits: &mut Bits, bit: usize) {
    let width = u64::BITS as usize;
    bits[bit / width] |= 1 << (bit % width);
}

/// Whether any term has a condition on it.
#[must_use]
pub fn is_asked<T>(terms: &[Term], conditions: impl Fn(&Term) -> &Conditions<T>) -> bool {
    terms.iter().map(conditions).any(|it| !it.any.is_empty() || !it.none.is_empty())
}

/// The vector of a value that is in no list.
#[must_use]
pub fn outside<'a, T: 'a>(
    numbered: &Numbered<'a>,
    conditions: impl Fn(&'a Term) -> &'a Conditions<T>,
) -> Vector {
    let field = Field::new(numbered, conditions);
    field.vector(&field.nothing())
}

/// The ranges of the addresses of a family, by their first ones.
///
/// The prefixes are nested: each is wholly in another or wholly outside. So the conditions that the
/// addresses of one meet are those of the one around it and its own, as in a search for the longest
/// prefix.
#[must_use]
pub fn addresses<'a>(
    numbered: &Numbered<'a>,
    conditions: impl Fn(&'a Term) -> &'a Conditions<Cidr>,
    is_ipv4: bool,
) -> BTreeMap<u128, Vector> {
    let field = Field::new(numbered, conditions);
    // In this order one that is around another comes before it.
    let mut prefixes: BTreeMap<(u128, u8), Vec<Condition>> = BTreeMap::new();
    for (condition, list) in &field.lists {
        for cidr in list.iter().filter(|cidr| cidr.address.is_ipv4() == is_ipv4) {
            prefixes.entry((first(cidr), cidr.length)).or_default().push(*condition);
        }
    }
    let width = if is_ipv4 { 32 } else { 128 };
    let mut ranges = BTreeMap::new();
    let mut around = vec![(u128::MAX, field.nothing())];
    ranges.insert(0, field.vector(&around[0].1));
    for ((start, length), own) in prefixes {
        leave(&mut around, &mut ranges, &field, |last| last < start);
        let mut met = around.last().expect("what is outside of every prefix stays").1.clone();
        own.into_iter().for_each(|condition| met.meet(condition));
        ranges.insert(start, field.vector(&met));
        around.push((start + (ones(width - length)), met));
    }
    let end = ones(width);
    leave(&mut around, &mut ranges, &field, |last| last < end);
    let mut former = None;
    ranges.retain(|_, vector| former.replace(vector.clone()).as_ref() != Some(vector));
    ranges
}

/// Leaves the prefixes that end before a place: behind each begins a range of the one around it.
fn leave(
    around: &mut Vec<(u128, Met)>,
    ranges: &mut BTreeMap<u128, Vector>,
    field: &Field<'_, Cidr>,
    is_behind: impl Fn(u128) -> bool,
) {
    while around.len() > 1 && around.last().is_some_and(|(last, _)| is_behind(*last)) {
        let (last, _) = around.pop().expect("it has just been looked at");
        let outer = &around.last().expect("what is outside of every prefix stays").1;
        ranges.insert(last + 1, field.vector(outer));
    }
}

/// A number of `bits` ones.
fn ones(bits: u8) -> u128 {
    u128::MAX.checked_shr(u128::BITS - u32::from(bits)).unwrap_or(0)
}

fn first(cidr: &Cidr) -> u128 {
    match cidr.address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The ranges of ports, by their first ones.
#[must_use]
pub fn ports<'a>(numbered: &Numbered<'a>) -> BTreeMap<u128, Vector> {
    let field: Field<'_, PortRange> = Field::new(numbered, |term| &term.ports);
    let ranges = field.lists.iter().flat_map(|(_, list)| list.iter());
    let edges = ranges.flat_map(|range| [u32::from(range.first), u32::from(range.last) + 1]);
    let starts: BTreeSet<u32> =
        edges.filter(|port| *port <= u32::from(u16::MAX)).chain([0]).collect();
    let mut met: BTreeMap<u32, Met> =
        starts.into_iter().map(|start| (start, field.nothing())).collect();
    for (condition, list) in &field.lists {
        for range in *list {
            let covered = met.range_mut(u32::from(range.first)..=u32::from(range.last));
            covered.for_each(|(_, met)| met.meet(*condition));
        }
    }
    met.iter().map(|(start, met)| (u128::from(*start), field.vector(met))).collect()
}

/// The vectors of the workloads in each cgroup that some term names, and in none of those below it.
#[must_use]
pub fn cgroups(numbered: &Numbered<'_>, resolution: &Resolution) -> BTreeMap<u64, Vector> {
    let field: Field<'_, u64> = Field::new(numbered, |term| &term.cgroups);
    let mut conditions: BTreeMap<u64, Vec<Condition>> = BTreeMap::new();
    for (condition, list) in &field.lists {
        for id in *list {
            conditions.entry(*id).or_default().push(*condition);
        }
    }
    let named = resolution.0.iter().filter(|(_, id)| conditions.contains_key(id));
    let vector = |path: &std::path::PathBuf| {
        let mut met = field.nothing();
        // A workload is also in the cgroups above its own.
        for above in path.ancestors().filter_map(|above| resolution.0.get(above)) {
            let own = conditions.get(above).into_iter().flatten();
            own.for_each(|condition| met.meet(*condition));
        }
        field.vector(&met)
    };
    named.map(|(path, id)| (*id, vector(path))).collect()
}
