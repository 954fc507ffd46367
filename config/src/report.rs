//! What the stages say about one file, and how they quote it.

use std::fmt;

use crate::diagnostic::{Diagnostics, FileName, Position};

/// Most characters of a value that are quoted in a message.
const MAX_EXCERPT_CHARACTERS: usize = 64;

/// Most characters of an unknown key for which a similar known one is looked for. Comparing takes
/// time in proportion to the length, and no known key is nearly as long.
const MAX_SIMILAR_CHARACTERS: usize = 32;

/// Most edits (a character added, left out, replaced, or swapped with its neighbour) for which a
/// key still counts as a slip of the finger.
const MAX_SLIPS: usize = 2;

/// Takes down what is wrong with one file.
pub(crate) struct Report<'a> {
    diagnostics: &'a mut Diagnostics,
    file: FileName,
}

impl<'a> Report<'a> {
    pub(crate) fn new(diagnostics: &'a mut Diagnostics, file: FileName) -> Self {
        Self { diagnostics, file }
    }

    /// Takes down `message`. Give `format_args!`: it is formatted only if it is kept.
    pub(crate) fn at(&mut self, position: Position, message: impl fmt::Display) {
        self.diagnostics.push(&self.file, position, message);
    }

    /// The value, or `None` and its error taken down.
    pub(crate) fn accept<T>(
        &mut self,
        position: Position,
        result: Result<T, impl fmt::Display>,
    ) -> Option<T> {
        result.map_err(|error| self.at(position, error)).ok()
    }
}

/// Text from the file, in backquotes and shortened.
pub(crate) struct Excerpt<'a>(pub(crate) &'a str);

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(MAX_EXCERPT_CHARACTERS) {
            None => write!(f, "`{}`", self.0),
            Some((end, _)) => write!(f, "`{}…`", &self.0[..end]),
        }
    }
}

/// Words one after the other: `a`, `b` or `c`.
pub(crate) struct OneOf<'a>(pub(crate) &'a [&'a str]);

impl fmt::Display for OneOf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, word) in self.0.iter().enumerate() {
            let before = match i {
                0 => "",
                _ if i + 1 == self.0.len() => " or ",
                _ => ", ",
            };
            write!(f, "{before}`{word}`")?;
        }
        Ok(())
    }
}

/// The end of a message about `word`, which is none of `known`.
pub(crate) struct Suggestion<'a> {
    pub(crate) word: &'a str,
    pub(crate) known: &'a [&'a str],
}

impl fmt::Display for Suggestion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(similar) = similar(self.word, self.known) {
            write!(f, "did you mean `{similar}`? ")?;
        }
        write!(f, "Possible here: {}", OneOf(self.known))
    }
}

fn similar<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    if word.chars().count() > MAX_SIMILAR_CHARACTERS {
        return None;
    }
    let word = word.to_lowercase().replace('-', "_");
    let distance = |known: &&str| strsim::damerau_levenshtein(&word, known);
    let (slips, nearest) =
        known.iter().map(|known| (distance(known), *known)).min_by_key(|(slips, _)| *slips)?;
    // A short word turns into any other one within two slips.
    (slips <= MAX_SLIPS.min(nearest.len() / 2)).then_some(nearest)
}
