//! The text a configuration is made of, and its digest.

use holdfast_protocol::handover::snapshot::hexadecimal;
use sha2::{Digest, Sha256};

use crate::snapshot;

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// What its errors call it: the path as given, or the directory's path and the entry's name.
    pub label: String,
    /// Its name without any directory. It goes into the digest.
    pub name: String,
    /// Its bytes as they are; they need not be UTF-8.
    pub contents: Vec<u8>,
}

/// All files of a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    files: Vec<Source>,
}

impl Sources {
    /// The configuration made of `files`, sorted by name whatever order they come in.
    #[must_use]
    pub fn new(mut files: Vec<Source>) -> Self {
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Self { files }
    }

    /// A configuration of one file whose label is its name.
    #[must_use]
    pub fn single(name: &str, contents: impl Into<Vec<u8>>) -> Self {
        let (label, name) = (name.to_owned(), name.to_owned());
        Self { files: vec![Source { label, name, contents: contents.into() }] }
    }

    /// The files, sorted by name.
    #[must_use]
    pub fn files(&self) -> &[Source] {
        &self.files
    }

    /// SHA-256 over the names and contents, in hexadecimal. The directory they are in does not
    /// count: the same files elsewhere are the same configuration.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for piece in snapshot::pieces(self) {
            hash.update((piece.len() as u64).to_le_bytes());
            hash.update(piece);
        }
        hexadecimal(&hash.finalize())
    }
}
