//! Where the services of a file stand, as the parser has said.

use std::ops::Range;

use crate::diagnostic::Position;
use crate::tree::{Node, Value};

/// Where the items of the list `services` stand in a text, if that is a block sequence at the top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Spaces before the dash of each item.
    pub(super) indent: usize,
    /// For each item, in bytes, where the line begins on which its dash is the first character.
    pub(super) starts: Vec<u32>,
    /// For each item, how many YAML values it is made of.
    nodes: Vec<u32>,
    /// Where the line of the key behind the list begins; without it the list ends with the text.
    pub(super) tail: Option<u32>,
    /// How many YAML values the whole text is made of.
    total: usize,
}

impl Layout {
    /// The layout of `text`, of which `root` was made without an error.
    pub(crate) fn of(text: &str, root: &Node) -> Option<Self> {
        let Value::Mapping(entries) = &root.value else { return None };
        let at = entries.iter().position(|entry| entry.key == "services")?;
        let Value::Sequence(items) = &entries[at].value.value else { return None };
        // What counts as a line break is to be beyond doubt.
        if entries[at].position.column != 1 || text.contains('\r') {
            return None;
        }
        let mut lines = Lines::of(text);
        let mut starts = Vec::with_capacity(items.len());
        let mut indent = None;
        for item in items {
            let start = lines.start(item.position.line)?;
            let this = dash(&text.as_bytes()[start..], item.position)?;
            if *indent.get_or_insert(this) != this || starts.last() == Some(&offset(start)?) {
                return None;
            }
            starts.push(offset(start)?);
        }
        let tail = match entries.get(at + 1) {
            Some(entry) if entry.position.column == 1 => {
                Some(offset(lines.start(entry.position.line)?)?)
            }
            Some(_) => return None,
            None => None,
        };
        let nodes = items.iter().map(nodes).collect();
        Some(Self { indent: indent?, starts, nodes, tail, total: nodes_of(root) })
    }

    /// How many items there are.
    pub(super) const fn len(&self) -> usize {
        self.starts.len()
    }

    /// How many values the text has once the items `replaced` are those of `by`.
    pub(super) fn nodes_with(&self, replaced: &Range<usize>, by: &[u32]) -> usize {
        self.total - sum(&self.nodes[replaced.clone()]) + sum(by)
    }

    /// How many values each item has.
    pub(super) fn nodes(&self) -> &[u32] {
        &self.nodes
    }

    /// The items `replaced` are those of `by` from now on, and what is behind them is `delta` bytes
    /// further on.
    pub(super) fn replace(&mut self, replaced: Range<usize>, by: &Items, delta: i64) {
        let moved = |offset: &mut u32| {
            *offset = u32::try_from(i64::from(*offset) + delta).expect("a text is below 4 GiB");
        };
        self.total = self.nodes_with(&replaced, &by.nodes);
        self.starts[replaced.end..].iter_mut().chain(&mut self.tail).for_each(moved);
        self.starts.splice(replaced.clone(), by.starts.iter().copied());
        self.nodes.splice(replaced, by.nodes.iter().copied());
    }
}

/// Items that take the place of others.
#[derive(Debug)]
pub(super) struct Items {
    /// As [`Layout::starts`].
    pub(super) starts: Vec<u32>,
    /// As [`Layout::nodes`].
    pub(super) nodes: Vec<u32>,
}

/// Spaces before the dash, if that is all there is on `line` before the item at `position`.
fn dash(line: &[u8], position: Position) -> Option<usize> {
    let before = line.get(..position.column as usize - 1)?;
    let indent = before.iter().take_while(|byte| **byte == b' ').count();
    let (dash, spaces) = before[indent..].split_first()?;
    let is_dash = *dash == b'-' && !spaces.is_empty() && spaces.iter().all(|byte| *byte == b' ');
    is_dash.then_some(indent)
}

fn offset(start: usize) -> Option<u32> {
    u32::try_from(start).ok()
}

fn sum(nodes: &[u32]) -> usize {
    nodes.iter().map(|nodes| *nodes as usize).sum()
}

fn nodes(node: &Node) -> u32 {
    u32::try_from(nodes_of(node)).expect("a file has fewer than 2^32 values")
}

/// How many values `node` is made of; it is not nested deeper than the language allows.
fn nodes_of(node: &Node) -> usize {
    match &node.value {
        Value::Sequence(items) => 1 + items.iter().map(nodes_of).sum::<usize>(),
        Value::Mapping(entries) => {
            1 + entries.iter().map(|entry| 1 + nodes_of(&entry.value)).sum::<usize>()
        }
        Value::Scalar(_) | Value::Refused => 1,
    }
}

/// The lines of a text, asked for in ascending order.
struct Lines<'t> {
    text: &'t str,
    /// The line that was asked for last, and where it begins.
    line: u32,
    start: usize,
}

impl<'t> Lines<'t> {
    const fn of(text: &'t str) -> Self {
        Self { text, line: 1, start: 0 }
    }

    fn start(&mut self, line: u32) -> Option<usize> {
        while self.line < line {
            self.start += self.text.get(self.start..)?.find('\n')? + 1;
            self.line += 1;
        }
        (self.line == line).then_some(self.start)
    }
}
