//! Feeds [`holdfast_fuzz::state`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| holdfast_fuzz::state(bytes));
