//! YAML text to a tree of nodes that know where they stand.
//!
//! The tree is a subset of what YAML can say: one document of mappings with text keys, lists and
//! scalars. Anchors, aliases, tags, merge keys and further documents are refused by name, because
//! each of them makes a text mean something else than it seems to; nesting and size are bounded.

use std::collections::HashMap;
use std::fmt;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};

use crate::diagnostic::Position;
use crate::limit::{MAX_DEPTH, MAX_NODES};
use crate::report::{Excerpt, Report};

/// A value and where it starts.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) position: Position,
    pub(crate) value: Value,
}

/// A value of the tree.
#[derive(Debug)]
pub(crate) enum Value {
    Scalar(Scalar),
    Sequence(Vec<Node>),
    /// In the text's order, without duplicate keys.
    Mapping(Vec<Entry>),
    /// Something that has been reported already: no more is said about it.
    Refused,
}

/// Text that is not a collection.
#[derive(Debug)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    /// Whether it is written without quotes.
    pub(crate) plain: bool,
}

/// One key of a mapping, and its value.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) position: Position,
    pub(crate) key: String,
    pub(crate) value: Node,
}

impl Scalar {
    /// Whether YAML takes it for no value at all.
    pub(crate) fn is_null(&self) -> bool {
        self.plain && matches!(self.text.as_str(), "" | "~" | "null" | "Null" | "NULL")
    }
}

/// The tree of `text`: `None` when it has none or is cut short by an error, which is reported.
/// An empty document is [`Scalar::is_null`].
pub(crate) fn grow(text: &str, report: &mut Report<'_>) -> Option<Node> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut parser = Parser::new_from_str(text);
    let mut builder = Builder::default();
    // To the parser what is behind the text is a line of its own.
    let end = Position::after(text.as_bytes());
    while let Some(event) = parser.next_event() {
        match event {
            Ok((Event::StreamEnd, _)) => break,
            Ok((event, span)) => builder.take(event, position(span.start).min(end), report).ok()?,
            Err(error) => {
                report_syntax(error.info(), position(*error.marker()).min(end), report);
                return None;
            }
        }
    }
    Some(builder.root.unwrap_or_else(empty_document))
}

fn report_syntax(problem: &str, at: Position, report: &mut Report<'_>) {
    // Until a bracket is closed it could turn out to be a key, so the parser looks ahead, and
    // itself stops at 255 open ones.
    if problem.contains("recursion limit") {
        report.at(at, TooDeep);
    } else {
        report.at(at, format_args!("not valid YAML: {problem}"));
    }
}

struct TooDeep;

impl fmt::Display for TooDeep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nested more than {MAX_DEPTH} deep")
    }
}

fn empty_document() -> Node {
    let scalar = Scalar { text: String::new(), plain: true };
    Node { position: Position::START, value: Value::Scalar(scalar) }
}

fn position(marker: Marker) -> Position {
    // Files are far smaller than 4 GiB, so the conversions always fit.
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Position { line: number(marker.line()).max(1), column: number(marker.col()).saturating_add(1) }
}

/// Says that the rest of the file is not looked at; why has been reported.
struct Abandoned;

/// Puts nodes together from events, without recursion.
#[derive(Default)]
struct Builder {
    root: Option<Node>,
    open: Vec<Collection>,
    nodes: usize,
    documents: usize,
}

/// A collection whose end has not come yet.
struct Collection {
    position: Position,
    contents: Contents,
}

enum Contents {
    Sequence(Vec<Node>),
    Mapping { entries: Vec<Entry>, key: Option<Key> },
}

/// A key whose value has not come yet; no text when the key has been refused.
struct Key {
    position: Position,
    text: Option<String>,
}

impl Builder {
    fn take(
        &mut self,
        event: Event<'_>,
        position: Position,
        report: &mut Report<'_>,
    ) -> Result<(), Abandoned> {
        match event {
            Event::DocumentStart(_) => return self.start_document(position, report),
            Event::Scalar(text, style, anchor, tag) => {
                self.count(position, report)?;
                let plain = style == ScalarStyle::Plain;
                let scalar = Scalar { text: text.into_owned(), plain };
                let refused = refuse_properties(anchor, tag.as_deref(), position, report);
                let value = if refused { Value::Refused } else { Value::Scalar(scalar) };
                self.finish(Node { position, value }, report);
            }
            Event::Alias(_) => {
                self.count(position, report)?;
                report.at(position, "aliases (*name) are not supported: write the value out");
                self.finish(Node { position, value: Value::Refused }, report);
            }
            Event::SequenceStart(anchor, tag) => {
                refuse_properties(anchor, tag.as_deref(), position, report);
                self.begin(position, Contents::Sequence(Vec::new()), report)?;
            }
            Event::MappingStart(anchor, tag) => {
                refuse_properties(anchor, tag.as_deref(), position, report);
                let contents = Contents::Mapping { entries: Vec::new(), key: None };
                self.begin(position, contents, report)?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let closed = self.open.pop().expect("the parser closes only what it has opened");
                self.finish(closed.close(report), report);
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn start_document(
        &mut self,
        position: Position,
        report: &mut Report<'_>,
    ) -> Result<(), Abandoned> {
        self.documents += 1;
        if self.documents > 1 {
            report.at(
                position,
                "a second document: a file holds one; put the other into a file of its own",
            );
            return Err(Abandoned);
        }
        Ok(())
    }

    fn count(&mut self, position: Position, report: &mut Report<'_>) -> Result<(), Abandoned> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            report.at(position, format_args!("the file has more than {MAX_NODES} values"));
            return Err(Abandoned);
        }
        Ok(())
    }

    fn begin(
        &mut self,
        position: Position,
        contents: Contents,
        report: &mut Report<'_>,
    ) -> Result<(), Abandoned> {
        self.count(position, report)?;
        if self.open.len() == MAX_DEPTH {
            report.at(position, TooDeep);
            return Err(Abandoned);
        }
        self.open.push(Collection { position, contents });
        Ok(())
    }

    fn finish(&mut self, node: Node, report: &mut Report<'_>) {
        match self.open.last_mut().map(|collection| &mut collection.contents) {
            None => self.root = Some(node),
            Some(Contents::Sequence(items)) => items.push(node),
            Some(Contents::Mapping { entries, key }) => match key.take() {
                None => *key = Some(Key::of(node, report)),
                Some(Key { position, text: Some(key) }) => {
                    entries.push(Entry { position, key, value: node });
                }
                Some(Key { text: None, .. }) => {}
            },
        }
    }
}

impl Collection {
    fn close(self, report: &mut Report<'_>) -> Node {
        let value = match self.contents {
            Contents::Sequence(items) => Value::Sequence(items),
            Contents::Mapping { entries, .. } => {
                Value::Mapping(without_duplicates(entries, report))
            }
        };
        Node { position: self.position, value }
    }
}

impl Key {
    fn of(node: Node, report: &mut Report<'_>) -> Self {
        let position = node.position;
        let text = match node.value {
            Value::Scalar(Scalar { text, plain: true }) if text == "<<" => {
                report.at(position, "merge keys (<<) are not supported: write the keys out");
                None
            }
            Value::Scalar(scalar) => Some(scalar.text),
            Value::Refused => None,
            Value::Sequence(_) | Value::Mapping(_) => {
                report.at(position, "a list or mapping as a key: a key is one word");
                None
            }
        };
        Self { position, text }
    }
}

/// Whether a node carries an anchor or a tag, which is reported.
fn refuse_properties(
    anchor: usize,
    tag: Option<&Tag>,
    position: Position,
    report: &mut Report<'_>,
) -> bool {
    if anchor != 0 {
        report.at(
            position,
            "anchors (&name) are not supported: write the value out where it is used",
        );
    }
    if let Some(tag) = tag {
        let handle = if tag.is_yaml_core_schema() { "!!" } else { &tag.handle };
        let tag = format!("{handle}{}", tag.suffix);
        report.at(position, format_args!("tags are not supported: remove {}", Excerpt(&tag)));
    }
    anchor != 0 || tag.is_some()
}

/// The entries whose key comes first; each further one of the same key is reported.
fn without_duplicates(mut entries: Vec<Entry>, report: &mut Report<'_>) -> Vec<Entry> {
    let mut first = HashMap::with_capacity(entries.len());
    let duplicate: Vec<bool> = entries
        .iter()
        .map(|entry| match first.get(entry.key.as_str()) {
            None => first.insert(entry.key.as_str(), entry.position).is_some(),
            Some(earlier) => {
                let key = Excerpt(&entry.key);
                report.at(
                    entry.position,
                    format_args!("the key {key} is here twice, first at {earlier}"),
                );
                true
            }
        })
        .collect();
    drop(first);
    let mut duplicate = duplicate.into_iter();
    entries.retain(|_| !duplicate.next().expect("one for each entry"));
    entries
}
