//! The items of a list that have to be parsed again, and what they say now.

use std::ops::Range;

use super::change::Change;
use super::layout::{Items, Layout};
use crate::check;
use crate::decode;
use crate::diagnostic::{Diagnostics, FileName};
use crate::limit::{MAX_FILE_BYTES, MAX_NODES, MAX_SERVICES};
use crate::model::Service;
use crate::report::Report;
use crate::tree::{self, Value};

/// What stands before the items when they are a document of their own: they are then nested as deep, and
/// in the same kinds of collection, as in the whole text.
const HEAD: &str = "services:\n";

/// What takes the place of some services of a file.
pub(super) struct Patch {
    /// The number of the file.
    pub(super) file: usize,
    /// Which services, counted within the file.
    pub(super) items: Range<usize>,
    /// What is there now.
    pub(super) services: Vec<Service>,
    /// Where that stands.
    pub(super) layout: Items,
    /// How much further on everything behind them is.
    pub(super) delta: i64,
}

/// A part of a new text that is parsed.
pub(super) struct Window {
    /// The former items that differ.
    items: Range<usize>,
    /// From the first of them to the end of what is parsed.
    text: Range<usize>,
    /// Where what has not changed begins, if there is anything.
    end: End,
}

#[derive(Clone, Copy)]
enum End {
    /// With the next item, which is parsed to see that it begins there.
    Item(usize),
    /// With the next key, likewise.
    Key(usize),
    /// Nowhere: what differs goes on until the end of the text.
    Text,
}

impl Window {
    /// How much is parsed.
    pub(super) fn bytes(&self) -> usize {
        self.text.len()
    }
}

impl Patch {
    /// What `change` makes of the services that stand in `layout`, the text being `text` now and `window` the
    /// part of it to parse; `None` when that is not certain, or an error.
    pub(super) fn of(
        layout: &Layout,
        change: &Change,
        window: Window,
        text: &[u8],
        (number, names): (usize, &[FileName]),
        is_placed: bool,
    ) -> Option<Self> {
        if text.len() > MAX_FILE_BYTES {
            return None;
        }
        let Window { items, text: range, end } = window;
        let document = format!("{HEAD}{}", std::str::from_utf8(text.get(range.clone())?).ok()?);
        let mut diagnostics = Diagnostics::default();
        let mut report = Report::new(&mut diagnostics, names[number].clone());
        let root = tree::grow(&document, &mut report)?;
        let found = Layout::of(&document, &root)?;
        let absolute = |start: usize| start - HEAD.len() + range.start;
        let starts: Vec<usize> = found.starts.iter().map(|it| absolute(*it as usize)).collect();
        let tail = found.tail.map(|tail| absolute(tail as usize));
        let count = match end {
            End::Item(at) if starts.last() == Some(&at) && tail.is_none() => starts.len() - 1,
            End::Key(at) if tail == Some(at) => starts.len(),
            End::Text if tail.is_none() => starts.len(),
            _ => return None,
        };
        let is_the_list = found.indent == layout.indent && starts.first() == Some(&range.start);
        let is_bounded = layout.nodes_with(&items, &found.nodes()[..count]) <= MAX_NODES
            && layout.len() - items.len() + count <= MAX_SERVICES;
        let Value::Mapping(entries) = &root.value else { return None };
        let Value::Sequence(nodes) = &entries.first()?.value.value else { return None };
        if !is_the_list || !is_bounded {
            return None;
        }
        let decoded = nodes[..count].iter().map(|node| decode::service(node, number, &mut report));
        let located: Vec<decode::Located> = decoded.collect::<Option<_>>()?;
        check::alone(&located, is_placed, names, &mut diagnostics);
        if diagnostics.total() > 0 {
            return None;
        }
        let services = located.into_iter().map(|located| located.service).collect();
        let starts = starts[..count].iter().map(|it| u32::try_from(*it).ok());
        let layout = Items {
            starts: starts.collect::<Option<_>>()?,
            nodes: found.nodes()[..count].to_vec(),
        };
        let delta = i64::try_from(change.new).ok()? - i64::try_from(change.old).ok()?;
        Some(Self { file: number, items, services, layout, delta })
    }
}

/// What has to be parsed of a text that has undergone `change` and was laid out as `layout` says.
pub(super) fn window(layout: &Layout, change: &Change) -> Option<Window> {
    let starts = &layout.starts;
    // The line that begins the first item is as it was, up to what follows the dash. So whatever is
    // before it ends where it did.
    let begins = |start: &u32| *start as usize + layout.indent + "- ".len() <= change.prefix;
    let first = starts.partition_point(begins).checked_sub(1)?;
    // Behind the first item all is as it was.
    let differs = |start: &u32| (*start as usize) < change.old_end();
    let last = starts.partition_point(differs).max(first + 1);
    let tail = layout.tail.map(|tail| tail as usize);
    let (end, until) = match starts.get(last) {
        Some(start) => {
            let behind = starts.get(last + 1).map(|start| *start as usize).or(tail);
            (
                End::Item(change.moved(*start as usize)),
                behind.map_or(change.new, |it| change.moved(it)),
            )
        }
        None => match tail {
            Some(tail) if tail < change.old_end() => return None,
            Some(tail) => (End::Key(change.moved(tail)), change.new),
            None => (End::Text, change.new),
        },
    };
    Some(Window { items: first..last, text: starts[first] as usize..until, end })
}
