//! Feeds [`holdfast_fuzz::body`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| holdfast_fuzz::body(bytes));
