//! Access to the keys of a mapping: the known ones by name, the unknown ones reported.

use crate::diagnostic::Position;
use crate::report::{OneOf, Report, Suggestion};
use crate::tree::{Entry, Node, Scalar, Value};

/// A mapping whose unknown keys have been reported.
pub(crate) struct Fields<'t> {
    pub(crate) position: Position,
    entries: &'t [Entry],
}

impl<'t> Fields<'t> {
    /// The keys of `node`, which has to be a mapping: `what` names it, `known` are its keys.
    pub(crate) fn of(
        node: &'t Node,
        what: &str,
        known: &[&str],
        report: &mut Report<'_>,
    ) -> Option<Self> {
        let entries = match &node.value {
            Value::Mapping(entries) => entries,
            Value::Refused => return None,
            other => {
                let found = describe(other);
                let keys = OneOf(known);
                let wanted = format_args!("write a mapping with keys of {keys}");
                report.at(node.position, format_args!("{what} is {found}: {wanted}"));
                return None;
            }
        };
        for entry in entries.iter().filter(|entry| !known.contains(&entry.key.as_str())) {
            let suggestion = Suggestion { word: &entry.key, known };
            let key = crate::report::Excerpt(&entry.key);
            report.at(entry.position, format_args!("unknown key {key} in {what}; {suggestion}"));
        }
        Some(Self { position: node.position, entries })
    }

    /// The value of `key`, if it is there.
    pub(crate) fn get(&self, key: &str) -> Option<&'t Node> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }

    /// The value of `key`, which has to be there.
    pub(crate) fn require(
        &self,
        key: &str,
        what: &str,
        report: &mut Report<'_>,
    ) -> Option<&'t Node> {
        let value = self.get(key);
        if value.is_none() {
            report.at(self.position, format_args!("{what} has no `{key}`: add it"));
        }
        value
    }
}

/// The scalar at `node`; `what` names it in the error when it is a collection.
pub(crate) fn scalar<'t>(
    node: &'t Node,
    what: &str,
    report: &mut Report<'_>,
) -> Option<&'t Scalar> {
    match &node.value {
        Value::Scalar(scalar) => Some(scalar),
        Value::Refused => None,
        other => {
            let found = describe(other);
            report.at(node.position, format_args!("{what} is {found}: write one value"));
            None
        }
    }
}

/// The items at `node`, which has to be a list of at most `most`. An empty value is no empty list:
/// it is what a save that was cut off leaves.
pub(crate) fn list<'t>(
    node: &'t Node,
    key: &str,
    most: usize,
    report: &mut Report<'_>,
) -> Option<&'t [Node]> {
    match &node.value {
        Value::Sequence(items) if items.len() > most => {
            let count = items.len();
            report.at(
                node.position,
                format_args!("`{key}` has {count} entries; the limit is {most}"),
            );
            None
        }
        Value::Sequence(items) => Some(items),
        Value::Refused => None,
        Value::Scalar(scalar) if scalar.is_null() => {
            report.at(node.position, format_args!("`{key}` is empty: write `[]` for none"));
            None
        }
        other => {
            let found = describe(other);
            report.at(
                node.position,
                format_args!("`{key}` is {found}: write a list, each entry after a `-`"),
            );
            None
        }
    }
}

fn describe(value: &Value) -> &'static str {
    match value {
        Value::Scalar(scalar) if scalar.is_null() => "empty",
        Value::Scalar(_) => "a single value",
        Value::Sequence(_) => "a list",
        Value::Mapping(_) => "a mapping",
        Value::Refused => "not usable",
    }
}
