//! A supervisor whose memory is its own, to be measured.

use std::error::Error;

use holdfast_lab::{Backend, Lab, Supervisor, TestResult, binaries, process, render};

use crate::scene::{FILE, web};

const KIB: u64 = 1024;

/// The promise: proportional set size while an estate is held.
const LARGEST_PSS: u64 = 1536 * KIB;

/// A supervisor that runs from a copy of its binary: pages shared with the supervisors of other
/// tests would make its proportional size smaller than it is on a node.
///
/// # Errors
///
/// When it does not start.
pub fn start_alone(lab: &Lab, red: &Backend) -> Result<Supervisor, Box<dyn Error>> {
    let binary = lab.directory().join("holdfast");
    binaries::replace(&binary, &binaries::find(binaries::SUPERVISOR)?)?;
    let file = lab.write(FILE, render(&[web(red)]))?;
    let worker = binaries::find(binaries::WORKER)?;
    Ok(lab.supervisor(&file).binary(&binary).with("--worker", worker).start()?)
}

/// It has one thread, and no more memory than promised.
///
/// # Errors
///
/// When it has ended.
///
/// # Panics
///
/// When it has more.
pub fn assert_small(supervisor: &Supervisor) -> TestResult {
    let pid = supervisor.pid();
    assert_eq!(process::threads(pid)?, 1);
    let pss = process::proportional_bytes(pid)?;
    assert!(pss <= LARGEST_PSS, "PSS is {} KiB", pss / KIB);
    Ok(())
}
