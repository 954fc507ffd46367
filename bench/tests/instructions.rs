//! How many instructions the configuration's compiler and the codec of messages take for a fixed piece
//! of work: a guard against slow growth that no clock of a shared machine would show.
//!
//! Counted by callgrind on the release binary, less what a process takes that does nothing. The counts are
//! the same from run to run; they differ by some per cent between compilers, their options and the C
//! library's variants for a processor, which the bounds leave room for.

use std::error::Error;
use std::process::Command;

use holdfast_lab::binaries;

/// The most instructions, in millions, a fifth above what was counted with Rust 1.95. A change that needs
/// more says why, and moves its bound.
const BOUNDS: [(&str, u64); 2] = [("compiler", 140), ("codec", 20)];

/// What `holdfast-bench exercise WORK` takes.
fn count(work: &str) -> Result<u64, Box<dyn Error>> {
    let binary = binaries::find("holdfast-bench")?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(binary)
        .args(["exercise", work])
        .output()
        .map_err(|error| format!("cannot run valgrind: {error}; tools/setup installs it"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        return Err(format!("exercise {work} failed: {said}").into());
    }
    // `==PID== Collected : 123456`
    let collected = said.lines().find_map(|line| line.split_once("Collected :"));
    let number = collected.and_then(|(_, number)| number.trim().parse().ok());
    number.ok_or_else(|| format!("callgrind counted nothing: {said}").into())
}

#[test]
fn no_piece_of_work_takes_more_instructions_than_its_bound() -> Result<(), Box<dyn Error>> {
    let nothing = count("nothing")?;
    let mut complaints = Vec::new();
    for (work, bound) in BOUNDS {
        let millions = count(work)?.saturating_sub(nothing) / 1_000_000;
        println!("{work}: {millions} million instructions, at most {bound}");
        assert!(millions > bound / 4, "{work} takes {millions} million: does it do anything?");
        if millions > bound {
            complaints.push(format!("{work}: {millions} million instructions, at most {bound}"));
        }
    }
    assert!(complaints.is_empty(), "{complaints:?}");
    Ok(())
}
