//! A configuration as one file that can be trusted whole or not at all:
//!
//! ```text
//! byte 0..42  header, see [`holdfast_protocol::handover::snapshot`]
//! byte 42..   for each file, by name: length of its name, name, length of its text, text;
//!             lengths are 8 bytes, little endian
//! ```
//!
//! It keeps the text and not what it means: a later version of the language reads it as it would
//! read the file it came from.

use holdfast_protocol::handover::snapshot::{DIGEST_AT, HEADER_BYTES, MAGIC, VERSION, VERSION_AT};
use sha2::{Digest, Sha256};

use crate::limit::{MAX_FILES, MAX_TOTAL_BYTES};
use crate::source::{Source, Sources};

/// Longest name of a file: what a directory entry may have (`NAME_MAX`).
const MAX_NAME_BYTES: usize = 255;

/// Largest snapshot in bytes: the largest configuration, its names and its lengths.
pub const MAX_BYTES: usize = HEADER_BYTES + MAX_TOTAL_BYTES + MAX_FILES * (MAX_NAME_BYTES + 16);

/// Why bytes are not a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Something else, or nothing.
    #[error("it is not a snapshot")]
    Foreign,
    /// By another version.
    #[error("it has version {0} of the format, and this binary reads version {VERSION}")]
    Version(u16),
    /// Not what was written.
    #[error("it is damaged: its checksum does not fit")]
    Damaged,
    /// More than anything that could have been written.
    #[error("it has more than {MAX_BYTES} bytes")]
    TooLong,
    /// Its checksum fits, and yet it is not what this format says.
    #[error("it is inconsistent: {0}")]
    Inconsistent(&'static str),
}

/// `sources` as a snapshot: its header, and the pieces that follow.
#[must_use]
pub fn encode(sources: &Sources) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_BYTES];
    for piece in pieces(sources) {
        bytes.extend_from_slice(&(piece.len() as u64).to_le_bytes());
        bytes.extend_from_slice(piece);
    }
    let sum = Sha256::digest(&bytes[HEADER_BYTES..]);
    bytes[..MAGIC.len()].copy_from_slice(&MAGIC);
    bytes[VERSION_AT].copy_from_slice(&VERSION.to_le_bytes());
    bytes[DIGEST_AT].copy_from_slice(&sum);
    bytes
}

/// The configuration in a snapshot. Its errors will call its files `snapshot/NAME`.
///
/// # Errors
///
/// Any [`SnapshotError`]; nothing of it may be used then.
pub fn decode(bytes: &[u8]) -> Result<Sources, SnapshotError> {
    if bytes.len() > MAX_BYTES {
        return Err(SnapshotError::TooLong);
    }
    let (header, mut body) = bytes.split_at_checked(HEADER_BYTES).ok_or(SnapshotError::Foreign)?;
    if !header.starts_with(&MAGIC) {
        return Err(SnapshotError::Foreign);
    }
    match u16::from_le_bytes([header[VERSION_AT.start], header[VERSION_AT.start + 1]]) {
        VERSION => {}
        other => return Err(SnapshotError::Version(other)),
    }
    if header[DIGEST_AT] != *Sha256::digest(body) {
        return Err(SnapshotError::Damaged);
    }
    let mut files: Vec<Source> = Vec::new();
    while !body.is_empty() {
        if files.len() == MAX_FILES {
            return Err(SnapshotError::Inconsistent("it has too many files"));
        }
        let name = std::str::from_utf8(next_piece(&mut body, MAX_NAME_BYTES)?)
            .map_err(|_| SnapshotError::Inconsistent("a file's name is not UTF-8"))?;
        let contents = next_piece(&mut body, MAX_TOTAL_BYTES)?.to_vec();
        if files.last().is_some_and(|last| last.name.as_str() > name) {
            return Err(SnapshotError::Inconsistent(
                "its files are not in the order of their names",
            ));
        }
        files.push(Source { label: format!("snapshot/{name}"), name: name.to_owned(), contents });
    }
    Ok(Sources::new(files))
}

/// What a digest is taken of, and a snapshot keeps: names and texts, file by file. Lengths in front
/// keep two different sets of files from being the same bytes.
pub(crate) fn pieces(sources: &Sources) -> impl Iterator<Item = &[u8]> {
    sources.files().iter().flat_map(|file| [file.name.as_bytes(), &file.contents])
}

fn next_piece<'a>(body: &mut &'a [u8], limit: usize) -> Result<&'a [u8], SnapshotError> {
    const SHORT: SnapshotError = SnapshotError::Inconsistent("it ends within a file");
    let (length, rest) = body.split_first_chunk().ok_or(SHORT)?;
    let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| SHORT)?;
    if length > limit {
        return Err(SnapshotError::Inconsistent("a file or its name is too long"));
    }
    let (piece, rest) = rest.split_at_checked(length).ok_or(SHORT)?;
    *body = rest;
    Ok(piece)
}

#[cfg(test)]
mod tests {
    use holdfast_protocol::handover::snapshot::hexadecimal;
    use proptest::prelude::*;

    use super::*;

    fn file(name: &str, contents: &str) -> Source {
        let label = format!("snapshot/{name}");
        Source { label, name: name.to_owned(), contents: contents.into() }
    }

    fn sources() -> Sources {
        Sources::new(vec![file("b.yaml", "services: []"), file("a.yaml", "")])
    }

    #[test]
    fn it_is_read_back_whole_and_says_the_digest() {
        let bytes = encode(&sources());
        assert_eq!(decode(&bytes), Ok(sources()));
        assert_eq!(hexadecimal(&bytes[DIGEST_AT]), sources().digest());
    }

    #[test]
    fn every_beginning_of_it_is_refused() {
        let bytes = encode(&sources());
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn another_version_is_named() {
        let mut bytes = encode(&sources());
        bytes[VERSION_AT.start] = 9;
        assert_eq!(decode(&bytes), Err(SnapshotError::Version(9)));
    }

    #[test]
    fn what_it_could_not_have_written_is_refused_although_its_checksum_fits() {
        let sealed = |body: &[u8]| {
            let mut bytes = encode(&Sources::default());
            bytes.extend_from_slice(body);
            bytes[DIGEST_AT].copy_from_slice(&Sha256::digest(body));
            decode(&bytes)
        };
        let piece = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
        assert!(sealed(&[piece("a"), piece("x")].concat()).is_ok());
        let long = piece(&"n".repeat(MAX_NAME_BYTES + 1));
        let wrong = [
            piece("a"),
            [piece("b"), piece(""), piece("a"), piece("")].concat(),
            [long, piece("")].concat(),
            [1_u64.to_le_bytes().to_vec(), vec![0xff], piece("")].concat(),
            u64::MAX.to_le_bytes().to_vec(),
        ];
        for body in wrong {
            assert!(matches!(sealed(&body), Err(SnapshotError::Inconsistent(_))), "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn one_changed_byte_is_noticed(at in any::<prop::sample::Index>(), by in 1_u8..) {
            let mut bytes = encode(&sources());
            let at = at.index(bytes.len());
            bytes[at] = bytes[at].wrapping_add(by);
            prop_assert!(decode(&bytes).is_err());
        }

        #[test]
        fn any_configuration_is_read_back(texts in prop::collection::btree_map("[a-z]{1,9}", "\\PC{0,40}", 0..9)) {
            let files = texts.iter().map(|(name, text)| file(name, text)).collect();
            let sources = Sources::new(files);
            prop_assert_eq!(decode(&encode(&sources)), Ok(sources));
        }
    }
}
