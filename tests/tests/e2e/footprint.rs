//! What the supervisor costs, and a worker with many endpoints. That neither grows is shown in the museum.

use std::fmt::Write as _;
use std::fs;

use holdfast_lab::wait::{eventually, holds};
use holdfast_lab::{Backend, TestResult, binaries, isolated, process};
use holdfast_protocol::handover::ConfigState;
use holdfast_tests::alone::{assert_small, start_alone};

use crate::scene::FILE;

/// The promise: the release binary.
const LARGEST_BINARY: u64 = 1_500_000;

/// The size that a worker's memory is promised for.
const SERVICES: u16 = 10_000;
const ENDPOINTS: u8 = 10;

/// Most memory of that worker at rest, in bytes: well below the 64 MiB that are promised, because the next worker
/// waits until the kernel has freed all of it. It keeps half of this, and as much again would be left over from
/// looking at all of the maps.
const LARGEST_WORKER: u64 = 44 * 1024 * 1024;

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

#[test]
fn a_worker_with_many_endpoints_keeps_what_it_needs_and_no_more() {
    isolated(|lab| -> TestResult {
        let mut text = "services:\n".to_owned();
        for number in 0..SERVICES {
            let [high, low] = number.to_be_bytes();
            let endpoints: Vec<String> =
                (1..=ENDPOINTS).map(|last| format!("{{ address: 127.1.0.{last} }}")).collect();
            writeln!(
                text,
                "- {{ name: s{number}, addresses: [127.97.{high}.{low}], ports: [{{ name: m, port: 80 }}], endpoints: \
                 [{}] }}",
                endpoints.join(", ")
            )?;
        }
        let mut supervisor = lab.supervisor(&lab.write(FILE, text)?).start()?;
        let status = supervisor.wait_until("all of it to be in force", |status| {
            status.config.state == ConfigState::InForce && status.services == u32::from(SERVICES)
        })?;
        eventually("a worker that is small", || -> Result<(), String> {
            let bytes = process::proportional_bytes(status.worker.pid);
            let bytes = bytes.map_err(|error| error.to_string())?;
            holds(bytes <= LARGEST_WORKER, || format!("it has {} KiB", bytes / 1024))
        })?;
        Ok(())
    });
}
