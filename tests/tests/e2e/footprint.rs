//! What the supervisor costs. That it does not grow is shown in the museum.

use std::fs;

use holdfast_lab::{Backend, binaries, isolated};
use holdfast_tests::alone::{assert_small, start_alone};

/// The promise: the release binary.
const LARGEST_BINARY: u64 = 1_500_000;

#[test]
fn the_supervisor_is_small() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        assert_small(&start_alone(lab, &red)?)?;
        let binary = fs::metadata(binaries::find(binaries::SUPERVISOR)?)?.len();
        assert!(binary <= LARGEST_BINARY, "the binary has {binary} bytes");
        Ok(())
    });
}
