//! Feeds [`holdfast_fuzz::configurations`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| holdfast_fuzz::configurations(bytes));
