//! Feeds [`holdfast_fuzz::saves`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| holdfast_fuzz::saves(bytes));
