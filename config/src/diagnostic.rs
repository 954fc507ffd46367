//! Errors in a configuration, for the person who wrote it: where, what, and what to write instead.

use std::fmt;
use std::sync::Arc;

use crate::limit::MAX_DIAGNOSTICS;
use crate::source::Source;

/// Most characters of a line that are shown below an error. Two lines of a common terminal.
const MAX_SNIPPET_CHARACTERS: usize = 160;

/// Where something stands in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Position {
    /// From 1.
    pub(crate) line: u32,
    /// In characters, from 1.
    pub(crate) column: u32,
}

impl Position {
    /// The first character of a file.
    pub(crate) const START: Self = Self { line: 1, column: 1 };

    /// The place behind `text`, which is UTF-8.
    pub(crate) fn after(text: &[u8]) -> Self {
        let text = String::from_utf8_lossy(text);
        // A carriage return and a line feed are one line break.
        let breaks = match text.matches('\r').count() {
            0 => text.matches('\n').count(),
            returns => returns + text.matches('\n').count() - text.matches("\r\n").count(),
        };
        let last = text.rsplit(['\n', '\r']).next().unwrap_or_default();
        let number = |count: usize| u32::try_from(count + 1).unwrap_or(u32::MAX);
        Self { line: number(breaks), column: number(last.chars().count()) }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Which file something stands in: its place among the files, and what errors call it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileName {
    index: usize,
    label: Arc<str>,
}

/// One error. Its `Display` is one line: `web.yaml:12:15: port 0 is …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    file: FileName,
    position: Position,
    message: String,
    /// The line it is on, made safe for a terminal, and the caret's column in it.
    snippet: Option<(String, usize)>,
}

/// Every error of a configuration, in the order of its text; at least one.
///
/// At most [`MAX_DIAGNOSTICS`] are kept, the rest is counted. The `Display` is one line for logs:
/// the first error and how many more there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics {
    kept: Vec<Diagnostic>,
    omitted: usize,
}

impl Diagnostic {
    /// The file's label.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file.label
    }

    /// The line, from 1.
    #[must_use]
    pub fn line(&self) -> u32 {
        self.position.line
    }

    /// The column in characters, from 1.
    #[must_use]
    pub fn column(&self) -> u32 {
        self.position.column
    }

    /// What is wrong and what to write instead: one line, without control characters.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The line it is on, shortened and without control characters, and the column of the caret
    /// under it, from 0.
    #[must_use]
    pub fn snippet(&self) -> Option<(&str, usize)> {
        self.snippet.as_ref().map(|(line, caret)| (line.as_str(), *caret))
    }

    /// The form for a terminal: the line of `Display`, the line of the file and a caret below it.
    #[must_use]
    pub fn pretty(&self) -> String {
        let Some((line, caret)) = self.snippet() else { return self.to_string() };
        let number = self.position.line.to_string();
        let margin = " ".repeat(number.len());
        format!("{self}\n {number} | {line}\n {margin} | {:caret$}^", "")
    }
}

impl Diagnostics {
    /// The errors that were kept, in the order of the text.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.kept.iter()
    }

    /// How many further errors were found and not kept.
    #[must_use]
    pub fn omitted(&self) -> usize {
        self.omitted
    }

    /// How many errors there are in all.
    #[must_use]
    pub fn total(&self) -> usize {
        self.kept.len() + self.omitted
    }

    /// The form for a terminal: each error with its line and a caret.
    #[must_use]
    pub fn pretty(&self) -> String {
        let mut text: Vec<String> = self.kept.iter().map(Diagnostic::pretty).collect();
        if self.omitted > 0 {
            text.push(format!("and {} more", self.omitted));
        }
        text.join("\n")
    }

    /// Notes an error. The message is made only if it is kept.
    pub(crate) fn push(&mut self, file: &FileName, position: Position, message: impl fmt::Display) {
        if self.kept.len() >= MAX_DIAGNOSTICS {
            self.omitted += 1;
            return;
        }
        let message = printable(&message.to_string());
        self.kept.push(Diagnostic { file: file.clone(), position, message, snippet: None });
    }

    /// Sorts the errors by file and place, and adds the lines they are on.
    pub(crate) fn finish(mut self, files: &[Source]) -> Self {
        self.kept.sort_by_key(|diagnostic| (diagnostic.file.index, diagnostic.position));
        for of_a_file in self.kept.chunk_by_mut(|a, b| a.file.index == b.file.index) {
            if let Some(file) = files.get(of_a_file[0].file.index) {
                add_snippets(of_a_file, &file.contents);
            }
        }
        self
    }
}

impl FileName {
    /// The name of `files[index]`.
    pub(crate) fn new(index: usize, label: &str) -> Self {
        Self { index, label: printable(label).into() }
    }

    /// The place `position` in this file.
    pub(crate) fn at(&self, position: Position) -> impl fmt::Display {
        struct Place<'a>(&'a str, Position);
        impl fmt::Display for Place<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}:{}", self.0, self.1)
            }
        }
        Place(&self.label, position)
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.at(self.position), self.message)
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.kept.first() else { return f.write_str("no error") };
        match self.total() - 1 {
            0 => write!(f, "{first}"),
            more => write!(f, "{first} (and {more} more)"),
        }
    }
}

impl std::error::Error for Diagnostics {}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Adds to each of `diagnostics`, which are sorted and of one file, the line it is on. One pass
/// over the file, however many there are.
fn add_snippets(diagnostics: &mut [Diagnostic], contents: &[u8]) {
    let mut rest = contents.strip_prefix(b"\xef\xbb\xbf").unwrap_or(contents);
    let mut number = 1;
    for diagnostic in diagnostics {
        while number < diagnostic.position.line {
            let Some(end) = line_end(rest) else { return };
            // A carriage return and a line feed are one line break, as they are to the parser.
            let next = if rest[end..].starts_with(b"\r\n") { end + 2 } else { end + 1 };
            rest = &rest[next..];
            number += 1;
        }
        let line = &rest[..line_end(rest).unwrap_or(rest.len())];
        diagnostic.snippet = snippet(line, diagnostic.position.column as usize - 1);
    }
}

fn line_end(text: &[u8]) -> Option<usize> {
    text.iter().position(|byte| matches!(byte, b'\n' | b'\r'))
}

/// The part of `line` around its character `caret` that fits the limit, and the caret in it.
fn snippet(line: &[u8], caret: usize) -> Option<(String, usize)> {
    let start = caret.saturating_sub(MAX_SNIPPET_CHARACTERS / 2);
    let safe = |c: char| if c.is_control() { ' ' } else { c };
    // Each character of the text shows as one, so that the caret stays below the right one. A byte
    // sequence that is no text shows as the replacement character.
    let shown: String = String::from_utf8_lossy(line)
        .chars()
        .skip(start)
        .take(MAX_SNIPPET_CHARACTERS)
        .map(safe)
        .collect();
    let shown = shown.trim_end();
    (!shown.is_empty()).then(|| (shown.to_owned(), caret - start))
}

/// `text` with control characters escaped: what a file says must not move a terminal's cursor or
/// start a new line of a log.
fn printable(text: &str) -> String {
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.into() };
    text.chars().map(escape).collect()
}
