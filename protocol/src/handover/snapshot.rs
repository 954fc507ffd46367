//! The header of a snapshot: the last configuration that proved itself, in one file that outlives
//! every process.
//!
//! ```text
//! byte 0..8    magic "HFSNAPSH"
//! byte 8..10   version of the format, little endian
//! byte 10..42  digest of the configuration: SHA-256 of what follows
//! byte 42..    the configuration, which only the worker reads
//! ```

use core::fmt::Write as _;
use core::ops::Range;

/// What a snapshot begins with.
pub const MAGIC: [u8; 8] = *b"HFSNAPSH";

/// The version of the format.
pub const VERSION: u16 = 1;

/// Where the version is.
pub const VERSION_AT: Range<usize> = 8..10;

/// Where the digest is.
pub const DIGEST_AT: Range<usize> = 10..HEADER_BYTES;

/// The header's size in bytes.
pub const HEADER_BYTES: usize = 42;

/// The digest in a snapshot's header, in hexadecimal; `None` when it is not one. Of another version
/// it is said all the same: whoever reads the rest finds out.
#[must_use]
pub fn digest(header: &[u8; HEADER_BYTES]) -> Option<String> {
    header.starts_with(&MAGIC).then(|| hexadecimal(&header[DIGEST_AT]))
}

/// `sum` in hexadecimal.
#[must_use]
pub fn hexadecimal(sum: &[u8]) -> String {
    sum.iter().fold(String::with_capacity(2 * sum.len()), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_found_and_nothing_else_taken_for_one() {
        let mut header = [0xab; HEADER_BYTES];
        assert_eq!(digest(&header), None);
        header[..MAGIC.len()].copy_from_slice(&MAGIC);
        assert_eq!(digest(&header), Some("ab".repeat(32)));
    }
}
